//! Names that a pattern matches, in the order in which a page tells them. Pure; for the stores.

use super::{Pattern, RankPosition, Through};

/// Names that are looked at in one batch: what is told first of many that match is the best of so many.
pub(super) const BATCH: usize = 1000;
/// Names that are looked at, at the most, for those that a pattern [opens](Pattern::opens).
pub(super) const OPENED: usize = 64;

/// Those of these names that match, each once, with its rank: by rank, then by name; from the last one seen on, which comes
/// again where only a part of it was.
pub(super) fn ranked<T: Ord>(
    pattern: &Pattern,
    names: impl IntoIterator<Item = (String, T)>,
    seen: Option<&RankPosition>,
) -> Vec<(u8, String, T)> {
    let names = names.into_iter().filter(|(name, _)| pattern.matches(name));
    let names = names.map(|(name, id)| (pattern.rank(&name), name, id));
    let mut names: Vec<_> =
        names.filter(|(rank, name, _)| seen.is_none_or(|seen| is_new(seen, *rank, name))).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn is_new(seen: &RankPosition, rank: u8, name: &str) -> bool {
    let (this, last) = ((rank, name), (seen.rank, &*seen.at.name));
    match seen.at.through {
        Through::Name => this > last,
        Through::Content(_) => this >= last,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::NamePosition;

    #[test]
    fn what_was_seen_does_not_come_again() {
        let pattern = Pattern::parse("a").unwrap();
        let names = ["xa", "a", "b", "ab", "a"].map(|name| (name.to_owned(), ()));
        let after = |seen: Option<(u8, &str, Through)>| {
            let seen = seen.map(|(rank, name, through)| RankPosition {
                rank,
                at: NamePosition { name: name.to_owned(), through },
            });
            let names = ranked(&pattern, names.clone(), seen.as_ref());
            names.into_iter().map(|(_, name, ())| name).collect::<Vec<_>>()
        };
        assert_eq!(after(None), ["a", "ab", "xa"]);
        assert_eq!(after(Some((2, "ab", Through::Name))), ["xa"]);
        assert_eq!(after(Some((2, "ab", Through::Content(None)))), ["ab", "xa"]);
        // One that is gone since: what comes after it in order is next.
        assert_eq!(after(Some((1, "z", Through::Name))), ["ab", "xa"]);
    }
}

//! Cursors of listings: where a page ended, sealed so that only what this program gave out is taken back. Pure.
//!
//! A cursor is bound to its listing (whose files, which prefix, which text): taken to another one it is refused,
//! because the files after it would be the wrong ones. The seal is no secret. It finds mistakes, and what is in the
//! cursor is checked like any other input.

use p2p_service::problem::Problem;

/// Bytes of the seal.
const SEAL_LEN: usize = 8;

/// The longest place that is taken: a share's name and a file's, or what another peer calls its place.
const MAX_PLACE_LEN: usize = 8 * 1024;

/// What a listing is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listing {
    scope: blake3::Hash,
}

impl Listing {
    /// The listing that these words tell from all others.
    pub(super) fn of(words: &[&str]) -> Listing {
        let mut hasher = blake3::Hasher::new_derive_key("p2pd v1 cursor of a listing");
        for word in words {
            // The lengths keep ("ab", "c") apart from ("a", "bc").
            hasher.update(&(word.len() as u64).to_le_bytes());
            hasher.update(word.as_bytes());
        }
        Listing { scope: hasher.finalize() }
    }

    /// The cursor of a place in it.
    pub(super) fn cursor(&self, place: &str) -> String {
        let seal = self.seal(place.as_bytes());
        seal.iter().chain(place.as_bytes()).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The place that a cursor stands for.
    pub(super) fn place(&self, cursor: &str) -> Result<String, Problem> {
        self.open(cursor).ok_or_else(invalid)
    }

    /// The cursor of what follows a file of a share, where a name alone is no place: several shares may have it.
    pub(super) fn after(&self, name: &str, share: &str) -> String {
        // Neither a name nor the configuration's name of a share has a NUL.
        self.cursor(&format!("{name}\0{share}"))
    }

    /// The name and the share that a cursor stands for.
    pub(super) fn name_and_share(&self, cursor: &str) -> Result<(String, String), Problem> {
        let place = self.place(cursor)?;
        let (name, share) = place.split_once('\0').ok_or_else(invalid)?;
        Ok((name.to_owned(), share.to_owned()))
    }

    fn seal(&self, place: &[u8]) -> [u8; SEAL_LEN] {
        let hash = blake3::keyed_hash(self.scope.as_bytes(), place);
        let mut seal = [0; SEAL_LEN];
        seal.copy_from_slice(&hash.as_bytes()[..SEAL_LEN]);
        seal
    }

    fn open(&self, cursor: &str) -> Option<String> {
        let digits = cursor.as_bytes();
        if digits.len() > 2 * (SEAL_LEN + MAX_PLACE_LEN) || !digits.len().is_multiple_of(2) {
            return None;
        }
        let bytes: Option<Vec<u8>> =
            digits.chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect();
        let bytes = bytes?;
        let (seal, place) = bytes.split_at_checked(SEAL_LEN)?;
        if seal != self.seal(place) {
            return None;
        }
        String::from_utf8(place.to_vec()).ok()
    }
}

/// The refusal of a cursor.
pub(super) fn invalid() -> Problem {
    Problem::bad_request("invalid-cursor", "the cursor is not one of this listing")
        .hint("give the `next` of the previous page as it is, with the same query otherwise; or start without a cursor")
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code(result: Result<impl std::fmt::Debug, Problem>) -> String {
        result.unwrap_err().body().code.clone()
    }

    #[test]
    fn what_was_given_out_comes_back() {
        let listing = Listing::of(&["own", "docs/", ""]);
        let cursor = listing.after("docs/ñ b.txt", "main");
        assert!(
            cursor.bytes().all(|byte| byte.is_ascii_alphanumeric()),
            "fit for a query as it is: {cursor}"
        );
        assert_eq!(listing.name_and_share(&cursor).unwrap(), ("docs/ñ b.txt".to_owned(), "main".to_owned()));
    }

    #[test]
    fn the_cursor_of_another_listing_is_refused() {
        let cursor = Listing::of(&["own", "a", ""]).after("a/b", "main");
        for other in [&["own", "", "a"][..], &["own", "a", "b"], &["network", "a", ""], &["owna", "", ""]] {
            assert_eq!(code(Listing::of(other).name_and_share(&cursor)), "invalid-cursor");
        }
    }

    #[test]
    fn a_place_without_a_share_is_refused_where_one_belongs() {
        let listing = Listing::of(&["own"]);
        assert_eq!(code(listing.name_and_share(&listing.cursor("a"))), "invalid-cursor");
    }

    proptest! {
        #[test]
        fn forged_cursors_are_refused(text in ".{0,60}", name in "[a-z/]{1,20}", at in 0usize..1000) {
            let listing = Listing::of(&["own"]);
            prop_assert_eq!(code(listing.place(&text)), "invalid-cursor");
            let mut cursor = listing.cursor(&name).into_bytes();
            let at = at % cursor.len();
            cursor[at] = if cursor[at] == b'0' { b'1' } else { b'0' };
            let forged = String::from_utf8(cursor).unwrap();
            prop_assert_eq!(code(listing.place(&forged)), "invalid-cursor");
        }
    }
}

//! What a person types to find a file: a part of its name, or a pattern with `*` and `?`. Pure.
//!
//! Used by the edges, which make one of a text, and by the stores, which try names with it. What is found by a part of
//! its name has a rank, a function of the name alone: pages in order of rank hold together while peers come and go.

use std::collections::HashMap;

/// Longest text, in bytes: that of a name.
pub const MAX_TEXT_BYTES: usize = p2p_content::MAX_NAME_BYTES;
/// Longest pattern with `*` or `?`, in characters once runs of stars are one: a bit each, and one for its end.
pub const MAX_GLOB_CHARS: usize = 127;
/// The rank of what matches a pattern that ranks nothing.
const NO_RANK: u8 = 0;

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// No name is that long.
    #[error("the text to search for has {0} bytes, and no name has more than {MAX_TEXT_BYTES}")]
    TooLong(usize),
    /// It has wildcards, and is longer than what is matched with them.
    #[error("a pattern with * or ? has at most {MAX_GLOB_CHARS} characters, and this has {0}")]
    GlobTooLong(usize),
}

/// A text that names match or not, without regard to case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    form: Form,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// The name contains this, which is in lower case.
    Part(String),
    Glob(Glob),
}

impl Pattern {
    /// A text without `*` and `?` is a part of the name. With them it is a pattern: `?` is one character and `*` any
    /// number of them, but for `/`, which only `**` takes. A pattern without `/` is of the last component of the name,
    /// another one of the whole name.
    ///
    /// # Errors
    ///
    /// [`InvalidPattern`] for what is too long.
    pub fn parse(text: &str) -> Result<Pattern, InvalidPattern> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(InvalidPattern::TooLong(text.len()));
        }
        let form = match text.contains(['*', '?']) {
            true => Form::Glob(Glob::new(text)?),
            false => Form::Part(text.to_lowercase()),
        };
        Ok(Pattern { text: text.to_owned(), form })
    }

    /// Whether the name is of this pattern.
    pub fn matches(&self, name: &str) -> bool {
        match &self.form {
            Form::Part(part) => part.is_empty() || name.to_lowercase().contains(part),
            Form::Glob(glob) => glob.matches(name),
        }
    }

    /// How well a name that matches does: 0 is best. The last component is the text; is it but for its ending; begins
    /// with it; has it at the beginning of a word; has it. Last comes what has it in its directories alone. Whatever
    /// matches a pattern with wildcards does so equally well.
    pub fn rank(&self, name: &str) -> u8 {
        let Form::Part(part) = &self.form else { return NO_RANK };
        let name = name.to_lowercase();
        let last = last_component(&name);
        let stem = last.rsplit_once('.').map_or(last, |(stem, _)| stem);
        let begins_word = |(at, _): (usize, &str)| !last[..at].ends_with(char::is_alphanumeric);
        match () {
            () if last == part || name == *part => 0,
            () if stem == part => 1,
            () if last.starts_with(part) => 2,
            () if last.match_indices(part).any(begins_word) => 3,
            () if last.contains(part) => 4,
            () => 5,
        }
    }

    /// Whether the name begins with the text, as it is written, and no directory follows on that: a look at the order of
    /// names finds those, however many others match. Nothing does so with a pattern with wildcards.
    pub fn opens(&self, name: &str) -> bool {
        self.opening().is_some_and(|text| name.strip_prefix(text).is_some_and(|rest| !rest.contains('/')))
    }

    /// What the names that it [opens](Pattern::opens) begin with.
    pub fn opening(&self) -> Option<&str> {
        matches!(self.form, Form::Part(_)).then_some(&*self.text).filter(|text| !text.is_empty())
    }

    /// Texts that every name that matches contains, without regard to case.
    pub fn literals(&self) -> impl Iterator<Item = &str> {
        let is_glob = matches!(self.form, Form::Glob(_));
        self.text.split(move |c| is_glob && (c == '*' || c == '?')).filter(|literal| !literal.is_empty())
    }
}

fn last_component(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(_, last)| last)
}

/// A pattern as an automaton that is in several places at once, a bit each: a name is tried in one pass, whatever the
/// pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Glob {
    whole_name: bool,
    /// Where a character leads on from.
    literals: HashMap<char, u128>,
    /// Where any character but `/` leads on from.
    ones: u128,
    /// Where a star is: it is passed without a character, and
    stars: u128,
    /// stays for any character, if it has two of them.
    crossing: u128,
    end: u128,
}

impl Glob {
    fn new(text: &str) -> Result<Glob, InvalidPattern> {
        let mut glob = Glob {
            whole_name: text.contains('/'),
            literals: HashMap::new(),
            ones: 0,
            stars: 0,
            crossing: 0,
            end: 0,
        };
        let (mut place, mut after_star) = (0, false);
        for c in text.chars().flat_map(char::to_lowercase) {
            if c == '*' && after_star {
                // The place before is a star; a second one makes it cross.
                glob.crossing |= 1 << (place - 1);
                continue;
            }
            if place >= MAX_GLOB_CHARS {
                return Err(InvalidPattern::GlobTooLong(text.chars().count()));
            }
            after_star = c == '*';
            match c {
                '*' => glob.stars |= 1 << place,
                '?' => glob.ones |= 1 << place,
                c => *glob.literals.entry(c).or_default() |= 1 << place,
            }
            place += 1;
        }
        glob.end = 1 << place;
        Ok(glob)
    }

    fn matches(&self, name: &str) -> bool {
        let tried = if self.whole_name { name } else { last_component(name) };
        let passed = |places: u128| places | ((places & self.stars) << 1);
        let mut places = passed(1);
        for c in tried.chars().flat_map(char::to_lowercase) {
            let (ones, stars) = if c == '/' { (0, self.crossing) } else { (self.ones, self.stars) };
            let literals = self.literals.get(&c).copied().unwrap_or(0);
            places = passed(((places & (ones | literals)) << 1) | (places & stars));
            if places == 0 {
                return false;
            }
        }
        places & self.end != 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(name)
    }

    #[test]
    fn a_text_is_a_part_of_the_name() {
        for (text, name, expected) in [
            ("", "a", true),
            ("hoto", "docs/Photo.jpg", true),
            ("S/PH", "docs/Photo.jpg", true),
            ("ÑU", "ñu.txt", true),
            ("[1]", "a[1].txt", true),
            ("photos", "docs/photo.jpg", false),
        ] {
            assert_eq!(matches(text, name), expected, "{text} in {name}");
        }
    }

    #[test]
    fn wildcards_stay_in_their_component() {
        for (pattern, name, expected) in [
            ("*.ISO", "images/debian.iso", true),
            ("*.iso", "images.iso/readme", false),
            ("debian-??.iso", "x/debian-12.iso", true),
            ("debian-??.iso", "x/debian-1.iso", false),
            ("*", "a/b", true),
            ("images/*.iso", "images/debian.iso", true),
            ("images/*.iso", "images/old/debian.iso", false),
            ("images/**.iso", "images/old/debian.iso", true),
            ("**/old/*", "images/old/debian.iso", true),
            ("images?debian.iso", "images/debian.iso", false),
            ("/*", "a/b", false),
            ("a*b*c", "a-bb-b-c", true),
            ("a*b*c", "a-bb-b-cd", false),
            ("*[1]*", "a[1].txt", true),
            ("?", "ñ", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} and {name}");
        }
    }

    #[test]
    fn the_nearest_comes_first() {
        let pattern = Pattern::parse("Photo").unwrap();
        let names = ["a/photo", "photo.jpg", "photos.zip", "my photo.jpg", "telephoto.jpg", "photo/a.jpg"];
        assert!(names.iter().all(|name| pattern.matches(name)));
        assert_eq!(names.map(|name| pattern.rank(name)), [0, 1, 2, 3, 4, 5]);
        assert_eq!(Pattern::parse("a/photo").unwrap().rank("a/photo"), 0);
        assert_eq!(Pattern::parse("*photo*").unwrap().rank("telephoto"), NO_RANK);
    }

    #[test]
    fn what_begins_with_the_text_is_opened() {
        let opens = |text: &str, name: &str| Pattern::parse(text).unwrap().opens(name);
        assert!(opens("photo", "photo") && opens("photo", "photo.jpg") && opens("a/ph", "a/photo"));
        for (text, name) in
            [("photo", "photo/a"), ("photo", "a/photo"), ("photo", "Photo"), ("ph*", "photo"), ("", "a")]
        {
            assert!(!opens(text, name), "{text} and {name}");
        }
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let long = "x".repeat(MAX_TEXT_BYTES + 1);
        assert_eq!(Pattern::parse(&long), Err(InvalidPattern::TooLong(MAX_TEXT_BYTES + 1)));
        assert!(Pattern::parse(&long[1..]).is_ok());
        // A run of stars is one place.
        let glob = |chars: usize| format!("{}{}", "*".repeat(50), "x".repeat(chars));
        assert!(matches(&glob(MAX_GLOB_CHARS - 1), &"x".repeat(200)));
        assert_eq!(
            Pattern::parse(&glob(MAX_GLOB_CHARS)),
            Err(InvalidPattern::GlobTooLong(MAX_GLOB_CHARS + 50))
        );
    }

    /// The same by trying everything, from the definition.
    fn slowly(pattern: &[char], name: &[char]) -> bool {
        match pattern {
            [] => name.is_empty(),
            ['*', rest @ ..] => {
                let crosses = rest.first() == Some(&'*');
                let rest =
                    if crosses { &rest[rest.iter().take_while(|c| **c == '*').count()..] } else { rest };
                (0..=name.len())
                    .any(|taken| (crosses || !name[..taken].contains(&'/')) && slowly(rest, &name[taken..]))
            }
            [c, rest @ ..] => match name.split_first() {
                Some((first, others)) => (first == c || (*c == '?' && *first != '/')) && slowly(rest, others),
                None => false,
            },
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn globs_match_as_they_are_defined(pattern in "[ab/*?]{0,8}[*?]", name in "[ab/]{0,10}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            let tried = if pattern.contains('/') { &name } else { last_component(&name) };
            prop_assert_eq!(matches(&pattern, &name), slowly(&chars(&pattern), &chars(tried)));
        }

        #[test]
        fn what_matches_has_the_literals(pattern in "[ab/*?]{0,6}", name in "[ab/]{0,10}") {
            let pattern = Pattern::parse(&pattern).unwrap();
            if pattern.matches(&name) {
                prop_assert!(pattern.literals().all(|literal| name.contains(literal)));
            }
        }
    }
}

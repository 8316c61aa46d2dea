//! What of the network a directory's transfer is of: a directory, or the names that a pattern stands for. Pure.

use glob::{MatchOptions, Pattern as Glob};
use p2p_content::{FileName, MAX_NAME_BYTES, NameError};

/// A directory's files, or those of a pattern.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    /// What all names begin with.
    prefix: String,
    glob: Option<Glob>,
}

/// Why a text is neither a directory nor a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It cannot be the name of a directory.
    #[error(transparent)]
    Name(#[from] NameError),
    /// It is no pattern.
    #[error("{text:?} is no pattern: {why}")]
    Pattern {
        /// The text.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl Pattern {
    /// Reads it: with `*` or `?` it is a pattern, otherwise a directory, with or without `/` at its end.
    ///
    /// # Errors
    /// A [`PatternError`].
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if !text.contains(['*', '?']) {
            let directory = FileName::parse(text.strip_suffix('/').unwrap_or(text))?;
            let prefix = format!("{directory}/");
            return Ok(Self { text: prefix.clone(), prefix, glob: None });
        }
        let wrong = |why| PatternError::Pattern { text: text.to_owned(), why };
        if text.len() > MAX_NAME_BYTES {
            return Err(wrong("it is longer than any name"));
        }
        if text.starts_with('/') || text.chars().any(char::is_control) {
            return Err(wrong("names are relative, and have no control characters"));
        }
        let glob = Glob::new(text).map_err(|error| wrong(error.msg))?;
        // The slash before `**` may be all there is of it: `a/**` has `a/b`, and so names that begin with `a/`.
        let literal = &text[..text.find(['*', '?', '[']).unwrap_or(text.len())];
        Ok(Self { text: text.to_owned(), prefix: literal.to_owned(), glob: Some(glob) })
    }

    /// As it is shown: a directory with `/` at its end, or the pattern.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What all its names begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The directory that all its names are in; `None` where that is the share itself.
    pub fn directory(&self) -> Option<&str> {
        self.prefix.rsplit_once('/').map(|(directory, _)| directory)
    }

    /// Whether this name is of it.
    pub fn has(&self, name: &str) -> bool {
        let options = MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: false,
        };
        let is_matched = |glob: &Glob| glob.matches_with(name, options);
        name.starts_with(&self.prefix) && self.glob.as_ref().is_none_or(is_matched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    #[test]
    fn a_directory_has_all_that_is_below_it() {
        for text in ["data/set", "data/set/"] {
            let set = pattern(text);
            assert_eq!(
                (set.text(), set.prefix(), set.directory()),
                ("data/set/", "data/set/", Some("data/set"))
            );
            assert!(set.has("data/set/a") && set.has("data/set/b/c.txt"));
            assert!(!set.has("data/set") && !set.has("data/settings/a") && !set.has("other/data/set/a"));
        }
    }

    #[test]
    fn stars_stay_within_a_directory_and_two_of_them_do_not() {
        let jpegs = pattern("photos/*.jpg");
        assert_eq!((jpegs.prefix(), jpegs.directory()), ("photos/", Some("photos")));
        assert!(jpegs.has("photos/a.jpg") && !jpegs.has("photos/2024/a.jpg") && !jpegs.has("photos/a.png"));
        let all = pattern("photos/**");
        assert!(all.has("photos/a.jpg") && all.has("photos/2024/01/a.jpg") && !all.has("photographs/a"));
        let deep = pattern("**/*.jpg");
        assert_eq!((deep.prefix(), deep.directory()), ("", None));
        assert!(deep.has("a.jpg") && deep.has("photos/2024/a.jpg") && !deep.has("a.png"));
        let years = pattern("photos/20[12]?/a.jpg");
        assert_eq!(years.prefix(), "photos/20");
        assert!(years.has("photos/2024/a.jpg") && !years.has("photos/2034/a.jpg"));
    }

    #[test]
    fn what_is_neither_is_refused() {
        for text in ["", "/", "../x", "a//b", "/a/*", "a/**b", "a\n*"] {
            assert!(Pattern::parse(text).is_err(), "{text:?}");
        }
    }
}

//! Names of files in the network, checked once, on entry: whoever holds a [`FileName`] checks nothing again.
//!
//! The rules are about text alone. That a name doesn't lead out of a directory through a symbolic link is the affair of
//! who opens it, relative to a directory handle.

use std::fmt;
use std::str::FromStr;

/// The longest component of a name, in bytes of UTF-8: what Linux file systems take.
pub const MAX_COMPONENT_BYTES: usize = 255;

/// The longest name, in bytes of UTF-8. A quarter of Linux's limit for a path, so that a share's directory fits before
/// it.
pub const MAX_NAME_BYTES: usize = 1024;

/// The first component that is reserved: the directory in which transfers keep what isn't whole yet.
pub const PARTIAL_DIR: &str = ".p2p-partial";

/// The name of a file in the network: its path in its share, such as `docs/a.txt`.
///
/// Relative, with `/` between components that are all proper names. A backslash is an ordinary character, as on Linux.
/// Names are equal when their bytes are: no case folding, no Unicode normalization, since Linux does neither.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(String);

impl FileName {
    /// Checks `text` and makes it a name.
    ///
    /// # Errors
    ///
    /// A [`NameError`] that says which rule `text` breaks; one of them if it breaks several.
    pub fn parse(text: &str) -> Result<FileName, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > MAX_NAME_BYTES {
            return Err(NameError::TooLong { found: text.len() });
        }
        let name = || text.to_owned();
        if let Some(character) = text.chars().find(|c| c.is_control()) {
            return Err(NameError::Control { name: name(), character });
        }
        if text.starts_with('/') {
            return Err(NameError::Absolute { name: name() });
        }
        for component in text.split('/') {
            match component {
                "" => return Err(NameError::EmptyComponent { name: name() }),
                "." | ".." => return Err(NameError::Dots { name: name(), component: component.to_owned() }),
                _ if component.len() > MAX_COMPONENT_BYTES => {
                    return Err(NameError::ComponentTooLong { name: name(), found: component.len() });
                }
                _ => {}
            }
        }
        if text.split('/').next() == Some(PARTIAL_DIR) {
            return Err(NameError::Reserved { name: name() });
        }
        Ok(FileName(name()))
    }

    /// The name as text: at most [`MAX_NAME_BYTES`] bytes, never empty.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The components, outermost directory first; the last is the file's own name. There is at least one.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for FileName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<FileName, NameError> {
        FileName::parse(text)
    }
}

impl AsRef<str> for FileName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl From<FileName> for String {
    fn from(name: FileName) -> String {
        name.0
    }
}

/// Why a text isn't the name of a file in the network.
///
/// The messages show the name escaped, so that printing one is safe on a terminal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There is no text.
    #[error("the name is empty, so it names no file: give the file's path in its share, such as docs/a.txt")]
    Empty,
    /// The whole is over [`MAX_NAME_BYTES`].
    #[error(
        "the name is {found} bytes long, and the limit is {MAX_NAME_BYTES} so that it fits under any directory: shorten it, or move the file nearer to the top of its share"
    )]
    TooLong {
        /// Its length, in bytes. The name itself isn't kept: it may be of any size.
        found: usize,
    },
    /// It has a NUL or another control character (Unicode category Cc).
    #[error(
        "the name {name:?} has the control character {character:?}, which can deceive terminals and programs: rename the file without it"
    )]
    Control {
        /// The name.
        name: String,
        /// The first such character.
        character: char,
    },
    /// It begins with `/`.
    #[error(
        "the name {name:?} begins with '/', and names are relative to a share so that they mean the same on every machine: give it without the leading '/'"
    )]
    Absolute {
        /// The name.
        name: String,
    },
    /// It has two slashes in a row, or one at its end.
    #[error(
        "the name {name:?} has nothing before or after one of its '/', so one file would have several names: put exactly one '/' between names, and none at the end"
    )]
    EmptyComponent {
        /// The name.
        name: String,
    },
    /// A component is `.` or `..`.
    #[error(
        "the name {name:?} has the component {component:?}, which could lead out of the share: give the path without '.' and '..'"
    )]
    Dots {
        /// The name.
        name: String,
        /// The component.
        component: String,
    },
    /// A component is over [`MAX_COMPONENT_BYTES`].
    #[error(
        "the name {name:?} has a component of {found} bytes, and file systems take no more than {MAX_COMPONENT_BYTES}: shorten it"
    )]
    ComponentTooLong {
        /// The name.
        name: String,
        /// The component's length, in bytes.
        found: usize,
    },
    /// The first component is [`PARTIAL_DIR`].
    #[error(
        "the name {name:?} is inside {PARTIAL_DIR}, where the program keeps transfers that are not finished: give the file another place"
    )]
    Reserved {
        /// The name.
        name: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn takes_ordinary_names() {
        let longest = format!("{0}/{0}/{0}/{0}", "a".repeat(255));
        let with_limits = format!("{longest}/");
        assert_eq!(longest.len(), MAX_NAME_BYTES - 1);
        assert!(matches!(FileName::parse(&with_limits), Err(NameError::EmptyComponent { .. })));
        for text in [
            "a",
            "docs/a.txt",
            "...",
            "..a/b..",
            ".hidden",
            "a b/ c",
            "ñandú/日本語.txt",
            r"back\slash",
            r"C:\x",
            "~",
            "-rf",
            "a/.p2p-partial",
            ".p2p-partial2/a",
            ".P2P-partial/a",
            &longest,
        ] {
            let name = FileName::parse(text).unwrap();
            assert_eq!((name.as_str(), name.to_string()), (text, text.to_owned()));
        }
    }

    #[test]
    fn refuses_each_rule_broken() {
        let kind = |text: &str| match FileName::parse(text) {
            Ok(_) => "taken",
            Err(NameError::Empty) => "empty",
            Err(NameError::TooLong { .. }) => "too long",
            Err(NameError::Control { .. }) => "control",
            Err(NameError::Absolute { .. }) => "absolute",
            Err(NameError::EmptyComponent { .. }) => "empty component",
            Err(NameError::Dots { .. }) => "dots",
            Err(NameError::ComponentTooLong { .. }) => "component too long",
            Err(NameError::Reserved { .. }) => "reserved",
        };
        let long_component = "a".repeat(256);
        let long_utf8_component = format!("d/{}", "é".repeat(128));
        let longest = "a/".repeat(512) + "b";
        let table = [
            ("", "empty"),
            (longest.as_str(), "too long"),
            ("a\0b", "control"),
            ("a\nb", "control"),
            ("a\u{1b}[2J", "control"),
            ("a\u{7f}", "control"),
            ("a\u{85}", "control"),
            ("/", "absolute"),
            ("/etc/passwd", "absolute"),
            ("//a", "absolute"),
            ("a//b", "empty component"),
            ("a/", "empty component"),
            (".", "dots"),
            ("..", "dots"),
            ("../a", "dots"),
            ("a/../b", "dots"),
            ("a/.", "dots"),
            ("./a", "dots"),
            (long_component.as_str(), "component too long"),
            (long_utf8_component.as_str(), "component too long"),
            (".p2p-partial", "reserved"),
            (".p2p-partial/a", "reserved"),
        ];
        for (text, expected) in table {
            assert_eq!(kind(text), expected, "{text:?}");
        }
        assert_eq!(kind(&longest[..1023]), "taken");
    }

    #[test]
    fn messages_are_safe_to_print_and_say_what_to_do() {
        let message = FileName::parse("a\u{1b}[2J").unwrap_err().to_string();
        assert!(!message.chars().any(char::is_control), "{message:?}");
        assert!(message.contains("rename the file"), "{message}");
    }

    proptest! {
        #[test]
        fn a_name_never_leads_out(text in r"(\.{0,3}|/|[a-c\\]|\x00|\.p2p-partial){0,8}") {
            if let Ok(name) = FileName::parse(&text) {
                let components: Vec<_> = name.components().collect();
                prop_assert_eq!(components.join("/"), text.clone());
                prop_assert!(components.iter().all(|c| !matches!(*c, "" | "." | "..") && !c.contains('\0')));
                prop_assert_ne!(components[0], PARTIAL_DIR);
                // The same question asked of the standard library, which has its own idea of components.
                let path = std::path::Path::new(&text);
                prop_assert!(path.components().all(|c| matches!(c, std::path::Component::Normal(_))));
            }
        }
    }
}

//! The key `maestro`: one address, or a list of them.

use serde::{Deserialize, Serialize, Serializer};

/// Most maestros of one peer.
const MAX_MAESTROS: usize = 16;

/// `host` or `host:port` of each maestro. In a file it is a text, which may be empty, or a list of texts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Written")]
pub struct MaestroList(Vec<String>);

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
enum Written {
    One(String),
    Several(Vec<String>),
}

impl From<Written> for MaestroList {
    fn from(written: Written) -> Self {
        match written {
            Written::One(address) if address.is_empty() => Self::default(),
            Written::One(address) => Self(vec![address]),
            Written::Several(addresses) => Self(addresses),
        }
    }
}

impl MaestroList {
    /// These.
    pub fn of(addresses: Vec<String>) -> Self {
        Self(addresses)
    }

    /// Those of a flag that may be repeated; one that is empty stands for none, as in a file.
    pub fn given(addresses: Vec<String>) -> Self {
        match <[String; 1]>::try_from(addresses) {
            Ok([address]) => Written::One(address).into(),
            Err(addresses) => Self(addresses),
        }
    }

    /// As they were given.
    pub fn addresses(&self) -> &[String] {
        &self.0
    }

    /// What is wrong, in one sentence about the value.
    pub(super) fn problem(&self) -> Option<String> {
        let Self(addresses) = self;
        let is_twice = |at: usize| addresses[..at].contains(&addresses[at]);
        if addresses.len() > MAX_MAESTROS {
            return Some(format!("has more than {MAX_MAESTROS} maestros"));
        }
        (0..addresses.len()).find_map(|at| match addresses[at].as_str() {
            "" => Some("has an empty address among others: give each as HOST or HOST:PORT".to_owned()),
            address if address.contains(|sign: char| sign.is_whitespace() || sign == ',') => {
                Some(format!("{address:?} is no address: several maestros are given as [\"HOST\", \"HOST\"]"))
            }
            address if is_twice(at) => Some(format!("has {address:?} twice")),
            _ => None,
        })
    }
}

impl Serialize for MaestroList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [] => serializer.serialize_str(""),
            [address] => serializer.serialize_str(address),
            addresses => serializer.collect_seq(addresses),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct File {
        maestro: MaestroList,
    }

    fn read(text: &str) -> MaestroList {
        toml::from_str::<File>(text).unwrap().maestro
    }

    #[test]
    fn one_may_be_given_as_it_always_was() {
        assert_eq!(read("maestro = \"\"").addresses(), [""; 0]);
        assert_eq!(read("maestro = \"a:1\"").addresses(), ["a:1"]);
        assert_eq!(read("maestro = [\"a:1\", \"b\"]").addresses(), ["a:1", "b"]);
        for text in ["maestro = \"\"\n", "maestro = \"a:1\"\n", "maestro = [\"a:1\", \"b\"]\n"] {
            assert_eq!(toml::to_string(&File { maestro: read(text) }).unwrap(), text);
        }
        assert_eq!(MaestroList::given(vec![String::new()]), MaestroList::default());
        let several = vec!["a:1".to_owned(), String::new()];
        assert_eq!(MaestroList::given(several.clone()), MaestroList::of(several));
        let error = toml::from_str::<File>("maestro = 1").unwrap_err().to_string();
        assert!(error.contains("a list of texts"), "{error}");
    }

    #[test]
    fn what_is_no_list_of_maestros_is_told() {
        let problem = |addresses: &[&str]| {
            MaestroList::of(addresses.iter().map(|&address| address.to_owned()).collect()).problem()
        };
        assert_eq!(problem(&[]), None);
        assert_eq!(problem(&["a", "b:1"]), None);
        for (addresses, expected) in [
            (&["a", ""][..], "empty"),
            (&["a", "b", "a"], "twice"),
            (&["a,b"], "several"),
            (&["a"; 17], "16"),
        ] {
            let told = problem(addresses).unwrap();
            assert!(told.contains(expected), "{expected} is not in: {told}");
        }
    }
}

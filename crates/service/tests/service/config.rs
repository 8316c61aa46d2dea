//! Configuration errors as an administrator reads them.

use std::path::{Path, PathBuf};

use p2p_service::config::{ConfigError, load};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    name: String,
    #[serde(default)]
    shares: Vec<Share>,
    rest: Option<Rest>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Share {
    path: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rest {
    listen: String,
    port: Option<u16>,
}

fn message(text: impl AsRef<[u8]>) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p2pd.toml");
    std::fs::write(&path, text).unwrap();
    let message = load::<Config>(&path).unwrap_err().to_string();
    let prefix = format!("{}/", dir.path().display());
    message.strip_prefix(&prefix).map_or_else(|| panic!("no file name: {message}"), str::to_owned)
}

#[test]
fn a_good_file_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p2pd.toml");
    std::fs::write(
        &path,
        "name = 'ann'\n[rest]\nlisten = '[::]:9000'\nport = 1\n[[shares]]\npath = '/srv'\n",
    )
    .unwrap();
    let config: Config = load(&path).unwrap();
    assert_eq!(config.name, "ann");
    assert_eq!(config.shares[0].path, Path::new("/srv"));
    assert_eq!(config.rest.map(|rest| (rest.listen, rest.port)), Some(("[::]:9000".to_owned(), Some(1))));
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_what_was_meant() {
    assert_eq!(
        message("name = 'ann'\n\n# música\nshraes = []\n"),
        "p2pd.toml:4:1: unknown field 'shraes', expected one of 'name', 'shares', 'rest'; did you mean 'shares'?"
    );
    let nested = message("name = 'ann'\n[rest]\n  lsiten = '[::]:9000'\n");
    assert_eq!(
        nested,
        "p2pd.toml:3:3: unknown field 'lsiten', expected 'listen' or 'port' (in rest); did you mean 'listen'?"
    );
}

#[test]
fn a_wrong_type_is_shown_at_its_value() {
    let message = message("name = 'ann'\n[rest]\nlisten = 'ñ'\nport = 'high'\n");
    assert_eq!(message, "p2pd.toml:4:8: invalid type: string \"high\", expected u16 (in rest.port)");
}

#[test]
fn columns_count_characters() {
    let message = message("name = 'ñandú' x\n");
    assert!(message.starts_with("p2pd.toml:1:16: "), "{message}");
}

#[test]
fn a_missing_key_is_named() {
    let message = message("shares = []\n");
    assert!(message.starts_with("p2pd.toml:1:1: missing field 'name'"), "{message}");
}

#[test]
fn text_that_is_not_toml_or_not_text_is_refused_with_its_place() {
    let syntax = message("name = 'ann'\n[rest\n");
    assert!(syntax.starts_with("p2pd.toml:2:6: "), "{syntax}");
    let binary = message(b"name = 'ann'\n# \xff\n");
    assert_eq!(binary, "p2pd.toml:2:3: this is not UTF-8 text; save the file as UTF-8");
}

#[test]
fn a_missing_file_says_how_to_name_another() {
    let error = load::<Config>(Path::new("/nonexistent/p2pd.toml")).unwrap_err();
    assert!(matches!(error, ConfigError::Missing { .. }));
    let message = error.to_string();
    assert!(message.starts_with("there is no configuration file /nonexistent/p2pd.toml"), "{message}");
    assert!(message.contains("--config"), "{message}");
    let directory = tempfile::tempdir().unwrap();
    let error = load::<Config>(directory.path()).unwrap_err();
    assert!(matches!(error, ConfigError::Read { .. }), "{error}");
}

#[test]
fn all_that_is_wrong_is_told_at_once_and_in_order() {
    let text = "name = 'ann'\nnmae = 1\n[[shares]]\npath = 3\n[[shares]]\npaht = 'x'\n[rest]\nlisten = []\nport = 'high'\n";
    let told = message(text);
    let lines: Vec<&str> =
        told.lines().map(|line| line.rsplit_once("p2pd.toml:").map_or(line, |(_, line)| line)).collect();
    let expected = [
        ("2:1: unknown field 'nmae'", "did you mean 'name'?"),
        ("4:8: invalid type: integer `3`", ""),
        ("6:1: unknown field 'paht'", "did you mean 'path'?"),
        ("8:10: invalid type: sequence", "(in rest.listen)"),
        ("9:8: invalid type: string \"high\"", "(in rest.port)"),
    ];
    for (start, end) in expected {
        let start = start.replace('`', "'");
        let is_it = |line: &&&str| line.starts_with(&start) && line.contains(end);
        assert!(lines.iter().find(is_it).is_some(), "{start} … {end}: {told}");
    }
    let numbers: Vec<usize> =
        lines.iter().map(|line| line.split(':').next().unwrap().parse().unwrap()).collect();
    assert!(numbers.is_sorted() && numbers.len() == expected.len(), "each once: {told}");
}

#[test]
fn what_values_cannot_mean_is_told_with_its_place() {
    use p2p_service::config::{Sources, read};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p2pd.toml");
    std::fs::write(
        &path,
        "name = 'x'\n\n[[shares]]\npath = '/a'\n[[shares]]\npath = '/a'\n[rest]\nlisten = 1\n",
    )
    .unwrap();
    let loaded = read::<Config>(&path).unwrap();
    assert_eq!(loaded.problems.len(), 1, "what follows from it is not told: {:?}", loaded.problems);
    assert!(loaded.problems[0].to_string().contains(":8:10: "), "{:?}", loaded.problems);
    std::fs::write(
        &path,
        "name = 'x'\n\n[[shares]]\npath = '/a'\n[[shares]]\npath = '/a'\n[rest]\nlisten = 'a'\nport = -1\n",
    )
    .unwrap();
    let loaded = read::<Config>(&path).unwrap();
    let sources = Sources { document: Some(loaded.document), flags: vec![("rest.listen", "--rest-listen")] };
    let found =
        [("shares[1].path", "twice"), ("rest.listen", "bad"), ("rest.port", "bad"), ("grpc", "missing")];
    let found = found.map(|(key, what)| (key.to_owned(), what.to_owned())).to_vec();
    let told = sources.check(loaded.problems, found).unwrap_err();
    let prefix = format!("{}:", path.display());
    let told: Vec<String> = told.0.iter().map(|problem| problem.to_string().replace(&prefix, "")).collect();
    assert_eq!(told.len(), 4, "{told:?}");
    assert_eq!(told[0], "--rest-listen: bad");
    assert_eq!(told[1], " missing (in grpc)", "of the file, with no line");
    assert_eq!(told[2], "6:8: twice (in shares[1].path)");
    assert!(told[3].starts_with("9:8: "), "the type, and not also the value: {told:?}");
}

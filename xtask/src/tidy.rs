//! `cargo xtask tidy`: rules of the house that no compiler knows.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// A longer file is two files.
const MAX_LINES: usize = 500;

/// Directories that are nobody's room.
const NOT_ROOMS: [&str; 1] = ["target"];

/// Programs whose rooms ARCHITECTURE.md names.
const PROGRAMS: [&str; 3] = ["maestrod", "p2pd", "p2pctl"];

/// Checks everything, and names every breach at once.
pub(crate) fn run() -> Result<()> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).canonicalize()?;
    let mut breaches = Vec::new();
    for path in sources(&root)? {
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let shown = path.strip_prefix(&root).unwrap_or(&path).display().to_string();
        breaches.extend(breaches_of_source(&shown, &text));
    }
    breaches.extend(breaches_of_map(&root)?);
    match breaches.len() {
        0 => Ok(()),
        count => bail!("{count} breaches of the rules of the house:\n  {}", breaches.join("\n  ")),
    }
}

fn breaches_of_source(shown: &str, text: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    let lines = text.lines().count();
    if lines > MAX_LINES {
        breaches.push(format!("{shown} has {lines} lines, and {MAX_LINES} is the limit: make it two files"));
    }
    // Put together, so that this file may be checked too.
    for unfinished in [concat!("to", "do!"), concat!("unimple", "mented!")] {
        for (number, line) in (1..).zip(text.lines()) {
            if line.contains(unfinished) {
                breaches.push(format!("{shown}:{number}: {unfinished} is unfinished work"));
            }
        }
    }
    breaches
}

/// README.md leads a newcomer in, ARCHITECTURE.md is the map: whatever it does not name, they do not find.
fn breaches_of_map(root: &Path) -> Result<Vec<String>> {
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap_or_default();
    let (readme, map) = (read("README.md"), read("ARCHITECTURE.md"));
    let mut breaches = Vec::new();
    let mut wants = |document: &str, text: &str, word: &str| {
        if !text.contains(word) {
            breaches.push(format!("{document} does not name {word}"));
        }
    };
    for word in ["cargo xtask demo", "cargo test", "ARCHITECTURE.md"] {
        wants("README.md", &readme, word);
    }
    for directory in directories(root)? {
        wants("ARCHITECTURE.md", &map, &format!("{directory}/"));
    }
    for directory in directories(&root.join("crates"))? {
        wants("ARCHITECTURE.md", &map, &format!("crates/{directory}"));
    }
    for program in PROGRAMS {
        for room in directories(&root.join(program).join("src"))? {
            wants("ARCHITECTURE.md", &map, &format!("{room}/"));
        }
    }
    Ok(breaches)
}

/// Names of the visible directories in this one, in order; none where it is not there.
fn directories(path: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type()?.is_dir() && !name.starts_with('.') && !NOT_ROOMS.contains(&name.as_str()) {
                names.push(name);
            }
        }
    }
    names.sort();
    Ok(names)
}

fn sources(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for name in directories(directory)? {
        found.extend(sources(&directory.join(name))?);
    }
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_file() && path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaches_are_found() {
        assert_eq!(breaches_of_source("a.rs", &"\n".repeat(MAX_LINES)), [""; 0]);
        assert_eq!(breaches_of_source("a.rs", &"\n".repeat(MAX_LINES + 1)).len(), 1);
        let unfinished = format!("fn f() {{\n    {}()\n}}", concat!("to", "do!"));
        assert_eq!(
            breaches_of_source("a.rs", &unfinished),
            [format!("a.rs:2: {} is unfinished work", concat!("to", "do!"))]
        );
    }

    #[test]
    fn a_map_that_says_nothing_is_no_map() {
        let root = tempfile();
        fs::create_dir_all(root.join("p2pd/src/shares")).unwrap();
        fs::write(root.join("README.md"), "cargo xtask demo, cargo test, ARCHITECTURE.md").unwrap();
        assert_eq!(
            breaches_of_map(&root).unwrap(),
            ["ARCHITECTURE.md does not name p2pd/", "ARCHITECTURE.md does not name shares/"]
        );
        fs::write(root.join("ARCHITECTURE.md"), "p2pd/ has the room shares/").unwrap();
        assert_eq!(breaches_of_map(&root).unwrap(), [""; 0]);
        fs::remove_dir_all(&root).unwrap();
    }

    fn tempfile() -> PathBuf {
        let root = std::env::temp_dir().join(format!("xtask-tidy-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        root
    }
}

//! The manual page of a configuration file: a frame that is written by hand, and the keys as the sample explains them.
//! Pure.
//!
//! The sample has every key with its default, and a test of each daemon holds it to that; so the page has them too.

use anyhow::{Context, Result, ensure};

/// The line of the frame where the keys go.
const KEYS: &str = ".\\\" KEYS";

/// The page that `frame` and the sample make.
pub(super) fn page(frame: &str, sample: &str) -> Result<String> {
    let (before, after) =
        frame.split_once(&format!("{KEYS}\n")).with_context(|| format!("its frame has no line {KEYS}"))?;
    Ok(format!("{before}{}{after}", keys(sample)?))
}

/// The keys of a sample, each with the comment above it; tables are subsections.
fn keys(sample: &str) -> Result<String> {
    let mut page = String::new();
    let mut comment: Vec<&str> = Vec::new();
    for line in sample.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix('#') {
            comment.push(text.trim());
        } else if line.is_empty() {
            // The head of the file, which is about it as a whole, ends so.
            comment.clear();
        } else if line.starts_with('[') {
            page.push_str(&format!(".SS {}\n", quoted(line)));
            page.push_str(&text(&comment));
            comment.clear();
        } else {
            let (key, value) = line.split_once('=').with_context(|| format!("{line:?} is no key"))?;
            ensure!(
                !comment.is_empty() || key.trim() == "name" || key.trim() == "path",
                "nothing explains {key}"
            );
            page.push_str(&format!(".TP\n\\fB{}\\fR = {}\n", escaped(key.trim()), escaped(value.trim())));
            page.push_str(&text(&comment));
            comment.clear();
        }
    }
    Ok(page)
}

fn text(lines: &[&str]) -> String {
    lines.iter().map(|line| format!("{}\n", guarded(&escaped(line)))).collect()
}

/// A line that begins like a command is none.
fn guarded(line: &str) -> String {
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.to_owned() }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "\
# About the file.

# What it is called. See p2pd-x.
name = \"a\\\\b\"

# All tables.
[table]
# .hidden begins with a dot.
key = 1
";

    #[test]
    fn a_key_has_its_default_and_the_comment_above_it() {
        let page = page(".TH x\n.\\\" KEYS\n.SH END\n", SAMPLE).unwrap();
        assert_eq!(
            page,
            ".TH x\n.TP\n\\fBname\\fR = \"a\\e\\eb\"\nWhat it is called. See p2pd\\-x.\n\
             .SS \"[table]\"\nAll tables.\n.TP\n\\fBkey\\fR = 1\n\\&.hidden begins with a dot.\n.SH END\n"
        );
    }

    #[test]
    fn a_frame_without_a_place_is_refused() {
        assert!(page(".TH x\n", SAMPLE).is_err());
    }

    #[test]
    fn the_samples_make_pages() {
        for name in ["p2pd.toml", "maestrod.toml"] {
            let read = |path: &str| {
                let path = format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"));
                std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
            };
            let sample = read(&format!("etc/{name}"));
            let page = page(&read(&format!("packaging/man/{name}.5")), &sample).unwrap();
            let table: toml::Table = sample.parse().unwrap();
            for key in leaves(&toml::Value::Table(table)) {
                let heading = format!(".TP\n\\fB{key}\\fR = ");
                assert!(page.contains(&heading), "{name}: {key} is not in {page}");
            }
        }
    }

    /// Names of the keys that have values, at any depth.
    fn leaves(value: &toml::Value) -> Vec<String> {
        match value {
            toml::Value::Table(table) => table
                .iter()
                .flat_map(|(key, value)| match value {
                    toml::Value::Table(_) => leaves(value),
                    toml::Value::Array(all) if all.iter().any(toml::Value::is_table) => leaves(value),
                    _ => vec![key.clone()],
                })
                .collect(),
            toml::Value::Array(values) => values.iter().flat_map(leaves).collect(),
            _ => Vec::new(),
        }
    }
}

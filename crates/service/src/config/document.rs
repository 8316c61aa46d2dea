//! A TOML file as it was written: where each key stands, and all that a type finds wrong with it. Used by `config` alone.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, Deserializer};

use super::{Problem, suggest};

/// Where the keys of a file stand.
#[derive(Debug, Clone)]
pub struct Document {
    path: PathBuf,
    text: String,
    root: Node,
}

/// Where one value stands, and those in it.
#[derive(Debug, Clone)]
struct Node {
    span: Range<usize>,
    inner: Vec<(Step, Node)>,
}

/// A step down from a table: a key of it, or a place in an array.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

impl Document {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file says something under this key.
    pub fn has(&self, key: &str) -> bool {
        self.find(&steps(key)).is_some()
    }

    /// Where the value of this key stands, or the nearest table around it: as a text, and its line.
    pub(super) fn place(&self, key: &str) -> (Option<String>, usize) {
        let mut steps = steps(key);
        while !steps.is_empty() {
            if let Some(span) = self.find(&steps) {
                let (line, column) = position(&self.text, span.start);
                return (Some(format!("{}:{line}:{column}", self.path.display())), line);
            }
            steps.pop();
        }
        (Some(self.path.display().to_string()), 0)
    }

    fn find(&self, steps: &[Step]) -> Option<Range<usize>> {
        let mut node = &self.root;
        for step in steps {
            node = node.inner.iter().find(|(known, _)| known == step).map(|(_, node)| node)?;
        }
        Some(node.span.clone())
    }
}

/// Reads a file into a value. What is wrong is told and left out, until the rest can be read; where not even that can be,
/// there is no value.
pub(super) fn read<T: DeserializeOwned>(
    path: &Path,
    bytes: Vec<u8>,
) -> (Option<(T, Document)>, Vec<Problem>) {
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let readable = String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned();
            let what = "this is not UTF-8 text".to_owned();
            let hint = Some("save the file as UTF-8".to_owned());
            return (None, vec![problem(path, &readable, valid, None, what, hint)]);
        }
    };
    let (mut table, errors) = DeTable::parse_recoverable(&text);
    let is_toml = errors.is_empty();
    let mut problems: Vec<Problem> = errors.into_iter().map(|error| explain(path, &text, error)).collect();
    // With what may have been meant.
    let mut left_out: Vec<(Vec<Step>, String)> = Vec::new();
    loop {
        let error = match T::deserialize(Deserializer::from(table.clone())) {
            Ok(value) => {
                let root = Node { span: table.span(), inner: nodes(table.get_ref()) };
                return (Some((value, Document { path: path.to_owned(), text, root })), problems);
            }
            Err(error) => error,
        };
        let place = error.span().and_then(|span| in_table(table.get_ref(), &span));
        // What is missing only since it was left out was told already; of a file that is no TOML, what follows from that
        // is not told at all.
        let missing = error.message().strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
        let is_known = missing.is_some_and(|key| {
            let meant = format!("'{key}'");
            left_out.iter().any(|(known, hint)| {
                known.split_last().is_some_and(|(last, table)| {
                    let is_it = *last == Step::Key(key.to_owned()) || hint.contains(&meant);
                    is_it && Some(table) == place.as_deref()
                })
            })
        });
        let problem = explain(path, &text, error);
        let hint = problem.hint.clone().unwrap_or_default();
        if is_toml && !is_known {
            problems.push(problem);
        }
        // Each turn takes something away, so that it ends.
        match place.filter(|place| remove(table.get_mut(), place)) {
            Some(place) => left_out.push((place, hint)),
            None => return (None, problems),
        }
    }
}

fn nodes(table: &DeTable<'_>) -> Vec<(Step, Node)> {
    table.iter().map(|(key, value)| (Step::Key(key.get_ref().to_string()), node(value))).collect()
}

fn node(value: &Spanned<DeValue<'_>>) -> Node {
    let inner = match value.get_ref() {
        DeValue::Table(table) => nodes(table),
        DeValue::Array(array) => {
            array.iter().enumerate().map(|(index, value)| (Step::Index(index), node(value))).collect()
        }
        _ => Vec::new(),
    };
    Node { span: value.span(), inner }
}

/// `share[2].path` as its steps.
fn steps(key: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for part in key.split('.') {
        let (name, index) = match part.strip_suffix(']').and_then(|part| part.split_once('[')) {
            Some((name, index)) => (name, index.parse().ok()),
            None => (part, None),
        };
        steps.push(Step::Key(name.to_owned()));
        steps.extend(index.map(Step::Index));
    }
    steps
}

/// The way to the entry whose key or value stands at this place and that has no such entry inside of it.
fn in_table(table: &DeTable<'_>, span: &Range<usize>) -> Option<Vec<Step>> {
    for (key, value) in table.iter() {
        let step = || Step::Key(key.get_ref().to_string());
        if let Some(mut inner) = in_value(value, span) {
            inner.insert(0, step());
            return Some(inner);
        }
        if holds(&key.span(), span) || holds(&value.span(), span) {
            return Some(vec![step()]);
        }
    }
    None
}

fn in_value(value: &Spanned<DeValue<'_>>, span: &Range<usize>) -> Option<Vec<Step>> {
    match value.get_ref() {
        DeValue::Table(table) => in_table(table, span),
        DeValue::Array(array) => array.iter().enumerate().find_map(|(index, value)| {
            let mut inner = match in_value(value, span) {
                Some(inner) => inner,
                None if holds(&value.span(), span) => Vec::new(),
                None => return None,
            };
            inner.insert(0, Step::Index(index));
            Some(inner)
        }),
        _ => None,
    }
}

fn holds(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end && outer.start < outer.end
}

fn remove(table: &mut DeTable<'_>, place: &[Step]) -> bool {
    let Some((Step::Key(first), rest)) = place.split_first() else { return false };
    let Some(key) = table.keys().find(|key| key.get_ref().as_ref() == first).cloned() else { return false };
    if rest.is_empty() {
        return table.remove(&key).is_some();
    }
    table.get_mut(&key).is_some_and(|value| remove_within(value.get_mut(), rest))
}

fn remove_within(value: &mut DeValue<'_>, place: &[Step]) -> bool {
    match (value, place) {
        (DeValue::Table(table), place) => remove(table, place),
        (DeValue::Array(array), [Step::Index(index)]) => {
            let mut rest = DeArray::new();
            let others = array.iter().enumerate().filter(|(at, _)| at != index);
            others.for_each(|(_, value)| rest.push(value.clone()));
            let is_less = rest.len() < array.len();
            *array = rest;
            is_less
        }
        (DeValue::Array(array), [Step::Index(index), rest @ ..]) => {
            array.get_mut(*index).is_some_and(|value| remove_within(value.get_mut(), rest))
        }
        _ => false,
    }
}

fn explain(path: &Path, text: &str, mut error: toml::de::Error) -> Problem {
    let offset = error.span().map_or(0, |Range { start, .. }| start);
    let what = error.message().trim().replace('\n', ", ").replace('`', "'");
    let hint = suggest::hint(&what);
    // Without its input the error shows, instead of the line, the path of the key; there is no other way to ask.
    error.set_input(None);
    let key = error
        .to_string()
        .lines()
        .find_map(|line| line.strip_prefix("in `")?.strip_suffix('`').map(str::to_owned));
    problem(path, text, offset, key, what, hint)
}

fn problem(
    path: &Path,
    text: &str,
    offset: usize,
    key: Option<String>,
    what: String,
    hint: Option<String>,
) -> Problem {
    let (line, column) = position(text, offset);
    Problem { at: Some(format!("{}:{line}:{column}", path.display())), line, key, what, hint }
}

/// Line and character in it, from 1.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset.min(text.len())).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

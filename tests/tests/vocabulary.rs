//! The journal's vocabulary: every event in the source against the list of fields, and the list against its table in
//! `docs/journal.md`. An event that has a field of its own, or an error that does not say what to do, fails here.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use p2p_service::journal::{FIELDS, table};

/// An event as it stands in the source.
#[derive(Debug)]
struct Event {
    place: String,
    level: String,
    fields: Vec<String>,
    message: String,
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn events() -> Vec<Event> {
    let root = root();
    let mut files = Vec::new();
    for directory in
        ["p2pd/src", "maestrod/src", "crates/service/src", "crates/identity/src", "crates/content/src"]
    {
        sources(&root.join(directory), &mut files);
    }
    let mut events = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let shown = file.strip_prefix(&root).unwrap().display();
        for (at, _) in text.match_indices("tracing::") {
            let rest = &text[at + "tracing::".len()..];
            let Some((level, arguments)) = rest.split_once("!(") else { continue };
            if !["error", "warn", "info", "debug", "trace", "$level"].contains(&level) {
                continue;
            }
            let line = text[..at].matches('\n').count() + 1;
            let (mut fields, mut message) = (Vec::new(), String::new());
            for argument in arguments_of(arguments) {
                if argument.starts_with('"') {
                    message = argument.to_owned();
                    break;
                }
                let name = argument.split('=').next().unwrap().trim().trim_start_matches(['%', '?']);
                fields.push(name.to_owned());
            }
            events.push(Event { place: format!("{shown}:{line}"), level: level.to_owned(), fields, message });
        }
    }
    events
}

/// The arguments of a call, up to its closing parenthesis.
fn arguments_of(text: &str) -> Vec<&str> {
    let (mut arguments, mut from, mut depth, mut in_text, mut escaped) = (Vec::new(), 0, 0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_text => escaped = true,
            '"' => in_text = !in_text,
            _ if in_text => {}
            '(' | '[' | '{' => depth += 1,
            ')' if depth == 0 => {
                arguments.push(text[from..at].trim());
                break;
            }
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                arguments.push(text[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    arguments.retain(|argument| !argument.is_empty());
    arguments
}

#[test]
fn every_event_speaks_the_vocabulary_and_the_vocabulary_is_spoken() {
    let known: BTreeSet<&str> = FIELDS.iter().map(|(name, _)| *name).collect();
    assert_eq!(known.len(), FIELDS.len(), "a field is listed twice");
    let events = events();
    assert!(events.len() > 80, "the source is read: {}", events.len());
    let mut used: BTreeMap<String, &str> = BTreeMap::new();
    for event in &events {
        assert!(!event.message.is_empty(), "{}: an event without a message: {event:?}", event.place);
        for field in &event.fields {
            used.insert(field.to_uppercase(), &event.place);
        }
    }
    let unknown: Vec<_> = used.iter().filter(|(name, _)| !known.contains(name.as_str())).collect();
    assert!(unknown.is_empty(), "fields that `p2p_service::journal` does not list: {unknown:#?}");
    let unused: Vec<_> = known.iter().filter(|name| !used.contains_key(**name)).collect();
    assert!(unused.is_empty(), "fields that no event has: {unused:?}");
}

#[test]
fn every_error_says_what_to_do() {
    // What is said after a semicolon is advice: the house's way of writing a message.
    let mute: Vec<_> = events()
        .into_iter()
        .filter(|event| event.level == "error" && !event.message.contains("; "))
        .collect();
    assert!(mute.is_empty(), "{mute:#?}");
}

#[test]
fn the_table_in_the_documentation_is_the_list() {
    let text = fs::read_to_string(root().join("docs/journal.md")).unwrap();
    if !text.contains(&table()) {
        println!("{}", table());
        panic!("docs/journal.md does not have the table of `p2p_service::journal`, which is printed above");
    }
}

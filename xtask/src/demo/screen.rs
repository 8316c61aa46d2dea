//! What the demonstration prints: titles, commands, answers, checks. Colour only on a terminal.

use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use serde_json::Value;

/// Answers that are longer are broken into lines.
const WIDTH: usize = 100;

/// Standard output, with or without colour.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Screen {
    colour: bool,
}

impl Screen {
    /// Decides about colour once.
    pub(crate) fn new() -> Screen {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Screen { colour: wanted && io::stdout().is_terminal() }
    }

    /// The title of a section.
    pub(crate) fn title(&self, text: &str) {
        self.styled(AnsiColor::Cyan.on_default().bold(), &format!("\n━━ {text}"));
    }

    /// A command, as a user would type it.
    pub(crate) fn command(&self, text: &str) {
        self.styled(Style::new().dimmed(), &format!("\n$ {text}"));
    }

    /// What a command answered.
    pub(crate) fn answer(&self, text: &str) {
        self.styled(Style::new(), text.trim_end());
    }

    /// A JSON answer, broken where it is long.
    pub(crate) fn json(&self, value: &Value) {
        self.answer(&laid_out(value, 0));
    }

    /// Something that was held against what it should be, and is it.
    pub(crate) fn check(&self, text: &str) {
        self.styled(AnsiColor::Green.on_default(), &format!("  ✓ {text}"));
    }

    /// A remark.
    pub(crate) fn note(&self, text: &str) {
        self.styled(Style::new(), text);
    }

    /// The good end.
    pub(crate) fn good(&self, text: &str) {
        self.styled(AnsiColor::Green.on_default().bold(), &format!("\n{text}"));
    }

    fn styled(&self, style: Style, text: &str) {
        let style = if self.colour { style } else { Style::new() };
        // A reader that has seen enough is no failure of the demonstration.
        let _ = writeln!(io::stdout().lock(), "{style}{text}{style:#}");
    }
}

/// One line where it fits, else one line for each element.
fn laid_out(value: &Value, indent: usize) -> String {
    let whole = value.to_string();
    if indent + whole.len() <= WIDTH {
        return whole;
    }
    let inner = indent + 2;
    let rows: Vec<String> = match value {
        Value::Array(values) => values.iter().map(|value| laid_out(value, inner)).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| format!("{}: {}", Value::from(key.as_str()), laid_out(value, inner)))
            .collect(),
        _ => return whole,
    };
    let (open, close) = if value.is_array() { ('[', ']') } else { ('{', '}') };
    let margin = " ".repeat(inner);
    format!("{open}\n{margin}{}\n{}{close}", rows.join(&format!(",\n{margin}")), " ".repeat(indent))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_long_is_broken() {
        assert_eq!(laid_out(&json!({"a": [1, 2]}), 0), r#"{"a":[1,2]}"#);
        let row = "x".repeat(60);
        let broken = laid_out(&json!({"rows": [row, row]}), 0);
        assert_eq!(broken, format!("{{\n  \"rows\": [\n    \"{row}\",\n    \"{row}\"\n  ]\n}}"));
        assert_eq!(serde_json::from_str::<Value>(&broken).unwrap(), json!({"rows": [row, row]}));
    }
}

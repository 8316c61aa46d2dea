//! Tables: aligned columns without lines. On a terminal they fit its width by wrapping; nothing is ever cut.

use std::fmt;

use comfy_table::{Attribute, CellAlignment, Color, ColumnConstraint, ContentArrangement, Width, presets};

use super::plain;

/// Spaces between two columns.
const GAP: u16 = 2;

/// A column of long texts is not made narrower than this, or it could not be read.
const READABLE: u16 = 24;

/// A column: its heading, and how it behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    heading: &'static str,
    alignment: CellAlignment,
    at_least: u16,
    flows: bool,
}

impl Column {
    /// Text of a small width.
    pub(crate) const fn left(heading: &'static str) -> Column {
        Column { heading, alignment: CellAlignment::Left, at_least: 0, flows: false }
    }

    /// Numbers.
    pub(crate) const fn right(heading: &'static str) -> Column {
        Column { heading, alignment: CellAlignment::Right, at_least: 0, flows: false }
    }

    /// Text of any width, which wraps where there is no room.
    pub(crate) const fn flow(heading: &'static str) -> Column {
        Column { heading, alignment: CellAlignment::Left, at_least: 0, flows: true }
    }

    /// The same, with room for so many characters: the parts of a table that is printed in parts line up.
    #[must_use]
    pub(crate) const fn at_least(self, width: u16) -> Column {
        Column { at_least: width, ..self }
    }

    fn constraint(self) -> Option<ColumnConstraint> {
        match (self.flows, self.at_least) {
            (true, _) => None,
            (false, 0) => Some(ColumnConstraint::ContentWidth),
            (false, width) => Some(ColumnConstraint::LowerBoundary(Width::Fixed(width + GAP))),
        }
    }
}

/// What a cell tells at first sight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As it should be.
    Good,
    /// Under way.
    Busy,
    /// Worth a look.
    Bad,
}

/// What is in a cell.
pub(crate) struct Cell(comfy_table::Cell);

impl Cell {
    /// Text with a tone.
    pub(crate) fn toned(text: &str, tone: Tone) -> Cell {
        Cell(comfy_table::Cell::new(plain(text)).fg(match tone {
            Tone::Good => Color::Green,
            Tone::Busy => Color::Yellow,
            Tone::Bad => Color::Red,
        }))
    }

    /// A text, and remarks below it.
    pub(crate) fn with_remarks(text: &str, remarks: &[String]) -> Cell {
        let mut lines = plain(text).replace('\n', "\\n");
        for remark in remarks {
            lines.push('\n');
            lines.push_str(&plain(remark));
        }
        Cell(comfy_table::Cell::new(lines))
    }

    fn label(text: &str) -> Cell {
        Cell(comfy_table::Cell::new(text).add_attribute(Attribute::Bold))
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Cell {
        Cell(comfy_table::Cell::new(plain(text.as_ref()).replace('\n', "\\n")))
    }
}

/// A table.
pub(crate) struct Table {
    inner: comfy_table::Table,
    columns: Vec<Column>,
    headed: bool,
}

impl Table {
    /// A table with these columns.
    pub(crate) fn new(columns: &[Column]) -> Table {
        let mut inner = comfy_table::Table::new();
        inner
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic)
            // Colour is decided where the text is written, for all of the program.
            .enforce_styling()
            .set_header(columns.iter().map(|column| Cell::label(column.heading).0));
        inner.style_text_only();
        for (column, behaviour) in inner.column_iter_mut().zip(columns) {
            column.set_padding((0, GAP)).set_cell_alignment(behaviour.alignment);
            if let Some(constraint) = behaviour.constraint() {
                column.set_constraint(constraint);
            }
        }
        Table { inner, columns: columns.to_vec(), headed: true }
    }

    /// Labels and what they label.
    pub(crate) fn facts() -> Table {
        Table::new(&[Column::left(""), Column::flow("")]).continued()
    }

    /// The same as a part of a table that was headed before.
    #[must_use]
    pub(crate) fn continued(self) -> Table {
        Table { headed: false, ..self }
    }

    /// The same, moved to the right.
    #[must_use]
    pub(crate) fn indented(mut self, by: u16) -> Table {
        if let Some(first) = self.inner.column_mut(0) {
            first.set_padding((by, GAP));
        }
        self
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        self.inner.add_row(cells.map(|cell| cell.0));
    }

    /// Adds a row of as many cells as there are.
    pub(crate) fn cells(&mut self, cells: Vec<Cell>) {
        self.inner.add_row(cells.into_iter().map(|cell| cell.0));
    }

    /// Adds a label and what it labels.
    pub(crate) fn fact(&mut self, label: &str, value: impl Into<Cell>) {
        self.row([Cell::label(label), value.into()]);
    }

    /// Its lines, as they are printed.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut inner = self.inner.clone();
        let widths = inner.column_max_content_widths();
        for ((column, behaviour), width) in inner.column_iter_mut().zip(&self.columns).zip(widths) {
            if behaviour.flows {
                let least = width.min(READABLE) + column.padding_width();
                column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least)));
            }
        }
        let skipped = usize::from(!self.headed);
        inner.lines().skip(skipped).map(|line| line.trim_end().to_owned()).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unstyled(table: &Table) -> Vec<String> {
        table.lines().iter().map(|line| anstream::adapter::strip_str(line).to_string()).collect()
    }

    #[test]
    fn columns_line_up_and_nothing_trails() {
        let mut table = Table::new(&[Column::right("SIZE"), Column::flow("NAME")]);
        table.row(["23 B".into(), "a".into()]);
        table.row(["1.2 GiB".into(), "b".into()]);
        assert_eq!(unstyled(&table), ["   SIZE  NAME", "   23 B  a", "1.2 GiB  b"]);
    }

    #[test]
    fn parts_of_a_table_line_up() {
        let columns = [Column::right("SIZE").at_least(10), Column::flow("NAME")];
        let mut first = Table::new(&columns);
        first.row(["23 B".into(), "a".into()]);
        let mut second = Table::new(&columns).continued();
        second.row(["1023.9 KiB".into(), "b".into()]);
        assert_eq!(unstyled(&first), ["      SIZE  NAME", "      23 B  a"]);
        assert_eq!(unstyled(&second), ["1023.9 KiB  b"]);
    }

    #[test]
    fn a_narrow_terminal_wraps_the_flowing_column_only() {
        let mut table = Table::new(&[Column::right("SIZE"), Column::flow("NAME")]);
        table.row(["23 B".into(), "abcdefghijklmnopqrstuvwxyz".into()]);
        table.inner.set_width(32);
        let lines = unstyled(&table);
        assert!(lines.len() == 3 && lines.iter().all(|line| line.len() <= 32), "{lines:?}");
        let name: String = lines[1..].iter().map(|line| line[6..].trim()).collect();
        assert_eq!(name, "abcdefghijklmnopqrstuvwxyz");
        table.inner.set_width(10);
        assert_eq!(unstyled(&table), lines, "narrower than that, nobody could read it");
    }

    #[test]
    fn only_remarks_begin_a_line() {
        let mut table = Table::new(&[Column::right("ID"), Column::flow("NAME")]);
        table.row(["1".into(), Cell::with_remarks("a\nb", &["dropped P3".to_owned()])]);
        table.row(["2".into(), "c\nd".into()]);
        assert_eq!(unstyled(&table), ["ID  NAME", " 1  a\\nb", "    dropped P3", " 2  c\\nd"]);
    }
}

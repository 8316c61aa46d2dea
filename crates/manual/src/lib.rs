//! The manual pages of a command, from the definition that it reads its own arguments with: they cannot disagree.
//!
//! Called by each program, where `cargo xtask dist` asks it for its pages. Writes files, and reads nothing.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

/// What a page says that the definition of the command does not.
#[derive(Debug, Clone, Copy)]
pub struct Pages<'a> {
    /// Section of the manual: "1" for commands, "8" for daemons.
    pub section: &'a str,
    /// Files that the program reads and writes, each with what it is. Only on the page of the command itself.
    pub files: &'a [(&'a str, &'a str)],
    /// Pages to read next, such as `p2pd(8)`.
    pub see_also: &'a [&'a str],
}

impl Pages<'_> {
    /// Writes the page of `command` into `directory`, and one for each of its verbs that is not hidden.
    ///
    /// # Errors
    /// Where a file cannot be written; with its path.
    pub fn write(&self, command: Command, directory: &Path) -> io::Result<()> {
        let mut command = command.disable_help_subcommand(true);
        command.build();
        let source = format!("{} {}", command.get_name(), command.get_version().unwrap_or_default());
        self.write_one(&command, source.trim(), self.files, directory)?;
        self.write_verbs(&command, source.trim(), directory)
    }

    fn write_verbs(&self, command: &Command, source: &str, directory: &Path) -> io::Result<()> {
        for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            self.write_one(verb, source, &[], directory)?;
            self.write_verbs(verb, source, directory)?;
        }
        Ok(())
    }

    fn write_one(
        &self,
        command: &Command,
        source: &str,
        files: &[(&str, &str)],
        directory: &Path,
    ) -> io::Result<()> {
        let man = Man::new(command.clone()).section(self.section);
        let path = directory.join(man.get_filename());
        let title = command.get_display_name().unwrap_or(command.get_name());
        // By hand, since the library would leave out the empty date, and what follows would take its place.
        let mut page =
            format!(".TH {title} {} \"\" \"{source}\" \"File sharing\"\n", self.section).into_bytes();
        man.render_name_section(&mut page)?;
        man.render_synopsis_section(&mut page)?;
        man.render_description_section(&mut page)?;
        man.render_options_section(&mut page)?;
        if command.get_subcommands().any(|verb| !verb.is_hide_set()) {
            man.render_subcommands_section(&mut page)?;
        }
        let mut rest = Roff::new();
        if let Some(help) = command.get_after_help() {
            after_help(&mut rest, &help.to_string());
        }
        if !files.is_empty() {
            rest.control("SH", ["FILES"]);
        }
        for (path, what) in files {
            rest.control("TP", []);
            rest.text([bold(*path)]);
            rest.text([roman(*what)]);
        }
        let own = format!("{title}({})", self.section);
        let others: Vec<_> = self.see_also.iter().copied().filter(|page| *page != own).collect();
        see_also(&mut rest, &others);
        rest.to_writer(&mut page)?;
        let written = fs::File::create(&path).and_then(|mut file| file.write_all(&page));
        written.map_err(|error| {
            io::Error::new(error.kind(), format!("cannot write {}: {error}", path.display()))
        })
    }
}

/// The end of a help text: blocks with a title become sections of that title, the others notes.
fn after_help(page: &mut Roff, help: &str) {
    let mut last = String::new();
    for block in help.split("\n\n") {
        let (title, lines) = match block.split_once('\n') {
            Some((title, lines)) if title.ends_with(':') => (title.trim_end_matches(':'), lines),
            _ => ("Notes", block),
        };
        let title = match title {
            "Exit codes" => "EXIT STATUS".to_owned(),
            other => other.to_uppercase(),
        };
        if title == last {
            page.control("PP", []);
        } else {
            page.control("SH", [title.as_str()]);
        }
        last = title;
        lines_of(page, lines);
    }
}

/// Lines that are set off are kept as they are; the others are text.
fn lines_of(page: &mut Roff, lines: &str) {
    let mut literal = false;
    for line in lines.lines() {
        let set_off = line.starts_with("  ");
        if set_off != literal {
            page.control(if set_off { "nf" } else { "fi" }, []);
        }
        literal = set_off;
        page.text([roman(line.trim_start())]);
    }
    if literal {
        page.control("fi", []);
    }
}

fn see_also(page: &mut Roff, pages: &[&str]) {
    if pages.is_empty() {
        return;
    }
    page.control("SH", ["SEE ALSO"]);
    let mut line = Vec::new();
    for (at, name) in pages.iter().enumerate() {
        let (name, section) = name.split_once('(').unwrap_or((name, ""));
        line.push(bold(name));
        let comma = if at + 1 < pages.len() { ", " } else { "" };
        line.push(roman(if section.is_empty() { comma.to_owned() } else { format!("({section}{comma}") }));
    }
    page.text(line);
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    const PAGES: Pages<'_> = Pages {
        section: "8",
        files: &[("/etc/played.toml", "What it may do.")],
        see_also: &["other(1)", "more(5)"],
    };

    fn played() -> Command {
        Command::new("played")
            .version("7.1")
            .about("Plays a program")
            .after_help("Examples:\n  played --loud\n\nExit codes:\n  0  done\n\nIt ends.\n.It does.")
            .arg(Arg::new("loud").long("loud").help("Not quietly").action(clap::ArgAction::SetTrue))
            .subcommand(Command::new("sing").about("Sings").after_help("Examples:\n  played sing"))
            .subcommand(Command::new("secret").hide(true))
    }

    #[test]
    fn each_visible_verb_has_a_page() {
        let directory = tempfile::tempdir().unwrap();
        PAGES.write(played(), directory.path()).unwrap();
        let entries = fs::read_dir(directory.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["played-sing.8", "played.8"]);
        let verb = fs::read_to_string(directory.path().join("played-sing.8")).unwrap();
        let title = ".TH played-sing 8 \"\" \"played 7.1\" \"File sharing\"\n";
        assert!(verb.starts_with(title), "the version is the program's: {verb}");
        assert!(!verb.contains("FILES"), "{verb}");
    }

    #[test]
    fn a_page_has_what_help_says_in_sections_of_a_manual() {
        let directory = tempfile::tempdir().unwrap();
        PAGES.write(played(), directory.path()).unwrap();
        let page = fs::read_to_string(directory.path().join("played.8")).unwrap();
        for part in [
            "Not quietly",
            ".SH EXAMPLES\n.nf\nplayed \\-\\-loud\n.fi\n",
            ".SH \"EXIT STATUS\"\n.nf\n0  done\n.fi\n",
            // A line that begins with a dot is no command.
            ".SH NOTES\nIt ends.\n\\&.It does.\n",
            "\\fB/etc/played.toml\\fR",
            "\\fBother\\fR(1), \\fBmore\\fR(5)",
        ] {
            assert!(page.contains(part), "{part:?} is not in {page}");
        }
        assert!(!page.contains("secret"), "{page}");
    }
}

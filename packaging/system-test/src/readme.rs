//! The commands that README.md tells a newcomer to type, taken from its section "Install" word by word.

use anyhow::{Context, Result, ensure};

/// More are no quick start.
pub(crate) const MOST: usize = 5;

/// README.md, as it was when this program was built.
const README: &str = include_str!("../../../README.md");

/// The commands of the section "Install", at most [`MOST`].
pub(crate) fn install_commands() -> Result<Vec<&'static str>> {
    let commands = commands_of(README, "## Install")?;
    ensure!(
        commands.len() <= MOST,
        "README.md takes {} commands to a fetched file, more than {MOST}",
        commands.len()
    );
    Ok(commands)
}

/// The lines of the first block of commands below a heading, without comments.
fn commands_of<'a>(text: &'a str, heading: &str) -> Result<Vec<&'a str>> {
    let mut lines = text.lines().skip_while(|line| *line != heading).skip(1);
    let section = lines.by_ref().take_while(|line| !line.starts_with("## "));
    let mut block = section.skip_while(|line| *line != "```sh").skip(1).take_while(|line| *line != "```");
    let commands: Vec<_> = block
        .by_ref()
        .map(|line| line.split(" #").next().unwrap_or(line).trim())
        .filter(|line| !line.is_empty())
        .collect();
    ensure!(!commands.is_empty(), "there is no block of commands below {heading:?}");
    Ok(commands)
}

/// Where a command of the section is typed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On the machine of the directory.
    Maestro,
    /// On every peer.
    Peers,
    /// On the peer that wants a file.
    One,
}

/// Where this command is typed, as the comments beside it say.
pub(crate) fn place(command: &str) -> Place {
    if command.contains("maestrod") {
        Place::Maestro
    } else if command.contains("apt install") || command.contains("p2pctl join") {
        Place::Peers
    } else {
        Place::One
    }
}

/// Whether a person pastes the join token into this command, which the command on maestro printed last.
pub(crate) fn takes_token(command: &str) -> bool {
    command.ends_with("--token-file -")
}

/// The command that fetches, as one that another user may type without being root.
pub(crate) fn fetched_name() -> Result<&'static str> {
    let last = install_commands()?.into_iter().next_back().context("there are no commands")?;
    last.split(' ').next_back().context("the last command is empty")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_taken_from_their_section_only() {
        let text = "# A\n```sh\nno\n```\n## Install\nSo:\n\n```sh\na b   # why\n\nc\n```\n\n```sh\nlater\n```\n## B\n";
        assert_eq!(commands_of(text, "## Install").unwrap(), ["a b", "c"]);
        assert!(commands_of(text, "## B").is_err());
    }

    #[test]
    fn both_languages_have_the_same_commands() {
        let spanish = include_str!("../../../README.es.md");
        assert_eq!(commands_of(spanish, "## Instalar").unwrap(), install_commands().unwrap());
    }

    #[test]
    fn the_commands_lead_from_installing_to_a_file() {
        let commands = install_commands().unwrap();
        assert!(commands[0].contains("apt install ./maestrod_*.deb"), "{commands:?}");
        assert_eq!(place(commands[0]), Place::Maestro);
        assert_eq!(place(commands[1]), Place::Maestro);
        assert!(commands[1].ends_with("maestrod token"), "{commands:?}");
        assert_eq!(commands.iter().filter(|command| takes_token(command)).count(), 1);
        assert_eq!(commands.iter().filter(|command| place(command) == Place::Peers).count(), 2);
        assert_eq!(fetched_name().unwrap(), "archivo1.txt");
    }
}

//! The command line: every verb, its options, and the examples that its `--help` ends with.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

mod limit;
mod network;

pub(crate) use limit::Limit;
pub(crate) use network::{Join, Leave};

/// Files from every machine that has them: the command that speaks with p2pd.
#[derive(Debug, Parser)]
#[command(name = "p2pctl", version, after_help = crate::exit::help(), max_term_width = 100)]
#[command(arg_required_else_help = true, subcommand_required = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// What holds for every verb.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What holds for every verb.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// p2pd's control socket [default: $XDG_RUNTIME_DIR/p2pd/control.sock if it is there, else /run/p2pd/control.sock]
    #[arg(long, global = true, value_name = "PATH", env = "P2PD_SOCKET", hide_env_values = true)]
    pub(crate) socket: Option<PathBuf>,
    /// Print what p2pd answers, in JSON; streams as one object per line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// When to use colour: auto, always or never; NO_COLOR is respected
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    pub(crate) color: Color,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show how this peer is: its maestro, what it shares, what it fetches
    #[command(after_help = "Examples:\n  p2pctl status\n  p2pctl status --json | jq .maestro.state")]
    Status,
    /// Examine everything that p2pd needs, and say what is wrong and what to do
    #[command(
        after_help = "Examples:\n  p2pctl doctor\n  p2pctl doctor --json | jq -r '.checks[] | select(.verdict == \
                            \"problem\") | .found'\n\nIt looks at: daemon, socket, configuration, identity, disks, \
                            shares, inotify watches, maestro, membership, clock, whether other peers can connect (the \
                            maestro tries), and versions. It works as far as possible while p2pd is stopped.\n\nExit \
                            codes: 0 all is well, 1 there are warnings, 2 there are problems."
    )]
    Doctor,
    /// List files: this peer's, another peer's, or the whole network's
    List(List),
    /// Find files in the whole network by a part of their name
    Search(Search),
    /// Show who has a file
    Locate(Locate),
    /// Fetch a file, from everyone who has it
    Fetch(Fetch),
    /// Show what is being fetched; pause it, resume it, end it
    Transfers(Transfers),
    /// Say what bounds a transfer now: disk, CPU, a limit, the network, its sources; with the figures
    Why(Why),
    /// Show or set how fast file data goes out and comes in, at the most
    Limit(Limit),
    /// List the peers of the network, and friends
    #[command(after_help = "Examples:\n  p2pctl peers\n  p2pctl peers --json | jq -r '.peers[].peer_id'")]
    Peers,
    /// List, add and remove friends: peers that you trust, with or without a maestro
    Friends(Friends),
    /// Send a file to a peer
    Send(Send),
    /// Look at the shared directories again and announce what is in them now
    #[command(after_help = "Examples:\n  p2pctl refresh")]
    Refresh,
    /// List the directories that this peer shares
    #[command(after_help = "Examples:\n  p2pctl shares")]
    Shares,
    /// List, add and remove the directories that this peer shares
    Share(Share),
    /// Show the configuration that is in force
    Config(Config),
    /// Join the network of a maestro, or of several
    Join(Join),
    /// Leave the network; files and friends stay
    Leave(Leave),
    /// Print a completion script for a shell
    #[command(
        after_help = "Examples:\n  p2pctl completions bash > ~/.local/share/bash-completion/completions/p2pctl\n  \
                            p2pctl completions zsh > ~/.zfunc/_p2pctl\n  \
                            p2pctl completions fish > ~/.config/fish/completions/p2pctl.fish"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages of p2pctl, for its package
    #[command(hide = true, after_help = "Examples:\n  p2pctl manual target/man")]
    Manual {
        /// Where they go
        directory: PathBuf,
    },
    /// Print the version of p2pctl, and of p2pd where it runs
    #[command(after_help = "Examples:\n  p2pctl version")]
    Version,
}

/// `list`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  p2pctl list\n  p2pctl list docs/\n  p2pctl list --all\n  \
                        p2pctl list --peer P2 --limit 20")]
pub(crate) struct List {
    /// Only files whose name starts with this
    #[arg(value_name = "PATH")]
    pub(crate) prefix: Option<String>,
    /// The files of this peer: its name, its ID or the beginning of it
    #[arg(long, value_name = "PEER", conflicts_with = "all")]
    pub(crate) peer: Option<String>,
    /// The files of the whole network
    #[arg(long)]
    pub(crate) all: bool,
    /// At most so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
}

/// `search`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  p2pctl search archivo\n  p2pctl search .iso --limit 10")]
pub(crate) struct Search {
    /// A part of the name; upper and lower case are the same
    pub(crate) text: String,
    /// At most so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
}

/// `locate`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  p2pctl locate archivo1.txt\n  p2pctl locate $(b3sum --no-names archivo1.txt)"
)]
pub(crate) struct Locate {
    /// A name, or a BLAKE3 hash as b3sum prints it
    #[arg(value_name = "NAME|HASH")]
    pub(crate) what: String,
}

/// `fetch`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  p2pctl fetch archivo1.txt\n  p2pctl fetch archivo1.txt --from P2\n  \
                        p2pctl fetch archivo1.txt -o ~/Downloads/\n  p2pctl fetch backup.tar -o - | tar x\n  \
                        p2pctl fetch archivo1.txt | b3sum --check\n  p2pctl fetch big.iso --detach\n  \
                        p2pctl fetch big.iso --dry-run\n  \
                        p2pctl fetch -r datasets/imagenet --dry-run\n  p2pctl fetch -r datasets/imagenet\n  \
                        p2pctl fetch 'photos/**/*.jpg' --from P2\n  \
                        p2pctl fetch urgent.iso --priority high\n\n\
                        It ends by printing the file's hash and path, as b3sum does. Ctrl-C leaves the transfer running: \
                        the same command comes back to it.\n\n\
                        A directory (-r) or a pattern is one transfer: what has the same content here is not fetched, and \
                        if a name stands for several contents, or for another file here, nothing is. A pattern has * or ?, \
                        which stand for what has no /; ** stands for any directories, and [ab] for one of these characters. \
                        Quote it, or the shell reads it first.")]
pub(crate) struct Fetch {
    /// A name, a BLAKE3 hash as b3sum prints it, a directory with -r, or a pattern such as 'data/**'
    #[arg(value_name = "NAME|HASH|PATTERN")]
    pub(crate) what: String,
    /// Fetch a whole directory of the network
    #[arg(short, long, conflicts_with_all = ["output", "save_as"])]
    pub(crate) recursive: bool,
    /// Only say what would be fetched, how much it is, from whom, and where it would land
    #[arg(long, conflicts_with_all = ["output", "detach"])]
    pub(crate) dry_run: bool,
    /// Put a copy there that is yours: a file, a directory, or - for standard output
    #[arg(short, long, value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,
    /// With -o: replace the file that is there, or write into the device or pipe
    #[arg(long, requires = "output")]
    pub(crate) force: bool,
    /// The name that it shall have on this peer
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) save_as: Option<String>,
    /// Only from this peer: its name, its ID or the beginning of it, or the URL of a plain peer
    #[arg(long, value_name = "PEER")]
    pub(crate) from: Option<String>,
    /// Whether it goes before others, or after them, where more want to run than may at once: low, normal or high
    #[arg(long, value_name = "PRIORITY", hide_possible_values = true)]
    pub(crate) priority: Option<Priority>,
    /// Do not wait for the end
    #[arg(long, conflicts_with = "output")]
    pub(crate) detach: bool,
}

/// Which transfers go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Priority {
    /// After all others.
    Low,
    /// As all others.
    Normal,
    /// Before all others.
    High,
}

impl Priority {
    /// As p2pd is told.
    pub(crate) fn to_wire(self) -> p2p_proto::control::Priority {
        match self {
            Self::Low => p2p_proto::control::Priority::Low,
            Self::Normal => p2p_proto::control::Priority::Normal,
            Self::High => p2p_proto::control::Priority::High,
        }
    }
}

/// `transfers`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(
    after_help = "Examples:\n  p2pctl transfers\n  p2pctl transfers --watch\n  p2pctl transfers pause 7\n  \
                  p2pctl transfers resume 7\n  p2pctl transfers priority 7 high\n  p2pctl transfers cancel 7\n\n\
                  Where more want to run than may at once ([transfers] running of p2pd.toml), those of higher priority go \
                  first, then the older ones; the others say behind which one they are queued."
)]
pub(crate) struct Transfers {
    /// Show them as they go on, until Ctrl-C
    #[arg(long)]
    pub(crate) watch: bool,
    /// All of them, not only the open ones and the last 10 that ended
    #[arg(long)]
    pub(crate) all: bool,
    /// What to do with them.
    #[command(subcommand)]
    pub(crate) verb: Option<TransfersVerb>,
}

/// `transfers …`.
#[derive(Debug, Subcommand)]
pub(crate) enum TransfersVerb {
    /// End a transfer; what it has fetched is thrown away
    #[command(after_help = "Examples:\n  p2pctl transfers cancel 7")]
    Cancel {
        /// Its number, as `p2pctl transfers` shows it
        id: u64,
    },
    /// Stop a transfer for now, over restarts of p2pd too; what it has fetched stays
    #[command(after_help = "Examples:\n  p2pctl transfers pause 7\n  p2pctl transfers resume 7")]
    Pause {
        /// Its number, as `p2pctl transfers` shows it
        id: u64,
    },
    /// Let a transfer go before others, or after them, over restarts of p2pd too
    #[command(
        after_help = "Examples:\n  p2pctl transfers priority 7 high\n  p2pctl transfers priority 7 low\n\nOne that waits \
                      makes one of lower priority that runs yield its turn, which goes on where it was when its own turn \
                      comes."
    )]
    Priority {
        /// Its number, as `p2pctl transfers` shows it
        id: u64,
        /// low, normal or high
        #[arg(hide_possible_values = true)]
        priority: Priority,
    },
    /// Let a transfer that was paused go on
    #[command(after_help = "Examples:\n  p2pctl transfers resume 7")]
    Resume {
        /// Its number, as `p2pctl transfers` shows it
        id: u64,
    },
}

/// `why`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  p2pctl why 7\n  p2pctl why 7 --watch\n  p2pctl why 7 --json | jq -r .bound_by\n\nIt tells what \
                  the last ten seconds went into, as p2pd measured them, and what each source waits for; of a transfer \
                  that has ended, what bounded it, until p2pd restarts. In --json, bound_by is one of network, their-limit, \
                  our-limit, disk, cpu, no-sources, rare-pieces, paused, queued, disk-full, failure, starting, ended."
)]
pub(crate) struct Why {
    /// Its number, as `p2pctl transfers` shows it
    pub(crate) id: u64,
    /// Say it every second until it has ended, or Ctrl-C
    #[arg(long)]
    pub(crate) watch: bool,
}

/// `friends`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  p2pctl friends\n  p2pctl friends add 192.168.1.20:9002 --name ana\n  \
                        p2pctl friends remove ana")]
pub(crate) struct Friends {
    /// What to do with them.
    #[command(subcommand)]
    pub(crate) verb: Option<FriendsVerb>,
}

/// `friends …`.
#[derive(Debug, Subcommand)]
pub(crate) enum FriendsVerb {
    /// List friends
    #[command(after_help = "Examples:\n  p2pctl friends list")]
    List,
    /// Trust a peer
    #[command(
        after_help = "Examples:\n  p2pctl friends add 192.168.1.20:9002\n  p2pctl friends add P2 --name ana"
    )]
    Add {
        /// Its host:port, or the name or ID of a peer of the network
        peer: String,
        /// The peer ID that must answer there; without it, whoever answers is pinned
        #[arg(long, value_name = "ID")]
        id: Option<String>,
        /// What to call it; without it, what it calls itself
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
    /// Trust a peer no more
    #[command(after_help = "Examples:\n  p2pctl friends remove ana")]
    Remove {
        /// Its name or ID
        peer: String,
    },
}

/// `send`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  p2pctl send informe.pdf P2\n  p2pctl send informe.pdf P2 --as docs/informe.pdf\n  \
                        tar c photos | p2pctl send - P2 --as photos.tar"
)]
pub(crate) struct Send {
    /// The file, or - for standard input
    pub(crate) file: PathBuf,
    /// To whom: its name, its ID or the beginning of it, or the URL of a plain peer
    pub(crate) peer: String,
    /// The name that it shall have there
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) save_as: Option<String>,
}

/// `config`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  p2pctl config show\n  p2pctl config show --json | jq -r '.entries[] | \
                        select(.after_restart != null) | .key'")]
pub(crate) struct Config {
    /// What to do with it.
    #[command(subcommand)]
    pub(crate) verb: ConfigVerb,
}

/// `config …`.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum ConfigVerb {
    /// Print the configuration in force, as a file: each value with where it comes from
    #[command(after_help = "Examples:\n  p2pctl config show\n  p2pctl config show --json\n\n\
                            What a reload could not change is shown with the value that it has after a restart. The daemon \
                            reads its file again with `systemctl reload p2pd`; `p2pd --check-config` says what is wrong \
                            with it. What users set by command is no part of it: `p2pctl shares` and `p2pctl limit` show \
                            that.")]
    Show,
}

/// `share`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  p2pctl share add /data/iso\n  p2pctl share add /data/in --downloads\n  \
                        p2pctl share remove iso\n  p2pctl share list"
)]
pub(crate) struct Share {
    /// What to do with them.
    #[command(subcommand)]
    pub(crate) verb: ShareVerb,
}

/// `share …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ShareVerb {
    /// List them, as `p2pctl shares` does
    #[command(after_help = "Examples:\n  p2pctl share list")]
    List,
    /// Share a directory, at once and after every restart
    Add(AddShare),
    /// Share a directory no more that was added; its files stay
    #[command(
        after_help = "Examples:\n  p2pctl share remove iso\n\nWhoever may use p2pd's socket can remove what was \
                            added, whoever added it. Shares of the configuration file are its administrator's: take \
                            them out there."
    )]
    Remove {
        /// The share's name, as `p2pctl shares` shows it
        name: String,
    },
}

/// `share add`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  p2pctl share add /data/iso\n  p2pctl share add \"$PWD\" --visible friends\n  \
                        p2pctl share add /data/in --name incoming --downloads\n\nRoot, and the user that p2pd runs as, \
                        can share any directory but p2pd's own; other users those that they own. Where fetched files \
                        land (--downloads) is for root and the user of p2pd alone to say.\n\nWhere the sandbox of p2pd's \
                        service or the directory's modes are in the way, it says so and prints the commands that help."
)]
pub(crate) struct AddShare {
    /// The directory: its whole path, from the root
    pub(crate) path: PathBuf,
    /// What to call the share; without it, the last part of the path
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Who may see it: network (members of the network, and friends) or friends
    #[arg(long, value_name = "WHO", default_value = "network", hide_possible_values = true)]
    pub(crate) visible: Visible,
    /// Fetched files land in it from now on, and no more where they landed before
    #[arg(long)]
    pub(crate) downloads: bool,
}

/// Who may see a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Visible {
    /// Members of the network, and friends.
    Network,
    /// Friends only.
    Friends,
}

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory as _};

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_has_examples() {
        fn check(command: &Command) {
            for verb in command.get_subcommands() {
                let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.starts_with("Examples:\n  p2pctl"), "{} has no examples", verb.get_name());
                check(verb);
            }
        }
        check(&Cli::command());
    }
}

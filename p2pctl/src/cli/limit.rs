//! `limit` on the command line, and rates as people write them.

use clap::{ArgGroup, Args};

/// `limit`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  p2pctl limit\n  p2pctl limit --up 20MiB --down 100MiB\n  p2pctl limit --up off\n  \
                  p2pctl limit --as-configured\n  p2pctl limit --peer P2 --up 5MiB\n  \
                  p2pctl limit --peer P2 --as-configured\n\nWithout an option it shows what is in force. Rates are bytes per second, \
                  over all peers, or with --peer of one peer beside that: 20MiB, 2.5MB, or off for as fast as it goes. They hold at once and over restarts, and go \
                  before [limits] of p2pd.toml and its schedule until --as-configured; a direction that is not named stays as it is.\n\nWhat \
                  peers fetch from each other in pieces counts; REST and the whole files of the first system do not."
)]
#[command(group(ArgGroup::new("what").multiple(true)))]
pub(crate) struct Limit {
    /// Send no faster than this
    #[arg(long, value_name = "RATE", allow_hyphen_values = true, group = "what")]
    pub(crate) up: Option<Rate>,
    /// Fetch no faster than this
    #[arg(long, value_name = "RATE", allow_hyphen_values = true, group = "what")]
    pub(crate) down: Option<Rate>,
    /// Forget what was set here: what the configuration says counts again
    #[arg(long, group = "what")]
    pub(crate) as_configured: bool,
    /// Of this peer only: its name, its ID or the beginning of it
    #[arg(long, value_name = "PEER", requires = "what")]
    pub(crate) peer: Option<String>,
}

/// Bytes per second; 0 for as fast as it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate(pub(crate) u64);

impl std::str::FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Rate, String> {
        if text == "off" {
            return Ok(Rate(0));
        }
        let bytes = text.strip_suffix("/s").unwrap_or(text).parse::<bytesize::ByteSize>();
        match bytes {
            Ok(bytes) if bytes.as_u64() > 0 => Ok(Rate(bytes.as_u64())),
            _ => Err("give a number with a unit, such as 20MiB or 500kB, or `off`".to_owned()),
        }
    }
}

//! `cargo xtask system-test`: the packages, installed and used in Debian systems that are booted for it.
//!
//! Each group of cases has a [`site::Site`] of its own: some hosts, each a root file system of a Debian release with a
//! systemd that was booted in it, in a network namespace of its own, all on one bridge. What a case does there is what an
//! administrator would do: `apt install`, `systemctl`, `p2pctl`, and looking at the outcome.
//!
//! **Owns** everything that it makes on the machine, all of it under one directory and one prefix of names ([`lab`]), and
//! takes it away at its end, after Ctrl-C, and where an earlier run was killed. Called by `xtask`.

mod bases;
mod cases;
mod command;
mod host;
mod interrupt;
mod lab;
mod packages;
mod readme;
mod report;
mod run;
mod site;
mod tools;

pub use bases::Release;
pub use run::run;

/// What is run, and how.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Only cases whose GROUP/NAME contains this
    #[arg(long, value_name = "CASE")]
    only: Option<String>,
    /// Only in this release; without it, in all of them
    #[arg(long, value_name = "RELEASE")]
    release: Option<Release>,
    /// Leave the hosts of failed groups up, and say how to look into them; the next run removes them
    #[arg(long)]
    keep: bool,
    /// Say which cases there are, and end
    #[arg(long)]
    list: bool,
    /// Profile that the packaged programs are built with
    #[arg(long, value_name = "PROFILE", default_value = "release")]
    profile: String,
    /// Take the packages of the run before
    #[arg(long)]
    as_built: bool,
    /// How many groups run at once
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=8))]
    jobs: u8,
}

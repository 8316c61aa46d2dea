//! The arguments of `join` and `leave`.

use std::path::PathBuf;

use clap::Args;

/// `join`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  p2pctl join maestro.example.org\n  \
                        p2pctl join 192.168.1.10:9010 --fingerprint ID --token-file token.txt\n  \
                        p2pctl join m1.lab m2.lab m3.lab\n  p2pctl join --also m4.lab\n\n\
                        Maestros with one identity are one directory: one of them is told what this peer has, and another \
                        one takes its place at once when it fails. Others are networks of their own: all of them are told, and \
                        all are asked. A token is shown to one network only: with it, all addresses must have the identity of the first \
                        one.")]
pub(crate) struct Join {
    /// The maestro's host, or host:port; several: all of them, in place of those that were joined before
    #[arg(value_name = "HOST[:PORT]", required = true)]
    pub(crate) addresses: Vec<String>,
    /// Keep those that were joined before
    #[arg(long)]
    pub(crate) also: bool,
    /// The identity that must answer there; without it, the one that answers is pinned
    #[arg(long, value_name = "ID")]
    pub(crate) fingerprint: Option<String>,
    /// The network's join token; other users of this machine can see it while the command runs
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    pub(crate) token: Option<String>,
    /// A file with the network's join token, or - for standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

/// `leave`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  p2pctl leave\n  p2pctl leave m3.lab")]
pub(crate) struct Leave {
    /// Only this maestro, as it was joined
    #[arg(value_name = "HOST[:PORT]")]
    pub(crate) address: Option<String>,
}

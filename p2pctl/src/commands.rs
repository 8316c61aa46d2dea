//! The verbs, one file per family, and which of them is asked for.

mod config;
mod doctor;
mod fetch;
mod files;
mod follow;
mod friends;
mod limit;
mod local;
mod locate;
mod network;
mod peers;
mod send;
mod share;
mod shares;
mod status;
mod transfers;
mod tree;
mod why;

use crate::cli::{Cli, Verb};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::Output;
use crate::socket;

/// Runs the verb of this command line.
pub(crate) async fn run(cli: Cli, out: &Output) -> Result<(), Failure> {
    let client = Client::new(socket::find(cli.global.socket));
    match cli.verb {
        Verb::Status => status::run(&client, out).await,
        Verb::Doctor => Box::pin(doctor::run(&client, out)).await,
        Verb::List(args) => files::list(&client, out, args).await,
        Verb::Search(args) => files::search(&client, out, args).await,
        Verb::Locate(args) => locate::run(&client, out, args).await,
        Verb::Fetch(args) => Box::pin(fetch::run(&client, out, args)).await,
        Verb::Transfers(args) => transfers::run(&client, out, args).await,
        Verb::Why(args) => why::run(&client, out, args).await,
        Verb::Peers => peers::run(&client, out).await,
        Verb::Friends(args) => friends::run(&client, out, args).await,
        Verb::Send(args) => Box::pin(send::run(&client, out, args)).await,
        Verb::Refresh => shares::refresh(&client, out).await,
        Verb::Shares => shares::list(&client, out).await,
        Verb::Share(args) => share::run(&client, out, args).await,
        Verb::Limit(args) => limit::run(&client, out, args).await,
        Verb::Config(args) => config::run(&client, out, args.verb).await,
        Verb::Join(args) => network::join(&client, out, args).await,
        Verb::Leave(args) => network::leave(&client, out, args).await,
        Verb::Completions { shell } => local::completions(out, shell),
        Verb::Manual { directory } => local::manual(&directory),
        Verb::Version => local::version(&client, out).await,
    }
}

/// A path with its query, written as a URL wants it.
struct Route(String);

impl Route {
    fn new(path: impl Into<String>) -> Route {
        Route(path.into())
    }

    fn with(mut self, key: &str, value: &str) -> Route {
        self.0.push(if self.0.contains('?') { '&' } else { '?' });
        self.0.push_str(key);
        self.0.push('=');
        self.0.push_str(&escaped(value));
        self
    }

    fn with_some(self, key: &str, value: Option<&str>) -> Route {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }
}

/// A word inside of a URL.
fn escaped(word: &str) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    utf8_percent_encode(word, KEPT).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_keeps_what_it_carries_apart() {
        let route =
            Route::new("/v1/files").with("prefix", "a&b=ñ/c d").with_some("peer", None).with("all", "true");
        assert_eq!(route.0, "/v1/files?prefix=a%26b%3D%C3%B1%2Fc%20d&all=true");
    }
}

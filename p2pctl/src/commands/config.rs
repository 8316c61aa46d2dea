//! `config`: the configuration in force.

use p2p_proto::control::ConfigAnswer;

use crate::cli::ConfigVerb;
use crate::client::Client;
use crate::failure::Failure;
use crate::output::Output;

/// Runs `config …`.
pub(super) async fn run(client: &Client, out: &Output, verb: ConfigVerb) -> Result<(), Failure> {
    match verb {
        ConfigVerb::Show => {
            let answer = client.get::<ConfigAnswer>("/v1/config").await?;
            if out.json() {
                return out.raw(&answer.raw);
            }
            out.line(answer.value.to_toml().trim_end())
        }
    }
}

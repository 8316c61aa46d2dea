//! What a link of the laboratory carries, measured with iperf3.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use p2p_tests::{Lab, eventually};
use tokio::process::Command;

/// How long one measurement may take, with the waiting for its server.
const MEASURED_WITHIN: Duration = Duration::from_secs(300);

/// How much is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Amount {
    /// As much as goes in this many seconds.
    Seconds(u32),
    /// So many bytes.
    Bytes(u64),
}

/// The payload that one TCP flow carries from a host to another, in bits per second.
///
/// # Errors
/// Where iperf3 is missing, or measures nothing.
pub(crate) async fn bits_per_second(lab: &Lab, from: u8, to: u8, amount: Amount) -> Result<f64> {
    let mut server = Command::from(lab.command(from, "iperf3"));
    server.args(["--server", "--one-off"]).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let mut server = server.spawn().context("cannot run ip")?;
    let (option, value) = match amount {
        Amount::Seconds(seconds) => ("--time", u64::from(seconds)),
        Amount::Bytes(bytes) => ("--bytes", bytes),
    };
    let rate = eventually(MEASURED_WITHIN, "iperf3 measures a link", async || {
        let mut client = Command::from(lab.command(to, "iperf3"));
        client.args(["--client", &Lab::address(from).to_string(), "--reverse", "--json"]);
        client.args([option, &value.to_string()]).stdin(Stdio::null()).kill_on_drop(true);
        let output = client.output().await.context("cannot run ip")?;
        // Its server does not listen yet, where it fails at once.
        rate_in(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stdout).into_owned())
    })
    .await;
    let _ = server.kill().await;
    rate
}

fn rate_in(report: &[u8]) -> Option<f64> {
    let report: serde_json::Value = serde_json::from_slice(report).ok()?;
    report["end"]["sum_received"]["bits_per_second"].as_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_receiver_says_what_it_got() {
        let report =
            br#"{"end":{"sum_sent":{"bits_per_second":2.0},"sum_received":{"bits_per_second":1.5}}}"#;
        assert_eq!(rate_in(report), Some(1.5));
        assert_eq!(rate_in(br#"{"error":"unable to connect"}"#), None);
        assert_eq!(rate_in(b""), None);
    }
}

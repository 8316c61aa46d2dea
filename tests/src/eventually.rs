//! Waiting for a fact.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep, timeout_at};

/// Between two looks: short against every deadline of the tests, long against what a look costs.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Between two looks for what is over soon.
const LOOK_CLOSELY_EVERY: Duration = Duration::from_millis(1);

/// Looks with `probe` until it gives a value, which is returned. An error of the probe means "not yet", and why.
///
/// # Errors
/// Where the deadline passes: with `what` was waited for and the probe's last reason.
pub async fn eventually<T>(
    deadline: Duration,
    what: &str,
    probe: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    looked_for(LOOK_EVERY, deadline, what, probe).await
}

/// The same for a moment that is soon over: looks as often as the clock allows, with a probe that costs nothing.
///
/// # Errors
/// As [`eventually`].
pub async fn as_soon_as<T>(
    deadline: Duration,
    what: &str,
    probe: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    looked_for(LOOK_CLOSELY_EVERY, deadline, what, probe).await
}

async fn looked_for<T>(
    every: Duration,
    deadline: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let until = Instant::now() + deadline;
    let mut last = None;
    loop {
        match timeout_at(until, probe()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(reason)) if Instant::now() < until => last = Some(reason),
            Ok(Err(reason)) => return Err(reason).with_context(|| missed(deadline, what)),
            // The look before this one knows more than that this one did not end.
            Err(_) => {
                let silent = || anyhow::anyhow!("no look at it came to an end");
                return Err(last.unwrap_or_else(silent)).with_context(|| missed(deadline, what));
            }
        }
        sleep(every).await;
    }
}

fn missed(deadline: Duration, what: &str) -> String {
    format!("not within {} s: {what}", deadline.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use anyhow::ensure;

    use super::*;

    #[tokio::test]
    async fn gives_the_value_when_it_is_there_and_the_last_reason_when_it_never_is() {
        let mut looks = 0;
        let found = eventually(Duration::from_secs(5), "the third look", async || {
            looks += 1;
            ensure!(looks == 3, "look {looks}");
            Ok(looks)
        });
        assert_eq!(found.await.unwrap(), 3);
        let never = eventually(Duration::from_millis(50), "a miracle", async || -> Result<()> {
            anyhow::bail!("none yet")
        });
        let message = format!("{:#}", never.await.unwrap_err());
        assert!(message.contains("a miracle") && message.contains("none yet"), "{message}");
        let stuck = eventually(Duration::from_millis(50), "an end", async || -> Result<()> {
            std::future::pending().await
        });
        assert!(stuck.await.is_err());
    }
}

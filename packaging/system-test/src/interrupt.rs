//! Ctrl-C: everything that waits looks here, fails, and so leads to its own cleaning up.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Between two looks: short against what the cases wait for, long against what a look costs.
const LOOK_EVERY: Duration = Duration::from_millis(50);

static TOLD_TO_END: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on signals only set the flag.
pub(crate) fn install() -> Result<()> {
    let flag = TOLD_TO_END.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(flag)).context("cannot take the signals over")?;
    }
    Ok(())
}

/// Whether this run shall end.
pub(crate) fn is_set() -> bool {
    TOLD_TO_END.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// Fails where this run shall end.
pub(crate) fn check() -> Result<()> {
    ensure!(!is_set(), "interrupted");
    Ok(())
}

/// Looks with `probe` until it gives a value, which is returned. An error of the probe means "not yet", and why.
pub(crate) fn eventually<T>(
    deadline: Duration,
    what: &str,
    mut probe: impl FnMut() -> Result<T>,
) -> Result<T> {
    let until = Instant::now() + deadline;
    loop {
        let reason = match probe() {
            Ok(value) => return Ok(value),
            Err(reason) => reason,
        };
        check()?;
        if Instant::now() >= until {
            return Err(reason).with_context(|| format!("not within {} s: {what}", deadline.as_secs_f64()));
        }
        sleep(LOOK_EVERY);
    }
}

/// Lets time pass, where the passing of time is what is measured.
pub(crate) fn pass(time: Duration) -> Result<()> {
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        if is_set() {
            bail!("interrupted");
        }
        sleep(left.min(LOOK_EVERY));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_reason_is_told() {
        let mut looks = 0;
        let mut third = || {
            looks += 1;
            ensure!(looks >= 3, "look {looks}");
            Ok(looks)
        };
        assert_eq!(eventually(Duration::from_secs(5), "a third look", &mut third).unwrap(), 3);
        let never = eventually(Duration::from_millis(1), "a miracle", || -> Result<()> { bail!("none yet") });
        let message = format!("{:#}", never.unwrap_err());
        assert!(message.contains("a miracle") && message.contains("none yet"), "{message}");
    }
}

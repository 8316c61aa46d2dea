//! What the daemon tells systemd: ready, reloading, stopping, alive, and one line of status.
//!
//! Every function does nothing when nobody asked to be told (no `NOTIFY_SOCKET`), and a failure to tell is logged at
//! debug and otherwise ignored: a service must not fail because its supervisor does not listen. Called by a daemon's
//! composition file.

use std::time::Duration;

use sd_notify::NotifyState;

/// The daemon serves; `status` is what `systemctl status` shows.
///
/// `extra` goes in the same datagram as custom assignments, whose names begin with `X_`: the addresses that were
/// bound, for whoever started the daemon with port 0.
pub fn ready(status: &str, extra: &[(&str, &str)]) {
    let status = one_line(status);
    let assignments: Vec<String> =
        extra.iter().map(|(name, value)| format!("{}={}", one_line(name), one_line(value))).collect();
    let mut states = vec![NotifyState::Ready, NotifyState::Status(&status)];
    states.extend(assignments.iter().map(|assignment| NotifyState::Custom(assignment)));
    send(&states);
}

/// What the daemon does now, in one line for `systemctl status`.
pub fn status(status: &str) {
    send(&[NotifyState::Status(&one_line(status))]);
}

/// The configuration is being read again; call [`ready`] when that is done.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        // Without the time, systemd would wait for it and then kill the service.
        Err(error) => {
            tracing::debug!(%error, "systemd is not told of the reload: the monotonic clock cannot be read: {error}")
        }
    }
}

/// The daemon no longer accepts work and is about to end.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// How often [`watchdog`] is to be called (`health::Watchdog` does), when systemd watches this process: half of what it allows.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|allowed| !allowed.is_zero()).map(|allowed| allowed / 2)
}

/// The daemon is alive.
pub fn watchdog() {
    send(&[NotifyState::Watchdog]);
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "cannot notify systemd: {error}");
    }
}

/// A line break would begin another assignment.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

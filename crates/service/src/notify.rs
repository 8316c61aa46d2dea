//! What the daemon tells systemd: ready, reloading, stopping, alive, and one line of status.
//!
//! Owns the one thread that tells it. Where systemd does not read its socket, who sends to it stands still until it does:
//! so everybody else leaves a message in the queue and goes on, and at the end [`finish`] waits for a second and no
//! longer. What waits does not grow with that time: of the status lines only the newest waits, and one sign of life.
//!
//! Every function does nothing, and nothing is started, when nobody asked to be told (no `NOTIFY_SOCKET`). A failure to
//! tell is logged at debug and otherwise ignored: a service must not fail because its supervisor does not listen. Called
//! by a daemon's composition file and `main`, and by `health`.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// How long after [`stopping`] the daemon may still be there only for systemd to be told of it.
const FAREWELL: Duration = Duration::from_secs(1);

static NOTIFIER: LazyLock<Option<Arc<Notifier>>> = LazyLock::new(Notifier::start);

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
    give(Message::Event(lines(&states)));
}

/// What the daemon does now, in one line for `systemctl status`.
pub fn status(status: &str) {
    give(Message::Status(one_line(status)));
}

/// The daemon cannot serve yet and goes on trying: it is given this time more to be ready before systemd ends it.
pub fn still_starting(more: Duration) {
    let more = u32::try_from(more.as_micros()).unwrap_or(u32::MAX);
    give(Message::Event(lines(&[NotifyState::ExtendTimeoutUsec(more)])));
}

/// The configuration is being read again; call [`ready`] when that is done.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => give(Message::Event(lines(&[NotifyState::Reloading, now]))),
        // Without the time, systemd would wait for it and then kill the service.
        Err(error) => {
            tracing::debug!(%error, "systemd is not told of the reload: the monotonic clock cannot be read: {error}")
        }
    }
}

/// The daemon no longer accepts work and is about to end; call [`finish`] as the last.
pub fn stopping() {
    give(Message::Stopping);
}

/// Waits until systemd has been told of [`stopping`], at most until a second after that was called. The one function here
/// that blocks: for the end of `main`, when the runtime is gone.
pub fn finish() {
    if let Some(notifier) = &*NOTIFIER {
        notifier.finish();
    }
}

/// How often [`watchdog`] is to be called (`health::Watchdog` does), when systemd watches this process: half of what it allows.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|allowed| !allowed.is_zero()).map(|allowed| allowed / 2)
}

/// The daemon is alive.
pub fn watchdog() {
    give(Message::Alive);
}

fn give(message: Message) {
    if let Some(notifier) = &*NOTIFIER {
        notifier.give(message);
    }
}

/// What is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Message {
    /// Ready or reloading: each counts, and so does their order. The lines of its datagram.
    Event(String),
    Stopping,
    Status(String),
    Alive,
}

impl Message {
    fn send(&self) -> io::Result<()> {
        let state = match self {
            Message::Event(lines) => NotifyState::Custom(lines),
            Message::Stopping => NotifyState::Stopping,
            Message::Status(status) => NotifyState::Status(status),
            Message::Alive => NotifyState::Watchdog,
        };
        let states = [state];
        loop {
            match sd_notify::notify(&states) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Message>,
    /// When the end waits no longer, as long as the daemon's stopping is to be told and was not.
    stop_by: Option<Instant>,
}

impl Queue {
    fn put(&mut self, message: Message) {
        match message {
            // The new one goes to the end: in the old one's place, a `READY` after it would undo it.
            Message::Status(_) => self.waiting.retain(|waiting| !matches!(waiting, Message::Status(_))),
            Message::Alive if self.waiting.contains(&Message::Alive) => return,
            Message::Stopping => self.stop_by = Some(Instant::now() + FAREWELL),
            Message::Event(_) | Message::Alive => {}
        }
        self.waiting.push_back(message);
    }
}

#[derive(Debug, Default)]
struct Notifier {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Notifier {
    fn start() -> Option<Arc<Notifier>> {
        std::env::var_os("NOTIFY_SOCKET")?;
        let notifier = Arc::new(Notifier::default());
        let teller = Arc::clone(&notifier);
        // Nobody joins it: it may stand still for ever, and ends with the process.
        match std::thread::Builder::new().name("notify".to_owned()).spawn(move || teller.tell()) {
            Ok(_) => Some(notifier),
            Err(error) => {
                tracing::warn!(%error, "systemd is told nothing: the system gives no thread for that: {error}");
                None
            }
        }
    }

    fn give(&self, message: Message) {
        self.lock().put(message);
        self.changed.notify_all();
    }

    fn tell(&self) {
        loop {
            let message = self.wait_for_message();
            if let Err(error) = message.send() {
                tracing::debug!(%error, "cannot notify systemd: {error}");
            }
            if message == Message::Stopping {
                self.lock().stop_by = None;
                self.changed.notify_all();
            }
        }
    }

    fn wait_for_message(&self) -> Message {
        let mut queue = self.lock();
        loop {
            if let Some(message) = queue.waiting.pop_front() {
                return message;
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn finish(&self) {
        let mut queue = self.lock();
        while let Some(stop_by) = queue.stop_by {
            let left = stop_by.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(queue);
                tracing::debug!("ending although systemd, which does not read its socket, was not told");
                return;
            }
            queue = self.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lines of one datagram, without the line break at its end.
fn lines(states: &[NotifyState<'_>]) -> String {
    let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// A line break would begin another assignment.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_out_of_date_does_not_wait() {
        let event = |text: &str| Message::Event(text.to_owned());
        let status = |text: &str| Message::Status(text.to_owned());
        let mut queue = Queue::default();
        for message in [
            status("a"),
            event("reloading"),
            Message::Alive,
            status("b"),
            event("ready"),
            event("reloading"),
            Message::Alive,
            event("ready"),
        ] {
            queue.put(message);
        }
        let events = || [event("reloading"), Message::Alive].into_iter();
        let rest = [event("ready"), event("reloading"), event("ready")];
        let expected: Vec<Message> = events().chain([status("b")]).chain(rest.clone()).collect();
        assert_eq!(queue.waiting, expected);
        assert_eq!(queue.stop_by, None);

        queue.put(status("c"));
        queue.put(Message::Stopping);
        let expected: Vec<Message> = events().chain(rest).chain([status("c"), Message::Stopping]).collect();
        assert_eq!(queue.waiting, expected);
        assert!(queue.stop_by.is_some());

        queue.waiting.clear();
        queue.put(Message::Alive);
        assert_eq!(queue.waiting, [Message::Alive], "what was taken does not count as waiting");
    }
}

//! The signals that a daemon obeys, as a stream of what they ask for.
//!
//! Owns the process's handlers of SIGTERM, SIGINT and SIGHUP. Used by a daemon's main loop alone.

use std::io;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals as SignalIterator};
use tokio::sync::mpsc;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: end. A second one asks to end at once.
    Terminate,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// The signals as they arrive.
///
/// Keep it until the process ends, and keep asking it during the shutdown: once installed, a signal that nobody asks
/// for is a signal ignored, and the second Ctrl-C of an impatient user would do nothing.
#[derive(Debug)]
pub struct Signals {
    arrived: mpsc::Receiver<Signal>,
    handle: Handle,
}

impl Signals {
    /// Takes the signals over from their default actions.
    pub fn install() -> io::Result<Signals> {
        let mut signals = SignalIterator::new([SIGTERM, SIGINT, SIGHUP])?;
        let handle = signals.handle();
        let (sender, arrived) = mpsc::channel(8);
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for number in &mut signals {
                let signal = if number == SIGHUP { Signal::Reload } else { Signal::Terminate };
                tracing::debug!("signal {number} received: {signal:?}");
                if sender.blocking_send(signal).is_err() {
                    break;
                }
            }
        })?;
        Ok(Signals { arrived, handle })
    }

    /// The next signal. Cancel safe.
    pub async fn next(&mut self) -> Signal {
        // A daemon that can no longer be told to stop had better stop.
        self.arrived.recv().await.unwrap_or(Signal::Terminate)
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.handle.close();
    }
}

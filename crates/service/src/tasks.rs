//! The daemon's background tasks: each has a name, the death of an important one is noticed, and all end together.
//!
//! Owns the one shutdown token. Made by a daemon's composition file; handed to whatever starts tasks.

use std::any::Any;
use std::collections::BTreeMap;
use std::error::Error;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::health::{Health, Heartbeat};

/// How long aborted tasks may take to release what they hold.
const ABORT_GRACE: Duration = Duration::from_millis(500);

/// How a task whose end is fatal ends.
pub type TaskResult = Result<(), Box<dyn Error + Send + Sync>>;

/// A task without which the daemon is not whole has ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the task '{name}' {reason}; the daemon cannot go on without it")]
pub struct TaskFailure {
    /// The task's name.
    pub name: &'static str,
    /// How it ended.
    pub reason: String,
}

/// A handle to the daemon's tasks. Clones are handles to the same tasks.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    token: CancellationToken,
    tracker: TaskTracker,
    running: Arc<Mutex<Running>>,
    failure: Arc<watch::Sender<Option<TaskFailure>>>,
    health: Health,
}

#[derive(Debug, Default)]
struct Running {
    next_id: u64,
    tasks: BTreeMap<u64, (&'static str, Option<AbortHandle>)>,
}

impl Tasks {
    /// No tasks yet, and a token that is not cancelled.
    pub fn new() -> Tasks {
        Tasks::default()
    }

    /// Cancelled when the daemon is to end. Every task watches it.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// The heartbeats of the tasks' loops.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// A heartbeat for a loop that is to be back at its top within `patience`.
    pub fn heartbeat(&self, name: impl Into<String>, patience: Duration) -> Heartbeat {
        self.health.heartbeat(name, patience)
    }

    /// Starts a task that is to run until the token is cancelled. If it ends before, in whatever way, [`failed`]
    /// reports it.
    ///
    /// [`failed`]: Tasks::failed
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = TaskResult> + Send + 'static) {
        let task = self.start(name, task);
        let (token, failure) = (self.token(), Arc::clone(&self.failure));
        self.tracker.spawn(async move {
            let reason = match task.await {
                Ok(Ok(())) if token.is_cancelled() => return,
                Ok(Ok(())) => "ended although nobody asked it to".to_owned(),
                Ok(Err(error)) => format!("failed: {}", with_causes(&*error)),
                Err(end) => match end.try_into_panic() {
                    Ok(panic) => format!("panicked: {}", panic_message(&*panic)),
                    Err(_aborted) => return,
                },
            };
            if token.is_cancelled() {
                tracing::warn!(
                    task = name,
                    reason,
                    "the task '{name}' did not end well in the shutdown: it {reason}"
                );
                return;
            }
            failure.send_if_modified(|first| {
                let is_first = first.is_none();
                first.get_or_insert(TaskFailure { name, reason });
                is_first
            });
        });
    }

    /// Starts a task that may end by itself, such as the service of one connection. A panic in it is logged.
    pub fn spawn_detached(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.start(name, task);
    }

    /// Waits until a task that was started with [`spawn`](Tasks::spawn) ends before its time; the first one counts.
    /// Cancel safe.
    pub async fn failed(&self) -> TaskFailure {
        let mut failure = self.failure.subscribe();
        loop {
            if let Some(failure) = failure.borrow_and_update().clone() {
                return failure;
            }
            if failure.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Cancels the token, gives all tasks at most `grace` to end, then aborts the rest and logs their names.
    /// True if all ended by themselves.
    pub async fn shutdown(self, grace: Duration) -> bool {
        self.token.cancel();
        self.tracker.close();
        if timeout(grace, self.tracker.wait()).await.is_ok() {
            return true;
        }
        let left: Vec<_> = self.lock().tasks.values().cloned().collect();
        let names: Vec<&str> = left.iter().map(|(name, _)| *name).collect();
        let names = names.join(", ");
        tracing::warn!(task = names, "not ended within {} s, and aborted: {names}", grace.as_secs());
        for abort in left.into_iter().filter_map(|(_, abort)| abort) {
            abort.abort();
        }
        if timeout(ABORT_GRACE, self.tracker.wait()).await.is_err() {
            tracing::warn!("tasks do not yield; leaving without them");
        }
        false
    }

    fn start<T: Send + 'static>(
        &self,
        name: &'static str,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let id = {
            let mut running = self.lock();
            let id = running.next_id;
            running.next_id += 1;
            // Entered before the task exists, so that a task which ends at once finds its entry to remove.
            running.tasks.insert(id, (name, None));
            id
        };
        let entry = Entry { id, name, running: Arc::clone(&self.running) };
        let handle = self.tracker.spawn(async move {
            let _entry = entry;
            task.await
        });
        if let Some((_, abort)) = self.lock().tasks.get_mut(&id) {
            *abort = Some(handle.abort_handle());
        }
        handle
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        lock(&self.running)
    }
}

/// A task's place in the list of what runs, left however the task ends.
struct Entry {
    id: u64,
    name: &'static str,
    running: Arc<Mutex<Running>>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let name = self.name;
            tracing::error!(task = name, "the task '{name}' panicked; this is a defect, please report it");
        }
        lock(&self.running).tasks.remove(&self.id);
    }
}

/// Nothing that holds this lock can panic half-way through a change.
fn lock(running: &Mutex<Running>) -> MutexGuard<'_, Running> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        // Many messages already end with that of their cause.
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let literal = panic.downcast_ref::<&'static str>().copied();
    literal.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

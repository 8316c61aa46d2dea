//! Looks at directories that may never answer. Where a disk is away, a look holds up its thread for as long as the disk
//! is: so nobody waits longer than a deadline, and no directory is looked at in the same way by two threads.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Aim {
    /// Whether it can be shared.
    ToAdd,
    /// Whether it can be used.
    Fitness,
    /// How much can be written.
    Room,
    /// How many directories are in it.
    Watches,
}

/// The looks that are under way. Clones are handles to the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Looks(Arc<Mutex<HashSet<(PathBuf, Aim)>>>);

impl Looks {
    /// What `look` finds. `None` where it takes longer than `deadline`, or an earlier one with this aim has not come back.
    pub(super) async fn at<T: Send + 'static>(
        &self,
        path: &Path,
        aim: Aim,
        deadline: Duration,
        look: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let under_way = UnderWay::begin(self.clone(), (path.to_owned(), aim))?;
        let looking = tokio::task::spawn_blocking(move || {
            let found = look();
            drop(under_way);
            found
        });
        tokio::time::timeout(deadline, looking).await.ok()?.ok()
    }
}

/// One look, until its thread comes back.
struct UnderWay(Looks, (PathBuf, Aim));

impl UnderWay {
    fn begin(looks: Looks, what: (PathBuf, Aim)) -> Option<UnderWay> {
        let is_first = looks.0.lock().unwrap_or_else(PoisonError::into_inner).insert(what.clone());
        is_first.then_some(UnderWay(looks, what))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_directory_that_does_not_answer_holds_up_one_thread() {
        let (looks, path) = (Looks::default(), Path::new("/away"));
        let (answer, silence) = mpsc::channel::<()>();
        let hung = looks.at(path, Aim::Room, Duration::from_millis(10), move || silence.recv().is_ok());
        assert_eq!(hung.await, None);
        let again =
            looks.at(path, Aim::Room, Duration::from_secs(9), || panic!("nobody looks a second time"));
        assert_eq!(again.await, None);
        assert_eq!(looks.at(path, Aim::Fitness, Duration::from_secs(9), || 7).await, Some(7));
        answer.send(()).unwrap();
        while !looks.0.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(looks.at(path, Aim::Room, Duration::from_secs(9), || 8).await, Some(8));
    }
}

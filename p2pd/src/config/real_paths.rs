//! Where paths lead. A disk that is away may never say, and must not hold up a start or a reload.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How long all of them may take to be found out.
const DEADLINE: Duration = Duration::from_secs(2);

/// Paths without links and dots, as far as that is known.
pub(super) struct RealPaths(HashMap<PathBuf, PathBuf>);

impl RealPaths {
    /// Of these paths. Each has a thread, which is left alone where the path does not answer.
    pub(super) fn of<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let (found, finding) = mpsc::channel();
        for path in paths {
            let (path, found) = (path.to_owned(), found.clone());
            thread::spawn(move || {
                let real = path.canonicalize();
                // Nobody may wait for it any more.
                let _ = found.send((path, real));
            });
        }
        drop(found);
        let until = Instant::now() + DEADLINE;
        let mut known = HashMap::new();
        while let Ok((path, real)) = finding.recv_timeout(until.saturating_duration_since(Instant::now())) {
            if let Ok(real) = real {
                known.insert(path, real);
            }
        }
        Self(known)
    }

    /// Whether the one is in the other, or the same: by its text, or where it leads.
    pub(super) fn within(&self, inner: &Path, outer: &Path) -> bool {
        let real = |path: &Path| self.0.get(path).cloned().unwrap_or_else(|| path.to_owned());
        inner.starts_with(outer) || real(inner).starts_with(real(outer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_seen_through_and_what_is_not_there_is_its_text() {
        let dir = tempfile::tempdir().unwrap();
        let (there, link, gone) = (dir.path().join("there"), dir.path().join("link"), Path::new("/no/such"));
        std::fs::create_dir(&there).unwrap();
        std::os::unix::fs::symlink(&there, &link).unwrap();
        let real = RealPaths::of([there.as_path(), &link, gone]);
        assert!(real.within(&link, &there) && real.within(&there, &link));
        assert!(real.within(&gone.join("deeper"), gone) && !real.within(gone, &there));
    }
}

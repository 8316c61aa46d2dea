//! Connections that answer questions, and the blocking threads that they do it on.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::{CatalogError, blocking, schema};

/// How many questions are answered at once; the others wait. More would only compete for the same processors.
const AT_ONCE: usize = 4;

/// Connections that nobody uses now, and the right to use one from async code.
#[derive(Debug)]
pub(super) struct Pool {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl Pool {
    pub(super) fn new(path: PathBuf) -> Arc<Pool> {
        Arc::new(Pool { path, idle: Mutex::default(), permits: Arc::new(Semaphore::new(AT_ONCE)) })
    }

    /// A connection, for whoever is on a blocking thread already.
    pub(super) fn reader(self: &Arc<Pool>) -> Result<Reader, CatalogError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => schema::open_reader(&self.path)?,
        };
        Ok(Reader { connection: Some(connection), stays: false, pool: Arc::clone(self) })
    }

    /// Runs `question` on a blocking thread.
    pub(super) async fn ask<T: Send + 'static>(
        self: &Arc<Pool>,
        question: impl FnOnce(&Reader) -> Result<T, CatalogError> + Send + 'static,
    ) -> Result<T, CatalogError> {
        let pool = Arc::clone(self);
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| CatalogError::Closed)?;
        blocking(move || {
            let _permit = permit;
            question(&pool.reader()?)
        })
        .await
    }

    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Closes what nobody uses now.
    pub(super) fn close_idle(&self) {
        // Not under the lock: closing reads and writes.
        drop(std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner)));
    }
}

/// Answers questions about the catalog on the thread that asks. Blocking: never on an async thread.
#[derive(Debug)]
pub(crate) struct Reader {
    /// Present until it is dropped.
    connection: Option<Connection>,
    /// It is in a transaction.
    stays: bool,
    pool: Arc<Pool>,
}

impl Reader {
    pub(super) fn connection(&self) -> Result<&Connection, CatalogError> {
        self.connection.as_ref().ok_or(CatalogError::Closed)
    }

    /// From the next question on, answers as of one moment, until it is dropped. Not for long: what the database writes
    /// meanwhile it cannot tidy away.
    pub(crate) fn stay(&mut self) -> Result<(), CatalogError> {
        self.connection()?.execute_batch("BEGIN")?;
        self.stays = true;
        Ok(())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            if self.stays && connection.execute_batch("ROLLBACK").is_err() {
                return;
            }
            let mut idle = self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < AT_ONCE {
                idle.push(connection);
            }
        }
    }
}

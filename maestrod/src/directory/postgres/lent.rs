//! A connection while one call works with it: it goes back to the others once the work has ended, and only then.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Object;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How long the server may take to hear that a statement is of no use any more.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection in the hands of whoever works with it.
pub(super) type Client = OwnedMutexGuard<Object>;

/// A connection that is lent for one call. Dropped before [`end`](Lent::end), as a call is that nobody waits for any more,
/// it tells the server to give up what it still does, and the connection ends.
pub(super) struct Lent {
    connection: Option<Arc<Mutex<Object>>>,
    tls: MakeRustlsConnect,
}

impl Lent {
    /// With the hand that works with it, which must be gone before this is.
    pub(super) async fn new(connection: Object, tls: &MakeRustlsConnect) -> (Lent, Client) {
        let connection = Arc::new(Mutex::new(connection));
        let client = Arc::clone(&connection).lock_owned().await;
        (Lent { connection: Some(connection), tls: tls.clone() }, client)
    }

    /// The work has ended.
    pub(super) fn end(mut self) {
        drop(self.connection.take());
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take().and_then(Arc::into_inner) else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (connection, tls) = (Object::take(connection.into_inner()), self.tls.clone());
        runtime.spawn(async move {
            let token = connection.cancel_token();
            let cancelled = tokio::time::timeout(CANCEL_TIMEOUT, token.cancel_query(tls)).await;
            if let Ok(Err(error)) = cancelled {
                tracing::debug!(%error, "cannot tell the database to give up a statement: {error}");
            }
        });
    }
}

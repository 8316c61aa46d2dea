//! How many files and connections a daemon may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Takes as many as the system lets this process have: each peer is a connection, and the usual limit of 1024 is one for
/// programs that use `select`. Where that fails, the log says so, and the old limit stays.
pub fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "cannot raise the limit of open files above {:?}: {error}", limit.current);
    }
}

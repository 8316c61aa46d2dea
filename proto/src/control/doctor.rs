//! What the daemon finds when it examines itself.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::diagnosis::Check;

/// `GET /v1/doctor`: what the daemon sees from where it stands, which may be a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Doctor {
    /// What was examined, in the order in which to read it.
    pub checks: Vec<Check>,
    /// What it takes to be told of changes in the shares. The limits are the machine's, and a sandbox may hide them, so
    /// that the caller compares.
    pub watches: Watches,
    /// The shares that the daemon cannot use as it should, for a caller who sees the machine from outside of the daemon's
    /// sandbox and can say why.
    pub unfit: Vec<UnfitShare>,
}

/// A share that the daemon cannot use as it should.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnfitShare {
    /// Its name.
    pub name: String,
    /// Its directory.
    pub path: String,
    /// Whether fetched files are to land in it.
    pub downloads: bool,
    /// How the daemon fails: the code that `POST /v1/shares` would answer with.
    pub code: String,
}

/// What it takes to be told by the kernel (inotify) of changes in the shares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Watches {
    /// Directories in the shares: each takes a watch.
    pub needed: u64,
    /// Watches that the daemon holds.
    pub held: u64,
    /// Whether watches were refused for want of them; changes are then found by scanning.
    pub short: bool,
}

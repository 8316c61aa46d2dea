//! Get it: persistent jobs that turn contents into files; and hand it on: files that users give or send.
//!
//! A job finds its sources with the [`Locator`](crate::discovery::Locator), runs an [`engine`] over them, and puts
//! the finished file into the downloads share. The [`plan`] decides who is asked for which piece, and is pure; a
//! [`source`] task speaks with one peer, and puts its answers [together](assembly); the [`sink`] owns the part file and what is proven of it; the [`swarm`] tells
//! others what is there already; the [`store`] remembers all of it. Owns `transfers.sqlite`, the part files, and the outbox.

mod assembly;
mod basis;
mod bound;
mod ear;
mod engine;
mod fetch;
mod gauge;
mod gone;
mod intake;
mod job;
mod jobs;
mod leftovers;
mod manifest;
mod measure;
mod nearness;
mod outbox;
mod outcome;
mod patience;
mod plain;
mod plan;
#[cfg(test)]
mod plan_scene;
mod pull_call;
mod queue;
mod send;
mod sink;
mod source;
mod store;
mod story;
mod swarm;
mod tree;
mod why;

pub use fetch::{FetchError, FetchOrder, FileFound};
pub use intake::{Intake, IntakeError, Received};
pub use jobs::{ChangeError, TransferSettings, Transfers};
pub use outbox::{Outbox, Outboxed};
pub use send::{SendError, Sends};
pub use store::{Store, StoreError};
pub use story::AskedBy;
pub use swarm::{Follower, Introduced, Swarm, Swarms, Unfinished};
pub use tree::{Conflict, Pattern, PatternError, TreeError, TreeFileFound, TreeFiles, TreeFound, TreeOrder};

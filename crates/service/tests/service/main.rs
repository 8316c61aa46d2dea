//! The service crate against real sockets, files, signals and processes.

// Clippy takes only functions marked as tests for tests, not those that they share.
#![allow(clippy::unwrap_used)]

mod as_child;
mod config;
mod http;
mod listen;
mod problem;
mod signals;
mod state_dir;
mod tasks;

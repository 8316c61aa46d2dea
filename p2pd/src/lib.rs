//! The peer daemon: shares directories, fetches from everyone who has a file at once, proves every piece.
//!
//! Data passes through the rooms one way: `shares` (disk → facts) → `catalog` (the facts) → `discovery` (who has it)
//! → `transfer` (get it) → `serve` (give it) → `api` (the edges that people touch). [`daemon`] is the only file that
//! knows all of them; nobody imports it but the program.

pub mod api;
pub mod catalog;
pub mod config;
pub mod daemon;
pub mod discovery;
pub mod doctor;
mod kept;
pub mod limits;
pub mod serve;
pub mod shares;
pub mod status;
pub mod transfer;
pub mod user_dirs;

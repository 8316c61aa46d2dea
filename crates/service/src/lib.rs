//! What both daemons, `maestrod` and `p2pd`, need to be good Unix services.
//!
//! **Owns** the daemon's contact with the system it runs on: its listeners, its state directory and the lock on it,
//! its journal, its signals, its background tasks, their health and their end, its reports to systemd, and the shape of the HTTP
//! answers that are not the answer the caller wanted; and the gRPC connections between machines (`wire`), with
//! the room for what is on its way on them (`passage`).
//!
//! **Knows nothing** of files, peers or catalogs: whatever is about sharing belongs to a daemon.
//!
//! **Callers:** the daemons. Most of it (`files`, `health`, `log`, `notify`, `status`, `signals`, `tasks`, `listen`, `state_dir`, `config`) is for
//! a daemon's composition file only; `problem`, `http` and `bearer` are also for the rooms at its HTTP edge, `passage` for those at
//! its gRPC edge too.

pub mod bearer;
pub mod config;
pub mod files;
pub mod health;
pub mod http;
pub mod journal;
pub mod listen;
pub mod log;
pub mod memory;
pub mod notify;
pub mod passage;
pub mod problem;
pub mod signals;
pub mod state_dir;
pub mod status;
pub mod tasks;
pub mod wire;

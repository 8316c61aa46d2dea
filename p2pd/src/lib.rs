//! The rooms of the peer daemon.

pub mod catalog;
pub mod shares;

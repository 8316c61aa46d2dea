//! `p2pctl` as its users run it: the real program against a daemon that gives prepared answers on a real Unix socket.

// Helpers of tests are no tests to clippy: a test that cannot go on fails right there.
#![allow(clippy::unwrap_used)]

mod command;
mod daemon;
mod examining;
mod failing;
mod fetching;
mod limiting;
mod listing;
mod network;
mod sending;
mod sharing;
mod transfers;
mod trees;
mod why;

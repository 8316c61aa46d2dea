//! `p2pctl` as its users run it: the real program against a daemon that gives prepared answers on a real Unix socket.

mod command;
mod daemon;
mod failing;
mod fetching;
mod listing;
mod network;
mod sending;
mod transfers;

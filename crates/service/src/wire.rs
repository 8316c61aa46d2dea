//! gRPC between machines: TLS in which both ends are their keys, tuned for bulk data.
//!
//! Owns the settings of the data path and the handshakes. [`incoming`] turns a TCP listener into the connections that
//! a tonic server serves; [`connect`] makes a channel to whoever must answer. Who may do what is the callers' matter.
//!
//! The settings are measured ones. Frames of 256 KiB: with HTTP/2's default of 16 KiB each frame costs a flush of its
//! own, 65,000 per GiB. A read buffer of that size *under* TLS, since rustls asks for 4 KiB at a time. Large windows
//! are needed on long links, and cost memory and caches on short ones.

mod connect;
mod incoming;
mod refuse;
mod stream;
mod turns;

use std::time::Duration;

pub use connect::{ConnectError, Connection, Probed, connect, connect_lean, probe};
pub use incoming::{Accept, Plaintext, incoming};
pub use stream::{Caller, PeerStream};

/// Largest HTTP/2 frame that whoever fetches asks to be sent: a chunk of a transfer, with room for what stands before
/// it, or else each chunk would take a second frame of some bytes.
const FRAME_LEN: u32 = 256 * 1024 + 64;
/// Bytes that may be on their way in one stream.
const STREAM_WINDOW: u32 = 4 << 20;
/// The same of long data from somebody near. What is on its way there waits in memory, and the more of it waits, the less of
/// it is still in the processor's caches when its turn comes: a tenth of the processor time of four sources at once.
const NEAR_STREAM_WINDOW: u32 = 3 * FRAME_LEN;
/// The same from somebody far: all that may be on its way in the connection. More would be of no use with the buffers that Linux
/// gives the sender by itself (`tcp_wmem`, at most 4 MiB).
const FAR_STREAM_WINDOW: u32 = CONNECTION_WINDOW;
/// Bytes that may be on their way in one connection.
const CONNECTION_WINDOW: u32 = 8 << 20;
/// What whoever serves lets come in before it is read, of one call…
const SERVED_STREAM_WINDOW: u32 = 512 * 1024;
/// … of one connection…
const SERVED_CONNECTION_WINDOW: u32 = 1 << 20;
/// … and in one frame, which is held before anybody can say no: HTTP/2's least.
const SERVED_FRAME_LEN: u32 = 16 * 1024;
/// A connection that says nothing for so long is asked whether it is alive.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// … and given up when it does not answer for so long.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A tonic server. What comes to one are questions and messages, of strangers too: file data goes the other way, to whoever
/// fetches, who says by itself how much of it may be on its way.
pub fn server() -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .max_frame_size(SERVED_FRAME_LEN)
        .initial_stream_window_size(SERVED_STREAM_WINDOW)
        .initial_connection_window_size(SERVED_CONNECTION_WINDOW)
        .max_concurrent_streams(256)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
}

#[cfg(test)]
mod tests;

//! What two programs must agree on: the gRPC messages, the REST bodies, the bodies of the control API.
//!
//! Data only: nothing here opens a socket or a file. `files` and `v1` are generated from the `.proto` files beside
//! `src/`, which hold their documentation.

/// The first system's `files.FileService`.
#[allow(missing_docs, clippy::all)]
pub mod files {
    tonic::include_proto!("files");
}

/// `p2p.v1`: the directory and the peer protocol.
#[allow(missing_docs, clippy::all)]
pub mod v1 {
    tonic::include_proto!("p2p.v1");
}

pub mod codec;
pub mod control;
pub mod diagnosis;
pub mod problem;
pub mod pull;
pub mod rest;

/// Name of the metadata entry in which a caller shows its membership, in the `Peer` service.
pub const MEMBERSHIP_METADATA: &str = "p2p-membership-bin";

/// Bytes of file data in one `PullResponse`, at most. 64 KiB to 1 MiB measured equal; 4 MiB was worse.
pub const PULL_CHUNK_LEN: usize = 256 * 1024;

/// Bytes that one `PullRequest` may ask for.
pub const MAX_PULL_LEN: u64 = 64 << 20;

/// Bytes of one gRPC message, at most, on every service.
pub const MAX_MESSAGE_LEN: usize = 4 << 20;

/// Largest file that the whole-file calls of `files.FileService` carry: what the first system's clients accept in
/// one message, less room for the message's other fields.
pub const MAX_WHOLE_FILE_LEN: u64 = (4 << 20) - 4096;

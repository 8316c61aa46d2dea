//! The vocabulary of the journal: every field that an event of this project may carry, and what it holds.
//!
//! Events name them in lower case; in the journal they are in upper case (`journalctl -u p2pd TRANSFER_ID=7`). The table
//! in `docs/journal.md` is made of [`FIELDS`], and a test holds it, and every event in the source, against them.
//!
//! An event's message is a whole sentence by itself: it is all that `journalctl` and a terminal show. The fields say the
//! same again for programs.

/// A field: its name in the journal, and what it holds.
pub type Field = (&'static str, &'static str);

/// All fields, in the order of the table.
pub const FIELDS: &[Field] = &[
    ("TRANSFER_ID", "a transfer's number, as `p2pctl transfers` shows it"),
    ("CONTENT_HASH", "a content, as its BLAKE3 hash in hex: what `b3sum` prints"),
    ("FILE", "a file's name in the network: its path in its share"),
    ("SHARE", "a share's name"),
    ("PATH", "a path on this machine"),
    (
        "PEER_ID",
        "the whole ID of the peer that it is about: another one, or the daemon's own when it is ready",
    ),
    ("PEER", "what that peer calls itself, or a plain peer's URL"),
    ("MAESTRO_ID", "a maestro's whole ID"),
    ("ADDRESS", "`host:port` of another machine"),
    ("CALLER_UID", "user ID of the process that called on the control socket, as the kernel says"),
    ("CALLER_PID", "its process ID"),
    ("CALLER_ADDRESS", "`host:port` of who called over HTTP"),
    ("METHOD", "HTTP method of a call"),
    ("REQUEST", "path and query of a call"),
    ("HTTP_STATUS", "status of the answer"),
    ("BYTES", "size, or how many bytes were moved"),
    ("BYTES_PER_SEC", "mean rate of a transfer, from its beginning in this run of the daemon"),
    ("PIECES", "how many pieces of a file are here when its transfer goes on"),
    (
        "HASHED_BYTES",
        "bytes of its unfinished file that were not remembered as proven, and were hashed to find out",
    ),
    ("WASTED_BYTES", "bytes that came and were of no use: false, or twice"),
    ("DURATION_MS", "how long it took, in milliseconds"),
    ("SOURCES", "how many sources gave bytes"),
    ("FILES", "how many files"),
    ("CHANGES", "how many changes of a catalog"),
    ("SEQUENCE", "sequence number of a catalog's last change"),
    ("KEY", "a key of the configuration, such as `transfers.reserve_bytes` or `share[docs].path`"),
    ("OLD", "its value before a reload"),
    ("NEW", "its value after it"),
    ("TASK", "a task or loop of the daemon"),
    ("SILENT_SECS", "how long a loop has stood still, in seconds"),
    ("REASON", "why somebody said no, or gave up"),
    ("ERROR", "what the system, a database or a library said"),
    ("VERSION", "version of the program, or of a database's shape"),
    ("REST", "address that the REST interface listens on"),
    ("GRPC", "address that the gRPC interface listens on"),
];

/// The table of `docs/journal.md`.
pub fn table() -> String {
    let mut table = String::from("| field | holds |\n|---|---|\n");
    for (name, holds) in FIELDS {
        table.push_str(&format!("| `{name}` | {holds} |\n"));
    }
    table
}

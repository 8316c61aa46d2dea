//! Who a program is, and how it proves it: keys, peer IDs, memberships, and the TLS configurations made of them.
//!
//! A peer *is* its Ed25519 key. Its certificate is self-signed and carries nothing but that key; both ends of every
//! connection between machines prove theirs (TLS 1.3, mutual). Names and addresses prove nothing.
//!
//! Owns: the key file. Opens no socket.

mod key;
mod membership;
mod peer_id;
mod tls;

pub use key::{Identity, IdentityError};
pub use membership::{MEMBERSHIP_LEN, Membership, MembershipError};
pub use peer_id::{ParsePeerIdError, PeerId};
pub use tls::{TlsError, WrongPeer, client_config, peer_of, server_config, use_fast_ciphers, wrong_peer};

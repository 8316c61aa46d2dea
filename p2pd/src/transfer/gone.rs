//! Why a source gives nothing more.

use tonic::{Code, Status};

use crate::discovery::PeerRef;

/// Why a source gives nothing more.
pub(super) enum Gone {
    /// The connection broke, or never was; it may come back.
    Lost(String),
    /// It does not have what it told of: once may be bad luck, and again and again is a lie.
    Unkept(String),
    /// It breaks the protocol: not to be asked again.
    Dropped(String),
}

impl Gone {
    /// Why, with who it was.
    pub(super) fn said_of(&self, peer: &PeerRef) -> String {
        let (Self::Lost(reason) | Self::Unkept(reason) | Self::Dropped(reason)) = self;
        let name = peer.to_string();
        // Some reasons begin with it.
        if reason.starts_with(&name) { reason.clone() } else { format!("{name}: {reason}") }
    }
}

impl From<&Status> for Gone {
    /// What the end of a call says of the source.
    fn from(status: &Status) -> Self {
        match status.code() {
            Code::PermissionDenied | Code::Unauthenticated => {
                Self::Lost(format!("it does not admit this peer: {}", status.message()))
            }
            Code::DataLoss => Self::Dropped(format!("it breaks the protocol: {}", status.message())),
            _ => Self::Lost(format!("the connection broke: {}", status.message())),
        }
    }
}

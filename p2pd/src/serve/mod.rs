//! Give it: the gRPC services of this peer, and who may call them.
//!
//! Every call first goes through [`Gate`], where [`Admission`] says who asks and what they may see; then to the catalog;
//! then to the bytes. Owns nothing that lasts.

mod admission;
mod availability;
mod brake;
mod buffers;
mod bulk;
mod contents;
mod files;
mod finder;
mod gate;
mod offer;
mod peer;
mod pull;
mod whole_file;

pub use admission::Admission;
pub use bulk::Bulk;
pub use contents::{Contents, Served};
pub use files::Files;
pub use gate::Gate;
pub use offer::{AcceptOffers, Offers};
pub use peer::PeerService;
pub use whole_file::WholeFileLimit;

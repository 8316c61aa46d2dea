//! `files.FileService`, the interface of the first system: whole files, in one message.
//!
//! Over TLS for whom [`Gate`](super::Gate) lets in; in plaintext where the listener lets such callers in at all.

use std::convert::Infallible;
use std::os::unix::fs::FileExt;

use futures::stream;
use p2p_content::FileName;
use p2p_identity::PeerId;
use p2p_proto::MAX_WHOLE_FILE_LEN;
use p2p_proto::files::file_service_server::FileService;
use p2p_proto::files::{DownloadRequest, DownloadResponse, UploadRequest, UploadResponse};
use p2p_service::passage::{MessagePlace, Place, placed};
use p2p_service::wire::Caller;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::admission::Guest;
use super::contents::{Contents, NoBytes};
use super::offer::AcceptOffers;
use crate::catalog::Viewer;
use crate::transfer::Intake;

/// The service.
pub struct Files {
    contents: Contents,
    intake: Intake,
    accept: watch::Receiver<AcceptOffers>,
}

impl Files {
    /// Over these.
    pub fn new(contents: Contents, intake: Intake, accept: watch::Receiver<AcceptOffers>) -> Self {
        Self { contents, intake, accept }
    }

    /// A file, with the place that it has until it is read.
    async fn read(
        &self,
        name: &str,
        viewer: Viewer,
        peer: Option<PeerId>,
    ) -> Result<(Vec<u8>, Option<Place>), String> {
        let not_found = || "Not found".to_owned();
        let facts = self.contents.catalog().find_name(name, viewer).await.map_err(|error| {
            tracing::error!(%error, "another peer's call failed: {error}; look at the disk of the state directory");
            "the file cannot be read".to_owned()
        })?;
        if facts.is_empty() {
            return Err(not_found());
        }
        let contents = self.contents.clone();
        let opening = move || contents.finder().open_first(&facts).map_err(|error| error.to_string());
        let held = blocking(opening).await?;
        if held.size > MAX_WHOLE_FILE_LEN {
            return Err(too_large(held.size));
        }
        let len = usize::try_from(held.size).unwrap_or(usize::MAX);
        // Until it is written out it is as it was read, which takes as much again.
        let place = self.contents.answers().wait_for_place(peer, 2 * len).await;
        let place = place.map_err(|error| error.to_string())?;
        let reading = move || {
            let mut bytes = vec![0; len];
            match held.file.read_exact_at(&mut bytes, 0) {
                Ok(()) if held.is_unchanged() => Ok(bytes),
                // It may have waited for its place.
                Ok(()) => Err(NoBytes::Changed.to_string()),
                Err(_) => Err(NoBytes::Unreadable.to_string()),
            }
        };
        let bytes = blocking(reading).await?;
        self.contents.served().add(bytes.len() as u64);
        Ok((bytes, place))
    }
}

/// Does what waits for a disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(NoBytes::Unreadable.to_string()))
}

/// Who calls, where they have an identity, and what they may see. Whoever the listener lets in in plaintext is taken for a
/// member: that is what its configuration says.
fn caller<T>(request: &Request<T>) -> Result<(Option<PeerId>, Viewer), Status> {
    match request.extensions().get::<Caller>() {
        Some(Caller { peer: None, .. }) => Ok((None, Viewer::Network)),
        _ => Guest::of(request).map(|guest| (Some(guest.id), guest.viewer)),
    }
}

/// What is said of a file that does not fit into one message.
pub(super) fn too_large(size: u64) -> String {
    format!(
        "the file has {size} bytes, and this call carries {MAX_WHOLE_FILE_LEN} at the most; larger files are streamed \
         by p2p.v1.Peer/Pull (p2pctl fetch, p2pctl send) and by POST /upload"
    )
}

#[tonic::async_trait]
impl FileService for Files {
    async fn upload(&self, mut request: Request<UploadRequest>) -> Result<Response<UploadResponse>, Status> {
        let (peer, viewer) = caller(&request)?;
        // Until the file is on the disk.
        let _place = request.extensions_mut().remove::<MessagePlace>();
        let refused = |message: String| Ok(Response::new(UploadResponse { ok: false, message }));
        let accepted = match *self.accept.borrow() {
            AcceptOffers::Network => true,
            AcceptOffers::Friends => viewer == Viewer::Friend,
            AcceptOffers::Off => false,
        };
        if !accepted {
            let who = if peer.is_none() { "a caller without an identity" } else { "you" };
            return refused(format!("this peer takes no files from {who} ([transfers] accept_offers)"));
        }
        let UploadRequest { filename, content } = request.into_inner();
        let name = match FileName::parse(&filename) {
            Ok(name) => name,
            Err(error) => return refused(error.to_string()),
        };
        let body = stream::iter([Ok::<_, Infallible>(content)]);
        match self.intake.receive(name, body, false).await {
            Ok(received) => {
                let message =
                    format!("{} is shared ({} bytes, {})", received.name, received.size, received.content);
                Ok(Response::new(UploadResponse { ok: true, message }))
            }
            Err(error) => refused(error.to_string()),
        }
    }

    async fn download(
        &self,
        request: Request<DownloadRequest>,
    ) -> Result<Response<DownloadResponse>, Status> {
        let (peer, viewer) = caller(&request)?;
        let (content, place) = match self.read(&request.into_inner().filename, viewer, peer).await {
            Ok(read) => read,
            Err(message) => {
                let content = Default::default();
                return Ok(Response::new(DownloadResponse { ok: false, content, message }));
            }
        };
        let answer = DownloadResponse { ok: true, content: content.into(), message: "OK".to_owned() };
        Ok(placed(answer, place))
    }
}

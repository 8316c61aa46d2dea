//! `files.FileService`, the interface of the first system: whole files, in one message.
//!
//! Over TLS for whom [`Admission`] admits; in plaintext where the listener lets such callers in at all.

use std::convert::Infallible;
use std::os::unix::fs::FileExt;

use futures::stream;
use p2p_content::FileName;
use p2p_proto::MAX_WHOLE_FILE_LEN;
use p2p_proto::files::file_service_server::FileService;
use p2p_proto::files::{DownloadRequest, DownloadResponse, UploadRequest, UploadResponse};
use p2p_service::wire::Caller;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::admission::Admission;
use super::contents::{Contents, NoBytes};
use super::offer::AcceptOffers;
use crate::catalog::Viewer;
use crate::transfer::Intake;

/// The service.
pub struct Files {
    admission: Admission,
    contents: Contents,
    intake: Intake,
    accept: watch::Receiver<AcceptOffers>,
}

impl Files {
    /// Over these.
    pub fn new(
        admission: Admission,
        contents: Contents,
        intake: Intake,
        accept: watch::Receiver<AcceptOffers>,
    ) -> Self {
        Self { admission, contents, intake, accept }
    }

    /// What the caller may see. Whoever the listener lets in in plaintext is taken for a member: that is what its
    /// configuration says.
    fn viewer<T>(&self, request: &Request<T>) -> Result<Viewer, Status> {
        match request.extensions().get::<Caller>() {
            Some(Caller { peer: None, .. }) => Ok(Viewer::Network),
            _ => Ok(self.admission.admit(request)?.viewer),
        }
    }

    async fn read(&self, name: &str, viewer: Viewer) -> Result<Vec<u8>, String> {
        let not_found = || "Not found".to_owned();
        let facts = self.contents.catalog().find_name(name, viewer).await.map_err(|error| {
            tracing::error!(%error, "another peer's call failed: {error}; look at the disk of the state directory");
            "the file cannot be read".to_owned()
        })?;
        if facts.is_empty() {
            return Err(not_found());
        }
        let contents = self.contents.clone();
        let reading = move || {
            let held = contents.finder().open_first(&facts).map_err(|error| error.to_string())?;
            if held.size > MAX_WHOLE_FILE_LEN {
                return Err(too_large(held.size));
            }
            let mut bytes = vec![0; usize::try_from(held.size).unwrap_or(usize::MAX)];
            let read = held.file.read_exact_at(&mut bytes, 0);
            read.map(|()| bytes).map_err(|_| NoBytes::Unreadable.to_string())
        };
        let read = tokio::task::spawn_blocking(reading).await;
        let bytes = read.unwrap_or_else(|_| Err(NoBytes::Unreadable.to_string()))?;
        self.contents.served().add(bytes.len() as u64);
        Ok(bytes)
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
    async fn upload(&self, request: Request<UploadRequest>) -> Result<Response<UploadResponse>, Status> {
        let viewer = self.viewer(&request)?;
        let plaintext = request.extensions().get::<Caller>().is_some_and(|caller| caller.peer.is_none());
        let refused = |message: String| Ok(Response::new(UploadResponse { ok: false, message }));
        let accepted = match *self.accept.borrow() {
            AcceptOffers::Network => true,
            AcceptOffers::Friends => viewer == Viewer::Friend,
            AcceptOffers::Off => false,
        };
        if !accepted {
            let who = if plaintext { "a caller without an identity" } else { "you" };
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
        let viewer = self.viewer(&request)?;
        let answer = match self.read(&request.into_inner().filename, viewer).await {
            Ok(content) => DownloadResponse { ok: true, content: content.into(), message: "OK".to_owned() },
            Err(message) => DownloadResponse { ok: false, content: Default::default(), message },
        };
        Ok(Response::new(answer))
    }
}

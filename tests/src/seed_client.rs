//! A client of the first system: `files.FileService`, in plaintext.

use std::time::Duration;

use anyhow::{Context, Result};
use p2p_proto::files::file_service_client::FileServiceClient;
use p2p_proto::files::{DownloadRequest, DownloadResponse, UploadRequest, UploadResponse};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// The largest message that the first system's clients take.
const MAX_MESSAGE_LEN: usize = 4 << 20;
/// A call that takes longer has failed.
const CALL: Duration = Duration::from_secs(30);

/// A connected client.
#[derive(Debug, Clone)]
pub struct SeedClient {
    service: FileServiceClient<Channel>,
}

impl SeedClient {
    /// Connects in plaintext to `host:port`.
    ///
    /// # Errors
    /// Where nobody listens.
    pub async fn connect(address: &str) -> Result<SeedClient> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?.timeout(CALL);
        let channel = endpoint.connect().await.with_context(|| format!("nobody at {address}"))?;
        Ok(SeedClient { service: FileServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_LEN) })
    }

    /// `Download`.
    ///
    /// # Errors
    /// The gRPC error, where the call fails as such.
    pub async fn download(&self, name: &str) -> Result<DownloadResponse, Status> {
        let request = DownloadRequest { filename: name.to_owned() };
        Ok(self.service.clone().download(request).await?.into_inner())
    }

    /// `Upload`.
    ///
    /// # Errors
    /// The gRPC error, where the call fails as such.
    pub async fn upload(&self, name: &str, bytes: impl Into<Vec<u8>>) -> Result<UploadResponse, Status> {
        let request = UploadRequest { filename: name.to_owned(), content: bytes.into().into() };
        Ok(self.service.clone().upload(request).await?.into_inner())
    }
}

//! A peer of the first system: it calls `POST /register`, and speaks `files.FileService` in plaintext. Nothing else.
//!
//! Written from the seed contract alone, so that it knows nothing of what came after.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use p2p_proto::files::file_service_server::{FileService, FileServiceServer};
use p2p_proto::files::{DownloadRequest, DownloadResponse, UploadRequest, UploadResponse};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::rest::Rest;

type Files = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// A running plain peer, with its files in memory. Ends when it is dropped.
#[derive(Debug)]
pub struct SeedPeer {
    url: String,
    grpc_port: u16,
    files: Files,
    server: JoinHandle<()>,
    // Its REST port: the contract does not ask whether anyone answers there, and nobody does.
    _rest: std::net::TcpListener,
}

impl SeedPeer {
    /// Starts it with these files. Nobody knows of it yet.
    ///
    /// # Errors
    /// Where it gets no port.
    pub async fn start<N: Into<String>, B: Into<Vec<u8>>>(
        files: impl IntoIterator<Item = (N, B)>,
    ) -> Result<SeedPeer> {
        let files = files.into_iter().map(|(name, bytes)| (name.into(), bytes.into())).collect();
        let files = Arc::new(Mutex::new(files));
        let rest = std::net::TcpListener::bind("127.0.0.1:0")?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let grpc_port = listener.local_addr()?.port();
        let service = FileServiceServer::new(Shelf { files: Arc::clone(&files) });
        let server = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener));
        Ok(SeedPeer {
            url: format!("http://localhost:{}", rest.local_addr()?.port()),
            grpc_port,
            files,
            server: tokio::spawn(async move {
                // It serves until it is dropped; how it ends then is of no interest.
                let _ = server.await;
            }),
            _rest: rest,
        })
    }

    /// The URL by which the maestro knows it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Port of its `files.FileService`.
    pub fn grpc_port(&self) -> u16 {
        self.grpc_port
    }

    /// The bytes that it has under this name.
    pub fn file(&self, name: &str) -> Option<Vec<u8>> {
        lock(&self.files).get(name).cloned()
    }

    /// Changes what it has; the maestro learns of it by the next [`register`](SeedPeer::register).
    pub fn put(&self, name: &str, bytes: impl Into<Vec<u8>>) {
        lock(&self.files).insert(name.to_owned(), bytes.into());
    }

    /// `POST /register`, with the names of all its files. Gives the maestro's answer.
    ///
    /// # Errors
    /// Where the maestro does not take it.
    pub async fn register(&self, maestro: &Rest) -> Result<Value> {
        let names: Vec<String> = lock(&self.files).keys().cloned().collect();
        let body = json!({ "peer": self.url, "files": names, "grpc_port": self.grpc_port });
        maestro.post_json("/register", &body).await?.ok()
    }
}

impl Drop for SeedPeer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Shelf {
    files: Files,
}

#[tonic::async_trait]
impl FileService for Shelf {
    async fn upload(&self, request: Request<UploadRequest>) -> Result<Response<UploadResponse>, Status> {
        let UploadRequest { filename, content } = request.into_inner();
        lock(&self.files).insert(filename, content.to_vec());
        Ok(Response::new(UploadResponse { ok: true, message: "Uploaded".to_owned() }))
    }

    async fn download(
        &self,
        request: Request<DownloadRequest>,
    ) -> Result<Response<DownloadResponse>, Status> {
        let found = lock(&self.files).get(&request.into_inner().filename).cloned();
        Ok(Response::new(match found {
            Some(bytes) => DownloadResponse { ok: true, content: bytes.into(), message: "OK".to_owned() },
            None => DownloadResponse { message: "Not found".to_owned(), ..DownloadResponse::default() },
        }))
    }
}

/// No holder of this lock can panic half-way through a change.
fn lock(files: &Files) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
    files.lock().unwrap_or_else(PoisonError::into_inner)
}

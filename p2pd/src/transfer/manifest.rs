//! What proves the pieces: asked of one source after another, until one gives what proves itself.

use std::time::Duration;

use p2p_content::{ContentHash, Manifest};
use p2p_proto::v1::ManifestRequest;
use tokio::time::timeout;

use super::job::Job;
use super::jobs::Shared;
use crate::discovery::PeerRef;

/// How long a source may take for a manifest.
const MANIFEST_TIMEOUT: Duration = Duration::from_secs(15);

/// The content's manifest, from the first source whose manifest proves itself.
pub(super) async fn fetch(
    shared: &Shared,
    job: &Job,
    sources: &[PeerRef],
    content: ContentHash,
    size: u64,
) -> Result<Manifest, String> {
    if let Some(manifest) = Manifest::single(content, size) {
        return Ok(manifest);
    }
    let mut why = "nobody gives its manifest".to_owned();
    for peer in sources {
        let asked = async {
            let mut client = shared.connections.peer(peer).await.map_err(|error| error.to_string())?;
            let request = ManifestRequest { content: content.as_bytes().to_vec().into() };
            let answer = client.get_manifest(request).await.map_err(|status| {
                if let Some(id) = peer.id() {
                    shared.connections.note(id, &status);
                }
                status.message().to_owned()
            })?;
            Ok::<_, String>(answer.into_inner())
        };
        match timeout(MANIFEST_TIMEOUT, asked).await {
            Ok(Ok(answer)) => match Manifest::from_bytes(content, size, &answer.values) {
                Ok(manifest) => return Ok(manifest),
                Err(error) => job.source_dropped(peer, &format!("its manifest is false: {error}"), content),
            },
            Ok(Err(error)) => {
                why = format!("{peer} gives no manifest: {error}");
                job.source_lost(peer, &error);
            }
            Err(_) => {
                why = format!("{peer} gives no manifest: no answer");
                job.source_lost(peer, "no answer");
            }
        }
    }
    Err(why)
}

//! What proves the pieces, and the length: asked of one source after another, until one gives what proves itself.

use std::time::Duration;

use p2p_content::{ContentHash, Manifest};
use p2p_proto::v1::ManifestRequest;
use tokio::time::timeout;

use super::job::Job;
use super::jobs::Shared;
use crate::discovery::PeerRef;

/// How long a source may take for a manifest.
const MANIFEST_TIMEOUT: Duration = Duration::from_secs(15);

/// Why a source proves nothing of a content.
pub(super) enum NoProof {
    /// It does not say: it cannot be reached, does not have it, or has not got its end.
    Silent(String),
    /// What it says is false.
    False(String),
}

/// The content's manifest, with a length that is proven, from the first of these sources that gives both; and who that
/// was. Who says what is false is dropped.
pub(super) async fn fetch(
    shared: &Shared,
    job: &Job,
    sources: &[PeerRef],
    content: ContentHash,
) -> Result<(Manifest, PeerRef), String> {
    let mut why = "nobody gives its manifest".to_owned();
    for peer in sources.iter().filter(|peer| !job.is_dropped(peer.id())) {
        match ask(shared, peer, content).await {
            Ok(manifest) => return Ok((manifest, peer.clone())),
            Err(NoProof::False(error)) => {
                job.source_dropped(peer, &format!("its manifest is false: {error}"), content);
            }
            Err(NoProof::Silent(error)) => {
                why = format!("{peer} gives no manifest: {error}");
                job.source_lost(peer, &error);
            }
        }
    }
    Err(why)
}

/// The content's manifest from this source, with a length that is proven, whatever length was told before.
pub(super) async fn ask(shared: &Shared, peer: &PeerRef, content: ContentHash) -> Result<Manifest, NoProof> {
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
    let asked =
        timeout(MANIFEST_TIMEOUT, asked).await.map_err(|_| NoProof::Silent("no answer".to_owned()))?;
    let answer = asked.map_err(NoProof::Silent)?;
    let manifest = Manifest::from_bytes(content, answer.size, &answer.values)
        .map_err(|error| NoProof::False(error.to_string()))?;
    match manifest.prove_len(&answer.ending) {
        Ok(()) => Ok(manifest),
        Err(error) if answer.ending.is_empty() => Err(NoProof::Silent(error.to_string())),
        Err(error) => Err(NoProof::False(error.to_string())),
    }
}

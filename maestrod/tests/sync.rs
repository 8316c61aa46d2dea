//! The Sync stream over real TLS, as a peer sees it.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod harness;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use harness::{
    Maestro, Peer, Proxy, SyncStream, complete, delta, eventually, file, message, removal, upserts,
};
use p2p_identity::Membership;
use p2p_proto::v1::directory_client::DirectoryClient;
use p2p_proto::v1::{
    BucketDigests, BucketFiles, CatalogDelta, FileEntry, Hello, ListPeersRequest, SyncRequest, sync_request,
    sync_response,
};
use tonic::Code;

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

fn now_secs() -> u64 {
    now().as_secs()
}

#[tokio::test]
async fn a_peer_is_welcomed_and_its_files_are_found() {
    let maestro = Maestro::start().await;
    let peer = Peer::new("ada");
    let mut stream = peer.sync(&maestro, 7, 2).await;
    let welcome = stream.welcome.clone();
    assert_eq!((welcome.epoch, welcome.applied_sequence, welcome.lease_secs), (0, 0, 15));
    assert_eq!((welcome.name.as_str(), welcome.version.as_str()), ("maestro", env!("CARGO_PKG_VERSION")));
    let membership = Membership::from_bytes(&welcome.membership.unwrap().membership).unwrap();
    membership.verify(maestro.id, peer.id(), now_secs() + 6 * 24 * 3600).unwrap();
    assert!(membership.verify(maestro.id, peer.id(), now_secs() + 8 * 24 * 3600).is_err());

    let files = [file("a.txt", "1"), file("docs/b.txt", "2")];
    let first = CatalogDelta { reset: true, ..delta(7, upserts(1, &files[..1])) };
    assert_eq!(stream.apply(first).await.applied_sequence, 1);
    let ack = stream.apply(complete(delta(7, upserts(2, &files[1..])), &files)).await;
    assert_eq!((ack.applied_sequence, ack.resync), (2, false));
    assert_eq!(maestro.who_has("a.txt").await, ["ada"]);
    assert_eq!(maestro.who_has("docs/b.txt").await, ["ada"]);
    assert_eq!(maestro.running.status().await.unwrap(), "1 peer online; 2 files in the directory");
}

#[tokio::test]
async fn a_stream_that_breaks_goes_on_where_it_was() {
    let maestro = Maestro::start().await;
    let peer = Peer::new("ada");
    let files = [file("a", "1"), file("b", "2"), file("c", "3")];
    drop(peer.announce(&maestro, &files[..2]).await);
    let mut stream = peer.sync(&maestro, 1, 3).await;
    assert_eq!((stream.welcome.epoch, stream.welcome.applied_sequence), (1, 2));
    // Visible at once, and nothing sent again.
    assert_eq!(maestro.who_has("a").await, ["ada"]);
    let ack = stream.apply(complete(delta(1, upserts(3, &files[2..])), &files)).await;
    assert!(!ack.resync);
    assert_eq!(maestro.who_has("c").await, ["ada"]);
}

#[tokio::test]
async fn a_restart_of_the_maestro_loses_nothing() {
    let maestro = Maestro::start().await;
    let (ada, bob) = (Peer::new("ada"), Peer::new("bob"));
    let (mut stream, other) =
        (ada.announce(&maestro, &[file("a", "1")]).await, bob.announce(&maestro, &[file("a", "1")]).await);
    other.goodbye().await;
    eventually(vec!["ada".to_owned()], async || maestro.who_has("a").await).await;
    let id = maestro.id;
    let maestro = maestro.restart().await;
    assert_eq!(stream.next().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(maestro.id, id);
    // Who was online has a lease to come back; who was not, has not.
    assert_eq!(maestro.who_has("a").await, ["ada"]);
    let stream = ada.sync(&maestro, 1, 1).await;
    assert_eq!((stream.welcome.epoch, stream.welcome.applied_sequence), (1, 1));
}

#[tokio::test]
async fn who_does_not_come_back_after_a_restart_is_hidden() {
    let maestro = Maestro::start_with(|config| config.directory.lease_secs = 1).await;
    let stream = Peer::new("ada").announce(&maestro, &[file("a", "1")]).await;
    let maestro = maestro.restart().await;
    drop(stream);
    assert_eq!(maestro.who_has("a").await, ["ada"]);
    eventually(Vec::<String>::new(), async || maestro.who_has("a").await).await;
}

#[tokio::test]
async fn a_full_catalog_forgets_what_is_not_in_it_when_complete() {
    let maestro = Maestro::start().await;
    let peer = Peer::new("ada");
    drop(peer.announce(&maestro, &[file("old", "1"), file("kept", "2")]).await);
    // A new database: another epoch.
    let now = [file("new", "3"), file("kept", "2")];
    let mut stream = peer.sync(&maestro, 99, 2).await;
    assert_eq!(stream.welcome.epoch, 1);
    stream.apply(CatalogDelta { reset: true, ..delta(99, upserts(1, &now[..1])) }).await;
    assert_eq!(maestro.who_has("old").await, ["ada"]);
    // The stream breaks in the middle, and so does the maestro.
    drop(stream);
    let maestro = maestro.restart().await;
    let mut stream = peer.sync(&maestro, 99, 2).await;
    assert_eq!((stream.welcome.epoch, stream.welcome.applied_sequence), (99, 1));
    assert_eq!(maestro.who_has("old").await, ["ada"]);
    let ack = stream.apply(complete(delta(99, upserts(2, &now[1..])), &now)).await;
    assert!(!ack.resync);
    assert_eq!(maestro.who_has("old").await, Vec::<String>::new());
    assert_eq!(maestro.who_has("kept").await, ["ada"]);
}

#[tokio::test]
async fn a_difference_is_found_and_mended() {
    let maestro = Maestro::start().await;
    let mut stream = Peer::new("ada").announce(&maestro, &[file("a", "1")]).await;
    // The peer believes that it has also announced `b`.
    let files = [file("a", "1"), file("b", "2")];
    let ack =
        stream.apply(CatalogDelta { through_sequence: 5, ..complete(delta(1, Vec::new()), &files) }).await;
    assert_eq!((ack.applied_sequence, ack.resync), (5, true));
    let ack =
        stream.apply(CatalogDelta { reset: true, ..complete(delta(1, upserts(1, &files)), &files) }).await;
    assert!(!ack.resync);
    assert_eq!(maestro.who_has("b").await, ["ada"]);
    // One that never agrees is not asked for ever.
    let wrong = || CatalogDelta { reset: true, ..complete(delta(1, upserts(1, &files)), &[]) };
    for _ in 0..4 {
        assert!(stream.apply(wrong()).await.resync);
    }
    assert_eq!(stream.next().await.unwrap_err().code(), Code::FailedPrecondition);
}

/// Only what differs is told again, bucket by bucket; meanwhile changes go on.
#[tokio::test]
async fn a_difference_is_mended_part_by_part() {
    let maestro = Maestro::start().await;
    let peer = Peer::new("ada");
    drop(peer.announce(&maestro, &[file("a", "1"), file("gone", "1"), file("b", "1")]).await);
    let hello = Hello { compares_buckets: true, ..peer.hello(1, 9) };
    let mut stream = SyncStream::welcomed(peer.open(&maestro, hello).await).await;
    // The peer believes that it has also told this.
    let catalog = [file("a", "1"), file("b", "2"), file("new", "1")];
    let end =
        |through| complete(CatalogDelta { through_sequence: through, ..delta(1, Vec::new()) }, &catalog);
    assert!(!stream.apply(end(4)).await.resync);
    let Ok(sync_response::Message::Compare(asked)) = stream.next().await else { panic!("no question") };
    // What is on its way is no answer.
    assert!(!stream.apply(end(5)).await.resync);
    let mut digests = vec![[0; 16]; 1 << asked.bits];
    let mut files = vec![0; 1 << asked.bits];
    for file in &catalog {
        let bucket = bucket(file, asked.bits) as usize;
        files[bucket] += 1;
        let one = complete(CatalogDelta::default(), std::slice::from_ref(file)).digest;
        digests[bucket].iter_mut().zip(one).for_each(|(byte, other)| *byte ^= other);
    }
    let digests = digests.concat().into();
    let told = BucketDigests { epoch: 1, sequence: 5, bits: asked.bits, digests, files };
    assert!(!stream.ask(sync_request::Message::Digests(told)).await.resync);
    let Ok(sync_response::Message::Tell(asked)) = stream.next().await else { panic!("no question") };
    let is_asked = |file: &FileEntry| asked.buckets.contains(&bucket(file, asked.bits));
    let differing = [file("gone", "1"), file("b", "1"), file("new", "1")];
    assert!(asked.buckets.len() <= 3 && differing.iter().all(is_asked), "{asked:?}");
    let files = catalog.iter().filter(|file| is_asked(file)).cloned().collect();
    let told = BucketFiles {
        epoch: 1,
        sequence: 5,
        bits: asked.bits,
        buckets: asked.buckets.clone(),
        files,
        too_many: false,
    };
    assert!(!stream.ask(sync_request::Message::Files(told.clone())).await.resync);
    let listed = maestro.get(&format!("/files?peer={}", peer.id())).await;
    assert_eq!(listed["files"], serde_json::json!(["a", "b", "new"]));
    let metrics = reqwest::get(format!("{}/metrics", maestro.rest)).await.unwrap().text().await.unwrap();
    for line in ["sync_repairs_total 1", "sync_files_repaired_total 3", "sync_resyncs_total 0"] {
        assert!(metrics.contains(&format!("maestrod_{line}\n")), "{line} is not in:\n{metrics}");
    }
    // Nobody asked: it is taken for one that was on its way. Of another moment it is none.
    assert!(!stream.ask(sync_request::Message::Files(told.clone())).await.resync);
    let late = BucketFiles { sequence: 4, ..told };
    stream.requests.send(message(sync_request::Message::Files(late))).await.unwrap();
    let status = stream.next().await.unwrap_err();
    assert!(status.code() == Code::InvalidArgument && status.message().contains("of change 4"), "{status}");
}

/// As docs/protocol.md says it.
fn bucket(file: &FileEntry, bits: u32) -> u32 {
    let hash = blake3::hash(format!("{}\0{}", file.share, file.name).as_bytes());
    u32::from_be_bytes(hash.as_bytes()[..4].try_into().unwrap()) >> (32 - bits)
}

/// A peer has several batches on their way. What it sent before it heard of a difference is no further difference.
#[tokio::test]
async fn a_difference_is_told_once_while_batches_are_on_their_way() {
    let maestro = Maestro::start().await;
    let mut stream = Peer::new("ada").announce(&maestro, &[file("a", "1")]).await;
    let files = [file("a", "1"), file("b", "2")];
    for _ in 0..3 {
        stream.send(complete(CatalogDelta { through_sequence: 2, ..delta(1, Vec::new()) }, &files)).await;
    }
    stream.send(CatalogDelta { reset: true, ..complete(delta(1, upserts(1, &files)), &files) }).await;
    let mut asked = Vec::new();
    for _ in 0..4 {
        let Ok(sync_response::Message::Ack(ack)) = stream.next().await else { panic!("no acknowledgement") };
        asked.push(ack.resync);
    }
    assert_eq!(asked, [true, false, false, false]);
}

#[tokio::test]
async fn violations_end_the_stream_with_a_reason() {
    let maestro = Maestro::start().await;
    let peer = Peer::new("ada");
    drop(peer.announce(&maestro, &[file("a", "1")]).await);
    let nul = file("a\0b", "1");
    let long = file(&"n".repeat(2000), "1");
    let mut short = file("a", "1");
    short.content = short.content.slice(..31);
    let cases = [
        (delta(2, Vec::new()), "epoch 2"),
        (delta(1, upserts(1, &[file("b", "1")])), "sequence numbers must ascend"),
        (delta(1, upserts(2, &[file("../b", "1")])), "../b"),
        (delta(1, upserts(2, &[file("/etc/passwd", "1")])), "/etc/passwd"),
        (delta(1, upserts(2, &[nul])), "control character"),
        (delta(1, upserts(2, &[long])), "2000 bytes"),
        (delta(1, upserts(2, &[short])), "31 bytes"),
        (delta(1, vec![removal(2, "a//b")]), "a//b"),
    ];
    for (delta, expected) in cases {
        let mut stream = peer.sync(&maestro, 1, 9).await;
        let status = stream.refused(delta).await;
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(expected), "{expected} is not in: {}", status.message());
    }
    // Nothing of it was kept.
    let listing = maestro.get("/directory").await;
    assert_eq!(listing["directory"].as_object().unwrap().keys().collect::<Vec<_>>(), ["a"]);

    let twice = peer.sync(&maestro, 1, 9).await;
    let hello = message(sync_request::Message::Hello(peer.hello(1, 9)));
    twice.requests.send(hello).await.unwrap();
    let mut twice = twice;
    assert_eq!(twice.next().await.unwrap_err().code(), Code::InvalidArgument);
    let mut no_epoch = peer.open(&maestro, peer.hello(0, 0)).await;
    assert!(no_epoch.next().await.unwrap_err().message().contains("epoch is 0"));
    let bad_port = Hello { grpc_port: 0, ..peer.hello(1, 9) };
    assert!(peer.open(&maestro, bad_port).await.next().await.unwrap_err().message().contains("gRPC port"));
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_and_nothing_is_lost() {
    let maestro = Maestro::start().await;
    let peer = Peer::new("ada");
    let mut stream = peer.announce(&maestro, &[file("a", "1")]).await;
    let many: Vec<_> =
        (0..5000).map(|number| file(&format!("{number}/{}", "x".repeat(250)).repeat(4), "1")).collect();
    let status = stream.refused(delta(1, upserts(2, &many))).await;
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    assert!(status.message().contains("4194304"), "{status}");
    let stream = peer.sync(&maestro, 1, 9).await;
    assert_eq!(stream.welcome.applied_sequence, 1);
}

#[tokio::test]
async fn a_second_stream_takes_the_place_of_the_first() {
    let maestro = Maestro::start().await;
    let peer = Peer::new("ada");
    let mut first = peer.announce(&maestro, &[file("a", "1")]).await;
    let mut second = peer.sync(&maestro, 1, 2).await;
    let status = first.next().await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted);
    assert!(status.message().contains("newer stream"), "{status}");
    drop(first);
    let files = [file("a", "1"), file("b", "2")];
    assert!(!second.apply(complete(delta(1, upserts(2, &files[1..])), &files)).await.resync);
    assert_eq!(maestro.who_has("b").await, ["ada"]);
}

#[tokio::test]
async fn a_goodbye_hides_at_once() {
    // A lease that would outlast the test.
    let maestro = Maestro::start_with(|config| config.directory.lease_secs = 3600).await;
    let peer = Peer::new("ada");
    peer.announce(&maestro, &[file("a", "1")]).await.goodbye().await;
    eventually(Vec::<String>::new(), async || maestro.who_has("a").await).await;
    // Hidden, not forgotten: it comes back without sending anything.
    let _stream = peer.sync(&maestro, 1, 1).await;
    assert_eq!(maestro.who_has("a").await, ["ada"]);
}

#[tokio::test]
async fn a_crash_hides_after_the_lease_and_not_before() {
    let maestro = Maestro::start_with(|config| config.directory.lease_secs = 2).await;
    let peer = Peer::new("ada");
    let stream = peer.announce(&maestro, &[file("a", "1")]).await;
    let crashed = Instant::now();
    drop(stream);
    eventually(Vec::<String>::new(), async || maestro.who_has("a").await).await;
    let hidden_after = crashed.elapsed();
    assert!(hidden_after >= Duration::from_secs(2), "hidden after {hidden_after:?}");
    let _stream = peer.sync(&maestro, 1, 1).await;
    assert_eq!(maestro.who_has("a").await, ["ada"]);
}

/// A machine that is switched off closes nothing: only that it does not answer tells that it is gone.
#[tokio::test]
async fn a_silent_peer_is_found_out_and_hidden() {
    let maestro = Maestro::start_with(|config| config.directory.lease_secs = 3).await;
    let proxy = Proxy::start(&maestro.grpc).await;
    let peer = Peer::new("ada");
    let mut through = peer.announce_at(&maestro, &proxy.address, &[file("a", "1")]).await;
    let lister = Peer::new("bob").sync(&maestro, 1, 0).await;
    let last_seen_ms = async || {
        let listed =
            lister.client.clone().list_peers(ListPeersRequest::default()).await.unwrap().into_inner();
        let entry =
            listed.peers.into_iter().find(|entry| entry.peer.as_ref().unwrap().name == "ada").unwrap();
        entry.last_seen_ms
    };
    proxy.freeze();
    let frozen = Instant::now();
    // While the stream counts as open the peer counts as heard of now; after that, the time stands still.
    let silent = async || u128::from(last_seen_ms().await.cast_unsigned()) + 300 < now().as_millis();
    assert!(!silent().await);
    eventually(true, silent).await;
    let found_out_after = frozen.elapsed();
    assert!(found_out_after < Duration::from_secs(3), "found out after {found_out_after:?}");
    assert_eq!(maestro.who_has("a").await, ["ada"]);
    eventually(Vec::<String>::new(), async || maestro.who_has("a").await).await;
    assert!(frozen.elapsed() < Duration::from_secs(7), "hidden after {:?}", frozen.elapsed());
    proxy.thaw();
    assert!(through.next().await.is_err());
}

#[tokio::test]
async fn a_peer_cannot_speak_for_another() {
    let maestro = Maestro::start().await;
    let (ada, eve) = (Peer::new("ada"), Peer::new("eve"));
    let _ada = ada.announce(&maestro, &[file("a", "1")]).await;
    // Whatever it calls itself, it is the key that it proves.
    let hello = Hello { name: "ada".to_owned(), ..eve.hello(1, 2) };
    let mut stream = eve.open(&maestro, hello).await;
    stream.next().await.unwrap();
    stream.apply(CatalogDelta { reset: true, ..delta(1, vec![removal(1, "a")]) }).await;
    let located = maestro.get("/locate?file=a").await;
    assert_eq!(located["peers"].as_array().unwrap().len(), 1);
    assert_eq!(located["peers"][0]["peer_id"], ada.id().to_string());
}

#[tokio::test]
async fn memberships_are_renewed_while_the_stream_lives() {
    let maestro = Maestro::start_with(|config| config.renew_every = Duration::from_millis(50)).await;
    let peer = Peer::new("ada");
    let mut stream = peer.sync(&maestro, 1, 0).await;
    for _ in 0..2 {
        let Ok(sync_response::Message::Membership(grant)) = stream.next().await else {
            panic!("no membership")
        };
        let membership = Membership::from_bytes(&grant.membership).unwrap();
        membership.verify(maestro.id, peer.id(), now_secs()).unwrap();
    }
}

#[tokio::test]
async fn plaintext_and_silence_get_nothing() {
    let maestro = Maestro::start().await;
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", maestro.grpc)).unwrap();
    let refused = match endpoint.connect().await {
        Err(_) => true,
        Ok(channel) => DirectoryClient::new(channel).list_peers(ListPeersRequest::default()).await.is_err(),
    };
    assert!(refused);
    let mut client = Peer::new("ada").connect(&maestro).await;
    let nothing = tokio_stream::iter(Vec::<SyncRequest>::new());
    let status = client.sync(nothing).await.unwrap().into_inner().message().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
#[ignore = "a measurement; run it with --ignored --nocapture"]
async fn measure_a_hundred_thousand_files() {
    const FILES: usize = 100_000;
    let maestro = Maestro::start().await;
    let peer = Peer::new("ada");
    let files: Vec<_> = (0..FILES)
        .map(|number| file(&format!("data/{:02}/sample-{number:06}.bin", number % 100), &number.to_string()))
        .collect();
    for round in ["new", "sent again, unchanged"] {
        let mut stream = peer.sync(&maestro, 1, FILES as u64).await;
        let begun = Instant::now();
        for (index, batch) in files.chunks(1000).enumerate() {
            let changes = upserts(index as u64 * 1000 + 1, batch);
            let mut delta = CatalogDelta { reset: index == 0, ..delta(1, changes) };
            if (index + 1) * 1000 == FILES {
                delta = complete(delta, &files);
            }
            assert!(!stream.apply(delta).await.resync);
        }
        let took = begun.elapsed();
        println!("{FILES} files, {round}: {took:.2?}, {:.0} files/s", FILES as f64 / took.as_secs_f64());
    }
    for path in ["/locate?file=data/07/sample-000007.bin", "/search?q=sample-0999", "/directory", "/peers"] {
        let begun = Instant::now();
        maestro.get(path).await;
        println!("GET {path}: {:.2?}", begun.elapsed());
    }
    let begun = Instant::now();
    let mut stream = peer.sync(&maestro, 2, 1).await;
    stream
        .apply(CatalogDelta { reset: true, ..complete(delta(2, upserts(1, &files[..1])), &files[..1]) })
        .await;
    println!("forgetting all but one: {:.2?}", begun.elapsed());
}

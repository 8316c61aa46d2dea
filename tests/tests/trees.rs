//! Whole directories: by one transfer, from everyone who has them, over kills and pauses, and past a liar.

// Helpers of tests are no tests to clippy: a test that cannot go on fails right there.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use p2p_content::ContentHash;
use p2p_proto::control::{FileList, SourceState, Transfer, TransferState, TreeAnswer};
use p2p_tests::{
    Conduct, LyingPeer, Network, Peer, SeedPeer, eventually, hash_of_file, random_bytes, random_file,
    size_of_tree, write_file,
};

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(20);
const TRANSFERRED: Duration = Duration::from_secs(90);

/// A small file of a set: number, name, bytes.
fn small(number: u64) -> (String, Vec<u8>) {
    let len = usize::try_from(number * 7919 % 60_000).unwrap();
    (format!("set/{}/{number}.bin", number % 7), random_bytes(len, number))
}

fn fill(shared: &Path, count: u64) -> anyhow::Result<()> {
    (0..count).map(small).try_for_each(|(name, bytes)| write_file(&shared.join(name), bytes))
}

/// Whether the first `count` files of the set are there, as they should be.
fn is_whole(peer: &Peer, count: u64) -> anyhow::Result<()> {
    for (name, bytes) in (0..count).map(small) {
        ensure!(hash_of_file(&peer.shared(&name))? == ContentHash::of(&bytes), "{name} is another");
    }
    Ok(())
}

async fn set_of(name: &str, conduct: Conduct, count: u64, network: &Network) -> LyingPeer {
    let source = LyingPeer::start(name, conduct, (0..count).map(small)).await.unwrap();
    source.join(&network.maestro().unwrap().address()).await.unwrap();
    source
}

async fn begin(peer: &Peer) -> Transfer {
    peer.ctl_json(&["fetch", "-r", "set", "--detach"]).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_comes_with_its_names_by_one_transfer() {
    let sizes = [0, 1, 70_000, MIB, MIB + 1, 5 * MIB + 7, 9 * MIB];
    let network = Network::builder().peers(2).files(move |number, shared| {
        if number == 1 {
            for size in sizes {
                random_file(&shared.join(format!("año/2024 b/{size}.bin")), size, size)?;
                random_file(&shared.join(format!("año/{size}.txt")), size, size + 1)?;
            }
            write_file(&shared.join("otro.txt"), "otro")?;
        }
        Ok(())
    });
    let network = network.start().await.unwrap();
    let (source, peer) = (network.peer(1).unwrap(), network.peer(2).unwrap());

    let found: TreeAnswer = peer.ctl_json(&["fetch", "-r", "año", "--dry-run"]).await.unwrap();
    let bytes = sizes.iter().sum::<u64>();
    assert_eq!((found.files, found.bytes, found.here_files, found.conflicts), (14, 2 * bytes, 0, 0));
    assert_eq!(found.sources.iter().map(|peer| peer.name.as_str()).collect::<Vec<_>>(), ["P1"]);
    let listed: Vec<_> =
        found.list.iter().map(|file| (file.name.as_str(), file.size, file.sources)).collect();
    assert_eq!((listed.len(), listed[0]), (14, ("año/0.txt", 0, 1)), "{listed:?}");
    assert_eq!(found.list[0].content, source.hash_of("año/0.txt").unwrap().to_string());
    assert!(peer.transfers().await.unwrap().is_empty() && !peer.shared("año").exists(), "nothing is fetched");
    let said = peer.ctl(["fetch", "-r", "año", "--dry-run"]).await.unwrap().ok().unwrap().text();
    assert!(said.contains("14 files") && said.contains("P1"), "{said}");

    // A pattern stays within its directory.
    peer.ctl(["fetch", "año/*.txt"]).await.unwrap().ok().unwrap();
    assert!(peer.shared("año/1.txt").exists() && !peer.shared("año/2024 b").exists());
    let said = peer.ctl(["fetch", "-r", "año/"]).await.unwrap().ok().unwrap();
    assert_eq!(said.text().trim(), peer.shared("año").canonicalize().unwrap().to_str().unwrap());
    for size in sizes {
        for name in [format!("año/2024 b/{size}.bin"), format!("año/{size}.txt")] {
            assert_eq!(peer.hash_of(&name).unwrap(), source.hash_of(&name).unwrap(), "{name}");
        }
    }
    assert!(!peer.shared("otro.txt").exists());
    let transfers = peer.transfers().await.unwrap();
    assert_eq!(transfers.len(), 2, "each is one transfer");
    let all = &transfers[0];
    assert_eq!((all.state, all.files, all.files_done), (TransferState::Done, Some(14), Some(14)), "{all:?}");
    assert_eq!((all.size, all.done_bytes, all.name.as_str()), (Some(2 * bytes), 2 * bytes, "año/"));
    assert_eq!(all.sources.iter().map(|source| source.bytes).sum::<u64>(), bytes, "the texts were here");
    let shown = peer.ctl(["transfers"]).await.unwrap().ok().unwrap().text();
    assert!(shown.contains("14 of 14 files"), "{shown}");
    assert_eq!(peer.partial_files(), 0);
    let listed: FileList = peer.ctl_json(&["list", "año/"]).await.unwrap();
    assert_eq!(listed.files.len(), 14, "all are in the catalog");

    let said = peer.ctl(["fetch", "-r", "año"]).await.unwrap().ok().unwrap();
    assert!(said.stderr.contains("is here already"), "{}", said.stderr);
    peer.ctl(["fetch", "-r", "nada"]).await.unwrap().exited(3).unwrap();
    peer.ctl(["fetch", "../*"]).await.unwrap().exited(3).unwrap();
    peer.ctl(["fetch", "/*"]).await.unwrap().exited(2).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_needs_a_choice_is_told_before_anything_is_fetched() {
    let network = Network::builder().peers(3).files(|number, shared| {
        write_file(&shared.join(format!("docs/de P{number}.txt")), format!("P{number}"))?;
        match number {
            3 => write_file(&shared.join("docs/mio.txt"), "mío"),
            _ => {
                write_file(&shared.join("docs/acta.txt"), format!("versión {number}"))?;
                write_file(&shared.join("docs/igual.txt"), "igual")
            }
        }
    });
    let network = network.start().await.unwrap();
    let peer = network.peer(3).unwrap();
    let said = peer.ctl(["fetch", "-r", "docs"]).await.unwrap().exited(6).unwrap();
    assert!(said.stderr.contains("docs/acta.txt") && said.stderr.contains("--from"), "{}", said.stderr);
    let said = peer.ctl(["fetch", "docs/**", "--dry-run"]).await.unwrap().exited(6).unwrap();
    assert!(said.text().contains("docs/acta.txt: 2 different contents"), "{}", said.text());
    assert!(!peer.shared("docs/igual.txt").exists() && peer.transfers().await.unwrap().is_empty());

    peer.ctl(["fetch", "-r", "docs", "--from", "P2"]).await.unwrap().ok().unwrap();
    assert_eq!(std::fs::read_to_string(peer.shared("docs/acta.txt")).unwrap(), "versión 2");
    assert!(peer.shared("docs/de P2.txt").exists() && !peer.shared("docs/de P1.txt").exists());

    // What is here under the name is another one now.
    let said = peer.ctl(["fetch", "docs/*", "--from", "P1"]).await.unwrap().exited(6).unwrap();
    assert!(said.stderr.contains("another file is here"), "{}", said.stderr);
    assert_eq!(std::fs::read_to_string(peer.shared("docs/acta.txt")).unwrap(), "versión 2");
    assert!(!peer.shared("docs/de P1.txt").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_left_out_are_told_by_the_exit_code() {
    let network = Network::builder().peers(2).files(|number, shared| match number {
        1 => write_file(&shared.join("docs/acta.txt"), "acta"),
        _ => Ok(()),
    });
    let network = network.start().await.unwrap();
    let peer = network.peer(2).unwrap();
    let plain = SeedPeer::start([("docs/acta.txt", "otra"), ("docs/solo.txt", "solo")]).await.unwrap();
    plain.register(&network.maestro().unwrap().rest().unwrap()).await.unwrap();
    let said = peer.ctl(["--json", "fetch", "-r", "docs", "--dry-run"]).await.unwrap().exited(8).unwrap();
    let found: TreeAnswer = said.json().unwrap();
    assert_eq!((found.files, found.unproven_files), (1, 1), "one proves itself: {found:?}");
    let said = peer.ctl(["fetch", "-r", "docs"]).await.unwrap().exited(8).unwrap();
    assert!(said.stderr.contains("1 file is left out that only plain peers have"), "{}", said.stderr);
    assert_eq!(said.text().trim(), peer.shared("docs").canonicalize().unwrap().to_str().unwrap());
    assert_eq!(std::fs::read_to_string(peer.shared("docs/acta.txt")).unwrap(), "acta");
    let shown = peer.ctl(["transfers"]).await.unwrap().ok().unwrap().text();
    assert!(shown.contains("may not be all of it"), "{shown}");
    // All that it knows of is here now, which is no success either.
    let said = peer.ctl(["fetch", "-r", "docs"]).await.unwrap().exited(8).unwrap();
    assert!(said.stderr.contains("What is known of docs/ is here already"), "{}", said.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_lists_each_file_with_how_many_have_it() {
    const COUNT: u64 = 2100;
    let network = Network::builder().peers(1).start().await.unwrap();
    let _one = set_of("una", Conduct::Honest, COUNT, &network).await;
    let _other = set_of("otra", Conduct::Honest, 7, &network).await;
    let peer = network.peer(1).unwrap();
    let found: TreeAnswer = peer.ctl_json(&["fetch", "-r", "set", "--dry-run"]).await.unwrap();
    assert_eq!((found.files, found.list.len() as u64), (COUNT, COUNT), "more than a page");
    assert!(found.list.is_sorted_by(|one, other| one.name < other.name));
    for (name, bytes) in [small(3), small(2000)] {
        let file = found.list.iter().find(|file| file.name == name).unwrap();
        let sources = if name == small(3).0 { 2 } else { 1 };
        assert_eq!((file.size, file.sources), (bytes.len() as u64, sources), "{file:?}");
        assert_eq!(file.content, ContentHash::of(&bytes).to_string());
    }
    assert_eq!(found.list.iter().filter(|file| file.sources == 2).count(), 7);
    let said = peer.ctl(["fetch", "set/**", "--dry-run"]).await.unwrap().ok().unwrap().text();
    assert!(said.trim_end().ends_with("… and 2080 more, which --json lists too"), "{said}");
    // What is here is not among them.
    peer.ctl(["fetch", &small(3).0]).await.unwrap().ok().unwrap();
    let found: TreeAnswer = peer.ctl_json(&["fetch", "-r", "set", "--dry-run"]).await.unwrap();
    assert_eq!((found.list.len() as u64, found.here_files), (COUNT - 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_files_come_from_two_sources() {
    const COUNT: u64 = 2000;
    let network = Network::builder().peers(1).start().await.unwrap();
    let one = set_of("una", Conduct::slow(24 << 20), COUNT, &network).await;
    let other = set_of("otra", Conduct::slow(24 << 20), COUNT, &network).await;
    let peer = network.peer(1).unwrap();
    peer.ctl(["fetch", "-r", "set"]).await.unwrap().ok().unwrap();
    is_whole(peer, COUNT).unwrap();
    let done = &peer.transfers().await.unwrap()[0];
    assert_eq!(done.files_done, Some(COUNT));
    let size = done.size.unwrap();
    for source in [&one, &other] {
        assert!(source.given_bytes() > size / 5, "{} gave {}", source.name(), source.given_bytes());
    }
    let given = one.given_bytes() + other.given_bytes();
    println!("{given} bytes were given for {size}");
    assert!(given <= size + size / 20, "{given} bytes were given for {size}");
    assert_eq!(peer.partial_files(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_only_one_of_two_has_come_from_that_one() {
    let network = Network::builder().peers(1).start().await.unwrap();
    let half = |which: u64| (0..600).filter(move |number| number % 2 == which).map(small);
    let even = LyingPeer::start("pares", Conduct::Honest, half(0)).await.unwrap();
    let odd = LyingPeer::start("nones", Conduct::Honest, half(1)).await.unwrap();
    for source in [&even, &odd] {
        source.join(&network.maestro().unwrap().address()).await.unwrap();
    }
    let peer = network.peer(1).unwrap();
    peer.ctl(["fetch", "-r", "set"]).await.unwrap().ok().unwrap();
    is_whole(peer, 600).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_fetcher_goes_on_and_asks_for_nothing_that_was_there() {
    const COUNT: u64 = 600;
    let mut network = Network::builder().peers(1).start().await.unwrap();
    let source = set_of("lenta", Conduct::slow(3 << 20), COUNT, &network).await;
    let peer = network.peer(1).unwrap();
    let begun = begin(peer).await;
    let size = begun.size.unwrap();
    let half = |transfer: &Transfer| transfer.done_bytes >= size / 2;
    let before = peer.transfer_until(begun.id, TRANSFERRED, "half of it is there", half).await.unwrap();
    let daemon = network.peer_mut(1).unwrap().daemon_mut();
    daemon.kill_9().await.unwrap();
    source.behave(Conduct::Silent);
    let given = source.given_bytes();
    daemon.restart().await.unwrap();
    source.behave(Conduct::Honest);

    let peer = network.peer(1).unwrap();
    peer.transfer_done(begun.id, TRANSFERRED).await.unwrap();
    is_whole(peer, COUNT).unwrap();
    let (lacked, again) = (size - before.done_bytes, source.given_bytes() - given);
    println!("it lacked {lacked} bytes of {size}, and the source gave {again}");
    assert!(again <= lacked + size / 20, "{again} bytes were asked for to get {lacked}");
    assert_eq!(peer.partial_files(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_paused_resumed_and_cancelled() {
    const COUNT: u64 = 400;
    let network = Network::builder().peers(1).start().await.unwrap();
    let source = set_of("lenta", Conduct::slow(2 << 20), COUNT, &network).await;
    let peer = network.peer(1).unwrap();
    let begun = begin(peer).await;
    assert_eq!(begin(peer).await.id, begun.id, "asked for twice, it is fetched once");
    let id = begun.id.to_string();
    let some = |transfer: &Transfer| transfer.done_bytes > MIB;
    peer.transfer_until(begun.id, SOON, "some of it is there", some).await.unwrap();
    peer.ctl(["transfers", "pause", &id]).await.unwrap().ok().unwrap();
    let paused = peer.transfer(begun.id).await.unwrap();
    assert_eq!((paused.state, paused.held), (TransferState::Paused, true), "{paused:?}");
    peer.ctl(["transfers", "resume", &id]).await.unwrap().ok().unwrap();
    let more = |transfer: &Transfer| transfer.done_bytes > paused.done_bytes + MIB;
    peer.transfer_until(begun.id, SOON, "more of it is there", more).await.unwrap();
    peer.ctl(["transfers", "cancel", &id]).await.unwrap().ok().unwrap();
    assert_eq!(peer.transfer(begun.id).await.unwrap().state, TransferState::Cancelled);
    assert_eq!(peer.partial_files(), 0);
    // What has its name stays: it is whole.
    let (files, _) = size_of_tree(&peer.shared("set")).unwrap_or_default();
    assert!(files < COUNT, "{files} files");

    source.behave(Conduct::Honest);
    let again = begin(peer).await;
    assert_ne!(again.id, begun.id);
    peer.transfer_done(again.id, TRANSFERRED).await.unwrap();
    is_whole(peer, COUNT).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_liar_among_the_sources_is_named_and_nothing_false_is_kept() {
    const COUNT: u64 = 800;
    let network = Network::builder().peers(1).start().await.unwrap();
    let _honest = set_of("honrada", Conduct::slow(16 << 20), COUNT, &network).await;
    let _liar = set_of("falsa", Conduct::false_pieces(1), COUNT, &network).await;
    let peer = network.peer(1).unwrap();
    let begun = begin(peer).await;
    let done = peer.transfer_done(begun.id, TRANSFERRED).await.unwrap();
    is_whole(peer, COUNT).unwrap();
    let liar = done.sources.iter().find(|source| source.peer.name == "falsa").unwrap();
    // An empty file has no byte that could be false.
    assert_eq!((liar.state, liar.bytes), (SourceState::Dropped, 0), "{done:?}");
    assert!(liar.reason.as_ref().unwrap().contains("false bytes"), "{liar:?}");
    assert!(done.wasted_bytes > 0);
    assert_eq!(peer.partial_files(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_liar_that_goes_at_once_is_named_too() {
    const COUNT: u64 = 400;
    let network = Network::builder().peers(1).start().await.unwrap();
    let _honest = set_of("honrada", Conduct::slow(16 << 20), COUNT, &network).await;
    let _liar = set_of("falsa", Conduct::FalseAndGone, COUNT, &network).await;
    let peer = network.peer(1).unwrap();
    let begun = begin(peer).await;
    let done = peer.transfer_done(begun.id, TRANSFERRED).await.unwrap();
    is_whole(peer, COUNT).unwrap();
    let liar = done.sources.iter().find(|source| source.peer.name == "falsa").unwrap();
    assert_eq!((liar.state, liar.bytes), (SourceState::Dropped, 0), "{done:?}");
    assert!(liar.reason.as_ref().unwrap().contains("false bytes"), "{liar:?}");
}

/// It is found again with each file that somebody is looked for, and others give files all the while.
#[tokio::test(flavor = "multi_thread")]
async fn who_gives_nothing_is_left_alone_however_much_others_give() {
    const COUNT: u64 = 400;
    let network = Network::builder().peers(1).start().await.unwrap();
    let some = |which: u64| (0..COUNT).filter(move |number| number % 2 == which).map(small);
    let honest = LyingPeer::start("honrada", Conduct::slow(4 << 20), some(0)).await.unwrap();
    let empty = LyingPeer::start("vacía", Conduct::Empty, some(1)).await.unwrap();
    let broken = LyingPeer::start("rota", Conduct::Breaks(0), some(1)).await.unwrap();
    for source in [&honest, &empty, &broken] {
        source.join(&network.maestro().unwrap().address()).await.unwrap();
    }
    let peer = network.peer(1).unwrap();
    let begun = begin(peer).await;
    let waits = |transfer: &Transfer| transfer.state == TransferState::Waiting;
    let waiting = peer.transfer_until(begun.id, TRANSFERRED, "it waits", waits).await.unwrap();
    assert_eq!(waiting.files_done, Some(COUNT / 2), "{waiting:?}");
    assert!(broken.streams() <= 4, "it was asked again and again: {} streams", broken.streams());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_waits_for_its_only_source() {
    const COUNT: u64 = 300;
    let network = Network::builder().peers(2).files(|number, shared| match number {
        1 => fill(shared, COUNT),
        _ => Ok(()),
    });
    let network = network.peers_with(|number, settings| {
        if number == 1 {
            settings.set("limits.up_bytes_per_sec", 2 << 20);
        }
    });
    let mut network = network.start().await.unwrap();
    let peer = network.peer(2).unwrap();
    let begun = begin(peer).await;
    let some = |transfer: &Transfer| transfer.done_bytes > MIB;
    peer.transfer_until(begun.id, SOON, "some of it is there", some).await.unwrap();
    network.peer_mut(1).unwrap().daemon_mut().kill_9().await.unwrap();
    let peer = network.peer(2).unwrap();
    let waits = |transfer: &Transfer| transfer.state == TransferState::Waiting && transfer.reason.is_some();
    let waiting = peer.transfer_until(begun.id, TRANSFERRED, "it waits", waits).await.unwrap();
    assert!(waiting.reason.as_ref().unwrap().contains("files are missing"), "{waiting:?}");
    network.peer_mut(1).unwrap().daemon_mut().restart().await.unwrap();
    let peer = network.peer(2).unwrap();
    peer.transfer_done(begun.id, TRANSFERRED).await.unwrap();
    is_whole(peer, COUNT).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_came_meanwhile_is_not_replaced() {
    const COUNT: u64 = 200;
    let network = Network::builder().peers(1).start().await.unwrap();
    let source = set_of("muda", Conduct::Silent, COUNT, &network).await;
    let peer = network.peer(1).unwrap();
    let begun = begin(peer).await;
    let (taken, same) = (small(3), small(4));
    write_file(&peer.shared(&taken.0), "of its user").unwrap();
    write_file(&peer.shared(&same.0), &same.1).unwrap();
    source.behave(Conduct::Honest);
    let failed = |transfer: &Transfer| transfer.state == TransferState::Failed;
    let ended = peer.transfer_until(begun.id, TRANSFERRED, "it ends", failed).await.unwrap();
    assert!(ended.reason.as_ref().unwrap().contains(&taken.0), "{ended:?}");
    assert_eq!(std::fs::read_to_string(peer.shared(&taken.0)).unwrap(), "of its user");
    assert_eq!(ended.files_done, Some(COUNT - 1), "all others are here");
    eventually(SOON, "no part is left", async || {
        ensure!(peer.partial_files() == 0, "{} parts", peer.partial_files());
        Ok(())
    })
    .await
    .unwrap();
}

/// Each of the long files that come at once is remembered when the transfer is paused, and not only the first to stop.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_of_long_files_is_not_hashed_again_after_a_pause() {
    let files = (0..3).map(|number| (format!("set/{number}.bin"), random_bytes(24 << 20, number)));
    let mut network = Network::builder().peers(1).start().await.unwrap();
    let source = LyingPeer::start("lenta", Conduct::slow(4 << 20), files).await.unwrap();
    source.join(&network.maestro().unwrap().address()).await.unwrap();
    let peer = network.peer(1).unwrap();
    let begun = begin(peer).await;
    let id = begun.id.to_string();
    let some = |transfer: &Transfer| transfer.done_bytes >= 12 * MIB;
    peer.transfer_until(begun.id, TRANSFERRED, "some of each is there", some).await.unwrap();
    peer.ctl(["transfers", "pause", &id]).await.unwrap().ok().unwrap();
    let daemon = network.peer_mut(1).unwrap().daemon_mut();
    daemon.kill_9().await.unwrap();
    daemon.restart().await.unwrap();
    source.behave(Conduct::Honest);
    let peer = network.peer(1).unwrap();
    peer.ctl(["transfers", "resume", &id]).await.unwrap().ok().unwrap();
    peer.transfer_done(begun.id, TRANSFERRED).await.unwrap();
    let log = peer.daemon().log_of_this_run();
    let resumed: Vec<&str> =
        log.lines().filter(|line| line.contains("were remembered and not read")).collect();
    assert_eq!(resumed.len(), 3, "{log}");
    for line in resumed {
        assert!(line.contains(", 0 were hashed"), "{line}");
        assert!(!line.contains(": 0 were remembered"), "{line}");
    }
}

/// Files that nobody gives come first in the list: more of them than were ever given up after.
#[tokio::test(flavor = "multi_thread")]
async fn what_others_have_comes_whatever_is_missing_before_it() {
    const MISSING: u64 = 700;
    for is_gone in [false, true] {
        let network = Network::builder().peers(1).start().await.unwrap();
        let lost = (0..MISSING).map(|number| (format!("set/a/{number}.bin"), random_bytes(100, number)));
        let lost = LyingPeer::start("vacía", Conduct::Empty, lost).await.unwrap();
        let there = (0..40).map(|number| (format!("set/b/{number}.bin"), random_bytes(100, 5000 + number)));
        let there = LyingPeer::start("llena", Conduct::Honest, there).await.unwrap();
        for source in [&lost, &there] {
            source.join(&network.maestro().unwrap().address()).await.unwrap();
        }
        let peer = network.peer(1).unwrap();
        let begun = begin(peer).await;
        if is_gone {
            drop(lost);
        }
        let waits = |transfer: &Transfer| transfer.state == TransferState::Waiting;
        let waiting = peer.transfer_until(begun.id, TRANSFERRED, "it waits", waits).await.unwrap();
        assert_eq!(waiting.files_done, Some(40), "what others have is here: {waiting:?}");
        let why = waiting.reason.unwrap();
        assert!(why.contains(&format!("{MISSING} files are missing (set/a/0.bin, ")), "{why}");
        assert!(why.contains("and 697 more"), "{why}");
    }
}

/// It alone has files that come first in the list, more of them than are read at once, and gives them slowly. They come when
/// it gives them.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_source_holds_up_nothing_but_what_it_alone_has() {
    const ITS_OWN: u64 = 1500;
    let network = Network::builder().peers(1).start().await.unwrap();
    let own = (0..ITS_OWN).map(|number| (format!("set/a/{number}.bin"), random_bytes(20_000, number)));
    let slow = LyingPeer::start("lenta", Conduct::slow(1024), own).await.unwrap();
    let short = (0..300).map(|number| (format!("set/b/{number}.bin"), random_bytes(100, 5000 + number)));
    let long = ("set/a/larga.bin".to_owned(), random_bytes(9 << 20, 1));
    let fast = LyingPeer::start("rápida", Conduct::Honest, short.chain([long])).await.unwrap();
    for source in [&slow, &fast] {
        source.join(&network.maestro().unwrap().address()).await.unwrap();
    }
    let peer = network.peer(1).unwrap();
    let begun = begin(peer).await;
    let rest = |transfer: &Transfer| transfer.files_done >= Some(301);
    let more =
        peer.transfer_until(begun.id, TRANSFERRED, "all but the slow one's is there", rest).await.unwrap();
    assert!(more.files_done < Some(ITS_OWN), "{more:?}");
    slow.behave(Conduct::Honest);
    let done = peer.transfer_done(begun.id, TRANSFERRED).await.unwrap();
    assert_eq!(done.files_done, Some(ITS_OWN + 301));
    assert_eq!(peer.partial_files(), 0);
}

/// As many slow sources as are asked at once, and one more.
#[tokio::test(flavor = "multi_thread")]
async fn slow_sources_keep_no_fast_one_out() {
    const COUNT: u64 = 700;
    let network = Network::builder().peers(1).start().await.unwrap();
    let mut slow = Vec::new();
    for number in 0..16 {
        slow.push(set_of(&format!("lenta {number}"), Conduct::slow(2048), COUNT, &network).await);
    }
    let peer = network.peer(1).unwrap();
    let begun = begin(peer).await;
    let asked = |transfer: &Transfer| transfer.sources.len() == slow.len();
    peer.transfer_until(begun.id, SOON, "all of them are asked", asked).await.unwrap();
    let _fast = set_of("rápida", Conduct::Honest, COUNT, &network).await;
    peer.transfer_done(begun.id, TRANSFERRED).await.unwrap();
    is_whole(peer, COUNT).unwrap();
}

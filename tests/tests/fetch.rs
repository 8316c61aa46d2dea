//! Fetching between peers: from several sources, by name and by hash, to wherever the user wants it.

// Helpers of tests are no tests to clippy: a test that cannot go on fails right there.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use anyhow::{Context, ensure};
use p2p_content::ContentHash;
use p2p_proto::control::{Bound, FetchAnswer, Origin, Transfer, TransferState, Why};
use p2p_tests::{Conduct, LyingPeer, Network, Peer, eventually, random_bytes, random_file, write_file};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncReadExt;

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(20);

/// A peer, and a slow source that holds `lento.bin`, so that a fetch can be caught on its way.
async fn with_slow_source() -> (Network, LyingPeer, ContentHash) {
    let network = Network::builder().peers(1).start().await.unwrap();
    let file = random_bytes(8 << 20, 1);
    let hash = ContentHash::of(&file);
    let source = LyingPeer::start("lento", Conduct::slow(512 * 1024), [("lento.bin", file)]).await.unwrap();
    source.join(&network.maestro().unwrap().address()).await.unwrap();
    (network, source, hash)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_source_does_so_after_a_restart_and_says_why() {
    let (mut network, source, hash) = with_slow_source().await;
    source.behave(Conduct::slow(2 << 20));
    let peer = network.peer(1).unwrap();
    let begun: Transfer = peer.ctl_json(&["fetch", "lento.bin", "--detach"]).await.unwrap();
    let some = |transfer: &Transfer| transfer.done_bytes >= 2 * MIB;
    peer.transfer_until(begun.id, SOON, "some of it is there", some).await.unwrap();
    drop(source);
    let waits = |transfer: &Transfer| transfer.state == TransferState::Waiting && transfer.reason.is_some();
    let before = peer.transfer_until(begun.id, SOON, "it waits", waits).await.unwrap();
    let daemon = network.peer_mut(1).unwrap().daemon_mut();
    daemon.kill_9().await.unwrap();
    daemon.restart().await.unwrap();

    let peer = network.peer(1).unwrap();
    let still = peer.transfer_until(begun.id, SOON, "it still waits", waits).await.unwrap();
    assert_eq!((still.done_bytes, still.held), (before.done_bytes, false), "{still:?}");
    let why = eventually(SOON, "it has looked for somebody", async || {
        let why: Why = peer.ctl_json(&["why", &begun.id.to_string()]).await?;
        ensure!(why.tries >= 1 && why.state == TransferState::Waiting, "{why:#?}");
        Ok(why)
    })
    .await
    .unwrap();
    assert_eq!(why.bound_by, Bound::NoSources, "{why:#?}");
    let reason = peer.transfer(begun.id).await.unwrap().reason.unwrap();
    assert!(why.says.contains("has no source for") && why.says.contains(&reason), "{} {reason}", why.says);

    // Whoever has it then gives what is missing.
    let files = [("lento.bin", random_bytes(8 << 20, 1))];
    let other = LyingPeer::start("otra", Conduct::Honest, files).await.unwrap();
    other.join(&network.maestro().unwrap().address()).await.unwrap();
    peer.transfer_done(begun.id, Duration::from_secs(60)).await.unwrap();
    assert_eq!(peer.hash_of("lento.bin").unwrap(), hash);
    let lacked = 8 * MIB - before.done_bytes;
    assert!(other.given_bytes() <= lacked, "{} bytes for {lacked}", other.given_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_of_a_file_says_what_fetching_it_would() {
    let network =
        Network::builder().peers(3).files(|number, shared| match number {
            1 => random_file(&shared.join("a/uno.bin"), 5000, 1)
                .and_then(|_| write_file(&shared.join("dos"), "1")),
            2 => random_file(&shared.join("a/uno.bin"), 5000, 1)
                .and_then(|_| write_file(&shared.join("dos"), "2")),
            _ => write_file(&shared.join("mio"), "mío"),
        });
    let network = network.start().await.unwrap();
    let (source, peer) = (network.peer(1).unwrap(), network.peer(3).unwrap());
    let hash = source.hash_of("a/uno.bin").unwrap().to_string();
    let found: FetchAnswer = peer.ctl_json(&["fetch", "a/uno.bin", "--dry-run"]).await.unwrap();
    assert_eq!((found.size, found.content.as_deref(), found.here), (Some(5000), Some(&*hash), false));
    let mut names: Vec<_> = found.sources.iter().map(|peer| peer.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!((names, found.transfer), (vec!["P1", "P2"], None));
    let path = |name: &str| peer.shared("").canonicalize().unwrap().join(name).display().to_string();
    assert_eq!((found.path, found.free_bytes.is_some()), (path("a/uno.bin"), true));
    let found: FetchAnswer =
        peer.ctl_json(&["fetch", &hash, "--dry-run", "--from", "P2", "--as", "b.bin"]).await.unwrap();
    assert_eq!((found.name.as_str(), found.path), ("b.bin", path("b.bin")));
    assert_eq!(found.sources.iter().map(|peer| peer.name.as_str()).collect::<Vec<_>>(), ["P2"]);
    assert!(peer.transfers().await.unwrap().is_empty() && !peer.shared("a").exists(), "nothing is fetched");

    for (words, code) in [
        (["fetch", "dos", "--dry-run", "--as", "x"], 6),
        (["fetch", "a/uno.bin", "--dry-run", "--as", "mio"], 6),
        (["fetch", "nada", "--dry-run", "--as", "x"], 3),
        (["fetch", "../x", "--dry-run", "--as", "x"], 2),
    ] {
        peer.ctl(words).await.unwrap().exited(code).unwrap();
    }
    peer.ctl(["fetch", "a/uno.bin"]).await.unwrap().ok().unwrap();
    let found: FetchAnswer = peer.ctl_json(&["fetch", "a/uno.bin", "--dry-run"]).await.unwrap();
    assert_eq!((found.here, found.path), (true, path("a/uno.bin")));
}

/// Has the only source's file fail at its very end, since something else has its name by then.
async fn name_taken(peer: &Peer, source: &LyingPeer, name: &str) -> Transfer {
    source.behave(Conduct::slow(2 << 20));
    let begun: Transfer = peer.ctl_json(&["fetch", name, "--detach"]).await.unwrap();
    let some = |transfer: &Transfer| transfer.done_bytes >= MIB;
    peer.transfer_until(begun.id, SOON, "some of it is there", some).await.unwrap();
    write_file(&peer.shared(name), "of its user").unwrap();
    source.behave(Conduct::Honest);
    let failed = |transfer: &Transfer| transfer.state == TransferState::Failed;
    peer.transfer_until(begun.id, SOON, "its name is taken", failed).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_name_in_the_end_is_not_fetched_again_under_another() {
    let (mut network, source, hash) = with_slow_source().await;
    let peer = network.peer(1).unwrap();
    let failed = name_taken(peer, &source, "lento.bin").await;
    let why = failed.reason.unwrap();
    assert!(why.contains("--as NAME; what is here of it is kept for a day"), "{why}");
    assert_eq!(peer.partial_files(), 1);
    let given = source.given_bytes();
    // It is kept over a restart too.
    let daemon = network.peer_mut(1).unwrap().daemon_mut();
    daemon.kill_9().await.unwrap();
    daemon.restart().await.unwrap();
    network.settled().await.unwrap();
    let peer = network.peer(1).unwrap();
    peer.ctl(["fetch", "lento.bin", "--as", "otro.bin"]).await.unwrap().ok().unwrap();
    assert_eq!(peer.hash_of("otro.bin").unwrap(), hash);
    assert_eq!(source.given_bytes(), given, "nothing was fetched again");
    assert_eq!(std::fs::read_to_string(peer.shared("lento.bin")).unwrap(), "of its user");
    assert_eq!(peer.partial_files(), 0);
    let said = format!("goes on with what transfer {} had when it failed", failed.id);
    assert!(peer.daemon().log_of_this_run().contains(&said), "{}", peer.daemon().log_of_this_run());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_failed_transfer_left_is_given_back_after_a_day() {
    let (mut network, source, _) = with_slow_source().await;
    let other = LyingPeer::start("otra", Conduct::Honest, [("otra.bin", random_bytes(8 << 20, 2))]).await;
    let other = other.unwrap();
    other.join(&network.maestro().unwrap().address()).await.unwrap();
    let peer = network.peer(1).unwrap();
    let younger = name_taken(peer, &source, "lento.bin").await.id;
    let older = name_taken(peer, &other, "otra.bin").await.id;
    assert_eq!(peer.partial_files(), 2);
    let peer = network.peer_mut(1).unwrap();
    peer.daemon_mut().kill_9().await.unwrap();
    let database = rusqlite::Connection::open(peer.state("transfers.sqlite")).unwrap();
    for (id, hours) in [(younger, 23), (older, 25)] {
        // As if this time had passed meanwhile.
        let earlier = "UPDATE transfers SET body = json_set(body, '$.ended_ms', body ->> '$.ended_ms' - ?2) WHERE id = ?1";
        assert_eq!(database.execute(earlier, (id, hours * 3_600_000_i64)).unwrap(), 1);
    }
    drop(database);
    peer.daemon_mut().restart().await.unwrap();
    let removed = |id: u64| format!("what was kept of the failed transfer {id} is removed");
    eventually(SOON, "what is a day old is given back", async || {
        let log = peer.daemon().log_of_this_run();
        ensure!(log.contains(&removed(older)), "{log}");
        Ok(())
    })
    .await
    .unwrap();
    // They are looked at in the order of their numbers: the other one was before it.
    assert!(!peer.daemon().log_of_this_run().contains(&removed(younger)), "an hour is left of its day");
    assert_eq!(peer.partial_files(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_failed_transfer_left_makes_room_for_another_one() {
    let (mut network, source, _) = with_slow_source().await;
    let other = LyingPeer::start("otra", Conduct::Honest, [("otra.bin", random_bytes(3 << 20, 2))]).await;
    let other = other.unwrap();
    other.join(&network.maestro().unwrap().address()).await.unwrap();
    name_taken(network.peer(1).unwrap(), &source, "lento.bin").await;
    let peer = network.peer_mut(1).unwrap();
    assert_eq!(peer.partial_files(), 1);
    peer.edit(|settings| {
        settings.set("transfers.reserve_bytes", i64::MAX);
    })
    .unwrap();
    peer.daemon().signal(Signal::HUP).unwrap();
    let peer = network.peer(1).unwrap();
    eventually(SOON, "it has taken the configuration", async || {
        let log = peer.daemon().log_of_this_run();
        ensure!(log.contains("configuration changed: transfers.reserve_bytes"), "{log}");
        Ok(())
    })
    .await
    .unwrap();
    let begun: Transfer = peer.ctl_json(&["fetch", "otra.bin", "--detach"]).await.unwrap();
    let paused = |transfer: &Transfer| transfer.state == TransferState::Paused;
    peer.transfer_until(begun.id, SOON, "the disk is full", paused).await.unwrap();
    assert_eq!(peer.partial_files(), 0, "what was kept for nobody is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_comes_from_all_who_have_it() {
    let network = Network::builder().peers(3).files(|number, shared| {
        if number < 3 {
            random_file(&shared.join("grande.bin"), 96 * MIB + 13, 1)?;
        }
        Ok(())
    });
    let network = network.start().await.unwrap();
    let (source, peer) = (network.peer(1).unwrap(), network.peer(3).unwrap());
    let hash = source.hash_of("grande.bin").unwrap();

    let said = peer.ctl(["fetch", "grande.bin"]).await.unwrap().ok().unwrap();
    let path = peer.shared("grande.bin").canonicalize().unwrap();
    assert_eq!(said.text(), format!("{hash}  {}\n", path.display()), "as b3sum prints it");
    assert_eq!(peer.hash_of("grande.bin").unwrap(), hash);

    let transfer = &peer.transfers().await.unwrap()[0];
    assert_eq!((transfer.state, transfer.proven), (TransferState::Done, true));
    assert_eq!(transfer.done_bytes, 96 * MIB + 13);
    // The last pieces are asked of both.
    assert!(transfer.wasted_bytes <= 8 * MIB, "{} bytes came twice", transfer.wasted_bytes);
    let given: Vec<u64> = transfer.sources.iter().map(|source| source.bytes).collect();
    assert!(
        given.len() == 2 && given.iter().all(|bytes| *bytes > 10 * MIB),
        "both gave their part: {given:?}"
    );
    assert_eq!(given.iter().sum::<u64>(), 96 * MIB + 13);
    assert_eq!(peer.partial_files(), 0);

    // It entered the catalog by the same door as any file.
    let maestro = network.maestro().unwrap().rest().unwrap();
    eventually(Duration::from_secs(2), "three have it", async || {
        let located = maestro.locate("grande.bin").await?;
        ensure!(located.len() == 3, "{located:?}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_every_size_and_name_arrive() {
    let sizes = [0, 1, MIB - 1, MIB, MIB + 1, 5 * MIB + 123];
    let network = Network::builder().peers(2).files(move |number, shared| {
        if number == 1 {
            for size in sizes {
                random_file(&shared.join(format!("docs/año 2024/{size} b.bin")), size, size)?;
            }
        }
        Ok(())
    });
    let network = network.start().await.unwrap();
    let (source, peer) = (network.peer(1).unwrap(), network.peer(2).unwrap());
    for size in sizes {
        let name = format!("docs/año 2024/{size} b.bin");
        peer.ctl(["fetch", &name]).await.unwrap().ok().unwrap();
        assert_eq!(peer.hash_of(&name).unwrap(), source.hash_of(&name).unwrap(), "{name}");
        let (made, given) =
            (peer.shared(&name).metadata().unwrap(), source.shared(&name).metadata().unwrap());
        assert_eq!(made.mode() & 0o777, given.mode() & 0o777 & 0o666, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_contents_under_one_name_are_the_users_choice() {
    let network = Network::builder().peers(3).files(|number, shared| match number {
        3 => Ok(()),
        _ => write_file(&shared.join("informe.txt"), format!("versión {number}")),
    });
    let network = network.start().await.unwrap();
    let peer = network.peer(3).unwrap();
    let hash = |number: u32| ContentHash::of(format!("versión {number}").as_bytes()).to_string();

    let said = peer.ctl(["fetch", "informe.txt"]).await.unwrap().exited(6).unwrap();
    assert!(said.stderr.contains("--from"), "it says how to choose: {}", said.stderr);
    assert!(!peer.shared("informe.txt").exists());

    let by_peer = peer.ctl(["fetch", "informe.txt", "--from", "P2", "-o", "-"]).await.unwrap().ok().unwrap();
    assert_eq!(by_peer.stdout, "versión 2".as_bytes());
    let by_id = ["fetch", "informe.txt", "--from", &network.peer(1).unwrap().id()[..10], "--as", "uno.txt"];
    peer.ctl(by_id).await.unwrap().ok().unwrap();
    assert_eq!(std::fs::read_to_string(peer.shared("uno.txt")).unwrap(), "versión 1");
    let by_hash = peer.ctl(["fetch", &hash(1), "-o", "-"]).await.unwrap().ok().unwrap();
    assert_eq!(by_hash.stdout, "versión 1".as_bytes());
    peer.ctl(["fetch", "informe.txt", "--from", "nadie"]).await.unwrap().exited(3).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_delivered_where_the_user_wants_it() {
    let network = Network::builder().peers(2).files(|number, shared| {
        if number == 1 { random_file(&shared.join("docs/a.bin"), 3 * MIB, 1).map(drop) } else { Ok(()) }
    });
    let network = network.start().await.unwrap();
    let (source, peer) = (network.peer(1).unwrap(), network.peer(2).unwrap());
    let bytes = std::fs::read(source.shared("docs/a.bin")).unwrap();
    let home = peer.dir().join("home");
    std::fs::create_dir(&home).unwrap();

    let piped = peer.ctl(["fetch", "docs/a.bin", "-o", "-"]).await.unwrap().ok().unwrap();
    assert!(piped.stdout == bytes, "{} bytes came through the pipe", piped.stdout.len());
    peer.ctl(["fetch", "docs/a.bin", "-o", home.to_str().unwrap()]).await.unwrap().ok().unwrap();
    assert!(std::fs::read(home.join("a.bin")).unwrap() == bytes);
    let named = home.join("b.bin");
    peer.ctl(["fetch", "docs/a.bin", "-o", named.to_str().unwrap()]).await.unwrap().ok().unwrap();
    assert!(std::fs::read(&named).unwrap() == bytes);
    let again = ["fetch", "docs/a.bin", "-o", named.to_str().unwrap()];
    peer.ctl(again).await.unwrap().exited(6).unwrap();
    peer.ctl(again.into_iter().chain(["--force"])).await.unwrap().ok().unwrap();
    let nowhere = home.join("no/such/dir/");
    peer.ctl(["fetch", "docs/a.bin", "-o", nowhere.to_str().unwrap()]).await.unwrap().exited(3).unwrap();
    peer.ctl(["fetch", "no-such-file"]).await.unwrap().exited(3).unwrap();
    peer.ctl(["fetch", &ContentHash::of(b"nobody has it").to_string()]).await.unwrap().exited(3).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_taken_is_not_taken_again() {
    let network = Network::builder().peers(2).files(|number, shared| {
        write_file(&shared.join("a.txt"), format!("de P{number}"))?;
        write_file(&shared.join("igual.txt"), "igual")
    });
    let network = network.start().await.unwrap();
    let peer = network.peer(2).unwrap();
    let theirs = ContentHash::of(b"de P1").to_string();
    let said = peer.ctl(["fetch", &theirs]).await.unwrap().exited(6).unwrap();
    assert!(said.stderr.contains("--as"), "it says what to do: {}", said.stderr);
    assert_eq!(std::fs::read_to_string(peer.shared("a.txt")).unwrap(), "de P2");
    peer.ctl(["fetch", &theirs, "--as", "de P1/a.txt"]).await.unwrap().ok().unwrap();
    assert_eq!(std::fs::read_to_string(peer.shared("de P1/a.txt")).unwrap(), "de P1");
    // What is here already needs no fetching.
    let said = peer.ctl(["fetch", "igual.txt"]).await.unwrap().ok().unwrap();
    assert!(said.text().starts_with(&ContentHash::of(b"igual").to_string()), "{}", said.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detached_fetch_goes_on_and_shows_in_transfers() {
    let (network, source, hash) = with_slow_source().await;
    let peer = network.peer(1).unwrap();
    let said = peer.ctl(["fetch", "lento.bin", "--detach"]).await.unwrap().ok().unwrap();
    let id: u64 = said.text().trim().parse().unwrap();
    let running = |transfer: &Transfer| transfer.state == TransferState::Running && transfer.rate > 0;
    let transfer = peer.transfer_until(id, SOON, "bytes arrive", running).await.unwrap();
    assert_eq!((transfer.content, transfer.size), (Some(hash.to_string()), Some(8 * MIB)));
    assert!(transfer.sources.iter().any(|source| source.peer.name == "lento"), "{:?}", transfer.sources);
    assert!(!peer.shared("lento.bin").exists(), "it appears when it is whole");
    let shown = peer.ctl(["transfers"]).await.unwrap().ok().unwrap().text();
    assert!(shown.contains("lento.bin") && shown.contains("running"), "{shown}");

    // Asked for twice, it is fetched once.
    let again = peer.ctl(["fetch", "lento.bin", "--detach"]).await.unwrap().ok().unwrap();
    assert_eq!(again.text(), said.text());
    source.behave(Conduct::Honest);
    peer.transfer_done(id, SOON).await.unwrap();
    assert_eq!(peer.hash_of("lento.bin").unwrap(), hash);
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_leaves_the_transfer_running() {
    let (network, source, hash) = with_slow_source().await;
    let peer = network.peer(1).unwrap();
    let child = peer.p2pctl().command(["fetch", "lento.bin"]).spawn().unwrap();
    let running = eventually(SOON, "the fetch began", async || {
        let first = peer.transfers().await?.into_iter().next().context("no transfer yet")?;
        ensure!(first.state == TransferState::Running, "{first:?}");
        Ok(first)
    });
    let id = running.await.unwrap().id;
    kill_process(Pid::from_raw(child.id().unwrap().cast_signed()).unwrap(), Signal::INT).unwrap();
    let output = child.wait_with_output().await.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("p2pctl fetch lento.bin"), "it says how to come back: {stderr}");
    assert!(!peer.transfer(id).await.unwrap().state.is_ended());

    let mut back = peer.p2pctl().command(["fetch", "lento.bin"]).spawn().unwrap();
    source.behave(Conduct::Honest);
    let mut printed = String::new();
    back.stdout.take().unwrap().read_to_string(&mut printed).await.unwrap();
    assert!(back.wait().await.unwrap().success());
    assert!(printed.starts_with(&hash.to_string()), "{printed}");
    assert_eq!(peer.transfers().await.unwrap().len(), 1, "it came back to the same one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_transfer_leaves_nothing() {
    let (network, _source, _) = with_slow_source().await;
    let peer = network.peer(1).unwrap();
    let transfer: Transfer = peer.ctl_json(&["fetch", "lento.bin", "--detach"]).await.unwrap();
    let moving = |transfer: &Transfer| transfer.done_bytes > 0;
    peer.transfer_until(transfer.id, SOON, "a piece is here", moving).await.unwrap();
    assert!(peer.partial_files() > 0);
    peer.ctl(["transfers", "cancel", &transfer.id.to_string()]).await.unwrap().ok().unwrap();
    eventually(Duration::from_secs(5), "its bytes are gone", async || {
        ensure!(peer.partial_files() == 0, "{} partial files", peer.partial_files());
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(peer.transfer(transfer.id).await.unwrap().state, TransferState::Cancelled);
    assert!(!peer.shared("lento.bin").exists());
    peer.ctl(["transfers", "cancel", "12345"]).await.unwrap().exited(3).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_json_lines_for_programs() {
    let (network, source, hash) = with_slow_source().await;
    source.behave(Conduct::slow(4 << 20));
    let peer = network.peer(1).unwrap();
    let said = peer.ctl(["--json", "fetch", "lento.bin"]).await.unwrap().ok().unwrap();
    let text = said.text();
    let steps: Vec<Transfer> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(steps.len() > 2, "{text}");
    assert!(steps.is_sorted_by_key(|step| step.done_bytes), "{text}");
    let last = steps.last().unwrap();
    assert_eq!((last.state, last.content.as_deref()), (TransferState::Done, Some(hash.to_string().as_str())));
    assert_eq!(last.path.as_deref(), peer.shared("lento.bin").canonicalize().unwrap().to_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_an_answer_comes_from_is_said() {
    let network = Network::builder().peers(2).files(|_, shared| write_file(&shared.join("a.txt"), "a"));
    let network = network.start().await.unwrap();
    let answer: p2p_proto::control::LocateAnswer =
        network.peer(1).unwrap().ctl_json(&["locate", "a.txt"]).await.unwrap();
    let origins: Vec<Origin> = answer.candidates[0].sources.iter().map(|source| source.origin).collect();
    assert_eq!(origins, [Origin::Own, Origin::Maestro]);
}

//! A peer with several maestros: of one directory, where one is told and the others are in reserve; and of networks of their
//! own, where all are told and asked.

// Helpers of tests are no tests to clippy: a test that cannot go on fails right there.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use p2p_proto::control::{FileList, JoinAnswer, LocateAnswer, MaestroState, Origin, Status, TreeAnswer};
use p2p_tests::{Network, Peer, eventually, write_file};

const SOON: Duration = Duration::from_secs(30);
const STOPS_WITHIN: Duration = Duration::from_secs(5);

fn nothing(_: &mut p2p_tests::Settings, _: &Path) -> Result<()> {
    Ok(())
}

/// Another maestro with the identity of the first one.
async fn add_sibling(network: &mut Network) -> String {
    let key = fs::read(network.dir().join("maestro/identity.key")).unwrap();
    let sibling = network.add_maestro(|_, dir| {
        let path = dir.join("identity.key");
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        Ok(file.write_all(&key)?)
    });
    sibling.await.unwrap().address()
}

async fn states(peer: &Peer) -> Result<Vec<MaestroState>> {
    let status: Status = peer.ctl_json(&["status"]).await?;
    Ok(status.maestros.iter().map(|maestro| maestro.state).collect())
}

async fn states_become(peer: &Peer, expected: &[MaestroState]) {
    eventually(SOON, &format!("the maestros are {expected:?}"), async || {
        let states = states(peer).await?;
        ensure!(states == expected, "{states:?}");
        Ok(())
    })
    .await
    .unwrap();
}

async fn names(peer: &Peer) -> Vec<String> {
    let list: FileList = peer.ctl_json(&["list", "--all"]).await.unwrap();
    assert_eq!(list.incomplete, None);
    list.files.into_iter().map(|file| file.name).collect()
}

/// Who has it, as the maestros say; what is only remembered is left out.
async fn located(peer: &Peer, what: &str) -> BTreeSet<String> {
    let said = peer.ctl(["locate", what, "--json"]).await.unwrap();
    let answer: LocateAnswer = said.json().unwrap();
    let sources = answer.candidates.into_iter().flat_map(|candidate| candidate.sources);
    let told = sources.filter(|source| matches!(source.origin, Origin::Own | Origin::Maestro));
    told.map(|source| source.peer.name).collect()
}

/// Starts the peer again with these maestros in its configuration.
async fn give_maestros(peer: &mut Peer, maestros: &[&str]) {
    let maestros: Vec<String> = maestros.iter().map(|&address| address.to_owned()).collect();
    peer.edit(|settings| {
        settings.set("maestro", maestros);
    })
    .unwrap();
    peer.daemon_mut().terminate(STOPS_WITHIN).await.unwrap();
    peer.daemon_mut().restart().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_one_directory_the_next_maestro_takes_over_at_once() {
    use MaestroState::{InSync, Reserve, Unreachable};
    let builder = Network::builder().peers(2).files(|number, shared| match number {
        1 => write_file(&shared.join("a.txt"), "a"),
        _ => Ok(()),
    });
    let mut network = builder.start().await.unwrap();
    let sibling = add_sibling(&mut network).await;
    let first = network.maestro().unwrap().address();
    for number in 1..=2 {
        give_maestros(network.peer_mut(number).unwrap(), &[&first, &sibling]).await;
        eventually(SOON, "one is in use, and one in reserve", async || {
            let states: BTreeSet<String> =
                states(network.peer(number)?).await?.iter().map(|state| format!("{state:?}")).collect();
            ensure!(states == ["InSync", "Reserve"].map(str::to_owned).into(), "{states:?}");
            Ok(())
        })
        .await
        .unwrap();
    }

    // Whichever they use, both end up with the one that is left.
    network.maestro_mut().unwrap().daemon_mut().kill_9().await.unwrap();
    for number in 1..=2 {
        states_become(network.peer(number).unwrap(), &[Unreachable, InSync]).await;
    }
    let asking = network.peer(2).unwrap();
    eventually(SOON, "the other one knows who has it", async || {
        let found = located(asking, "a.txt").await;
        ensure!(found == ["P1".to_owned()].into(), "{found:?}");
        Ok(())
    })
    .await
    .unwrap();
    network.maestro_mut().unwrap().daemon_mut().restart().await.unwrap();
    states_become(network.peer(2).unwrap(), &[Reserve, InSync]).await;
    network.more_maestros_mut()[0].daemon_mut().kill_9().await.unwrap();
    states_become(network.peer(2).unwrap(), &[InSync, Unreachable]).await;
    let doctor = network.peer(2).unwrap().ctl(["doctor"]).await.unwrap();
    assert!(doctor.text().contains("another one of its network serves this peer"), "{}", doctor.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_stream_moves_every_question_is_answered() {
    let builder = Network::builder().peers(2).files(|number, shared| match number {
        1 => write_file(&shared.join("a.txt"), "a"),
        _ => Ok(()),
    });
    let mut network = builder.start().await.unwrap();
    let sibling = add_sibling(&mut network).await;
    let first = network.maestro().unwrap().address();
    for number in 1..=2 {
        give_maestros(network.peer_mut(number).unwrap(), &[&first, &sibling]).await;
    }
    // Two databases: both are told by making each the only one once.
    network.maestro_mut().unwrap().daemon_mut().kill_9().await.unwrap();
    states_become(network.peer(1).unwrap(), &[MaestroState::Unreachable, MaestroState::InSync]).await;
    network.maestro_mut().unwrap().daemon_mut().restart().await.unwrap();
    for number in 1..=2 {
        states_become(network.peer(number).unwrap(), &[MaestroState::Reserve, MaestroState::InSync]).await;
    }
    network.more_maestros_mut()[0].daemon_mut().kill_9().await.unwrap();
    let asking = network.peer(2).unwrap();
    for _ in 0..20 {
        let answer: LocateAnswer = asking.ctl_json(&["locate", "a.txt"]).await.unwrap();
        assert_eq!((answer.incomplete, answer.candidates.len()), (None, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn independent_maestros_are_both_told_and_both_asked() {
    let mut network = Network::builder().start().await.unwrap();
    let first = network.maestro().unwrap().address();
    let second = network.add_maestro(nothing).await.unwrap().address();
    let rests = [network.maestro().unwrap().rest().unwrap(), network.more_maestros()[0].rest().unwrap()];
    // P1 knows the first one, P2 the second, and P3 both.
    for maestros in [vec![first.clone()], vec![second.clone()], vec![first.clone(), second.clone()]] {
        let edit = |settings: &mut p2p_tests::Settings| {
            settings.set("maestro", maestros);
        };
        network.add_peer(edit).await.unwrap();
    }
    for number in 1..=3 {
        let peer = network.peer(number).unwrap();
        peer.write(&format!("d/{number}.txt"), format!("{number}")).unwrap();
        peer.write("same.txt", "same").unwrap();
        peer.ctl(["refresh"]).await.unwrap().ok().unwrap();
    }
    let both = network.peer(3).unwrap();
    states_become(both, &[MaestroState::InSync, MaestroState::InSync]).await;
    eventually(SOON, "both maestros have P3's files", async || {
        for rest in &rests {
            ensure!(rest.locate("d/3.txt").await?.len() == 1);
        }
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(names(both).await, ["d/1.txt", "d/2.txt", "d/3.txt", "same.txt"]);
    let all = ["P1", "P2", "P3"].map(str::to_owned);
    assert_eq!(located(both, "same.txt").await, all.clone().into());
    // Each serves P3, being a member of its network.
    for what in ["d/1.txt", "d/2.txt"] {
        both.ctl(["fetch", what]).await.unwrap().ok().unwrap();
    }
    for (number, what) in [(1, "d/3.txt"), (2, "d/3.txt")] {
        network.peer(number).unwrap().ctl(["fetch", what]).await.unwrap().ok().unwrap();
    }

    // With one of them gone, the other answers, and what is missing is told.
    network.maestro_mut().unwrap().daemon_mut().kill_9().await.unwrap();
    let both = network.peer(3).unwrap();
    states_become(both, &[MaestroState::Unreachable, MaestroState::InSync]).await;
    let answer: LocateAnswer = both.ctl_json(&["locate", "same.txt"]).await.unwrap();
    let told = answer.candidates[0].sources.iter().filter(|source| source.origin == Origin::Maestro);
    assert_eq!(told.map(|source| source.peer.name.as_str()).collect::<Vec<_>>(), ["P2"]);
    assert!(answer.incomplete.context("it is whole").unwrap().contains(&first));
}

/// More files than one page tells.
const FILES: usize = 2100;

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_fetched_from_the_network_that_answers() {
    let mut network = Network::builder().start().await.unwrap();
    let first = network.maestro().unwrap().address();
    let second = network.add_maestro(nothing).await.unwrap().address();
    let both = vec![first, second.clone()];
    network
        .add_peer(|settings| {
            settings.set("maestro", both);
        })
        .await
        .unwrap();
    states_become(network.peer(1).unwrap(), &[MaestroState::InSync, MaestroState::InSync]).await;
    // P1 has read the list of members before P2 is one: it learns of the files from the maestro alone.
    let source = network
        .add_peer(|settings| {
            settings.set("maestro", second);
        })
        .await
        .unwrap();
    for number in 0..FILES {
        source.write(&format!("d/{number}.txt"), format!("{number}")).unwrap();
    }
    source.ctl(["refresh"]).await.unwrap().ok().unwrap();
    let rest = network.more_maestros()[0].rest().unwrap();
    let last = format!("d/{}.txt", FILES - 1);
    eventually(SOON, "the maestro has the files", async || {
        ensure!(rest.locate(&last).await?.len() == 1);
        Ok(())
    })
    .await
    .unwrap();
    network.maestro_mut().unwrap().daemon_mut().kill_9().await.unwrap();
    let peer = network.peer(1).unwrap();
    states_become(peer, &[MaestroState::Unreachable, MaestroState::InSync]).await;
    let said = peer.ctl(["--json", "fetch", "-r", "d", "--dry-run"]).await.unwrap().exited(8).unwrap();
    let found: TreeAnswer = said.json().unwrap();
    assert_eq!(found.files, u64::try_from(FILES).unwrap());
    let why = found.incomplete.expect("it is told that one network was not asked");
    let said = peer.ctl(["fetch", "-r", "d"]).await.unwrap().exited(8).unwrap();
    assert!(said.stderr.contains(&format!("This may not be all of d/: {why}")), "{}", said.stderr);
    assert_eq!(fs::read_dir(peer.shared("d")).unwrap().count(), FILES);
    let said = peer.ctl(["fetch", "-r", "d"]).await.unwrap().exited(8).unwrap();
    assert!(said.stderr.contains("What is known of d/ is here already"), "{}", said.stderr);
    assert!(!said.stderr.contains("All of"), "{}", said.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn maestros_are_joined_and_left_one_by_one() {
    use MaestroState::{InSync, Reserve};
    let builder = Network::builder().peers(2).peers_with(|_, settings| {
        settings.remove("maestro");
    });
    let mut network = builder.start().await.unwrap();
    let sibling = add_sibling(&mut network).await;
    let other = network.add_maestro(nothing).await.unwrap().address();
    let mut more = Vec::new();
    for _ in 0..2 {
        more.push(network.add_maestro(nothing).await.unwrap().address());
    }
    let (peer, first) = (network.peer(1).unwrap(), network.maestro().unwrap().address());
    let no_maestro = network.peer(2).unwrap().address();
    let said = peer.ctl(["join", first.as_str(), sibling.as_str()]).await.unwrap().ok().unwrap();
    assert!(said.stderr.contains("one directory") && said.stderr.contains(&first), "{}", said.stderr);
    states_become(peer, &[InSync, Reserve]).await;
    let joined: JoinAnswer = peer.ctl_json(&["join", "--also", &other]).await.unwrap();
    assert!(joined.first_contact && joined.same_as.is_none(), "{joined:?}");
    states_become(peer, &[InSync, Reserve, InSync]).await;

    // Several at once: none undoes another one, and one that is refused takes only itself away.
    let join = async |address: &str| peer.ctl(["join", "--also", address]).await.unwrap();
    let (third, fourth, refused) = tokio::join!(join(&more[0]), join(&more[1]), join(&no_maestro));
    third.ok().unwrap();
    fourth.ok().unwrap();
    assert!(refused.stderr.contains("does not answer as a maestro"), "{}", refused.stderr);
    states_become(peer, &[InSync, Reserve, InSync, InSync, InSync]).await;
    for address in &more {
        peer.ctl(["leave", address.as_str()]).await.unwrap().ok().unwrap();
    }
    states_become(peer, &[InSync, Reserve, InSync]).await;

    // The one in use is left, and the one in reserve takes its place.
    peer.ctl(["leave", first.as_str()]).await.unwrap().ok().unwrap();
    states_become(peer, &[InSync, InSync]).await;
    peer.ctl(["leave", first.as_str()]).await.unwrap().exited(3).unwrap();
    // The stream that the one that is left still has says nothing of the one in its place: that one must say Welcome.
    let joined: JoinAnswer = peer.ctl_json(&["join", &first]).await.unwrap();
    assert!(joined.membership_until_ms.is_some() && joined.same_as.is_none(), "{joined:?}");
    // Without --also it is a change of network, as it always was.
    peer.ctl(["join", other.as_str()]).await.unwrap().ok().unwrap();
    states_become(peer, &[InSync]).await;
    peer.ctl(["leave"]).await.unwrap().ok().unwrap();
    states_become(peer, &[]).await;
    // A token is shown to the first one, and to nobody else than its network.
    let said = peer.ctl(["join", first.as_str(), other.as_str(), "--token", "secret"]).await.unwrap();
    assert!(said.exited(5).unwrap().stderr.contains("is not the maestro"));
    states_become(peer, &[InSync]).await;
}

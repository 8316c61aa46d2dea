//! Three maestros on one PostgreSQL behind a list, which die one after the other, and a database that is away for a while:
//! nobody who asks meanwhile is told something false, or nothing.

// Helpers of tests are no tests to clippy: a test that cannot go on fails right there.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use p2p_proto::control::{LocateAnswer, MaestroState, Origin, Status, Transfer};
use p2p_tests::{Ctl, Daemon, Network, PostgresServer, Rest, eventually, programs, write_file};
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_secs(60);
/// Maestros on one database.
const MAESTROS: usize = 3;
/// Peers, all of which have files and are asked.
const PEERS: usize = 4;
/// Who ask at the same time.
const ASKERS: usize = 50;
/// Files of each peer for others to fetch. Each is fetched once: what is here already would move no bytes.
const TO_FETCH: usize = 1500;
/// How long the database is away.
const AWAY: Duration = Duration::from_secs(30);

/// A network of three maestros with one identity on one database, and peers that have all of them in their list, and so many
/// files each for others to fetch.
async fn start(store: &str, to_fetch_each: usize) -> Network {
    let builder = Network::builder().maestro_with(|settings| {
        settings.set("store", store);
    });
    let mut network = builder.start().await.unwrap();
    let key = fs::read(network.dir().join("maestro/identity.key")).unwrap();
    let mut addresses = vec![network.maestro().unwrap().address()];
    for _ in 1..MAESTROS {
        let maestro = network.add_maestro(|settings, dir| {
            settings.set("store", store);
            let path = dir.join("identity.key");
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            Ok(file.write_all(&key)?)
        });
        addresses.push(maestro.await.unwrap().address());
    }
    for number in 1..=PEERS {
        let addresses = addresses.clone();
        let edit = |settings: &mut p2p_tests::Settings| {
            settings.set("maestro", addresses);
        };
        let shared = network.dir().join(format!("P{number}/shared"));
        write_file(&shared.join(format!("{number}.txt")), format!("de P{number}")).unwrap();
        write_file(&shared.join("todos.txt"), "de todos").unwrap();
        for (name, text) in (0..to_fetch_each).map(|file| to_fetch(number, file)) {
            write_file(&shared.join(name), text).unwrap();
        }
        network.add_peer(edit).await.unwrap();
    }
    network.settled().await.unwrap();
    for number in 1..=PEERS {
        is_connected(&network, number, MAESTROS).await;
    }
    network
}

/// Waits until a peer is connected with so many maestros.
async fn is_connected(network: &Network, number: usize, expected: usize) {
    let connected = [MaestroState::InSync, MaestroState::Syncing, MaestroState::Reserve];
    eventually(SOON, &format!("P{number} is connected with {expected} maestros"), async || {
        let status: Status = network.peer(number)?.ctl_json(&["status"]).await?;
        let there = status.maestros.iter().filter(|maestro| connected.contains(&maestro.state)).count();
        ensure!(there >= expected, "{:?}", status.maestros);
        Ok(())
    })
    .await
    .unwrap();
}

/// Waits until a peer's catalog is known to one of its maestros.
async fn in_sync(network: &Network, number: usize) {
    eventually(SOON, &format!("P{number} is in sync"), async || {
        let status: Status = network.peer(number)?.ctl_json(&["status"]).await?;
        let is_told = status.maestros.iter().any(|maestro| maestro.state == MaestroState::InSync);
        ensure!(is_told, "{:?}", status.maestros);
        Ok(())
    })
    .await
    .unwrap();
}

/// The process of a maestro, from 0.
fn maestro(network: &mut Network, number: usize) -> &mut Daemon {
    match number {
        0 => network.maestro_mut().unwrap().daemon_mut(),
        more => network.more_maestros_mut()[more - 1].daemon_mut(),
    }
}

async fn says(rest: &Rest, metric: &str) -> bool {
    let metrics = rest.get("/metrics").await.unwrap();
    metrics.text.lines().any(|line| line == metric)
}

/// Which of the files that nobody has fetched yet is next, of each peer that has some.
#[derive(Default)]
struct Unfetched([AtomicUsize; PEERS + 1]);

impl Unfetched {
    /// A file of this peer: its name and what is in it.
    fn next(&self, holder: usize) -> Result<(String, String)> {
        let number = self.0[holder].fetch_add(1, Ordering::Relaxed);
        ensure!(
            number < TO_FETCH,
            "P{holder} has only {TO_FETCH} files to fetch: this test wants more of them"
        );
        Ok(to_fetch(holder, number))
    }
}

/// One of the files that a peer alone has, each with bytes of its own.
fn to_fetch(holder: usize, number: usize) -> (String, String) {
    (format!("pedidos/{holder}-{number}.txt"), format!("{number} de P{holder}"))
}

/// One of those who ask: the peer that it asks, and how.
struct Asker {
    peer: usize,
    ctl: Ctl,
    out: PathBuf,
    unfetched: Arc<Unfetched>,
}

impl Asker {
    /// Asks once, by name, for what all have or for what one has, or fetches what one has and nobody fetched before.
    /// What is asked and of whom go round apart from each other.
    async fn ask(&self, turn: usize) -> Result<()> {
        let holder = turn / 3 % PEERS + 1;
        match turn % 3 {
            0 => self.locate("todos.txt", (1..=PEERS).map(|number| format!("P{number}")).collect()).await,
            1 => self.locate(&format!("{holder}.txt"), [format!("P{holder}")].into()).await,
            _ if holder == self.peer => self.fetch(holder % PEERS + 1).await,
            _ => self.fetch(holder).await,
        }
    }

    async fn locate(&self, what: &str, expected: BTreeSet<String>) -> Result<()> {
        let answer: LocateAnswer = self.ctl.run(["locate", "--json", what]).await?.ok()?.json()?;
        if let Some(why) = answer.incomplete {
            bail!("{what}: not all could be asked: {why}");
        }
        ensure!(answer.candidates.len() == 1, "{what}: {:?}", answer.candidates);
        let sources = answer.candidates.into_iter().flat_map(|candidate| candidate.sources);
        let found: BTreeSet<String> = sources.map(|source| source.peer.name).collect();
        ensure!(found == expected, "{what}: {found:?}, and not {expected:?}");
        Ok(())
    }

    async fn fetch(&self, holder: usize) -> Result<()> {
        let (name, expected) = self.unfetched.next(holder)?;
        let copy = self.out.join(name.replace('/', "-"));
        let arguments = ["--json", "fetch", &name, "-o", &copy.display().to_string()];
        let transfer: Transfer = self.ctl.run(arguments).await?.ok()?.json()?;
        let got = fs::read_to_string(&copy).with_context(|| copy.display().to_string())?;
        ensure!(got == expected, "{name} is {got:?}");
        let came: Vec<_> =
            transfer.sources.iter().map(|source| (source.peer.name.as_str(), source.bytes)).collect();
        ensure!(
            came == [(format!("P{holder}").as_str(), expected.len() as u64)],
            "{name} came from {came:?}"
        );
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run with cargo xtask test-large"]
async fn maestros_die_in_turn_and_nobody_notices() {
    let server = tokio::task::spawn_blocking(PostgresServer::start).await.unwrap().unwrap();
    let mut network = start(&server.create_database("failover").unwrap(), TO_FETCH).await;
    let out = network.dir().join("out");
    fs::create_dir(&out).unwrap();
    let (stop, unfetched) = (CancellationToken::new(), Arc::new(Unfetched::default()));
    let loops: Vec<_> = (0..ASKERS)
        .map(|number| {
            let asked = network.peer(number % PEERS + 1).unwrap();
            let ctl = Ctl::new(&programs().unwrap().p2pctl, Path::new(asked.socket()), asked.dir());
            let (out, unfetched, stop) = (out.clone(), Arc::clone(&unfetched), stop.clone());
            let asker = Asker { peer: number % PEERS + 1, ctl, out, unfetched };
            tokio::spawn(async move {
                let mut asked = 0;
                while !stop.is_cancelled() {
                    // Not all the same at the same time.
                    asker.ask(number + asked).await?;
                    asked += 1;
                }
                anyhow::Ok(asked)
            })
        })
        .collect();
    for turn in 0..MAESTROS {
        maestro(&mut network, turn).kill_9().await.unwrap();
        for number in 1..=PEERS {
            in_sync(&network, number).await;
        }
        // Longer than the others need to see that it is gone, and than a lease would last.
        eventually(SOON, "the peers of the dead one are still shown by the others", async || {
            let rest = match turn {
                0 => network.more_maestros()[0].rest()?,
                _ => network.maestro()?.rest()?,
            };
            let shown = rest.locate("todos.txt").await?.len();
            ensure!(shown == PEERS, "{shown} of {PEERS}");
            Ok(())
        })
        .await
        .unwrap();
        maestro(&mut network, turn).restart().await.unwrap();
        for number in 1..=PEERS {
            is_connected(&network, number, MAESTROS).await;
        }
    }
    stop.cancel();
    let mut asked = 0;
    for ended in loops {
        asked += ended.await.unwrap().unwrap();
    }
    // Everybody has asked each question, and for what each peer has.
    assert!(asked > ASKERS * 3 * PEERS, "{asked}");
    let fetched = unfetched.0.iter().map(|next| next.load(Ordering::Relaxed));
    assert!(fetched.skip(1).all(|fetched| fetched > ASKERS / PEERS), "{:?}", unfetched.0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run with cargo xtask test-large"]
async fn peers_of_a_maestro_that_died_are_hidden_if_they_do_not_come_back() {
    let server = tokio::task::spawn_blocking(PostgresServer::start).await.unwrap().unwrap();
    let mut network = start(&server.create_database("gone").unwrap(), 0).await;
    // Its stream is at one of them; both end in the same moment.
    let held = network.peer(1).unwrap().ctl_json::<Status>(&["status"]).await.unwrap();
    let at = held.maestros.iter().position(|maestro| maestro.state == MaestroState::InSync).unwrap();
    network.peer_mut(1).unwrap().daemon_mut().kill_9().await.unwrap();
    maestro(&mut network, at).kill_9().await.unwrap();
    let rest = match at {
        0 => network.more_maestros()[0].rest().unwrap(),
        _ => network.maestro().unwrap().rest().unwrap(),
    };
    assert_eq!(rest.locate("1.txt").await.unwrap().len(), 1, "not before its lease ends");
    eventually(SOON, "P1 is hidden, and nobody else", async || {
        ensure!(rest.locate("1.txt").await?.is_empty());
        ensure!(rest.locate("todos.txt").await?.len() == PEERS - 1);
        Ok(())
    })
    .await
    .unwrap();
    // It comes back to another one, and is shown within a second.
    network.peer_mut(1).unwrap().daemon_mut().restart().await.unwrap();
    in_sync(&network, 1).await;
    eventually(Duration::from_secs(1), "P1 is shown", async || {
        ensure!(rest.locate("1.txt").await?.len() == 1);
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run with cargo xtask test-large"]
async fn while_the_database_is_away_maestros_say_so_and_peers_help_themselves() {
    let server = tokio::task::spawn_blocking(PostgresServer::start).await.unwrap().unwrap();
    let store = server.create_database("away").unwrap();
    let (mut server, network) = (server, start(&store, TO_FETCH).await);
    let asking = network.peer(PEERS).unwrap();
    let friend = network.peer(2).unwrap();
    for (here, there) in [(asking, friend), (friend, asking)] {
        here.ctl(["friends", "add", &there.address(), "--id", there.id()]).await.unwrap().ok().unwrap();
    }
    let members = asking.state("members.json");
    eventually(SOON, "P4 remembers the others", async || {
        let known = fs::read_to_string(&members)?;
        ensure!((1..PEERS).all(|number| known.contains(&format!("\"P{number}\""))), "{known}");
        Ok(())
    })
    .await
    .unwrap();

    let away = Instant::now();
    server.stop().unwrap();
    let maestros: Vec<_> = [network.maestro().unwrap()].into_iter().chain(network.more_maestros()).collect();
    let all: Vec<Rest> = maestros.iter().map(|maestro| maestro.rest().unwrap()).collect();
    let out = network.dir().join("out");
    fs::create_dir(&out).unwrap();
    let mut turn = 0;
    // A file each time, and on a machine that is fast they would come to an end before the database is back.
    let mut pace = tokio::time::interval(2 * AWAY / TO_FETCH as u32);
    while away.elapsed() < AWAY {
        pace.tick().await;
        for rest in &all {
            for path in ["/locate?file=todos.txt", "/"] {
                let answer = rest.get(path).await.unwrap();
                assert_eq!((answer.status, answer.code()), (503, "directory-unavailable"), "{answer:?}");
                assert!(answer.retry_after.is_some_and(|secs| (1..=60).contains(&secs)), "{answer:?}");
            }
            assert!(says(rest, "maestrod_database_reachable 0").await);
        }
        // Others know it all the same: whom it remembers, and friends.
        for (file, origin) in [("1.txt", Origin::Cache), ("2.txt", Origin::Friend)] {
            let answer: LocateAnswer = asking.ctl_json(&["locate", file]).await.unwrap();
            assert_eq!(answer.candidates[0].sources[0].origin, origin, "{file}");
            assert!(answer.incomplete.is_some());
        }
        let (copy, (name, expected)) = (out.join(format!("{turn}.txt")), to_fetch(3, turn));
        asking.ctl(["fetch", &name, "-o", copy.to_str().unwrap()]).await.unwrap().ok().unwrap();
        assert_eq!(fs::read_to_string(copy).unwrap(), expected);
        turn += 1;
    }
    for maestro in &maestros {
        let log = maestro.daemon().log();
        assert!(log.contains("ERROR") && log.contains("cannot be reached"), "{log}");
    }
    let rest = &all[0];

    server.start_again().unwrap();
    eventually(SOON, "all is as it was", async || {
        let answer: LocateAnswer = asking.ctl_json(&["locate", "todos.txt"]).await?;
        ensure!(answer.incomplete.is_none(), "{:?}", answer.incomplete);
        ensure!(answer.candidates[0].sources.len() == PEERS, "{answer:?}");
        for rest in &all {
            ensure!(rest.get("/").await?.status == 200 && says(rest, "maestrod_database_reachable 1").await);
            ensure!(rest.locate("todos.txt").await?.len() == PEERS);
        }
        Ok(())
    })
    .await
    .unwrap();
    // Nobody is taken for gone for having been silent with all the others.
    let until = Instant::now() + Duration::from_secs(30);
    while Instant::now() < until {
        assert_eq!(rest.locate("todos.txt").await.unwrap().len(), PEERS);
    }
}

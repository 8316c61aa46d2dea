//! The walk: every flow of the first system's test script, as commands and answers.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use p2p_content::ContentHash;
use p2p_tests::{Network, Peer, Rest, Said, eventually, programs};
use serde_json::{Value, json};

use super::screen::Screen;

/// How long a change may take until the maestro shows it.
const SHOWS_WITHIN: Duration = Duration::from_secs(5);
const STOPS_WITHIN: Duration = Duration::from_secs(5);

/// Walks, and says how many checks it made.
///
/// # Errors
/// The first answer that is not what it should be.
pub(crate) async fn walk(network: &mut Network, screen: &Screen) -> Result<u32> {
    let mut steps = Steps { screen, checks: 0 };
    steps.status(network).await?;
    steps.peers_and_files(network).await?;
    steps.locate(network).await?;
    steps.download(network).await?;
    steps.without_the_maestro(network).await?;
    steps.upload(network).await?;
    Ok(steps.checks)
}

struct Steps<'a> {
    screen: &'a Screen,
    checks: u32,
}

impl Steps<'_> {
    async fn status(&mut self, network: &Network) -> Result<()> {
        self.screen.title("Status: who is running");
        let root = self.get(&network.maestro()?.rest()?, "/").await?;
        self.check("the maestro is active and has three peers", {
            root["message"] == "Servidor Maestro P2P" && root["peers_registrados"] == 3
        })?;
        for peer in network.peers() {
            let root = self.get(&peer.rest()?, "/").await?;
            let expected =
                json!({"message": format!("Peer {}", peer.name()), "status": "activo", "archivos": 1});
            let as_expected = ["message", "status", "archivos"].iter().all(|key| root[key] == expected[key]);
            self.check(&format!("{} is active and shares one file", peer.name()), as_expected)?;
        }
        let said = self.p2pctl(network.peer(1)?, &["status"]).await?;
        self.check("P1 is in sync with its maestro", said.text().contains("in sync"))
    }

    async fn peers_and_files(&mut self, network: &Network) -> Result<()> {
        self.screen.title("Peers, and the files of each");
        let maestro = network.maestro()?.rest()?;
        let peers = self.get(&maestro, "/peers").await?;
        self.check("three peers are listed", peers["peers"].as_array().map(Vec::len) == Some(3))?;
        let directory = self.get(&maestro, "/directory").await?;
        let names: Vec<&String> =
            directory["directory"].as_object().context("no directory")?.keys().collect();
        self.check(
            "the directory has the three files",
            names == ["archivo1.txt", "archivo2.txt", "archivo3.txt"],
        )?;
        for (number, peer) in (1..).zip(network.peers()) {
            let files = self.get(&peer.rest()?, "/files").await?;
            let own = json!([format!("archivo{number}.txt")]);
            self.check(&format!("{} has its own file", peer.name()), files["files"] == own)?;
        }
        let said = self.p2pctl(network.peer(1)?, &["list", "--all"]).await?;
        let all = names.iter().all(|name| said.text().contains(name.as_str()));
        self.check("p2pctl shows the files of the whole network", all)?;
        self.p2pctl(network.peer(1)?, &["peers"]).await.map(drop)
    }

    async fn locate(&mut self, network: &Network) -> Result<()> {
        self.screen.title("Locate a file through the maestro");
        let located = self.get(&network.maestro()?.rest()?, "/locate?file=archivo2.txt").await?;
        self.check("P2 has it", is_at(&located, network.peer(2)?))?;
        let nobody = self.get(&network.maestro()?.rest()?, "/locate?file=no-existe.txt").await?;
        self.check("a file that nobody has is nowhere", nobody["peers"] == json!([]))?;

        self.screen.title("Locate a file through a peer");
        let rest = network.peer(1)?.rest()?;
        let own = self.get(&rest, "/locate?file=archivo1.txt").await?;
        self.check("P1 names itself first", is_at(&own, network.peer(1)?))?;
        let other = self.get(&rest, "/locate?file=archivo3.txt").await?;
        self.check("P1 asks the maestro, which names P3", is_at(&other, network.peer(3)?))?;
        let said = self.p2pctl(network.peer(1)?, &["locate", "archivo3.txt"]).await?;
        self.check("p2pctl says the same", said.text().contains("P3"))
    }

    async fn download(&mut self, network: &Network) -> Result<()> {
        self.screen.title("Download a file, each piece proven");
        let peer = network.peer(1)?;
        let said = self.p2pctl(peer, &["fetch", "archivo3.txt"]).await?;
        let there = network.peer(3)?.hash_of("archivo3.txt")?;
        self.check("it arrived with the hash that it has at P3", peer.hash_of("archivo3.txt")? == there)?;
        self.check(
            "the hash that was printed is that of the bytes",
            said.text().contains(&there.to_string()),
        )?;
        let maestro = network.maestro()?.rest()?;
        let both = self.shows(&maestro, "archivo3.txt", "P1 and P3 have it now", |located| {
            is_at(located, peer) && network.peer(3).is_ok_and(|other| is_at(located, other))
        });
        both.await?;
        let said = self.p2pctl(peer, &["fetch", "archivo2.txt", "--from", "P2", "-o", "-"]).await?;
        let file = fs::read(network.peer(2)?.shared("archivo2.txt"))?;
        self.check("from one peer by name, to standard output", said.stdout == file)?;
        self.p2pctl(peer, &["transfers"]).await.map(drop)
    }

    async fn without_the_maestro(&mut self, network: &mut Network) -> Result<()> {
        self.screen.title("Friends answer while the maestro is stopped");
        for (here, there) in [(2, 3), (3, 2)] {
            let address = network.peer(there)?.address();
            self.p2pctl(network.peer(here)?, &["friends", "add", &address]).await?;
        }
        let maestro = network.maestro_mut()?.daemon_mut();
        self.screen.command(&format!("kill {}   # the maestro", maestro.pid()?));
        let ended = maestro.terminate(STOPS_WITHIN).await?;
        self.check("the maestro stopped cleanly", ended.status.success())?;
        let (peer, friend) = (network.peer(2)?, network.peer(3)?);
        let located = self.get(&peer.rest()?, "/locate?file=archivo3.txt").await?;
        self.check("P2 finds it at its friend", is_at(&located, friend))?;
        self.p2pctl(peer, &["fetch", "archivo3.txt"]).await?;
        let there = friend.hash_of("archivo3.txt")?;
        self.check("and fetches it from there", peer.hash_of("archivo3.txt")? == there)?;

        self.screen.command("maestrod --config maestro.toml &");
        network.maestro_mut()?.daemon_mut().restart().await?;
        network.settled().await?;
        let maestro = network.maestro()?.rest()?;
        let peer = network.peer(2)?;
        let back = self.shows(
            &maestro,
            "archivo3.txt",
            "the maestro is back, and knows what was fetched",
            |located| is_at(located, peer),
        );
        back.await
    }

    async fn upload(&mut self, network: &Network) -> Result<()> {
        self.screen.title("Upload a file to a peer; the directory shows it unasked");
        let (maestro, peer) = (network.maestro()?.rest()?, network.peer(3)?);
        let text = "Un archivo que alguien subió a P3.\n";
        fs::write(network.dir().join("subido.txt"), text)?;
        let rest = peer.rest()?;
        let path = "/upload?filename=subido.txt";
        self.screen.command(&format!("curl --data-binary @subido.txt '{}{path}'", rest.base()));
        let answer = rest.post_bytes(path, text).await?.ok()?;
        self.screen.json(&answer);
        self.check("P3 has it", peer.hash_of("subido.txt")? == ContentHash::of(text.as_bytes()))?;
        self.shows(&maestro, "subido.txt", "the maestro says that P3 has it", |located| is_at(located, peer))
            .await?;

        let (sender, receiver) = (network.peer(1)?, network.peer(2)?);
        let file = network.dir().join("regalo.txt");
        fs::write(&file, "De P1 para P2.\n")?;
        self.p2pctl(sender, &["send", &file.to_string_lossy(), "P2"]).await?;
        self.check("P2 has what P1 sent", receiver.shared("regalo.txt").exists())?;
        let shows = "the maestro says that P2 has it";
        self.shows(&maestro, "regalo.txt", shows, |located| is_at(located, receiver)).await?;

        fs::write(receiver.shared("nuevo.txt"), "Copiado al directorio compartido.\n")?;
        self.screen.command(&format!("cp nuevo.txt {}/", receiver.shared("").display()));
        let shows = "a file that is copied into a share shows by itself";
        self.shows(&maestro, "nuevo.txt", shows, |located| is_at(located, receiver)).await?;
        fs::remove_file(receiver.shared("nuevo.txt"))?;
        self.screen.command(&format!("rm {}", receiver.shared("nuevo.txt").display()));
        let gone = |located: &Value| located["peers"] == json!([]);
        self.shows(&maestro, "nuevo.txt", "and is gone when it is removed", gone).await
    }

    /// `GET` as curl does it.
    async fn get(&self, rest: &Rest, path: &str) -> Result<Value> {
        let url = format!("{}{path}", rest.base());
        self.screen.command(&format!("curl {}", if path.contains('?') { format!("'{url}'") } else { url }));
        let answer = rest.get(path).await?.ok()?;
        self.screen.json(&answer);
        Ok(answer)
    }

    /// Waits until the maestro's `/locate` is right, and shows its answer.
    async fn shows(
        &mut self,
        maestro: &Rest,
        file: &str,
        what: &str,
        right: impl Fn(&Value) -> bool,
    ) -> Result<()> {
        let path = format!("/locate?file={file}");
        eventually(SHOWS_WITHIN, what, async || {
            let located = maestro.get(&path).await?.ok()?;
            ensure!(right(&located), "{located}");
            Ok(())
        })
        .await?;
        let located = self.get(maestro, &path).await?;
        self.check(what, right(&located))
    }

    /// `p2pctl`, which must succeed.
    async fn p2pctl(&self, peer: &Peer, arguments: &[&str]) -> Result<Said> {
        self.screen.command(&format!("{} {}", p2pctl(peer)?, arguments.join(" ")));
        let said = peer.ctl(arguments).await?.ok()?;
        self.screen.answer(&said.text());
        if !said.stderr.trim().is_empty() {
            self.screen.answer(&said.stderr);
        }
        Ok(said)
    }

    fn check(&mut self, what: &str, is_so: bool) -> Result<()> {
        ensure!(is_so, "this is not so: {what}");
        self.screen.check(what);
        self.checks += 1;
        Ok(())
    }
}

/// `p2pctl` for this peer, as a user would type it here.
pub(crate) fn p2pctl(peer: &Peer) -> Result<String> {
    let program = &programs()?.p2pctl;
    let here = std::env::current_dir().unwrap_or_default();
    let program = program.strip_prefix(here).unwrap_or(program);
    Ok(format!("{} --socket {}", program.display(), peer.socket()))
}

fn is_at(located: &Value, peer: &Peer) -> bool {
    let port = json!(peer.daemon().ready().grpc.port());
    located["peers"].as_array().is_some_and(|peers| peers.iter().any(|row| row["grpc_port"] == port))
}

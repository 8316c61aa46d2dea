//! A maestrod of its own process, whose memory can be told from the test's.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use p2p_identity::PeerId;
use p2p_proto::v1::directory_client::DirectoryClient;
use p2p_service::wire;
use tempfile::TempDir;
use tonic::transport::Channel;

use super::Peer;

/// A maestrod that runs; it ends with the value.
pub(crate) struct Process {
    child: Child,
    pub(crate) id: PeerId,
    pub(crate) rest: String,
    pub(crate) grpc: String,
    _dir: TempDir,
}

impl Process {
    pub(crate) fn start() -> Process {
        let dir = TempDir::new().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_maestrod"))
            .args(["--rest-listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0", "--state-dir"])
            .arg(dir.path().join("state"))
            .env_remove("NOTIFY_SOCKET")
            .env_remove("P2P_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let ready = log.find_map(|line| {
            let line = line.unwrap();
            let (_, told) = line.split_once("is ready: maestro ")?;
            let [id, rest, grpc]: [&str; 3] = told.split(", ").collect::<Vec<_>>().try_into().unwrap();
            let after = |text: &str, word| text.strip_prefix(word).unwrap().to_owned();
            Some((id.parse().unwrap(), after(rest, "REST on "), after(grpc, "gRPC on ")))
        });
        let (id, rest, grpc) = ready.expect("it did not start");
        // Nobody waits for a log that is not read.
        std::thread::spawn(move || log.for_each(drop));
        Process { child, id, rest, grpc, _dir: dir }
    }

    pub(crate) async fn connect(&self, peer: &Peer) -> DirectoryClient<Channel> {
        let addresses = [self.grpc.clone()];
        let connection = wire::connect(&peer.identity, &addresses, Some(self.id)).await.unwrap();
        DirectoryClient::new(connection.channel)
    }

    /// Memory that is the process's alone, in MiB.
    pub(crate) fn private_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
    }

    /// Names of the peers that `/locate` answers with.
    pub(crate) async fn who_has(&self, file: &str) -> Vec<String> {
        let url = format!("http://{}/locate?file={}", self.rest, file.replace(' ', "%20"));
        let located: serde_json::Value = reqwest::get(url).await.unwrap().json().await.unwrap();
        let peers = located["peers"].as_array().unwrap().iter();
        peers.map(|peer| peer["name"].as_str().unwrap().to_owned()).collect()
    }

    /// How many names `/files` answers with for a peer.
    pub(crate) async fn names_of(&self, peer: &Peer) -> usize {
        let url = format!("http://{}/files?peer={}&limit=10000", self.rest, peer.id());
        let answer = reqwest::get(url).await.unwrap();
        assert_eq!(answer.status(), 200);
        let listed: serde_json::Value = answer.json().await.unwrap();
        listed["files"].as_array().unwrap().len()
    }

    /// How long a reader waits for an answer.
    pub(crate) async fn answers_in(&self) -> Duration {
        let began = Instant::now();
        let url = format!("http://{}/locate?file=a", self.rest);
        assert_eq!(reqwest::Client::new().get(url).send().await.unwrap().status(), 200);
        began.elapsed()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! syncthing to syncthing, over TLS on the loopback.
//!
//! A run is what its user waits for: a file appears in a folder, is told to be looked for, and is in the folder of the other.
//! So its time has the hashing of the file in it, which this project's programs do when a file appears, before anyone asks.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use p2p_tests::{as_soon_as, eventually};
use reqwest::Client;

use super::Site;
use crate::child::{self, Daemon, free_address};
use crate::contest::Contestant;
use crate::gauge::Side;
use crate::ours::RUN;
use crate::product::Product;
use crate::tools;

/// How long a small thing may take: making a key, connecting, deleting a file.
const SOON: Duration = Duration::from_secs(60);
/// The key of the REST interfaces, which only this process calls.
const API_KEY: &str = "bench";
/// What the folder is called.
const FOLDER: &str = "bench";

/// Two that keep a folder the same.
pub(super) struct Syncthing<'a> {
    site: Site<'a>,
    client: Client,
    sender: Device,
    receiver: Device,
    daemons: Vec<(Side, Daemon)>,
}

struct Device {
    id: String,
    home: PathBuf,
    folder: PathBuf,
    listen: SocketAddr,
    gui: SocketAddr,
}

/// Starts both, and waits until they are connected.
pub(super) async fn start(site: Site<'_>) -> Result<Syncthing<'_>> {
    let (sender, receiver) = (device(site, "sender").await?, device(site, "receiver").await?);
    let mut daemons = Vec::new();
    for (side, device) in [(Side::Sends, &sender), (Side::Receives, &receiver)] {
        fs::write(device.home.join("config.xml"), configuration(device, &[&sender, &receiver]))?;
        let mut command = site.tools.command(tools::SYNCTHING)?;
        command.args(["serve", "--no-browser", "--no-restart", "--home"]).arg(&device.home);
        command.env("HOME", site.dir).env("STNOUPGRADE", "1");
        let name = format!("syncthing-{}", device.gui.port());
        let mut daemon = Daemon::start(&name, &mut command, site.dir)?;
        daemon.listens(device.gui).await?;
        daemons.push((side, daemon));
    }
    let client = Client::builder().timeout(RUN).build()?;
    let both = Syncthing { site, client, sender, receiver, daemons };
    eventually(SOON, "the two syncthings are connected", async || {
        let said = both.call(reqwest::Method::GET, &both.receiver, "system/connections").await?;
        let said: serde_json::Value = serde_json::from_str(&said)?;
        ensure!(said["connections"][&both.sender.id]["connected"] == true, "{said}");
        Ok(())
    })
    .await?;
    Ok(both)
}

impl Syncthing<'_> {
    async fn call(&self, method: reqwest::Method, device: &Device, path: &str) -> Result<String> {
        let url = format!("http://{}/rest/{path}", device.gui);
        let answer = self.client.request(method, &url).header("X-API-Key", API_KEY).send().await?;
        let answer = answer.error_for_status().context("syncthing refuses")?;
        Ok(answer.text().await?)
    }

    async fn scan(&self) -> Result<()> {
        let path = format!("db/scan?folder={FOLDER}");
        self.call(reqwest::Method::POST, &self.sender, &path).await.map(drop)
    }

    fn arrives_at(&self) -> PathBuf {
        self.receiver.folder.join(self.site.name)
    }
}

#[async_trait(?Send)]
impl Contestant for Syncthing<'_> {
    fn name(&self) -> String {
        "syncthing to syncthing, with its scan".to_owned()
    }

    fn members(&self) -> Result<Vec<(Side, u32)>> {
        Ok(self.daemons.iter().map(|(side, daemon)| (*side, daemon.pid())).collect())
    }

    async fn run(&mut self) -> Result<()> {
        fs::hard_link(self.site.source, self.sender.folder.join(self.site.name))?;
        self.scan().await?;
        // It has another name until it is whole.
        as_soon_as(RUN, "syncthing delivers the file", async || {
            ensure!(self.arrives_at().exists(), "it is not there yet");
            Ok(())
        })
        .await
    }

    async fn check(&mut self, thoroughly: bool) -> Result<()> {
        let (path, site) = (self.arrives_at(), self.site);
        Product::File { path, hash: site.hash, len: site.len }.check(thoroughly)?;
        // Both forget it: blocks that are here already would not be sent again.
        fs::remove_file(self.sender.folder.join(site.name))?;
        self.scan().await?;
        eventually(SOON, "syncthing removes the file", async || {
            ensure!(!self.arrives_at().exists(), "it is still there");
            Ok(())
        })
        .await
    }
}

async fn device(site: Site<'_>, name: &str) -> Result<Device> {
    let home = site.dir.join(name);
    let folder = home.join("folder");
    // Without its marker syncthing takes a folder for one that was unmounted.
    fs::create_dir_all(folder.join(".stfolder"))?;
    let mut command = site.tools.command(tools::SYNCTHING)?;
    command.args(["generate", "--home"]).arg(&home).env("HOME", site.dir);
    child::run(&mut command, SOON).await?;
    let config = fs::read_to_string(home.join("config.xml")).context("syncthing generates no config.xml")?;
    let id = id_in(&config).context("there is no device in the config.xml that syncthing generates")?;
    Ok(Device { id: id.to_owned(), home, folder, listen: free_address()?, gui: free_address()? })
}

/// The first device of a configuration: a new one knows only itself.
fn id_in(config: &str) -> Option<&str> {
    // Seven groups of eight letters and digits with hyphens between: the example in a folder's defaults is empty.
    config
        .split("<device id=\"")
        .skip(1)
        .filter_map(|rest| rest.split_once('"'))
        .map(|(id, _)| id)
        .find(|id| id.len() == 63)
}

fn configuration(me: &Device, all: &[&Device]) -> String {
    let folder_devices: String = all.iter().map(|device| format!("<device id=\"{}\"/>", device.id)).collect();
    let devices: String = all
        .iter()
        .map(|device| {
            format!(
                "<device id=\"{}\" name=\"{}\" compression=\"metadata\"><address>tcp://{}</address></device>\n",
                device.id,
                device.listen.port(),
                device.listen
            )
        })
        .collect();
    format!(
        "<configuration version=\"36\">\n\
         <folder id=\"{FOLDER}\" label=\"{FOLDER}\" path=\"{}\" type=\"sendreceive\" rescanIntervalS=\"0\" \
         fsWatcherEnabled=\"false\">{folder_devices}</folder>\n{devices}\
         <gui enabled=\"true\" tls=\"false\"><address>{}</address><apikey>{API_KEY}</apikey></gui>\n\
         <options><listenAddress>tcp://{}</listenAddress><globalAnnounceEnabled>false</globalAnnounceEnabled>\
         <localAnnounceEnabled>false</localAnnounceEnabled><relaysEnabled>false</relaysEnabled>\
         <natEnabled>false</natEnabled><urAccepted>-1</urAccepted><startBrowser>false</startBrowser>\
         <autoUpgradeIntervalH>0</autoUpgradeIntervalH><crashReportingEnabled>false</crashReportingEnabled>\
         <reconnectionIntervalS>1</reconnectionIntervalS></options>\n</configuration>\n",
        path_text(&me.folder),
        me.gui,
        me.listen
    )
}

fn path_text(path: &Path) -> String {
    path.to_string_lossy().replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_of_a_new_configuration_is_its_own() {
        let id = ["ABCDEFG"; 8].join("-");
        let config = format!("<folder><device id=\"\"></device></folder><device id=\"{id}\" name=\"h\">");
        assert_eq!(id_in(&config), Some(id.as_str()));
        assert_eq!(id_in("<configuration/>"), None);
        assert_eq!(path_text(Path::new("/a&\"b")), "/a&amp;&quot;b");
    }
}

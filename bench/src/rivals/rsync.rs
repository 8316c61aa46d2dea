//! rsync from its daemon: no encryption, whole files.

use std::fs;
use std::path::Path;

use anyhow::Result;

use super::{ByCommand, Site};
use crate::child::{Daemon, free_address};
use crate::gauge::Side;
use crate::product::Product;
use crate::tools;

/// For one file.
pub(super) async fn start(site: Site<'_>) -> Result<ByCommand<'_>> {
    begin(site, site.file(), &["--whole-file"], site.name.to_owned()).await
}

/// For a tree: `-aW`.
pub(super) async fn start_tree(site: Site<'_>) -> Result<ByCommand<'_>> {
    let product = Product::Tree { path: site.out().join(site.name), like: site.source.to_owned() };
    begin(site, product, &["--archive", "--whole-file"], site.name.to_owned()).await
}

async fn begin<'a>(
    site: Site<'a>,
    product: Product,
    options: &'static [&'static str],
    what: String,
) -> Result<ByCommand<'a>> {
    let address = free_address()?;
    let config = site.dir.join("rsyncd.conf");
    let root = site.source.parent().unwrap_or(Path::new("/"));
    fs::write(&config, configuration(site.dir, root))?;
    let mut command = site.tools.command(tools::RSYNC)?;
    command.args([
        "--daemon",
        "--no-detach",
        "--address",
        "127.0.0.1",
        "--port",
        &address.port().to_string(),
    ]);
    command.arg("--config").arg(&config);
    let mut daemon = Daemon::start("rsyncd", &mut command, site.dir)?;
    daemon.listens(address).await?;
    let url = format!("rsync://{address}/bench/{what}");
    let mut to = site.out().into_os_string();
    to.push("/");
    Ok(ByCommand {
        name: "rsync daemon, no encryption".to_owned(),
        daemons: vec![(Side::Sends, daemon)],
        command: Box::new(move || {
            let mut command = site.tools.command(tools::RSYNC)?;
            command.args(options).arg(&url).arg(&to);
            Ok(command)
        }),
        out: Some(site.out()),
        product,
    })
}

/// The daemon reads as the user that runs it: without this, what root starts reads as nobody.
fn configuration(dir: &Path, root: &Path) -> String {
    let user = match rustix::process::getuid().is_root() {
        true => "uid = root\ngid = root\n",
        false => "",
    };
    format!(
        "pid file = {}/rsyncd.pid\nuse chroot = no\n{user}[bench]\n  path = {}\n  read only = yes\n",
        dir.display(),
        root.display()
    )
}

//! A file as a stream of gRPC messages, in Python: how the first system would have done it. Programs in `bench/grpcio`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::process::Command;

use super::{ByCommand, Site};
use crate::child::{self, Daemon, free_address};
use crate::gauge::Side;
use crate::tools;

/// How long installing the two packages may take.
const INSTALL: Duration = Duration::from_secs(600);

/// What is written into the directory of the run.
const FILES: [(&str, &str); 4] = [
    ("stream.proto", include_str!("../../grpcio/stream.proto")),
    ("server.py", include_str!("../../grpcio/server.py")),
    ("client.py", include_str!("../../grpcio/client.py")),
    ("requirements.txt", include_str!("../../grpcio/requirements.txt")),
];

/// Installs grpcio into an environment that is thrown away, and starts the server.
pub(super) async fn start(site: Site<'_>) -> Result<ByCommand<'_>> {
    let dir = site.dir.join("grpcio");
    fs::create_dir(&dir)?;
    for (name, text) in FILES {
        fs::write(dir.join(name), text)?;
    }
    let python = environment(site, &dir).await?;
    let address = free_address()?;
    let root = site.source.parent().unwrap_or(Path::new("/"));
    let mut command = Command::new(&python);
    command.arg(dir.join("server.py")).arg(root).arg(address.to_string()).current_dir(&dir);
    let mut server = Daemon::start("grpcio", &mut command, site.dir)?;
    server.listens(address).await?;
    let to = site.out().join(site.name);
    Ok(ByCommand {
        name: "stream of Python's grpcio, no encryption".to_owned(),
        daemons: vec![(Side::Sends, server)],
        command: Box::new(move || {
            let mut command = Command::new(&python);
            command.arg(dir.join("client.py")).args([address.to_string().as_str(), site.name]).arg(&to);
            command.current_dir(&dir);
            Ok(command)
        }),
        out: Some(site.out()),
        product: site.file(),
    })
}

async fn environment(site: Site<'_>, dir: &Path) -> Result<PathBuf> {
    let venv = dir.join("venv");
    let mut make = site.tools.command(tools::PYTHON)?;
    make.args(["-m", "venv"]).arg(&venv);
    child::run(&mut make, INSTALL).await.context("python3 makes no environment: apt install python3-venv")?;
    let python = venv.join("bin/python");
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    pip.arg(dir.join("requirements.txt"));
    child::run(&mut pip, INSTALL).await.context("pip cannot install grpcio from PyPI")?;
    let mut compile = Command::new(&python);
    compile.args([
        "-m",
        "grpc_tools.protoc",
        "--proto_path=.",
        "--python_out=.",
        "--grpc_python_out=.",
        "stream.proto",
    ]);
    child::run(compile.current_dir(dir), INSTALL).await?;
    Ok(python)
}

//! nginx over https, as its package configures it but for what has to be said.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use p2p_tests::eventually;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// How long it may take until it listens.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// A running nginx. Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Nginx {
    port: u16,
    certificate: PathBuf,
    _child: Child,
}

/// What the rival needs and is not here, in words for the table; empty where nothing is missing.
pub(crate) async fn missing() -> String {
    let mut missing = Vec::new();
    for (program, argument, package) in
        [("nginx", "-v", "nginx-light"), ("curl", "--version", "curl"), ("openssl", "version", "openssl")]
    {
        let found =
            Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status().await;
        if !found.is_ok_and(|status| status.success()) {
            missing.push(format!("no {program} here: apt install {package}"));
        }
    }
    missing.join("; ")
}

impl Nginx {
    /// Serves the files in `root`, with what it needs in `dir`.
    pub(crate) async fn start(dir: &Path, root: &Path) -> Result<Nginx> {
        let dir = dir.join("nginx");
        fs::create_dir(&dir)?;
        let (certificate, key) = (dir.join("cert.pem"), dir.join("key.pem"));
        make_certificate(&certificate, &key).await?;
        // The port is free now, and nobody else on this machine asks for one that it was not given.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = dir.join("nginx.conf");
        fs::write(&config, configuration(&dir, root, port))?;
        let child = Command::new("nginx")
            .args(["-g", "daemon off; master_process off;", "-e", "stderr", "-c"])
            .arg(&config)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start nginx")?;
        eventually(READY_WITHIN, "nginx listens", async || {
            TcpStream::connect(("127.0.0.1", port)).await?;
            Ok(())
        })
        .await?;
        Ok(Nginx { port, certificate, _child: child })
    }

    /// The certificate that a client believes.
    pub(crate) fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// Where it serves a file.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("https://localhost:{}/{name}", self.port)
    }
}

async fn make_certificate(certificate: &Path, key: &Path) -> Result<()> {
    let output = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-out"])
        .arg(certificate)
        .arg("-keyout")
        .arg(key)
        .output()
        .await
        .context("cannot run openssl")?;
    ensure!(output.status.success(), "openssl failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// One worker per core and sendfile, as Debian's package has them; access is not logged, which only helps it.
fn configuration(dir: &Path, root: &Path, port: u16) -> String {
    let dir = dir.display();
    let root = root.display();
    // Its master may be root, and its workers must then read the files of this user.
    format!(
        "user root;\nworker_processes auto;\npid {dir}/nginx.pid;\nevents {{ worker_connections 768; }}\nhttp {{\n  \
         sendfile on;\n  tcp_nopush on;\n  access_log off;\n  client_body_temp_path {dir}/body;\n  \
         proxy_temp_path {dir}/proxy;\n  fastcgi_temp_path {dir}/fastcgi;\n  uwsgi_temp_path {dir}/uwsgi;\n  \
         scgi_temp_path {dir}/scgi;\n  server {{\n    listen 127.0.0.1:{port} ssl;\n    ssl_protocols TLSv1.3;\n    \
         ssl_certificate {dir}/cert.pem;\n    ssl_certificate_key {dir}/key.pem;\n    root {root};\n  }}\n}}\n"
    )
}

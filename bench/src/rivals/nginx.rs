//! curl from nginx over https: TLS 1.3 with AES-128-GCM, nginx as Debian's package configures it but for what has to be said.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::{ByCommand, Site};
use crate::child::{self, Daemon, free_address};
use crate::gauge::Side;
use crate::tools;

/// The cipher of both; this project's programs choose the same where the processor has AES.
const CIPHER: &str = "TLS_AES_128_GCM_SHA256";

/// How long making a certificate may take.
const CERTIFICATE: Duration = Duration::from_secs(30);

/// Starts nginx on the directory of the file.
pub(super) async fn start(site: Site<'_>) -> Result<ByCommand<'_>> {
    let (certificate, key) = (site.dir.join("cert.pem"), site.dir.join("key.pem"));
    let mut openssl = site.tools.command(tools::OPENSSL)?;
    openssl.args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2".split(' '));
    openssl.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]);
    openssl.arg("-out").arg(&certificate).arg("-keyout").arg(&key);
    child::run(&mut openssl, CERTIFICATE).await?;
    let address = free_address()?;
    let config = site.dir.join("nginx.conf");
    let root = site.source.parent().unwrap_or(Path::new("/"));
    fs::write(&config, configuration(site.dir, root, address))?;
    let mut command = site.tools.command(tools::NGINX)?;
    command.args(["-g", "daemon off;", "-e", "stderr", "-c"]).arg(&config);
    let mut nginx = Daemon::start("nginx", &mut command, site.dir)?;
    nginx.listens(address).await?;
    let url = format!("https://localhost:{}/{}", address.port(), site.name);
    let to = site.out().join(site.name);
    Ok(ByCommand {
        name: "curl from nginx, https".to_owned(),
        daemons: vec![(Side::Sends, nginx)],
        command: Box::new(move || {
            let mut curl = site.tools.command(tools::CURL)?;
            curl.args([
                "--silent",
                "--show-error",
                "--fail",
                "--ipv4",
                "--tlsv1.3",
                "--tls13-ciphers",
                CIPHER,
            ]);
            curl.arg("--cacert").arg(&certificate).arg("--output").arg(&to).arg(&url);
            Ok(curl)
        }),
        out: Some(site.out()),
        product: site.file(),
    })
}

/// One worker per core, sendfile and tcp_nopush, as Debian's package has them; access is not logged, which only helps it.
fn configuration(dir: &Path, root: &Path, address: SocketAddr) -> String {
    let (dir, root) = (dir.display(), root.display());
    // Its master may be root, and its workers must then read the files of this user.
    format!(
        "user root;\nworker_processes auto;\npid {dir}/nginx.pid;\nevents {{ worker_connections 768; }}\nhttp {{\n  \
         sendfile on;\n  tcp_nopush on;\n  access_log off;\n  client_body_temp_path {dir}/body;\n  \
         proxy_temp_path {dir}/proxy;\n  fastcgi_temp_path {dir}/fastcgi;\n  uwsgi_temp_path {dir}/uwsgi;\n  \
         scgi_temp_path {dir}/scgi;\n  server {{\n    listen {address} ssl;\n    ssl_protocols TLSv1.3;\n    \
         ssl_conf_command Ciphersuites {CIPHER};\n    ssl_certificate {dir}/cert.pem;\n    \
         ssl_certificate_key {dir}/key.pem;\n    root {root};\n  }}\n}}\n"
    )
}

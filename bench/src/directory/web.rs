//! wrk, which asks as fast as answers come, and nginx with one static answer, whom it asks the same.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::child::{self, Daemon, free_address};
use crate::tools::{self, Tools};

/// Connections of wrk, all on one thread: the other processor is the server's.
pub(crate) const CONNECTIONS: usize = 32;
/// How long wrk may take beyond its time.
const PATIENCE: Duration = Duration::from_secs(30);

/// Draws from the paths of a file; wrk's own report is not read, but this.
const SCRIPT: &str = r#"
local requests = {}
function init(args)
  for path in io.lines(args[1]) do requests[#requests + 1] = wrk.format("GET", path) end
  math.randomseed(tonumber(args[2]))
end
function request() return requests[math.random(#requests)] end
function done(summary, latency)
  local errors = summary.errors
  local failed = errors.status + errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format("\nseen %d %d %d\n", summary.requests, failed, summary.duration))
end
"#;

/// wrk, with the paths that it asks for.
#[derive(Debug)]
pub(crate) struct Wrk<'a> {
    tools: &'a Tools,
    script: PathBuf,
    paths: PathBuf,
}

impl<'a> Wrk<'a> {
    /// Writes what it needs into `dir`.
    ///
    /// # Errors
    /// Where that cannot be written.
    pub(crate) fn new(tools: &'a Tools, dir: &Path, paths: &[String]) -> Result<Wrk<'a>> {
        let wrk = Wrk { tools, script: dir.join("wrk.lua"), paths: dir.join("wrk.paths") };
        fs::write(&wrk.script, SCRIPT).context("cannot write the script of wrk")?;
        fs::write(&wrk.paths, paths.join("\n")).context("cannot write the paths of wrk")?;
        Ok(wrk)
    }

    /// Asks for so long; `seed` chooses the order. Answers in a second.
    ///
    /// # Errors
    /// Where an answer is no success.
    pub(crate) async fn run(&self, server: SocketAddr, lasting: Duration, seed: u64) -> Result<f64> {
        let mut command = self.tools.command(tools::WRK)?;
        command.args(["--threads", "1", "--connections", &CONNECTIONS.to_string()]);
        command.arg("--duration").arg(format!("{}s", lasting.as_secs().max(1)));
        command.arg("--script").arg(&self.script).arg(format!("http://{server}")).arg("--");
        command.arg(&self.paths).arg(seed.to_string());
        rate_in(&child::run(&mut command, lasting + PATIENCE).await?)
    }
}

fn rate_in(report: &str) -> Result<f64> {
    let seen = report.lines().find_map(|line| line.strip_prefix("seen ")).context("wrk reports nothing")?;
    let numbers: Vec<u64> = seen.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect();
    let [requests, failed, micros] = numbers[..] else {
        anyhow::bail!("wrk reports `{seen}`");
    };
    ensure!(failed == 0, "{failed} of {requests} answers are no success");
    Ok(requests as f64 / Duration::from_micros(micros).as_secs_f64())
}

/// nginx, which answers everything with the same static JSON. Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct StaticAnswer {
    _daemon: Daemon,
    address: SocketAddr,
}

impl StaticAnswer {
    /// Starts it with this answer, as Debian's package configures it but for the log and for connections that stay longer, which
    /// only helps it.
    ///
    /// # Errors
    /// Where it does not start; with what it wrote.
    pub(crate) async fn start(tools: &Tools, dir: &Path, answer: &str) -> Result<StaticAnswer> {
        let dir = dir.join("nginx");
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("locate"), answer)?;
        let address = free_address()?;
        let config = dir.join("nginx.conf");
        fs::write(&config, configuration(&dir, address))?;
        let mut command = tools.command(tools::NGINX)?;
        command.args(["-g", "daemon off;", "-e", "stderr", "-c"]).arg(&config);
        let mut daemon = Daemon::start("nginx", &mut command, &dir)?;
        daemon.listens(address).await?;
        Ok(StaticAnswer { _daemon: daemon, address })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

fn configuration(dir: &Path, address: SocketAddr) -> String {
    let dir = dir.display();
    format!(
        "user root;\nworker_processes auto;\npid {dir}/nginx.pid;\nevents {{ worker_connections 768; }}\nhttp {{\n  \
         sendfile on;\n  tcp_nopush on;\n  access_log off;\n  keepalive_requests 100000000;\n  client_body_temp_path {dir}/body;\n  \
         proxy_temp_path {dir}/proxy;\n  fastcgi_temp_path {dir}/fastcgi;\n  uwsgi_temp_path {dir}/uwsgi;\n  \
         scgi_temp_path {dir}/scgi;\n  server {{\n    listen {address};\n    root {dir};\n    default_type application/json;\n  }}\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_read_and_failures_are_none() {
        assert_eq!(rate_in("Running…\n\nseen 5000 0 2000000\n").unwrap(), 2500.0);
        assert!(rate_in("seen 5000 1 2000000").unwrap_err().to_string().contains("1 of 5000"));
        assert!(rate_in("unable to connect").is_err());
    }
}

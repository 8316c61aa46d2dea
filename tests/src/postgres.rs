//! A PostgreSQL server for one test: made in a directory of its own, reached by a socket in it (and, where a test is about
//! that, over TCP), gone with the value.
//!
//! Its programs come with Debian's package `postgresql` (`/usr/lib/postgresql/*/bin`), or are on the `PATH`. The server
//! refuses to run as root, so it then runs as `postgres`, or as nobody.

use std::env;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

/// How long the server may take to be there, or to be gone.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks whether it is.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Its one user.
const USER: &str = "maestrod";

/// A server that runs, or was stopped and may run again.
#[derive(Debug)]
pub struct PostgresServer {
    programs: PathBuf,
    /// User and group that it runs as, where this process is root.
    as_user: Option<(u32, u32)>,
    dir: TempDir,
    /// Where it listens beside the socket.
    port: Option<u16>,
    server: Option<Child>,
}

impl PostgresServer {
    /// Makes a server and starts it. Blocks for some seconds.
    ///
    /// # Errors
    ///
    /// If its programs are not on this machine, or it does not start: with what it said.
    pub fn start() -> Result<PostgresServer> {
        let mut server = PostgresServer::make()?;
        server.start_again()?;
        Ok(server)
    }

    /// The same, that is also reached over TCP on this machine: there by TLS alone, with this certificate and its key (PEM), and
    /// with the password, which the server keeps by SCRAM.
    ///
    /// # Errors
    ///
    /// The same.
    pub fn start_guarded(certificate: &str, key: &str, password: &str) -> Result<PostgresServer> {
        let mut server = PostgresServer::make()?;
        // The server can only be told a number. Whoever takes the port in between makes its start fail.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        server.port = Some(port);
        server.keep("server.crt", certificate)?;
        server.keep("server.key", key)?;
        server.keep("pg_hba.conf", "local all all trust\nhostssl all all all scram-sha-256\n")?;
        let settings = "listen_addresses = 'localhost'\nssl = on\npassword_encryption = 'scram-sha-256'\n";
        server.keep("postgresql.conf", &format!("{settings}port = {port}\n"))?;
        server.start_again()?;
        server.sql("postgres", &format!("ALTER ROLE {USER} PASSWORD '{password}'"))?;
        Ok(server)
    }

    /// The address of a database over TCP; only of a server that is [guarded](PostgresServer::start_guarded).
    ///
    /// # Errors
    ///
    /// If it is none.
    pub fn tcp_address(&self, database: &str) -> Result<String> {
        let port = self.port.context("the server is reached by its socket alone")?;
        Ok(format!("postgresql://{USER}@localhost:{port}/{database}"))
    }

    /// A server that does not run yet.
    fn make() -> Result<PostgresServer> {
        let programs = programs()?;
        let dir = tempfile::Builder::new().prefix("postgres").tempdir()?;
        let as_user = rustix::process::geteuid().is_root().then(unprivileged).transpose()?;
        if let Some((user, group)) = as_user {
            chown(dir.path(), Some(user), Some(group))?;
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        let server = PostgresServer { programs, as_user, dir, port: None, server: None };
        let made = server
            .program("initdb")
            .args([
                "--username",
                USER,
                "--auth",
                "trust",
                "--encoding",
                "UTF8",
                "--locale",
                "C",
                "--no-sync",
                "-D",
            ])
            .arg(server.data())
            .stdin(Stdio::null())
            .output()
            .context("cannot run initdb")?;
        ensure!(made.status.success(), "initdb failed: {}", String::from_utf8_lossy(&made.stderr));
        server.keep("postgresql.conf", "listen_addresses = ''\n")?;
        Ok(server)
    }

    /// Puts a file among the server's own, which nobody else reads.
    fn keep(&self, name: &str, text: &str) -> Result<()> {
        let path = self.data().join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        if let Some((user, group)) = self.as_user {
            chown(&path, Some(user), Some(group))?;
        }
        Ok(())
    }

    /// The address of a new, empty database, as `store` of a maestro's configuration.
    ///
    /// # Errors
    ///
    /// If there is one of that name, or the server does not run.
    pub fn create_database(&self, name: &str) -> Result<String> {
        self.sql("postgres", &format!("CREATE DATABASE {name}"))?;
        Ok(self.address(name))
    }

    /// The address of a database.
    pub fn address(&self, name: &str) -> String {
        let port = self.port.map(|port| format!("&port={port}")).unwrap_or_default();
        format!("postgresql://{USER}@/{name}?host={}{port}", self.dir.path().display())
    }

    /// Runs statements by `psql`, and answers what it prints.
    ///
    /// # Errors
    ///
    /// What the server says of it.
    pub fn sql(&self, database: &str, statements: &str) -> Result<String> {
        let said = self
            .program("psql")
            .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--username", USER])
            .args(["--set", "ON_ERROR_STOP=1", "--host"])
            .arg(self.dir.path())
            .args(["--dbname", database, "--command", statements])
            .stdin(Stdio::null())
            .output()
            .context("cannot run psql")?;
        ensure!(said.status.success(), "psql: {}", String::from_utf8_lossy(&said.stderr).trim());
        Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
    }

    /// Runs a program of PostgreSQL's, such as `pg_dump`, against a database, in the server's directory, and answers what it
    /// prints.
    ///
    /// # Errors
    ///
    /// What the program says.
    pub fn run(&self, program: &str, database: &str, arguments: &[&str]) -> Result<Vec<u8>> {
        let said = self
            .program(program)
            .args(["--username", USER, "--host"])
            .arg(self.dir.path())
            .args(["--dbname", database])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {program}"))?;
        ensure!(said.status.success(), "{program}: {}", String::from_utf8_lossy(&said.stderr).trim());
        Ok(said.stdout)
    }

    /// Ends the server as an administrator does who does not wait: connections are cut. Returns when it is gone.
    ///
    /// # Errors
    ///
    /// If it is still there after a minute.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        signal(&server, rustix::process::Signal::INT);
        let deadline = Instant::now() + PATIENCE;
        while server.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.server = Some(server);
                bail!("the server does not end");
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Starts the server that was stopped, with all it had. Returns when it lets somebody in.
    ///
    /// # Errors
    ///
    /// If it ends, or lets nobody in for a minute: with what it said.
    pub fn start_again(&mut self) -> Result<()> {
        let log = self.dir.path().join("log");
        let out = fs::OpenOptions::new().create(true).append(true).open(&log)?;
        let mut server = self
            .program("postgres")
            .args(["-c", "fsync=off", "-c", "max_connections=200"])
            .arg("-c")
            .arg(format!("unix_socket_directories={}", self.dir.path().display()))
            .arg("-D")
            .arg(self.data())
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .context("cannot run postgres")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = server.try_wait()? {
                bail!("the server ended ({status}): {}", fs::read_to_string(&log).unwrap_or_default());
            }
            match self.sql("postgres", "SELECT 1") {
                Ok(_) => break,
                Err(error) if Instant::now() > deadline => {
                    self.server = Some(server);
                    return Err(error.context(fs::read_to_string(&log).unwrap_or_default()));
                }
                Err(_) => std::thread::sleep(LOOK_EVERY),
            }
        }
        self.server = Some(server);
        Ok(())
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        // It writes where it is started, and must be able to.
        command.current_dir(self.dir.path()).env_remove("PGHOST").env("LC_ALL", "C");
        if let Some(port) = self.port {
            command.env("PGPORT", port.to_string());
        }
        if let Some((user, group)) = self.as_user {
            command.uid(user).gid(group);
        }
        command
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        // At once, and its children with it: nothing of it is needed any more.
        signal(&server, rustix::process::Signal::QUIT);
        let _ = server.wait();
    }
}

fn signal(server: &Child, signal: rustix::process::Signal) {
    if let Some(pid) = i32::try_from(server.id()).ok().and_then(rustix::process::Pid::from_raw) {
        // One that has ended already needs none.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Where the programs are: those of the newest version that Debian's packages have put here, else those on the `PATH`.
fn programs() -> Result<PathBuf> {
    let version = |path: &Path| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let mut installed: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            Some((version(&path)?, path.join("bin")))
        })
        .filter(|(_, programs)| programs.join("initdb").exists())
        .collect();
    installed.sort();
    if let Some((_, programs)) = installed.pop() {
        return Ok(programs);
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .find(|programs| programs.join("initdb").exists() && programs.join("postgres").exists())
        .context("PostgreSQL's programs are not here; sudo apt-get install postgresql")
}

/// User and group of `postgres`, else of nobody.
fn unprivileged() -> Result<(u32, u32)> {
    let passwd = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
    let find = |name: &str| {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name)).then_some(())?;
            let (user, group) = (fields.nth(1)?, fields.next()?);
            Some((user.parse().ok()?, group.parse().ok()?))
        })
    };
    find("postgres").or_else(|| find("nobody")).context("there is no user that the server could run as")
}

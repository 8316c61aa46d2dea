//! A signed apt repository of the packages, in a directory that any web server can serve.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

const SUITE: &str = "stable";
const KEYRING: &str = "p2pd-archive-keyring.asc";
/// Who signs; the key is for this repository alone.
const SIGNER: &str = "p2pd local repository";

/// Makes the repository anew from all packages in `out`, and says how to use it. The key is made once, and stays.
pub(super) fn make(out: &Path) -> Result<String> {
    let (repo, key) = (out.join("repo"), out.join("key"));
    if repo.exists() {
        fs::remove_dir_all(&repo).with_context(|| format!("cannot remove {}", repo.display()))?;
    }
    let pool = repo.join("pool");
    fs::create_dir_all(&pool).with_context(|| format!("cannot make {}", pool.display()))?;
    for entry in fs::read_dir(out).with_context(|| format!("cannot read {}", out.display()))? {
        let path = entry?.path();
        if let Some(name) =
            path.file_name().filter(|_| path.extension().is_some_and(|extension| extension == "deb"))
        {
            fs::copy(&path, pool.join(name)).with_context(|| format!("cannot copy {}", path.display()))?;
        }
    }
    let architecture = output(Command::new("dpkg").arg("--print-architecture"))?;
    let architecture = architecture.trim();
    index(&repo, architecture)?;
    sign(&repo, &key)?;

    let sources = sources(&repo);
    let file = repo.join("p2pd.sources");
    fs::write(&file, &sources).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(format!(
        "the repository is {repo}; on a host, with URIs changed to where it is served:\n  \
         sudo cp {KEYRING} /etc/apt/keyrings/\n  \
         sudo cp p2pd.sources /etc/apt/sources.list.d/\n  \
         sudo apt update && sudo apt install p2pd\np2pd.sources is:\n{sources}",
        repo = repo.display()
    ))
}

/// Lists the packages, and the lists.
fn index(repo: &Path, architecture: &str) -> Result<()> {
    let lists = format!("dists/{SUITE}/main/binary-{architecture}");
    fs::create_dir_all(repo.join(&lists)).with_context(|| format!("cannot make {lists}"))?;
    let packages = output(Command::new("apt-ftparchive").args(["packages", "pool"]).current_dir(repo))?;
    let path = repo.join(&lists).join("Packages");
    fs::write(&path, packages).with_context(|| format!("cannot write {}", path.display()))?;
    output(Command::new("gzip").args(["--keep", "--no-name", "--best"]).arg(&path))?;

    let mut release = Command::new("apt-ftparchive");
    for (field, value) in [
        ("Origin", "p2pd"),
        ("Label", "p2pd"),
        ("Suite", SUITE),
        ("Codename", SUITE),
        ("Components", "main"),
        ("Architectures", architecture),
        ("Description", "p2pd and maestrod"),
    ] {
        release.arg("-o").arg(format!("APT::FTPArchive::Release::{field}={value}"));
    }
    let dist = repo.join("dists").join(SUITE);
    let text = output(release.arg("release").arg(&dist))?;
    let path = dist.join("Release");
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Signs the list of lists, with the key in `home`, and puts the public key beside the repository's directories.
fn sign(repo: &Path, home: &Path) -> Result<()> {
    let gpg = || {
        let mut command = Command::new("gpg");
        command.arg("--homedir").arg(home).args([
            "--batch",
            "--yes",
            "--quiet",
            "--pinentry-mode",
            "loopback",
        ]);
        command.args(["--passphrase", ""]);
        command
    };
    if !home.exists() {
        // gpg wants its home to be its owner's alone.
        let made = DirBuilder::new().mode(0o700).create(home);
        made.with_context(|| format!("cannot make {}", home.display()))?;
    }
    if !output(gpg().args(["--list-secret-keys", "--with-colons"]))?.contains("\nfpr:") {
        output(gpg().args(["--quick-generate-key", SIGNER, "ed25519", "sign", "never"]))?;
    }
    let dist = repo.join("dists").join(SUITE);
    let release = dist.join("Release");
    let signed = output(gpg().args(["--clearsign", "--output"]).arg(dist.join("InRelease")).arg(&release))
        .and_then(|_| {
            output(
                gpg()
                    .args(["--armor", "--detach-sign", "--output"])
                    .arg(dist.join("Release.gpg"))
                    .arg(&release),
            )
        });
    let public = output(gpg().args(["--armor", "--export"]));
    // Its agent would stay behind, with nothing to do. An agent that is not there is no failure.
    let _ = Command::new("gpgconf").arg("--homedir").arg(home).args(["--kill", "all"]).output();
    signed?;
    let path = repo.join(KEYRING);
    fs::write(&path, public?).with_context(|| format!("cannot write {}", path.display()))
}

fn sources(repo: &Path) -> String {
    format!(
        "Types: deb\nURIs: file://{}\nSuites: {SUITE}\nComponents: main\nSigned-By: /etc/apt/keyrings/{KEYRING}\n",
        repo.display()
    )
}

fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} failed ({}): {}", output.status, said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

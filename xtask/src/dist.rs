//! `cargo xtask dist`: the Debian packages, and a signed apt repository with them.
//!
//! The programs are built here and staged beside `packaging/debian`; debhelper makes the packages of them. Everything is
//! below `target/debian`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;

mod configuration;
mod programs;
mod repository;
mod stage;
mod tools;

/// What packages are made.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Version of the packages; the newest in packaging/debian/changelog if not given
    #[arg(long, value_name = "VERSION")]
    package_version: Option<String>,
    /// Profile that the programs are built with: release, or dev for a quick try
    #[arg(long, default_value = "release")]
    profile: String,
    /// Also make a signed apt repository of all packages that are in target/debian
    #[arg(long)]
    repo: bool,
}

/// Builds, packages, and checks what came of it.
pub(crate) fn run(options: &Options) -> Result<()> {
    tools::check(options.repo)?;
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).canonicalize()?;
    let programs = programs::find(&root, &options.profile)?;
    programs::check_libc(&programs)?;
    let out = root.join("target/debian");
    let stage = stage::make(&root, &out.join("build"), &programs, options.package_version.as_deref())?;
    let packages = build(&stage, &out, &options.profile)?;
    lint(&packages)?;
    for package in &packages {
        say(&format!("{}", package.display()));
    }
    if options.repo {
        say(&repository::make(&out)?);
    }
    Ok(())
}

/// Has debhelper make the packages of what is staged, and puts them into `out`.
fn build(stage: &Path, out: &Path, profile: &str) -> Result<Vec<PathBuf>> {
    let mut command = Command::new("dpkg-buildpackage");
    command.args(["--build=binary", "--unsigned-changes", "--unsigned-buildinfo", "--no-pre-clean"]);
    // Programs are tested before they are packaged; debugging symbols are in `target`, beside the programs.
    command.env("DEB_BUILD_OPTIONS", "nocheck noautodbgsym").current_dir(stage);
    if profile == "dev" {
        // A quick try is not for small files.
        command.env("DPKG_DEB_COMPRESSOR_LEVEL", "1");
    }
    let log = stage.with_extension("log");
    run_quietly(&mut command, &log)?;

    let built = stage.parent().context("the stage is in no directory")?;
    let mut packages = Vec::new();
    for entry in fs::read_dir(built).with_context(|| format!("cannot read {}", built.display()))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(name) = name.filter(|name| name.ends_with(".deb")) {
            let package = out.join(name);
            fs::copy(&path, &package).with_context(|| format!("cannot write {}", package.display()))?;
            packages.push(package);
        }
    }
    ensure!(!packages.is_empty(), "no package was made; see {}", log.display());
    packages.sort();
    Ok(packages)
}

/// Nothing that lintian calls an error or a warning is let through.
fn lint(packages: &[PathBuf]) -> Result<()> {
    // Who runs it is root in containers, and is warned of that.
    let arguments = ["--allow-root", "--fail-on", "error,warning", "--tag-display-limit", "0"];
    let status =
        Command::new("lintian").args(arguments).args(packages).status().context("cannot run lintian")?;
    ensure!(
        status.success(),
        "lintian finds errors or warnings in the packages; correct what it names above, or override it with the reason"
    );
    say("lintian: no errors, no warnings");
    Ok(())
}

/// Runs a command whose output only matters where it fails.
fn run_quietly(command: &mut Command, log: &Path) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {program}"))?;
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    fs::write(log, &text).with_context(|| format!("cannot write {}", log.display()))?;
    ensure!(
        output.status.success(),
        "{program} failed ({}):\n{}\nall it said is in {}",
        output.status,
        last_lines(&String::from_utf8_lossy(&text), 20),
        log.display()
    );
    Ok(())
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[expect(clippy::print_stdout, reason = "the answer to the developer")]
fn say(text: &str) {
    println!("{text}");
}

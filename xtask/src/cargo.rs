//! Commands that are cargo commands, spelled out once.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, ensure};

/// The acceptance tests that take long, one after another, with their figures.
pub(crate) fn test_large() -> Result<()> {
    // The whole workspace's features, as `cargo test --workspace` has them: nothing is built a second time.
    let arguments = ["--", "--ignored", "--nocapture", "--test-threads=1"];
    // The store on a server, beside the code and as the maestro shows it.
    run(&[&["test", "--workspace", "--lib"][..], &arguments, &["postgres"]].concat())?;
    let names = ["postgres", "failover", "flood", "large", "fault_suite", "crash_suite"];
    let suites: Vec<&str> = names.iter().flat_map(|name| ["--test", name]).collect();
    run(&[&["test", "--workspace"][..], &suites, &arguments].concat())
}

/// The REST interfaces against their OpenAPI documents, by Schemathesis from PyPI in an environment beside the programs.
pub(crate) fn test_rest() -> Result<()> {
    let requirements = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/schemathesis.txt");
    let environment = target()?.join("schemathesis");
    let program = environment.join("bin/schemathesis");
    let wanted = fs::read_to_string(requirements).with_context(|| format!("cannot read {requirements}"))?;
    let installed = environment.join("installed.txt");
    if fs::read_to_string(&installed).ok().as_ref() != Some(&wanted) {
        let make = Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment).status();
        let made = make.is_ok_and(|status| status.success());
        ensure!(made, "python3 makes no environment in {}: apt install python3-venv", environment.display());
        let install = Command::new(environment.join("bin/pip"))
            .args(["install", "--quiet", "--disable-pip-version-check", "--requirement", requirements])
            .status();
        ensure!(
            install.is_ok_and(|status| status.success()),
            "cannot install Schemathesis; it comes from PyPI, which pip must reach"
        );
        fs::write(&installed, wanted)?;
    }
    let arguments = ["--test", "documents", "--", "--ignored", "--nocapture", "--test-threads=1"];
    run_with(&[&["test", "--workspace"][..], &arguments].concat(), &[("P2P_SCHEMATHESIS", &program)])
}

/// The benches.
pub(crate) fn bench(arguments: &[String]) -> Result<()> {
    let mut all = vec!["run", "--release", "--package", "p2p-bench", "--"];
    all.extend(arguments.iter().map(String::as_str));
    run(&all)
}

/// The target directory that this program was built into.
pub(crate) fn target() -> Result<PathBuf> {
    let me = env::current_exe().context("cannot tell where this program is")?;
    let target = me.parent().and_then(|profile| profile.parent());
    Ok(target.with_context(|| format!("{} is in no target directory", me.display()))?.to_owned())
}

fn run(arguments: &[&str]) -> Result<()> {
    run_with(arguments, &[])
}

fn run_with(arguments: &[&str], environment: &[(&str, &Path)]) -> Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(&cargo)
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .status()
        .with_context(|| format!("cannot run {}", cargo.display()))?;
    ensure!(status.success(), "cargo {} failed ({status})", arguments.join(" "));
    Ok(())
}

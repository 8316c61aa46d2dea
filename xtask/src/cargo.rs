//! Commands that are cargo commands, spelled out once.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The acceptance tests that take long, one after another, with their figures.
pub(crate) fn test_large() -> Result<()> {
    // The whole workspace's features, as `cargo test --workspace` has them: nothing is built a second time.
    let arguments = ["--", "--ignored", "--nocapture", "--test-threads=1"];
    // The store on a server, beside the code and as the maestro shows it.
    run(&[&["test", "--workspace", "--lib"][..], &arguments, &["postgres"]].concat())?;
    let names = ["postgres", "failover", "large", "fault_suite", "crash_suite"];
    let suites: Vec<&str> = names.iter().flat_map(|name| ["--test", name]).collect();
    run(&[&["test", "--workspace"][..], &suites, &arguments].concat())
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
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(&cargo)
        .args(arguments)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .status()
        .with_context(|| format!("cannot run {}", cargo.display()))?;
    ensure!(status.success(), "cargo {} failed ({status})", arguments.join(" "));
    Ok(())
}

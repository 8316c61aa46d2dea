//! Commands that are cargo commands, spelled out once.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, ensure};

/// The store on a server, beside the code; everything else is a test target of its own.
const STORES: &str = "stores";
/// The acceptance tests that take long, in their order.
const SUITES: [&str; 7] = [STORES, "postgres", "failover", "flood", "large", "fault_suite", "crash_suite"];

/// Which of the acceptance tests that take long, and how many of them.
#[derive(Debug, clap::Args)]
pub(crate) struct Large {
    /// Only this suite; can be given several times
    #[arg(long, value_name = "SUITE", value_parser = clap::builder::PossibleValuesParser::new(SUITES))]
    only: Vec<String>,
    /// So many runs of each of fault_suite and crash_suite, one for each seed; --only says of which
    #[arg(long, value_name = "N", requires = "only")]
    seeds: Option<u64>,
    /// The run of this seed of them, and no other
    #[arg(long, value_name = "SEED", requires = "only", conflicts_with = "seeds")]
    seed: Option<u64>,
    /// So long an enormous file in the suite large; 4 where not given
    #[arg(long, value_name = "N", requires = "only")]
    gib: Option<u64>,
    /// So many files in a directory of the suite large; 50,000 where not given
    #[arg(long, value_name = "N", requires = "only")]
    files: Option<u64>,
}

/// The acceptance tests that take long, one after another, with their figures.
pub(crate) fn test_large(options: &Large) -> Result<()> {
    let is_wanted =
        |suite: &&str| options.only.is_empty() || options.only.iter().any(|only| only.as_str() == *suite);
    let wanted: Vec<&str> = SUITES.into_iter().filter(is_wanted).collect();
    let numbers = [
        ("P2P_RUNS", options.seeds),
        ("P2P_SEED", options.seed),
        ("P2P_GIB", options.gib),
        ("P2P_FILES", options.files),
    ];
    let given = numbers.into_iter().filter_map(|(name, number)| Some((name, number?.to_string())));
    let given: Vec<_> = given.collect();
    let environment: Vec<_> = given.iter().map(|(name, text)| (*name, Path::new(text))).collect();
    // The whole workspace's features, as `cargo test --workspace` has them: nothing is built a second time.
    let arguments = ["--", "--ignored", "--nocapture", "--test-threads=1"];
    if wanted.contains(&STORES) {
        // As the maestro shows it, it is in `postgres`.
        run_with(&[&["test", "--workspace", "--lib"][..], &arguments, &["postgres"]].concat(), &environment)?;
    }
    let targets = wanted.into_iter().filter(|suite| *suite != STORES);
    let targets: Vec<&str> = targets.flat_map(|suite| ["--test", suite]).collect();
    if targets.is_empty() {
        return Ok(());
    }
    run_with(&[&["test", "--workspace"][..], &targets, &arguments].concat(), &environment)
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

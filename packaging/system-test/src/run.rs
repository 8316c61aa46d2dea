//! A whole run: what is needed, the packages, the base systems, then the groups of cases, some at a time.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::bases::{self, Release};
use crate::cases::{Case, GROUPS, Group};
use crate::lab::Lab;
use crate::packages::Packages;
use crate::report::{Ended, Outcome, say, warn};
use crate::site::Site;
use crate::{Options, interrupt, tools};

/// One group in one release.
#[derive(Debug, Clone, Copy)]
struct Errand {
    group: &'static Group,
    release: Release,
}

/// Runs what the options say, with everything that it makes below `target`.
///
/// # Errors
/// Where something that is needed is missing, and where a case fails.
pub fn run(options: &Options, target: &Path) -> Result<()> {
    let errands = errands(options)?;
    if options.list {
        for group in GROUPS {
            group.cases.iter().for_each(|case| say(&format!("{}/{}", group.name, case.name)));
        }
        return Ok(());
    }
    tools::check()?;
    interrupt::install()?;
    let lab = Lab::open(target)?;
    let packages = lab.dir().join("packages");
    let packages = match options.as_built {
        true => Packages::as_built(&packages)?,
        false => {
            say("Building the packages …");
            Packages::build(&packages, &options.profile)?
        }
    };
    let lab = lab.with_packages(packages);
    let bases = bases(&lab, &errands)?;
    let began = Instant::now();
    let ended = run_all(&lab, &bases, errands, options);
    interrupt::check()?;
    let failed: Vec<_> = ended.iter().filter(|case| !case.is_good()).collect();
    if failed.is_empty() {
        say(&format!(
            "{} cases, all as they should be, in {:.0} s",
            ended.len(),
            began.elapsed().as_secs_f64()
        ));
        return Ok(());
    }
    let names: Vec<_> = failed.iter().map(|case| format!("  {} {}", case.place, case.name)).collect();
    bail!(
        "{} of {} cases failed, after {:.0} s:\n{}",
        failed.len(),
        ended.len(),
        began.elapsed().as_secs_f64(),
        names.join("\n")
    )
}

/// Groups that take longest first, so that the last to end is a short one.
fn errands(options: &Options) -> Result<VecDeque<Errand>> {
    let releases = options.release.map_or_else(|| Release::ALL.to_vec(), |release| vec![release]);
    let mut errands = VecDeque::new();
    for group in GROUPS {
        if group.cases.iter().any(|case| wanted(group, case, options)) {
            let count = if group.each_release { releases.len() } else { 1 };
            errands.extend(releases.iter().take(count).map(|release| Errand { group, release: *release }));
        }
    }
    ensure!(!errands.is_empty(), "there is no such case; `cargo xtask system-test --list` names them");
    Ok(errands)
}

fn wanted(group: &Group, case: &Case, options: &Options) -> bool {
    options.only.as_ref().is_none_or(|only| format!("{}/{}", group.name, case.name).contains(only.as_str()))
}

/// Root file systems for every release that is needed.
fn bases(lab: &Lab, errands: &VecDeque<Errand>) -> Result<BTreeMap<Release, PathBuf>> {
    let mut bases = BTreeMap::new();
    for errand in errands {
        if let Entry::Vacant(lacking) = bases.entry(errand.release) {
            say(&format!(
                "Looking for the base system of {} (it is made once, in about a minute) …",
                errand.release.name()
            ));
            lacking.insert(bases::base(lab, errand.release)?);
        }
    }
    Ok(bases)
}

fn run_all(
    lab: &Lab,
    bases: &BTreeMap<Release, PathBuf>,
    errands: VecDeque<Errand>,
    options: &Options,
) -> Vec<Ended> {
    let (errands, ended) = (Mutex::new(errands), Mutex::new(Vec::new()));
    // On its own, so that the lock is not held while the errand is run.
    let next = || errands.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(|| {
                while let Some(errand) = next() {
                    if interrupt::is_set() {
                        return;
                    }
                    let cases = run_group(lab, bases, errand, options);
                    ended.lock().unwrap_or_else(PoisonError::into_inner).extend(cases);
                }
            });
        }
    });
    ended.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn run_group(lab: &Lab, bases: &BTreeMap<Release, PathBuf>, errand: Errand, options: &Options) -> Vec<Ended> {
    let Errand { group, release } = errand;
    let place = if group.each_release { release.name() } else { "packages" };
    let began = Instant::now();
    let prepared = prepare(lab, bases, errand);
    let mut site = match prepared {
        Ok(site) => site,
        Err(error) => {
            let outcome = Outcome::Bad(format!("{error:#}"));
            let failed =
                Ended { place, name: format!("{}/prepare", group.name), outcome, took: began.elapsed() };
            failed.print();
            return vec![failed];
        }
    };
    let mut ended = Vec::new();
    let last = group.cases.iter().rposition(|case| wanted(group, case, options)).unwrap_or(0);
    for (index, case) in group.cases.iter().enumerate() {
        let is_run = wanted(group, case, options) || (group.in_order && index < last);
        if !is_run || interrupt::is_set() {
            continue;
        }
        let began = Instant::now();
        let outcome = match (case.check)(&site) {
            Ok(note) => Outcome::Good(note),
            Err(error) => Outcome::Bad(format!("{error:#}\n{}", journals(&site, began.elapsed()))),
        };
        let case =
            Ended { place, name: format!("{}/{}", group.name, case.name), outcome, took: began.elapsed() };
        case.print();
        ended.push(case);
    }
    if options.keep && ended.iter().any(|case| !case.is_good()) && !interrupt::is_set() {
        site.keep();
        for host in site.hosts() {
            say(&format!("kept: {}", host.how_to_enter()));
        }
    }
    ended
}

fn prepare<'lab>(lab: &'lab Lab, bases: &BTreeMap<Release, PathBuf>, errand: Errand) -> Result<Site<'lab>> {
    let Errand { group, release } = errand;
    let Some(base) = bases.get(&release) else { bail!("there is no base system of {}", release.name()) };
    let began = Instant::now();
    let site = Site::boot(lab, base, release, group.name, group.hosts)?;
    if let Err(error) = (group.prepare)(&site) {
        let journals = journals(&site, began.elapsed());
        return Err(error.context(journals));
    }
    Ok(site)
}

/// What all services have said in this time, for an error.
fn journals(site: &Site<'_>, within: Duration) -> String {
    if interrupt::is_set() {
        return String::new();
    }
    let mut all = String::new();
    for host in site.hosts() {
        match host.journal_end(within) {
            Ok(journal) => all.push_str(&format!("──── journal of {} ────\n{journal}", host.name())),
            Err(error) => warn(&format!("the journal of {} cannot be read: {error:#}", host.name())),
        }
    }
    all
}

//! `doctor`: what is wrong, if anything, seen from both sides: the daemon examines itself, and this program looks at what
//! a sandbox hides from it. Where the daemon does not answer, at what can be seen without it.

mod outside;
mod watches;

use std::path::Path;

use p2p_proto::control::{Doctor, Status, UnfitShare};
use p2p_proto::diagnosis::{Check, Diagnosis, Verdict};

use crate::client::Client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Cell, Column, Output, Table, Tone, duration, now_ms};
use crate::remedy::{self, Case, Daemon, Flaw, Seen};
use crate::socket::Owner;

/// Runs `doctor`.
pub(super) async fn run(client: &Client, out: &Output) -> Result<(), Failure> {
    let checks = match client.get::<Status>("/v1/status").await {
        Ok(answer) => running(client, &answer.value).await?,
        Err(failure) => stopped(client, &failure).await,
    };
    let diagnosis = Diagnosis::of(checks);
    if out.json() {
        out.document(&diagnosis)?;
    } else {
        show(out, &diagnosis)?;
    }
    match diagnosis.verdict {
        Verdict::Problem => Err(Failure::quiet(Exit::Problems)),
        Verdict::Warning => Err(Failure::quiet(Exit::Warnings)),
        Verdict::Ok | Verdict::Skipped => Ok(()),
    }
}

async fn running(client: &Client, status: &Status) -> Result<Vec<Check>, Failure> {
    let owner = Owner::of(client.socket());
    let up = u64::try_from((now_ms() - status.started_ms) / 1000).unwrap_or(0);
    let mut checks = vec![
        Check::ok(
            "daemon",
            format!("p2pd {} answers: process {}, up {}", status.version, status.pid, duration(up)),
        ),
        outside::socket(client.socket(), owner),
        program(&status.version, owner),
        outside::configuration(Some(status.pid), owner).await,
    ];
    match client.get::<Doctor>("/v1/doctor").await {
        Ok(answer) => {
            let Doctor { checks: mut found, watches, unfit } = answer.value;
            let daemon = Daemon::of_process(status.pid);
            for share in &unfit {
                advise(&mut found, share, &daemon);
            }
            // Beside the disks: before what concerns other machines.
            let at = found.iter().position(|check| check.name == "maestro").unwrap_or(found.len());
            found.insert(at, watches::check(watches, watches::allowed()));
            checks.extend(found);
        }
        Err(failure) if matches!(failure.exit(), Exit::Failed | Exit::NotFound) => checks.push(
            Check::skipped("examination", format!("p2pd does not examine itself: {}", failure.message()))
                .advise("it may be older than p2pctl: `p2pctl version` shows both"),
        ),
        Err(failure) => return Err(failure),
    }
    Ok(checks)
}

async fn stopped(client: &Client, failure: &Failure) -> Vec<Check> {
    let owner = Owner::of(client.socket());
    let daemon = Check::problem("daemon", failure.message());
    let mut checks = vec![failure.hints().iter().cloned().fold(daemon, Check::advise)];
    // A daemon that may not be asked is as well as it is.
    if failure.exit() == Exit::Unreachable {
        checks.extend(outside::unit(owner).await);
    }
    checks.push(outside::socket(client.socket(), owner));
    checks.push(outside::configuration(None, owner).await);
    checks.push(watches::unneeded(watches::allowed()));
    checks
}

/// Whether the daemon that runs is the one that is installed with this program.
fn program(running: &str, owner: Owner) -> Check {
    let own = env!("CARGO_PKG_VERSION");
    match running == own {
        true => Check::ok("program", format!("p2pctl and p2pd are both {own}")),
        false => Check::warning("program", format!("p2pctl is {own}, and the p2pd that runs is {running}"))
            .advise(format!("{} restart p2pd", outside::systemctl(owner))),
    }
}

/// Adds what lets the daemon use a share: it cannot know what its sandbox hides.
fn advise(checks: &mut [Check], share: &UnfitShare, daemon: &Daemon) {
    let name = format!("share {}", share.name);
    let Some(check) = checks.iter_mut().find(|check| check.name == name) else { return };
    let Some(flaw) = Flaw::of_code(&share.code) else { return };
    let path = Path::new(&share.path);
    let case = Case { path, name: &share.name, downloads: share.downloads, flaw };
    if let Some(remedy) = remedy::remedy(case, daemon, &Seen::at(path)) {
        check.advice = std::iter::once(remedy.reason).chain(remedy.commands).collect();
    }
}

fn show(out: &Output, diagnosis: &Diagnosis) -> Result<(), Failure> {
    let mut table = Table::new(&[Column::left("VERDICT"), Column::left("CHECK"), Column::flow("FOUND")]);
    for check in &diagnosis.checks {
        let tone = match check.verdict {
            Verdict::Ok => Some(Tone::Good),
            Verdict::Warning => Some(Tone::Busy),
            Verdict::Problem => Some(Tone::Bad),
            Verdict::Skipped => None,
        };
        let word = check.verdict.word();
        let verdict = tone.map_or_else(|| Cell::from(word), |tone| Cell::toned(word, tone));
        let advice: Vec<String> = check.advice.iter().map(|step| format!("→ {step}")).collect();
        table.row([verdict, check.name.as_str().into(), Cell::with_remarks(&check.found, &advice)]);
    }
    out.table(&table)?;
    out.line("")?;
    out.line(&diagnosis.summary())
}

//! `transfers`: what is being fetched.

use std::io::{self, Write as _};
use std::time::Duration;

use hyper::Method;
use p2p_proto::control::{Priority, SetPriority, SourceState, Transfer, TransferList, TransferState};

use crate::cli::{self, TransfersVerb};
use crate::client::{CALL, Client};
use crate::failure::Failure;
use crate::output::{Cell, Column, Output, Table, Tone, count, duration, peer, rate, size_or_unknown};

/// How many ended transfers are shown beside the open ones.
const ENDED_SHOWN: usize = 10;

/// Between two looks of `--watch`.
const LOOK: Duration = Duration::from_millis(500);

/// Runs `transfers`.
pub(super) async fn run(client: &Client, out: &Output, args: cli::Transfers) -> Result<(), Failure> {
    match args.verb {
        Some(TransfersVerb::Cancel { id }) => change(client, out, id, Change::Cancel).await,
        Some(TransfersVerb::Pause { id }) => change(client, out, id, Change::Pause).await,
        Some(TransfersVerb::Resume { id }) => change(client, out, id, Change::Resume).await,
        Some(TransfersVerb::Priority { id, priority }) => {
            prioritize(client, out, id, priority.to_wire()).await
        }
        None if args.watch => {
            tokio::select! {
                biased;
                // Ctrl-C is how one stops watching, and no failure.
                _ = tokio::signal::ctrl_c() => Ok(()),
                ended = watch(client, out, args.all) => ended,
            }
        }
        None => list(client, out, args.all).await,
    }
}

/// What is done with one transfer.
enum Change {
    Cancel,
    Pause,
    Resume,
}

async fn change(client: &Client, out: &Output, id: u64, change: Change) -> Result<(), Failure> {
    let (method, call, done) = match change {
        Change::Cancel => (Method::DELETE, "", "is cancelled."),
        Change::Pause => (Method::POST, "/pause", "is paused."),
        Change::Resume => (Method::POST, "/resume", "goes on."),
    };
    let path = format!("/v1/transfers/{id}{call}");
    let answer = client.json::<Transfer>(method, &path, None::<&()>, CALL).await?;
    if out.json() {
        return out.raw(&answer.raw);
    }
    let Transfer { name, state, .. } = &answer.value;
    match (change, state) {
        // It was faster.
        (Change::Pause, TransferState::Done) => out.line(&format!("Transfer {id} ({name}) is done already.")),
        _ => out.line(&format!("Transfer {id} ({name}) {done}")),
    }
}

async fn prioritize(client: &Client, out: &Output, id: u64, priority: Priority) -> Result<(), Failure> {
    let path = format!("/v1/transfers/{id}/priority");
    let answer = client.json::<Transfer>(Method::POST, &path, Some(&SetPriority { priority }), CALL).await?;
    if out.json() {
        return out.raw(&answer.raw);
    }
    let Transfer { name, priority, .. } = &answer.value;
    out.line(&format!("Transfer {id} ({name}) has {priority} priority."))
}

async fn list(client: &Client, out: &Output, all: bool) -> Result<(), Failure> {
    let shown = look(client, all).await?;
    if out.json() {
        return out.document(&shown.list);
    }
    if shown.list.transfers.is_empty() {
        out.note(
            "Nothing was fetched yet: `p2pctl fetch NAME` does, `p2pctl list --all` shows what there is.",
        );
        return Ok(());
    }
    out.table(&table(&shown.list.transfers))?;
    if shown.left_out > 0 {
        out.note(&format!("{} more ended before: --all shows them.", shown.left_out));
    }
    Ok(())
}

/// What is shown, and how much is not.
struct Shown {
    list: TransferList,
    left_out: usize,
}

async fn look(client: &Client, all: bool) -> Result<Shown, Failure> {
    let mut list = client.get::<TransferList>("/v1/transfers").await?.value;
    let before = list.transfers.len();
    if !all {
        let mut ended = 0;
        list.transfers.retain(|transfer| {
            ended += usize::from(transfer.state.is_ended());
            !transfer.state.is_ended() || ended <= ENDED_SHOWN
        });
    }
    let left_out = before - list.transfers.len();
    Ok(Shown { list, left_out })
}

async fn watch(client: &Client, out: &Output, all: bool) -> Result<(), Failure> {
    let mut drawn = 0;
    let mut last = None;
    loop {
        let list = look(client, all).await?.list;
        if last.as_ref() != Some(&list) {
            match (out.json(), out.terminal()) {
                (true, _) => out.document(&list)?,
                (false, true) => drawn = redraw(&list, drawn)?,
                (false, false) => out.table(&table(&list.transfers)).and_then(|()| out.line(""))?,
            }
            last = Some(list);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Draws over the lines that were drawn before; gives how many there are now.
fn redraw(list: &TransferList, drawn: usize) -> Result<usize, Failure> {
    let mut lines = match list.transfers.is_empty() {
        true => vec!["Nothing is fetched now. Ctrl-C ends this.".to_owned()],
        false => table(&list.transfers).lines(),
    };
    let window = rustix::termios::tcgetwinsize(io::stdout());
    let (width, height) =
        window.map_or((80, 24), |size| (usize::from(size.ws_col), usize::from(size.ws_row)));
    let rows = |line: &String| {
        anstream::adapter::strip_str(line).to_string().chars().count().div_ceil(width.max(1)).max(1)
    };
    // What has scrolled away cannot be drawn over.
    while lines.len() > 1 && lines.iter().map(rows).sum::<usize>() >= height {
        lines.pop();
    }
    let mut stdout = anstream::stdout();
    let mut raw = io::stdout();
    let written = match drawn {
        0 => Ok(()),
        up => write!(raw, "\x1b[{up}A\x1b[J").and_then(|()| raw.flush()),
    };
    written.and_then(|()| writeln!(stdout, "{}", lines.join("\n"))).map_err(|err| Failure::output(&err))?;
    Ok(lines.iter().map(rows).sum())
}

fn table(transfers: &[Transfer]) -> Table {
    let mut table = Table::new(&[
        Column::right("ID"),
        Column::left("STATE"),
        Column::right("DONE"),
        Column::right("SIZE"),
        Column::right("RATE"),
        Column::right("LEFT"),
        Column::right("FROM"),
        Column::flow("NAME"),
    ]);
    for transfer in transfers {
        let running = transfer.state == TransferState::Running;
        let left = transfer.eta_secs.filter(|_| running).map_or_else(|| "-".to_owned(), duration);
        let active = transfer.sources.iter().filter(|source| source.state == SourceState::Active).count();
        table.row([
            transfer.id.to_string().into(),
            state(transfer),
            done(transfer).into(),
            size_or_unknown(transfer.size).into(),
            if running { rate(transfer.rate) } else { "-".to_owned() }.into(),
            left.into(),
            if running { active.to_string() } else { "-".to_owned() }.into(),
            Cell::with_remarks(&transfer.name, &remarks(transfer)),
        ]);
    }
    table
}

fn state(transfer: &Transfer) -> Cell {
    match transfer.state {
        TransferState::Queued => {
            let place = transfer.queue_place.map(|place| format!(" {place}")).unwrap_or_default();
            Cell::toned(&format!("queued{place}"), Tone::Busy)
        }
        TransferState::Running => Cell::toned("running", Tone::Good),
        TransferState::Waiting => Cell::toned("waiting", Tone::Busy),
        TransferState::Paused => Cell::toned("paused", Tone::Busy),
        TransferState::Done => "done".into(),
        TransferState::Failed => Cell::toned("failed", Tone::Bad),
        TransferState::Cancelled => "cancelled".into(),
    }
}

fn done(transfer: &Transfer) -> String {
    match transfer.size {
        Some(0) => "100%".to_owned(),
        Some(size) => format!("{}%", transfer.done_bytes.saturating_mul(100) / size),
        None => "?".to_owned(),
    }
}

fn remarks(transfer: &Transfer) -> Vec<String> {
    let mut remarks: Vec<String> = Vec::new();
    if let Some(files) = transfer.files {
        let done = transfer.files_done.unwrap_or_default();
        remarks.push(format!("{done} of {}", count(files, "file", "files")));
    }
    if let Some(reason) = transfer.reason.as_ref().filter(|_| transfer.state != TransferState::Done) {
        remarks.push(reason.clone());
    }
    if let Some(why) = &transfer.incomplete {
        remarks.push(format!("may not be all of it: {why}"));
    }
    if transfer.priority != Priority::Normal && !transfer.state.is_ended() {
        remarks.push(format!("{} priority", transfer.priority));
    }
    for source in transfer.sources.iter().filter(|source| source.state == SourceState::Dropped) {
        let why = source.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        remarks.push(format!("dropped {}{why}", peer(&source.peer)));
    }
    let lost = transfer.sources.iter().filter(|source| source.state == SourceState::Lost).count();
    if lost > 0 && !transfer.state.is_ended() {
        remarks.push(format!("{} lost", count(lost as u64, "source", "sources")));
    }
    if !transfer.proven {
        remarks.push("unproven: nobody vouches for its bytes".to_owned());
    }
    remarks
}

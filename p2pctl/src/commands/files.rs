//! `list` and `search`: files, page by page, so that a network of any size can be listed.

use p2p_proto::control::{FileList, FileRow, FilesQuery};

use super::Route;
use crate::cli;
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Column, Output, Table, age, count, now_ms, size_or_unknown};

/// Files in one answer: enough to keep the number of calls small, few enough to be shown at once.
const PAGE: u64 = 1000;

/// Runs `list`.
pub(super) async fn list(client: &Client, out: &Output, args: cli::List) -> Result<(), Failure> {
    let empty = match (&args.prefix, &args.peer, args.all) {
        (Some(prefix), ..) => format!("No file has a name that starts with {prefix}."),
        (None, Some(peer), _) => format!("{peer} offers no files that this peer may see."),
        (None, None, true) => {
            "Nobody in the network offers a file. `p2pctl peers` shows who is there.".to_owned()
        }
        (None, None, false) => {
            "This peer shares no files yet: put some into a directory that `p2pctl shares` \
                                shows. `p2pctl list --all` shows the whole network's."
                .to_owned()
        }
    };
    let own = args.peer.is_none() && !args.all;
    let query = FilesQuery { prefix: args.prefix, peer: args.peer, all: args.all, ..FilesQuery::default() };
    show(client, out, query, args.limit, own, &empty).await
}

/// Runs `search`.
pub(super) async fn search(client: &Client, out: &Output, args: cli::Search) -> Result<(), Failure> {
    let empty = format!("Nobody in the network has a file with {} in its name.", args.text);
    let query = FilesQuery { text: Some(args.text), all: true, ..FilesQuery::default() };
    show(client, out, query, args.limit, false, &empty).await
}

async fn show(
    client: &Client,
    out: &Output,
    mut query: FilesQuery,
    limit: Option<u64>,
    own: bool,
    empty: &str,
) -> Result<(), Failure> {
    let mut printer = Printer { out, own, rows: 0, now: now_ms() };
    let mut incomplete: Option<String> = None;
    loop {
        let wanted = limit.map_or(PAGE, |limit| PAGE.min(limit - printer.rows));
        query.limit = u32::try_from(wanted).ok();
        let page = client.get::<FileList>(&route(&query)).await?.value;
        printer.page(&page.files)?;
        incomplete = incomplete.or(page.incomplete);
        let full = limit.is_some_and(|limit| printer.rows >= limit);
        // A page that is empty and promises another would be asked for without end.
        if full || page.next.is_none() || page.next == query.cursor {
            query.cursor = page.next;
            break;
        }
        query.cursor = page.next;
    }
    if out.json() {
        return printer.end_json(query.cursor, incomplete);
    }
    if printer.rows == 0 {
        out.note(empty);
    } else if query.cursor.is_some() {
        out.note(&format!("The first {} only; there are more.", count(printer.rows, "file", "files")));
    }
    if let Some(why) = incomplete {
        out.warn(&format!("this may not be all: {why}"));
    }
    Ok(())
}

fn route(query: &FilesQuery) -> String {
    let limit = query.limit.map(|limit| limit.to_string());
    Route::new("/v1/files")
        .with_some("prefix", query.prefix.as_deref())
        .with_some("text", query.text.as_deref())
        .with_some("peer", query.peer.as_deref())
        .with_some("all", query.all.then_some("true"))
        .with_some("limit", limit.as_deref())
        .with_some("cursor", query.cursor.as_deref())
        .0
}

/// Prints pages as they come: as one table, or as one `FileList`.
struct Printer<'a> {
    out: &'a Output,
    own: bool,
    rows: u64,
    now: i64,
}

impl Printer<'_> {
    fn page(&mut self, files: &[FileRow]) -> Result<(), Failure> {
        match self.out.json() {
            true => self.page_json(files)?,
            false if files.is_empty() => {}
            false => self.page_table(files)?,
        }
        self.rows += files.len() as u64;
        Ok(())
    }

    fn page_table(&self, files: &[FileRow]) -> Result<(), Failure> {
        let hash_width = if self.out.terminal() { 12 } else { 64 };
        let mut columns = vec![Column::right("SIZE").at_least(10), Column::left("MODIFIED").at_least(11)];
        if !self.own {
            columns.extend([Column::right("SOURCES").at_least(7), Column::left("HERE").at_least(4)]);
        }
        // A name that is broken over lines cannot be copied into the next command: the terminal wraps it instead.
        columns.extend([Column::left("HASH").at_least(hash_width), Column::left("NAME")]);
        let mut table = Table::new(&columns);
        for file in files {
            let modified = file.modified_ms.map_or_else(|| "-".to_owned(), |then| age(then, self.now));
            let mut cells = vec![size_or_unknown(file.size).into(), modified.into()];
            if !self.own {
                cells.push(file.sources.to_string().into());
                cells.push(if file.here { "yes" } else { "-" }.into());
            }
            cells.push(self.out.hash(file.content.as_deref()).into());
            cells.push(file.name.as_str().into());
            table.cells(cells);
        }
        self.out.table(&if self.rows > 0 { table.continued() } else { table })
    }

    fn page_json(&self, files: &[FileRow]) -> Result<(), Failure> {
        let mut text = if self.rows == 0 { "{\"files\":[".to_owned() } else { String::new() };
        for (index, file) in files.iter().enumerate() {
            if self.rows > 0 || index > 0 {
                text.push(',');
            }
            text.push_str(&serde_json::to_string(file).map_err(not_printable)?);
        }
        self.out.fragment(&text)
    }

    fn end_json(&self, next: Option<String>, incomplete: Option<String>) -> Result<(), Failure> {
        // The rest of a list without files is what follows the files of this one.
        let rest = FileList { files: Vec::new(), next, incomplete };
        let rest = serde_json::to_string(&rest).map_err(not_printable)?;
        self.out.raw(rest.trim_start_matches("{\"files\":[").as_bytes())
    }
}

fn not_printable(err: serde_json::Error) -> Failure {
    Failure::new(crate::exit::Exit::Failed, "not-printable", format!("Cannot print the answer: {err}"))
}

//! A directory of small files, beside rsync of the same.

use std::path::Path;

use anyhow::Result;
use p2p_content::ContentHash;
use p2p_tests::{Network, random_file, size_of_tree};

use crate::contest::compete;
use crate::ours::{Fetch, close, receiver};
use crate::product::Product;
use crate::rivals::{Rival, Site};
use crate::rows::Row;
use crate::table::{Measured, Outcome};
use crate::transfer::{Bench, Report};

/// The directory that is fetched.
const DIR: &str = "small";
/// The least and the most bytes of a file.
const SIZES: (u64, u64) = (4 << 10, 64 << 10);
/// Files in one directory.
const FILES_PER_DIR: u64 = 100;

/// The row.
pub(super) async fn run(bench: &Bench, row: Row, report: &mut Report) -> Result<()> {
    if let Some(missing) = bench.tools.missing(Rival::RsyncTree.tools()) {
        report.add(row, Outcome::Missing(missing));
        return Ok(());
    }
    let place = &bench.memory;
    bench.has_room(place, 4 * bench.small_files * SIZES.1)?;
    let fill = |number, shared: &Path| match number {
        1 => fill(&shared.join(DIR), bench.small_files),
        _ => Ok(()),
    };
    let network = Network::builder().peers(2).within(place).files(fill).start().await?;
    let help = receiver(&network)?.ctl(["fetch", "--help"]).await?.text();
    if !help.contains("--recursive") {
        let why = "this p2pctl has no `fetch --recursive`, which fetches a directory".to_owned();
        report.add(row, Outcome::Missing(why));
        return close(network).await;
    }
    let source = network.peer(1)?.shared(DIR);
    let (_, bytes) = size_of_tree(&source)?;
    let product = Product::Tree { path: receiver(&network)?.shared(DIR), like: source.clone() };
    let mut ours = Fetch::new("p2pctl fetch -r", &network, &["fetch", "--recursive", DIR], product);
    let dir = network.dir().join("rival");
    std::fs::create_dir(&dir)?;
    // A tree is compared with its source, not with a hash.
    let hash = ContentHash::of(b"");
    let site = Site { tools: &bench.tools, dir: &dir, source: &source, name: DIR, hash, len: bytes };
    let mut rival = Rival::RsyncTree.start(site).await?;
    let both = compete(&mut ours, rival.as_mut(), bench.runs, 0).await?;
    report.add(row, Outcome::Measured(Measured::of_contest(row.target.measure, bytes, both)));
    drop(rival);
    close(network).await
}

/// Sizes are spread evenly, and the same on every machine.
fn fill(root: &Path, count: u64) -> Result<()> {
    let (least, most) = SIZES;
    for number in 0..count {
        // A step that shares no factor with the range goes through all sizes, and not in order.
        let len = least + number * 7919 % (most - least + 1);
        let path = root.join(format!("{:03}/{number:06}.bin", number / FILES_PER_DIR));
        random_file(&path, len, number)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn sizes_are_spread_over_the_range() {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), 250).unwrap();
        let (files, bytes) = size_of_tree(dir.path()).unwrap();
        assert_eq!(files, 250);
        let mean = bytes / files;
        assert!((30 << 10..38 << 10).contains(&mean), "{mean}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }
}

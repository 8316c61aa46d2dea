//! A gibibyte of names from one peer: taken, found, and gone again, in the memory that any catalog takes. Takes minutes and
//! gigabytes of disk: `cargo xtask test-large` runs it.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]
#![allow(clippy::print_stdout, reason = "its figures")]

mod harness;

use std::time::{Duration, Instant};

use harness::process::Process;
use harness::{Peer, SyncStream, complete, delta, file, removal, upserts};
use p2p_proto::v1::CatalogDelta;

/// Bytes of all names.
const ALL: usize = 1 << 30;
/// Bytes of one.
const EACH: usize = 1000;
/// Names in a batch.
const BATCH: usize = 1000;
/// What maestrod may hold meanwhile, in MiB.
const MOST_MIB: u64 = 300;

/// A name of its own, with parts that repeat as those of real ones do.
fn name(number: usize) -> String {
    let mut name = format!("{:04}/{number:010}", number / 10_000);
    while name.len() < EACH {
        let part = format!("/{}", "directory ".repeat(20));
        name.push_str(&part[..part.len().min(EACH - name.len())]);
    }
    name.truncate(name.trim_end_matches(['/', ' ']).len());
    name
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes and gigabytes of disk; `cargo xtask test-large` runs it"]
async fn a_gibibyte_of_names_takes_bounded_memory_and_disturbs_nobody() {
    let maestro = Process::start();
    let (mallory, ada) = (Peer::new("mallory"), Peer::new("ada"));
    let mut others = maestro.connect(&ada).await;
    let mut other = ada.announce_by(&mut others, &[file("a", "1")]).await;
    let mut stream =
        SyncStream::welcomed(mallory.open_by(maestro.connect(&mallory).await, 1, u64::MAX).await).await;
    let batches = ALL / EACH / BATCH + 1;
    // Whoever asks meanwhile is answered, and whoever tells is heard.
    let mut disturbed = async |told: &mut u64, slowest: &mut Duration| {
        *told += 1;
        let (asked, name) = (Instant::now(), format!("of-ada-{told}"));
        other.apply(delta(1, upserts(*told, &[file(&name, "1")]))).await;
        assert_eq!(maestro.who_has(&name).await, ["ada"]);
        *slowest = (*slowest).max(asked.elapsed());
    };
    let (began, mut most, mut slowest, mut told) = (Instant::now(), 0, Duration::ZERO, 1);
    for batch in 0..batches {
        let files: Vec<_> = (0..BATCH).map(|number| file(&name(batch * BATCH + number), "x")).collect();
        let first = (batch * BATCH + 1) as u64;
        let next = CatalogDelta { reset: batch == 0, ..delta(1, upserts(first, &files)) };
        assert!(!stream.apply(next).await.resync);
        if batch % 20 == 0 {
            most = most.max(maestro.private_mib());
            disturbed(&mut told, &mut slowest).await;
        }
    }
    let names = batches * BATCH;
    assert_eq!(maestro.who_has(&name(names - 1)).await, ["mallory"]);
    let came = began.elapsed();
    for batch in 0..batches {
        let first = (names + batch * BATCH + 1) as u64;
        let gone = (first..).zip(batch * BATCH..).take(BATCH);
        let gone = gone.map(|(sequence, number)| removal(sequence, &name(number))).collect();
        assert!(!stream.apply(delta(1, gone)).await.resync);
        if batch % 20 == 0 {
            most = most.max(maestro.private_mib());
            disturbed(&mut told, &mut slowest).await;
        }
    }
    for number in [0, names / 2, names - 1] {
        assert_eq!(maestro.who_has(&name(number)).await, [""; 0]);
    }
    // Both sides agree that nothing is left.
    let end = CatalogDelta { through_sequence: 2 * names as u64, ..complete(delta(1, Vec::new()), &[]) };
    assert!(!stream.apply(end).await.resync);
    println!(
        "{names} names, {} MiB, in {came:.1?}, and gone in {:.1?}: maestrod held {most} MiB, the slowest answer came after {slowest:.2?}",
        (names * EACH) >> 20,
        began.elapsed().saturating_sub(came)
    );
    assert!(most < MOST_MIB, "{most} MiB");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
}

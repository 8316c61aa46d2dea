//! The machine's free memory.

use std::hint::black_box;

use anyhow::{Context, Result};

/// The smallest page there is.
const PAGE: usize = 4096;

/// Touches up to this many bytes of free memory, at most half of it, and gives them back.
///
/// A virtual machine's host takes back what is free for a second or so. Who uses it first then waits for the host, for up
/// to a second and a half per GiB: more than what is measured, and by chance once one contestant and once the other.
pub(crate) fn have_ready(bytes: u64) -> Result<()> {
    let memory = std::fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let free = memory.lines().find_map(|line| line.strip_prefix("MemFree:"));
    let free_kib: u64 = free
        .and_then(|free| free.trim().trim_end_matches(" kB").parse().ok())
        .context("/proc/meminfo does not say how much memory is free")?;
    let len = usize::try_from(bytes.min(free_kib * 1024 / 2))?;
    let mut memory = vec![0u8; len];
    for page in memory.chunks_mut(PAGE) {
        if let Some(first) = page.first_mut() {
            *first = 1;
        }
    }
    black_box(memory);
    Ok(())
}

//! How the daemon takes memory from the system.
//!
//! Called by a daemon's `main`, first of all.

/// Takes memory in small pages only.
///
/// The allocator asks for huge pages where the system leaves the choice to it, and a huge page stays whole while one
/// byte of it is in use: a daemon that had just hashed 10,000 files held 59 MiB, and 24 without. It does not matter to
/// the rate of a transfer, whose bytes pass through buffers that are used again.
pub fn take_small_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        // Before there is a log; and all that it costs is memory.
        tracing::debug!(%error, "huge pages stay allowed");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn huge_pages_are_off_afterwards() {
        super::take_small_pages();
        assert!(rustix::thread::transparent_huge_pages_are_disabled().unwrap());
    }
}

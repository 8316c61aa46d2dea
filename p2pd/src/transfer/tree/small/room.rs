//! What of the disk is there for the files of a run. Pure.

use crate::transfer::tree::BLOCK;

/// What the disk had room for when the run began, and what is left of it.
pub(super) struct Room {
    free: u64,
    reserve: u64,
    left: u64,
}

impl Room {
    /// Where so many bytes are free, of which `reserve` stay so.
    pub(super) fn new(free: u64, reserve: u64) -> Self {
        Self { free, reserve, left: free.saturating_sub(reserve) }
    }

    /// Takes what a file needs.
    ///
    /// # Errors
    /// Where there is not so much; then others may fit that are shorter.
    pub(super) fn take(&mut self, size: u64) -> Result<(), String> {
        let Self { free, reserve, left } = self;
        match left.checked_sub(room_of(size)) {
            Some(rest) => {
                *left = rest;
                Ok(())
            }
            None => Err(format!(
                "it needs {size} bytes, and {free} were free before the others, of which {reserve} are kept free \
                 ([transfers] reserve_bytes)"
            )),
        }
    }
}

/// Bytes of the disk that a file needs.
pub(super) fn room_of(size: u64) -> u64 {
    size.next_multiple_of(BLOCK)
}

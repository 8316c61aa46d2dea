//! How many names may wait to be looked at, of all shares together: pure.
//!
//! What there is no room for is not forgotten: the directory that it is in is scanned, and a scan waits for room.

/// How many names may wait before a scan has to.
const SCANS: usize = 8192;

/// How many names may wait before the watches' hints of others are passed over: some 10 MB of them. A scan costs a
/// look at everything in its directory, so bursts of ordinary size are followed name by name.
const HINTS: usize = 32_768;

/// How many names of one share may wait whatever waits in the others, so that nobody has to wait for a scan of theirs
/// since somebody else unpacks something.
const OWN: usize = 1024;

/// The room for names that wait, and whether it is short.
#[derive(Debug, Clone)]
pub(super) struct Room {
    scans: usize,
    hints: usize,
    own: usize,
    is_short: bool,
}

impl Default for Room {
    fn default() -> Room {
        Room::new(SCANS, HINTS, OWN)
    }
}

impl Room {
    /// Room for so many names: before a scan has to wait, before hints are passed over, and of one share in any case.
    pub(super) const fn new(scans: usize, hints: usize, own: usize) -> Room {
        Room { scans, hints, own, is_short: false }
    }

    /// Whether what scans tell can be taken while so many names wait.
    pub(super) fn takes_scans(&self, waiting: usize) -> bool {
        waiting < self.scans
    }

    /// Whether a hint can be taken of a name that does not wait yet, while `waiting` names do, `own` of them in the same
    /// share. Once there was no room there is none before there is some for scans too: else what was passed over would
    /// wait for as long as there is anything new.
    pub(super) fn takes_hints(&mut self, waiting: usize, own: usize) -> bool {
        let limit = if self.is_short { self.scans } else { self.hints };
        self.is_short = waiting >= limit;
        !self.is_short || own < self.own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_are_taken_up_to_the_bound_and_then_after_scans() {
        let mut room = Room::new(2, 5, 0);
        let taken = |room: &mut Room, waiting: &[usize]| -> Vec<bool> {
            waiting.iter().map(|waiting| room.takes_hints(*waiting, *waiting)).collect()
        };
        assert_eq!(taken(&mut room, &[0, 4, 5, 4, 2]), [true, true, false, false, false]);
        assert_eq!((room.takes_scans(2), room.takes_scans(1)), (false, true));
        assert_eq!(taken(&mut room, &[1, 4, 5]), [true, true, false]);
    }

    #[test]
    fn a_share_has_some_room_whatever_happens_in_the_others() {
        let mut room = Room::new(2, 5, 3);
        assert!(!room.takes_hints(5, 3));
        assert!(room.takes_hints(6, 2));
        assert!(!room.takes_hints(7, 3));
    }
}

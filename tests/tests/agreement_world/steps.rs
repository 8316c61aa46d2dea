//! What may happen, and how often it was seen.

use proptest::sample::Index;

/// What becomes of rows on a disk, of those of one peer.
pub(crate) const SPOILS: [&str; 11] = [
    "UPDATE files SET size = size + 1 WHERE peer = ?1 AND name_id % 2 = 0",
    "UPDATE files SET content = zeroblob(32) WHERE peer = ?1 AND name_id % 3 = 0",
    "DELETE FROM files WHERE peer = ?1 AND name_id % 2 = 1",
    "INSERT OR IGNORE INTO files (peer, share, name_id, content, size, modified_ms, generation)
     SELECT peer, 'zz', name_id, content, size, modified_ms, generation FROM files WHERE peer = ?1",
    "UPDATE files SET generation = generation + 1 WHERE peer = ?1",
    "UPDATE peers SET digest = x'0102030405060708090a0b0c0d0e0f10' WHERE id = ?1",
    "UPDATE peers SET files = files + 1 WHERE id = ?1",
    "UPDATE peers SET applied = applied + 2 WHERE id = ?1",
    "UPDATE peers SET applied = max(applied - 3, 0) WHERE id = ?1",
    "UPDATE peers SET epoch = epoch + 1 WHERE id = ?1",
    "UPDATE peers SET sweeping = 1 - sweeping, generation = generation + 1 WHERE id = ?1",
];

/// What becomes on a disk of what the peer keeps of its catalog as a whole.
pub(crate) const LEDGER_SPOILS: [&str; 5] = [
    "UPDATE catalog SET digest = x'0102030405060708090a0b0c0d0e0f10'",
    "UPDATE catalog SET announced = announced + 1",
    "UPDATE catalog SET announced = 0",
    "UPDATE catalog SET dead = dead + 9",
    "UPDATE catalog SET dead = 0; UPDATE shares SET files = 0, bytes = 0",
];

/// How a message is not what was said. No honest peer does any of it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Garbling {
    /// It comes twice.
    Twice,
    /// The one after it comes first.
    Swapped,
    /// Its changes are in the other order.
    Reversed,
    /// It is of another life of the catalog.
    Epoch,
    /// It says that less is sent than it has.
    Through,
}

/// One thing that happens.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Put {
        share: usize,
        name: u8,
        bytes: u8,
    },
    Remove {
        share: usize,
        name: u8,
    },
    Show {
        share: usize,
        friends: bool,
        available: bool,
    },
    /// The peer begins a stream; the one that it had is cut with all that is on its way. One of an older release cannot tell its
    /// catalog part by part.
    Connect {
        is_older: bool,
    },
    /// The peer says the next thing.
    Say,
    /// The maestro takes the next message of one of the streams that it has.
    Take(Index),
    /// The peer hears the next message.
    Hear,
    /// The two say, take and hear so many times.
    Talk(u8),
    /// The stream breaks, and of what the peer has said so many messages will still arrive.
    Cut {
        delivered: u8,
    },
    RestartPeer,
    RestartMaestro,
    BackUpPeer,
    RestorePeer(Index),
    BackUpMaestro,
    RestoreMaestro(Index),
    /// The peer's database is replaced by a new one.
    LosePeer,
    /// One of [`SPOILS`].
    Spoil(usize),
    /// One of [`LEDGER_SPOILS`].
    SpoilLedger(usize),
    /// The next message that the maestro takes of the newest stream is not what the peer said.
    Garble(Garbling),
    /// The maestro looks whether it holds the right files.
    Examine,
    /// The maestro forgets the peer, if it is away.
    Forget,
}

/// How often something was seen.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(super) cases: u64,
    pub(super) messages: u64,
    pub(super) superseded: u64,
    pub(super) whole_catalogs: u64,
    pub(super) resyncs: u64,
    pub(super) repairs: u64,
    pub(super) files_repaired: u64,
    pub(super) refused: u64,
    pub(super) restored_peers: u64,
    pub(super) restored_maestros: u64,
    pub(super) forgotten: u64,
}

impl Counts {
    fn all(&mut self) -> [&mut u64; 11] {
        [
            &mut self.cases,
            &mut self.messages,
            &mut self.superseded,
            &mut self.whole_catalogs,
            &mut self.resyncs,
            &mut self.repairs,
            &mut self.files_repaired,
            &mut self.refused,
            &mut self.restored_peers,
            &mut self.restored_maestros,
            &mut self.forgotten,
        ]
    }

    pub(crate) fn add(&mut self, more: &Counts) {
        let mut more = Counts { ..*more };
        for (mine, more) in self.all().into_iter().zip(more.all()) {
            *mine += *more;
        }
    }

    pub(crate) fn saw_everything(&self) -> bool {
        let mut seen = Counts { ..*self };
        seen.all().into_iter().all(|count| *count > 0)
    }
}

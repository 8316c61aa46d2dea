//! How long a source that owes bytes may send none, be they of a long file or of many short ones. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// A source that owes bytes and sends none for so long is lost.
pub(super) const SILENCE: Duration = Duration::from_secs(20);
/// How much longer it may take while a limit of its own holds it back: it sends little then, and to others too.
const HELD_BACK: Duration = Duration::from_secs(160);

/// When a source is lost if nothing comes.
pub(super) struct Patience {
    /// When bytes came, or were first asked for.
    heard: Instant,
    /// When the source last said that what held it back does so no more.
    freed: Instant,
    is_held_back: bool,
}

impl Patience {
    /// With a source that owes nothing yet.
    pub(super) fn new(now: Instant) -> Self {
        Self { heard: now, freed: now, is_held_back: false }
    }

    /// Bytes came, or it owes some from now on.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// So long it could not be heard.
    pub(super) fn prolonged(&mut self, by: Duration) {
        self.heard += by;
    }

    /// Whether it says that a limit of its own holds it back.
    pub(super) fn held_back(&mut self, is_held_back: bool, now: Instant) {
        if self.is_held_back && !is_held_back {
            self.freed = now;
        }
        self.is_held_back = is_held_back;
    }

    pub(super) fn is_held_back(&self) -> bool {
        self.is_held_back
    }

    /// For how long nothing has come.
    pub(super) fn waited(&self, now: Instant) -> Duration {
        now - self.heard
    }

    /// When it is lost. Whatever it says of itself, it has no more time than that of one that is held back.
    pub(super) fn ends_at(&self) -> Instant {
        let at_the_latest = self.heard + SILENCE + HELD_BACK;
        match self.is_held_back {
            true => at_the_latest,
            false => (self.heard.max(self.freed) + SILENCE).min(at_the_latest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_held_back_has_more_time_and_not_any_time() {
        let start = Instant::now();
        let secs = |secs| start + Duration::from_secs(secs);
        let mut patience = Patience::new(start);
        assert_eq!(patience.ends_at(), secs(20));
        patience.held_back(true, secs(10));
        assert_eq!(patience.ends_at(), secs(180));
        patience.held_back(false, secs(100));
        assert_eq!(patience.ends_at(), secs(120), "it has its time from then on");
        patience.held_back(false, secs(110));
        assert_eq!(patience.ends_at(), secs(120), "which is not new");
        patience.held_back(true, secs(110));
        patience.held_back(false, secs(170));
        assert_eq!(patience.ends_at(), secs(180), "words are no bytes");
        patience.heard(secs(170));
        assert_eq!(patience.ends_at(), secs(190));
        patience.prolonged(Duration::from_secs(3));
        assert_eq!(patience.ends_at(), secs(193));
    }
}

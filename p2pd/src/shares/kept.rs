//! What the loop keeps of one share. It changes by what it is told, and says what there is to do.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::board::Posted;
use super::hint::Hint;
use super::look::SMALL_BYTES;
use super::root::Place;
use super::settle::{Due, Pending, Waits};
use super::wanted::Scans;
use super::watch::Watch;
use super::{ShareConfig, Timing};

/// How many things that can't be shared are remembered.
const SKIPS: usize = 1000;

/// Files longer than this, in bytes, are not hashed by all workers at once, so that short ones need not wait for them.
const LONG_BYTES: u64 = 64 * SMALL_BYTES;

/// How often the list of what can't be shared is made while a scan runs.
const SHOW_SKIPS: Duration = Duration::from_secs(1);

/// How long a scan waits for adoptions at the most, where one follows the other.
const SCANS_WAIT: Duration = Duration::from_millis(500);

/// How soon the files that seem to be open are looked at after their closing may have gone unseen.
const AFTER_LOST_HINTS: Duration = Duration::from_secs(2);

/// One share.
#[derive(Debug)]
pub(super) struct Kept {
    /// Which life of the share this is: what is told of an earlier one is of no interest.
    pub(super) id: u64,
    pub(super) config: ShareConfig,
    pub(super) name: Arc<str>,
    pub(super) path: PathBuf,
    /// Its directory, or why it is not available.
    pub(super) place: Result<Place, Arc<str>>,
    pub(super) watch: Option<Arc<Watch>>,
    pub(super) pending: Pending,
    /// Files to hash that are too long for who looks, the very long ones apart.
    medium: VecDeque<Due>,
    long: VecDeque<Due>,
    pub(super) scans: Scans,
    pub(super) adoptions: Adoptions,
    skips: Skips,
    next_show: Instant,
    pub(super) next_probe: Instant,
    pub(super) is_probing: bool,
    /// A scan that somebody waits for found another directory; the next probe says more.
    pub(super) is_scan_lost: bool,
    pub(super) next_rescan: Instant,
}

/// Files that were put there by this program and are on their way into the catalog.
#[derive(Debug, Default)]
pub(super) struct Adoptions {
    under_way: usize,
    since: Option<Instant>,
}

impl Adoptions {
    pub(super) fn begin(&mut self, now: Instant) {
        self.under_way += 1;
        self.since.get_or_insert(now);
    }

    pub(super) fn end(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
        if self.under_way == 0 {
            self.since = None;
        }
    }

    /// Until when a scan of a directory waits for them: before they are in the catalog, all of them would be looked at
    /// one by one, in vain.
    pub(super) fn hold_scans_until(&self) -> Option<Instant> {
        self.since.map(|since| since + SCANS_WAIT)
    }
}

impl Kept {
    pub(super) fn new(id: u64, config: ShareConfig, timing: &Timing, now: Instant) -> Kept {
        let path = std::path::absolute(&config.path).unwrap_or_else(|_| config.path.clone());
        Kept {
            id,
            name: config.name.as_str().into(),
            path,
            config,
            place: Err("it was not looked at yet".into()),
            watch: None,
            pending: Pending::new(waits(timing)),
            medium: VecDeque::new(),
            long: VecDeque::new(),
            scans: Scans::default(),
            adoptions: Adoptions::default(),
            skips: Skips::default(),
            next_show: now,
            next_probe: now,
            is_probing: false,
            is_scan_lost: false,
            next_rescan: now,
        }
    }

    /// Begins another life: nothing that was told of the one before counts.
    pub(super) fn begin_life(
        &mut self,
        id: u64,
        place: Result<Place, Arc<str>>,
        watch: Option<Arc<Watch>>,
        timing: &Timing,
    ) {
        self.id = id;
        self.is_scan_lost = false;
        self.scans = if place.is_ok() { Scans::whole() } else { Scans::default() };
        self.adoptions = Adoptions::default();
        self.place = place;
        self.watch = watch;
        self.pending = Pending::new(waits(timing));
        self.medium.clear();
        self.long.clear();
        self.skips = Skips::default();
    }

    /// The kernel told of something. `has_room`: a name more can wait.
    pub(super) fn on_hint(&mut self, hint: Hint, has_room: bool, now: Instant) {
        match hint.to_look_at() {
            Some(name) if !has_room && !self.pending.has(name) => self.pass_over(name, now),
            _ => self.follow(hint, now),
        }
        self.check_hints(now);
    }

    /// Somebody came across a file that is not what the catalog says.
    pub(super) fn on_sight(&mut self, name: &str, has_room: bool, now: Instant) {
        if has_room || self.pending.has(name) {
            self.pending.sighted(name, now);
        } else {
            self.pass_over(name, now);
        }
    }

    fn follow(&mut self, hint: Hint, now: Instant) {
        match hint {
            Hint::Created(name) => self.pending.created(&name, now),
            Hint::NewDirectory(name) => self.scans.want(&name),
            Hint::Written(name) => self.pending.written(&name, now),
            Hint::Closed(name) => self.pending.closed(&name, now),
            Hint::Touched(name) => self.pending.touched(&name, now),
            Hint::Left(name) => self.pending.left(&name, now),
            Hint::Arrived(name) => self.pending.arrived(&name, now),
            Hint::Renamed { from, to } => self.pending.renamed(&from, &to, now),
            Hint::Root => self.next_probe = now,
            Hint::Unnameable { shown, reason } => self.skip(&shown, &reason),
        }
    }

    /// There is no room for a name more: a scan comes across it when there is.
    fn pass_over(&mut self, name: &str, now: Instant) {
        if self.pending.passed_over(now) {
            let share = &*self.name;
            tracing::debug!(
                share,
                "in the share {share} changes come faster than they can be looked at; scanning"
            );
        }
        self.scans.want_around(name);
    }

    /// Where hints were lost, only a scan tells what happened.
    pub(super) fn check_hints(&mut self, now: Instant) {
        if self.watch.as_ref().is_some_and(|watch| watch.take_lost_hints()) {
            let share = &*self.name;
            tracing::debug!(
                share,
                "in the share {share} changes came faster than they could be told; scanning"
            );
            self.pending.signs_lost(now, AFTER_LOST_HINTS);
            self.scans.want_whole();
        }
    }

    /// Whether the kernel can't tell of everything.
    pub(super) fn is_unwatched(&self) -> bool {
        self.watch.as_ref().is_none_or(|watch| watch.is_short())
    }

    /// A whole scan begins.
    pub(super) fn whole_scan_begins(&mut self) {
        self.skips.scan += 1;
    }

    /// A whole scan has seen everything.
    pub(super) fn whole_scan_ended(&mut self) {
        self.skips.forget_unseen();
    }

    /// Remembers that something can't be shared, and says so once.
    pub(super) fn skip(&mut self, shown: &str, reason: &str) {
        // What a scan and a look show of one name is the same, and safe on a terminal.
        let shown: String =
            shown.chars().flat_map(|c| if c.is_control() { escaped(c) } else { vec![c] }).collect();
        if self.skips.add(&shown, reason) {
            let share = &*self.name;
            // `p2pctl shares` lists them.
            tracing::debug!(
                share,
                file = shown,
                reason,
                "{shown} in the share {share} is not shared: {reason}"
            );
        }
    }

    /// Nothing keeps the file from being shared, or it's not there.
    pub(super) fn unskip(&mut self, name: &str) {
        self.skips.remove(name);
    }

    /// Has a file hashed when its turn comes.
    pub(super) fn queue_for_hashing(&mut self, due: Due, size: u64) {
        if size > LONG_BYTES { self.long.push_back(due) } else { self.medium.push_back(due) }
    }

    /// The next file to hash, and whether it's a very long one.
    pub(super) fn take_for_hashing(&mut self, may_be_long: bool) -> Option<(Due, bool)> {
        let medium = self.medium.pop_front().map(|due| (due, false));
        medium.or_else(|| if may_be_long { self.long.pop_front().map(|due| (due, true)) } else { None })
    }

    /// What is shown of it. While a scan runs, the list of what is not shared is brought up to date now and then only:
    /// making it costs more than adding to it.
    pub(super) fn posted(&mut self, now: Instant) -> Posted {
        if self.scans.running.is_none() || now >= self.next_show {
            self.skips.show();
            self.next_show = now + SHOW_SKIPS;
        }
        Posted {
            name: Arc::clone(&self.name),
            path: self.path.clone(),
            visible: self.config.visible,
            downloads: self.config.downloads,
            place: self.place.clone(),
            skipped: Arc::clone(&self.skips.shown),
            pending: self.pending.len() as u64,
            added: self.config.added,
            short: self.place.is_ok() && self.is_unwatched(),
        }
    }
}

fn waits(timing: &Timing) -> Waits {
    Waits { debounce: timing.debounce, open_grace: timing.open_grace }
}

fn escaped(c: char) -> Vec<char> {
    c.escape_default().collect()
}

/// What can't be shared, by name.
#[derive(Debug, Default)]
struct Skips {
    scan: u64,
    by_name: BTreeMap<String, (String, u64)>,
    is_changed: bool,
    shown: Arc<Vec<String>>,
}

impl Skips {
    /// Whether it is news.
    fn add(&mut self, name: &str, reason: &str) -> bool {
        if let Some((known, scan)) = self.by_name.get_mut(name) {
            *scan = self.scan;
            if known == reason {
                return false;
            }
            reason.clone_into(known);
        } else if self.by_name.len() < SKIPS {
            self.by_name.insert(name.to_owned(), (reason.to_owned(), self.scan));
        } else {
            return false;
        }
        self.is_changed = true;
        true
    }

    fn remove(&mut self, name: &str) {
        if !self.by_name.is_empty() && self.by_name.remove(name).is_some() {
            self.is_changed = true;
        }
    }

    /// Forgets what neither the last scan has come across nor the one before: what a scan finds is looked at after its
    /// end.
    fn forget_unseen(&mut self) {
        let before = self.by_name.len();
        self.by_name.retain(|_, (_, scan)| *scan + 1 >= self.scan);
        self.is_changed |= self.by_name.len() != before;
    }

    fn show(&mut self) {
        if std::mem::take(&mut self.is_changed) {
            let lines = self.by_name.iter().map(|(name, (reason, _))| format!("{name}: {reason}"));
            self.shown = Arc::new(lines.collect());
        }
    }
}

#[cfg(test)]
mod tests {
    use p2p_proto::control::Visibility;

    use super::*;

    fn kept(now: Instant) -> Kept {
        let config = ShareConfig {
            name: "docs".to_owned(),
            path: "/srv/docs".into(),
            visible: Visibility::Network,
            downloads: false,
            added: false,
        };
        Kept::new(1, config, &Timing::default(), now)
    }

    fn taken(kept: &mut Kept) -> Vec<String> {
        let next = || kept.scans.take().map(|scan| scan.map_or_else(|| "/".to_owned(), String::from));
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn what_there_is_no_room_for_is_left_to_a_scan_of_where_it_is() {
        let now = Instant::now();
        let mut kept = kept(now);
        let name = |text: &str| text.to_owned();
        let there: [fn(String) -> Hint; 6] =
            [Hint::Created, Hint::Written, Hint::Closed, Hint::Touched, Hint::Left, Hint::Arrived];
        for (number, hint) in there.into_iter().enumerate() {
            kept.on_hint(hint(format!("d{number}/e/a")), false, now);
            kept.on_hint(hint(format!("d{number}/e/b")), false, now);
            assert_eq!((kept.pending.len(), taken(&mut kept)), (0, vec![format!("d{number}/e")]));
        }
        kept.on_sight("d/a", false, now);
        kept.on_hint(Hint::NewDirectory(name("e/f")), false, now);
        assert_eq!((kept.pending.len(), taken(&mut kept)), (0, vec![name("d"), name("e/f")]));
        kept.on_hint(Hint::Created(name("at-the-top")), false, now);
        assert_eq!((kept.pending.len(), taken(&mut kept)), (0, vec![name("/")]));
        kept.on_hint(Hint::Written(name("d/a")), true, now);
        assert_eq!((kept.pending.len(), taken(&mut kept)), (1, vec![]));
    }

    #[test]
    fn what_waits_already_is_followed_where_there_is_no_room() {
        let now = Instant::now();
        let mut kept = kept(now);
        kept.on_hint(Hint::Written("d/a".to_owned()), true, now);
        kept.on_hint(Hint::Written("d/b".to_owned()), true, now);
        assert!(kept.pending.is_open("d/a"));
        kept.on_hint(Hint::Closed("d/a".to_owned()), false, now);
        kept.on_sight("d/b", false, now);
        assert!(!kept.pending.is_open("d/a") && kept.pending.is_open("d/b"));
        assert_eq!(taken(&mut kept), [""; 0]);
        // Who writes one that gets another name goes on under that, whether or not it waits already.
        for (at, to) in [(1, "d/a"), (2, "e/c")] {
            let from = "d/b".to_owned();
            kept.on_hint(Hint::Written(from.clone()), false, now);
            kept.on_hint(Hint::Left(from.clone()), false, now);
            kept.on_hint(Hint::Arrived(to.to_owned()), false, now);
            kept.on_hint(Hint::Renamed { from, to: to.to_owned() }, false, now);
            assert_eq!((kept.pending.len(), kept.pending.is_open("d/a")), (2, true), "{at}");
        }
        assert_eq!(taken(&mut kept), ["e"]);
        kept.on_sight("e/c", true, now);
        let due = kept.pending.take(now, 9).pop();
        assert!(due.is_some_and(|due| &*due.name == "e/c" && due.is_unsure));
    }
}

//! Who is asked for which file of a directory: many at a time of each source, so that no file waits for the answer to
//! another. Pure: events in, requests out; the clock is an argument.
//!
//! Files are asked for in their order. A source that has nothing left to be asked for takes over what a slower one has
//! not given, the latest first. A source that refuses a file is not asked for it again; a file that all who are there
//! have refused is an orphan, and somebody has to be found for it. What some have refused waits apart from the rest, so
//! that a slow source which alone has very many files keeps nobody from giving others.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::super::plan::SourceKey;

/// The number of a file within a run.
pub(super) type FileKey = u32;

/// Time that what a source is asked for should last, and so many round trips where those are longer, as with long files.
const HORIZON: Duration = Duration::from_millis(400);
const TRIPS: u32 = 2;
/// Files, and bytes, that a source may owe: what it gives within the horizon, within these bounds.
const FILES: std::ops::RangeInclusive<usize> = 32..=256;
const BYTES: std::ops::RangeInclusive<f64> = (1 << 20) as f64..=(8 << 20) as f64;
/// What a file costs beside its bytes, in bytes: it has to be found, opened and written.
const EACH: f64 = (16 << 10) as f64;
/// Weight of the newest answer in what is known of a source's pace.
const WEIGHT: f64 = 0.1;
/// What a source is taken to give per second before it gave anything.
const UNKNOWN: f64 = (1 << 20) as f64;
/// What is taken over must come so much sooner, and by at least so much time, or it is not worth being sent twice.
const SOONER: f64 = 2.0;
const SOONER_BY: f64 = 0.1;
/// Files that somebody has refused which are looked at for one that a source has not.
const LOOKED_AT: usize = 512;

/// The files of a run that are not here yet, and who is asked for them.
#[derive(Default)]
pub(super) struct Plan {
    files: HashMap<FileKey, File>,
    /// Whoever is there can be asked for them.
    waiting: VecDeque<FileKey>,
    /// Some have refused them, and others have not.
    turned_down: VecDeque<FileKey>,
    orphans: Vec<FileKey>,
    sources: BTreeMap<SourceKey, Source>,
}

struct File {
    size: u64,
    /// Who owes it: one, or more where each later one may be sooner.
    asked: Vec<SourceKey>,
    refused: Vec<SourceKey>,
    /// Its bytes are here, and are being proven and written.
    has_come: bool,
}

#[derive(Default)]
struct Source {
    owed: VecDeque<FileKey>,
    owed_cost: f64,
    /// Cost per second.
    pace: Option<f64>,
    /// Since when it works on what it gives next.
    since: Option<Instant>,
    /// Time from asking to an answer, whatever it is asked.
    round_trip: Duration,
    /// How far it was looked for one that it has not refused among those that others have.
    looked: usize,
}

/// What an answer is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It is to be proven and written.
    Wanted,
    /// Another source was sooner, or nobody asked.
    Extra,
}

impl Source {
    fn owes(&mut self, key: FileKey, size: u64, now: Instant) {
        self.since.get_or_insert(now);
        self.owed.push_back(key);
        self.owed_cost += cost(size);
    }

    fn owes_no_more(&mut self, key: FileKey, size: u64) -> bool {
        let Some(at) = self.owed.iter().position(|owed| *owed == key) else { return false };
        self.owed.remove(at);
        self.owed_cost -= cost(size);
        if self.owed.is_empty() {
            (self.owed_cost, self.since) = (0.0, None);
        }
        true
    }

    fn may_owe(&self, size: u64) -> bool {
        let horizon = HORIZON.max(self.round_trip * TRIPS).as_secs_f64();
        let pace = self.pace.unwrap_or(UNKNOWN);
        let bytes = (pace * horizon).clamp(*BYTES.start(), *BYTES.end());
        let files = match self.pace {
            // As many as of the cheapest kind, for which the bound of bytes says nothing.
            Some(pace) => ((pace * horizon / EACH) as usize).clamp(*FILES.start(), *FILES.end()),
            None => *FILES.start(),
        };
        self.owed.is_empty()
            || self.owed.len() < files && self.owed_cost + cost(size) <= bytes.max(EACH * 32.0)
    }

    /// Seconds until all that it owes has come. Who is overdue, or has not given anything yet, is taken to need as long again
    /// as it has taken.
    fn left(&self, now: Instant) -> f64 {
        let waited = self.since.map_or(0.0, |since| now.saturating_duration_since(since).as_secs_f64());
        self.pace.map_or(0.0, |pace| self.owed_cost / pace).max(waited)
    }
}

fn cost(size: u64) -> f64 {
    size as f64 + EACH
}

impl Plan {
    /// A file is to be fetched.
    pub(super) fn add(&mut self, key: FileKey, size: u64) {
        let file = File { size, asked: Vec::new(), refused: Vec::new(), has_come: false };
        self.files.insert(key, file);
        self.waiting.push_back(key);
    }

    /// Files that nobody is asked for yet, and whoever is there can be.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Files that nobody is asked for now and some or all who are there have refused.
    pub(super) fn turned_down(&self) -> usize {
        self.turned_down.len() + self.orphans.len()
    }

    /// Whether all that was added is here.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Those that have not come, for which sources can be looked for; the first that waits before the others.
    pub(super) fn lacking(&self) -> impl Iterator<Item = FileKey> {
        let asked = self.files.iter().filter(|(_, file)| !file.has_come).map(|(key, _)| *key);
        self.waiting.iter().chain(&self.turned_down).copied().chain(asked)
    }

    /// One of them.
    pub(super) fn any(&self) -> Option<FileKey> {
        self.lacking().next()
    }

    /// A source is there.
    pub(super) fn join(&mut self, source: SourceKey) {
        self.sources.entry(source).or_default();
        // Whoever is new may have what the others have not.
        self.turned_down.extend(std::mem::take(&mut self.orphans));
    }

    /// It takes so long until something can come of the source that it is asked for: there and back.
    pub(super) fn is_away(&mut self, source: SourceKey, round_trip: Duration) {
        if let Some(state) = self.sources.get_mut(&source) {
            state.round_trip = round_trip;
        }
    }

    /// The sources that are there.
    pub(super) fn sources(&self) -> Vec<SourceKey> {
        self.sources.keys().copied().collect()
    }

    /// A source is gone; others are asked for what it owes.
    pub(super) fn leave(&mut self, source: SourceKey) {
        let Some(gone) = self.sources.remove(&source) else { return };
        for key in gone.owed.into_iter().rev() {
            self.not_from(source, key);
        }
        // Of what waited for it, those who stay may have refused some.
        let (orphans, others) =
            self.turned_down.iter().copied().partition::<Vec<_>, _>(|key| self.is_orphan(*key));
        self.orphans.extend(orphans);
        self.turned_down = others.into();
    }

    /// A source does not have a file, or does not give it.
    pub(super) fn refused(&mut self, source: SourceKey, key: FileKey) {
        let Some(file) = self.files.get_mut(&key) else { return };
        file.refused.push(source);
        let size = file.size;
        if let Some(from) = self.sources.get_mut(&source) {
            from.owes_no_more(key, size);
        }
        self.not_from(source, key);
    }

    /// A source was told to leave a file, and does.
    pub(super) fn withdrawn(&mut self, source: SourceKey, key: FileKey) {
        let size = self.files.get(&key).map_or(0, |file| file.size);
        if let Some(from) = self.sources.get_mut(&source) {
            from.owes_no_more(key, size);
        }
        self.not_from(source, key);
    }

    /// A file has come from a source.
    pub(super) fn arrived(&mut self, source: SourceKey, key: FileKey, size: u64, now: Instant) -> Arrival {
        if let Some(from) = self.sources.get_mut(&source)
            && let Some(since) = from.since
            && from.owes_no_more(key, size)
        {
            let took = now.saturating_duration_since(since).as_secs_f64().max(1e-6);
            let pace = cost(size) / took;
            from.pace =
                Some(from.pace.map_or(pace, |mean| 1.0 / (1.0 / mean + (1.0 / pace - 1.0 / mean) * WEIGHT)));
            from.since = (!from.owed.is_empty()).then_some(now);
        }
        match self.files.get_mut(&key) {
            Some(file) if !file.has_come && file.asked.contains(&source) => {
                file.has_come = true;
                file.asked.retain(|asked| *asked != source);
                Arrival::Wanted
            }
            Some(file) => {
                file.asked.retain(|asked| *asked != source);
                Arrival::Extra
            }
            None => Arrival::Extra,
        }
    }

    /// What a source says of a file is in doubt. Whether it is to be settled: nobody is asked for the file then, until it is
    /// told to [lack](Self::lacks) or is removed.
    pub(super) fn doubted(&mut self, source: SourceKey, key: FileKey) -> bool {
        // Of one that has lost its place there may be words on their way, and others are asked by now.
        let is_asked = |file: &&mut File| file.asked.contains(&source);
        let Some(file) = self.files.get_mut(&key).filter(is_asked) else { return false };
        if let Some(from) = self.sources.get_mut(&source) {
            from.owes_no_more(key, file.size);
        }
        file.asked.retain(|asked| *asked != source);
        !std::mem::replace(&mut file.has_come, true)
    }

    /// Others that owe a file that has come: they need not give it.
    pub(super) fn others(&self, key: FileKey) -> Vec<SourceKey> {
        self.files.get(&key).map(|file| file.asked.clone()).unwrap_or_default()
    }

    /// What came of a file was false: it has to come again.
    pub(super) fn lacks(&mut self, key: FileKey) {
        let Some(file) = self.files.get_mut(&key) else { return };
        file.has_come = false;
        if file.asked.is_empty() {
            self.wait(key);
        }
    }

    /// A file is here, or given up.
    pub(super) fn remove(&mut self, key: FileKey) {
        let Some(file) = self.files.remove(&key) else { return };
        for source in &file.asked {
            if let Some(source) = self.sources.get_mut(source) {
                source.owes_no_more(key, file.size);
            }
        }
        if !file.has_come {
            self.waiting.retain(|waiting| *waiting != key);
            self.turned_down.retain(|waiting| *waiting != key);
            self.orphans.retain(|orphan| *orphan != key);
        }
    }

    /// How many files a source owes.
    pub(super) fn owed(&self, source: SourceKey) -> usize {
        self.sources.get(&source).map_or(0, |source| source.owed.len())
    }

    /// Files that all who are there have refused. They are the caller's until it removes them or a source joins.
    pub(super) fn orphans(&self) -> &[FileKey] {
        &self.orphans
    }

    /// What a source is to be asked for now.
    pub(super) fn requests(&mut self, source: SourceKey, now: Instant) -> Vec<FileKey> {
        let mut requests = Vec::new();
        while let Some(key) = self.next_for(source, now) {
            let (Some(file), Some(to)) = (self.files.get_mut(&key), self.sources.get_mut(&source)) else {
                break;
            };
            file.asked.push(source);
            to.owes(key, file.size, now);
            requests.push(key);
        }
        requests
    }

    fn next_for(&mut self, source: SourceKey, now: Instant) -> Option<FileKey> {
        let asked = self.sources.get_mut(&source)?;
        if let Some(first) = self.waiting.front() {
            let may_owe = asked.may_owe(self.files[first].size);
            return may_owe.then(|| self.waiting.pop_front()).flatten();
        }
        let has_not_refused = |key: &FileKey| !self.files[key].refused.contains(&source);
        // The others the next time.
        let from = if asked.looked < self.turned_down.len() { asked.looked } else { 0 };
        asked.looked = from;
        if let Some(at) = self.turned_down.iter().skip(from).take(LOOKED_AT).position(has_not_refused) {
            let may_owe = asked.may_owe(self.files[&self.turned_down[from + at]].size);
            return may_owe.then(|| self.turned_down.remove(from + at)).flatten();
        }
        asked.looked += LOOKED_AT;
        // Nothing waits for it: it takes over what another would give last.
        let mut others: Vec<_> = self.sources.iter().filter(|(other, _)| **other != source).collect();
        others.sort_unstable_by(|(_, one), (_, other)| other.left(now).total_cmp(&one.left(now)));
        others.into_iter().find_map(|(_, slow)| self.latest_of(slow, source, now))
    }

    /// The last that a slow source will give of what another one may give sooner.
    fn latest_of(&self, slow: &Source, source: SourceKey, now: Instant) -> Option<FileKey> {
        let asked = &self.sources[&source];
        let mut latest = slow.owed.iter().rev().take(LOOKED_AT);
        // Of slow ones two or more may owe it by now. Who has given nothing yet shows with one file how fast it is.
        let may_be_third = asked.pace.is_some() || asked.owed.is_empty();
        let key = latest.find(|key| {
            let file = &self.files[*key];
            (file.asked.len() < 2 || may_be_third)
                && !file.has_come
                && !file.refused.contains(&source)
                && !file.asked.contains(&source)
        })?;
        let file = &self.files[key];
        let own = (asked.owed_cost + cost(file.size)) / asked.pace.unwrap_or(UNKNOWN);
        let is_sooner = |other: &SourceKey| {
            let left = self.sources[other].left(now);
            left > own * SOONER && left > own + SOONER_BY
        };
        (asked.may_owe(file.size) && file.asked.iter().all(is_sooner)).then_some(*key)
    }

    /// A source that there is nothing to ask for, of any that are.
    pub(super) fn idle(&self) -> Option<SourceKey> {
        self.sources.iter().find(|(_, source)| source.owed.is_empty()).map(|(source, _)| *source)
    }

    /// The source that will have given last what it owes.
    pub(super) fn last(&self, now: Instant) -> Option<SourceKey> {
        let last =
            self.sources.iter().max_by(|(_, one), (_, other)| one.left(now).total_cmp(&other.left(now)));
        last.map(|(source, _)| *source)
    }

    /// A file will not come from a source that was asked for it.
    fn not_from(&mut self, source: SourceKey, key: FileKey) {
        let Some(file) = self.files.get_mut(&key) else { return };
        let was_asked = file.asked.contains(&source);
        file.asked.retain(|asked| *asked != source);
        if was_asked && file.asked.is_empty() && !file.has_come {
            self.wait(key);
        }
    }

    fn wait(&mut self, key: FileKey) {
        match self.files.get(&key) {
            None => {}
            Some(file) if file.refused.is_empty() => self.waiting.push_front(key),
            Some(_) if self.is_orphan(key) => self.orphans.push(key),
            Some(_) => self.turned_down.push_back(key),
        }
    }

    /// Whether all who are there have refused a file.
    fn is_orphan(&self, key: FileKey) -> bool {
        let Some(file) = self.files.get(&key).filter(|file| !file.refused.is_empty()) else { return false };
        self.sources.keys().all(|source| file.refused.contains(source))
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

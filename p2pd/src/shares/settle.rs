//! Which files have to be looked at, and when: pure, with the clock as an argument.
//!
//! A file is looked at when it is closed after writing, renamed, or when it has been quiet for long enough; while
//! someone writes it, it waits. At any moment a name is looked at once at the most, and until what was found is in the
//! catalog; what happens to it meanwhile is remembered and has it looked at again. So who looks can take what the
//! catalog says of the name for what was last found out.
//!
//! Signs of names that are not among these may have been passed over for want of room. Whether somebody writes such a
//! file is not known: it has to be quiet for as long as one that is known to be open.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Why a file has to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cause {
    /// It was come across; someone may still be writing it.
    Sighted,
    /// Its name appeared, by creation or as a further link to a file.
    Created,
    /// Who wrote it has closed it.
    Closed,
    /// It got its name by a rename, from this name if that was in the share too.
    Renamed {
        /// The name that it had.
        from: Option<Arc<str>>,
    },
}

/// A name that is to be looked at now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) name: Arc<str>,
    pub(super) cause: Cause,
    /// Someone may be writing it whose signs were passed over.
    pub(super) is_unsure: bool,
    /// Says which look it is: [`Pending::finish`] and its kin do nothing for a look that was superseded.
    pub(super) ticket: u64,
}

/// How long things wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waits {
    /// After an event, for others of the same file.
    pub(super) debounce: Duration,
    /// After the last sign of a file that is open for writing.
    pub(super) open_grace: Duration,
}

/// The names of one share that have to be looked at.
#[derive(Debug)]
pub(super) struct Pending {
    waits: Waits,
    entries: HashMap<Arc<str>, Entry>,
    queue: BTreeSet<(Instant, Arc<str>)>,
    last_ticket: u64,
    /// Until when a sign that was passed over may be the last one of a file that is open for writing.
    unsure_until: Option<Instant>,
}

#[derive(Debug)]
enum Entry {
    Waiting(Wait),
    /// It is being looked at, or what was found is on its way to the catalog.
    Busy {
        ticket: u64,
        next: Option<Wait>,
    },
}

#[derive(Debug, Clone)]
struct Wait {
    at: Instant,
    cause: Cause,
    /// Someone has it open for writing.
    is_open: bool,
    /// See [`Due::is_unsure`].
    is_unsure: bool,
}

impl Pending {
    pub(super) fn new(waits: Waits) -> Pending {
        let (entries, queue) = (HashMap::new(), BTreeSet::new());
        Pending { waits, entries, queue, last_ticket: 0, unsure_until: None }
    }

    /// Its name appeared.
    pub(super) fn created(&mut self, name: &str, now: Instant) {
        let wait = self.soon(now, Cause::Created);
        self.change(name, |old| if old.is_some_and(|old| old.is_open) { old.cloned() } else { Some(wait) });
    }

    /// Someone wrote to it, and has not closed it as far as is known.
    pub(super) fn written(&mut self, name: &str, now: Instant) {
        let wait = self.open(now);
        self.change(name, |_| Some(wait));
    }

    /// Who wrote it has closed it.
    pub(super) fn closed(&mut self, name: &str, now: Instant) {
        let wait = self.soon(now, Cause::Closed);
        self.change(name, |_| Some(wait));
    }

    /// Its mode, times or the like changed. Says nothing of whether it is open.
    pub(super) fn touched(&mut self, name: &str, now: Instant) {
        let sighted = Wait { is_unsure: self.is_unsure(now), ..self.soon(now, Cause::Sighted) };
        self.change(name, |old| match old {
            Some(old) if old.is_open => Some(old.clone()),
            Some(old) => Some(Wait { at: sighted.at, ..old.clone() }),
            None => Some(sighted),
        });
    }

    /// A scan found that the catalog does not have what is there.
    pub(super) fn sighted(&mut self, name: &str, now: Instant) {
        let is_unsure = self.is_unsure(now);
        let sighted = Wait { at: now, cause: Cause::Sighted, is_open: false, is_unsure };
        self.change(name, |old| Some(old.cloned().unwrap_or(sighted)));
    }

    /// Its name is gone, or given to something else. Whether it was open is kept in mind for
    /// [`renamed`](Pending::renamed).
    pub(super) fn left(&mut self, name: &str, now: Instant) {
        let gone = Wait { is_unsure: self.is_unsure(now), ..self.soon(now, Cause::Sighted) };
        self.change(name, |old| {
            let (is_open, is_unsure) =
                old.map_or((false, gone.is_unsure), |old| (old.is_open, old.is_unsure));
            Some(Wait { is_open, is_unsure, ..gone })
        });
    }

    /// It got its name by a rename.
    pub(super) fn arrived(&mut self, name: &str, now: Instant) {
        let wait = self.soon(now, Cause::Renamed { from: None });
        self.change(name, |_| Some(wait));
    }

    /// It was known as `from`, which it has [`left`](Pending::left), before it got its name. Who was writing it goes
    /// on, under its new name.
    pub(super) fn renamed(&mut self, from: &str, name: &str, now: Instant) {
        if self.is_open(from) {
            return self.written(name, now);
        }
        let is_unsure = self.wait_of(from).map_or_else(|| self.is_unsure(now), |wait| wait.is_unsure);
        let wait = Wait { is_unsure, ..self.soon(now, Cause::Renamed { from: Some(from.into()) }) };
        self.change(name, |_| Some(wait));
    }

    /// There was no room for a sign of a name that is not among these. Gives back whether that is news.
    pub(super) fn passed_over(&mut self, now: Instant) -> bool {
        let is_news = !self.is_unsure(now);
        self.unsure_until = Some(now + self.waits.open_grace);
        is_news
    }

    /// Signs were lost, the closing of files among them: those that are open are looked at within `patience`.
    pub(super) fn signs_lost(&mut self, now: Instant, patience: Duration) {
        let by = now + patience;
        let is_late = |entry: &Entry| matches!(entry, Entry::Waiting(wait) if wait.is_open && wait.at > by);
        let late: Vec<Arc<str>> = self
            .entries
            .iter()
            .filter(|(_, entry)| is_late(entry))
            .map(|(name, _)| Arc::clone(name))
            .collect();
        for name in late {
            self.change(&name, |old| old.map(|old| Wait { at: by, ..old.clone() }));
        }
    }

    /// Whether someone has it open for writing, as far as is known.
    pub(super) fn is_open(&self, name: &str) -> bool {
        self.wait_of(name).is_some_and(|wait| wait.is_open)
    }

    /// Whether the name is among these.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// At most `limit` names whose time has come. They are busy from now on.
    pub(super) fn take(&mut self, now: Instant, limit: usize) -> Vec<Due> {
        let mut due = Vec::new();
        while due.len() < limit && self.queue.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, name)) = self.queue.pop_first() else { break };
            if let Some(Entry::Waiting(wait)) = self.entries.remove(&name) {
                let ticket = self.set_busy(Arc::clone(&name), None);
                due.push(Due { name, cause: wait.cause, is_unsure: wait.is_unsure, ticket });
            }
        }
        due
    }

    /// Takes a name out of its turn, also from a look at it that is under way, which is superseded.
    pub(super) fn claim(&mut self, name: &str) -> Due {
        let name: Arc<str> = name.into();
        let next = match self.entries.remove(&name) {
            Some(Entry::Waiting(wait)) => {
                self.queue.remove(&(wait.at, Arc::clone(&name)));
                Some(wait)
            }
            Some(Entry::Busy { next, .. }) => next,
            None => None,
        };
        let ticket = self.set_busy(Arc::clone(&name), next);
        Due { name, cause: Cause::Sighted, is_unsure: false, ticket }
    }

    /// Whether this look counts still.
    pub(super) fn is_current(&self, name: &str, ticket: u64) -> bool {
        matches!(self.entries.get(name), Some(Entry::Busy { ticket: current, .. }) if *current == ticket)
    }

    /// What was found is in the catalog, or there was nothing to put there.
    pub(super) fn finish(&mut self, name: &str, ticket: u64) {
        self.end(name, ticket, None);
    }

    /// It has to be looked at again for this cause, `after` now.
    pub(super) fn again(&mut self, due: &Due, cause: Cause, now: Instant, after: Duration) {
        let wait = Wait { at: now + after, cause, is_open: false, is_unsure: due.is_unsure };
        self.end(&due.name, due.ticket, Some(wait));
    }

    /// It turned out that someone is still writing it.
    pub(super) fn still_open(&mut self, name: &str, ticket: u64, now: Instant) {
        self.end(name, ticket, Some(self.open(now)));
    }

    /// When the next name's time comes.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// How many names there are to look at, those included that someone is writing.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The names that there are to look at.
    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.entries.keys()
    }

    fn soon(&self, now: Instant, cause: Cause) -> Wait {
        Wait { at: now + self.waits.debounce, cause, is_open: false, is_unsure: false }
    }

    fn open(&self, now: Instant) -> Wait {
        let at = now + self.waits.open_grace;
        Wait { at, cause: Cause::Sighted, is_open: true, is_unsure: false }
    }

    fn is_unsure(&self, now: Instant) -> bool {
        self.unsure_until.is_some_and(|until| now < until)
    }

    fn wait_of(&self, name: &str) -> Option<&Wait> {
        match self.entries.get(name)? {
            Entry::Waiting(wait) => Some(wait),
            Entry::Busy { next, .. } => next.as_ref(),
        }
    }

    fn set_busy(&mut self, name: Arc<str>, next: Option<Wait>) -> u64 {
        self.last_ticket += 1;
        self.entries.insert(name, Entry::Busy { ticket: self.last_ticket, next });
        self.last_ticket
    }

    fn change(&mut self, name: &str, to: impl FnOnce(Option<&Wait>) -> Option<Wait>) {
        match self.entries.get_mut(name) {
            Some(Entry::Busy { next, .. }) => *next = to(next.as_ref()),
            Some(Entry::Waiting(wait)) => {
                let old = wait.clone();
                if let Some(new) = to(Some(&old)) {
                    *wait = new.clone();
                    self.requeue(name, old.at, new.at);
                }
            }
            None => {
                if let Some(wait) = to(None) {
                    let name: Arc<str> = name.into();
                    self.queue.insert((wait.at, Arc::clone(&name)));
                    self.entries.insert(name, Entry::Waiting(wait));
                }
            }
        }
    }

    fn requeue(&mut self, name: &str, old: Instant, new: Instant) {
        if old == new {
            return;
        }
        let key = (old, Arc::from(name));
        if let Some((_, name)) = self.queue.take(&key) {
            self.queue.insert((new, name));
        }
    }

    fn end(&mut self, name: &str, ticket: u64, otherwise: Option<Wait>) {
        if !self.is_current(name, ticket) {
            return;
        }
        let Some((name, Entry::Busy { next, .. })) = self.entries.remove_entry(name) else { return };
        // What happened meanwhile says more than what was found before it.
        if let Some(wait) = next.or(otherwise) {
            self.queue.insert((wait.at, Arc::clone(&name)));
            self.entries.insert(name, Entry::Waiting(wait));
        }
    }
}

#[cfg(test)]
mod tests;

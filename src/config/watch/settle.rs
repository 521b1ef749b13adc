//! Decides when what happened to files is over. No clock and no files: the time is passed in.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// A bare modification waits this long for the close that usually follows: half a file can be valid.
pub(in crate::config) const UNCLOSED: Duration = Duration::from_secs(2);
/// However busy a file is, a decision falls within this or ten times the debounce time.
const CEILING: Duration = Duration::from_secs(5);

/// How long whatever is busy is waited for, where a finished write settles for `debounce`.
#[must_use]
pub fn longest(debounce: Duration) -> Duration {
    CEILING.max(debounce * 10)
}

/// What has happened and is not over. `K` names the thing it happened to.
#[derive(Debug)]
pub struct Settle<K> {
    debounce: Duration,
    /// When the first of it happened.
    since: Option<Instant>,
    due: HashMap<K, Due>,
}

#[derive(Clone, Copy, Debug)]
struct Due {
    at: Instant,
    /// A close is still to come.
    open: bool,
}

impl<K: Eq + Hash> Settle<K> {
    /// Nothing has happened. A finished write settles for `debounce`.
    #[must_use]
    pub fn new(debounce: Duration) -> Settle<K> {
        Settle { debounce, since: None, due: HashMap::new() }
    }

    /// How long a finished write settles from now on.
    pub fn set_debounce(&mut self, debounce: Duration) {
        self.debounce = debounce;
    }

    /// Somebody began to write, or goes on, and will close.
    pub fn began(&mut self, what: K, now: Instant) {
        self.note(what, Due { at: now + UNCLOSED.max(self.debounce), open: true }, now);
    }

    /// It is as it shall be: closed, renamed, removed.
    pub fn finished(&mut self, what: K, now: Instant) {
        self.note(what, Due { at: now + self.debounce, open: false }, now);
    }

    /// Something about it changed that says nothing about a writer.
    pub fn touched(&mut self, what: K, now: Instant) {
        match self.due.get(&what) {
            Some(due) if due.open => {}
            _ => self.finished(what, now),
        }
    }

    /// No close will be heard of from those that `which` picks.
    pub fn give_up(&mut self, which: impl Fn(&K) -> bool, now: Instant) {
        for (what, due) in &mut self.due {
            if due.open && which(what) {
                *due = Due { at: due.at.min(now + self.debounce), open: false };
            }
        }
    }

    /// When all is over; None when nothing happened.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let settled = self.due.values().map(|due| due.at).max()?;
        Some(self.ceiling().map_or(settled, |ceiling| settled.min(ceiling)))
    }

    /// When a decision falls whatever else happens; None when nothing happened.
    #[must_use]
    pub fn ceiling(&self) -> Option<Instant> {
        self.since.map(|since| since + longest(self.debounce))
    }

    /// Whether a close is still to come.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.due.values().any(|due| due.open)
    }

    /// The decision has fallen.
    pub fn clear(&mut self) {
        self.since = None;
        self.due.clear();
    }

    fn note(&mut self, what: K, due: Due, now: Instant) {
        self.since.get_or_insert(now);
        self.due.insert(what, due);
    }
}

//! Points in time, and the table of what is armed.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// A point on a monotonic clock, in nanoseconds. Only differences mean anything.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Mono(pub u64);

impl Mono {
    /// This much later; saturates at the end of time.
    #[must_use]
    pub fn after(self, span: Duration) -> Mono {
        Mono(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How long since `earlier`; zero when that is later.
    #[must_use]
    pub fn since(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Armed deadlines, at most one for each key, ordered by time and then by key, so that what is due
/// at the same moment comes in a fixed order.
#[derive(Clone, Debug)]
pub struct Timers<K> {
    by_time: BTreeSet<(Mono, K)>,
    by_key: std::collections::BTreeMap<K, Mono>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Timers { by_time: BTreeSet::new(), by_key: std::collections::BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Timers<K> {
    /// Arms `key` for `at`, instead of what it was armed for.
    pub fn arm(&mut self, key: K, at: Mono) {
        if let Some(old) = self.by_key.insert(key.clone(), at) {
            self.by_time.remove(&(old, key.clone()));
        }
        self.by_time.insert((at, key));
    }

    /// Disarms `key`; nothing happens when it was not armed.
    pub fn disarm(&mut self, key: &K) {
        if let Some(old) = self.by_key.remove(key) {
            self.by_time.remove(&(old, key.clone()));
        }
    }

    /// When `key` is due.
    #[must_use]
    pub fn due(&self, key: &K) -> Option<Mono> {
        self.by_key.get(key).copied()
    }

    /// The earliest deadline.
    #[must_use]
    pub fn next(&self) -> Option<Mono> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes out one deadline that has passed.
    pub fn pop_due(&mut self, now: Mono) -> Option<K> {
        if self.by_time.first()?.0 > now {
            return None;
        }
        let (_, key) = self.by_time.pop_first()?;
        self.by_key.remove(&key);
        Some(key)
    }

    /// All armed deadlines, earliest first.
    pub fn iter(&self) -> impl Iterator<Item = (Mono, &K)> {
        self.by_time.iter().map(|(at, key)| (*at, key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_armed_once() {
        let mut timers = Timers::default();
        timers.arm('a', Mono(10));
        timers.arm('b', Mono(5));
        timers.arm('a', Mono(3));
        assert_eq!(timers.next(), Some(Mono(3)));
        assert!(timers.iter().eq([(Mono(3), &'a'), (Mono(5), &'b')]));
        assert_eq!(timers.due(&'a'), Some(Mono(3)));
        assert_eq!(timers.pop_due(Mono(2)), None);
        assert_eq!(timers.pop_due(Mono(20)), Some('a'));
        assert_eq!(timers.pop_due(Mono(20)), Some('b'));
        assert_eq!(timers.pop_due(Mono(20)), None);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn disarming_is_idempotent() {
        let mut timers = Timers::default();
        timers.arm(1, Mono(1));
        timers.disarm(&1);
        timers.disarm(&1);
        assert_eq!(timers.pop_due(Mono(9)), None);
    }

    #[test]
    fn time_saturates() {
        assert_eq!(Mono(u64::MAX - 1).after(Duration::from_secs(9)), Mono(u64::MAX));
        assert_eq!(Mono(1).since(Mono(5)), Duration::ZERO);
        assert_eq!(Mono(5).after(Duration::MAX), Mono(u64::MAX));
    }
}

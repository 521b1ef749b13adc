//! A queue between whoever has something to log and the thread that writes it.
//!
//! Standard error is a pipe in somebody else's hands, and so is the socket of the journal: whoever
//! reads may have stopped. Supervising must not wait for that, so writing is done by a thread of its
//! own. What finds no room is lost, and that is said where it is missing.
//!
//! To wake the writer takes longer than all else that is done for an entry, so it is woken for the first
//! and not for those that follow it closely: of those it writes all there are every few milliseconds.

use super::entry::Entry;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::Duration;
use tracing::Level;

/// So many bytes wait to be written, unless one entry is larger.
const ROOM: usize = 1 << 20;

/// More than this does not wait for what may follow.
const MUCH: usize = ROOM / 8;

/// Who has written something looks so much later what followed.
const GATHER: Duration = Duration::from_millis(2);

/// So many entries are written before it is told that they were.
const PART: usize = 16;

/// So many entries are kept to be filled again.
const SPARE: usize = 256;

/// Is told the number of the last entry that was written and has one.
pub(super) type Written = Box<dyn Fn(u64) + Send + Sync>;

/// See the module documentation.
#[derive(Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    /// Who keeps entries until they are written.
    keeper: OnceLock<Written>,
    /// For the writer, where it rests.
    filled: Condvar,
    /// For those who wait until all is written.
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<Entry>,
    /// Were written, and are empty.
    spare: Vec<Entry>,
    /// Of what waits and of what is being written.
    size: usize,
    /// Entries that found no room since the last one that did.
    lost: u64,
    writer: Writer,
    /// How many wait until all is written.
    in_a_hurry: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Writer {
    /// It looks again before it rests.
    #[default]
    Busy,
    /// It looks again by itself, after a moment.
    Gathering,
    /// It has to be woken.
    Idle,
}

impl State {
    fn push(&mut self, entry: Entry) {
        self.size += entry.size();
        self.waiting.push(entry);
    }

    fn tell_lost(&mut self) {
        match std::mem::take(&mut self.lost) {
            0 => {}
            lost => self.push(Entry::of(
                Level::WARN,
                &format!("{lost} entries of this log are missing here: nobody read it"),
            )),
        }
    }

    /// Whether the writer is to be woken.
    fn is_due(&self) -> bool {
        match self.writer {
            Writer::Busy => false,
            Writer::Gathering => self.in_a_hurry > 0 || self.size > MUCH,
            Writer::Idle => !self.waiting.is_empty(),
        }
    }
}

impl Outbox {
    /// A queue whose entries are given to `write`, in their order and a few at once, in a thread of its
    /// own; it says whether all of them were written. Where there can be no thread, what is put in is lost.
    pub(super) fn new(mut write: impl FnMut(&[Entry]) -> bool + Send + 'static) -> Arc<Outbox> {
        let outbox = Arc::new(Outbox::default());
        let writer = outbox.clone();
        let thread = std::thread::Builder::new().name("log".to_owned());
        // Nowhere to say that it failed: this is the log.
        let _ = thread.spawn(move || {
            crate::sys::thread::never_preempts();
            let mut entries = Vec::new();
            loop {
                writer.take(&mut entries);
                for part in entries.chunks(PART) {
                    if write(part) {
                        writer.tell_keeper(part);
                    }
                }
            }
        });
        outbox
    }

    /// From here on who keeps entries is told when they are written. Only once.
    pub(super) fn set_keeper(&self, keeper: Written) {
        // There is one place to keep them.
        let _ = self.keeper.set(keeper);
    }

    fn tell_keeper(&self, entries: &[Entry]) {
        let last = entries.iter().filter_map(|entry| entry.number).max();
        if let Some((keeper, last)) = self.keeper.get().zip(last) {
            keeper(last);
        }
    }

    /// An entry to be filled and put in.
    pub(super) fn blank(&self, level: Level) -> Entry {
        let mut entry = self.lock().spare.pop().unwrap_or_else(|| Entry::new(level));
        entry.level = level;
        entry
    }

    /// Puts in an entry. Never waits.
    pub(super) fn put(&self, entry: Entry) {
        let mut state = self.lock();
        if state.size > 0 && state.size + entry.size() > ROOM {
            state.lost += 1;
            return;
        }
        state.tell_lost();
        state.push(entry);
        self.wake(state);
    }

    /// Wakes the writer where that is due, and only once.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        if state.is_due() {
            state.writer = Writer::Busy;
            drop(state);
            self.filled.notify_one();
        }
    }

    /// Waits until all that was put in is written, but not longer than this.
    pub(super) fn flush(&self, limit: Duration) {
        self.flush_from(self.lock(), limit);
    }

    /// The same for who may have been stopped by a panic in the midst of this: what is in the hands of
    /// somebody else is not waited for.
    pub(super) fn flush_in_panic(&self, limit: Duration) {
        match self.state.try_lock() {
            Ok(state) => self.flush_from(state, limit),
            Err(TryLockError::Poisoned(state)) => self.flush_from(state.into_inner(), limit),
            Err(TryLockError::WouldBlock) => {}
        }
    }

    fn flush_from(&self, mut state: MutexGuard<'_, State>, limit: Duration) {
        state.in_a_hurry += 1;
        self.wake(state);
        let busy = |state: &mut State| state.size > 0;
        let waited = self.written.wait_timeout_while(self.lock(), limit, busy);
        waited.unwrap_or_else(PoisonError::into_inner).0.in_a_hurry -= 1;
    }

    /// Waits for entries, and gives all there are in the place of those that were written.
    fn take(&self, entries: &mut Vec<Entry>) {
        let mut state = self.lock();
        let has_written = !entries.is_empty();
        for mut entry in entries.drain(..) {
            state.size -= entry.size();
            if state.spare.len() < SPARE && entry.is_usual() {
                entry.clear();
                state.spare.push(entry);
            }
        }
        state.tell_lost();
        if state.size == 0 {
            self.written.notify_all();
        }
        if has_written && state.in_a_hurry == 0 && state.size <= MUCH {
            state.writer = Writer::Gathering;
            let gathering = |state: &mut State| state.writer == Writer::Gathering;
            let waited = self.filled.wait_timeout_while(state, GATHER, gathering);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.writer = Writer::Busy;
        }
        while state.waiting.is_empty() {
            state.writer = Writer::Idle;
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.writer = Writer::Busy;
        std::mem::swap(&mut state.waiting, entries);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    const LONG: Duration = Duration::from_secs(60);

    fn entry(message: String) -> Entry {
        Entry::of(Level::INFO, &message)
    }

    /// Writes one after the other.
    fn each(mut write: impl FnMut(&str)) -> impl FnMut(&[Entry]) -> bool {
        move |entries| {
            entries.iter().for_each(|entry| write(entry.message()));
            true
        }
    }

    #[test]
    fn entries_are_written_in_order() {
        let (sender, written) = channel();
        let outbox = Outbox::new(each(move |message| sender.send(message.to_owned()).unwrap()));
        (0..1000).for_each(|n| outbox.put(entry(n.to_string())));
        outbox.flush(LONG);
        let all: Vec<String> = written.try_iter().collect();
        assert_eq!(all, (0..1000).map(|n| n.to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn a_writer_that_is_stuck_holds_nobody_up_and_what_is_lost_is_told() {
        let (go, wait) = channel::<()>();
        let (sender, written) = channel();
        let outbox = Outbox::new(each(move |message| {
            // An error means that nothing holds it up any more.
            let _ = wait.recv();
            sender.send(message.to_owned()).unwrap();
        }));
        let long = "x".repeat(1000);
        (0..10_000).for_each(|_| outbox.put(entry(long.clone())));
        outbox.flush(Duration::ZERO);
        drop(go);
        outbox.flush(LONG);
        outbox.put(entry("last".to_owned()));
        outbox.flush(LONG);
        let all: Vec<String> = written.try_iter().collect();
        let kept = all.iter().filter(|message| **message == long).count();
        assert!(kept > 100 && kept * 1000 <= ROOM + 1000, "{kept}");
        // It may begin to write late, and then say so once more.
        let lost = all.iter().filter_map(|message| {
            message.strip_suffix(" entries of this log are missing here: nobody read it")
        });
        let lost: usize = lost.map(|count| count.parse::<usize>().unwrap()).sum();
        assert_eq!(lost, 10_000 - kept);
        assert_eq!(all.last().map(String::as_str), Some("last"));
    }

    #[test]
    fn an_entry_that_is_larger_than_the_room_is_written_all_the_same() {
        let (sender, written) = channel();
        let outbox = Outbox::new(each(move |message| sender.send(message.len()).unwrap()));
        outbox.put(entry("x".repeat(2 * ROOM)));
        outbox.flush(LONG);
        assert_eq!(written.try_recv(), Ok(2 * ROOM));
    }

    #[test]
    fn what_follows_closely_is_written_without_a_wake_and_by_itself() {
        let (sender, written) = channel();
        let outbox = Outbox::new(each(move |message| sender.send(message.to_owned()).unwrap()));
        let mut all = Vec::new();
        for n in 0..100 {
            outbox.put(entry(n.to_string()));
            // Not all at once: some of them meet a writer that gathers, and nobody flushes.
            while n % 10 == 0 && all.len() <= n {
                all.push(written.recv_timeout(LONG).unwrap());
            }
        }
        all.extend((all.len()..100).map(|_| written.recv_timeout(LONG).unwrap()));
        assert_eq!(all, (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn who_flushes_does_not_wait_for_what_may_follow() {
        let (sender, written) = channel();
        let outbox = Outbox::new(each(move |message| sender.send(message.to_owned()).unwrap()));
        outbox.put(entry("one".to_owned()));
        assert_eq!(written.recv_timeout(LONG).unwrap(), "one");
        let state = outbox.lock();
        let gathering = |state: &mut State| state.writer == Writer::Busy;
        // Until it gathers or rests, which is told by nothing but its state.
        drop(outbox.written.wait_timeout_while(state, Duration::from_millis(1), gathering));
        outbox.put(entry("two".to_owned()));
        outbox.flush(LONG);
        assert_eq!(written.try_recv().as_deref(), Ok("two"));
        assert_eq!(outbox.lock().in_a_hurry, 0);
    }

    #[test]
    fn who_keeps_entries_is_told_of_those_that_were_written() {
        let (sender, told) = channel();
        let outbox = Outbox::new(|entries| entries.iter().all(|entry| entry.message() != "lost"));
        outbox.set_keeper(Box::new(move |number| sender.send(number).unwrap()));
        let numbered = |number: u64, message: &str| {
            let mut entry = entry(message.to_owned());
            entry.number = Some(number);
            entry
        };
        outbox.put(entry("no number".to_owned()));
        outbox.put(numbered(7, "one"));
        outbox.flush(LONG);
        assert_eq!(told.try_iter().max(), Some(7));
        outbox.put(numbered(8, "lost"));
        outbox.flush(LONG);
        assert_eq!(told.try_iter().max(), None);
        (9..200).for_each(|number| outbox.put(numbered(number, "many")));
        outbox.flush(LONG);
        let told: Vec<u64> = told.try_iter().collect();
        assert!(told.is_sorted() && told.last() == Some(&199), "{told:?}");
        assert!(told.len() >= 10, "{told:?}");
        // What is filled again has none.
        assert_eq!(outbox.blank(Level::INFO).number, None);
    }

    #[test]
    fn a_panic_writes_what_waits_unless_the_queue_is_held() {
        let (sender, written) = channel();
        let outbox = Outbox::new(each(move |message| sender.send(message.to_owned()).unwrap()));
        outbox.put(entry("one".to_owned()));
        outbox.flush_in_panic(LONG);
        assert_eq!(written.try_recv().as_deref(), Ok("one"));
        // Who panics with the queue in its hands gets back at once.
        let held = outbox.lock();
        outbox.flush_in_panic(LONG);
        drop(held);
    }
}

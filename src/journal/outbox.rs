//! A queue between whoever has something to log and the thread that writes it.
//!
//! Standard error is a pipe in somebody else's hands, and so is the socket of the journal: whoever
//! reads may have stopped. Supervising must not wait for that, so writing is done by a thread of its
//! own. What finds no room is lost, and that is said where it is missing.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tracing::Level;

/// So many bytes wait to be written, unless one entry is larger.
const ROOM: usize = 1 << 20;

/// One entry of the log.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) level: Level,
    /// For people; may have several lines.
    pub(super) message: String,
    /// For programs: names as the journal wants them.
    pub(super) fields: Vec<(String, String)>,
}

impl Entry {
    fn size(&self) -> usize {
        let fields: usize = self.fields.iter().map(|(name, value)| name.len() + value.len()).sum();
        size_of::<Entry>() + self.message.len() + fields
    }
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    /// For the writer, where it is idle.
    filled: Condvar,
    /// For those who wait until all is written.
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<Entry>,
    /// Of what waits and of what is being written.
    size: usize,
    /// Entries that found no room since the last one that did.
    lost: u64,
    writer: Writer,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Writer {
    /// It looks again before it rests.
    #[default]
    Busy,
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
            lost => self.push(Entry {
                level: Level::WARN,
                message: format!("{lost} entries of this log are missing here: nobody read it"),
                fields: Vec::new(),
            }),
        }
    }
}

impl Outbox {
    /// A queue whose entries are given to `write`, one after the other, in a thread of its own.
    /// Where there can be no thread, what is put in is lost.
    pub(super) fn new(mut write: impl FnMut(&Entry) + Send + 'static) -> Arc<Outbox> {
        let outbox = Arc::new(Outbox::default());
        let writer = outbox.clone();
        let thread = std::thread::Builder::new().name("log".to_owned());
        // Nowhere to say that it failed: this is the log.
        let _ = thread.spawn(move || {
            let mut entries = Vec::new();
            loop {
                writer.take(&mut entries);
                entries.iter().for_each(&mut write);
            }
        });
        outbox
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
        // Not for each entry: waking a thread takes longer than all else in here.
        let is_idle = std::mem::take(&mut state.writer) == Writer::Idle;
        drop(state);
        if is_idle {
            self.filled.notify_one();
        }
    }

    /// Waits until all that was put in is written, but not longer than this.
    pub(super) fn flush(&self, limit: Duration) {
        let busy = |state: &mut State| state.size > 0;
        let waited = self.written.wait_timeout_while(self.lock(), limit, busy);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits for entries, and gives all there are in the place of those that were written.
    fn take(&self, entries: &mut Vec<Entry>) {
        let mut state = self.lock();
        state.size -= entries.drain(..).map(|entry| entry.size()).sum::<usize>();
        state.tell_lost();
        if state.size == 0 {
            self.written.notify_all();
        }
        while state.waiting.is_empty() {
            state.writer = Writer::Idle;
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
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
        Entry { level: Level::INFO, message, fields: Vec::new() }
    }

    #[test]
    fn entries_are_written_in_order() {
        let (sender, written) = channel();
        let outbox = Outbox::new(move |entry| sender.send(entry.message.clone()).unwrap());
        (0..1000).for_each(|n| outbox.put(entry(n.to_string())));
        outbox.flush(LONG);
        let all: Vec<String> = written.try_iter().collect();
        assert_eq!(all, (0..1000).map(|n| n.to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn a_writer_that_is_stuck_holds_nobody_up_and_what_is_lost_is_told() {
        let (go, wait) = channel::<()>();
        let (sender, written) = channel();
        let outbox = Outbox::new(move |entry| {
            // An error means that nothing holds it up any more.
            let _ = wait.recv();
            sender.send(entry.message.clone()).unwrap();
        });
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
        let outbox = Outbox::new(move |entry| sender.send(entry.message.len()).unwrap());
        outbox.put(entry("x".repeat(2 * ROOM)));
        outbox.flush(LONG);
        assert_eq!(written.try_recv(), Ok(2 * ROOM));
    }
}

//! A queue between whoever has something to log and the thread that writes it.
//!
//! Standard error is a pipe in somebody else's hands, and so is the socket of the journal: whoever
//! reads may have stopped. Supervising must not wait for that, so writing is done by a thread of its
//! own. What finds no room is lost, and that is said where it is missing.
//!
//! To wake the writer takes longer than all else that is done for an entry, so it is woken for the first
//! and not for those that follow it closely: of those it writes all there are every few milliseconds. Who
//! has a few to log at a time writes them itself at the end, where that takes no waiting; then nobody is
//! woken at all.

use super::entry::Entry;
use std::cell::Cell;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;
use tracing::Level;

/// So many bytes wait to be written, unless one entry is larger.
const ROOM: usize = 1 << 20;

/// More than this does not wait for what may follow.
const MUCH: usize = ROOM / 8;

/// Who has written something looks so much later what followed.
const GATHER: Duration = Duration::from_millis(2);

/// So many entries are kept to be filled again.
const SPARE: usize = 256;

/// More than so many at a time are for the writer.
const FEW: usize = 32;

thread_local! {
    static IN_TURN: Cell<bool> = const { Cell::new(false) };
}

/// Says of this thread whether it will say when it has put in all it has for now.
pub(super) fn in_turn(is: bool) {
    IN_TURN.set(is);
}

/// Writes an entry if that takes no waiting, and says whether it has.
type TryWrite = Box<dyn Fn(&Entry) -> bool + Send + Sync>;

/// See the module documentation.
pub(super) struct Outbox {
    state: Mutex<State>,
    /// None: there is no telling whether one has to wait.
    try_write: Option<TryWrite>,
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
    /// It will look, and has nothing in its hands: on a busy machine that may take a while.
    #[default]
    Woken,
    /// It writes what it has in its hands, and looks again before it rests.
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

    /// Takes back one that was written.
    fn recycle(&mut self, mut entry: Entry) {
        self.size -= entry.size();
        if self.spare.len() < SPARE && entry.is_usual() {
            entry.clear();
            self.spare.push(entry);
        }
    }

    /// Whether the writer is to be woken.
    fn is_due(&self) -> bool {
        match self.writer {
            Writer::Woken | Writer::Busy => false,
            Writer::Gathering => self.in_a_hurry > 0 || self.size > MUCH,
            Writer::Idle => !self.waiting.is_empty(),
        }
    }
}

impl Outbox {
    /// A queue whose entries are given to `write`, in their order and as many as there are at once, in a
    /// thread of its own. Where there can be no thread, what is put in is lost. `try_write` is for those
    /// that say when they have put in what they have.
    pub(super) fn new(
        mut write: impl FnMut(&[Entry]) + Send + 'static,
        try_write: Option<TryWrite>,
    ) -> Arc<Outbox> {
        let outbox = Arc::new(Outbox {
            state: Mutex::default(),
            try_write,
            filled: Condvar::new(),
            written: Condvar::new(),
        });
        let writer = outbox.clone();
        let thread = std::thread::Builder::new().name("log".to_owned());
        // Nowhere to say that it failed: this is the log.
        let _ = thread.spawn(move || {
            crate::sys::thread::never_preempts();
            crate::sys::thread::leaves_ends_to_others();
            let mut entries = Vec::new();
            loop {
                writer.take(&mut entries);
                write(&entries);
            }
        });
        outbox
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
        if !IN_TURN.get() || state.waiting.len() > FEW {
            self.wake(state);
        }
    }

    /// Writes what waits, where it is few, the writer has nothing in its hands and it takes no waiting;
    /// the rest is for the writer.
    pub(super) fn write_what_waits(&self) {
        let mut state = self.lock();
        if let Some(try_write) = &self.try_write
            && state.writer != Writer::Busy
            && state.waiting.len() <= FEW
        {
            // The others wait for as long, and so nothing comes between or before.
            let written = state.waiting.iter().take_while(|entry| try_write(entry)).count();
            let rest = state.waiting.split_off(written);
            for entry in std::mem::replace(&mut state.waiting, rest) {
                state.recycle(entry);
            }
            if state.size == 0 {
                self.written.notify_all();
            }
        }
        self.wake(state);
    }

    /// Wakes the writer where that is due, and only once.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        if state.is_due() {
            state.writer = Writer::Woken;
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
        for entry in entries.drain(..) {
            state.recycle(entry);
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
    fn each(mut write: impl FnMut(&str)) -> impl FnMut(&[Entry]) {
        move |entries| entries.iter().for_each(|entry| write(entry.message()))
    }

    #[test]
    fn entries_are_written_in_order() {
        let (sender, written) = channel();
        let outbox =
            Outbox::new(each(move |message| sender.send(message.to_owned()).unwrap()), None);
        (0..1000).for_each(|n| outbox.put(entry(n.to_string())));
        outbox.flush(LONG);
        let all: Vec<String> = written.try_iter().collect();
        assert_eq!(all, (0..1000).map(|n| n.to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn a_writer_that_is_stuck_holds_nobody_up_and_what_is_lost_is_told() {
        let (go, wait) = channel::<()>();
        let (sender, written) = channel();
        let outbox = Outbox::new(
            each(move |message| {
                // An error means that nothing holds it up any more.
                let _ = wait.recv();
                sender.send(message.to_owned()).unwrap();
            }),
            None,
        );
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
        let outbox = Outbox::new(each(move |message| sender.send(message.len()).unwrap()), None);
        outbox.put(entry("x".repeat(2 * ROOM)));
        outbox.flush(LONG);
        assert_eq!(written.try_recv(), Ok(2 * ROOM));
    }

    #[test]
    fn what_follows_closely_is_written_without_a_wake_and_by_itself() {
        let (sender, written) = channel();
        let outbox =
            Outbox::new(each(move |message| sender.send(message.to_owned()).unwrap()), None);
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
        let outbox =
            Outbox::new(each(move |message| sender.send(message.to_owned()).unwrap()), None);
        outbox.put(entry("one".to_owned()));
        assert_eq!(written.recv_timeout(LONG).unwrap(), "one");
        let state = outbox.lock();
        let gathering = |state: &mut State| matches!(state.writer, Writer::Woken | Writer::Busy);
        // Until it gathers or rests, which is told by nothing but its state.
        drop(outbox.written.wait_timeout_while(state, Duration::from_millis(1), gathering));
        outbox.put(entry("two".to_owned()));
        outbox.flush(LONG);
        assert_eq!(written.try_recv().as_deref(), Ok("two"));
        assert_eq!(outbox.lock().in_a_hurry, 0);
    }

    #[test]
    fn a_panic_writes_what_waits_unless_the_queue_is_held() {
        let (sender, written) = channel();
        let outbox =
            Outbox::new(each(move |message| sender.send(message.to_owned()).unwrap()), None);
        outbox.put(entry("one".to_owned()));
        outbox.flush_in_panic(LONG);
        assert_eq!(written.try_recv().as_deref(), Ok("one"));
        // Who panics with the queue in its hands gets back at once.
        let held = outbox.lock();
        outbox.flush_in_panic(LONG);
        drop(held);
    }

    /// What the one that tries and the writer have written, in one order. The first takes so many.
    fn shared(takes: usize) -> (Arc<Outbox>, Arc<Mutex<Vec<String>>>) {
        let written = Arc::new(Mutex::new(Vec::new()));
        let left = std::sync::atomic::AtomicUsize::new(takes);
        let (here, there) = (written.clone(), written.clone());
        let outbox = Outbox::new(
            each(move |message| there.lock().unwrap().push(format!("{message} by the writer"))),
            Some(Box::new(move |entry| {
                let relaxed = std::sync::atomic::Ordering::Relaxed;
                let takes = left.fetch_update(relaxed, relaxed, |left| left.checked_sub(1)).is_ok();
                if takes {
                    here.lock().unwrap().push(entry.message().to_owned());
                }
                takes
            })),
        );
        // The thread of the writer rests before anything is put in.
        while outbox.lock().writer != Writer::Idle {
            std::thread::yield_now();
        }
        (outbox, written)
    }

    #[test]
    fn who_says_when_it_is_done_writes_itself() {
        let (outbox, written) = shared(usize::MAX);
        for turn in 0..3 {
            in_turn(true);
            (0..FEW).for_each(|n| outbox.put(entry(format!("{turn} {n}"))));
            assert_eq!(outbox.lock().writer, Writer::Idle, "nobody was woken");
            in_turn(false);
            outbox.write_what_waits();
            let wanted = (0..=turn).flat_map(|turn| (0..FEW).map(move |n| format!("{turn} {n}")));
            assert_eq!(*written.lock().unwrap(), wanted.collect::<Vec<_>>());
        }
        let state = outbox.lock();
        assert_eq!((state.size, state.writer), (0, Writer::Idle));
    }

    /// The thread may get no processor for long; whoever is killed by then has told all the same.
    #[test]
    fn who_is_done_does_not_wait_for_a_writer_that_was_woken() {
        let (outbox, written) = shared(usize::MAX);
        {
            // Nobody gets to it while it is held: as if the thread got no processor.
            let mut state = outbox.lock();
            state.push(entry("of another".to_owned()));
            state.writer = Writer::Woken;
        }
        in_turn(true);
        outbox.put(entry("of the turn".to_owned()));
        in_turn(false);
        outbox.write_what_waits();
        assert_eq!(*written.lock().unwrap(), ["of another", "of the turn"]);
    }

    #[test]
    fn what_would_have_to_wait_is_for_the_writer_and_nothing_overtakes_it() {
        let (outbox, written) = shared(2);
        in_turn(true);
        (0..5).for_each(|n| outbox.put(entry(n.to_string())));
        in_turn(false);
        outbox.write_what_waits();
        outbox.flush(LONG);
        let all = ["0", "1", "2 by the writer", "3 by the writer", "4 by the writer"];
        assert_eq!(*written.lock().unwrap(), all);
    }

    #[test]
    fn much_at_a_time_is_for_the_writer() {
        let (outbox, written) = shared(usize::MAX);
        in_turn(true);
        (0..=FEW).for_each(|n| outbox.put(entry(n.to_string())));
        in_turn(false);
        outbox.flush(LONG);
        let by_the_writer = |said: &String| said.ends_with(" by the writer");
        assert_eq!(
            written.lock().unwrap().iter().filter(|said| by_the_writer(said)).count(),
            FEW + 1
        );
    }

    #[test]
    fn others_do_not_wait_for_the_end_of_a_turn() {
        let (outbox, written) = shared(0);
        in_turn(true);
        let other = outbox.clone();
        std::thread::spawn(move || other.put(entry("of another".to_owned()))).join().unwrap();
        outbox.flush(LONG);
        in_turn(false);
        assert_eq!(*written.lock().unwrap(), ["of another by the writer"]);
    }
}

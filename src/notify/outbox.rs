//! What waits to be sent, and the thread that sends it. The socket is a queue in somebody else's hands:
//! whoever made it may have stopped reading, and supervising must not wait for that.
//!
//! To wake the thread takes longer than to send, so it is not woken for what can wait: the status, of
//! which only the newest is worth reading, and what is taken back.

use super::socket::Socket;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// More than this is never waiting, unless nobody reads; then the oldest go.
const WAITING: usize = 64;

/// A status follows the one before it no sooner. People read them.
const BETWEEN_STATUSES: Duration = Duration::from_millis(100);

/// What is taken back waits so long for more of it. What holds a descriptor any longer is no worse off.
const TAKEN_BACK: Duration = Duration::from_millis(10);

/// What is sent in one datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Ready,
    /// With CLOCK_MONOTONIC in microseconds.
    Reloading(i128),
    Stopping,
    /// More time for stopping, from now on.
    Extend(Duration),
    Watchdog,
    Status(String),
}

impl Message {
    fn text(&self) -> String {
        match self {
            Message::Ready => "READY=1\n".to_owned(),
            Message::Reloading(now) => format!("RELOADING=1\nMONOTONIC_USEC={now}\n"),
            Message::Stopping => "STOPPING=1\n".to_owned(),
            Message::Extend(time) => format!("EXTEND_TIMEOUT_USEC={}\n", time.as_micros()),
            Message::Watchdog => "WATCHDOG=1\n".to_owned(),
            Message::Status(line) => format!("STATUS={line}\n"),
        }
    }
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: Mutex<Waiting>,
    /// For the thread.
    filled: Condvar,
    /// For those who wait until all is sent.
    sent: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<Message>,
    /// One for each name, so that there are never more of them than names.
    descriptors: BTreeMap<String, Stored>,
    /// When the first of them is to be sent; None where there is none.
    due: Option<Instant>,
    /// When a status was sent last.
    last_status: Option<Instant>,
    thread: Thread,
    /// How many wait until all is sent.
    in_a_hurry: usize,
}

/// What the thread does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Thread {
    /// It looks again before it rests.
    #[default]
    Sending,
    /// It looks again at this time, at the latest.
    Resting(Option<Instant>),
}

/// What becomes of what is stored under a name. A name may be used again: what was under it goes
/// first, because the store may hold several under one name.
#[derive(Debug, Default)]
struct Stored {
    is_taken_back: bool,
    descriptor: Option<OwnedFd>,
}

/// What is sent next.
enum Next {
    Message(Message),
    Descriptor(String, Stored),
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.descriptors.is_empty()
    }

    fn is_sent(&self) -> bool {
        self.is_empty() && self.thread != Thread::Sending
    }

    /// Something is to be sent at this time.
    fn is_due(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    fn next(&mut self) -> Option<Next> {
        if let Some(message) = self.messages.pop_front() {
            if matches!(message, Message::Status(_)) {
                self.last_status = Some(Instant::now());
            }
            return Some(Next::Message(message));
        }
        let (name, stored) = self.descriptors.pop_first()?;
        Some(Next::Descriptor(name, stored))
    }
}

impl Outbox {
    /// What is put in is sent there, by a thread of its own.
    ///
    /// # Errors
    /// When there can be no thread.
    pub(super) fn new(socket: Socket) -> io::Result<Arc<Outbox>> {
        let outbox = Arc::new(Outbox::default());
        let sender = outbox.clone();
        let thread = std::thread::Builder::new().name("notify".to_owned());
        thread.spawn(move || {
            crate::sys::thread::never_preempts();
            sender.send_all(&socket);
        })?;
        Ok(outbox)
    }

    pub(super) fn put(&self, message: Message) {
        let mut waiting = self.lock();
        let messages = &mut waiting.messages;
        // Only the newest of these is worth reading.
        if matches!(message, Message::Status(_) | Message::Extend(_) | Message::Watchdog) {
            let kind = std::mem::discriminant(&message);
            messages.retain(|waiting| std::mem::discriminant(waiting) != kind);
        }
        if messages.len() == WAITING {
            messages.pop_front();
        }
        let now = Instant::now();
        let at = match (&message, waiting.last_status) {
            (Message::Status(_), Some(last)) => now.max(last + BETWEEN_STATUSES),
            _ => now,
        };
        waiting.messages.push_back(message);
        self.wake(waiting, at);
    }

    pub(super) fn store(&self, name: String, descriptor: OwnedFd) {
        let mut waiting = self.lock();
        waiting.descriptors.entry(name).or_default().descriptor = Some(descriptor);
        self.wake(waiting, Instant::now());
    }

    pub(super) fn take_back(&self, name: String) {
        let mut waiting = self.lock();
        let taken_back = Stored { is_taken_back: true, descriptor: None };
        waiting.descriptors.insert(name, taken_back);
        self.wake(waiting, Instant::now() + TAKEN_BACK);
    }

    /// Waits until all is sent, but not longer than this.
    pub(super) fn flush(&self, limit: Duration) {
        let mut waiting = self.lock();
        waiting.in_a_hurry += 1;
        if !waiting.is_empty() {
            self.wake(waiting, Instant::now());
        } else {
            drop(waiting);
        }
        let unsent = |waiting: &mut Waiting| !waiting.is_sent();
        // What was not sent by then is not worth more.
        let waited = self.sent.wait_timeout_while(self.lock(), limit, unsent);
        waited.unwrap_or_else(PoisonError::into_inner).0.in_a_hurry -= 1;
    }

    /// Something is to be sent at this time: wakes the thread, where it would come too late.
    fn wake(&self, mut waiting: MutexGuard<'_, Waiting>, at: Instant) {
        waiting.is_due(at);
        let is_late = match waiting.thread {
            Thread::Sending => false,
            Thread::Resting(until) => until.is_none_or(|until| until > at),
        };
        if is_late {
            // Once is enough.
            waiting.thread = Thread::Resting(Some(at));
            drop(waiting);
            self.filled.notify_one();
        }
    }

    fn send_all(&self, socket: &Socket) {
        loop {
            let sent = match self.next() {
                Next::Message(message) => socket.send(&message.text(), None),
                Next::Descriptor(name, stored) => stored.send(&name, socket),
            };
            if let Err(error) = sent {
                tracing::debug!("the service manager was not told: {error}");
            }
        }
    }

    /// Waits until something is due, and gives all there is then, one after the other.
    fn next(&self) -> Next {
        let mut waiting = self.lock();
        loop {
            let now = Instant::now();
            if waiting.due.is_some_and(|due| due <= now) {
                if let Some(next) = waiting.next() {
                    waiting.thread = Thread::Sending;
                    return next;
                }
                waiting.due = None;
            }
            waiting.thread = Thread::Resting(waiting.due);
            if waiting.in_a_hurry > 0 && waiting.is_empty() {
                self.sent.notify_all();
            }
            waiting = match waiting.due {
                None => self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner),
                Some(due) => {
                    let waited = self.filled.wait_timeout(waiting, due - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Each change is whole.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stored {
    fn send(&self, name: &str, socket: &Socket) -> io::Result<()> {
        let mut told = Ok(());
        if self.is_taken_back {
            told = socket.send(&format!("FDSTOREREMOVE=1\nFDNAME={name}\n"), None);
        }
        if let Some(descriptor) = &self.descriptor {
            // Without FDPOLL=0 it would be dropped when the process ends, which is what it is for.
            let text = format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0\n");
            told = told.and(socket.send(&text, Some(descriptor.as_fd())));
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    const LONG: Duration = Duration::from_secs(60);

    /// What a manager hears, and who tells it.
    struct Heard {
        manager: UnixDatagram,
        outbox: Arc<Outbox>,
        _directory: tempfile::TempDir,
    }

    impl Heard {
        fn new() -> Heard {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("notify");
            let manager = UnixDatagram::bind(&path).unwrap();
            manager.set_read_timeout(Some(LONG)).unwrap();
            let outbox = Outbox::new(Socket::to(path.as_os_str()).unwrap()).unwrap();
            Heard { manager, outbox, _directory: directory }
        }

        fn next(&self) -> String {
            let mut buffer = [0; 4096];
            let length = self.manager.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        }

        /// All that was sent by now.
        fn all(&self) -> Vec<String> {
            self.outbox.flush(LONG);
            self.outbox.put(Message::Stopping);
            std::iter::repeat_with(|| self.next())
                .take_while(|text| text != "STOPPING=1\n")
                .collect()
        }
    }

    fn status(text: &str) -> Message {
        Message::Status(text.to_owned())
    }

    #[test]
    fn each_is_a_datagram_in_the_order_in_which_it_came() {
        let heard = Heard::new();
        heard.outbox.put(Message::Ready);
        heard.outbox.put(Message::Reloading(7));
        heard.outbox.put(Message::Extend(Duration::from_millis(2)));
        heard.outbox.put(Message::Watchdog);
        let wanted = [
            "READY=1\n",
            "RELOADING=1\nMONOTONIC_USEC=7\n",
            "EXTEND_TIMEOUT_USEC=2000\n",
            "WATCHDOG=1\n",
        ];
        assert_eq!(heard.all(), wanted);
    }

    #[test]
    fn of_many_statuses_few_are_sent_and_the_last_one_is() {
        let heard = Heard::new();
        let begin = Instant::now();
        (0..=1000).for_each(|n| heard.outbox.put(status(&n.to_string())));
        let mut count = 1;
        while heard.next() != "STATUS=1000\n" {
            count += 1;
        }
        let most = begin.elapsed().as_millis() / BETWEEN_STATUSES.as_millis() + 2;
        assert!(count <= most, "{count} in {:?}", begin.elapsed());
    }

    #[test]
    fn what_cannot_wait_is_not_kept_up_by_a_status_that_can() {
        let heard = Heard::new();
        heard.outbox.put(status("first"));
        assert_eq!(heard.next(), "STATUS=first\n");
        let begin = Instant::now();
        heard.outbox.put(status("second"));
        heard.outbox.put(Message::Ready);
        assert_eq!(heard.next(), "STATUS=second\n");
        assert_eq!(heard.next(), "READY=1\n");
        // Who sends a status late waits; who is in a hurry does not.
        heard.outbox.put(status("third"));
        heard.outbox.flush(LONG);
        assert_eq!(heard.next(), "STATUS=third\n");
        assert!(begin.elapsed() < LONG);
    }

    #[test]
    fn what_is_taken_back_goes_before_what_takes_its_name() {
        let heard = Heard::new();
        let descriptor = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        heard.outbox.store("a".to_owned(), descriptor());
        assert_eq!(heard.next(), "FDSTORE=1\nFDNAME=a\nFDPOLL=0\n");
        for name in ["a", "b", "c"] {
            heard.outbox.take_back(name.to_owned());
        }
        heard.outbox.store("a".to_owned(), descriptor());
        let wanted = [
            "FDSTOREREMOVE=1\nFDNAME=a\n",
            "FDSTORE=1\nFDNAME=a\nFDPOLL=0\n",
            "FDSTOREREMOVE=1\nFDNAME=b\n",
            "FDSTOREREMOVE=1\nFDNAME=c\n",
        ];
        assert_eq!(heard.all(), wanted);
        // By itself, too.
        heard.outbox.take_back("b".to_owned());
        assert_eq!(heard.next(), "FDSTOREREMOVE=1\nFDNAME=b\n");
    }

    #[test]
    fn an_abstract_name_is_one_that_no_file_has() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("provost-test-{}", std::process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let outbox = Outbox::new(Socket::to(format!("@{name}").as_ref()).unwrap()).unwrap();
        outbox.put(Message::Ready);
        let mut buffer = [0; 64];
        let length = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1\n");
    }
}

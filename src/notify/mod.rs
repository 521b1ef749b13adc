//! What the service manager is told (sd_notify(3)).
//!
//! The rules, in one place: nothing is sent where nobody listens; READY=1 comes once when the daemon
//! can be used, and follows every RELOADING=1; RELOADING=1 carries MONOTONIC_USEC in the same
//! datagram; nothing but STATUS and EXTEND_TIMEOUT_USEC follows STOPPING=1.
//!
//! Where a watchdog is set, it is fed after a turn of the driver, at least one per half interval: what
//! it shall notice is a driver that does not get on.
//!
//! A thread of its own does the sending. The socket is a queue in somebody else's hands: whoever
//! made it may have stopped reading, and supervising must not wait for that.
//!
//! Descriptors go to its store (systemd.service(5), `FileDescriptorStoreMax=`), which outlives the
//! daemon: whoever holds the pidfd of a process can be told how it ended, also after it has.
//!
//! sd-notify sends, except to an abstract socket, which it does not know: there libsystemd does, and
//! descriptors are not stored.

use sd_notify::NotifyState;
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// More than this is never waiting, unless nobody reads; then the oldest go.
const WAITING: usize = 64;

/// Between what the driver waits for and the end of the service manager's patience.
const MARGIN: Duration = Duration::from_secs(10);

/// More time is asked for when it is so much more.
const WORTH_ASKING: Duration = Duration::from_secs(1);

/// Where the daemon is, as the service manager sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Ready,
    Reloading,
    Stopping,
}

/// What is sent in one datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Message {
    Ready,
    /// With CLOCK_MONOTONIC in microseconds.
    Reloading(i128),
    Stopping,
    /// More time for stopping, from now on.
    Extend(Duration),
    Watchdog,
    Status(String),
}

/// Whoever watches wants to hear from the driver.
#[derive(Debug)]
struct Watchdog {
    /// Half of the interval.
    every: Duration,
    next: Instant,
}

/// Tells the service manager.
#[derive(Debug)]
pub struct Notifier {
    phase: Phase,
    watchdog: Option<Watchdog>,
    /// Stopping takes no longer than until then, as far as was told.
    promised: Option<Instant>,
    outbox: Option<Arc<Outbox>>,
}

/// What is still on its way to the service manager.
#[derive(Clone, Debug)]
pub struct Unsent(Option<Arc<Outbox>>);

impl Unsent {
    /// Waits until all of it is sent, but not longer than this. Blocks.
    pub fn flush(&self, limit: Duration) {
        let Some(outbox) = &self.0 else { return };
        let waiting = outbox.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let unsent = |waiting: &mut Waiting| waiting.is_sending || !waiting.is_empty();
        // What was not sent by then is not worth more.
        let _ = outbox.changed.wait_timeout_while(waiting, limit, unsent);
    }
}

#[derive(Debug, Default)]
struct Outbox {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<Message>,
    /// One for each name, so that there are never more of them than names.
    descriptors: BTreeMap<String, Stored>,
    is_sending: bool,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.descriptors.is_empty()
    }
}

/// What becomes of what is stored under a name. A name may be used again: what was under it goes
/// first, because the store may hold several under one name.
#[derive(Debug, Default)]
struct Stored {
    is_taken_back: bool,
    descriptor: Option<OwnedFd>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Socket {
    /// A path of the file system.
    Path,
    /// A name in the abstract namespace.
    Abstract,
}

impl Notifier {
    /// Tells whoever `NOTIFY_SOCKET` names; nobody where it is not set.
    #[must_use]
    pub fn from_environment() -> Notifier {
        let outbox = std::env::var_os("NOTIFY_SOCKET").and_then(|path| {
            let name = path.as_encoded_bytes().starts_with(b"@");
            let socket = if name { Socket::Abstract } else { Socket::Path };
            let outbox = Arc::new(Outbox::default());
            let sender = outbox.clone();
            let thread = std::thread::Builder::new().name("notify".to_owned());
            match thread.spawn(move || sender.send_all(socket)) {
                Ok(_) => Some(outbox),
                Err(error) => {
                    tracing::warn!("the service manager will not be told anything: {error}");
                    None
                }
            }
        });
        let watchdog = outbox.as_ref().and_then(|_| sd_notify::watchdog_enabled());
        let watchdog = watchdog.filter(|interval| !interval.is_zero()).map(|interval| {
            let every = interval / 2;
            Watchdog { every, next: Instant::now() + every }
        });
        Notifier { phase: Phase::Starting, watchdog, promised: None, outbox }
    }

    /// Whether there is a service manager that is told.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.outbox.is_some()
    }

    /// For waiting until everything was sent.
    #[must_use]
    pub fn unsent(&self) -> Unsent {
        Unsent(self.outbox.clone())
    }

    /// When the driver has to make a turn at the latest, be it an empty one.
    #[must_use]
    pub fn turn_due(&self) -> Option<Instant> {
        self.watchdog.as_ref().map(|watchdog| watchdog.next)
    }

    /// The driver has made a turn.
    pub fn turned(&mut self) {
        let now = Instant::now();
        if let Some(watchdog) = self.watchdog.as_mut().filter(|watchdog| watchdog.next <= now) {
            watchdog.next = now + watchdog.every;
            self.put(Message::Watchdog);
        }
    }

    /// Whether READY=1 was sent.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.phase != Phase::Starting
    }

    /// The daemon can be used; or a reload is over.
    pub fn ready(&mut self) {
        if matches!(self.phase, Phase::Starting | Phase::Reloading) {
            self.phase = Phase::Ready;
            self.put(Message::Ready);
        }
    }

    /// A reload begins.
    pub fn reloading(&mut self) {
        if self.phase == Phase::Ready {
            self.phase = Phase::Reloading;
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            self.put(Message::Reloading(
                i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000,
            ));
        }
    }

    /// Another program goes on in this process, which says READY=1 as soon as it can be used.
    pub fn followed(&mut self) {
        self.reloading();
        self.status("going on as another program");
        self.still_alive();
    }

    /// Feeds the watchdog before its time: the next turn of a driver may be a while away.
    pub fn still_alive(&mut self) {
        if self.watchdog.is_some() {
            self.put(Message::Watchdog);
        }
    }

    /// Everything is being ended.
    pub fn stopping(&mut self) {
        if self.phase != Phase::Stopping {
            self.phase = Phase::Stopping;
            self.put(Message::Stopping);
        }
    }

    /// Stopping goes on, and nothing more is waited for than this.
    pub fn still_stopping(&mut self, at_most: Duration) {
        if self.phase != Phase::Stopping {
            return;
        }
        let extension = at_most.saturating_add(MARGIN);
        let Some(until) = Instant::now().checked_add(extension) else { return };
        if self.promised.is_none_or(|promised| until > promised + WORTH_ASKING) {
            self.promised = Some(until);
            self.put(Message::Extend(extension));
        }
    }

    /// Has a descriptor stored until it is taken back, whatever becomes of what it stands for. The
    /// name has no colon and no control character.
    pub fn store(&self, name: String, descriptor: OwnedFd) {
        self.for_descriptors().store(name, descriptor);
    }

    /// Takes back what is stored under a name.
    pub fn take_back(&self, name: String) {
        self.for_descriptors().take_back(name);
    }

    /// For others who have descriptors to store.
    #[must_use]
    pub fn for_descriptors(&self) -> Descriptors {
        Descriptors(self.outbox.clone())
    }

    /// One line for people.
    pub fn status(&self, line: &str) {
        self.put(Message::Status(line.to_owned()));
    }

    fn put(&self, message: Message) {
        let Some(outbox) = &self.outbox else { return };
        let mut waiting = outbox.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let messages = &mut waiting.messages;
        // Only the newest of these is worth reading.
        if matches!(message, Message::Status(_) | Message::Extend(_) | Message::Watchdog) {
            let kind = std::mem::discriminant(&message);
            messages.retain(|waiting| std::mem::discriminant(waiting) != kind);
        }
        if messages.len() == WAITING {
            messages.pop_front();
        }
        messages.push_back(message);
        outbox.changed.notify_all();
    }
}

/// What the service manager stores.
#[derive(Clone, Debug)]
pub struct Descriptors(Option<Arc<Outbox>>);

impl Descriptors {
    /// See [`Notifier::store`].
    pub fn store(&self, name: String, descriptor: OwnedFd) {
        self.put(name, |stored| stored.descriptor = Some(descriptor));
    }

    /// See [`Notifier::take_back`].
    pub fn take_back(&self, name: String) {
        self.put(name, |stored| *stored = Stored { is_taken_back: true, descriptor: None });
    }

    fn put(&self, name: String, change: impl FnOnce(&mut Stored)) {
        let Some(outbox) = &self.0 else { return };
        let mut waiting = outbox.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        change(waiting.descriptors.entry(name).or_default());
        outbox.changed.notify_all();
    }
}

/// What is sent next.
enum Next {
    Message(Message),
    Descriptor(String, Stored),
}

impl Outbox {
    fn send_all(&self, socket: Socket) {
        loop {
            let sent = match self.next() {
                Next::Message(message) => message.send(socket),
                Next::Descriptor(name, stored) => stored.send(&name, socket),
            };
            if let Err(error) = sent {
                tracing::debug!("the service manager was not told: {error}");
            }
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_sending = false;
            self.changed.notify_all();
        }
    }

    /// Waits for it.
    fn next(&self) -> Next {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_while(waiting, |waiting| waiting.is_empty());
        let mut waiting = waited.unwrap_or_else(PoisonError::into_inner);
        waiting.is_sending = true;
        match (waiting.messages.pop_front(), waiting.descriptors.pop_first()) {
            (Some(message), descriptor) => {
                waiting.descriptors.extend(descriptor);
                Next::Message(message)
            }
            (None, Some((name, stored))) => Next::Descriptor(name, stored),
            // It waits for one of the two.
            (None, None) => Next::Message(Message::Status(String::new())),
        }
    }
}

impl Stored {
    fn send(&self, name: &str, socket: Socket) -> Result<(), String> {
        if socket == Socket::Abstract {
            return Ok(());
        }
        let mut told = Ok(());
        if self.is_taken_back {
            told = sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
        }
        if let Some(descriptor) = &self.descriptor {
            // Without FDPOLL=0 it would be dropped when the process ends, which is what it is for.
            let states =
                [NotifyState::FdStore, NotifyState::FdName(name), NotifyState::Custom("FDPOLL=0")];
            told = told.and(sd_notify::notify_with_fds(&states, &[descriptor.as_fd()]));
        }
        told.map_err(|error| error.to_string())
    }
}

impl Message {
    fn send(&self, socket: Socket) -> Result<(), String> {
        let extend = match self {
            Message::Extend(time) => format!("EXTEND_TIMEOUT_USEC={}", time.as_micros()),
            _ => String::new(),
        };
        let states = match self {
            Message::Ready => vec![NotifyState::Ready],
            Message::Reloading(now) => {
                vec![NotifyState::Reloading, NotifyState::MonotonicUsec(*now)]
            }
            Message::Stopping => vec![NotifyState::Stopping],
            Message::Extend(_) => vec![NotifyState::Custom(&extend)],
            Message::Watchdog => vec![NotifyState::Watchdog],
            Message::Status(line) => vec![NotifyState::Status(line)],
        };
        match socket {
            Socket::Path => sd_notify::notify(&states).map_err(|error| error.to_string()),
            Socket::Abstract => {
                use libsystemd::daemon::{NotifyState as Other, notify};
                let states: Vec<Other> =
                    states.iter().map(|state| Other::Other(state.to_string())).collect();
                notify(false, &states).map(|_| ()).map_err(|error| error.to_string())
            }
        }
    }
}

//! What the service manager is told (sd_notify(3)).
//!
//! The rules, in one place: nothing is sent where nobody listens; READY=1 comes once when the daemon
//! can be used, and follows every RELOADING=1; RELOADING=1 carries MONOTONIC_USEC in the same
//! datagram; nothing but STATUS follows STOPPING=1.
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

/// More than this is never waiting, unless nobody reads; then the oldest go.
const WAITING: usize = 64;

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
    Status(String),
}

/// Tells the service manager.
#[derive(Debug)]
pub struct Notifier {
    phase: Phase,
    outbox: Option<Arc<Outbox>>,
}

#[derive(Debug, Default)]
struct Outbox {
    waiting: Mutex<Waiting>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<Message>,
    /// One for each name, so that there are never more of them than names.
    descriptors: BTreeMap<String, Stored>,
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
        Notifier { phase: Phase::Starting, outbox }
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

    /// Everything is being ended.
    pub fn stopping(&mut self) {
        if self.phase != Phase::Stopping {
            self.phase = Phase::Stopping;
            self.put(Message::Stopping);
        }
    }

    /// Has a descriptor stored until it is taken back, whatever becomes of what it stands for. The
    /// name has no colon and no control character.
    pub fn store(&self, name: String, descriptor: OwnedFd) {
        self.put_descriptor(name, |stored| stored.descriptor = Some(descriptor));
    }

    /// Takes back what is stored under a name.
    pub fn take_back(&self, name: String) {
        self.put_descriptor(name, |stored| {
            *stored = Stored { is_taken_back: true, descriptor: None };
        });
    }

    fn put_descriptor(&self, name: String, change: impl FnOnce(&mut Stored)) {
        let Some(outbox) = &self.outbox else { return };
        let mut waiting = outbox.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        change(waiting.descriptors.entry(name).or_default());
        outbox.filled.notify_one();
    }

    /// One line for people.
    pub fn status(&self, line: &str) {
        self.put(Message::Status(line.to_owned()));
    }

    fn put(&self, message: Message) {
        let Some(outbox) = &self.outbox else { return };
        let mut waiting = outbox.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let messages = &mut waiting.messages;
        if matches!(message, Message::Status(_)) {
            // Only the newest line is worth reading.
            messages.retain(|waiting| !matches!(waiting, Message::Status(_)));
        }
        if messages.len() == WAITING {
            messages.pop_front();
        }
        messages.push_back(message);
        outbox.filled.notify_one();
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
        }
    }

    /// Waits for it.
    fn next(&self) -> Next {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let empty = |all: &mut Waiting| all.messages.is_empty() && all.descriptors.is_empty();
        let waited = self.filled.wait_while(waiting, empty);
        let mut waiting = waited.unwrap_or_else(PoisonError::into_inner);
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
        let states = match self {
            Message::Ready => vec![NotifyState::Ready],
            Message::Reloading(now) => {
                vec![NotifyState::Reloading, NotifyState::MonotonicUsec(*now)]
            }
            Message::Stopping => vec![NotifyState::Stopping],
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

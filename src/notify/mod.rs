//! What the service manager is told (sd_notify(3)).
//!
//! The rules, in one place: nothing is sent where nobody listens; READY=1 comes once when the daemon
//! can be used, and follows every RELOADING=1; RELOADING=1 carries MONOTONIC_USEC in the same
//! datagram; nothing but STATUS follows STOPPING=1.
//!
//! A thread of its own does the sending. The socket is a queue in somebody else's hands: whoever
//! made it may have stopped reading, and supervising must not wait for that.
//!
//! sd-notify sends, except to an abstract socket, which it does not know: there libsystemd does.

use sd_notify::NotifyState;
use std::collections::VecDeque;
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
    messages: Mutex<VecDeque<Message>>,
    filled: Condvar,
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

    /// One line for people.
    pub fn status(&self, line: &str) {
        self.put(Message::Status(line.to_owned()));
    }

    fn put(&self, message: Message) {
        let Some(outbox) = &self.outbox else { return };
        let mut messages = outbox.messages.lock().unwrap_or_else(PoisonError::into_inner);
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

impl Outbox {
    fn send_all(&self, socket: Socket) {
        loop {
            let message = {
                let messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
                let mut messages = self
                    .filled
                    .wait_while(messages, |messages| messages.is_empty())
                    .unwrap_or_else(PoisonError::into_inner);
                messages.pop_front()
            };
            if let Some(message) = message
                && let Err(error) = message.send(socket)
            {
                tracing::debug!("the service manager was not told: {error}");
            }
        }
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

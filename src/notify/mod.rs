//! What the service manager is told (sd_notify(3)).
//!
//! The rules, in one place: nothing is sent where nobody listens; READY=1 comes once when the daemon
//! can be used, and follows every RELOADING=1; RELOADING=1 carries MONOTONIC_USEC in the same
//! datagram; nothing but STATUS and EXTEND_TIMEOUT_USEC follows STOPPING=1.
//!
//! Where a watchdog is set, it is fed after a turn of the driver, at least one per half interval: what
//! it shall notice is a driver that does not get on.
//!
//! Descriptors go to its store (systemd.service(5), `FileDescriptorStoreMax=`), which outlives the
//! daemon: whoever holds the pidfd of a process can be told how it ended, also after it has.
//!
//! | part | owns |
//! |---|---|
//! | `outbox` | what waits to be sent, and the thread that sends it |
//! | `socket` | the socket |

mod outbox;
mod socket;

use outbox::{Message, Outbox};
use socket::Socket;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
        if let Some(outbox) = &self.0 {
            outbox.flush(limit);
        }
    }
}

impl Notifier {
    /// Tells whoever `NOTIFY_SOCKET` names; nobody where it is not set.
    #[must_use]
    pub fn from_environment() -> Notifier {
        let outbox = std::env::var_os("NOTIFY_SOCKET").and_then(|path| {
            let outbox = Socket::to(&path).and_then(Outbox::new);
            let why = "the service manager will not be told anything";
            outbox.inspect_err(|error| tracing::warn!("{why}: {error}")).ok()
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
        if let Some(outbox) = &self.outbox {
            outbox.put(message);
        }
    }
}

/// What the service manager stores.
#[derive(Clone, Debug)]
pub struct Descriptors(Option<Arc<Outbox>>);

impl Descriptors {
    /// See [`Notifier::store`].
    pub fn store(&self, name: String, descriptor: OwnedFd) {
        if let Some(outbox) = &self.0 {
            outbox.store(name, descriptor);
        }
    }

    /// See [`Notifier::take_back`].
    pub fn take_back(&self, name: String) {
        if let Some(outbox) = &self.0 {
            outbox.take_back(name);
        }
    }
}

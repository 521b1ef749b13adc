//! What the service manager is told (sd_notify(3)).
//!
//! The rules, in one place: nothing is sent where nobody listens; READY=1 comes once when the daemon
//! can be used, and follows every RELOADING=1; RELOADING=1 carries MONOTONIC_USEC in the same
//! datagram; nothing but STATUS follows STOPPING=1. sd-notify sends, except to an abstract socket,
//! which it does not know: there libsystemd does.

use sd_notify::NotifyState;

/// Where the daemon is, as the service manager sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Ready,
    Reloading,
    Stopping,
}

/// Tells the service manager.
#[derive(Debug)]
pub struct Notifier {
    phase: Phase,
    socket: Option<Socket>,
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
        let socket = std::env::var_os("NOTIFY_SOCKET").map(|path| {
            if path.as_encoded_bytes().starts_with(b"@") { Socket::Abstract } else { Socket::Path }
        });
        Notifier { phase: Phase::Starting, socket }
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
            self.send(&[NotifyState::Ready]);
        }
    }

    /// A reload begins.
    pub fn reloading(&mut self) {
        if self.phase == Phase::Ready
            && let Ok(now) = NotifyState::monotonic_usec_now()
        {
            self.phase = Phase::Reloading;
            self.send(&[NotifyState::Reloading, now]);
        }
    }

    /// Everything is being ended.
    pub fn stopping(&mut self) {
        if self.phase != Phase::Stopping {
            self.phase = Phase::Stopping;
            self.send(&[NotifyState::Stopping]);
        }
    }

    /// One line for people.
    pub fn status(&self, line: &str) {
        self.send(&[NotifyState::Status(line)]);
    }

    fn send(&self, states: &[NotifyState<'_>]) {
        // A service manager that does not listen any more is no reason to stop supervising.
        match self.socket {
            None => {}
            Some(Socket::Path) => {
                if let Err(error) = sd_notify::notify(states) {
                    tracing::debug!("the service manager was not told: {error}");
                }
            }
            Some(Socket::Abstract) => {
                use libsystemd::daemon::{NotifyState as Other, notify};
                let states: Vec<Other> =
                    states.iter().map(|state| Other::Other(state.to_string())).collect();
                if let Err(error) = notify(false, &states) {
                    tracing::debug!("the service manager was not told: {error}");
                }
            }
        }
    }
}

//! Who may do what. Asked first in every method that changes or inspects something.
//!
//! Until there is polkit, on the system bus only root may. On the session bus it is the user of the
//! daemon, or root; on the private socket the peer was checked when it connected. An error or a
//! time-out on the way means no.

use super::errors::{Error, Result};
use std::time::Duration;
use zbus::Connection;
use zbus::message::Header;

/// What somebody wants to do; each will be one polkit action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Have a process up.
    Start,
    /// Have a process down.
    Stop,
    /// Have a new run.
    Restart,
    /// Send a signal.
    Signal,
    /// Change the file.
    Configure,
    /// Apply the file, or have a process take its settings anew.
    Reload,
    /// Read what a process writes.
    ReadLogs,
    /// See more than the properties show: events, plans, excerpts of files.
    Inspect,
    /// Change how much the daemon logs.
    SetLog,
}

impl Action {
    /// The name, `kebab-case`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Start => "start",
            Action::Stop => "stop",
            Action::Restart => "restart",
            Action::Signal => "signal",
            Action::Configure => "configure",
            Action::Reload => "reload",
            Action::ReadLogs => "read-logs",
            Action::Inspect => "inspect",
            Action::SetLog => "set-log",
        }
    }
}

/// How callers of a connection are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A system bus: the bus knows the user of each sender.
    System,
    /// A session bus of this user.
    Session {
        /// The user of the daemon.
        owner: u32,
    },
    /// One peer, whose user was checked when it connected.
    Peer {
        /// The user of the peer.
        uid: u32,
    },
}

/// How long the bus has to say who a sender is.
const LOOKUP: Duration = Duration::from_secs(5);

impl Access {
    /// Whether a user may do everything.
    #[must_use]
    pub fn allows(self, uid: u32) -> bool {
        match self {
            Access::System => uid == 0,
            Access::Session { owner } => uid == owner || uid == 0,
            Access::Peer { .. } => true,
        }
    }

    /// The user of the caller, when they may do this.
    ///
    /// # Errors
    /// `AccessDenied` when they may not, or it cannot be told who they are.
    pub async fn authorise(
        self,
        action: Action,
        header: &Header<'_>,
        connection: &Connection,
    ) -> Result<u32> {
        let uid = match self {
            Access::Peer { uid } => uid,
            Access::System | Access::Session { .. } => sender(header, connection).await?,
        };
        if self.allows(uid) {
            Ok(uid)
        } else {
            Err(Error::denied(format!("user {uid} has no permission to {}", action.as_str())))
        }
    }
}

async fn sender(header: &Header<'_>, connection: &Connection) -> Result<u32> {
    let unknown = || Error::denied("it cannot be told who is asking");
    let name = header.sender().ok_or_else(unknown)?;
    let bus = "org.freedesktop.DBus";
    let asked = connection.call_method(
        Some(bus),
        "/org/freedesktop/DBus",
        Some(bus),
        "GetConnectionUnixUser",
        name,
    );
    let answer = tokio::time::timeout(LOOKUP, asked).await;
    let reply = answer.map_err(|_| unknown())?.map_err(|_| unknown())?;
    reply.body().deserialize().map_err(|_| unknown())
}

#[cfg(test)]
mod tests {
    use super::Access;

    #[test]
    fn only_root_on_the_system_bus_and_the_owner_on_their_own() {
        assert!(Access::System.allows(0));
        assert!(!Access::System.allows(1000));
        let session = Access::Session { owner: 1000 };
        assert!(session.allows(1000) && session.allows(0));
        assert!(!session.allows(1001));
    }
}

//! The network: checks by http and tcp, and the addresses at which sockets are held for processes.
//!
//! A daemon whose service takes the network from it has `provost-net` do all of this, a program of
//! ours in a unit of its own; any other daemon does it itself. It is the same code, in [`check`] and
//! [`bind`]; only how it is asked differs.
//!
//! | module | owns |
//! |---|---|
//! | [`check`] | one check, from the name to the last byte |
//! | [`connect`], [`http`] | what it is made of |
//! | [`bind`] | sockets at addresses |
//! | [`message`] | what the daemon and `provost-net` say to each other |
//! | [`asking`] | the daemon's side: starts it, asks, and lets it end |
//! | [`serving`] | all of `provost-net` |

pub mod asking;
pub mod bind;
pub mod check;
pub mod connect;
pub mod http;
pub mod message;
pub mod serving;

use self::asking::Helper;
use self::bind::Use;
use self::check::Check;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Who is on the network for this daemon.
pub enum Network {
    /// The daemon itself.
    Own,
    /// `provost-net`.
    Helper(Helper),
}

impl Network {
    /// Asks once; an answer comes soon after the timeout at the latest. The time that it takes to
    /// start the helper is not counted: what is asked is not to blame for it.
    ///
    /// # Errors
    /// Says in a few words what was wrong.
    pub async fn check(&self, check: Check, timeout: Duration) -> Result<(), String> {
        match self {
            Network::Own => check.ask(timeout).await,
            Network::Helper(helper) => helper.check(check, timeout).await,
        }
    }

    /// A socket at an address.
    ///
    /// # Errors
    /// What the system says, or why it could not be asked.
    pub async fn bind(&self, address: SocketAddr, used: Use) -> io::Result<OwnedFd> {
        match self {
            Network::Own => bind::bind(address, used),
            Network::Helper(helper) => helper.bind(address, used).await,
        }
    }

    /// The same for a thread that may wait: not for a task.
    ///
    /// # Errors
    /// As [`Network::bind`].
    pub fn bind_blocking(&self, address: SocketAddr, used: Use) -> io::Result<OwnedFd> {
        match self {
            Network::Own => bind::bind(address, used),
            Network::Helper(helper) => helper.bind_blocking(address, used),
        }
    }
}

//! The D-Bus objects: everything a program can see and ask of the daemon, on a bus and peer to peer
//! on the private socket.
//!
//! The objects hold no state. They read what the driver published and ask through its handle. One
//! task for each connection ([`emit`]) turns what changed into signals. `dbus/*.xml` is the contract
//! for people; a test compares it with what a running daemon shows.

pub mod auth;
mod checkpoint;
mod content;
mod emit;
pub mod errors;
mod generations;
mod job;
mod lazy;
pub mod logcontrol;
mod manager;
mod matches;
mod options;
pub mod paths;
mod process;
mod replies;
mod serve;
mod socket;
mod text;
mod transport;
mod upgrade;
mod values;

pub use logcontrol::LogControl;
pub use serve::{Bus, ServeError, on_bus};
pub use socket::{PrivateSocket, on_socket};
pub use upgrade::{Prepared, UpgradeRequest, UpgradeRequests, Upgrades};

use crate::core::ids::JobId;
use crate::driver::handle::Handle;
use auth::Access;
use matches::Matches;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedRwLockReadGuard, RwLock};
use zbus::object_server::ResponseDispatchNotifier;

/// The name on the bus.
pub const NAME: &str = "org.provost.Provost1";

/// What all connections share.
pub struct Service {
    handle: Handle,
    log: Arc<dyn LogControl>,
    /// None: there is nobody who could do it.
    upgrades: Option<Upgrades>,
    /// Tells this daemon's event numbers from those of one that ran before.
    epoch: String,
}

impl Service {
    /// Serves what `handle` gives; `log` is the daemon's own log, `upgrades` its way to be followed by
    /// another program.
    #[must_use]
    pub fn new(
        handle: Handle,
        log: Arc<dyn LogControl>,
        upgrades: Option<Upgrades>,
    ) -> Arc<Service> {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Arc::new(Service { handle, log, upgrades, epoch: format!("{:x}", started.as_micros()) })
    }
}

/// What the objects of one connection share.
struct Context {
    service: Arc<Service>,
    access: Access,
    replies: Replies,
    /// Whether there are objects of processes and jobs, or somebody makes them just now.
    has_objects: AtomicBool,
    /// What is to be told.
    matches: Matches,
}

impl Context {
    fn new(service: Arc<Service>, access: Access) -> Arc<Context> {
        let has_objects = AtomicBool::new(true);
        let matches = Matches::default();
        Arc::new(Context { service, access, replies: Replies::default(), has_objects, matches })
    }

    fn handle(&self) -> &Handle {
        &self.service.handle
    }
}

/// Keeps the end of a job from being told on a connection before the reply that names the job.
///
/// A method that may create a job holds the lock for reading, from before it asks until its reply
/// is sent; whoever tells the end of a job takes it for writing first. Reloads have a lock of their
/// own, because a reload is answered only after files were read and nothing else shall wait for
/// that.
#[derive(Default)]
struct Replies {
    verbs: Arc<RwLock<()>>,
    reloads: Arc<RwLock<()>>,
    /// Held by an answer that is large, until it was sent: the next is made when there is room.
    large: Arc<Mutex<()>>,
}

/// A reply that is due.
struct ReplyDue {
    _lock: OwnedRwLockReadGuard<()>,
}

impl Replies {
    async fn verb(&self) -> ReplyDue {
        ReplyDue { _lock: self.verbs.clone().read_owned().await }
    }

    async fn large(&self) -> OwnedMutexGuard<()> {
        self.large.clone().lock_owned().await
    }

    async fn reload(&self) -> ReplyDue {
        ReplyDue { _lock: self.reloads.clone().read_owned().await }
    }

    /// Whether no reply is due.
    fn are_settled(&self, reloads: bool) -> bool {
        self.verbs.try_write().is_ok() && (!reloads || self.reloads.try_write().is_ok())
    }

    /// Waits until every reply that is due now was sent.
    async fn settled(&self, reloads: bool) {
        drop(self.verbs.write().await);
        if reloads {
            drop(self.reloads.write().await);
        }
    }
}

impl ReplyDue {
    /// The reply. It stops being due when it was sent, or cannot be sent any more.
    fn with<T>(self, value: T) -> ResponseDispatchNotifier<T> {
        holding(self, value)
    }
}

/// A reply that holds something until it was sent, or cannot be sent any more.
fn holding<T>(held: impl Send + 'static, value: T) -> ResponseDispatchNotifier<T> {
    let (reply, sent) = ResponseDispatchNotifier::new(value);
    tokio::spawn(async move {
        sent.await;
        drop(held);
    });
    reply
}

/// A reply that nothing waits for.
fn plain<T>(value: T) -> ResponseDispatchNotifier<T> {
    ResponseDispatchNotifier::new(value).0
}

/// The number of a job on the bus, where numbers have 32 bits.
fn job_number(job: JobId) -> u32 {
    u32::try_from(job.0).unwrap_or(u32::MAX)
}

//! The objects on a message bus.

use super::auth::Access;
use super::emit::{EmitError, Emitter};
use super::logcontrol::{self, LogObject};
use super::manager::ManagerObject;
use super::{Context, NAME, Service, paths};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use zbus::Connection;
use zbus::connection::Builder;
use zbus::fdo::{ObjectManager, RequestNameFlags};

/// Which bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    /// The system's. Who may do what is asked for each call.
    System,
    /// The user's own.
    Session,
}

/// Why the objects cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another daemon has the name, or answers on the socket.
    #[error("another supervisor is already there: {0}")]
    Taken(String),
    /// There is no bus, or it does not let us in.
    #[error("the message bus cannot be used: {0}")]
    Bus(#[from] zbus::Error),
    /// The socket cannot be made.
    #[error("the private socket {path} cannot be made: {source}")]
    Socket {
        /// Where.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// The first wait before a lost bus is tried again, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// Serves on a bus for ever: when the bus goes away, it comes back with it, and supervising goes
/// on meanwhile. `serving` says whether the name is ours at the moment.
///
/// # Errors
/// [`ServeError::Taken`], when the name is taken at the beginning. Whatever else is wrong is logged
/// and tried again. So is a name that is taken where `is_ours` says that this process has had it: the
/// bus may not have seen yet that the program before has gone.
pub async fn on_bus(
    service: Arc<Service>,
    bus: Bus,
    serving: watch::Sender<bool>,
    is_ours: bool,
) -> Result<(), ServeError> {
    let (mut wait, mut begun, mut told) = (RETRY.0, is_ours, false);
    loop {
        match connect(service.clone(), bus).await {
            Ok((connection, emitter)) => {
                tracing::info!(?bus, "serving {NAME}");
                (wait, begun, told) = (RETRY.0, true, false);
                serving.send_replace(true);
                let why = until_lost(connection, emitter, None).await;
                serving.send_replace(false);
                if matches!(why, Some(EmitError::DriverGone)) {
                    return Ok(());
                }
                let why = why.map_or_else(|| "it was closed".to_owned(), |why| why.to_string());
                tracing::warn!(?bus, "lost the message bus: {why}; trying again");
            }
            Err(error @ ServeError::Taken(_)) if !begun => return Err(error),
            Err(error) if !told => {
                told = true;
                tracing::warn!(?bus, "{error}; trying again");
            }
            Err(error) => tracing::debug!(?bus, "{error}"),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY.1);
    }
}

/// Connects, registers all objects, and only then takes the name, so that nobody who uses the name
/// finds an object missing.
async fn connect(service: Arc<Service>, bus: Bus) -> Result<(Connection, Emitter), ServeError> {
    let (builder, access) = match bus {
        Bus::System => (Builder::system(), Access::System),
        Bus::Session => {
            let owner = rustix::process::geteuid().as_raw();
            (Builder::session(), Access::Session { owner })
        }
    };
    let context = Context::new(service, access);
    let connection = serve_fixed(builder, &context).build().await?;
    let emitter = Emitter::new(context);
    let server = connection.object_server();
    for (path, object) in emitter.processes() {
        server.at(path, object).await?;
    }
    for (path, object) in emitter.jobs() {
        server.at(path, object).await?;
    }
    if let Some((path, object)) = emitter.checkpoint() {
        server.at(path, object).await?;
    }
    match connection.request_name_with_flags(NAME, RequestNameFlags::DO_NOT_QUEUE).await {
        Ok(_) => Ok((connection, emitter)),
        Err(zbus::Error::NameTaken) => Err(ServeError::Taken(owner(&connection, bus).await)),
        Err(error) => Err(error.into()),
    }
}

/// The objects that are always there.
pub(super) fn serve_fixed<'a>(builder: Builder<'a>, context: &Arc<Context>) -> Builder<'a> {
    builder
        .serve_at(paths::ROOT, ObjectManager)
        .serve_at(paths::ROOT, ManagerObject::new(context.clone()))
        .serve_at(logcontrol::PATH, LogObject::new(context.clone()))
}

/// Emits until the connection is lost; None when the other end closed it.
pub(super) async fn until_lost(
    connection: Connection,
    emitter: Emitter,
    patience: Option<Duration>,
) -> Option<EmitError> {
    let emitting = emitter.run(connection.clone(), patience);
    tokio::select! {
        () = connection.closed() => None,
        why = emitting => Some(why),
    }
}

/// Who has the name, for people.
async fn owner(connection: &Connection, bus: Bus) -> String {
    let place = match bus {
        Bus::System => "system bus",
        Bus::Session => "session bus",
    };
    let dbus = "org.freedesktop.DBus";
    let asked = connection
        .call_method(
            Some(dbus),
            "/org/freedesktop/DBus",
            Some(dbus),
            "GetConnectionUnixProcessID",
            &NAME,
        )
        .await;
    match asked.and_then(|reply| reply.body().deserialize::<u32>()) {
        Ok(pid) => format!("process {pid} has the name {NAME} on the {place}"),
        Err(_) => format!("the name {NAME} is taken on the {place}"),
    }
}

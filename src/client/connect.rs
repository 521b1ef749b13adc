//! Finding the daemon.

use super::error::ClientError;
use super::matches::Matches;
use super::{Client, Target};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use zbus::connection::Builder;
use zbus::names::{BusName, OwnedUniqueName};
use zbus::{Connection, fdo};

/// The name on the bus.
const NAME: &str = "org.provost.Provost1";

/// The private socket of the system's daemon.
const SYSTEM_SOCKET: &str = "/run/provost/private";

/// A connection and the daemon on it; on the private socket it has no name.
pub struct Link {
    pub connection: Connection,
    pub daemon: Option<OwnedUniqueName>,
    pub endpoint: String,
    /// What a daemon on a private socket was told that is listened to.
    pub matches: Matches,
}

impl Link {
    /// One on which nothing is listened to yet.
    pub fn new(connection: Connection, daemon: Option<OwnedUniqueName>, endpoint: String) -> Link {
        Link { connection, daemon, endpoint, matches: Matches::default() }
    }
}

#[derive(Clone, Copy)]
enum Bus {
    System,
    Session,
}

impl Bus {
    fn words(self) -> &'static str {
        match self {
            Bus::System => "the system bus",
            Bus::Session => "the session bus",
        }
    }
}

pub async fn connect(target: &Target) -> Result<Client, ClientError> {
    let link = match target {
        Target::Socket(path) => socket(path).await?,
        Target::User => either(&user_socket(), Bus::Session, "your").await?,
        Target::System if rustix::process::geteuid().is_root() => {
            either(Path::new(SYSTEM_SOCKET), Bus::System, "the system's").await?
        }
        Target::System => bus(Bus::System).await?,
    };
    Client::new(link).await
}

/// `$XDG_RUNTIME_DIR/provost/private`, or where that variable usually points to.
pub fn user_socket() -> PathBuf {
    let directory = std::env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty());
    let directory = directory.map_or_else(
        || PathBuf::from(format!("/run/user/{}", rustix::process::geteuid().as_raw())),
        PathBuf::from,
    );
    directory.join("provost/private")
}

/// The socket, and where nobody answers there, the bus.
async fn either(path: &Path, other: Bus, whose: &str) -> Result<Link, ClientError> {
    match socket(path).await {
        Err(ClientError::NotRunning(_)) => {}
        found => return found,
    }
    match bus(other).await {
        Err(ClientError::NotRunning(_)) => Err(ClientError::NotRunning(format!(
            "{whose} supervisor is not running: nobody answers on {} or on {}",
            path.display(),
            other.words()
        ))),
        found => found,
    }
}

async fn socket(path: &Path) -> Result<Link, ClientError> {
    let endpoint = path.display().to_string();
    let stream = match UnixStream::connect(path) {
        Ok(stream) => stream,
        Err(error) => return Err(not_connected(&endpoint, error)),
    };
    let built = Builder::unix_stream(stream).p2p().build().await;
    let connection = built.map_err(|error| match is_served(path) {
        true => ClientError::from(error),
        // The daemon hangs up on users it does not serve.
        false => {
            ClientError::Denied(format!("the supervisor on {endpoint} does not serve this user"))
        }
    })?;
    Ok(Link::new(connection, None, endpoint))
}

/// Whether the daemon that made this socket serves the caller: its own user and root.
fn is_served(socket: &Path) -> bool {
    let own = rustix::process::geteuid();
    own.is_root() || std::fs::metadata(socket).is_ok_and(|socket| socket.uid() == own.as_raw())
}

fn not_connected(endpoint: &str, error: io::Error) -> ClientError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ClientError::NotRunning(format!("no supervisor answers on {endpoint}"))
        }
        io::ErrorKind::PermissionDenied => {
            ClientError::Denied(format!("{endpoint} belongs to another user"))
        }
        _ => ClientError::Io { what: format!("connecting to {endpoint}"), source: error },
    }
}

async fn bus(which: Bus) -> Result<Link, ClientError> {
    let builder = match which {
        Bus::System => Builder::system(),
        Bus::Session => Builder::session(),
    };
    let place = which.words();
    let not_there = |_| ClientError::NotRunning(format!("{place} cannot be reached"));
    daemon_on(builder.build().await.map_err(not_there)?, place).await
}

/// The name's owner is asked for once, and calls go to it: a call to the name could have a daemon
/// started, and a daemon that comes back is another one.
pub async fn daemon_on(connection: Connection, place: &str) -> Result<Link, ClientError> {
    let name = BusName::try_from(NAME).map_err(|error| ClientError::Protocol(error.to_string()))?;
    match fdo::DBusProxy::new(&connection).await?.get_name_owner(name).await {
        Ok(daemon) => Ok(Link::new(connection, Some(daemon), place.to_owned())),
        Err(fdo::Error::NameHasNoOwner(_)) => {
            Err(ClientError::NotRunning(format!("no supervisor is on {place}")))
        }
        Err(error) => Err(zbus::Error::from(error).into()),
    }
}

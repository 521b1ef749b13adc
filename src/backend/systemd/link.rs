//! Making the connection to systemd.

use super::manager::{MANAGER, PATH, PROPERTIES};
use super::socket;
use super::unit::SERVICE;
use futures_util::StreamExt;
use std::io;
use std::path::PathBuf;
use zbus::connection::Builder;
use zbus::names::OwnedUniqueName;
use zbus::{Connection, MessageStream};

const NAME: &str = "org.freedesktop.systemd1";

/// How the service manager is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// By its private socket.
    Socket(PathBuf),
    /// By the system bus.
    SystemBus,
    /// By the user's bus.
    UserBus,
}

/// A connection.
pub(super) struct Link {
    pub(super) connection: Connection,
    /// On a bus, who the service manager is.
    pub(super) peer: Option<OwnedUniqueName>,
}

/// A connection on which everything about units is told.
pub(super) async fn connect(way: &Way) -> zbus::Result<(Link, MessageStream)> {
    let connection = match way {
        Way::Socket(path) => Builder::socket(socket::connect(path).await?).p2p().build().await?,
        Way::SystemBus => Builder::system().build().await?,
        Way::UserBus => Builder::session().build().await?,
    };
    // Before anything is asked for, so that nothing is missed.
    let mut stream = MessageStream::from(&connection);
    let peer = {
        let asked = introduce(way, &connection);
        tokio::pin!(asked);
        loop {
            tokio::select! {
                peer = &mut asked => break peer?,
                // Its queue is short, and while it is full no answer comes. What is told now is of
                // no use: everybody looks again once there is a connection.
                told = stream.next() => match told {
                    Some(told) => drop(told?),
                    None => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                },
            }
        }
    };
    Ok((Link { connection, peer }, stream))
}

/// Has the service manager tell us what happens; returns who that is on a bus.
async fn introduce(way: &Way, connection: &Connection) -> zbus::Result<Option<OwnedUniqueName>> {
    let peer = match way {
        Way::Socket(_) => None,
        Way::SystemBus | Way::UserBus => Some(listen(connection).await?),
    };
    let subscribed = connection.call_method(peer.as_ref(), PATH, Some(MANAGER), "Subscribe", &());
    match subscribed.await {
        // On a private socket everything is told anyway.
        Ok(_) | Err(zbus::Error::MethodError(..)) => Ok(peer),
        Err(error) => Err(error),
    }
}

/// Asks the bus for the signals of the service manager, and who that is.
async fn listen(connection: &Connection) -> zbus::Result<OwnedUniqueName> {
    let bus = zbus::fdo::DBusProxy::new(connection).await?;
    let rules = [
        format!("type='signal',sender='{NAME}',interface='{MANAGER}'"),
        format!(
            "type='signal',sender='{NAME}',interface='{PROPERTIES}',member='PropertiesChanged',\
             path_namespace='/org/freedesktop/systemd1/unit',arg0='{SERVICE}'"
        ),
        format!(
            "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='{NAME}'"
        ),
    ];
    for rule in &rules {
        bus.add_match_rule(rule.as_str().try_into()?).await?;
    }
    Ok(bus.get_name_owner(NAME.try_into()?).await?)
}

//! The objects on the private socket, peer to peer: works with no bus at all.
//!
//! Each connection has objects and an emitter of its own, so a peer that does not read, or goes
//! away in the middle of a call, disturbs nobody else.

use super::auth::Access;
use super::emit::{Emitter, PATIENCE};
use super::lazy::lazily;
use super::matches::{self, MatchObject};
use super::serve::{ServeError, serve_fixed, until_lost};
use super::transport::transport;
use super::{Context, Service};
use crate::sys::stat::Stat;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use zbus::connection::Builder;
use zbus::{Connection, OwnedGuid};

/// More peers than this are not let in.
const MAX_PEERS: usize = 128;

/// How long a peer has to say hello.
const HELLO: Duration = Duration::from_secs(10);

/// The socket, listening. Removes itself when dropped.
#[derive(Debug)]
pub struct PrivateSocket {
    listener: UnixListener,
    path: PathBuf,
}

/// Listens on a socket of its own and serves whoever may use it, see [`PrivateSocket`].
///
/// # Errors
/// When the socket cannot be made or accepts no more.
pub async fn on_socket(service: Arc<Service>, path: &Path) -> Result<(), ServeError> {
    PrivateSocket::bind(path)?.serve(service).await
}

impl PrivateSocket {
    /// Makes the socket, mode 0600, and its directory, mode 0700, where that is missing. A socket
    /// that nobody listens on is replaced.
    ///
    /// # Errors
    /// [`ServeError::Taken`] when somebody listens on it.
    pub fn bind(path: &Path) -> Result<PrivateSocket, ServeError> {
        let failed = |source| ServeError::Socket { path: path.display().to_string(), source };
        let path = &std::path::absolute(path).map_err(failed)?;
        let directory = path.parent().unwrap_or(Path::new("/"));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        // Two daemons that begin at once must not each remove the other's socket.
        let _lock = lock(directory).map_err(failed)?;
        let socket = match listen(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if !is_socket(path).map_err(failed)? {
                    return Err(failed(error));
                }
                if is_served(path).map_err(failed)? {
                    return Err(ServeError::Taken(format!("it answers on {}", path.display())));
                }
                std::fs::remove_file(path).map_err(failed)?;
                listen(path)
            }
            other => other,
        };
        let listener = std::os::unix::net::UnixListener::from(socket.map_err(failed)?);
        let listener = UnixListener::from_std(listener).map_err(failed)?;
        Ok(PrivateSocket { listener, path: path.to_owned() })
    }

    /// Goes on with a socket that another program in this process has listened on.
    ///
    /// # Errors
    /// When its path stands for something else by now, and what the system says.
    pub fn take_over(path: &Path, listener: OwnedFd) -> Result<PrivateSocket, ServeError> {
        let failed = |source| ServeError::Socket { path: path.display().to_string(), source };
        let path = std::path::absolute(path).map_err(failed)?;
        if !is_socket(&path).map_err(failed)? {
            return Err(failed(io::ErrorKind::NotFound.into()));
        }
        let listener = std::os::unix::net::UnixListener::from(listener);
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = UnixListener::from_std(listener).map_err(failed)?;
        Ok(PrivateSocket { listener, path })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Another descriptor of it.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn copy(&self) -> io::Result<OwnedFd> {
        self.listener.as_fd().try_clone_to_owned()
    }

    /// Serves for ever.
    ///
    /// # Errors
    /// When the socket accepts no more.
    pub async fn serve(self, service: Arc<Service>) -> Result<(), ServeError> {
        let owner = rustix::process::geteuid().as_raw();
        let guid = OwnedGuid::from(zbus::Guid::generate());
        let room = Arc::new(Semaphore::new(MAX_PEERS));
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) if is_passing(&error) => {
                    tracing::warn!("a peer was not accepted: {error}");
                    // Descriptors come back when peers leave; that is no event here.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
                Err(source) => {
                    let path = self.path.display().to_string();
                    return Err(ServeError::Socket { path, source });
                }
            };
            let Ok(uid) = stream.peer_cred().map(|peer| peer.uid()) else { continue };
            if uid != owner && uid != 0 {
                tracing::warn!("user {uid} was turned away from {}", self.path.display());
                continue;
            }
            let Ok(place) = room.clone().try_acquire_owned() else {
                tracing::warn!("{MAX_PEERS} peers are connected; one more was turned away");
                continue;
            };
            let Ok(stream) = stream.into_std() else { continue };
            let context = Context::new(service.clone(), Access::Peer { uid });
            let guid = guid.clone();
            tokio::spawn(async move {
                peer(stream, uid, context, guid).await;
                drop(place);
            });
        }
    }
}

impl Drop for PrivateSocket {
    fn drop(&mut self) {
        // A socket that is left over is replaced by the next daemon.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Serves one peer until it is gone.
async fn peer(stream: UnixStream, uid: u32, context: Arc<Context>, guid: OwnedGuid) {
    let Ok(closer) = stream.try_clone() else { return };
    match tokio::time::timeout(HELLO, greet(stream, uid, context, guid)).await {
        Ok(Ok((connection, emitter))) => {
            if let Some(why) = until_lost(connection, emitter, Some(PATIENCE)).await {
                tracing::debug!("a peer is disconnected: {why}");
            }
        }
        Ok(Err(error)) => tracing::debug!("a peer did not get through: {error}"),
        Err(_) => tracing::debug!("a peer did not say hello in time"),
    }
    // Ends also what waits to be written to a peer that does not read.
    let _ = closer.shutdown(Shutdown::Both);
}

/// All objects are there before a message is read that may be about them.
async fn greet(
    stream: UnixStream,
    uid: u32,
    context: Arc<Context>,
    guid: OwnedGuid,
) -> zbus::Result<(Connection, Emitter)> {
    let (transport, wanted) = lazily(transport(stream, uid)?);
    // Before the peer can ask anything: it misses nothing that comes of what it asks.
    let emitter = Emitter::lazy(context.clone(), wanted);
    let builder = Builder::socket(transport).p2p().server(guid);
    let builder = builder.serve_at(matches::PATH, MatchObject(context.clone()));
    Ok((serve_fixed(builder, &context).build().await?, emitter))
}

/// Whether somebody listens there. That it answers is not enough: what a supervisor that was killed
/// was just starting has the socket until it executes. A peer is told who called listen(2)
/// (`SO_PEERCRED` of unix(7)); one outside of this container has the number 0, and may be alive.
fn is_served(path: &Path) -> io::Result<bool> {
    let Ok(stream) = UnixStream::connect(path) else { return Ok(false) };
    stream.set_nonblocking(true)?;
    let listener = tokio::net::UnixStream::from_std(stream)?.peer_cred()?.pid();
    Ok(match listener.and_then(|pid| u32::try_from(pid).ok()) {
        None | Some(0) => true,
        Some(pid) => Stat::of(pid).is_some_and(|stat| !stat.has_ended()),
    })
}

fn is_socket(path: &Path) -> io::Result<bool> {
    Ok(std::fs::symlink_metadata(path)?.file_type().is_socket())
}

fn lock(directory: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory, flags, Mode::empty())?;
    rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive)?;
    Ok(directory)
}

/// A listening socket that was never open to anybody else: on Linux the mode of a socket before
/// bind(2) is that of its file (unix(7) leaves it open, `unix_bind_bsd` in the kernel has it so).
fn listen(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, 64)?;
    Ok(socket)
}

/// Errors of accept(2) after which the next may succeed.
fn is_passing(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let passing = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::CONNABORTED];
    Errno::from_io_error(error).is_some_and(|errno| passing.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn the_socket_is_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("provost/private");
        let socket = PrivateSocket::bind(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("private");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let live = PrivateSocket::bind(&path).unwrap();
        assert!(matches!(PrivateSocket::bind(&path), Err(ServeError::Taken(_))));
        assert!(UnixStream::connect(&path).is_ok());
        drop(live);
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("private");
        std::fs::write(&path, "precious").unwrap();
        assert!(PrivateSocket::bind(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}

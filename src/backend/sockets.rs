//! Sockets that are held for processes, and passed to each of their runs (sd_listen_fds(3)).
//!
//! A socket is opened when the first run of its process needs it, and closed when no run has it and
//! none of its instances is to run with it any more: stopped by an operator, failed for good, done,
//! or gone from the file. In between it stays open, so who connects while a run is replaced waits and
//! is not refused. Two runs of one instance, of which the one is to replace the other, share it.
//!
//! The service manager keeps a copy of each (`FDSTORE=1`) for the next daemon. Where nobody does,
//! the next daemon opens it again when it next starts a run; while another instance still has it
//! open, the kernel says that the address is in use, and that start fails and is tried again.
//!
//! TCP sockets are opened by whoever is on the network for the daemon ([`Network`]), which may use low
//! ports when the daemon is root. A unix socket is
//! opened as the user of the process: its file is then theirs, and nobody can lead the daemon to
//! remove a file of somebody else's.

use super::native::identity::Identity;
use super::native::launch::{failure, reason};
use crate::core::event::{SpawnError, SpawnStage};
use crate::core::ids::{InstanceId, ProcessId, Slot};
use crate::core::spec::{ExecSpec, Listen};
use crate::net::Network;
use crate::net::bind::{BACKLOG, Use};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, getsockname, listen, socket_with,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// A unit of systemd is unloaded within milliseconds; not while the machine goes down.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the name begins with under which the service manager keeps a socket.
const STORED: &str = "socket-";

/// Has the service manager keep a socket under a name, or let go of it.
pub type Keeper = Arc<dyn Fn(String, Option<OwnedFd>) + Send + Sync>;

/// One that is held. Whoever has given a copy away keeps this until that is closed.
#[derive(Debug)]
pub struct Socket {
    descriptor: OwnedFd,
    /// Hangs up when nobody has it any more.
    gone: watch::Sender<()>,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Socket {
    /// Holds one.
    #[must_use]
    pub fn new(descriptor: OwnedFd) -> Arc<Socket> {
        Arc::new(Socket { descriptor, gone: watch::Sender::new(()) })
    }
}

/// What a run is given, by name, in the order of its descriptors.
pub type Passed = Vec<(Arc<str>, Arc<Socket>)>;

/// Takes out of an environment what a run is told of its sockets (sd_listen_fds(3)): that is not the
/// file's to say.
pub fn take_out_variables(environment: &mut BTreeMap<String, String>) {
    for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
        environment.remove(name);
    }
}

/// All that are held.
#[derive(Default)]
pub struct Sockets {
    processes: Mutex<BTreeMap<ProcessId, Held>>,
    /// Places that were let go of, and that somebody we gave them to may still have: systemd has
    /// what it passed to a unit until that is unloaded.
    leaving: Mutex<BTreeMap<Listen, watch::Receiver<()>>>,
    keeper: Option<Keeper>,
}

/// Those of one process.
#[derive(Default)]
struct Held {
    /// By their places, where only one socket can be.
    open: BTreeMap<Listen, Open>,
    /// What the runs have, and those that are to come: by instance and slot, their places.
    users: BTreeMap<(u32, Slot), BTreeSet<Listen>>,
    /// One instance after the other opens what is not open yet.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// One that is open.
struct Open {
    /// The name it was opened for: under this the service manager keeps it.
    name: Arc<str>,
    listen: Listen,
    socket: Arc<Socket>,
}

impl Sockets {
    /// Goes on with what the service manager has kept.
    #[must_use]
    pub fn new(stored: Vec<(String, OwnedFd)>, keeper: Option<Keeper>) -> Sockets {
        let mut processes: BTreeMap<ProcessId, Held> = BTreeMap::new();
        for (stored, socket) in stored {
            match (of_stored(&stored), place_of(&socket)) {
                (Some((process, name)), Some(listen)) => {
                    let held = processes.entry(process).or_default();
                    let socket = Socket::new(socket);
                    held.open.insert(listen.place(), Open { name, listen, socket });
                }
                _ => {
                    if let Some(keeper) = &keeper {
                        keeper(stored, None);
                    }
                }
            }
        }
        Sockets { processes: Mutex::new(processes), leaving: Mutex::default(), keeper }
    }

    /// A run of another daemon goes on, and has its sockets open; those that were kept.
    pub fn goes_on(&self, instance: &InstanceId, slot: Slot, exec: &ExecSpec) -> Passed {
        if exec.sockets.is_empty() {
            return Passed::new();
        }
        let mut processes = self.lock();
        let held = processes.entry(instance.process.clone()).or_default();
        held.users.insert((instance.index, slot), places(exec));
        let kept = |(name, place): (&Arc<str>, &Listen)| {
            Some((name.clone(), held.open.get(&place.place())?.socket.clone()))
        };
        exec.sockets.iter().filter_map(kept).collect()
    }

    /// The sockets of a run that is about to start; opens those that are not open.
    ///
    /// # Errors
    /// At stage `Sockets`.
    pub async fn of_run(
        &self,
        instance: &InstanceId,
        slot: Slot,
        exec: &ExecSpec,
        identity: &Identity,
        network: &Network,
    ) -> Result<Passed, SpawnError> {
        let turn = {
            let mut processes = self.lock();
            if exec.sockets.is_empty() && !processes.contains_key(&instance.process) {
                return Ok(Vec::new());
            }
            let held = processes.entry(instance.process.clone()).or_default();
            held.users.insert((instance.index, slot), places(exec));
            held.turn.clone()
        };
        let _turn = turn.lock().await;
        self.close_unused(&instance.process);
        let mut passed = Passed::new();
        for (name, place) in exec.sockets.iter() {
            let error = |io: io::Error| {
                failure(SpawnStage::Sockets, &format!("{name} ({place})"), reason(&io))
            };
            let socket = match self.open(&instance.process, place) {
                Some((listen, socket)) if listen == *place => socket,
                Some((_, socket)) => {
                    self.give_mode(&instance.process, place, identity).await.map_err(error)?;
                    socket
                }
                None => {
                    self.wait_for(place).await;
                    let opened = open(place, identity, network).await.map_err(error)?;
                    self.hold(&instance.process, name, place, opened)
                }
            };
            passed.push((name.clone(), socket));
        }
        Ok(passed)
    }

    /// A run is over. Where it was the only one of its instance, the next one gets its sockets.
    pub fn over(&self, instance: &InstanceId, slot: Slot) {
        let mut processes = self.lock();
        let Some(held) = processes.get_mut(&instance.process) else { return };
        if !held.users.contains_key(&(instance.index, slot.other())) {
            return;
        }
        held.users.remove(&(instance.index, slot));
        drop(processes);
        self.close_unused(&instance.process);
    }

    /// An instance is not to run for now: whoever connects is to be refused, not kept waiting.
    pub fn at_rest(&self, instance: &InstanceId) {
        let mut processes = self.lock();
        let Some(held) = processes.get_mut(&instance.process) else { return };
        held.users.retain(|(index, _), _| *index != instance.index);
        drop(processes);
        self.close_unused(&instance.process);
    }

    /// Lets go of what was kept for processes that are not there any more.
    pub fn retain(&self, is_there: impl Fn(&ProcessId) -> bool) {
        let mut processes = self.lock();
        processes.retain(|process, held| {
            let is_there = is_there(process);
            if !is_there {
                self.let_go(process, std::mem::take(&mut held.open).values(), &BTreeMap::new());
            }
            is_there
        });
    }

    /// Copies of all that are held, by the names under which the service manager keeps them.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn copies(&self) -> io::Result<Vec<(String, OwnedFd)>> {
        let processes = self.lock();
        let all = processes.iter().flat_map(|(process, held)| {
            held.open.values().map(move |open| (stored_name(process, &open.name), &open.socket))
        });
        all.map(|(name, socket)| Ok((name, socket.descriptor.try_clone()?))).collect()
    }

    /// Whether it is held already, whoever it is for.
    #[must_use]
    pub fn holds(&self, place: &Listen) -> bool {
        let mut leaving = lock(&self.leaving);
        // What nobody has any more.
        leaving.retain(|_, gone| gone.has_changed().is_ok());
        if leaving.contains_key(&place.place()) {
            return true;
        }
        drop(leaving);
        let processes = self.lock();
        processes.values().any(|held| held.open.contains_key(&place.place()))
    }

    /// Closes those that no run has, and none that is to come.
    fn close_unused(&self, process: &ProcessId) {
        let mut processes = self.lock();
        let Some(held) = processes.get_mut(process) else { return };
        let used = |place: &Listen| held.users.values().any(|places| places.contains(place));
        let unused = held.open.keys().filter(|place| !used(place) || is_lost(place));
        let unused: Vec<Listen> = unused.cloned().collect();
        let unused: Vec<Open> = unused.iter().filter_map(|place| held.open.remove(place)).collect();
        self.let_go(process, unused.iter(), &held.open);
        if held.users.is_empty() {
            processes.remove(process);
        }
    }

    fn open(&self, process: &ProcessId, place: &Listen) -> Option<(Listen, Arc<Socket>)> {
        let processes = self.lock();
        let open = processes.get(process)?.open.get(&place.place())?;
        Some((open.listen.clone(), open.socket.clone()))
    }

    /// What is open in this place gets the permissions that it is to have.
    async fn give_mode(
        &self,
        process: &ProcessId,
        place: &Listen,
        identity: &Identity,
    ) -> io::Result<()> {
        if let Listen::Unix { path, mode } = place {
            let (path, mode, identity) = (path.clone(), *mode, identity.clone());
            let work =
                move || identity.run(|| fs::set_permissions(&*path, Permissions::from_mode(mode)));
            let done = tokio::task::spawn_blocking(work).await;
            done.unwrap_or_else(|error| Err(io::Error::other(error)))?;
        }
        let mut processes = self.lock();
        if let Some(held) = processes.get_mut(process)
            && let Some(open) = held.open.get_mut(&place.place())
        {
            open.listen = place.clone();
        }
        Ok(())
    }

    fn hold(
        &self,
        process: &ProcessId,
        name: &Arc<str>,
        place: &Listen,
        socket: OwnedFd,
    ) -> Arc<Socket> {
        let socket = Socket::new(socket);
        self.store(process, name, &socket);
        let mut processes = self.lock();
        let held = processes.entry(process.clone()).or_default();
        let open = Open { name: name.clone(), listen: place.clone(), socket: socket.clone() };
        held.open.insert(place.place(), open);
        socket
    }

    /// Has it kept for the next daemon.
    fn store(&self, process: &ProcessId, name: &str, socket: &Socket) {
        // Where there are no descriptors left, the next daemon opens it again.
        if let (Some(keeper), Ok(copy)) = (&self.keeper, socket.descriptor.try_clone()) {
            keeper(stored_name(process, name), Some(copy));
        }
    }

    fn let_go<'a>(
        &self,
        process: &ProcessId,
        unused: impl Iterator<Item = &'a Open>,
        others: &BTreeMap<Listen, Open>,
    ) {
        for Open { name, listen, socket } in unused {
            lock(&self.leaving).insert(listen.place(), socket.gone.subscribe());
            if let Some(keeper) = &self.keeper {
                keeper(stored_name(process, name), None);
            }
            // With it the manager has let go of all of this name.
            for other in others.values().filter(|other| other.name == *name) {
                self.store(process, name, &other.socket);
            }
            tracing::debug!("{process}: its socket {name} ({listen}) is closed");
        }
    }

    /// Returns when nobody we gave a place to has it any more.
    async fn wait_for(&self, place: &Listen) {
        let leaving = lock(&self.leaving).remove(&place.place());
        if let Some(mut leaving) = leaving {
            // An error is what is waited for. Who keeps it for longer is told as whoever has it.
            let gone = async { while leaving.changed().await.is_ok() {} };
            let _ = tokio::time::timeout(PATIENCE, gone).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ProcessId, Held>> {
        lock(&self.processes)
    }
}

/// Where the sockets of a run are.
fn places(exec: &ExecSpec) -> BTreeSet<Listen> {
    exec.sockets.values().map(Listen::place).collect()
}

/// Each change is whole when it is given back.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the service manager keeps a socket of a process under this name.
#[must_use]
pub fn is_stored(name: &str) -> bool {
    name.starts_with(STORED)
}

fn stored_name(process: &ProcessId, name: &str) -> String {
    // No id has an `@`.
    format!("{STORED}{process}@{name}")
}

/// The process and the name of a socket that was kept.
#[must_use]
pub fn of_stored(stored: &str) -> Option<(ProcessId, Arc<str>)> {
    let (process, name) = stored.strip_prefix(STORED)?.split_once('@')?;
    Some((ProcessId::new(process).ok()?, name.into()))
}

/// Whether the file of a unix socket is gone, so that nobody can connect.
fn is_lost(place: &Listen) -> bool {
    match place {
        Listen::Tcp(_) => false,
        Listen::Unix { path, .. } => {
            !fs::symlink_metadata(&**path).is_ok_and(|found| found.file_type().is_socket())
        }
    }
}

/// Where a socket takes connections.
fn place_of(socket: &OwnedFd) -> Option<Listen> {
    let address = getsockname(socket).ok()?;
    if let Ok(address) = SocketAddr::try_from(address.clone()) {
        return Some(Listen::Tcp(address));
    }
    let address = SocketAddrUnix::try_from(address).ok()?;
    let path = std::str::from_utf8(address.path()?.to_bytes()).ok()?.to_owned();
    let mode = fs::symlink_metadata(&path).ok()?.mode() & 0o777;
    Some(Listen::Unix { path: path.into(), mode })
}

async fn open(place: &Listen, identity: &Identity, network: &Network) -> io::Result<OwnedFd> {
    match place {
        Listen::Tcp(address) => network.bind(*address, Use::Listen).await,
        Listen::Unix { path, mode } => {
            let (path, mode, identity) = (path.clone(), *mode, identity.clone());
            let work = move || identity.run(|| open_unix(Path::new(&*path), mode));
            tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(io::Error::other(e)))
        }
    }
}

fn open_unix(path: &Path, mode: u32) -> io::Result<OwnedFd> {
    let socket =
        || socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let (address, own) = (SocketAddrUnix::new(path)?, socket()?);
    match bind(&own, &address) {
        Err(rustix::io::Errno::ADDRINUSE) => {
            if !fs::symlink_metadata(path)?.file_type().is_socket() {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is no socket"));
            }
            // Whoever listened there is gone when nobody answers.
            match rustix::net::connect(socket()?, &address) {
                Err(rustix::io::Errno::CONNREFUSED) => fs::remove_file(path)?,
                _ => return Err(rustix::io::Errno::ADDRINUSE.into()),
            }
            bind(&own, &address)?;
        }
        bound => bound?,
    }
    // Nobody can connect before it listens.
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    listen(&own, BACKLOG)?;
    Ok(own)
}

/// Whether something else has the place; None: it is free, or that cannot be told from here. Blocks.
#[must_use]
pub fn is_taken(place: &Listen, network: &Network) -> Option<io::Error> {
    match place {
        Listen::Tcp(address) => network.bind_blocking(*address, Use::Try).err(),
        Listen::Unix { path, .. } => {
            let address = SocketAddrUnix::new(&**path).ok()?;
            let socket =
                socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
            let answers = rustix::net::connect(socket.ok()?.as_fd(), &address).is_ok();
            answers.then(|| rustix::io::Errno::ADDRINUSE.into())
        }
    }
}

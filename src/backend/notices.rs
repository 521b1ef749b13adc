//! What processes say of themselves: the receiving end of sd_notify(3).
//!
//! There is one socket for all runs, of whichever backend, beside the private socket of the daemon.
//! systemd's own would do for its units, but it tells nobody of WATCHDOG=1, acts on a missing one by
//! itself, and is not there for children of ours; with one socket, one file means the same
//! everywhere.
//!
//! Anybody on the machine can send to it. The kernel says which process has sent a datagram, and the
//! backend in whose run that process is; what is in the datagram is not believed about either, and
//! what comes from elsewhere is dropped. The sender has to be there still when its word is read:
//! systemd-notify(1) waits for that (by its barrier, see below), and so does sd_notify_barrier(3).
//!
//! The service manager keeps the socket while there is no daemon (`FDSTORE=1`), and what is sent
//! meanwhile waits in it. Where nobody keeps it, such words are lost, and the next daemon makes a
//! socket of the same path.
//!
//! READY=1, STATUS=, WATCHDOG=1 and WATCHDOG=trigger are understood. BARRIER=1 comes with a
//! descriptor that is to be closed once all before it was read: descriptors are never taken, so the
//! kernel does it. All else is for a service manager that keeps descriptors or follows pids, and is
//! left alone.

use super::{Backend, Facts};
use crate::core::event::{Event, SpawnError, SpawnStage, Told};
use crate::core::ids::{InstanceId, Run};
use crate::core::spec::ProcessSpec;
use crate::sys::datagram::{receive, tell_senders};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::Interest;
use tokio::net::UnixDatagram;

/// The longest datagram that is read: as long as systemd reads them.
const LONGEST: usize = 4096;

/// The longest text of STATUS= that is kept, in characters.
const LONGEST_STATUS: usize = 200;

/// How many datagrams are read before others get their turn.
const AT_ONCE: usize = 32;

/// What the name begins with under which the service manager keeps the socket.
const STORED: &str = "notify-";

/// The socket that runs speak to.
#[derive(Debug)]
pub struct Notices {
    path: PathBuf,
    socket: OwnedFd,
    /// The number of its file: tells the socket of a path from a later one.
    inode: u64,
    /// The service manager has it already.
    is_kept: bool,
}

impl Notices {
    /// Takes over the socket that the service manager has kept, if it is still that of its path, or
    /// makes it anew. `directory` is this daemon's alone.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(directory: &Path, stored: Vec<(String, OwnedFd)>) -> io::Result<Notices> {
        let path = directory.join("process-notify");
        // Root's processes have users who must get to it.
        if rustix::process::geteuid().is_root() {
            let mode = fs::metadata(directory)?.mode() & 0o7777;
            if mode & 0o011 != 0o011 {
                fs::set_permissions(directory, Permissions::from_mode(mode | 0o011))?;
            }
        }
        let there = fs::symlink_metadata(&path).map(|found| found.ino()).ok();
        for (name, socket) in stored {
            if let Some(inode) = inode_of(&name)
                && there == Some(inode)
            {
                return Ok(Notices { path, socket, inode, is_kept: true });
            }
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        // First: who was not asked for does not come with what is waiting.
        tell_senders(&socket)?;
        bind(&socket, &SocketAddrUnix::new(&path)?)?;
        fs::set_permissions(&path, Permissions::from_mode(0o666))?;
        let inode = fs::symlink_metadata(&path)?.ino();
        Ok(Notices { path, socket, inode, is_kept: false })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name under which the service manager keeps it.
    #[must_use]
    pub fn stored_name(&self) -> String {
        format!("{STORED}{}", self.inode)
    }

    /// Another descriptor of it, and the name under which the service manager keeps it.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn copy(&self) -> io::Result<(String, OwnedFd)> {
        Ok((self.stored_name(), self.socket.try_clone()?))
    }

    /// What the service manager is to keep, unless it does: the name, and the socket.
    #[must_use]
    pub fn for_store(&self) -> Option<(String, OwnedFd)> {
        // Where there are no descriptors left it is kept the next time.
        let socket = self.socket.try_clone().ok().filter(|_| !self.is_kept)?;
        Some((self.stored_name(), socket))
    }

    /// Hears what runs say, for ever.
    pub async fn listen(self, backend: Arc<dyn Backend>, facts: Facts) {
        let path = self.path;
        let socket = match UnixDatagram::from_std(self.socket.into()) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::error!("{}: nothing can be heard of processes: {error}", path.display());
                return;
            }
        };
        let mut buffer = vec![0; LONGEST];
        loop {
            if let Err(error) = socket.readable().await {
                tracing::error!("{}: nothing is heard any more: {error}", path.display());
                return;
            }
            let mut heard = Heard::default();
            for _ in 0..AT_ONCE {
                match socket.try_io(Interest::READABLE, || receive(&socket, &mut buffer)) {
                    Ok(received) => {
                        let from = received.sender.and_then(|pid| backend.run_of(pid));
                        match (from, received.length) {
                            (Some(from), Some(length)) => heard.take(from, &buffer[..length]),
                            _ => tracing::debug!(
                                "a notification of process {:?} is of no run: dropped",
                                received.sender
                            ),
                        }
                    }
                    // There is nothing more, or what there was could not be read.
                    Err(_) => break,
                }
            }
            for (instance, run, told) in heard.0 {
                // Nobody listens any more when the daemon ends.
                let _ = facts.send(Event::Notified { instance, run, told });
            }
            // Anybody can send as much as he likes.
            tokio::task::yield_now().await;
        }
    }
}

/// Whether the service manager keeps a socket of ours under this name.
#[must_use]
pub fn is_stored(name: &str) -> bool {
    inode_of(name).is_some()
}

fn inode_of(stored: &str) -> Option<u64> {
    stored.strip_prefix(STORED)?.parse().ok()
}

/// The variables by which a run knows how it may speak (sd_notify(3), sd_watchdog_enabled(3)).
///
/// # Errors
/// When it is to speak, and there is no socket.
pub fn variables(
    socket: Option<&Path>,
    spec: &ProcessSpec,
) -> Result<Vec<(String, String)>, SpawnError> {
    let Some(notify) = spec.notify() else { return Ok(Vec::new()) };
    let Some(socket) = socket else {
        let reason = "it is to speak for itself, and the supervisor has no socket for that".into();
        return Err(SpawnError { stage: SpawnStage::Fork, subject: String::new(), reason });
    };
    let mut all = vec![("NOTIFY_SOCKET".to_owned(), socket.to_string_lossy().into_owned())];
    if let Some(interval) = notify.watchdog {
        // Without WATCHDOG_PID, which nobody knows before there is a process, it is for whoever has
        // it.
        all.push(("WATCHDOG_USEC".to_owned(), interval.as_micros().to_string()));
    }
    Ok(all)
}

/// What was heard in one turn. Of what one run says again and again, one is enough.
#[derive(Debug, Default)]
struct Heard(Vec<(InstanceId, Run, Told)>);

impl Heard {
    fn take(&mut self, (instance, run): (InstanceId, Run), datagram: &[u8]) {
        for told in understood(datagram) {
            self.0.retain(|(other, of, said)| {
                let is_same = match (said, &told) {
                    (Told::Status(_), Told::Status(_)) => true,
                    (said, told) => said == told,
                };
                !(is_same && (other, *of) == (&instance, run))
            });
            self.0.push((instance.clone(), run, told));
        }
    }
}

/// What a datagram says, in its order.
fn understood(datagram: &[u8]) -> impl Iterator<Item = Told> {
    datagram.split(|byte| *byte == b'\n').filter_map(|line| match line {
        b"READY=1" => Some(Told::Ready),
        b"WATCHDOG=1" => Some(Told::Alive),
        b"WATCHDOG=trigger" => Some(Told::Trouble),
        _ => line.strip_prefix(b"STATUS=").map(status),
    })
}

/// One line of plain text, not too long.
fn status(text: &[u8]) -> Told {
    let text = String::from_utf8_lossy(text);
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let text: String = plain.take(LONGEST_STATUS).collect();
    Told::Status(text.trim().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ids::ProcessId;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn what_is_of_use_is_understood() {
        let told = |text: &str| understood(text.as_bytes()).collect::<Vec<_>>();
        assert_eq!(told("READY=1"), [Told::Ready]);
        let all = "STATUS=a\u{7}b\nREADY=1\nMAINPID=1\nWATCHDOG=1\nWATCHDOG=trigger\nFDSTORE=1\n";
        let status = Told::Status("a b".into());
        assert_eq!(told(all), [status, Told::Ready, Told::Alive, Told::Trouble]);
        for nothing in ["", "READY=0", "READY=11", " READY=1", "WATCHDOG=2", "X_STATUS=1", "\n\n"] {
            assert_eq!(told(nothing), [], "{nothing:?}");
        }
        let Told::Status(long) = &told(&format!("STATUS={}", "ä".repeat(4000)))[0] else {
            panic!("no status");
        };
        assert_eq!(long.chars().count(), LONGEST_STATUS);
        assert_eq!(understood(b"STATUS=\xff").count(), 1);
    }

    #[test]
    fn of_one_run_the_last_word_counts() {
        let run = |n| (ProcessId::new("a").unwrap().instance(0), Run(n));
        let mut heard = Heard::default();
        for _ in 0..3 {
            heard.take(run(1), b"WATCHDOG=1\nSTATUS=old");
        }
        heard.take(run(2), b"WATCHDOG=1");
        heard.take(run(1), b"STATUS=new");
        let said: Vec<_> = heard.0.iter().map(|(_, run, told)| (run.0, told.clone())).collect();
        assert_eq!(said, [(1, Told::Alive), (2, Told::Alive), (1, Told::Status("new".into()))]);
    }

    #[test]
    fn a_socket_that_was_kept_is_taken_over_and_another_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let first = Notices::open(directory.path(), Vec::new()).unwrap();
        let stored = first.for_store().unwrap();
        assert!(is_stored(&stored.0) && !is_stored("run-web@0-3"));
        let sender = UnixDatagram::unbound().unwrap();
        sender.send_to(b"READY=1", first.path()).unwrap();
        drop(first);
        let next = Notices::open(directory.path(), vec![stored]).unwrap();
        assert_eq!(next.for_store().map(|(name, _)| name), None);
        let (name, kept) = (next.stored_name(), next.socket.try_clone().unwrap());
        let mut buffer = [0; 16];
        assert_eq!(receive(&kept, &mut buffer).unwrap().length, Some(7));
        // Another daemon was here meanwhile.
        let other = Notices::open(directory.path(), Vec::new()).unwrap();
        let last = Notices::open(directory.path(), vec![(name.clone(), kept)]).unwrap();
        assert_ne!(last.stored_name(), name);
        assert!(last.for_store().is_some());
        drop(other);
        sender.send_to(b"READY=1", last.path()).unwrap();
        assert_eq!(receive(&last.socket, &mut buffer).unwrap().length, Some(7));
    }
}

//! Where standard output and standard error of a run go.

use super::Inner;
use super::console::{Console, Prefix};
use super::identity::Identity;
use super::launch::{failure, reason};
use super::lines::{Line, Splitter};
use super::ring::Ring;
use super::sink::{self, Writing, Written};
use crate::core::event::{SpawnError, SpawnStage};
use crate::core::ids::{InstanceId, Slot};
use crate::core::spec::{ExecSpec, LogRotation, LogTarget, Rendered};
use crate::journal::stream;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::watch;

/// What a spec and the daemon's options come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Nowhere.
    Null,
    /// The process opens the log file as its user, and holds it.
    File,
    /// A program of its own writes the log file, see [`super::sink`]: it is rotated, or the journal
    /// gets a copy.
    Sink {
        /// The journal gets a copy.
        journal: bool,
    },
    /// The process holds a stream of the journal.
    Journal,
    /// We read it, and show it.
    Console,
}

impl Route {
    /// Where the output of a process goes.
    #[must_use]
    pub fn of(exec: &ExecSpec, has_journal: bool) -> Route {
        match (exec.log_target, exec.log_file.is_some()) {
            (LogTarget::Journal, true) => Route::Sink { journal: true },
            (LogTarget::Journal, false) => Route::Journal,
            (_, true) if exec.log_rotation.is_some() => Route::Sink { journal: false },
            (_, true) => Route::File,
            (LogTarget::Auto, false) if has_journal => Route::Journal,
            (LogTarget::Auto, false) => Route::Console,
            (LogTarget::None, false) => Route::Null,
        }
    }
}

/// What a process gets as its output, and what we keep of it.
pub enum Output {
    /// /dev/null, until the process opens the log file where there is one.
    Null,
    /// Held by the process alone.
    Held(OwnedFd),
    /// A log file is written.
    Written(Written),
    /// We hold the reading end, and show it.
    Read {
        /// For the process.
        write: OwnedFd,
        /// For us.
        read: OwnedFd,
    },
}

/// What is needed to connect the output.
pub struct Connection<'a> {
    /// Where it goes.
    pub route: Route,
    /// Whose it is.
    pub instance: &'a InstanceId,
    /// In which slot that run is.
    pub slot: Slot,
    /// The log file.
    pub log_file: Option<Rendered>,
    /// When it is rotated.
    pub rotation: Option<LogRotation>,
    /// Who opens it.
    pub identity: &'a Identity,
    /// File mode creation mask.
    pub umask: u32,
}

/// Opens what a process writes to.
///
/// # Errors
/// At stage `Output`, or `LogFile`.
pub(super) async fn connect(
    inner: &Arc<Inner>,
    connection: Connection<'_>,
) -> Result<Output, SpawnError> {
    match connection.route {
        Route::Null | Route::File => Ok(Output::Null),
        Route::Journal => connect_journal(inner, connection.instance).await.map(Output::Held),
        Route::Console => {
            let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
                .map_err(|errno| failure(SpawnStage::Output, "", reason(&errno.into())))?;
            Ok(Output::Read { write, read })
        }
        Route::Sink { journal } => {
            let journal = match journal {
                true => Some(connect_journal(inner, connection.instance).await?),
                false => None,
            };
            let rotation = connection.rotation.map(sink::rotation);
            let writing = Writing {
                instance: connection.instance.clone(),
                slot: connection.slot,
                identity: connection.identity.clone(),
                umask: connection.umask,
                path: connection.log_file.unwrap_or_default(),
                rotation,
                journal,
            };
            sink::start(inner, writing).await.map(Output::Written)
        }
    }
}

/// Opens the log file for reading, as the user whose it is.
///
/// # Errors
/// What the system says.
pub fn open_log_file(identity: &Identity, path: &str) -> io::Result<std::fs::File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let rotated = format!("{path}.1");
    identity.run(|| {
        let mut options = std::fs::OpenOptions::new();
        options.read(true).custom_flags(flags);
        match options.open(path) {
            // It is missing for a moment while it is rotated.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                options.open(&rotated).map_err(|_| error)
            }
            opened => opened,
        }
    })
}

/// A stream of the journal. A journal that is busy is waited for, in a thread.
pub(super) async fn connect_journal(
    inner: &Inner,
    instance: &InstanceId,
) -> Result<OwnedFd, SpawnError> {
    let error = |reason: String| failure(SpawnStage::Output, "to the journal", reason);
    let Some(socket) = inner.journal.clone() else {
        return Err(error("there is no journal here".into()));
    };
    let identifier = instance.process.to_string();
    // The journal lets only root say which unit it is.
    let root = rustix::process::geteuid().is_root();
    let unit = root.then(stream::own_unit).flatten();
    let open = move || {
        stream::open(&socket, &identifier, unit.as_deref())
            .map_err(|io| error(format!("{}: {}", socket.display(), reason(&io))))
    };
    let broken = |error: tokio::task::JoinError| failure(SpawnStage::Output, "", error.to_string());
    tokio::task::spawn_blocking(open).await.map_err(broken)?
}

impl Output {
    /// What the process gets.
    #[must_use]
    pub fn for_process<'a>(&'a self, null: BorrowedFd<'a>) -> BorrowedFd<'a> {
        match self {
            Output::Null => null,
            Output::Held(fd) => fd.as_fd(),
            Output::Written(Written { write, .. }) | Output::Read { write, .. } => write.as_fd(),
        }
    }
}

/// What is still to be read, and the line that was begun.
pub struct Rest {
    /// The pipe.
    pub read: OwnedFd,
    /// What was read of a line without its end.
    pub begun: Vec<u8>,
}

impl From<OwnedFd> for Rest {
    fn from(read: OwnedFd) -> Rest {
        Rest { read, begun: Vec::new() }
    }
}

/// Where what we read is shown and kept.
#[derive(Clone)]
pub struct Pump {
    /// Kept here.
    pub ring: Arc<Ring>,
    /// Shown here.
    pub console: Arc<Console>,
    /// As this.
    pub prefix: Prefix,
}

impl Pump {
    /// Reads until nobody holds the other end any more, which may be long after the run: nothing
    /// waits for this. It reads no faster than what it writes to takes it, so that a process that
    /// writes too much is the one that waits. While it is told to hold it stops, and returns what
    /// somebody else can go on with.
    ///
    /// # Errors
    /// When the pipe cannot be read.
    pub async fn run(
        &self,
        Rest { read, begun }: Rest,
        mut hold: watch::Receiver<bool>,
    ) -> io::Result<Option<Rest>> {
        let mut pipe = pipe::Receiver::from_owned_fd(read)?;
        let mut splitter = Splitter::with(begun);
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let len = tokio::select! {
                biased;
                Ok(_) = hold.wait_for(|hold| *hold) => {
                    let read = pipe.into_nonblocking_fd()?;
                    return Ok(Some(Rest { read, begun: splitter.into_begun() }));
                }
                len = pipe.read(&mut buffer) => len?,
            };
            let bytes = &buffer[..len];
            self.ring.push(bytes);
            let mut lines = Vec::new();
            let append = |line: Line<'_>| self.console.append(&mut lines, &self.prefix, line);
            match len {
                0 => splitter.finish(append),
                _ => splitter.push(bytes, append),
            }
            if !lines.is_empty() {
                self.console.write(lines).await;
            }
            if len == 0 {
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ids::ProcessId;
    use crate::core::spec::{Command, ProcessSpec, Text};

    #[test]
    fn the_route_follows_the_file_and_the_machine() {
        use LogTarget::{Auto, Journal, None};
        let route = |target, file: bool, journal| {
            let id = ProcessId::new("a").unwrap();
            let mut exec = ProcessSpec::new(id, Command::Shell("true".into())).exec;
            exec.log_target = target;
            exec.log_file = file.then(|| Text::new("/a"));
            Route::of(&exec, journal)
        };
        assert_eq!(route(Auto, false, true), Route::Journal);
        assert_eq!(route(Auto, false, false), Route::Console);
        assert_eq!(route(Auto, true, true), Route::File);
        assert_eq!(route(Journal, true, true), Route::Sink { journal: true });
        assert_eq!(route(Journal, false, false), Route::Journal);
        assert_eq!(route(None, false, true), Route::Null);
        assert_eq!(route(None, true, true), Route::File);

        let id = ProcessId::new("a").unwrap();
        let mut exec = ProcessSpec::new(id, Command::Shell("true".into())).exec;
        exec.log_file = Some(Text::new("/a"));
        exec.log_rotation = Some(LogRotation { max_size: 1, max_files: 1 });
        assert_eq!(Route::of(&exec, true), Route::Sink { journal: false });
    }
}

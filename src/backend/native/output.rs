//! Where standard output and standard error of a run go.

use super::console::{Console, Prefix};
use super::identity::Identity;
use super::launch::{failure, reason};
use super::lines::Splitter;
use super::ring::Ring;
use crate::core::event::{SpawnError, SpawnStage};
use crate::core::ids::InstanceId;
use crate::core::spec::{ExecSpec, LogTarget, Rendered};
use crate::journal::stream;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

/// What a spec and the daemon's options come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Nowhere.
    Null,
    /// The shim opens the log file, and the process holds it.
    File,
    /// The process holds a stream of the journal.
    Journal,
    /// We read it, and write it to the journal and to the log file.
    JournalAndFile,
    /// We read it, and show it.
    Console,
}

impl Route {
    /// Where the output of a process goes.
    #[must_use]
    pub fn of(exec: &ExecSpec, has_journal: bool) -> Route {
        match (exec.log_target, exec.log_file.is_some()) {
            (LogTarget::Journal, true) => Route::JournalAndFile,
            (LogTarget::Journal, false) => Route::Journal,
            (_, true) => Route::File,
            (LogTarget::Auto, false) if has_journal => Route::Journal,
            (LogTarget::Auto, false) => Route::Console,
            (LogTarget::None, false) => Route::Null,
        }
    }

    /// Whether [`connect`] may have to wait for somebody else.
    #[must_use]
    pub fn may_block(self) -> bool {
        matches!(self, Route::Journal | Route::JournalAndFile)
    }
}

/// What a process gets as its output, and what we keep of it.
pub enum Output {
    /// /dev/null, until the shim opens the log file where there is one.
    Null,
    /// Held by the process alone.
    Held(OwnedFd),
    /// We hold the reading end.
    Read {
        /// For the process.
        write: OwnedFd,
        /// For us.
        read: OwnedFd,
        /// Where it is copied to, as it is.
        copies: Vec<Copy>,
    },
}

/// Somewhere that output is copied to.
pub enum Copy {
    /// A stream of the journal.
    Journal(OwnedFd),
    /// The log file.
    File(File),
}

/// What is needed to connect the output.
pub struct Connection<'a> {
    /// Where it goes.
    pub route: Route,
    /// Whose it is.
    pub instance: &'a InstanceId,
    /// The socket of the journal.
    pub journal: Option<PathBuf>,
    /// The unit the journal shall show, where we may name one.
    pub unit: Option<String>,
    /// The log file.
    pub log_file: Option<Rendered>,
    /// Who opens it.
    pub identity: &'a Identity,
}

/// Opens what a process writes to. May block.
///
/// # Errors
/// At stage `Output`, or `LogFile`.
pub fn connect(connection: &Connection<'_>) -> Result<Output, SpawnError> {
    let pipe = |copies| {
        let flags = rustix::pipe::PipeFlags::CLOEXEC;
        let (read, write) = rustix::pipe::pipe_with(flags)
            .map_err(|errno| failure(SpawnStage::Output, "", reason(&errno.into())))?;
        Ok(Output::Read { write, read, copies })
    };
    match connection.route {
        Route::Null | Route::File => Ok(Output::Null),
        Route::Journal => connect_journal(connection).map(Output::Held),
        Route::Console => pipe(Vec::new()),
        Route::JournalAndFile => {
            let journal = Copy::Journal(connect_journal(connection)?);
            pipe(vec![journal, Copy::File(open_log(connection)?)])
        }
    }
}

fn connect_journal(connection: &Connection<'_>) -> Result<OwnedFd, SpawnError> {
    let error = |reason: String| failure(SpawnStage::Output, "to the journal", reason);
    let Some(socket) = &connection.journal else {
        return Err(error("there is no journal here".into()));
    };
    let identifier = connection.instance.process.as_str();
    stream::open(socket, identifier, connection.unit.as_deref())
        .map_err(|io| error(format!("{}: {}", socket.display(), reason(&io))))
}

fn open_log(connection: &Connection<'_>) -> Result<File, SpawnError> {
    let path = connection.log_file.as_ref().map_or("", Rendered::value);
    let shown = connection.log_file.as_ref().map_or("", Rendered::shown);
    let open = || {
        if let Some(directory) = Path::new(path).parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
        }
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(flags).open(path)
    };
    connection
        .identity
        .run(open)
        .map_err(|error| failure(SpawnStage::LogFile, shown, reason(&error)))
}

impl Output {
    /// What the process gets.
    #[must_use]
    pub fn for_process<'a>(&'a self, null: BorrowedFd<'a>) -> BorrowedFd<'a> {
        match self {
            Output::Null => null,
            Output::Held(fd) => fd.as_fd(),
            Output::Read { write, .. } => write.as_fd(),
        }
    }
}

/// Where what we read is shown and kept.
pub struct Pump {
    /// Kept here.
    pub ring: Arc<Ring>,
    /// Shown here.
    pub console: Option<(Arc<Console>, Prefix)>,
}

impl Pump {
    /// Reads until nobody holds the other end any more, which may be long after the run: nothing
    /// waits for this. It reads no faster than what it writes to takes it, so that a process that
    /// writes too much is the one that waits.
    ///
    /// # Errors
    /// When the pipe cannot be read.
    pub async fn run(self, read: OwnedFd, copies: Vec<Copy>) -> io::Result<()> {
        let mut pipe = pipe::Receiver::from_owned_fd(read)?;
        let mut copies: Vec<Sink> = copies.into_iter().filter_map(Sink::new).collect();
        let mut splitter = Splitter::default();
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let len = pipe.read(&mut buffer).await?;
            let bytes = &buffer[..len];
            self.ring.push(bytes);
            let mut at = 0;
            while at < copies.len() {
                // A full disk stops the copy and not the process.
                match copies[at].write(bytes).await {
                    Ok(()) => at += 1,
                    Err(error) => {
                        tracing::warn!("output is not copied any more: {error}");
                        copies.swap_remove(at);
                    }
                }
            }
            if let Some((console, prefix)) = &self.console {
                let mut lines = Vec::new();
                if len == 0 {
                    splitter.finish(|line| console.append(&mut lines, prefix, line));
                } else {
                    splitter.push(bytes, |line| console.append(&mut lines, prefix, line));
                }
                if !lines.is_empty() {
                    console.write(lines).await;
                }
            }
            if len == 0 {
                return Ok(());
            }
        }
    }
}

enum Sink {
    Stream(UnixStream),
    File(tokio::fs::File),
}

impl Sink {
    fn new(copy: Copy) -> Option<Sink> {
        match copy {
            Copy::File(file) => Some(Sink::File(tokio::fs::File::from_std(file))),
            Copy::Journal(stream) => {
                let stream = std::os::unix::net::UnixStream::from(stream);
                stream.set_nonblocking(true).ok()?;
                UnixStream::from_std(stream).ok().map(Sink::Stream)
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Sink::Stream(stream) => stream.write_all(bytes).await,
            Sink::File(file) => {
                file.write_all(bytes).await?;
                file.flush().await
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
        assert_eq!(route(Journal, true, true), Route::JournalAndFile);
        assert_eq!(route(Journal, false, false), Route::Journal);
        assert_eq!(route(None, false, true), Route::Null);
        assert_eq!(route(None, true, true), Route::File);
    }
}

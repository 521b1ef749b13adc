//! Another program in the place of this one: the same process, the same children, all that is known.
//!
//! It stands on what a daemon that was killed leaves to the next one. What is added is that nothing is
//! left half done, and that what only this program has is handed over ([`super::handover`]).
//!
//! Until everything is ready nothing is given up, and whatever is in the way is told to whoever asked.
//! The program on disk has to say of itself that it can follow this one, with the same arguments: what
//! does not even start would take the daemon with it. From there on there is a program in any case: if
//! the new one cannot be executed after all, this one is, again.

use super::handover::{self, Formats};
use crate::backend::Backend;
use crate::backend::native::reaper;
use crate::bus::{Prepared, UpgradeRequest, UpgradeRequests};
use crate::core::event::ExitStatus;
use crate::core::spec::Signal;
use crate::driver::handle::Handle;
use crate::journal;
use crate::notify::Unsent;
use crate::store::lock::Lock;
use crate::sys::arrival::Arrival;
use crate::sys::clone::Program;
use crate::sys::exec::execute;
use crate::sys::setup::{Report, Setup};
use crate::sys::sigchld;
use crate::sys::signal::send;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// A program that does not say within this that it can follow cannot.
const CHECK: Duration = Duration::from_secs(10);

/// Whoever asked gets the answer within this, or not at all.
const ANSWER: Duration = Duration::from_secs(1);

/// What it says of itself is not longer.
const LONGEST_ANSWER: usize = 4096;

/// Signals that have arrived have been told within this.
const ARRIVED: Duration = Duration::from_millis(5);

/// The option by which a program is asked whether it can follow another one.
pub const QUESTION: &str = "--can-take-over";

/// The name under which the lock of the runtime directory is handed over.
pub(super) const LOCK: &str = "lock";

/// What the names of private sockets begin with.
pub(super) const LISTENER: &str = "listener-";

/// Says whether this program can follow one with these formats, and its version.
#[must_use]
pub fn answer(formats: Formats) -> std::process::ExitCode {
    use std::io::Write;
    if !formats.can_be_followed() {
        let _ = writeln!(io::stderr(), "this program reads {}, not {formats}", Formats::OURS);
        return std::process::ExitCode::FAILURE;
    }
    match writeln!(io::stdout(), "{}", env!("CARGO_PKG_VERSION")) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(_) => std::process::ExitCode::FAILURE,
    }
}

/// The program that this process was started as: after an upgrade of the package another file has this
/// path, while `/proc/self/exe` is the one that was removed.
#[derive(Clone, Debug)]
pub struct OwnProgram {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl OwnProgram {
    /// As the arguments of this process tell it; to be asked before the directory is changed.
    #[must_use]
    pub fn find() -> OwnProgram {
        let arguments: Vec<OsString> = std::env::args_os().collect();
        let first = arguments.first().map(PathBuf::from).unwrap_or_default();
        let path = match first.components().count() {
            0 | 1 if !first.has_root() && !first.as_os_str().as_bytes().contains(&b'/') => {
                in_path(&first)
            }
            _ => std::path::absolute(&first).ok(),
        };
        let own = || std::env::current_exe().unwrap_or_default();
        OwnProgram { path: path.filter(|path| path.exists()).unwrap_or_else(own), arguments }
    }

    fn argv(&self, more: &[&str]) -> Vec<CString> {
        let more = more.iter().map(|word| OsString::from(*word));
        let words = self.arguments.iter().cloned().chain(more);
        // An argument has no NUL byte.
        words.filter_map(|word| CString::new(word.into_vec()).ok()).collect()
    }
}

fn in_path(name: &Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|path| path.is_file())
}

/// All that is needed to make way.
pub(super) struct Upgrade {
    pub program: OwnProgram,
    pub backend: Arc<dyn Backend>,
    pub handle: Handle,
    pub unsent: Unsent,
    pub log: journal::Log,
    /// None where signals cannot be told to wait.
    pub arrival: Option<Arrival>,
    /// None where there is no runtime directory.
    pub place: Option<Lock>,
    /// What the daemon itself listens on, by name.
    pub listeners: Vec<(String, OwnedFd)>,
}

impl Upgrade {
    /// Does what is asked for. Never returns, also where nobody can ask: signals arrive, and the place is
    /// taken, for as long as this is there.
    pub async fn serve(mut self, mut requests: UpgradeRequests) {
        while let Some(UpgradeRequest { reply }) = requests.recv().await {
            match self.prepare().await {
                Ok((version, descriptors)) => {
                    tracing::info!(
                        "going on as {version} ({}), in place of {}",
                        self.program.path.display(),
                        env!("CARGO_PKG_VERSION")
                    );
                    let (answered, is_answered) = tokio::sync::oneshot::channel();
                    let _ = reply.send(Ok(Prepared { version, answered }));
                    // Whoever has gone away needs no answer.
                    let _ = tokio::time::timeout(ANSWER, is_answered).await;
                    self.make_way(descriptors);
                }
                Err(why) => {
                    tracing::warn!("going on as before: {why}");
                    let _ = reply.send(Err(why));
                }
            }
        }
        std::future::pending().await
    }

    /// Everything that may be in the way. When this succeeds the driver does nothing any more.
    async fn prepare(&self) -> Result<(String, Vec<(String, OwnedFd)>), String> {
        let version = self.ask_program().await?;
        let Some(arrival) = &self.arrival else {
            return Err("signals cannot be told to wait: there was no thread for that".into());
        };
        // While all is held nothing may be waited for that somebody else does.
        self.handle.first_look().await;
        arrival.set(false);
        // A signal to end that came before is to be heard first.
        tokio::time::sleep(ARRIVED).await;
        let descriptors = match self.backend.hold().await {
            Ok(handed) => self.descriptors(handed),
            Err(why) => Err(why),
        };
        let ready = match descriptors {
            Ok(descriptors) => self.handle.make_way().await.map(|()| descriptors),
            Err(why) => Err(crate::driver::handle::DriverError::NotAvailable(why)),
        };
        match ready {
            Ok(descriptors) => Ok((version, descriptors)),
            Err(error) => {
                self.backend.go_on();
                arrival.set(true);
                Err(error.to_string())
            }
        }
    }

    fn descriptors(
        &self,
        mut all: Vec<(String, OwnedFd)>,
    ) -> Result<Vec<(String, OwnedFd)>, String> {
        let copied = |(name, fd): &(String, OwnedFd)| Ok((name.clone(), fd.try_clone()?));
        let own = self.listeners.iter().map(copied).collect::<io::Result<Vec<_>>>();
        let held = own.and_then(|own| Ok((own, self.backend.sockets().copies()?)));
        let (own, held) =
            held.map_err(|error| format!("descriptors cannot be handed over: {error}"))?;
        all.extend(own.into_iter().chain(held));
        Ok(all)
    }

    /// Has the program on disk say that it can follow. Returns its version.
    async fn ask_program(&self) -> Result<String, String> {
        let path = &self.program.path;
        let shown = path.display();
        let failed = |error: io::Error| format!("{shown} cannot be executed: {error}");
        let is_allowed = rustix::fs::access(path, rustix::fs::Access::EXEC_OK);
        is_allowed.map_err(|errno| failed(errno.into()))?;
        let formats = Formats::OURS.to_string();
        let argv = self.program.argv(&[QUESTION, &formats]);
        let asked = tokio::time::timeout(CHECK, asked(path, argv)).await;
        let (status, said, complained) = asked
            .map_err(|_| format!("{shown} does not answer whether it can follow"))?
            .map_err(failed)?;
        let said = said.trim();
        if status == ExitStatus::Code(0) && !said.is_empty() && !said.contains('\n') {
            return Ok(said.to_owned());
        }
        let why = complained.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        Err(format!("{shown} cannot follow this program ({status}): {}", why.trim()))
    }

    /// Executes the program. What is here happens in one go: nothing else of this program runs.
    fn make_way(&mut self, mut descriptors: Vec<(String, OwnedFd)>) -> ! {
        if let Some(place) = self.place.take() {
            descriptors.push((LOCK.to_owned(), place.into_descriptor()));
        }
        self.unsent.flush(ANSWER);
        let (environment, _held) = handover::leave(descriptors).unwrap_or_else(|error| {
            tracing::error!("what is held cannot be handed over: {error}");
            (handover::own_environment(), Vec::new())
        });
        self.log.flush(ANSWER);
        let argv = self.program.argv(&[]);
        let path = |path: &OsStr| CString::new(path.as_bytes()).unwrap_or_default();
        sigchld::unblock();
        let error = execute(&path(self.program.path.as_os_str()), &argv, &environment);
        tracing::error!("{} cannot be executed: {error}", self.program.path.display());
        let error = execute(&path(OsStr::new("/proc/self/exe")), &argv, &environment);
        tracing::error!("nor can the program that runs: {error}");
        self.log.flush(ANSWER);
        std::process::exit(1)
    }
}

/// Runs a program to its end: its status, its output and what it complains about.
async fn asked(path: &Path, argv: Vec<CString>) -> io::Result<(ExitStatus, String, String)> {
    let null = File::open("/dev/null")?;
    let pair = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    let ((out, theirs), (err, complaints)) = (pair()?, pair()?);
    let setup =
        Setup { candidates: vec![CString::new(path.as_os_str().as_bytes())?], ..Setup::default() };
    let stdio = [null.as_fd(), theirs.as_fd(), complaints.as_fd()];
    let program = Program { argv, env: handover::own_environment(), setup, stdio, cgroup: None };
    let (mut started, exit) = reaper::start_registered(program).map_err(io::Error::other)?;
    drop((theirs, complaints, started.reserve));
    started.socket.write_all(&[0])?;
    // Or their ends would not be seen.
    started.lent.take_back();
    let mut child = Unfinished(Some(started.pidfd.try_clone()?));
    let (out, err) = (pipe::Receiver::from_owned_fd(out)?, pipe::Receiver::from_owned_fd(err)?);
    let (out, err, status) =
        tokio::join!(text_of(out), text_of(err), reaper::ended(started.pidfd, exit));
    child.0 = None;
    let mut report = Vec::new();
    // It has ended, so there is no more to come.
    let _ = started.socket.read_to_end(&mut report);
    match Report::decode(&report) {
        Some(report) => Err(io::Error::from_raw_os_error(report.errno)),
        None => Ok((status?, out?, err?)),
    }
}

async fn text_of(pipe: pipe::Receiver) -> io::Result<String> {
    let mut text = Vec::new();
    pipe.take(LONGEST_ANSWER as u64).read_to_end(&mut text).await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Killed, unless it has ended.
struct Unfinished(Option<OwnedFd>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(pidfd) = &self.0 {
            let _ = send(pidfd, Signal::KILL);
        }
    }
}

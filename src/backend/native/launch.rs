//! From what shall run to the first instruction of the command, by way of the shim.
//!
//! [`Launcher::begin`] makes a process that executes the shim, which waits. Its pid is recorded
//! meanwhile; only [`Waiting::go`] lets it become the command. When this process dies in between, the
//! shim sees the end of its socket and ends.

use super::identity::Identity;
use super::reaper::{Exit, start_registered};
use crate::backend::sockets::Passed;
use crate::core::event::{SpawnError, SpawnStage};
use crate::core::spec::Rendered;
use crate::sys::clone::{Execution, Program, StartError};
use crate::sys::stat::Stat;
use message::{
    Draft, LISTEN_PID, Limit, MAX_INSTRUCTION, MAX_SOCKETS, NO_INDEX, Report, SOCKET_FD, Stage,
};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, send, sendmsg};
use rustix::process::{Resource, getrlimit, setrlimit};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

#[path = "../../shim/message.rs"]
#[allow(dead_code, reason = "one file for two programs, of which each has its part")]
mod message;

/// The usual soft limit of open files. The daemon's own is raised, and is not for its children: a
/// program that uses select(2) breaks above this one.
const USUAL_FILES: u64 = 1024;

/// What shall run and how, for one instance.
pub struct Recipe {
    /// The argument vector; not empty.
    pub argv: Vec<Rendered>,
    /// All of its environment.
    pub env: BTreeMap<String, String>,
    /// Whether the file sets PATH. Its value is not shown then, as that of no variable is.
    pub path_is_own: bool,
    /// Working directory.
    pub cwd: Rendered,
    /// Who it shall be.
    pub identity: Identity,
    /// File mode creation mask.
    pub umask: u32,
    /// Scheduling priority.
    pub nice: Option<i8>,
    /// Limit of open files.
    pub max_files: Option<u64>,
    /// The file that shall be its standard output and standard error.
    pub log_file: Option<Rendered>,
    /// The file that shall hold its pid.
    pub pid_file: Option<Rendered>,
    /// What is held for it, by name, in the order of its descriptors.
    pub sockets: Passed,
    /// A mark that its descendants inherit, as a resource limit: see [`super::census`].
    pub mark: Option<u64>,
}

/// What is needed to start any process.
pub struct Launcher {
    shim: OwnedFd,
    null: OwnedFd,
    /// The hard limit of open files, of the daemon and so of its children.
    files: u64,
    /// The signals that the daemon ignores: it was started so, or does so itself.
    ignored: u64,
    /// The daemon is more, or less, likely to be killed for want of memory than its children are.
    oom_adjusted: bool,
}

/// A process that executes the shim, which waits to be told what to become.
pub struct Waiting {
    /// Its process id.
    pub pid: u32,
    /// Stands for it.
    pub pidfd: Arc<OwnedFd>,
    /// Comes when it has ended.
    pub exit: Exit,
    /// Whether it is in the control group already.
    pub in_cgroup: bool,
    /// When it was started, in ticks since boot; 0 where that cannot be read.
    pub start: u64,
    socket: UnixStream,
    execution: Execution,
}

impl Launcher {
    /// Puts the shim into memory, and raises this process's own limit of open files.
    ///
    /// # Errors
    /// When memory that can be executed is not to be had (`vm.memfd_noexec`), or /dev/null is not.
    pub fn new() -> io::Result<Launcher> {
        let explain = |error: io::Error| {
            io::Error::new(error.kind(), format!("making executable memory for the shim: {error}"))
        };
        let shim = sealed(include_bytes!(concat!(env!("OUT_DIR"), "/shim"))).map_err(explain)?;
        let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
        let mut limit = getrlimit(Resource::Nofile);
        let files = limit.maximum.unwrap_or(u64::MAX);
        limit.current = limit.maximum;
        // With the present limit it works too, for fewer processes.
        let _ = setrlimit(Resource::Nofile, limit);
        let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
        let oom_adjusted = !matches!(own.trim(), "" | "0");
        let ignored = crate::sys::signal::ignored()?;
        Ok(Launcher { shim, null: null.into(), files, ignored, oom_adjusted })
    }

    /// Standard input of everything, and the output of what shall have none.
    #[must_use]
    pub fn null(&self) -> BorrowedFd<'_> {
        self.null.as_fd()
    }

    /// Makes a process that waits. It reads nothing, and writes all to `output`.
    ///
    /// # Errors
    /// At stage `Fork`, or `Exec` when the arguments or the environment cannot be passed.
    pub fn begin(
        &self,
        recipe: &Recipe,
        output: BorrowedFd<'_>,
        cgroup: Option<BorrowedFd<'_>>,
    ) -> Result<Waiting, SpawnError> {
        self.begin_with(recipe, [self.null(), output, output], cgroup)
    }

    /// The same, with its standard input, output and error.
    ///
    /// # Errors
    /// As [`Launcher::begin`].
    pub fn begin_with(
        &self,
        recipe: &Recipe,
        [input, output, error]: [BorrowedFd<'_>; 3],
        cgroup: Option<BorrowedFd<'_>>,
    ) -> Result<Waiting, SpawnError> {
        let fork = |error: io::Error| failure(SpawnStage::Fork, "", reason(&error));
        let exec = |reason: String| failure(SpawnStage::Exec, recipe.shown_program(), reason);
        let has_nul = || exec("an argument or environment value has a NUL byte".into());
        let argv = recipe.argv.iter().map(|word| CString::new(word.value())).collect();
        let argv: Vec<_> = Result::map_err(argv, |_| has_nul())?;
        let env = recipe.env.iter().map(|(name, value)| CString::new(format!("{name}={value}")));
        let env: Vec<_> = env.collect::<Result<_, _>>().map_err(|_| has_nul())?;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(fork)?;
        ours.set_nonblocking(true).map_err(fork)?;
        let socket = UnixStream::from_std(ours).map_err(fork)?;

        let fds = [(input, 0), (output, 1), (error, 2), (theirs.as_fd(), SOCKET_FD)];
        let program = Program { file: self.shim.as_fd(), argv, env, fds: &fds, cgroup };
        let (started, exit) = start_registered(program).map_err(|StartError(error)| {
            match cgroup.is_some() && is_about_cgroup(&error) {
                true => failure(SpawnStage::Cgroup, "", reason(&error)),
                false => fork(error),
            }
        })?;
        Ok(Waiting {
            pid: started.pid,
            pidfd: Arc::new(started.pidfd),
            exit,
            in_cgroup: started.in_cgroup,
            // It cannot have been reaped: whoever reaps is not running now.
            start: Stat::of(started.pid).map_or(0, |stat| stat.start),
            socket,
            execution: started.execution,
        })
    }

    /// What the shim has to be told.
    ///
    /// # Errors
    /// At the stage whose text cannot be passed on.
    pub fn instruction(&self, recipe: &Recipe) -> Result<Vec<u8>, SpawnError> {
        let text = |stage, text: &str, shown: &str| {
            CString::new(text).map_err(|_| failure(stage, shown, "it has a NUL byte".into()))
        };
        let optional = |stage, path: &Option<Rendered>| {
            path.as_ref().map(|path| text(stage, path.value(), path.shown())).transpose()
        };
        let cwd = text(SpawnStage::Cwd, recipe.cwd.value(), recipe.cwd.shown())?;
        let log_file = optional(SpawnStage::LogFile, &recipe.log_file)?;
        let pid_file = optional(SpawnStage::PidFile, &recipe.pid_file)?;
        let candidates = recipe.candidates().into_iter();
        let candidates =
            candidates.map(|path| text(SpawnStage::Exec, &path, recipe.shown_program()));
        let candidates = candidates.collect::<Result<Vec<_>, _>>()?;
        let candidates: Vec<&CStr> = candidates.iter().map(CString::as_c_str).collect();
        let credentials = recipe.identity.credentials.as_ref();
        let groups = credentials.map(|user| user.groups.ids()).transpose();
        let groups = groups.map_err(|error| {
            failure(SpawnStage::Identity, &recipe.identity.record.name, reason(&error))
        })?;

        let mut bytes = vec![0; 4];
        Draft {
            ignored: self.ignored,
            oom_adjusted: self.oom_adjusted,
            umask: recipe.umask,
            nice: recipe.nice.map(i32::from),
            credentials: credentials.zip(groups).map(|(user, groups)| (user.uid, user.gid, groups)),
            limits: &self.limits(recipe),
            cwd: &cwd,
            log_file: log_file.as_deref(),
            pid_file: pid_file.as_deref(),
            candidates: &candidates,
            sockets: u32::try_from(recipe.sockets.len()).unwrap_or(u32::MAX),
        }
        .encode(&mut bytes);
        if bytes.len() > MAX_INSTRUCTION {
            let reason = format!("PATH and paths are longer than {MAX_INSTRUCTION} bytes in all");
            return Err(failure(SpawnStage::Exec, recipe.shown_program(), reason));
        }
        let len = u32::try_from(bytes.len() - 4).unwrap_or(u32::MAX);
        bytes[..4].copy_from_slice(&len.to_le_bytes());
        Ok(bytes)
    }

    fn limits(&self, recipe: &Recipe) -> Vec<Limit> {
        let files = match recipe.max_files {
            None => Limit {
                resource: libc::RLIMIT_NOFILE,
                soft: USUAL_FILES.min(self.files),
                hard: self.files,
            },
            Some(wanted) => {
                // Only root can go beyond the hard limit; a limit that cannot be had is no reason
                // not to run.
                let root = rustix::process::geteuid().is_root();
                let files = if root { wanted } else { wanted.min(self.files) };
                Limit { resource: libc::RLIMIT_NOFILE, soft: files, hard: files }
            }
        };
        let mark =
            recipe.mark.map(|mark| Limit { resource: libc::RLIMIT_RSS, soft: mark, hard: mark });
        std::iter::once(files).chain(mark).collect()
    }
}

impl Waiting {
    /// Lets the process become the command, and returns when it has.
    ///
    /// # Errors
    /// At the stage the shim reports. The process ends by itself then.
    pub async fn go(&mut self, recipe: &Recipe, instruction: &[u8]) -> Result<(), SpawnError> {
        let answer = self.tell(recipe, instruction).await;
        if let Some(error) = self.execution.failure() {
            return Err(recipe.explain_shim(&error));
        }
        match answer {
            Ok(answer) => match Report::decode(&answer) {
                Some(report) => Err(recipe.explain(report)),
                None => Ok(()),
            },
            Err(_) => {
                let reason = "the process was killed before it could become the command";
                Err(failure(SpawnStage::Fork, "", reason.to_owned()))
            }
        }
    }

    /// Sends the instruction, and returns what the shim reports when it has ended or become the
    /// command.
    async fn tell(&mut self, recipe: &Recipe, instruction: &[u8]) -> io::Result<Vec<u8>> {
        // At once, and not when the runtime has found that there is room: there nearly always is.
        let sent = match send(&self.socket, instruction, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
        {
            Err(rustix::io::Errno::AGAIN) => 0,
            sent => sent?,
        };
        self.socket.write_all(&instruction[sent..]).await?;
        if !recipe.sockets.is_empty() {
            self.pass(&recipe.sockets).await?;
        }
        // By now it has hardly ever to be waited for.
        self.execution.take_back();
        let mut answer = Vec::new();
        self.socket.read_to_end(&mut answer).await?;
        Ok(answer)
    }

    /// Sends descriptors, with one byte.
    async fn pass(&self, sockets: &Passed) -> io::Result<()> {
        let fds: Vec<BorrowedFd<'_>> = sockets.iter().map(|(_, socket)| socket.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let byte = [io::IoSlice::new(&[0])];
        loop {
            self.socket.writable().await?;
            let sent = self.socket.try_io(Interest::WRITABLE, || {
                Ok(sendmsg(&self.socket, &byte, &mut control, SendFlags::NOSIGNAL)?)
            });
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other.map(drop),
            }
        }
    }
}

impl Recipe {
    /// Has its process take these sockets (sd_listen_fds(3)).
    pub fn take_sockets(&mut self, sockets: Passed) {
        if sockets.is_empty() {
            return;
        }
        let names: Vec<&str> = sockets.iter().map(|(name, _)| &**name).collect();
        // The shim writes the number, which nobody knows before there is a process.
        let room = "0000000000".to_owned();
        self.env.insert(LISTEN_PID.trim_end_matches('=').to_owned(), room);
        self.env.insert("LISTEN_FDS".to_owned(), sockets.len().to_string());
        self.env.insert("LISTEN_FDNAMES".to_owned(), names.join(":"));
        self.sockets = sockets;
    }

    fn program(&self) -> &str {
        self.argv.first().map_or("", Rendered::value)
    }

    fn shown_program(&self) -> &str {
        self.argv.first().map_or("", Rendered::shown)
    }

    /// Where execvp(3) looks when there is no PATH.
    fn path(&self) -> &str {
        self.env.get("PATH").map_or("/bin:/usr/bin", String::as_str)
    }

    fn candidates(&self) -> Vec<String> {
        let program = self.program();
        if program.contains('/') {
            return vec![program.to_owned()];
        }
        let directories = self.path().split(':');
        let inside = directories.map(|directory| match directory {
            "" => format!("./{program}"),
            directory => format!("{}/{program}", directory.trim_end_matches('/')),
        });
        inside.collect()
    }

    /// Why not even the shim could be executed.
    fn explain_shim(&self, error: &io::Error) -> SpawnError {
        match error.raw_os_error() {
            // It has the arguments and the environment of the command.
            Some(libc::E2BIG) => failure(SpawnStage::Exec, self.shown_program(), reason(error)),
            _ => failure(SpawnStage::Fork, "", format!("executing the shim: {}", reason(error))),
        }
    }

    /// The report of the shim in words.
    fn explain(&self, report: Report) -> SpawnError {
        let mut reason = reason(&io::Error::from_raw_os_error(report.errno));
        let (stage, subject) = match report.stage {
            Stage::Instruction | Stage::Session => (SpawnStage::Fork, String::new()),
            Stage::Sockets => (SpawnStage::Sockets, String::new()),
            Stage::Limits => (SpawnStage::Limits, self.limit_text(report.index)),
            Stage::Nice => {
                (SpawnStage::Nice, self.nice.map(|nice| nice.to_string()).unwrap_or_default())
            }
            Stage::Credentials => (SpawnStage::Credentials, self.identity.record.name.clone()),
            Stage::Cwd => (SpawnStage::Cwd, self.cwd.shown().to_owned()),
            Stage::LogFile | Stage::PidFile => {
                let (stage, path) = match report.stage {
                    Stage::LogFile => (SpawnStage::LogFile, &self.log_file),
                    _ => (SpawnStage::PidFile, &self.pid_file),
                };
                if report.errno == libc::ELOOP {
                    reason = "it is a symbolic link, which is not followed".into();
                } else if let Some(path) = path
                    && let Some(directory) = path.value().get(..report.index as usize)
                    && !directory.is_empty()
                {
                    reason = match path.hides() {
                        true => format!("making its directory: {reason}"),
                        false => format!("making directory {directory}: {reason}"),
                    };
                }
                (stage, path.as_ref().map(ToString::to_string).unwrap_or_default())
            }
            Stage::Exec => (SpawnStage::Exec, self.exec_subject(report, &mut reason)),
        };
        SpawnError { stage, subject, reason }
    }

    fn limit_text(&self, resource: u32) -> String {
        match self.max_files {
            Some(files) if resource == libc::RLIMIT_NOFILE => format!("files: {files}"),
            _ => String::new(),
        }
    }

    fn exec_subject(&self, report: Report, reason: &mut String) -> String {
        let shown = self.shown_program().to_owned();
        let candidate = self.candidates().into_iter().nth(report.index as usize);
        let candidate = candidate.filter(|_| report.index != NO_INDEX);
        if candidate.is_some() && report.errno == libc::ENOENT {
            *reason = "the file is there, but the interpreter or loader it names is not".into();
        }
        let hides = self.path_is_own || self.argv.first().is_some_and(Rendered::hides);
        match candidate {
            Some(_) if hides => shown,
            Some(path) => path,
            None if self.program().contains('/') => shown,
            None if self.path_is_own => format!("{shown} (searched in the PATH of its env)"),
            None => format!("{shown} (searched in {})", self.path()),
        }
    }
}

/// What clone3(2) says about `CLONE_INTO_CGROUP` and nothing else.
fn is_about_cgroup(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EBUSY | libc::EOPNOTSUPP))
}

/// A file in memory that can be executed and never changed.
fn sealed(content: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 do not know that it has to be asked for.
    let file = rustix::fs::memfd_create("provost-shim", flags | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create("provost-shim", flags))?;
    let mut file = std::fs::File::from(file);
    file.write_all(content)?;
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

/// What the system says about an error, without the number.
#[must_use]
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(end) if error.raw_os_error().is_some() => text[..end].to_owned(),
        _ => text,
    }
}

/// Puts an error together.
#[must_use]
pub fn failure(stage: SpawnStage, subject: &str, reason: String) -> SpawnError {
    SpawnError { stage, subject: subject.to_owned(), reason }
}

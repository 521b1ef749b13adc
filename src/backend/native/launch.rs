//! From what shall run to the first instruction of the command.
//!
//! [`Launcher::begin`] makes a process that sets itself up and waits. Its pid is recorded meanwhile;
//! only [`Waiting::go`] lets it become the command. When this process dies in between, the other one
//! sees the end of its socket and ends.

use super::identity::Identity;
use super::reaper::{Exit, start_registered};
use crate::backend::sockets::{Passed, take_out_variables};
use crate::core::event::{SpawnError, SpawnStage};
use crate::core::spec::Rendered;
use crate::sys::clone::{Lent, Program, StartError};
use crate::sys::setup::{Ids, Limit, MAX_SOCKETS, NO_INDEX, Report, Setup, Stage};
use rustix::net::{
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, send, sendmsg, shutdown,
};
use rustix::process::{Resource, getrlimit, setrlimit};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

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
    /// Its control group has limits.
    pub is_limited: bool,
    /// A mark that its descendants inherit, as a resource limit: see [`super::census`].
    pub mark: Option<u64>,
}

/// What is needed to start any process.
pub struct Launcher {
    null: OwnedFd,
    /// The hard limit of open files, of the daemon and so of its children.
    files: u64,
    /// The daemon is more, or less, likely to be killed for want of memory than its children are.
    oom_adjusted: bool,
}

/// A process that waits to become its command.
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
    /// Where there are hardly any descriptors it is noticed before there is a process, and not when
    /// its pid is to be written down.
    reserve: Option<OwnedFd>,
    lent: Lent,
}

impl Launcher {
    /// Raises this process's own limit of open files.
    ///
    /// # Errors
    /// When /dev/null is not to be had.
    pub fn new() -> io::Result<Launcher> {
        let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
        let mut limit = getrlimit(Resource::Nofile);
        let files = limit.maximum.unwrap_or(u64::MAX);
        limit.current = limit.maximum;
        // With the present limit it works too, for fewer processes.
        let _ = setrlimit(Resource::Nofile, limit);
        let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
        let oom_adjusted = !matches!(own.trim(), "" | "0");
        Ok(Launcher { null: null.into(), files, oom_adjusted })
    }

    /// Standard input of everything, and the output of what shall have none.
    #[must_use]
    pub fn null(&self) -> BorrowedFd<'_> {
        self.null.as_fd()
    }

    /// Makes a process that waits. It reads nothing, and writes all to `output`.
    ///
    /// # Errors
    /// At stage `Fork`, or at that whose text cannot be passed on.
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
        stdio: [BorrowedFd<'_>; 3],
        cgroup: Option<BorrowedFd<'_>>,
    ) -> Result<Waiting, SpawnError> {
        let fork = |error: io::Error| failure(SpawnStage::Fork, "", reason(&error));
        let exec = |reason: String| failure(SpawnStage::Exec, recipe.shown_program(), reason);
        let has_nul = || exec("an argument or environment value has a NUL byte".into());
        let argv = recipe.argv.iter().map(|word| CString::new(word.value())).collect();
        let argv: Vec<_> = Result::map_err(argv, |_| has_nul())?;
        let env = recipe.env.iter().map(|(name, value)| CString::new(format!("{name}={value}")));
        let env: Vec<_> = env.collect::<Result<_, _>>().map_err(|_| has_nul())?;
        let setup = self.setup(recipe)?;
        let (started, exit) = start_registered(Program { argv, env, setup, stdio, cgroup })
            .map_err(|StartError(error)| match cgroup.is_some() && is_about_cgroup(&error) {
                true => failure(SpawnStage::Cgroup, "", reason(&error)),
                false => fork(error),
            })?;
        Ok(Waiting {
            pid: started.pid,
            pidfd: Arc::new(started.pidfd),
            exit,
            in_cgroup: started.in_cgroup,
            start: started.start,
            socket: UnixStream::from_std(started.socket).map_err(fork)?,
            reserve: Some(started.reserve),
            lent: started.lent,
        })
    }

    /// What the process has to set up for itself.
    fn setup(&self, recipe: &Recipe) -> Result<Setup, SpawnError> {
        let text = |stage, text: &str, shown: &str| {
            CString::new(text).map_err(|_| failure(stage, shown, "it has a NUL byte".into()))
        };
        let path = |stage, path: &Rendered| text(stage, path.value(), path.shown());
        let optional = |stage, wanted: &Option<Rendered>| {
            wanted.as_ref().map(|wanted| path(stage, wanted)).transpose()
        };
        let candidates = recipe.candidates().into_iter();
        let candidates =
            candidates.map(|path| text(SpawnStage::Exec, &path, recipe.shown_program()));
        let ids = recipe.identity.credentials.as_ref().map(|user| {
            let groups = user.groups.ids().map(<[u32]>::to_vec);
            groups.map(|groups| Ids { uid: user.uid, gid: user.gid, groups })
        });
        let ids = ids.transpose().map_err(|error| {
            failure(SpawnStage::Identity, &recipe.identity.record.name, reason(&error))
        })?;
        Ok(Setup {
            oom_adjusted: self.oom_adjusted,
            is_short_of_memory: recipe.is_limited,
            limits: self.limits(recipe),
            nice: recipe.nice.map(i32::from),
            umask: Some(recipe.umask),
            ids,
            cwd: Some(path(SpawnStage::Cwd, &recipe.cwd)?),
            log_file: optional(SpawnStage::LogFile, &recipe.log_file)?,
            pid_file: optional(SpawnStage::PidFile, &recipe.pid_file)?,
            candidates: candidates.collect::<Result<_, _>>()?,
            shell_scripts: true,
            sockets: recipe.sockets.len(),
        })
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
    /// Gives up the descriptor that was kept for writing down its pid.
    pub fn use_reserve(&mut self) {
        self.reserve = None;
    }

    /// Has it end, as it does when nobody is there any more to let it go.
    pub fn give_up(&self) {
        // It fails where the process is gone.
        let _ = shutdown(&self.socket, Shutdown::Write);
    }

    /// Lets the process become the command, and returns when it has.
    ///
    /// # Errors
    /// At the stage it reports. The process ends by itself then.
    pub async fn go(&mut self, recipe: &Recipe) -> Result<(), SpawnError> {
        let told = self.tell(recipe).await;
        if told.is_err() {
            // It waits for what does not come.
            self.give_up();
        }
        // By now it has hardly ever to be waited for.
        self.lent.take_back();
        let mut answer = Vec::new();
        // Also where it could not be told: it may have said why, before it came to the gate.
        let heard = self.socket.read_to_end(&mut answer).await;
        match (Report::decode(&answer), told.and(heard)) {
            (Some(report), _) => Err(recipe.explain(report)),
            (None, Ok(_)) => Ok(()),
            (None, Err(error)) => Err(recipe.unheard(&error)),
        }
    }

    /// Opens the gate.
    async fn tell(&mut self, recipe: &Recipe) -> io::Result<()> {
        // Or the end would not be seen.
        self.use_reserve();
        // At once, and not when the runtime has found that there is room: it is the first byte.
        match send(&self.socket, &[0], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::AGAIN) => self.socket.write_all(&[0]).await?,
            sent => drop(sent?),
        }
        if !recipe.sockets.is_empty() {
            self.pass(&recipe.sockets).await?;
        }
        self.give_way();
        Ok(())
    }

    /// Where it waits for our processor it has it first: somebody waits for it, and what is told of it
    /// takes longer than it needs to become its command. Once is not enough: with its session it gets
    /// into another group of the scheduler, and is behind us again (sched(7), autogroup).
    fn give_way(&self) {
        const OFTEN_ENOUGH: usize = 3;
        for _ in 0..OFTEN_ENOUGH {
            std::thread::yield_now();
            if self.lent.is_over() {
                return;
            }
        }
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
        take_out_variables(&mut self.env);
        // The process itself adds its number: nobody else knows it before it is made.
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

    /// A report in words.
    fn explain(&self, report: Report) -> SpawnError {
        let mut reason = reason(&io::Error::from_raw_os_error(report.errno));
        let (stage, subject) = match report.stage {
            Stage::Descriptors | Stage::Session => (SpawnStage::Fork, String::new()),
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

    /// Why it could not be told, or said nothing.
    fn unheard(&self, error: &io::Error) -> SpawnError {
        let is_gone =
            matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
        let stage = match is_gone || self.sockets.is_empty() {
            true => SpawnStage::Fork,
            false => SpawnStage::Sockets,
        };
        let reason = match is_gone {
            true => "the process was killed before it could become the command".to_owned(),
            false => reason(error),
        };
        failure(stage, "", reason)
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

/// What somebody stopped before it could become its command.
#[must_use]
pub fn cancelled() -> SpawnError {
    failure(SpawnStage::Fork, "", "it was stopped before it was started".to_owned())
}

//! The program `provost-log` between a run and its log file: starting it, hearing from it, and
//! starting another when it dies. See `src/logsink` for what it does.
//!
//! It is no part of the run: it has no mark of it and is in the control group of the daemon. We hold
//! the reading end of the pipe too, so that another one can go on where one was killed; when the
//! daemon is killed, the program has the only one, and goes on to the end of file. To another program
//! in this process it is handed on, and that one looks after it as we did.

use super::Inner;
use super::hold::{Part, Place};
use super::identity::Identity;
use super::launch::{Recipe, Waiting, failure, reason};
use super::lines::{Splitter, shown};
use super::output::{Route, connect_journal};
use super::reaper::{self, Exit};
use crate::backend::LogRequest;
use crate::core::event::{ExitStatus, SpawnError, SpawnStage};
use crate::core::ids::{InstanceId, Slot};
use crate::core::spec::{LogRotation, ProcessSpec, Rendered};
use crate::sys::stat::Stat;
use arguments::Job;
use rustix::pipe::{PipeFlags, pipe_with};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

#[path = "../../logsink/arguments.rs"]
pub mod arguments;

/// What it says when the log is open.
pub const READY: &[u8] = b"ready";

/// It opens a file; a file system that answers nothing must not hold up a start without a word.
pub const OPENING: Duration = Duration::from_secs(30);

/// How long a run that is over waits for its last lines to be written.
pub const LAST_LINES: Duration = Duration::from_secs(1);

/// The waits before another one is started, the first and the longest.
pub const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What a log file is written with.
pub struct Writing {
    /// Whose output it is.
    pub instance: InstanceId,
    /// In which slot that run is.
    pub slot: Slot,
    /// Who writes the file.
    pub identity: Identity,
    /// File mode creation mask.
    pub umask: u32,
    /// The file.
    pub path: Rendered,
    /// When it is rotated.
    pub rotation: Option<arguments::Rotation>,
    /// A stream of the journal that gets a copy.
    pub journal: Option<OwnedFd>,
}

/// A log that is written.
pub struct Written {
    /// For the process.
    pub write: OwnedFd,
    /// Comes when all was written, after the last holder of the other end has closed it.
    pub done: oneshot::Receiver<()>,
}

/// One program that runs.
struct Program {
    pid: u32,
    exit: Exit,
    reports: Reports,
}

/// Starts to write a log.
///
/// # Errors
/// At stage `LogFile` when it cannot be opened, at stage `Output` when there is no program to do it.
pub(super) async fn start(inner: &Arc<Inner>, writing: Writing) -> Result<Written, SpawnError> {
    let output = |io: &io::Error| failure(SpawnStage::Output, "", reason(io));
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| output(&errno.into()))?;
    let program = start_program(inner, &writing, read.as_fd()).await?;
    let done = look_after(inner, read, async move { Ok((writing, Some(program))) });
    Ok(Written { write, done })
}

/// A log that another program in this process has looked after.
pub(super) struct Handed {
    /// What writes it; 0: there was nothing at the moment.
    pub pid: u32,
    /// The reading end of the pipe.
    pub read: OwnedFd,
    /// What the program says.
    pub reports: Option<OwnedFd>,
}

/// Goes on to look after it, as the spec says that the run has. To be called before anything is
/// reaped.
pub(super) fn go_on(
    inner: &Arc<Inner>,
    place: &Place,
    spec: Arc<ProcessSpec>,
    Handed { pid, read, reports }: Handed,
) -> oneshot::Receiver<()> {
    let exit = Stat::of(pid).and_then(|stat| reaper::take_over(pid, stat.start));
    let reports = reports.and_then(|pipe| Reports::of(pipe).ok());
    let program = exit.zip(reports).map(|(exit, reports)| Program { pid, exit, reports });
    let (own, place) = (inner.clone(), place.clone());
    look_after(inner, read, async move { Ok((Writing::of(&own, &place, &spec).await?, program)) })
}

/// Sees to it that a log is written until the end of file, which the result tells.
fn look_after(
    inner: &Arc<Inner>,
    read: OwnedFd,
    begun: impl Future<Output = Result<(Writing, Option<Program>), SpawnError>> + Send + 'static,
) -> oneshot::Receiver<()> {
    let (sender, done) = oneshot::channel();
    let inner = inner.clone();
    let part = inner.holding.take_part();
    inner.pumps.send_modify(|reading| *reading += 1);
    tokio::spawn(async move {
        match begun.await {
            Ok((writing, program)) => keep(&inner, &writing, read, program, part).await,
            Err(error) => tracing::error!("nobody looks after a log any more: {error}"),
        }
        inner.pumps.send_modify(|reading| *reading -= 1);
        // Nobody may wait.
        let _ = sender.send(());
    });
    done
}

async fn keep(
    inner: &Inner,
    writing: &Writing,
    read: OwnedFd,
    mut program: Option<Program>,
    mut part: Part,
) {
    let name = &writing.instance;
    let place = (writing.instance.clone(), writing.slot);
    let mut wait = AGAIN.0;
    loop {
        let Some(running) = &mut program else {
            tokio::select! {
                biased;
                () = part.is_to_stand_still() => part.stand_still(&place, 0, &read, None).await,
                () = tokio::time::sleep(wait) => {
                    wait = (wait * 2).min(AGAIN.1);
                    match start_program(inner, writing, read.as_fd()).await {
                        Ok(started) => program = Some(started),
                        Err(error) => tracing::error!("{name}: its log is not written: {error}"),
                    }
                }
            }
            continue;
        };
        let status = tokio::select! {
            biased;
            () = part.is_to_stand_still() => {
                let reports = Some(running.reports.pipe.as_fd());
                part.stand_still(&place, running.pid, &read, reports).await;
                continue;
            }
            status = running.see_off(name) => status,
        };
        if status == ExitStatus::Code(0) {
            return;
        }
        tracing::error!("{name}: what writes its log ended: {status}; another one is started");
        program = None;
    }
}

impl Writing {
    /// With what the log of a process is written.
    async fn of(
        inner: &Inner,
        (instance, slot): &Place,
        spec: &ProcessSpec,
    ) -> Result<Writing, SpawnError> {
        const USUAL_UMASK: u32 = 0o022;
        let exec = &spec.exec;
        let journal = match inner.route(exec) {
            Route::Sink { journal: true } => Some(connect_journal(inner, instance).await?),
            _ => None,
        };
        let path = exec.log_file.as_ref().map(|path| path.rendered(instance.index));
        Ok(Writing {
            instance: instance.clone(),
            slot: *slot,
            identity: inner.identity(exec).await?,
            umask: exec.umask.unwrap_or(USUAL_UMASK),
            path: path.unwrap_or_default(),
            rotation: exec.log_rotation.map(rotation),
            journal,
        })
    }
}

/// As the program is told.
#[must_use]
pub fn rotation(given: LogRotation) -> arguments::Rotation {
    arguments::Rotation { max_size: given.max_size, max_files: given.max_files }
}

impl Program {
    /// Passes on what it says, until its end.
    async fn see_off(&mut self, name: &InstanceId) -> ExitStatus {
        while let Some(line) = self.reports.line().await {
            tracing::warn!("{name}: {}", shown(&line));
        }
        (&mut self.exit).await.unwrap_or(ExitStatus::Unknown)
    }
}

async fn start_program(
    inner: &Inner,
    writing: &Writing,
    read: BorrowedFd<'_>,
) -> Result<Program, SpawnError> {
    let (path, rotation) = (PathBuf::from(writing.path.value()), writing.rotation);
    let job = Job::Write { path, rotation, copy: writing.journal.is_some() };
    let recipe = recipe(inner, &job, writing.identity.clone(), writing.umask);
    let copy = writing.journal.as_ref().map_or(inner.launcher.null(), AsFd::as_fd);
    let (reports, error) = Reports::new()?;
    let waiting = launch(inner, &recipe, [read, copy, error.as_fd()]).await?;
    drop(error);
    let mut program = Program { pid: waiting.pid, exit: waiting.exit, reports };
    let failed = |text: String| failure(SpawnStage::LogFile, writing.path.shown(), text);
    let first = match tokio::time::timeout(OPENING, program.reports.line()).await {
        Ok(first) => first,
        Err(_) => {
            // It waits for the file system, or will see that nobody has the other end.
            let text = format!("it is not open after {} s", OPENING.as_secs());
            return Err(failed(text));
        }
    };
    match first {
        Some(line) if line == READY => Ok(program),
        Some(line) => Err(failed(shown(&line))),
        None => {
            let status = (&mut program.exit).await.unwrap_or(ExitStatus::Unknown);
            Err(failed(format!("what shall write it ended: {status}")))
        }
    }
}

/// Shows a log, and what is added to it for as long as there is a reader and this daemon.
pub(super) async fn show(
    inner: &Inner,
    instance: &InstanceId,
    identity: Identity,
    path: PathBuf,
    request: LogRequest,
    output: OwnedFd,
) {
    const USUAL_UMASK: u32 = 0o022;
    let job = Job::Show { path, lines: request.lines, follow: request.follow };
    let recipe = recipe(inner, &job, identity, USUAL_UMASK);
    let started = async {
        let (reports, error) = Reports::new()?;
        let (lifeline, ours) = pipe_with(PipeFlags::CLOEXEC)
            .map_err(|errno| failure(SpawnStage::Output, "", reason(&errno.into())))?;
        let fds = [lifeline.as_fd(), output.as_fd(), error.as_fd()];
        let waiting = launch(inner, &recipe, fds).await?;
        Ok((Program { pid: waiting.pid, exit: waiting.exit, reports }, ours))
    };
    let started: Result<_, SpawnError> = started.await;
    match started {
        Ok((mut program, _ours)) => {
            drop(output);
            program.see_off(instance).await;
        }
        Err(error) => {
            tracing::warn!("{instance}: showing its log: {error}");
            // Whoever wanted to see the log sees this. The pipe is empty, so it takes it.
            let text = format!("[provost: the log cannot be shown: {error}]\n");
            let _ = rustix::io::write(&output, text.as_bytes());
        }
    }
}

fn recipe(inner: &Inner, job: &Job, identity: Identity, umask: u32) -> Recipe {
    let program = inner.log_program.to_string_lossy().into_owned();
    let words = std::iter::once(program).chain(job.arguments());
    Recipe {
        argv: words.map(|word| Rendered::from(&*word)).collect(),
        env: BTreeMap::new(),
        path_is_own: false,
        cwd: "/".into(),
        identity,
        umask,
        nice: None,
        max_files: None,
        log_file: None,
        pid_file: None,
        sockets: Vec::new(),
        is_limited: false,
        mark: None,
    }
}

/// Starts the program, in the control group of the daemon.
async fn launch(
    inner: &Inner,
    recipe: &Recipe,
    fds: [BorrowedFd<'_>; 3],
) -> Result<Waiting, SpawnError> {
    let wrapped =
        |error: SpawnError| failure(SpawnStage::Output, "to the log file", format!("{error}"));
    let mut waiting = inner.launcher.begin_with(recipe, fds, None).map_err(wrapped)?;
    waiting.go(recipe).await.map_err(wrapped)?;
    Ok(waiting)
}

/// What the program says, line by line.
pub struct Reports {
    pipe: pipe::Receiver,
    splitter: Splitter,
    lines: std::collections::VecDeque<Vec<u8>>,
}

impl Reports {
    /// For us, and for the program.
    ///
    /// # Errors
    /// At stage `Output`.
    pub fn new() -> Result<(Reports, OwnedFd), SpawnError> {
        let output = |io: &io::Error| failure(SpawnStage::Output, "", reason(io));
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| output(&errno.into()))?;
        Ok((Reports::of(read).map_err(|io| output(&io))?, write))
    }

    fn of(read: OwnedFd) -> io::Result<Reports> {
        let pipe = pipe::Receiver::from_owned_fd(read)?;
        Ok(Reports { pipe, splitter: Splitter::default(), lines: Default::default() })
    }

    /// The next line; None at the end.
    pub async fn line(&mut self) -> Option<Vec<u8>> {
        let mut buffer = [0; 1024];
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(line);
            }
            let lines = &mut self.lines;
            match self.pipe.read(&mut buffer).await {
                Ok(0) | Err(_) => {
                    self.splitter.finish(|line| lines.push_back(line.bytes.to_vec()));
                    return lines.pop_front();
                }
                Ok(count) => self
                    .splitter
                    .push(&buffer[..count], |line| lines.push_back(line.bytes.to_vec())),
            }
        }
    }
}

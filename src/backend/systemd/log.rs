//! Where the output of a run goes.
//!
//! systemd's own `append:` would open a log file as root and follow a symlink. So files are opened
//! by us, as the user whose they are, and handed over. What rotates them, `provost-log`, is a unit
//! of its own: it outlives the daemon, and does not belong to the run.

use super::passing::Passing;
use super::unit::{self, Output, Program};
use super::{Handover, Inner};
use crate::backend::LogRequest;

use crate::backend::native::identity::Identity;
use crate::backend::native::launch::{failure, reason};
use crate::backend::native::lines::shown;
use crate::backend::native::output::Route;
use crate::backend::native::sink::arguments::{Job, Rotation};
use crate::backend::native::sink::{AGAIN, OPENING, READY, Reports};
use crate::core::event::{ExitStatus, SpawnError, SpawnStage};
use crate::core::ids::InstanceId;
use crate::core::spec::{ExecSpec, Rendered, Text};
use crate::journal::stream;
use crate::sys::random;
use rustix::fs::CWD;
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Where processes of systemd connect to the journal (systemd-journald.service(8)).
const JOURNAL: &str = "/run/systemd/journal/stdout";

/// A journal that takes no connection is waited for so long.
const JOURNAL_PATIENCE: Duration = Duration::from_secs(5);

/// What a run gets, and what comes when all of it was written.
pub(super) struct Connected {
    pub output: Output<OwnedFd>,
    pub logged: Option<oneshot::Receiver<()>>,
    pub pipe: Option<Pipe>,
}

/// What a run writes to and a program of ours reads from. It has a name, because what systemd is
/// given as a descriptor it keeps, and then the end of file would not come with the end of the run.
///
/// To be kept until the run was started: before, it has no other writer.
pub(super) struct Pipe {
    file: Handover,
    _write: OwnedFd,
}

impl Pipe {
    /// A pipe, and its reading end.
    fn new(inner: &Inner, unit: &str) -> io::Result<(Pipe, OwnedFd)> {
        use rustix::fs::{FileType, Mode, OFlags, fcntl_setfl, mknodat, open};
        let file = inner.handover(&format!("{unit}.log"));
        mknodat(CWD, &file.0, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let read = open(&file.0, flags | OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
        fcntl_setfl(&read, OFlags::empty())?;
        let write = open(&file.0, flags | OFlags::WRONLY, Mode::empty())?;
        Ok((Pipe { file, _write: write }, read))
    }
}

/// Opens what a run writes to.
///
/// # Errors
/// At stage `Output`, or `LogFile`.
pub(super) async fn connect(
    inner: &Arc<Inner>,
    (instance, unit): (&InstanceId, &str),
    exec: &ExecSpec,
    identity: &Identity,
    umask: u32,
) -> Result<Connected, SpawnError> {
    let only = |output| Connected { output, logged: None, pipe: None };
    let path = || exec.log_file.as_ref().map(|path| path.rendered(instance.index));
    match Route::of(exec, true) {
        Route::Null => Ok(only(Output::Null)),
        Route::Journal | Route::Console => {
            expect_journal().await?;
            Ok(only(Output::Journal))
        }
        Route::File => {
            let (path, identity) = (path().unwrap_or_default(), identity.clone());
            let open = move || open_to_write(&identity, &path, umask);
            let broken =
                |error: tokio::task::JoinError| failure(SpawnStage::LogFile, "", error.to_string());
            let file = tokio::task::spawn_blocking(open).await.map_err(broken)??;
            Ok(only(Output::Held(file.into())))
        }
        Route::Sink { journal } => {
            let copy = match journal {
                true => Some(open_journal(instance, unit).await?),
                false => None,
            };
            let rotation = exec.log_rotation.map(|rotation| Rotation {
                max_size: rotation.max_size,
                max_files: rotation.max_files,
            });
            let writing = Writing {
                instance: instance.clone(),
                identity: identity.clone(),
                umask,
                path: path().unwrap_or_default(),
                rotation,
                copy,
            };
            let (pipe, read) = Pipe::new(inner, unit).map_err(|io| output_error(&io))?;
            let logged = Some(start_writing(inner, writing, read).await?);
            let output = Output::File(pipe.file.0.clone());
            Ok(Connected { output, logged, pipe: Some(pipe) })
        }
    }
}

/// A process that is started while nobody listens there has no output for all its life.
async fn expect_journal() -> Result<(), SpawnError> {
    let error = |reason: String| failure(SpawnStage::Output, "to the journal", reason);
    match tokio::time::timeout(JOURNAL_PATIENCE, tokio::net::UnixStream::connect(JOURNAL)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(io)) => Err(error(format!("{JOURNAL}: {}", reason(&io)))),
        Err(_) => Err(error(format!("{JOURNAL}: it takes no connection"))),
    }
}

async fn open_journal(instance: &InstanceId, unit: &str) -> Result<OwnedFd, SpawnError> {
    let error = |reason: String| failure(SpawnStage::Output, "to the journal", reason);
    let identifier = instance.process.to_string();
    // The journal lets only root say which unit it is.
    let root = rustix::process::geteuid().is_root();
    let unit = root.then(|| unit.to_owned());
    let open = move || {
        stream::open(Path::new(JOURNAL), &identifier, unit.as_deref())
            .map_err(|io| error(format!("{JOURNAL}: {}", reason(&io))))
    };
    let broken = |error: tokio::task::JoinError| failure(SpawnStage::Output, "", error.to_string());
    tokio::task::spawn_blocking(open).await.map_err(broken)?
}

/// Opens a log file as the user, makes it and its directory where they are missing, and follows no
/// symlink at its end.
fn open_to_write(identity: &Identity, path: &Rendered, umask: u32) -> Result<File, SpawnError> {
    let error = |io: &io::Error| match io.raw_os_error() {
        Some(libc::ELOOP) => "it is a symbolic link, which is not followed".to_owned(),
        _ => reason(io),
    };
    let opened = identity.run(|| {
        let open = || {
            let flags = libc::O_NOFOLLOW | libc::O_NOCTTY | libc::O_NONBLOCK;
            let mut options = OpenOptions::new();
            options.append(true).create(true).mode(0o640 & !umask).custom_flags(flags);
            options.open(path.value())
        };
        let file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let parent = Path::new(path.value()).parent().unwrap_or(Path::new("/"));
                DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
                open()?
            }
            opened => opened?,
        };
        // Opened without waiting, so that a fifo cannot hold us up; the command gets a plain file.
        rustix::fs::fcntl_setfl(&file, rustix::fs::OFlags::APPEND)?;
        Ok(file)
    });
    opened.map_err(|io| failure(SpawnStage::LogFile, path.shown(), error(&io)))
}

/// What a log file is written with.
struct Writing {
    instance: InstanceId,
    identity: Identity,
    umask: u32,
    path: Rendered,
    rotation: Option<Rotation>,
    /// A stream of the journal.
    copy: Option<OwnedFd>,
}

/// One program that runs.
struct Writer {
    passing: Passing,
    reports: Reports,
}

/// Starts to write a log. What is returned comes when the last line was written.
async fn start_writing(
    inner: &Arc<Inner>,
    writing: Writing,
    read: OwnedFd,
) -> Result<oneshot::Receiver<()>, SpawnError> {
    let writer = start_writer(inner, &writing, &read).await?;
    let (sender, done) = oneshot::channel();
    let inner = inner.clone();
    inner.pumps.send_modify(|reading| *reading += 1);
    tokio::spawn(async move {
        keep_writing(&inner, &writing, read, writer).await;
        inner.pumps.send_modify(|reading| *reading -= 1);
        // Nobody may wait.
        let _ = sender.send(());
    });
    Ok(done)
}

/// Sees to it that somebody writes until the end of file. We hold the reading end too, so that
/// another one can go on where one was killed.
async fn keep_writing(inner: &Inner, writing: &Writing, read: OwnedFd, mut writer: Writer) {
    let name = &writing.instance;
    let mut wait = AGAIN.0;
    loop {
        while let Some(line) = writer.reports.line().await {
            tracing::warn!("{name}: {}", shown(&line));
        }
        let status = writer.passing.ended().await;
        if status == ExitStatus::Code(0) {
            return;
        }
        tracing::error!("{name}: what writes its log ended: {status}; another one is started");
        writer = loop {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(AGAIN.1);
            match start_writer(inner, writing, &read).await {
                Ok(writer) => break writer,
                Err(error) => tracing::error!("{name}: its log is not written: {error}"),
            }
        };
    }
}

async fn start_writer(
    inner: &Inner,
    writing: &Writing,
    read: &OwnedFd,
) -> Result<Writer, SpawnError> {
    let (path, rotation) = (PathBuf::from(writing.path.value()), writing.rotation);
    let job = Job::Write { path, rotation, copy: writing.copy.is_some() };
    let (reports, error) = Reports::new()?;
    let clone = |fd: &OwnedFd| fd.try_clone().map_err(|io| output_error(&io));
    let null = null()?;
    let copy = writing.copy.as_ref().unwrap_or(&null);
    let fds = [clone(read)?, clone(copy)?, error];
    let (instance, identity) = (&writing.instance, &writing.identity);
    let passing = start_program(inner, instance, &job, identity, writing.umask, fds).await?;
    let mut writer = Writer { passing, reports };
    let failed = |text: String| failure(SpawnStage::LogFile, writing.path.shown(), text);
    match tokio::time::timeout(OPENING, writer.reports.line()).await {
        Ok(Some(line)) if line == READY => Ok(writer),
        Ok(Some(line)) => Err(failed(shown(&line))),
        Ok(None) => {
            let status = writer.passing.ended().await;
            Err(failed(format!("what shall write it ended: {status}")))
        }
        Err(_) => Err(failed(format!("it is not open after {} s", OPENING.as_secs()))),
    }
}

/// Starts `provost-log`.
async fn start_program(
    inner: &Inner,
    instance: &InstanceId,
    job: &Job,
    identity: &Identity,
    umask: u32,
    fds: [OwnedFd; 3],
) -> Result<Passing, SpawnError> {
    let wrapped =
        |error: SpawnError| failure(SpawnStage::Output, "to the log file", error.to_string());
    let program = inner.log_program.to_string_lossy().into_owned();
    let words = std::iter::once(program).chain(job.arguments());
    let argv: Vec<Rendered> = words.map(|word| Rendered::from(&*word)).collect();
    let program = Program {
        argv: &argv,
        path: "",
        cwd: "/",
        identity,
        umask,
        nice: None,
        max_files: None,
        environment: None,
    };
    let unit = inner.names.of_log(instance, random());
    let mut properties =
        unit::passing(&format!("The log of {instance}"), inner.daemon_unit.as_deref(), None);
    let output = Output::Three(fds);
    properties.extend(program.properties(&output).map_err(|io| output_error(&io))?);
    Passing::start(&inner.manager, unit, &properties).await.map_err(wrapped)
}

/// Shows a log, and what is added to it for as long as there is a reader and this daemon.
pub(super) async fn show(
    inner: &Inner,
    instance: &InstanceId,
    identity: &Identity,
    path: PathBuf,
    request: LogRequest,
    output: OwnedFd,
) {
    const USUAL_UMASK: u32 = 0o022;
    let job = Job::Show { path, lines: request.lines, follow: request.follow };
    let started = async {
        let (reports, error) = Reports::new()?;
        let (lifeline, ours) = pipe()?;
        let theirs = output.try_clone().map_err(|io| output_error(&io))?;
        let fds = [lifeline, theirs, error];
        let passing = start_program(inner, instance, &job, identity, USUAL_UMASK, fds).await?;
        Ok::<_, SpawnError>((Writer { passing, reports }, ours))
    };
    match started.await {
        Ok((mut shower, _ours)) => {
            drop(output);
            while let Some(line) = shower.reports.line().await {
                tracing::warn!("{instance}: {}", shown(&line));
            }
            shower.passing.ended().await;
        }
        Err(error) => {
            tracing::warn!("{instance}: showing its log: {error}");
            // Whoever wanted to see the log sees this. The pipe is empty, so it takes it.
            let text = format!("[provost: the log cannot be shown: {error}]\n");
            let _ = rustix::io::write(&output, text.as_bytes());
        }
    }
}

/// The log file of an instance, where its output goes to one.
pub(super) fn file_of(instance: &InstanceId, exec: &ExecSpec) -> Option<String> {
    let path = exec.log_file.as_ref().map(|path: &Text| path.render(instance.index).into_owned());
    path.filter(|_| matches!(Route::of(exec, true), Route::File | Route::Sink { .. }))
}

fn null() -> Result<OwnedFd, SpawnError> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null");
    null.map(OwnedFd::from).map_err(|io| output_error(&io))
}

/// A pipe, the reading end first.
pub(super) fn pipe() -> Result<(OwnedFd, OwnedFd), SpawnError> {
    pipe_with(PipeFlags::CLOEXEC).map_err(|errno| output_error(&errno.into()))
}

pub(super) fn output_error(error: &io::Error) -> SpawnError {
    failure(SpawnStage::Output, "", reason(error))
}

//! A command beside a run: as its user, in its directory, with its environment, in a unit of its
//! own.

use super::log::{output_error, pipe};
use super::passing::Passing;
use super::resources;
use super::unit::{self, Output, Program};
use super::{Inner, bad_variable, lock};

use crate::backend::native::identity::Need;
use crate::backend::native::launch::failure;
use crate::backend::native::lines::shown;
use crate::backend::{Beside, CommandEnd, CommandFuture, Purpose};
use crate::core::event::{ExitStatus, SpawnError, SpawnStage};
use crate::core::ids::InstanceId;
use crate::core::spec::{ProcessSpec, Rendered};
use crate::sys::random;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};

/// So much of the end of the output is kept.
const KEPT: usize = 4096;

/// systemd ends it so long after its deadline, where nobody else does.
const GRACE: Duration = Duration::from_secs(5);

/// A command.
pub(super) struct Wanted {
    /// In whose context.
    pub(super) spec: Arc<ProcessSpec>,
    pub(super) beside: Beside,
    pub(super) argv: Vec<Rendered>,
    pub(super) timeout: Duration,
}

/// What there is of commands of one purpose beside the runs of one instance.
pub(super) struct Place {
    /// One at a time: one that cannot even be killed must not be followed by more and more others.
    gate: Arc<Semaphore>,
    /// What the last one that failed wrote at its end.
    printed: Mutex<Option<Arc<str>>>,
}

impl Place {
    fn new() -> Arc<Place> {
        Arc::new(Place { gate: Arc::new(Semaphore::new(1)), printed: Mutex::default() })
    }

    pub(super) fn printed(&self) -> Option<Arc<str>> {
        lock(&self.printed).clone()
    }
}

/// Runs a command. It is carried out whether or not anybody waits for the answer.
pub(super) fn run(inner: Arc<Inner>, instance: InstanceId, wanted: Wanted) -> CommandFuture {
    let (sender, answer) = oneshot::channel();
    tokio::spawn(async move {
        let key = (instance.clone(), wanted.beside.purpose());
        let place = lock(&inner.commands).entry(key).or_insert_with(Place::new).clone();
        carry_out(&inner, &place, &instance, &wanted, sender).await;
    });
    Box::pin(async move {
        answer.await.unwrap_or_else(|_| CommandEnd::Failure("the supervisor is ending".into()))
    })
}

/// Answers as soon as the end of the command is known, and returns when nothing is left of it.
async fn carry_out(
    inner: &Inner,
    place: &Place,
    instance: &InstanceId,
    wanted: &Wanted,
    answer: oneshot::Sender<CommandEnd>,
) {
    let deadline = Instant::now() + wanted.timeout;
    let Ok(_permit) = timeout_at(deadline, place.gate.clone().acquire_owned()).await else {
        let _ = answer.send(CommandEnd::TimedOut);
        return;
    };
    let (mut passing, mut output) = match begin(inner, instance, wanted).await {
        Ok(begun) => begun,
        Err(error) => {
            let _ = answer.send(CommandEnd::Failure(error.to_string()));
            return;
        }
    };
    let end = timeout_at(deadline, output.collect_until_end(&mut passing)).await;
    let end = end.unwrap_or(CommandEnd::TimedOut);
    if end != CommandEnd::Success {
        *lock(&place.printed) = output.text();
    }
    // Whoever asked may be gone.
    let _ = answer.send(end);
    passing.stop().await;
}

async fn begin(
    inner: &Inner,
    instance: &InstanceId,
    wanted: &Wanted,
) -> Result<(Passing, Collector), SpawnError> {
    const USUAL_UMASK: u32 = 0o022;
    let Wanted { spec, beside, argv, timeout } = wanted;
    let exec = &spec.exec;
    let identity = inner.identities.find(exec, Need::User).await?;
    let mut variables =
        inner.identities.environment(&inner.environment, exec, &identity.record, instance.index);
    variables.extend(beside.variable());
    let first = argv.first().map_or("", Rendered::shown);
    if let Some(name) = bad_variable(&variables) {
        let text = format!("systemd takes no environment variable named {name:?}");
        return Err(failure(SpawnStage::Exec, first, text));
    }
    let unit = inner.names.of_command(instance, random());
    let environment = inner.write_environment(&unit, &variables).map_err(|io| output_error(&io))?;
    let (read, write) = pipe()?;
    let cwd = exec.cwd.render(instance.index);
    let program = Program {
        argv,
        path: variables.get("PATH").map_or("", String::as_str),
        cwd: &cwd,
        identity: &identity,
        umask: exec.umask.unwrap_or(USUAL_UMASK),
        nice: exec.nice,
        max_files: exec.max_files,
        environment: Some(&environment.0),
    };
    let description = match beside.purpose() {
        Purpose::Check => format!("A check of {instance}"),
        Purpose::Reload => format!("The reload of {instance}"),
        Purpose::Hook => format!("A hook of {}", instance.process),
    };
    let daemon = inner.daemon_unit.as_deref();
    let mut properties = unit::passing(&description, daemon, Some(*timeout + GRACE));
    let output = Output::Held(write);
    properties.extend(program.properties(&output).map_err(|io| output_error(&io))?);
    properties.extend(resources::properties(exec, &cwd, inner.mode, true));
    let started = Passing::start(&inner.manager, unit, &properties).await;
    let passing = started.map_err(|error| match error.subject.is_empty() {
        true => SpawnError { subject: first.to_owned(), ..error },
        false => error,
    })?;
    let pipe = Receiver::from_owned_fd(read).map_err(|io| output_error(&io))?;
    Ok((passing, Collector { pipe, tail: Vec::new() }))
}

/// The output of a command, read as it comes so that the command never waits, and forgotten but
/// for its end.
struct Collector {
    pipe: Receiver,
    tail: Vec<u8>,
}

impl Collector {
    async fn collect_until_end(&mut self, passing: &mut Passing) -> CommandEnd {
        let mut open = true;
        let status = {
            let ended = passing.ended();
            tokio::pin!(ended);
            loop {
                tokio::select! {
                    status = &mut ended => break status,
                    ready = self.pipe.readable(), if open => open = ready.is_ok() && self.read_some(),
                }
            }
        };
        // What the command itself wrote is in the pipe by now; what it left behind may go on.
        const WHOLE_PIPE: usize = 16;
        let mut buffer = [0; KEPT];
        for _ in 0..WHOLE_PIPE {
            // Asked of the kernel: the runtime may not have heard yet that there is something.
            match rustix::io::read(&self.pipe, &mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(len) => self.keep(&buffer[..len]),
            }
        }
        match status {
            ExitStatus::Code(0) => CommandEnd::Success,
            status => CommandEnd::Failure(status.to_string()),
        }
    }

    /// Whether there may be more, now or later.
    fn read_some(&mut self) -> bool {
        let mut buffer = [0; KEPT];
        match self.pipe.try_read(&mut buffer) {
            Ok(0) => false,
            Ok(len) => {
                self.keep(&buffer[..len]);
                true
            }
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        let excess = self.tail.len().saturating_sub(KEPT);
        self.tail.drain(..excess);
    }

    fn text(&self) -> Option<Arc<str>> {
        let lines = self.tail.trim_ascii().split(|byte| *byte == b'\n');
        let text = lines.map(shown).collect::<Vec<_>>().join("\n");
        (!text.is_empty()).then(|| Arc::from(text))
    }
}

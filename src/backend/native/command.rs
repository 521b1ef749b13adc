//! A command beside a run: as its user, in its directory, with its environment, and apart from it.

use super::launch::Waiting;
use super::lines::shown;
use super::tree::Tree;
use super::{Inner, lock};
use crate::backend::{Beside, CommandEnd, CommandFuture, Purpose};
use crate::core::event::{ExitStatus, SpawnError, SpawnStage};
use crate::core::ids::InstanceId;
use crate::core::spec::{ProcessSpec, Rendered};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::unix::pipe;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};

/// So much of the end of the output is kept.
const KEPT: usize = 4096;

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
    tokio::spawn(async move { carry_out(&inner, &instance, wanted, sender).await });
    Box::pin(async move {
        answer.await.unwrap_or_else(|_| CommandEnd::Failure("the supervisor is ending".into()))
    })
}

/// Answers as soon as the end of the command is known, and returns when nothing is left of it.
async fn carry_out(
    inner: &Inner,
    instance: &InstanceId,
    wanted: Wanted,
    answer: oneshot::Sender<CommandEnd>,
) {
    let Wanted { spec, beside, argv, timeout } = wanted;
    let deadline = Instant::now() + timeout;
    let purpose = beside.purpose();
    let key = (instance.clone(), purpose);
    let place = lock(&inner.commands).entry(key).or_insert_with(Place::new).clone();
    let prepared = timeout_at(deadline, async {
        let permit = place.gate.clone().acquire_owned().await;
        (permit, inner.identity(&spec.exec).await)
    });
    let (_permit, begun) = match prepared.await {
        Err(_) => {
            let _ = answer.send(CommandEnd::TimedOut);
            return;
        }
        Ok((permit, identity)) => (
            permit,
            identity.and_then(|identity| {
                let mut recipe = inner.recipe(instance, &spec.exec, argv, identity);
                recipe.env.extend(beside.variable());
                let label = format!("{instance}.{}", purpose.as_str());
                let tree = inner.plant(&label, None, &mut recipe)?;
                let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
                    .map_err(|errno| output_error(&errno.into()))?;
                let waiting = inner.begin(&recipe, std::os::fd::AsFd::as_fd(&write), &tree)?;
                let read = pipe::Receiver::from_owned_fd(read).map_err(|io| output_error(&io))?;
                Ok((recipe, waiting, tree, Output { pipe: read, tail: Vec::new() }))
            }),
        ),
    };
    let (recipe, mut waiting, tree, mut output) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            let _ = answer.send(CommandEnd::Failure(error.to_string()));
            return;
        }
    };
    let end = timeout_at(deadline, async {
        match waiting.go(&recipe).await {
            Err(error) => CommandEnd::Failure(error.to_string()),
            Ok(()) => output.collect_until_exit(&mut waiting).await,
        }
    });
    let end = end.await.unwrap_or(CommandEnd::TimedOut);
    if end != CommandEnd::Success {
        *lock(&place.printed) = output.text();
    }
    // Whoever asked may be gone.
    let _ = answer.send(end);
    end_tree(instance, purpose, &tree).await;
}

fn output_error(error: &io::Error) -> SpawnError {
    super::failure(SpawnStage::Output, "", super::reason(error))
}

/// Whatever the command left behind is killed.
async fn end_tree(instance: &InstanceId, purpose: Purpose, tree: &Tree) {
    let ended = async {
        tree.kill().await?;
        tree.emptied().await
    };
    if let Err(error) = ended.await {
        let purpose = purpose.as_str();
        tracing::error!("{instance}: ending what its {purpose} left behind: {error}");
    }
}

/// The output of a command, read as it comes so that the command never waits, and forgotten but
/// for its end.
struct Output {
    pipe: pipe::Receiver,
    tail: Vec<u8>,
}

impl Output {
    async fn collect_until_exit(&mut self, waiting: &mut Waiting) -> CommandEnd {
        let mut open = true;
        let status = loop {
            tokio::select! {
                status = &mut waiting.exit => break status.unwrap_or(ExitStatus::Unknown),
                ready = self.pipe.readable(), if open => open = ready.is_ok() && self.read_some(),
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

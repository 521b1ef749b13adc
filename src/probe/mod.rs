//! Health checks, and commands by which runs take new settings: each is a task that asks once and
//! reports one answer.
//!
//! An answer is a success, or says in a few words what was wrong. What is asked over the network is
//! asked by `net`, what a command is asked by the backend.
//!
//! A process that crashed does not answer either, and a check can see that before its end is known.
//! It is its end that counts: what a check would lead to and what the restart policy says may be two
//! things, and which of them is done must not be luck.

use crate::backend::{Backend, Beside, CommandEnd, Facts, has_ended};
use crate::core::event::Event;
use crate::core::ids::{InstanceId, ProbeId, ReloadId, Run};
use crate::core::spec::{Check, HealthCheck, ProcessSpec, Text};
use crate::core::text::span;
use crate::net::check::{self, no_answer};
use std::sync::Arc;
use std::time::Duration;

/// Starts checks.
pub struct Prober {
    facts: Facts,
    backend: Arc<dyn Backend>,
}

impl Prober {
    /// A prober that reports to `facts` and runs commands by way of `backend`.
    #[must_use]
    pub fn new(facts: Facts, backend: Arc<dyn Backend>) -> Prober {
        Prober { facts, backend }
    }

    /// Starts one check. Its answer comes as [`Event::Probed`], soon after the timeout at the
    /// latest; none where the main process has ended meanwhile.
    pub fn probe(
        &self,
        instance: &InstanceId,
        run: Run,
        probe: ProbeId,
        check: Arc<HealthCheck>,
        spec: &Arc<ProcessSpec>,
    ) {
        let (facts, backend) = (self.facts.clone(), self.backend.clone());
        let (instance, spec) = (instance.clone(), spec.clone());
        tokio::spawn(async move {
            let outcome = ask(&*backend, &instance, &check, &spec).await;
            if outcome.is_err() && has_ended(&*backend, &instance, run).await {
                // That is told by the backend, and answers this too.
                return;
            }
            // Nobody listens any more when the daemon ends.
            let _ = facts.send(Event::Probed { instance, run, probe, outcome });
        });
    }
}

/// A command by which a run takes new settings.
pub struct RunCommand {
    /// The main process of the run, which the command is told.
    pub main: u32,
    /// The program and its arguments.
    pub command: Arc<[Text]>,
    /// It is killed after so long.
    pub timeout: Duration,
}

impl Prober {
    /// Carries out a command by which a run takes new settings. Its answer comes as
    /// [`Event::Reloaded`], soon after the timeout at the latest.
    pub fn reload(
        &self,
        instance: &InstanceId,
        run: Run,
        reload: ReloadId,
        command: RunCommand,
        spec: &Arc<ProcessSpec>,
    ) {
        let (facts, backend) = (self.facts.clone(), self.backend.clone());
        let (instance, spec) = (instance.clone(), spec.clone());
        tokio::spawn(async move {
            let RunCommand { main, command, timeout } = command;
            let argv = command.iter().map(|word| word.rendered(instance.index)).collect();
            let beside = Beside::Reload { main };
            let end = backend.run_in_context(&instance, &spec, beside, argv, timeout).await;
            let outcome = match end {
                CommandEnd::Success => Ok(()),
                CommandEnd::Failure(text) => Err(text),
                CommandEnd::TimedOut => {
                    Err(format!("was still there after {}, and was killed", span(timeout)))
                }
            };
            // Nobody listens any more when the daemon ends.
            let _ = facts.send(Event::Reloaded { instance, run, reload, outcome });
        });
    }
}

async fn ask(
    backend: &dyn Backend,
    instance: &InstanceId,
    check: &HealthCheck,
    spec: &Arc<ProcessSpec>,
) -> Result<(), String> {
    let (index, timeout) = (instance.index, check.timeout);
    let network = backend.network();
    match &check.check {
        Check::Http(url) => network.check(check::Check::Http(url.rendered(index)), timeout).await,
        Check::Tcp(address) => {
            network.check(check::Check::Tcp(address.rendered(index)), timeout).await
        }
        Check::Exec(argv) => {
            let argv = argv.iter().map(|word| word.rendered(index)).collect();
            match backend.run_in_context(instance, spec, Beside::Check, argv, timeout).await {
                CommandEnd::Success => Ok(()),
                CommandEnd::Failure(text) => Err(text),
                CommandEnd::TimedOut => Err(no_answer(timeout)),
            }
        }
        // Nobody asks for it: the machine hears of it from the run.
        Check::Notify => Err("it is not asked".to_owned()),
    }
}

//! A simulated machine: processes that follow a script, and exist nowhere but here. The driver, the
//! core, the configuration, the stores and the D-Bus interface above them are the real ones; so what a
//! scenario says of their decisions is seen apart from what any kernel does.
//!
//! What a process does is told by the few commands that [`script`] knows; any other is a program that
//! is not there. It has no users, directories, limits, sandboxes, sockets, output or words of its own, no
//! signals but SIGTERM and SIGKILL, and remembers how a run ended until that is written down, which it looks at.

pub mod daemon;
mod nature;
mod script;

pub use nature::Nature;
pub use script::ACT;

use crate::common::ledger;
use nature::Signal;
use provost::backend::sockets::Sockets;
use provost::backend::{
    Backend, Beside, CommandEnd, CommandFuture, Facts, Kept, LogRequest, Purpose, RecoverFuture,
    Usage,
};
use provost::core::event::Whom;
use provost::core::ids::{Generation, InstanceId, Run, Slot};
use provost::core::limits::{Limit, Limits};
use provost::core::spec::{self, ProcessSpec, Rendered, StopSpec};
use std::collections::{BTreeSet, HashMap};
use std::future::{Future, ready};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// The backend of one daemon.
pub struct Sim {
    nature: Nature,
    facts: Facts,
    sockets: Arc<Sockets>,
    /// Where the daemon keeps states, if there is one.
    ledger: Option<PathBuf>,
}

impl Sim {
    pub fn new(nature: Nature, facts: Facts, ledger: Option<PathBuf>) -> Arc<Sim> {
        let sockets = Arc::new(Sockets::new(Vec::new(), None));
        Arc::new(Sim { nature, facts, sockets, ledger })
    }
}

/// Whether what came of a run is in a ledger.
fn is_kept(ledger: &Path, instance: &InstanceId, run: Run) -> bool {
    let of = serde_json::to_value(instance).unwrap();
    ledger::read(ledger).iter().any(|entry| {
        entry.kind == "outcome" && entry.body["instance"] == of && entry.body["run"] == run.0
    })
}

impl Backend for Sim {
    fn name(&self) -> &'static str {
        "sim"
    }

    fn recover(
        &self,
        known: Vec<Kept>,
        _stored: HashMap<(InstanceId, Run), OwnedFd>,
    ) -> RecoverFuture {
        let known = known.into_iter().map(|kept| ((kept.instance, kept.run), kept.started));
        Box::pin(ready(self.nature.recover(known.collect(), self.facts.clone())))
    }

    fn drained(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(ready(()))
    }

    fn spawn(
        &self,
        instance: &InstanceId,
        run: Run,
        _: Slot,
        _: Generation,
        spec: &Arc<ProcessSpec>,
    ) {
        let argv = spec.exec.command.argv(instance.index);
        let argv = argv.iter().map(|word| word.value().to_owned()).collect();
        self.nature.spawn(instance.clone(), run, argv);
    }

    fn remembers_ends(&self) -> bool {
        true
    }

    fn end_is_kept(&self, instance: &InstanceId, run: Run) {
        if let Some(ledger) = &self.ledger {
            assert!(
                is_kept(ledger, instance, run),
                "how run {run} of {instance} ended is not kept"
            );
        }
        self.nature.end_is_kept(instance, run);
    }

    fn terminate(&self, instance: &InstanceId, run: Run, _: &StopSpec) {
        self.nature.signal(instance, run, Signal::Terminate);
    }

    fn kill(&self, instance: &InstanceId, run: Run) {
        self.nature.signal(instance, run, Signal::Kill);
    }

    fn signal(&self, instance: &InstanceId, run: Run, signal: spec::Signal, _: Whom) {
        if signal == spec::Signal::KILL {
            self.nature.signal(instance, run, Signal::Kill);
        }
    }

    fn limit(&self, _: &InstanceId, _: Run, _: &Arc<ProcessSpec>) {}

    fn unenforced(&self, _: &InstanceId, _: Run, _: &Limits) -> Vec<Limit> {
        Vec::new()
    }

    fn enforceable(&self) -> BTreeSet<Limit> {
        BTreeSet::new()
    }

    fn usage(&self, instance: &InstanceId, run: Run) -> Option<Usage> {
        self.nature.is_running(instance, run).then(Usage::default)
    }

    fn control_group(&self, _: &InstanceId, _: Run) -> Option<String> {
        None
    }

    fn pidfd(&self, _: &InstanceId, _: Run) -> Option<OwnedFd> {
        None
    }

    fn run_of(&self, _: u32) -> Option<(InstanceId, Run)> {
        None
    }

    fn run_in_context(
        &self,
        _: &InstanceId,
        _: &Arc<ProcessSpec>,
        _: Beside,
        argv: Vec<Rendered>,
        _: Duration,
    ) -> CommandFuture {
        let argv: Vec<&str> = argv.iter().map(Rendered::value).collect();
        let end = match script::command(&argv) {
            Some(0) => CommandEnd::Success,
            Some(code) => CommandEnd::Failure(format!("exited with code {code}")),
            None => CommandEnd::Failure(format!("executing {}: {}", argv[0], script::MISSING)),
        };
        Box::pin(ready(end))
    }

    fn command_output(&self, _: &InstanceId, _: Purpose) -> Option<Arc<str>> {
        None
    }

    fn open_log(
        &self,
        _: &InstanceId,
        _: &Arc<ProcessSpec>,
        _: LogRequest,
    ) -> Option<std::io::Result<OwnedFd>> {
        None
    }

    fn sockets(&self) -> &Arc<Sockets> {
        &self.sockets
    }

    fn forget(&self, _: &InstanceId) {}
}

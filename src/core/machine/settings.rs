//! New settings without a new run: what `reload:` of a process says, and files that it has watched.
//!
//! A run that is to take new settings does so as soon as it is ready: before, it takes them as it
//! starts, and a signal that it does not know yet would end it. Who asks while a command is out gets
//! it carried out once more after that, since what it was to take may have changed since it began.

use super::Machine;
use crate::event::{Effect, Refusal, RunEnd, StopReason, What, Whom};
use crate::ids::{InstanceId, ReloadId, Request, Run};
use crate::job::{JobKind, JobResult};
use crate::process::{Instance, Phase, Timer};
use crate::spec::{ReloadSpec, WatchAction};
use crate::time::Mono;
use std::sync::Arc;
use std::time::Duration;

/// A command that has not been answered so long after its own deadline counts as failed: whoever
/// runs it has lost it.
const GRACE: Duration = Duration::from_secs(5);

/// Why it has not taken them, where a newer file has no `reload`.
const GONE: &str = "the file does not say any more how";

const RELOAD: &[JobKind] = &[JobKind::Reload];

impl Machine {
    pub(super) fn reload_requested(
        &mut self,
        request: Request,
        instances: &[InstanceId],
        now: Mono,
        out: &mut Vec<Effect>,
    ) {
        if let Some(refusal) = instances.iter().find_map(|id| self.can_reload(id).err()) {
            out.push(Effect::Answer { request, answer: Err(refusal) });
            return;
        }
        self.give_jobs(request, instances, JobKind::Reload, now, out);
        for id in instances {
            self.settings_are_due(id);
        }
    }

    fn can_reload(&self, id: &InstanceId) -> Result<(), Refusal> {
        if self.ending {
            return Err(Refusal::ShuttingDown);
        }
        let inst = self.existing(id)?;
        if inst.spec.reload.is_none() {
            return Err(Refusal::NoReload(id.clone()));
        }
        match &inst.phase {
            // The one takes nothing in any more, and the other not yet.
            _ if inst.stand_in().is_some() => Err(Refusal::NotReady(id.clone())),
            Phase::Up(live) if live.exit.is_none() && !inst.is_going_down() => match live.ready {
                Some(_) => Ok(()),
                None => Err(Refusal::NotReady(id.clone())),
            },
            _ => Err(Refusal::NotRunning(id.clone())),
        }
    }

    fn settings_are_due(&mut self, id: &InstanceId) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        if let Phase::Up(live) = &mut inst.phase {
            live.taking.due = true;
            self.touch(id);
        }
    }

    /// Has a run that is to go on take new settings, if it is to and nothing is out.
    pub(super) fn take_settings(&mut self, id: &InstanceId, now: Mono, out: &mut Vec<Effect>) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        let Phase::Up(live) = &mut inst.phase else { return };
        if !live.taking.due || live.taking.out.is_some() || live.ready.is_none() {
            return;
        }
        let spec = inst.spec.clone();
        live.taking.due = false;
        let run = live.run;
        match &spec.reload {
            Some(ReloadSpec::Signal(signal)) => {
                let (instance, signal) = (id.clone(), *signal);
                self.note(id, What::Reloading { signal: Some(signal) }, now, out);
                out.push(Effect::Signal { instance, run, signal, whom: Whom::Main });
                self.end_job(id, RELOAD, JobResult::Done, None, out);
            }
            Some(ReloadSpec::Command { command, timeout }) => {
                self.last_reload = ReloadId(self.last_reload.0 + 1);
                let reload = self.last_reload;
                live.taking.out = Some(reload);
                let (main, timeout) = (live.pid.unwrap_or(0), *timeout);
                let deadline = now.after(timeout).after(GRACE);
                self.timers.arm((id.clone(), Timer::ReloadDeadline), deadline);
                let (instance, command) = (id.clone(), command.clone());
                self.note(id, What::Reloading { signal: None }, now, out);
                out.push(Effect::Reload { instance, run, reload, main, command, timeout, spec });
            }
            // The file had it when it was asked for.
            None => self.end_job(id, RELOAD, JobResult::Canceled, Some(GONE.to_owned()), out),
        }
    }

    pub(super) fn reloaded(
        &mut self,
        id: &InstanceId,
        run: Run,
        reload: ReloadId,
        outcome: Result<(), String>,
        now: Mono,
        out: &mut Vec<Effect>,
    ) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        let Phase::Up(live) = &mut inst.phase else { return };
        if live.run != run || live.taking.out != Some(reload) {
            return;
        }
        live.taking.out = None;
        // Whoever asked meanwhile had it from a file that is no more, if that says nothing of it now.
        let is_lost = inst.spec.reload.is_none() && std::mem::take(&mut live.taking.due);
        let again = live.taking.due;
        self.timers.disarm(&(id.clone(), Timer::ReloadDeadline));
        let (result, detail) = match outcome {
            Ok(()) => (JobResult::Done, None),
            Err(detail) => (JobResult::Failed, Some(detail)),
        };
        let what = match &detail {
            None => What::Reloaded,
            Some(detail) => What::ReloadFailed { detail: detail.clone() },
        };
        self.note(id, what, now, out);
        if is_lost {
            self.end_job(id, RELOAD, JobResult::Canceled, Some(GONE.to_owned()), out);
        } else if !again {
            self.end_job(id, RELOAD, result, detail, out);
        }
        self.touch(id);
    }

    pub(super) fn reload_unanswered(&mut self, id: &InstanceId, now: Mono, out: &mut Vec<Effect>) {
        let Some(live) = self.instance(id).and_then(Instance::live) else { return };
        if let (run, Some(reload)) = (live.run, live.taking.out) {
            self.reloaded(id, run, reload, Err("gave no answer".to_owned()), now, out);
        }
    }

    /// Ends the job of a run that is over before it has taken its settings.
    pub(super) fn check_reload(&mut self, id: &InstanceId, out: &mut Vec<Effect>) {
        let Some(inst) = self.instances.get(id) else { return };
        let end = match &inst.phase {
            Phase::Up(_) => return,
            Phase::Stopping(_, ending) => Some(&ending.end),
            _ => inst.last_end.as_ref(),
        };
        let result = match end {
            Some(RunEnd::Asked(_)) | None => JobResult::Canceled,
            Some(_) => JobResult::Failed,
        };
        let detail = end.map(|end| format!("it {end} before it had taken its settings"));
        self.end_job(id, RELOAD, result, detail, out);
    }

    /// Files that an instance has watched have changed. What is not wanted up stays down; what is on
    /// its way down or waits to start will see them as it starts; what failed has a reason to be tried
    /// again at once.
    pub(super) fn watched_changed(
        &mut self,
        id: &InstanceId,
        path: &Arc<str>,
        now: Mono,
        out: &mut Vec<Effect>,
    ) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        let Some(watch) = &inst.file_spec().watch else { return };
        let action = watch.action;
        if !self.instances.get(id).is_some_and(|inst| self.is_wished(inst)) {
            return;
        }
        let Some(inst) = self.instances.get_mut(id) else { return };
        match action {
            WatchAction::Restart => {
                inst.former_is_outdated(&StopReason::WatchedChanged(path.clone()));
            }
            // In case that somebody goes back to it.
            WatchAction::Reload => {
                if let Some(former) = &mut inst.former {
                    former.live.taking.due = true;
                }
            }
        }
        let going_down = inst.is_going_down();
        let has_to_wait = inst.lacks_room() || inst.is_ready() && self.is_barred(&id.process);
        let Some(inst) = self.instances.get(id) else { return };
        match &inst.phase {
            Phase::Up(_) if going_down => return,
            Phase::Up(_) if action == WatchAction::Reload => self.settings_are_due(id),
            Phase::Up(_) if has_to_wait => self.renew(id, path, true, now, out),
            // Why it is stopped tells it.
            Phase::Up(_) => return self.renew(id, path, false, now, out),
            Phase::Stopping(_, ending) if !matches!(ending.end, RunEnd::Asked(_)) => {
                self.renew(id, path, false, now, out);
            }
            Phase::Backoff { .. } | Phase::Failed => self.reset(id, now),
            Phase::Completed if action == WatchAction::Restart => self.reset(id, now),
            Phase::Stopping(..) | Phase::Completed | Phase::Waiting(_) | Phase::Down => return,
        }
        self.note(id, What::WatchedChanged { path: path.clone() }, now, out);
    }

    /// A new run, whatever becomes of the one there is; `has_to_wait`: not before it has a turn.
    fn renew(
        &mut self,
        id: &InstanceId,
        path: &Arc<str>,
        has_to_wait: bool,
        now: Mono,
        out: &mut Vec<Effect>,
    ) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        let why = StopReason::WatchedChanged(path.clone());
        inst.rest = None;
        inst.refused = None;
        match &inst.phase {
            Phase::Up(_) if has_to_wait => {
                inst.anew = true;
                self.enqueue(id);
            }
            Phase::Up(_) => self.replace(id, why, now, out),
            _ => inst.restart_due = Some(why),
        }
        self.reset(id, now);
    }
}

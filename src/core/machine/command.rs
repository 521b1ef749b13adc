//! What somebody asked for, and its jobs.
//!
//! A request is answered in the turn that takes it in. It is done for all it names or for none: the
//! first name that cannot be had refuses the whole.

use super::Machine;
use crate::event::{Effect, Refusal, RunEnd, StopReason, What, Whom};
use crate::ids::{InstanceId, JobId, ProcessId, Request};
use crate::job::{Job, JobKind, JobResult};
use crate::process::{Instance, Phase};
use crate::reload::ReloadResult;
use crate::spec::Signal;
use crate::time::Mono;
use std::collections::{BTreeMap, BTreeSet};

impl Machine {
    pub(super) fn existing(&self, id: &InstanceId) -> Result<&Instance, Refusal> {
        self.instance(id)
            .filter(|inst| !inst.removed)
            .ok_or_else(|| Refusal::NoSuchProcess(id.to_string()))
    }

    /// Whether instances may be started.
    fn startable(&self, instances: &[InstanceId], once: bool) -> Result<(), Refusal> {
        if self.ending {
            return Err(Refusal::ShuttingDown);
        }
        for id in instances {
            let inst = self.existing(id)?;
            if !self.config.settings.enabled {
                return Err(Refusal::ManagementDisabled);
            }
            if !(inst.file_spec().enabled || once || inst.once) {
                return Err(Refusal::Disabled(id.clone()));
            }
        }
        Ok(())
    }

    pub(super) fn start_requested(
        &mut self,
        request: Request,
        instances: &[InstanceId],
        once: bool,
        now: Mono,
        out: &mut Vec<Effect>,
    ) {
        if let Err(refusal) = self.startable(instances, once) {
            out.push(Effect::Answer { request, answer: Err(refusal) });
            return;
        }
        self.give_jobs(request, instances, JobKind::Start, now, out);
        for id in instances {
            self.want(id, once, now);
        }
    }

    pub(super) fn restart_requested(
        &mut self,
        request: Request,
        instances: &[InstanceId],
        now: Mono,
        out: &mut Vec<Effect>,
    ) {
        if let Err(refusal) = self.startable(instances, false) {
            out.push(Effect::Answer { request, answer: Err(refusal) });
            return;
        }
        self.give_jobs(request, instances, JobKind::Restart, now, out);
        let mut named: BTreeMap<&ProcessId, BTreeSet<u32>> = BTreeMap::new();
        for id in instances {
            named.entry(&id.process).or_default().insert(id.index);
        }
        // These begin with this request; whoever needs them goes on until they are there.
        let begin = instances
            .iter()
            .filter(|id| self.instance(id).is_some_and(|inst| !matches!(inst.phase, Phase::Up(_))));
        let begin: BTreeSet<ProcessId> = begin.map(|id| id.process.clone()).collect();
        let must_wait = |process: &ProcessId| {
            let spec = self.config.processes.get(process);
            let mut needs = spec.into_iter().flat_map(|spec| &spec.depends_on);
            needs.any(|edge| begin.contains(&edge.on)) || self.is_barred(process)
        };
        let in_turns: BTreeMap<ProcessId, bool> = named
            .iter()
            .map(|(process, named)| {
                (ProcessId::clone(process), named.len() > 1 || must_wait(process))
            })
            .collect();
        for id in instances {
            self.want_anew(id, in_turns[&id.process], now, out);
            self.want(id, false, now);
        }
    }

    /// A new run instead of the one that is there: at once, or where several of a process are to have
    /// one, in turns. One that could not begin yet is waited for as a turn is.
    fn want_anew(&mut self, id: &InstanceId, in_turns: bool, now: Mono, out: &mut Vec<Effect>) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        inst.former_is_outdated(&StopReason::Restart);
        if !matches!(inst.phase, Phase::Up(_)) {
            return;
        }
        inst.refused = None;
        if in_turns || inst.lacks_room() {
            if inst.restart_due == Some(StopReason::Restart) && !inst.anew {
                // It has its turn, or needs none.
                return;
            }
            inst.anew = true;
            self.enqueue(id);
            return;
        }
        inst.anew = false;
        self.replace(id, StopReason::Restart, now, out);
    }

    /// Another run takes the place of the one there is: beside it or after it.
    pub(super) fn replace(
        &mut self,
        id: &InstanceId,
        why: StopReason,
        now: Mono,
        out: &mut Vec<Effect>,
    ) {
        if self.begin_overlap(id, &why, now, out) {
            return;
        }
        let Some(inst) = self.instances.get_mut(id) else { return };
        // Those that take turns wait for it.
        if inst.is_ready() {
            inst.taken_down = Some(inst.restarts);
        }
        inst.restart_due = Some(why);
        // Who follows it does so when its former run goes.
        if inst.stand_in().is_none() {
            self.restart_dependents(&id.process);
        }
    }

    fn want(&mut self, id: &InstanceId, once: bool, now: Mono) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        inst.wanted = true;
        inst.rest = None;
        inst.once |= once && !inst.file_spec().enabled;
        // What is ending by itself will be no answer to this; a new run is, and at once.
        if matches!(&inst.phase, Phase::Stopping(_, e) if !matches!(e.end, RunEnd::Asked(_))) {
            inst.restart_due = Some(StopReason::Restart);
        }
        // It was going down when its spec changed, so that no reload sees to it; or what was due for a
        // change was due for a restart as well by then, and a stop has taken that back.
        let planned = self.reload.as_ref().is_some_and(|reload| reload.restarts(id));
        let is_seen_to = planned && inst.restart_due.is_some();
        if matches!(inst.phase, Phase::Up(_)) && inst.next.is_some() && !is_seen_to {
            self.enqueue(id);
        }
        self.reset(id, now);
        self.intents.insert(id.clone());
    }

    pub(super) fn stop_requested(
        &mut self,
        request: Request,
        instances: &[InstanceId],
        now: Mono,
        out: &mut Vec<Effect>,
    ) {
        if let Some(refusal) = instances.iter().find_map(|id| self.existing(id).err()) {
            out.push(Effect::Answer { request, answer: Err(refusal) });
            return;
        }
        self.give_jobs(request, instances, JobKind::Stop, now, out);
        for id in instances {
            let Some(inst) = self.instances.get_mut(id) else { continue };
            inst.wanted = false;
            inst.once = false;
            if matches!(inst.restart_due, Some(StopReason::Restart | StopReason::WatchedChanged(_)))
            {
                inst.restart_due = None;
            }
            inst.anew = false;
            self.intents.insert(id.clone());
            self.touch(id);
        }
    }

    /// Gives each instance a job, tells the caller, and ends what the new jobs supersede.
    pub(super) fn give_jobs(
        &mut self,
        request: Request,
        instances: &[InstanceId],
        kind: JobKind,
        now: Mono,
        out: &mut Vec<Effect>,
    ) {
        let mut jobs: Vec<JobId> = Vec::with_capacity(instances.len());
        let mut new = Vec::new();
        for id in instances {
            let running = self.instances.get(id).and_then(|inst| inst.job.as_ref());
            if let Some(job) = running.filter(|job| job.kind == kind) {
                jobs.push(job.id);
                continue;
            }
            let superseded = Some(format!("a newer {kind} took its place"));
            self.end_job(
                id,
                &[JobKind::Start, JobKind::Stop, JobKind::Restart, JobKind::Reload],
                JobResult::Canceled,
                superseded,
                out,
            );
            let job = self.new_job();
            jobs.push(job);
            let Some(inst) = self.instances.get_mut(id) else { continue };
            inst.job = Some(Job { id: job, kind, instance: Some(id.clone()), created: now });
            new.push((job, id.clone()));
        }
        out.push(Effect::Answer { request, answer: Ok(jobs) });
        for (job, id) in new {
            out.push(Effect::JobNew { job, kind, instance: Some(id) });
        }
    }

    pub(super) fn signal_requested(
        &mut self,
        request: Request,
        id: &InstanceId,
        signal: Signal,
        whom: Whom,
        out: &mut Vec<Effect>,
    ) {
        let run = self.existing(id).and_then(|inst| match inst.seen() {
            Some((live, _)) if live.started.is_some() && live.exit.is_none() => Ok(live.run),
            _ => Err(Refusal::NotRunning(id.clone())),
        });
        match run {
            Ok(run) => {
                out.push(Effect::Answer { request, answer: Ok(Vec::new()) });
                out.push(Effect::Signal { instance: id.clone(), run, signal, whom });
            }
            Err(refusal) => out.push(Effect::Answer { request, answer: Err(refusal) }),
        }
    }

    pub(super) fn reset_requested(
        &mut self,
        request: Request,
        instances: &[InstanceId],
        now: Mono,
        out: &mut Vec<Effect>,
    ) {
        if let Some(refusal) = instances.iter().find_map(|id| self.existing(id).err()) {
            out.push(Effect::Answer { request, answer: Err(refusal) });
            return;
        }
        out.push(Effect::Answer { request, answer: Ok(Vec::new()) });
        for id in instances {
            let Some(inst) = self.instances.get(id) else { continue };
            // A one-shot that completed has not failed.
            if !matches!(inst.phase, Phase::Completed) {
                self.reset(id, now);
            }
        }
    }

    /// Everything is to end, in order; the supervisor's exit code will be `code`.
    pub(super) fn shut_down(&mut self, code: u8, now: Mono, out: &mut Vec<Effect>) {
        if self.ending {
            return;
        }
        self.ending = true;
        self.exit_code = code;
        self.note_all(None, What::ShuttingDown, now, out);
        self.abandon_reload(ReloadResult::Superseded, now, out);
        let all: Vec<InstanceId> = self.instances.keys().cloned().collect();
        for id in all {
            self.touch(&id);
            self.intents.insert(id);
        }
    }
}

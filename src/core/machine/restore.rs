//! Going on where a supervisor that was killed has been.
//!
//! The machine is filled with what was kept, and with the configuration that was active, which is
//! what the instances say of it. Then the first configuration that is read is a change like any
//! other: what is as it was is left alone. Until then nothing is started.

use super::overlap::Until;
use super::{Machine, instances_of};
use crate::event::{Effect, What};
use crate::graph::find_cycle;
use crate::ids::{InstanceId, ProcessId};
use crate::process::{Phase, Timer};
use crate::snapshot::{FormerSnapshot, InstanceSnapshot, PhaseSnapshot, Restored};
use crate::spec::{Check, Config, Dependency, ProcessSpec};
use crate::time::Mono;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl Machine {
    /// What has to be kept of an instance; None when there is no such instance (any more).
    #[must_use]
    pub fn snapshot(&self, id: &InstanceId) -> Option<InstanceSnapshot> {
        let mut snapshot = self.instance(id).map(InstanceSnapshot::of)?;
        // An end of everything is a stop, and an exception holds until the next one.
        snapshot.once &= !self.ending;
        Some(snapshot)
    }

    /// Takes the set of instances whose snapshot may have changed since the last call (those that
    /// are gone included).
    pub fn take_unsaved(&mut self) -> BTreeSet<InstanceId> {
        std::mem::take(&mut self.unsaved)
    }

    /// Goes on with what was kept. To be called once, before anything else.
    pub fn restore(&mut self, restored: Restored, now: Mono, out: &mut Vec<Effect>) {
        let Restored { generation, settings, mut instances, there, stopped } = restored;
        self.generation = generation;
        self.stopped = stopped;
        // What is known of an instance tells it, and from here on what operators say.
        self.stopped.instances.retain(|id| !instances.contains_key(id));
        if instances.is_empty() {
            return;
        }
        self.restored = true;
        self.holds_back = true;
        let (mut config, mut gone) = known_by(&instances);
        if !is_whole(&config) {
            // Some were written and some were not. The next configuration has the edges; nobody is
            // held down by them before.
            let left = instances.values_mut().filter(|snapshot| !snapshot.removed);
            left.for_each(InstanceSnapshot::forget_edges);
            (config, gone) = known_by(&instances);
        }
        self.config = Arc::new(Config { settings, ..config });
        self.gone = gone;
        let mut lost = Vec::new();
        let mut kept = 0;
        for (id, snapshot) in instances {
            let run = snapshot.run().map(|run| (run.run, run.started.is_some()));
            let since = snapshot.since;
            let former = snapshot.former.clone();
            let (inst, phase) = snapshot.revive(now);
            self.last_run = self.last_run.max(inst.last_run);
            let waited = inst.anew || inst.next.is_some();
            self.instances.insert(id.clone(), Box::new(inst));
            if waited {
                self.enqueue(&id);
            }
            self.intents.insert(id.clone());
            if let Some((run, started)) = run {
                self.last_run = self.last_run.max(run);
                let is_there = there.contains(&(id.clone(), run));
                // Else it was never executed, and it is as if nobody had asked for it.
                if is_there || started {
                    self.revive_run(&id, phase, now, out);
                }
                kept += usize::from(is_there && started);
                if !is_there && started {
                    lost.push((id.clone(), run));
                }
            } else {
                self.revive_rest(&id, &phase, now);
            }
            if let Some(former) = former {
                self.last_run = self.last_run.max(former.run.run);
                let run = former.run.run;
                let is_there = there.contains(&(id.clone(), run));
                kept += usize::from(is_there);
                if !is_there {
                    lost.push((id.clone(), run));
                }
                self.revive_former(&id, former, is_there, now, out);
            }
            // Not since it was found again.
            if let Some(inst) = self.instances.get_mut(&id) {
                inst.since = since;
            }
            self.touch(&id);
        }
        self.replace_edges(self.all_dependents());
        self.note_all(None, What::TookOver { kept, lost: lost.len() }, now, out);
        // What follows an end depends on who should be up.
        while let Some(id) = self.intents.pop_first() {
            self.refresh_intent(&id);
        }
        for (id, run) in lost {
            // It ended, and all of it, while nobody could see how.
            self.emptied(&id, run, now, out);
        }
        self.settle(now, out);
    }

    /// The first look at the file brought nothing that can be applied: what was known goes on.
    pub(super) fn go_on(&mut self) {
        if !std::mem::take(&mut self.holds_back) {
            return;
        }
        // What waited only for this.
        let ids: Vec<InstanceId> = self.instances.keys().cloned().collect();
        for id in ids {
            self.touch(&id);
        }
    }

    /// A run goes on, or goes on ending, with as much time for what it has to do as at its start:
    /// nobody looked meanwhile.
    fn revive_run(
        &mut self,
        id: &InstanceId,
        phase: PhaseSnapshot,
        now: Mono,
        out: &mut Vec<Effect>,
    ) {
        let Some(inst) = self.instances.get(id) else { return };
        let spec = inst.spec.clone();
        let ending = phase.ending(inst);
        let (PhaseSnapshot::Up(run) | PhaseSnapshot::Stopping { run, .. }) = &phase else { return };
        let live = run.clone().revive();
        let Some(ending) = ending else {
            if live.ready.is_none() {
                self.timers.arm((id.clone(), Timer::Start), now.after(spec.start_timeout));
            }
            if let Some(check) = spec.health.as_ref().filter(|_| live.started.is_some()) {
                // Whoever speaks by itself gets a whole interval: nobody listened meanwhile.
                let first =
                    if check.check == Check::Notify { now.after(check.interval) } else { now };
                self.timers.arm((id.clone(), Timer::Probe), first);
            }
            let pid = live.pid;
            self.set_phase(id, Phase::Up(live), now);
            if let Some(pid) = pid {
                self.note(id, What::Kept { pid }, now, out);
            }
            return;
        };
        let killed = matches!(phase, PhaseSnapshot::Stopping { killed: true, .. });
        let patience = if killed { std::time::Duration::ZERO } else { ending.patience };
        let run = live.run;
        self.set_phase(id, Phase::Stopping(live, Box::new(ending)), now);
        self.timers.arm((id.clone(), Timer::Stop), now.after(patience));
        if !killed {
            // Whether it was asked already is not known.
            let stop = spec.stop.clone();
            out.push(Effect::Terminate { instance: id.clone(), run, stop });
        }
    }

    /// A former run goes on, or goes on ending.
    fn revive_former(
        &mut self,
        id: &InstanceId,
        former: FormerSnapshot,
        is_there: bool,
        now: Mono,
        out: &mut Vec<Effect>,
    ) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        let former = former.revive();
        let (run, stop, until) = (former.live.run, former.spec.stop.clone(), former.until);
        inst.former = Some(Box::new(former));
        self.live += 1;
        let Until::Over { killed } = until else { return };
        let patience = if killed { std::time::Duration::ZERO } else { stop.timeout };
        self.timers.arm((id.clone(), Timer::FormerStop), now.after(patience));
        if !killed && is_there {
            out.push(Effect::Terminate { instance: id.clone(), run, stop });
        }
    }

    fn revive_rest(&mut self, id: &InstanceId, phase: &PhaseSnapshot, now: Mono) {
        match phase {
            PhaseSnapshot::Backoff(until) => {
                self.timers.arm((id.clone(), Timer::Backoff), *until);
                self.set_phase(id, Phase::Backoff { until: *until }, now);
            }
            PhaseSnapshot::Completed => self.set_phase(id, Phase::Completed, now),
            PhaseSnapshot::Failed => self.set_phase(id, Phase::Failed, now),
            PhaseSnapshot::Down | PhaseSnapshot::Up(_) | PhaseSnapshot::Stopping { .. } => {}
        }
    }

    /// Whether an operator stopped an instance of which nothing else is known. That is so once: when it
    /// is gone, all that was remembered of it is.
    pub(super) fn was_stopped(&mut self, id: &InstanceId, spec: &ProcessSpec) -> bool {
        use crate::spec::RestartCondition::UnlessStopped;
        self.stopped.instances.remove(id)
            && (!self.stopped.before_reboot || spec.restart.condition == UnlessStopped)
    }
}

/// The configuration that was active, and what it had removed, as far as the instances tell.
fn known_by(
    instances: &BTreeMap<InstanceId, InstanceSnapshot>,
) -> (Config, BTreeMap<ProcessId, Arc<ProcessSpec>>) {
    let mut config = Config::default();
    let mut gone = BTreeMap::new();
    for id in instances.keys() {
        // Not all instances may have been written when it ended: the newest is right.
        let all = instances.range(instances_of(&id.process)).map(|(_, inst)| inst);
        let Some(newest) = all.max_by_key(|inst| inst.file_generation()) else { continue };
        let table = if newest.removed { &mut gone } else { &mut config.processes };
        table.insert(id.process.clone(), newest.file_spec().clone());
    }
    (config, gone)
}

/// Whether every dependency is there and there is no cycle.
fn is_whole(config: &Config) -> bool {
    let known = |edge: &Dependency| config.processes.contains_key(&edge.on);
    let names = |spec: &ProcessSpec| spec.depends_on.iter().map(|edge| edge.on.clone()).collect();
    let edges = config.processes.iter().map(|(id, spec)| (id.clone(), names(spec))).collect();
    config.processes.values().flat_map(|spec| &spec.depends_on).all(known)
        && find_cycle(&edges).is_none()
}

//! The life of a run: spawned, ready, healthy, ending, over.

use super::Machine;
use super::gate::UP;
use crate::event::{Effect, ExitStatus, FailReason, RunEnd, SpawnError, StopReason, Told, What};
use crate::health::{Health, Turned};
use crate::ids::{InstanceId, ProbeId, ProcessId, Run};
use crate::job::JobResult;
use crate::process::{Ending, Instance, Live, Phase, Taking, Timer};
use crate::restart::{self, Next};
use crate::spec::{Check, HealthCheck, OnFailure, ProcessSpec, Readiness, Signal};
use crate::time::Mono;
use crate::view::HealthState;
use std::sync::Arc;
use std::time::Duration;

/// A check that has not been answered so long after its own deadline counts as failed: whoever asks
/// has lost it.
const PROBE_GRACE: Duration = Duration::from_secs(2);
/// A kill is repeated after so long; the kernel may not have been able to carry it out.
pub(super) const KILL_AGAIN: Duration = Duration::from_secs(10);

impl Machine {
    /// Asks for a run. There is none.
    pub(super) fn spawn(&mut self, id: &InstanceId, now: Mono, out: &mut Vec<Effect>) {
        self.last_run = Run(self.last_run.0 + 1);
        let run = self.last_run;
        let Some(inst) = self.instances.get_mut(id) else { return };
        inst.last_run = run;
        let (spec, generation, attempt) = (inst.spec.clone(), inst.generation, inst.attempt);
        let slot = inst.slot;
        let live = Live {
            run,
            generation,
            pid: None,
            asked: now,
            started: None,
            ready: None,
            stable_since: None,
            health: Health::new(spec.health.is_some()),
            told_ready: false,
            status: None,
            probe: None,
            taking: Taking::default(),
            exit: None,
        };
        self.set_phase(id, Phase::Up(live), now);
        self.timers.arm((id.clone(), Timer::Start), now.after(spec.start_timeout));
        self.note(id, What::Starting { attempt }, now, out);
        out.push(Effect::Spawn { instance: id.clone(), run, slot, generation, spec });
    }

    pub(super) fn spawned(
        &mut self,
        id: &InstanceId,
        run: Run,
        pid: u32,
        now: Mono,
        out: &mut Vec<Effect>,
    ) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        let readiness = inst.spec.readiness;
        let Some(live) = inst.current(run).filter(|live| live.started.is_none()) else { return };
        live.pid = Some(pid);
        live.started = Some(now);
        let has_shown = live.has_shown(readiness);
        self.note(id, What::Started { pid }, now, out);
        self.ripple(id);
        // Neither of these does anything to a run that is to end.
        if has_shown {
            self.make_ready(id, now, out);
        }
        self.begin_checks(id, now, out);
    }

    pub(super) fn spawn_failed(
        &mut self,
        id: &InstanceId,
        run: Run,
        error: SpawnError,
        now: Mono,
        out: &mut Vec<Effect>,
    ) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        // Once it was executed it cannot fail to be executed.
        if inst.current(run).is_none_or(|live| live.started.is_some()) {
            return;
        }
        let expected = !matches!(inst.phase, Phase::Up(_));
        let error = Box::new(error);
        self.note(id, What::SpawnFailed { error: error.clone(), expected }, now, out);
        self.run_over(id, RunEnd::NotSpawned(error), now, out);
    }

    pub(super) fn exited(
        &mut self,
        id: &InstanceId,
        run: Run,
        status: ExitStatus,
        now: Mono,
        out: &mut Vec<Effect>,
    ) {
        if self.former_exited(id, run, status, now, out)
            || !self.main_ended(id, run, status, now, out)
        {
            return;
        }
        let Some(inst) = self.instances.get(id) else { return };
        // Whatever it left behind is asked to end as well; mostly that is nothing.
        if let Phase::Stopping(_, ending) = &inst.phase
            && !ending.killed
        {
            let stop = inst.spec.stop.clone();
            out.push(Effect::Terminate { instance: id.clone(), run, stop });
        }
    }

    /// The main process of a run ended. False: that is known, or of another run.
    fn main_ended(
        &mut self,
        id: &InstanceId,
        run: Run,
        status: ExitStatus,
        now: Mono,
        out: &mut Vec<Effect>,
    ) -> bool {
        let Some(inst) = self.instances.get_mut(id) else { return false };
        let Some(live) = inst.current(run).filter(|live| live.exit.is_none()) else { return false };
        live.exit = Some(status);
        let (generation, pid) = (live.generation, live.pid.unwrap_or(0));
        inst.last_exit = Some(status);
        let going_on = matches!(inst.phase, Phase::Up(_));
        self.note(id, What::Exited { status, expected: !going_on }, now, out);
        out.push(Effect::RunExited { instance: id.clone(), run, generation, pid, status });
        if going_on {
            self.end_of_life(id, RunEnd::Exited(status), None, now);
        }
        true
    }

    pub(super) fn emptied(&mut self, id: &InstanceId, run: Run, now: Mono, out: &mut Vec<Effect>) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        if inst.current(run).is_none() {
            self.former_emptied(id, run, now, out);
            return;
        }
        // The main process is among what is not there: how it ended may have gone past us.
        self.main_ended(id, run, ExitStatus::Unknown, now, out);
        self.run_over(id, RunEnd::Exited(ExitStatus::Unknown), now, out);
    }

    /// Turns a run that was to go on into one that is ending, and has so much time for it.
    fn end_of_life(
        &mut self,
        id: &InstanceId,
        end: RunEnd,
        give_up: Option<FailReason>,
        now: Mono,
    ) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        if let Phase::Up(live) = &mut inst.phase {
            // How long it was stable is settled now, however long the rest of it lingers. A run
            // that is ended by its check has no claim, however well it began.
            let blamed = matches!(end, RunEnd::Unhealthy(_) | RunEnd::StartTimedOut);
            let enough = inst.spec.restart.min_uptime;
            if !blamed && live.stable_since.is_some_and(|since| now.since(since) >= enough) {
                inst.attempt = 0;
            }
            let live = live.clone();
            // Now what was refused is all there is to try.
            inst.refused = None;
            let patience = inst.spec.stop.timeout;
            let ending = Ending { end, give_up, patience, killed: false };
            self.set_phase(id, Phase::Stopping(live, Box::new(ending)), now);
            self.timers.arm((id.clone(), Timer::Stop), now.after(patience));
        }
    }

    /// Asks a run to end.
    pub(super) fn begin_stop(
        &mut self,
        id: &InstanceId,
        end: RunEnd,
        give_up: Option<FailReason>,
        why: StopReason,
        now: Mono,
        out: &mut Vec<Effect>,
    ) {
        let Some(inst) = self.instances.get(id) else { return };
        let Phase::Up(live) = &inst.phase else { return };
        let (run, stop) = (live.run, inst.spec.stop.clone());
        self.end_of_life(id, end, give_up, now);
        self.note(id, What::Stopping { why }, now, out);
        out.push(Effect::Terminate { instance: id.clone(), run, stop });
    }

    /// Nothing is left of a run: decides what follows.
    ///
    /// `seen` is how it ended, unless it was being ended for another reason.
    fn run_over(&mut self, id: &InstanceId, seen: RunEnd, now: Mono, out: &mut Vec<Effect>) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        let run = inst.live().map(|live| live.run);
        let (end, give_up) = match &inst.phase {
            Phase::Stopping(_, ending) => (ending.end.clone(), ending.give_up.clone()),
            _ => (seen, None),
        };
        let follow_up = inst.follow_up(&end, give_up.as_ref());
        if follow_up.is_some() && inst.stand_in().is_some() {
            return self.fall_back(id, &end, now, out);
        }
        inst.last_end = Some(end.clone());
        inst.restart_due = None;
        inst.anew = false;
        if let Some((spec, generation)) = inst.next.take() {
            inst.spec = spec;
            inst.generation = generation;
            inst.attempt = 0;
        }
        let rest = inst.rest.take();
        let asked = matches!(end, RunEnd::Asked(_));
        if asked {
            self.note(id, What::Stopped, now, out);
        }
        match follow_up {
            None => match rest {
                Some(rest) => self.put_to_rest(id, rest, now),
                None => self.set_phase(id, Phase::Down, now),
            },
            Some(next) => self.follow(id, run, next, &end, now, out),
        }
        let serves = self.instances.get(id).is_some_and(|inst| inst.stand_in().is_some());
        if !asked && !serves {
            self.restart_dependents(&id.process.clone());
        }
    }

    /// Carries out what the policy says follows a run.
    fn follow(
        &mut self,
        id: &InstanceId,
        run: Option<Run>,
        next: Next,
        end: &RunEnd,
        now: Mono,
        out: &mut Vec<Effect>,
    ) {
        match next {
            Next::Restart => {
                let chance = self.chance.fraction();
                let Some(inst) = self.instances.get_mut(id) else { return };
                let delay = restart::delay(&inst.spec.restart, inst.attempt, chance);
                inst.attempt = inst.attempt.saturating_add(1);
                inst.restarts += 1;
                let attempt = inst.attempt;
                let until = now.after(delay);
                self.timers.arm((id.clone(), Timer::Backoff), until);
                self.set_phase(id, Phase::Backoff { until }, now);
                self.note(id, What::BackingOff { delay, attempt }, now, out);
                let detail =
                    format!("it {end}; it will be started again in {}", crate::text::about(delay));
                self.end_job(id, UP, JobResult::Failed, Some(detail), out);
            }
            Next::Complete => {
                self.set_phase(id, Phase::Completed, now);
                self.note_of(id, run, What::Completed, now, out);
                self.end_job(id, UP, JobResult::Done, None, out);
                self.end_if_essential(id, now, out);
            }
            Next::Fail(why) => {
                self.set_phase(id, Phase::Failed, now);
                self.note_of(id, run, What::GaveUp { why: why.clone() }, now, out);
                self.end_job(id, UP, JobResult::Failed, Some(why.to_string()), out);
                self.end_if_essential(id, now, out);
            }
        }
    }

    fn end_if_essential(&mut self, id: &InstanceId, now: Mono, out: &mut Vec<Effect>) {
        let Some(inst) = self.instances.get(id) else { return };
        if inst.spec.essential {
            let code = match (&inst.last_end, inst.last_exit) {
                (Some(RunEnd::NotSpawned(_)), _) | (_, None | Some(ExitStatus::Unknown)) => 1,
                (_, Some(ExitStatus::Code(code))) => code,
                (_, Some(ExitStatus::OutOfMemory)) => 128 + Signal::KILL.0,
                // As a shell tells it.
                (_, Some(ExitStatus::Signal { signal, .. })) => 128u8.saturating_add(signal.0),
            };
            self.shut_down(code, now, out);
        }
    }

    /// Gives dependents with `restart: true` a new run, since what they depend on gets one.
    pub(super) fn restart_dependents(&mut self, process: &ProcessId) {
        for other in self.dependents.all_on(process, |edge| edge.restart) {
            for id in self.ids_of(&other) {
                let Some(inst) = self.instances.get_mut(&id) else { continue };
                let why = StopReason::DependencyRestarted(process.clone());
                let serves = inst.stand_in().is_some();
                inst.former_is_outdated(&why);
                // Whatever comes of a new run, nobody goes back to the former one.
                let has_run =
                    matches!(inst.phase, Phase::Up(_)) || (serves && inst.live().is_some());
                // A turn that it had since it was not ready may go back, and this does not.
                if has_run && (inst.restart_due.is_none() || inst.may_give_back_turn()) {
                    inst.restart_due = Some(why);
                } else if !serves {
                    continue;
                }
                self.touch(&id);
                self.ripple(&id);
            }
        }
    }

    pub(super) fn backoff_over(&mut self, id: &InstanceId, now: Mono) {
        self.set_phase(id, Phase::Down, now);
    }

    pub(super) fn start_timed_out(&mut self, id: &InstanceId, now: Mono, out: &mut Vec<Effect>) {
        let Some(inst) = self.instances.get(id) else { return };
        let Phase::Up(live) = &inst.phase else { return };
        let limit = inst.spec.start_timeout;
        let last_check = live.health.detail().map(ToString::to_string);
        let what = What::StartTimedOut { limit, last_check };
        let detail = Some(what.to_string());
        let going_down = inst.is_going_down();
        self.note(id, what, now, out);
        if going_down {
            // It ends anyway, in its turn, and its job is about another run.
            return;
        }
        self.end_job(id, UP, JobResult::Timeout, detail, out);
        self.begin_stop(id, RunEnd::StartTimedOut, None, StopReason::StartTimedOut, now, out);
    }

    pub(super) fn stop_timed_out(&mut self, id: &InstanceId, now: Mono, out: &mut Vec<Effect>) {
        let Some(inst) = self.instances.get(id) else { return };
        let Phase::Stopping(_, ending) = &inst.phase else { return };
        self.note(id, What::Killing { limit: ending.patience }, now, out);
        self.kill(id, now, out);
    }

    fn kill(&mut self, id: &InstanceId, now: Mono, out: &mut Vec<Effect>) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        if let Phase::Stopping(live, ending) = &mut inst.phase {
            ending.killed = true;
            let run = live.run;
            self.timers.disarm(&(id.clone(), Timer::Stop));
            self.timers.arm((id.clone(), Timer::Kill), now.after(KILL_AGAIN));
            self.changed.insert(id.clone());
            out.push(Effect::Kill { instance: id.clone(), run });
        }
    }

    pub(super) fn kill_again(&mut self, id: &InstanceId, now: Mono, out: &mut Vec<Effect>) {
        self.note(id, What::StillThere, now, out);
        self.kill(id, now, out);
    }

    /// Kills all that is still there, without waiting for anything.
    pub(super) fn kill_all(&mut self, now: Mono, out: &mut Vec<Effect>) {
        self.shut_down(0, now, out);
        let live: Vec<InstanceId> = self
            .instances
            .iter()
            .filter(|(_, inst)| inst.live().is_some() || inst.former.is_some())
            .map(|(id, _)| id.clone())
            .collect();
        for id in live {
            let why = StopReason::Shutdown;
            self.begin_stop(&id, RunEnd::Asked(why.clone()), None, why, now, out);
            self.kill(&id, now, out);
            self.retire(&id, Some(StopReason::Shutdown), now, out);
            self.kill_former(&id, now, out);
        }
    }

    /// It is ready, unless it was or is ending. What waits for that is the caller's to stir.
    fn make_ready(&mut self, id: &InstanceId, now: Mono, out: &mut Vec<Effect>) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        let Phase::Up(live) = &mut inst.phase else { return };
        let (Some(started), None) = (live.started, live.ready) else { return };
        live.ready = Some(now);
        live.restamp(inst.spec.health.is_some(), now);
        inst.since = now;
        if inst.is_ready() && !self.queues.contains_key(&id.process) {
            inst.taken_down = None;
        }
        self.timers.disarm(&(id.clone(), Timer::Start));
        self.note(id, What::Ready { after: now.since(started) }, now, out);
        self.ready_when_due(id);
        if self.instances.get(id).is_some_and(|inst| inst.stand_in().is_some()) {
            self.retire(id, None, now, out);
            self.restart_dependents(&id.process);
        }
        self.touch(id);
    }

    // Health.

    /// Health is looked after from now on: whoever has to be asked is asked, and who speaks by itself
    /// has an interval for its first word.
    pub(super) fn begin_checks(&mut self, id: &InstanceId, now: Mono, out: &mut Vec<Effect>) {
        let Some(inst) = self.instances.get(id) else { return };
        let (Phase::Up(_), Some(check)) = (&inst.phase, &inst.spec.health) else { return };
        match check.check {
            Check::Notify => {
                self.timers.arm((id.clone(), Timer::Probe), now.after(check.interval));
            }
            _ => self.probe(id, now, out),
        }
    }

    /// It is time to ask, or enough time for one who speaks by itself.
    pub(super) fn check_due(&mut self, id: &InstanceId, now: Mono, out: &mut Vec<Effect>) {
        let check = self.instances.get(id).and_then(|inst| inst.spec.health.as_deref());
        match check {
            Some(HealthCheck { check: Check::Notify, interval, .. }) => {
                let silence = format!("no WATCHDOG=1 within {}", crate::text::span(*interval));
                self.judged(id, Err(silence), now, out);
            }
            _ => self.probe(id, now, out),
        }
    }

    /// A run has said something of itself.
    pub(super) fn notified(
        &mut self,
        id: &InstanceId,
        run: Run,
        told: Told,
        now: Mono,
        out: &mut Vec<Effect>,
    ) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        let spec = inst.spec.clone();
        let Some(live) = inst.current(run) else { return };
        let speaks = spec.health.as_ref().filter(|check| check.check == Check::Notify);
        match told {
            Told::Ready if !live.told_ready => {
                live.told_ready = true;
                self.changed.insert(id.clone());
                if spec.readiness == Readiness::Notify {
                    self.make_ready(id, now, out);
                    self.ripple(id);
                }
            }
            Told::Status(text) if live.status.as_ref() != Some(&text) => {
                live.status = Some(text);
                self.changed.insert(id.clone());
            }
            Told::Ready | Told::Status(_) => {}
            Told::Alive | Told::Trouble => {
                let Some(check) = speaks else { return };
                if told == Told::Alive && live.health.is_well() && live.exit.is_none() {
                    // However often it says so, nothing else is to be done about it.
                    let age = live.started.map_or(Duration::ZERO, |started| now.since(started));
                    live.health.take(Ok(()), check, age, now);
                    if live.started.is_some() && matches!(inst.phase, Phase::Up(_)) {
                        self.timers.arm((id.clone(), Timer::Probe), now.after(check.interval));
                    }
                    self.dirty.insert(id.clone());
                    return;
                }
                let outcome = match told {
                    Told::Alive => Ok(()),
                    _ => Err("it says that something is wrong (WATCHDOG=trigger)".to_owned()),
                };
                self.judged(id, outcome, now, out);
            }
        }
    }

    /// Sends a check out, where there is one and the run, which has started, is to go on.
    pub(super) fn probe(&mut self, id: &InstanceId, now: Mono, out: &mut Vec<Effect>) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        let spec = inst.spec.clone();
        let (Phase::Up(live), Some(check)) = (&mut inst.phase, &spec.health) else { return };
        self.last_probe = ProbeId(self.last_probe.0 + 1);
        let (run, probe) = (live.run, self.last_probe);
        live.probe = Some(probe);
        let deadline = now.after(check.timeout).after(PROBE_GRACE);
        self.timers.arm((id.clone(), Timer::ProbeDeadline), deadline);
        let check = Arc::new(HealthCheck::clone(check));
        out.push(Effect::Probe { instance: id.clone(), run, probe, check, spec });
    }

    pub(super) fn probe_unanswered(&mut self, id: &InstanceId, now: Mono, out: &mut Vec<Effect>) {
        let Some(live) = self.instances.get(id).and_then(|inst| inst.live()) else { return };
        if let (run, Some(probe)) = (live.run, live.probe) {
            self.probed(id, run, probe, Err("the check gave no answer".to_owned()), now, out);
        }
    }

    pub(super) fn probed(
        &mut self,
        id: &InstanceId,
        run: Run,
        probe: ProbeId,
        outcome: Result<(), String>,
        now: Mono,
        out: &mut Vec<Effect>,
    ) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        let (Phase::Up(live), Some(_)) = (&mut inst.phase, &inst.spec.health) else { return };
        if live.run != run || live.probe != Some(probe) {
            return;
        }
        live.probe = None;
        self.timers.disarm(&(id.clone(), Timer::ProbeDeadline));
        self.judged(id, outcome, now, out);
    }

    /// Takes in what a check has found, or what a run has said of itself.
    fn judged(
        &mut self,
        id: &InstanceId,
        outcome: Result<(), String>,
        now: Mono,
        out: &mut Vec<Effect>,
    ) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        let spec = inst.spec.clone();
        let (Phase::Up(live), Some(check)) = (&mut inst.phase, &spec.health) else { return };
        let age = live.started.map_or(Duration::ZERO, |started| now.since(started));
        let failed = outcome.is_err();
        let detail = outcome.as_ref().err().cloned().unwrap_or_default();
        let what = detail.clone();
        let turned = live.health.take(outcome, check, age, now);
        let (failures, pause) = (live.health.failures(), live.health.pause(check));
        live.restamp(true, now);
        // Until it is ready, its start timeout decides: a slow start is no illness.
        let unhealthy = live.health.state() == HealthState::Unhealthy;
        let ill = failed && unhealthy && live.ready.is_some();
        // Who speaks before word of its start came has a whole interval from then on.
        if live.started.is_some() {
            self.timers.arm((id.clone(), Timer::Probe), now.after(pause));
        }
        self.touch(id);
        match turned {
            Turned::Nothing => {
                if failures > 0 && !unhealthy {
                    let threshold = check.failure_threshold;
                    self.note(id, What::CheckFailed { detail, failures, threshold }, now, out);
                }
            }
            Turned::Healthy => {
                self.note(id, What::Healthy, now, out);
                if spec.readiness == Readiness::Health {
                    self.make_ready(id, now, out);
                }
                self.ripple(id);
            }
            Turned::Unhealthy => {
                self.note(id, What::Unhealthy { detail }, now, out);
                self.ripple(id);
            }
        }
        // At each failure, since what it leads to may have changed while it was ill.
        if ill {
            self.act_on_illness(id, check.on_failure, what, now, out);
        }
    }

    /// It uses more memory than it may before it gets a new run: it is ended, and the policy decides
    /// what follows, since what does so at once each time must not be started without end.
    pub(super) fn outgrown(
        &mut self,
        id: &InstanceId,
        run: Run,
        used: u64,
        now: Mono,
        out: &mut Vec<Effect>,
    ) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        // The limit may have been raised since.
        let is_above = inst.spec.limits.max_memory_restart.is_some();
        if inst.current(run).is_none() || inst.is_going_down() || !is_above {
            return;
        }
        self.begin_stop(id, RunEnd::Outgrown(used), None, StopReason::Outgrown(used), now, out);
    }

    fn act_on_illness(
        &mut self,
        id: &InstanceId,
        action: OnFailure,
        detail: String,
        now: Mono,
        out: &mut Vec<Effect>,
    ) {
        if self.instance(id).is_some_and(Instance::is_going_down) {
            // It ends anyway, in its turn: not before those that depend on it.
            return;
        }
        let give_up = match action {
            OnFailure::None => return,
            OnFailure::Restart => None,
            OnFailure::Stop => Some(FailReason::Unhealthy(detail.clone())),
        };
        let why = StopReason::Unhealthy(detail.clone());
        self.begin_stop(id, RunEnd::Unhealthy(detail), give_up, why, now, out);
    }

    /// A run takes in those settings of its new spec that need no new run; `old` is what it had.
    pub(super) fn adopt_live(
        &mut self,
        id: &InstanceId,
        old: &ProcessSpec,
        now: Mono,
        out: &mut Vec<Effect>,
    ) {
        let Some(inst) = self.instances.get_mut(id) else { return };
        let spec = inst.spec.clone();
        let Phase::Up(live) = &mut inst.phase else { return };
        if old.limits != spec.limits {
            let spec = spec.clone();
            out.push(Effect::Limit { instance: id.clone(), run: live.run, spec });
        }
        if live.ready.is_none() && old.start_timeout != spec.start_timeout {
            let deadline = live.asked.after(spec.start_timeout);
            self.timers.arm((id.clone(), Timer::Start), deadline);
        }
        if live.started.is_none() {
            live.health = Health::new(spec.health.is_some());
            return;
        }
        let checks = old.health != spec.health;
        if checks {
            for timer in [Timer::Probe, Timer::ProbeDeadline] {
                self.timers.disarm(&(id.clone(), timer));
            }
            if spec.health.is_none() || old.health.is_none() {
                live.health = Health::new(spec.health.is_some());
            }
        }
        live.restamp(spec.health.is_some(), now);
        if live.has_shown(spec.readiness) {
            self.make_ready(id, now, out);
        }
        if checks {
            // A changed check speaks at once.
            self.begin_checks(id, now, out);
        }
    }
}

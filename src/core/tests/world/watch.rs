//! What one turn may contain: each effect is held against the model as it comes.

use super::Verdict;
use super::facts::{Facts, OpenJob, Over, RunFacts, new_run, waited};
use super::model::{Cause, Model, OpenReload};
use crate::hold;
use provost_core::event::{
    Blocker, Effect, FailReason, Note, Refusal, RunEnd, StopReason, What, Whom,
};
use provost_core::fields::needs_restart;
use provost_core::ids::{InstanceId, JobId, ProcessId, Request, Run};
use provost_core::job::JobKind;
use provost_core::reload::Plan;
use provost_core::spec::{Condition, HealthCheck, OnFailure, ProcessSpec, ReloadSpec, StopSpec};
use provost_core::time::Mono;
use provost_core::view::State;
use std::sync::Arc;
use std::time::Duration;

/// A kill is repeated after so long.
const KILL_AGAIN: Duration = Duration::from_secs(10);

impl Model {
    pub(super) fn watch(&mut self, effect: &Effect, now: Mono) -> Verdict {
        match effect {
            Effect::Spawn { instance, run, spec, .. } => {
                self.watch_spawn(instance, *run, spec, effect, now)
            }
            Effect::Terminate { instance, run, stop } => {
                self.watch_terminate(instance, *run, stop, now)
            }
            Effect::Kill { instance, run } => self.watch_kill(instance, *run, now),
            Effect::Signal { instance, run, signal, whom } => {
                let by_hand = matches!(&self.cause, Cause::Signal(_, id) if id == instance);
                let seen = self.instances.get(instance).and_then(|facts| Some(facts.seen()?.run));
                hold!(seen == Some(*run), "{instance}: a signal to {run}, which others do not see");
                let live = self.one_of(instance, *run)?;
                let takes = live.spec.reload == Some(ReloadSpec::Signal(*signal));
                // Somebody may send the same by hand.
                if live.takes && takes && *whom == Whom::Main && !by_hand {
                    hold!(live.ready && live.goes_on(), "{instance} cannot take settings now");
                    live.takes = false;
                    return self.is_told(instance, &["reloading"]);
                }
                hold!(live.spawned.is_some() && live.exit.is_none(), "a signal to nobody");
                hold!(by_hand && !self.signaled, "{instance} gets a signal that nobody asked for");
                self.signaled = true;
                Ok(())
            }
            Effect::Limit { instance, run, spec } => {
                let live = self.live(instance, *run)?;
                hold!(live.goes_on(), "{instance} gets limits at its end");
                hold!(live.limited != *spec.limits, "{instance} has these limits already");
                live.limited.clone_from(&spec.limits);
                Ok(())
            }
            Effect::Probe { instance, run, probe, check, spec } => {
                let live = self.live(instance, *run)?;
                hold!(live.spawned.is_some() && live.goes_on(), "a check of what is not there");
                hold!(live.probe.is_none(), "{instance} has a check out already");
                hold!(live.spec == *spec, "{instance} is checked with another spec");
                hold!(live.spec.health.as_deref() == Some(&**check), "{instance}: another check");
                let pause = pause(live);
                let since = live.answered.map(|at| now.since(at));
                let early = since.is_some_and(|since| since < pause) && !live.eager;
                hold!(!early, "{instance} is checked too early: {since:?} of {pause:?}");
                live.probe = Some((*probe, now));
                live.eager = false;
                hold!(*probe > self.last_probe, "check {probe} is not new");
                self.last_probe = *probe;
                Ok(())
            }
            Effect::Reload { instance, run, reload, command, timeout, spec, .. } => {
                let last = self.last_reload;
                let live = self.live(instance, *run)?;
                hold!(live.takes && live.taking.is_none(), "{instance} has no settings to take");
                hold!(live.ready && live.goes_on(), "{instance} cannot take settings now");
                hold!(live.spec == *spec, "{instance} takes settings with another spec");
                let (command, timeout) = (command.clone(), *timeout);
                let by = Some(ReloadSpec::Command { command, timeout });
                hold!(live.spec.reload == by, "{instance} takes settings in another way");
                (live.takes, live.taking, live.taken_by) = (false, Some((*reload, now)), by);
                hold!(*reload > last, "reload {reload} is not new");
                self.last_reload = *reload;
                self.is_told(instance, &["reloading"])
            }
            Effect::Answer { request, answer } => self.watch_answer(*request, answer, now),
            Effect::JobNew { job, kind, instance } => {
                hold!(self.promised.remove(job), "job {job} was promised to nobody");
                hold!(*job > self.last_job, "job {job} is not new");
                self.last_job = *job;
                match instance {
                    None => hold!(*kind == JobKind::Reload, "{kind} on nothing"),
                    Some(id) => {
                        let after = self.last_run;
                        let Some(facts) = self.instances.get_mut(id) else {
                            return Err(format!("a job on {id}, which is not there"));
                        };
                        hold!(facts.job.is_none(), "{id} has two jobs");
                        facts.job = Some(OpenJob { id: *job, kind: *kind, after });
                    }
                }
                Ok(())
            }
            Effect::JobRemoved { job, kind, instance, result, .. } => {
                self.watch_job_removed(*job, *kind, instance.as_ref(), *result)
            }
            Effect::RunExited { instance, run, generation, status, .. } => {
                if self.over_now.as_ref() != Some(instance)
                    && let Some(live) = self.any(instance, *run)
                {
                    hold!(live.exit == Some(*status), "{instance} ended otherwise");
                    let of = live.generation;
                    hold!(of == *generation, "{instance} was of generation {of}, not {generation}");
                } else {
                    let of = matches!(&self.cause, Cause::Fact(id) if id == instance);
                    hold!(of, "run {run} of {instance} is not there and ended");
                }
                self.exits.push((instance.clone(), *run, *status));
                Ok(())
            }
            Effect::ReloadFinished(report) => self.watch_reload_finished(report, now),
            Effect::Note(note) => self.watch_note(note, now),
            Effect::Finished { code } => {
                self.finished += 1;
                self.finish_code = Some(*code);
                hold!(self.finished == 1, "finished twice");
                hold!(self.ending, "finished without a reason");
                let alive = self.instances.values().any(Facts::is_there);
                hold!(!alive, "finished with something alive");
                let expected = self.essential.unwrap_or(0);
                hold!(*code == expected, "finished with {code}, not {expected}");
                Ok(())
            }
        }
    }

    fn live(&mut self, id: &InstanceId, run: Run) -> Result<&mut RunFacts, String> {
        self.current(id, run).ok_or_else(|| format!("run {run} of {id} is not the current one"))
    }

    /// The same, also of a former one.
    fn one_of(&mut self, id: &InstanceId, run: Run) -> Result<&mut RunFacts, String> {
        self.any(id, run).ok_or_else(|| format!("run {run} of {id} is not there"))
    }

    fn watch_spawn(
        &mut self,
        id: &InstanceId,
        run: Run,
        spec: &Arc<ProcessSpec>,
        effect: &Effect,
        now: Mono,
    ) -> Verdict {
        hold!(run > self.last_run, "run {run} of {id} is not new");
        self.last_run = run;
        hold!(!self.ending, "{id} is started while all is being ended");
        let file = self.config.processes.get(&id.process);
        hold!(file == Some(spec), "{id} is started with another spec than the file's");
        for edge in &spec.depends_on {
            hold!(self.is_met(edge), "{id} is started before {} is {}", edge.on, edge.condition);
            // One that fails makes no new run of it.
            let is_on_its_way = |facts: &Facts| {
                let goes_on = facts.run.as_ref().is_some_and(RunFacts::goes_on);
                facts.up && facts.stand_in().is_some() && goes_on
            };
            let again = self.instances_of(&edge.on).any(|(_, facts)| is_on_its_way(facts));
            let is_tried_again = |facts: &Facts| facts.attempt.is_none_or(|attempt| attempt > 0);
            let is_patient = !self.instances.get(id).is_some_and(is_tried_again);
            let early = edge.restart && again && is_patient;
            hold!(!early, "{id} is started before a new run of {}", edge.on);
        }
        self.removed_are_down(id)?;
        self.is_told(id, &["starting"])?;
        let by_hand = self.is_named(id, true);
        let by_file = matches!(self.cause, Cause::Config(..)) || self.reload.is_some();
        let Some(facts) = self.instances.get_mut(id) else {
            return Err(format!("{id} is started and not in the file"));
        };
        hold!(facts.run.is_none(), "{id} is started twice");
        hold!(facts.up, "{id} is started and should not be up");
        if let (Some(former), Effect::Spawn { slot, .. }) = (&facts.former, effect) {
            let follows = matches!(former.why, Some(StopReason::DependencyRestarted(_)));
            hold!(spec.overlap && !follows, "{id} is started beside another");
            hold!(former.slot != *slot, "{id} is started where another is");
        }
        let early = facts.next_before.is_some_and(|at| now < at);
        if facts.before == State::Backoff && early {
            hold!(by_hand || by_file, "{id} is started before its delay is over");
        }
        if matches!(facts.before, State::Completed | State::Failed) {
            hold!(by_hand || by_file, "{id} was over and is started again");
        }
        facts.run = new_run(effect, facts.generation, now);
        facts.completed = false;
        Ok(())
    }

    /// What a reload held back starts when all that the reload stops is down.
    fn removed_are_down(&self, id: &InstanceId) -> Verdict {
        let Some(reload) = &self.reload else { return Ok(()) };
        let held = |blocker: &Blocker| matches!(blocker, Blocker::Reload);
        if !self.instances.get(id).is_some_and(|facts| facts.view.blockers.iter().any(held)) {
            return Ok(());
        }
        for (other, facts) in &self.instances {
            let stopped = self.wished_before.contains(other) && facts.wanted && !facts.wished;
            let old = facts.run.as_ref().is_some_and(|run| run.run <= reload.after);
            hold!(!(stopped && old), "{id} is started before {other} is down");
        }
        Ok(())
    }

    /// Whether this turn's request names an instance.
    fn is_named(&self, id: &InstanceId, reset_counts: bool) -> bool {
        match &self.cause {
            Cause::Start(_, ids, _) | Cause::Restart(_, ids) => ids.contains(id),
            Cause::Reset(_, ids) => reset_counts && ids.contains(id),
            Cause::Watched(changed) => changed == id,
            _ => false,
        }
    }

    fn watch_terminate(
        &mut self,
        id: &InstanceId,
        run: Run,
        stop: &StopSpec,
        now: Mono,
    ) -> Verdict {
        let facts = self.instances.get(id);
        let serves = facts.is_some_and(|facts| facts.stand_in().is_some());
        let is_former = self.current(id, run).is_none();
        let live = self.one_of(id, run)?;
        hold!(live.spec.stop == *stop, "{id} is stopped in another way than its spec says");
        if live.exit.is_some() {
            // What it left behind is asked as well.
            return Ok(());
        }
        hold!(live.goes_on(), "{id} is asked to end twice");
        let Some(why) = live.why.clone() else {
            return Err(format!("{id} is ended without a word"));
        };
        let blame = !matches!(why, StopReason::Unhealthy(_) | StopReason::StartTimedOut);
        let stable = blame && live.was_stable(now);
        live.ending = Some(now);
        live.probe = None;
        live.taking = None;
        live.patience = stop.timeout;
        let Some(facts) = self.instances.get_mut(id) else { return Ok(()) };
        if stable && !is_former {
            facts.attempt = Some(0);
        }
        // Who is ended for what it does itself is not waited for by anybody; nor is who does not serve.
        let serves_now = facts.run.as_ref().is_some_and(|run| run.ready && run.goes_on());
        let is_replaced = is_former && serves_now;
        let is_no_use = serves && !is_former;
        let for_itself =
            !blame || matches!(why, StopReason::Outgrown(_)) || is_replaced || is_no_use;
        if !for_itself && !matches!(self.cause, Cause::Kill) {
            self.nobody_above(id)?;
        }
        Ok(())
    }

    /// All that depend on a process and are to go down too are down.
    fn nobody_above(&self, id: &InstanceId) -> Verdict {
        for (other, spec) in self.config.processes.iter().chain(&self.gone) {
            let edges = spec.depends_on.iter().filter(|edge| edge.on == id.process);
            for _ in edges.filter(|edge| edge.condition != Condition::Completed) {
                for (other, facts) in self.instances_of(other) {
                    let serves = facts.stand_in().or(facts.run.as_ref());
                    let stays = facts.up || serves.or(facts.former.as_ref()).is_none();
                    hold!(stays, "{id} is ended before {other}, which depends on it");
                }
            }
        }
        Ok(())
    }

    fn watch_kill(&mut self, id: &InstanceId, run: Run, now: Mono) -> Verdict {
        let asked = matches!(self.cause, Cause::Kill);
        let live = self.one_of(id, run)?;
        let Some(ending) = live.ending else {
            return Err(format!("{id} is killed without having been asked"));
        };
        let due = match live.killed {
            None => ending.after(live.patience),
            Some(at) => at.after(KILL_AGAIN),
        };
        hold!(asked || now >= due, "{id} is killed too early");
        live.killed = Some(now);
        if asked { Ok(()) } else { self.is_told(id, &["killing", "still-there"]) }
    }

    fn watch_answer(
        &mut self,
        request: Request,
        answer: &Result<Vec<JobId>, Refusal>,
        now: Mono,
    ) -> Verdict {
        hold!(!self.answered, "answered twice");
        self.answered = true;
        self.last_answer = Some(answer.clone());
        let (asked, kind) = match &self.cause {
            Cause::Start(r, ids, _) => (*r, Some((ids.clone(), JobKind::Start))),
            Cause::Stop(r, ids) => (*r, Some((ids.clone(), JobKind::Stop))),
            Cause::Restart(r, ids) => (*r, Some((ids.clone(), JobKind::Restart))),
            Cause::Reload(r, ids) => (*r, Some((ids.clone(), JobKind::Reload))),
            Cause::Reset(r, _) | Cause::Signal(r, _) | Cause::Config(r, _, _) => (*r, None),
            _ => return Err("an answer that nobody waits for".to_owned()),
        };
        hold!(asked == request, "the answer is for another");
        self.right_answer(answer)?;
        let Ok(jobs) = answer else { return Ok(()) };
        if let Some((ids, kind)) = kind {
            hold!(ids.len() == jobs.len(), "{} jobs for {} instances", jobs.len(), ids.len());
            for (id, job) in ids.iter().zip(jobs) {
                let open = self.instances.get(id).and_then(|facts| facts.job.as_ref());
                match open {
                    Some(open) => {
                        hold!(open.kind == kind, "{id} has a job of another kind");
                        hold!(open.id == *job, "the same verb on {id} is another job");
                    }
                    None => {
                        self.promised.insert(*job);
                    }
                }
            }
        } else {
            self.promised.extend(jobs.iter().copied());
        }
        self.granted(jobs, now);
        Ok(())
    }

    /// Whether the answer is what the file and the state of the supervisor call for.
    fn right_answer(&self, answer: &Result<Vec<JobId>, Refusal>) -> Verdict {
        let there = |id: &InstanceId| {
            self.config.processes.get(&id.process).is_some_and(|spec| id.index < spec.instances)
        };
        let refused = match &self.cause {
            Cause::Start(_, ids, once) => self.refusal(ids, *once, &there),
            Cause::Restart(_, ids) => self.refusal(ids, false, &there),
            Cause::Stop(_, ids) | Cause::Reset(_, ids) => !ids.iter().all(there),
            Cause::Signal(_, id) => {
                let run = self.instances.get(id).and_then(Facts::seen);
                !there(id) || run.is_none_or(|r| r.spawned.is_none() || r.exit.is_some())
            }
            Cause::Reload(_, ids) => {
                let takes = |id: &InstanceId| {
                    let run = self.instances.get(id).and_then(|facts| facts.run.as_ref());
                    let held = || self.instances[id].view.sub_state == "held";
                    there(id)
                        && run.is_some_and(|run| {
                            let can = run.spec.reload.is_some() && run.ready && run.goes_on();
                            can && self.instances[id].up && !held()
                        })
                };
                self.ending || !ids.iter().all(takes)
            }
            Cause::Config(..) => self.ending,
            _ => false,
        };
        hold!(answer.is_err() == refused, "answered {answer:?}, refused should be {refused}");
        Ok(())
    }

    fn refusal(&self, ids: &[InstanceId], once: bool, there: &dyn Fn(&InstanceId) -> bool) -> bool {
        self.ending
            || !ids.iter().all(|id| {
                there(id)
                    && self.config.settings.enabled
                    && (once
                        || self.config.processes[&id.process].enabled
                        || self.instances.get(id).is_some_and(|facts| facts.once))
            })
    }

    /// What was asked for was granted.
    fn granted(&mut self, jobs: &[JobId], now: Mono) {
        match self.cause.clone() {
            Cause::Start(_, ids, once) => {
                for id in ids {
                    self.want(&id, once, false);
                }
            }
            Cause::Restart(_, ids) => {
                for id in ids.clone() {
                    // It was restarted alone before, and is still to be taken down for that.
                    let alone = self.instances.get(&id).is_some_and(|facts| {
                        let due = facts.run.as_ref().is_some_and(|run| run.due_since.is_some());
                        due && facts.renew && !facts.rolled
                    });
                    self.want(&id, false, true);
                    self.disturbed.insert(id.process.clone(), now);
                    let rolled = ids.iter().any(|o| o.process == id.process && *o != id);
                    if let Some(facts) = self.instances.get_mut(&id) {
                        facts.rolled = rolled && !alone;
                    }
                }
            }
            Cause::Stop(_, ids) => {
                for id in ids {
                    if let Some(facts) = self.instances.get_mut(&id) {
                        (facts.wanted, facts.once, facts.renew) = (false, false, false);
                    }
                }
            }
            Cause::Reload(_, ids) => {
                for id in ids {
                    let facts = self.instances.get_mut(&id);
                    if let Some(run) = facts.and_then(|facts| facts.run.as_mut()) {
                        run.takes = true;
                    }
                }
            }
            Cause::Reset(_, ids) => {
                for id in ids {
                    if let Some(facts) = self.instances.get_mut(&id)
                        && facts.before != State::Completed
                    {
                        facts.attempt = Some(0);
                    }
                }
            }
            Cause::Config(_, config, generation) => {
                let plan = Plan::between(&self.config, &config);
                self.adopt(&config, now);
                if let Some(job) = jobs.first() {
                    let from = std::mem::replace(&mut self.generation, generation);
                    let (job, since, after) = (*job, now, self.last_run);
                    self.reload = Some(OpenReload { job, from, generation, plan, since, after });
                    for (id, facts) in &mut self.instances {
                        if facts.generation.0 == 0 || self.record.concerns(id) {
                            facts.generation = generation;
                        }
                    }
                } else if self.generation.0 == 0 {
                    self.generation = generation;
                }
            }
            _ => {}
        }
        self.refresh();
    }

    fn want(&mut self, id: &InstanceId, once: bool, anew: bool) {
        let enabled = self.config.processes.get(&id.process).is_some_and(|spec| spec.enabled);
        let Some(facts) = self.instances.get_mut(id) else { return };
        facts.wanted = true;
        facts.once |= once && !enabled;
        facts.attempt = Some(0);
        facts.completed = false;
        facts.by_file &= !anew;
        facts.renew |= facts.run.as_ref().is_some_and(|run| anew || run.ends_by_itself());
    }

    fn watch_note(&mut self, note: &Note, now: Mono) -> Verdict {
        hold!(note.at == now, "a note of another time");
        self.notes.take(note.instance.as_ref(), note.what.kind());
        let Some(id) = &note.instance else {
            if let What::ReloadStarted { generation, plan } = &note.what {
                let open = self.reload.as_ref().map(|open| (open.generation, &open.plan));
                hold!(open == Some((*generation, &**plan)), "another reload is said to begin");
            }
            if let What::ReloadFinished(report) = &note.what {
                self.told_report = Some(report.clone());
            }
            if note.what == What::ShuttingDown && !self.ending {
                // Only an essential process that ended for good may do this by itself.
                let code = self.essential_end(now)?;
                self.essential = Some(code);
                self.end_all();
            }
            return Ok(());
        };
        let told = matches!(note.what, What::CheckFailed { .. } | What::Unhealthy { .. });
        if told && matches!(self.cause, Cause::Timeout) {
            self.probe_overdue(Some(id), now);
        }
        if matches!(note.what, What::ReloadFailed { .. }) && matches!(self.cause, Cause::Timeout) {
            let Some(run) = self.instances.get_mut(id).and_then(|facts| facts.run.as_mut()) else {
                return Err(format!("{id} has no run that could take settings"));
            };
            hold!(run.taking_limit().is_some_and(|at| at <= now), "{id}: its reload has time left");
            run.taking = None;
        }
        match &note.what {
            What::Stopping { why } => {
                let facts = self.instances.get(id);
                let is_former = facts.is_some_and(|facts| {
                    facts.former.as_ref().is_some_and(|former| Some(former.run) == note.run)
                });
                if is_former {
                    return self.former_ends(id, why, now);
                }
                let run = facts.and_then(|facts| facts.run.as_ref());
                let in_turn = match why {
                    StopReason::Changed => true,
                    StopReason::Restart => facts.is_some_and(|facts| facts.rolled),
                    _ => false,
                };
                let served = run.is_some_and(|run| run.ready);
                if in_turn && served {
                    self.take_turn(id)?;
                }
                let for_another = matches!(
                    why,
                    StopReason::Changed | StopReason::Restart | StopReason::WatchedChanged(_)
                );
                // What was promised before is kept, whatever has become of what it depends on.
                let before = self.instances.get(id).map(|facts| &facts.view);
                let promised = before
                    .is_some_and(|view| view.sub_state == "held" || view.state != State::Running);
                if for_another && served && !promised {
                    self.taken.push(id.clone());
                }
                self.justified(id, why, now)
            }
            What::BackingOff { delay, attempt } => self.watch_delay(id, *delay, *attempt),
            What::Waiting { on } => {
                let Some(facts) = self.instances.get_mut(id) else { return Ok(()) };
                hold!(
                    !on.contains(&Blocker::Reload),
                    "{id}: that a reload has an order is no news"
                );
                let waited = waited(on);
                hold!(facts.told != waited, "{id} is said to wait for the same again");
                facts.told = waited;
                Ok(())
            }
            What::KeepsRun { .. } => {
                let keeps = self.instances.get(id).and_then(|facts| facts.run.as_ref());
                let waits = self.config.processes.get(&id.process).is_some_and(|spec| {
                    let facts = &self.instances[id];
                    facts.rolled
                        // Alone, it waits for room.
                        || facts.renew
                        || facts.run.as_ref().is_some_and(|run| needs_restart(&run.spec, spec))
                });
                hold!(keeps.is_some_and(|run| run.ready) && waits, "{id} keeps a run, it is said");
                Ok(())
            }
            What::Overlaps { why } => self.begins_overlap(id, why),
            What::FellBack { end } => self.fell_back(id, end, now),
            What::TakenBack => self.taken_back(id, now),
            What::Completed => {
                let Some(facts) = self.instances.get_mut(id) else { return Ok(()) };
                facts.completed = true;
                Ok(())
            }
            What::GaveUp { why } => {
                let Some(facts) = self.instances.get(id) else { return Ok(()) };
                let limit =
                    self.config.processes.get(&id.process).and_then(|s| s.restart.max_attempts);
                match why {
                    FailReason::Attempts(n, _) => {
                        hold!(limit == Some(*n), "{id} gave up after {n}, its limit is {limit:?}");
                    }
                    FailReason::Unhealthy(_) | FailReason::Policy(_) => {}
                }
                hold!(facts.run.is_none(), "{id} gave up while it runs");
                Ok(())
            }
            What::StartTimedOut { limit, .. } => {
                let Some(live) = self.instances.get_mut(id).and_then(|f| f.run.as_mut()) else {
                    return Err(format!("{id} timed out without a run"));
                };
                let due = live.asked.after(live.spec.start_timeout);
                hold!(!live.ready && live.goes_on() && now >= due, "{id} has not timed out");
                hold!(*limit == live.spec.start_timeout, "another limit");
                live.overdue = true;
                Ok(())
            }
            What::Killing { limit } => {
                let run = note.run.and_then(|run| self.any(id, run));
                let right = run.is_some_and(|run| run.patience == *limit);
                hold!(right, "{id} is killed after {limit:?}");
                Ok(())
            }
            What::Starting { attempt } => {
                let Some(facts) = self.instances.get(id) else { return Ok(()) };
                hold!(facts.run.is_none(), "{id} is started twice");
                let right = facts.attempt.is_none_or(|n| n == *attempt);
                hold!(right, "{id} starts attempt {attempt}, not {:?}", facts.attempt);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// An essential instance that has just ended for good, and the code that this gives.
    fn essential_end(&self, _now: Mono) -> Result<u8, String> {
        for (id, facts) in &self.instances {
            let essential = self.config.processes.get(&id.process).is_some_and(|s| s.essential);
            let over = self.over_now.as_ref() == Some(id) && facts.run.is_none();
            if essential
                && over
                && let Over::ByPolicy(end, _) | Over::Settled(end) = &facts.over
            {
                return Ok(match (end, facts.last_exit) {
                    (RunEnd::NotSpawned(_), _) => 1,
                    (_, Some(provost_core::event::ExitStatus::Code(code))) => code,
                    (_, Some(provost_core::event::ExitStatus::Signal { signal, .. })) => {
                        128 + signal.0
                    }
                    _ => 1,
                });
            }
        }
        Err("all is being ended and nobody asked for it".to_owned())
    }

    /// Every stop has a reason, and it is true.
    pub(super) fn justified(&mut self, id: &InstanceId, why: &StopReason, now: Mono) -> Verdict {
        let spec = self.config.processes.get(&id.process).filter(|s| id.index < s.instances);
        let Some(facts) = self.instances.get(id) else {
            return Err(format!("{id} is stopped and not there"));
        };
        let Some(run) = &facts.run else { return Err(format!("{id} is stopped and has no run")) };
        let check = run.spec.health.as_ref();
        let ok = match why {
            StopReason::Requested => !facts.wanted,
            StopReason::Restart | StopReason::WatchedChanged(_) => facts.renew,
            StopReason::Disabled => {
                !(self.config.settings.enabled
                    && spec.is_some_and(|spec| spec.enabled || facts.once))
            }
            StopReason::Removed => spec.is_none(),
            StopReason::Changed => spec.is_some_and(|spec| needs_restart(&run.spec, spec)),
            StopReason::DependencyStopped(on) => {
                facts.wished
                    && !facts.up
                    && !self.instances_of(on).any(|(_, facts)| facts.up)
                    && spec.is_some_and(|spec| spec.depends_on.iter().any(|edge| edge.on == *on))
            }
            StopReason::DependencyRestarted(on) => {
                self.disturbed.get(on).is_some_and(|at| *at >= run.asked)
                    // Some of it may get their turns when no reload is under way any more.
                    || self.is_outdated(on)
                    || self.instances_of(on).any(|(_, facts)| facts.renew)
            }
            StopReason::Unhealthy(_) => {
                run.health.ill && check.is_some_and(|check| check.on_failure != OnFailure::None)
            }
            StopReason::Outgrown(_) => run.outgrown && run.spec.limits.max_memory_restart.is_some(),
            StopReason::StartTimedOut => run.overdue,
            StopReason::Leftovers => false,
            StopReason::Shutdown => self.ending,
        };
        hold!(ok, "{id} is stopped for a reason that is not so: {why}");
        let again = matches!(
            why,
            StopReason::Restart
                | StopReason::Changed
                | StopReason::DependencyRestarted(_)
                | StopReason::WatchedChanged(_)
        );
        // As long as another serves nobody need follow.
        if again && facts.stand_in().is_none() {
            self.renewed.push((id.process.clone(), run.due_since.unwrap_or(now)));
        }
        if let Some(facts) = self.instances.get_mut(id)
            && let Some(run) = &mut facts.run
        {
            let stop = |check: &HealthCheck| check.on_failure == OnFailure::Stop;
            run.ill = matches!(why, StopReason::Unhealthy(_))
                && run.spec.health.as_deref().is_some_and(stop);
            run.why = Some(why.clone());
        }
        let _ = now;
        Ok(())
    }

    /// Whether a process has a run of another spec than the file's.
    fn is_outdated(&self, process: &ProcessId) -> bool {
        let Some(spec) = self.config.processes.get(process) else { return false };
        let runs = |facts: &Facts| [facts.run.clone(), facts.former.clone()];
        let mut runs = self.instances_of(process).flat_map(|(_, facts)| runs(facts)).flatten();
        runs.any(|run| needs_restart(&run.spec, spec))
    }

    fn watch_delay(&mut self, id: &InstanceId, delay: Duration, attempt: u32) -> Verdict {
        let Some(spec) = self.config.processes.get(&id.process) else {
            return Err(format!("{id} is not there and will be started"));
        };
        let policy = spec.restart.clone();
        let Some(facts) = self.instances.get_mut(id) else { return Ok(()) };
        let expected = facts.attempt.map(|n| n + 1);
        hold!(expected.is_none_or(|n| n == attempt), "{id}: restart {attempt}, not {expected:?}");
        facts.attempt = Some(attempt);
        hold!(policy.max_attempts.is_none_or(|max| attempt <= max), "{id}: one attempt too many");
        hold!(delay <= policy.max_delay, "{id}: waits {delay:?}");
        let n = attempt - 1;
        let (base, factor, n) = match policy.delay {
            Duration::ZERO if n == 0 => (0.0, 1.0, 0),
            Duration::ZERO => (0.1, 2.0, n - 1),
            base => (base.as_secs_f64(), policy.factor, n),
        };
        let mut grown = base;
        for _ in 0..n {
            grown = (grown * factor).min(policy.max_delay.as_secs_f64());
        }
        let grown = grown.min(policy.max_delay.as_secs_f64());
        let (low, high) = (grown * (1.0 - policy.jitter), grown * (1.0 + policy.jitter));
        let told = delay.as_secs_f64();
        let within = told >= low - 1e-6 && told <= high + 1e-6;
        hold!(within, "{id}: restart {attempt} after {told}, not {low} to {high}");
        Ok(())
    }
}

/// The least time from an answer to the next check.
pub(super) fn pause(run: &RunFacts) -> Duration {
    let interval = run.spec.health.as_ref().map_or(Duration::ZERO, |check| check.interval);
    let is_whole = run.health.proven || run.speaks();
    if is_whole { interval } else { interval.min(Duration::from_secs(1)) }
}

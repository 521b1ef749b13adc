//! What came of jobs and reloads, held against the model.

use super::Verdict;
use super::facts::Facts;
use super::model::{Cause, Model};
use crate::hold;
use provost_core::fields::needs_restart;
use provost_core::ids::{InstanceId, JobId, Run};
use provost_core::job::{JobKind, JobResult};
use provost_core::reload::{ReloadReport, ReloadResult, StepKind, StepState};
use provost_core::time::Mono;
use std::sync::Arc;

impl Facts {
    /// A job by which an instance takes new settings ended.
    fn reload_ended(&self, id: &InstanceId, result: JobResult, newer: bool) -> Verdict {
        let run = self.run.as_ref().filter(|run| run.goes_on());
        let rests = run.is_some_and(|run| !run.takes && run.taking.is_none());
        let gone = run.is_some_and(|run| run.spec.reload.is_none());
        let right = match result {
            JobResult::Done | JobResult::Failed if run.is_some() => rests,
            JobResult::Failed => true,
            JobResult::Canceled => newer || run.is_none() || gone,
            _ => false,
        };
        hold!(right, "the reload of {id} is {result}: {run:?}");
        Ok(())
    }
}

impl Model {
    pub(super) fn watch_job_removed(
        &mut self,
        job: JobId,
        kind: JobKind,
        instance: Option<&InstanceId>,
        result: JobResult,
    ) -> Verdict {
        self.results.insert(job, result);
        let Some(id) = instance else {
            hold!(kind == JobKind::Reload, "{kind} of nothing");
            let Some(reload) = self.reload.take() else {
                return Err(format!("the reload {job} ended without having begun"));
            };
            hold!(reload.job == job, "another reload ended");
            return Ok(());
        };
        let newer = match &self.cause {
            Cause::Start(_, ids, _)
            | Cause::Restart(_, ids)
            | Cause::Stop(_, ids)
            | Cause::Reload(_, ids) => ids.contains(id) && !self.answered,
            _ => false,
        };
        let reload = matches!(self.cause, Cause::Config(..));
        let Some(facts) = self.instances.get_mut(id) else {
            return Err(format!("a job on {id}, which is not there"));
        };
        let Some(open) = facts.job.take() else { return Err(format!("{id} has no job")) };
        hold!(open.id == job && open.kind == kind, "{id}: another job ended");
        if kind == JobKind::Reload {
            return facts.reload_ended(id, result, newer);
        }
        let up = facts.run.as_ref().is_some_and(|run| run.goes_on() && run.ready);
        let new = facts.run.as_ref().is_some_and(|run| run.run > open.after);
        let serves = facts.stand_in().is_some();
        match (kind, result) {
            (JobKind::Start, JobResult::Done) => {
                hold!(facts.completed || up || serves, "{id} is not up, its start is done");
            }
            (JobKind::Restart, JobResult::Done) => {
                hold!(facts.completed || (up && new), "{id} is not up anew, its restart is done");
            }
            (JobKind::Stop, JobResult::Done) => {
                hold!(!facts.is_there() && !facts.wished, "{id} is not down, its stop is done");
            }
            (JobKind::Stop, JobResult::Canceled) => {
                hold!(newer || reload, "the stop of {id} was canceled for nothing");
            }
            (_, JobResult::Canceled) => {
                hold!(newer || !facts.wished, "the {kind} of {id} was canceled for nothing");
            }
            (JobKind::Stop, _) => return Err(format!("a stop cannot be {result}")),
            // Another of its process had its turn before it, and did not come back.
            (JobKind::Restart, JobResult::Failed) if up && (facts.rolled || facts.renew) => {
                (facts.renew, facts.rolled) = (false, false);
            }
            // It would have waited for what does not come, and has its turn when that does.
            (JobKind::Restart, JobResult::Dependency) if up && (facts.rolled || facts.renew) => {}
            // Its new run did not come up, and the one before it goes on.
            (JobKind::Restart, JobResult::Failed) if up && self.over_now.as_ref() == Some(id) => {
                self.is_told(id, &["fell-back"])?;
            }
            (_, JobResult::Timeout | JobResult::Failed | JobResult::Dependency) => {
                hold!(facts.wished, "the {kind} of {id} is {result} and nobody wishes it");
                hold!(!up, "the {kind} of {id} is {result} and it is up");
            }
            (_, JobResult::Skipped) | (JobKind::Reload, JobResult::Done) => {
                return Err(format!("the {kind} of {id} is {result}"));
            }
        }
        Ok(())
    }

    pub(super) fn watch_reload_finished(
        &mut self,
        report: &Arc<ReloadReport>,
        now: Mono,
    ) -> Verdict {
        self.reports.push(report.clone());
        if report.result == ReloadResult::Unchanged {
            hold!(report.steps.is_empty(), "steps of nothing");
            return Ok(());
        }
        let Some(open) = &self.reload else { return Err("no reload to finish".to_owned()) };
        hold!(self.told_report.as_ref() == Some(report), "a reload ended without a note");
        let told = (report.from, report.generation, &report.plan, report.took);
        let is = (open.from, open.generation, &open.plan, now.since(open.since));
        hold!(told == is, "the report says {told:?}, not {is:?}");
        for step in &report.steps {
            let superseded = step.state == StepState::Superseded;
            hold!(step.state.is_final(), "{} has not ended: {:?}", step.instance, step.state);
            if report.result.is_unfinished() {
                continue;
            }
            hold!(!superseded, "{} was superseded by nothing", step.instance);
            self.step_is_true(step.kind, &step.instance, &step.state, open.after)?;
        }
        if report.result.is_unfinished() {
            let withdrawn = report.result == ReloadResult::Withdrawn;
            hold!(withdrawn == self.withdraws, "{:?}", report.result);
            return Ok(());
        }
        let failed = report.steps.iter().any(|s| matches!(s.state, StepState::Failed { .. }));
        hold!(failed == (report.result == ReloadResult::FailedKept), "{:?}", report.result);
        self.what_runs_is_what_is_wanted(report)
    }

    /// A step that is done left what it was for.
    fn step_is_true(
        &self,
        kind: StepKind,
        id: &InstanceId,
        state: &StepState,
        after: Run,
    ) -> Verdict {
        let Some(facts) = self.instances.get(id) else { return Ok(()) };
        if !matches!(state, StepState::Done { .. }) {
            return Ok(());
        }
        let live = facts.run.as_ref();
        if kind == StepKind::Stop {
            // Whoever was started although the file disables it may go down since for something else.
            let back = live.is_none_or(|run| facts.up || facts.once || run.run > after);
            hold!(back, "{id} is not down, its step is done");
        }
        Ok(())
    }

    /// After a reload every run that is to go on is of the configuration.
    fn what_runs_is_what_is_wanted(&self, report: &ReloadReport) -> Verdict {
        for (id, facts) in &self.instances {
            let Some(run) = facts.run.as_ref().filter(|run| run.goes_on()) else { continue };
            let Some(spec) = self.config.processes.get(&id.process) else { continue };
            // What somebody wants a new run of may wait for its dependents to go down first.
            // One that was passed over has its turn when it comes, whether a reload goes on or not.
            let mut steps = report.steps.iter().filter(|step| step.instance == *id);
            let has_it = steps.any(|step| {
                // One that is up again since it was to be stopped has its turn when it comes as well.
                step.kind != StepKind::Stop && matches!(step.state, StepState::Done { .. })
            });
            if facts.up && !facts.renew && has_it {
                hold!(!needs_restart(&run.spec, spec), "{id} runs another spec than the file's");
            }
        }
        Ok(())
    }
}

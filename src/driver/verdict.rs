//! A configuration on trial: what is done about what the core finds.
//!
//! The core says what is good, what is bad and what is to come back; here that is written down, told,
//! and answered. From the acceptance to the verdict there is one job for everybody outside, whatever
//! the machine needs for it.
//!
//! Written ahead: before the machine is given a configuration, its files are in the store with what
//! they would go back to; before it is given the old one again, that is in the store too. Whoever
//! begins after a daemon that was killed finds there what is to be gone on with.

use super::Driver;
use super::desk::Active;
use super::handle::{JobEnd, now};
use crate::core::event::{Effect, Event};
use crate::core::ids::{Generation, InstanceId, JobId, Request};
use crate::core::job::{JobKind, JobResult};
use crate::core::spec::Numbered;
use crate::core::trial::{Before, Fault, Ruling, Trial, Verdict};
use crate::store::generations::{Because, HeldOff, State};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;
use tracing::Level;

/// What is on trial, for the driver.
#[derive(Default)]
pub(super) struct Trying {
    /// What the core knows of it.
    pub(super) trial: Option<Trial>,
    /// How it ended, for when all was carried out that came of the same turn.
    ended: Option<Verdict>,
    /// What is active again when it goes.
    pub(super) base: Option<Active>,
    /// The machine's job of going back, which nobody outside hears of.
    hidden: Option<JobId>,
    /// Why it goes although it may be good; None: because it did not come up.
    pub(super) withdrawn: Option<String>,
    /// What was on trial before is being replaced: its job ends.
    pub(super) replaces: bool,
}

/// By what a configuration is judged.
pub(super) enum Measure {
    /// It is not: it was found good before.
    None,
    /// What runs, where anything does.
    Trial,
    /// A trial that was prepared, or begun by another daemon.
    Resumed(Box<Trial>),
}

impl Trying {
    /// Whether the job of the configuration that the machine has carried out is not over.
    pub(super) fn holds_job(&self) -> bool {
        !self.replaces && (self.trial.is_some() || self.ended.is_some())
    }

    /// Whether the machine is being given the configuration before.
    pub(super) fn is_hidden(&self) -> bool {
        self.hidden.is_some()
    }
}

impl Driver {
    /// Gives the machine a configuration, and puts it on trial where there is something to go back
    /// to, or not.
    pub(super) fn try_config(&mut self, request: Request, next: Numbered, measure: Measure) {
        let Numbered { generation, config } = next;
        let former = self.trying.trial.take();
        let now = now();
        let prepared = match measure {
            Measure::None => None,
            Measure::Trial => {
                Trial::prepare(&self.machine, former.as_ref(), generation, &config, now)
            }
            Measure::Resumed(trial) => Some(*trial),
        };
        self.take_in(Event::ConfigAccepted { request, config, generation });
        if !self.was_granted(request) {
            // What was on trial goes on: nothing became of this.
            self.trying.trial = former;
        } else {
            if let Some(former) = &former {
                self.checkpoint_remembers(former);
            }
            self.trying.withdrawn = None;
            self.trying.replaces = former.is_some();
            self.trying.hidden = self.trying.hidden.filter(|_| former.is_some());
            if former.is_some() && !self.machine_has_job() {
                self.conclude_replaced();
            }
            self.trying.trial = prepared.map(|mut trial| {
                trial.begin(&self.machine, now);
                trial
            });
        }
        self.hand_on();
    }

    /// Whether the machine has something to do for a request; its answer is among what is to be
    /// handed on.
    fn was_granted(&self, asked: Request) -> bool {
        self.effects.iter().any(|effect| match effect {
            Effect::Answer { request, answer: Ok(jobs) } => *request == asked && !jobs.is_empty(),
            _ => false,
        })
    }

    /// Whether the end of the job before is among what is to be handed on.
    fn machine_has_job(&self) -> bool {
        let open = self.desk.job();
        self.effects
            .iter()
            .any(|effect| matches!(effect, Effect::JobRemoved { job, .. } if Some(*job) == open))
    }

    /// Has the trial look at what the machine did, and does what it says. Before anything is written
    /// down or carried out.
    ///
    /// Not while a configuration is being handed over: what it is that goes is known once the machine's
    /// answer was taken in. Then all of it is looked at, see [`Driver::judge_handed_over`].
    pub(super) fn judge(&mut self) {
        let now = now();
        if self.machine.is_ending() {
            // It is on trial again when somebody begins anew.
            self.trying.trial = None;
            return;
        }
        while let Some(trial) = &mut self.trying.trial {
            match trial.look(&self.machine, self.machine.unsaved(), now) {
                None => return,
                Some(ruling) => self.follow(ruling),
            }
        }
    }

    /// The machine's answer was taken in. Whether there is anything to be handed on now.
    pub(super) fn judge_handed_over(&mut self) -> bool {
        let Some(trial) = &mut self.trying.trial else { return false };
        let Some(ruling) = trial.look_again(&self.machine, now()) else { return false };
        self.follow(ruling);
        self.judge();
        true
    }

    fn follow(&mut self, ruling: Ruling) {
        match ruling {
            Ruling::GoBack { base, before } => self.go_back(base, before),
            Ruling::Over(verdict) => {
                if let Some(trial) = self.trying.trial.take() {
                    self.checkpoint_remembers(&trial);
                }
                self.trying.ended = Some(verdict);
            }
        }
    }

    pub(super) fn go_back(&mut self, base: Numbered, before: Arc<BTreeMap<InstanceId, Before>>) {
        let Some(trial) = &self.trying.trial else { return };
        let (tried, faults) = (trial.tried(), trial.faults().to_vec());
        let (why, because) = match &self.trying.withdrawn {
            None => {
                let why = named(&faults);
                (why.clone(), Because::Tried { generation: tried, why })
            }
            Some(why) => {
                let because = Because::Unconfirmed { generation: tried, why: why.clone() };
                (vec![why.clone()], because)
            }
        };
        let held = HeldOff { digest: self.desk.digest().to_owned(), because };
        self.remark(
            Level::ERROR,
            "rolling-back",
            format!(
                "generation {}; going back to generation {}",
                self.gone(tried, &why.join("; ")),
                base.generation
            ),
        );
        // What is on disk is held off already where something else was tried instead of it.
        if !self.desk.tries_something_else() {
            self.note_generation(|all| all.hold_off(Some(held)));
        }
        self.note_generation(|all| {
            all.change(tried, |record| (record.state, record.why) = (State::RollingBack, why))
        });
        match self.trying.base.take() {
            Some(active) => self.desk.set_active(active),
            // Whatever is read is something else.
            None => self.desk.forget_digest(),
        }
        let request = self.request(super::Asked::Withdrawn);
        let Numbered { generation, config } = base;
        self.take_in(Event::ConfigWithdrawn { request, config, generation, before });
        let now = now();
        if let Some(trial) = &mut self.trying.trial {
            trial.began_to_go_back(&self.machine, now);
        }
    }

    /// The machine has a job for going back.
    pub(super) fn withdrawn(&mut self, jobs: &[JobId]) {
        self.trying.hidden = jobs.first().copied();
    }

    /// A job of the machine began that nobody outside hears of.
    pub(super) fn is_hidden(&self, job: JobId) -> bool {
        self.trying.hidden == Some(job)
    }

    /// Whether the end of a job of the machine is not to be told, or not yet.
    pub(super) fn keeps_end(&mut self, job: JobId) -> bool {
        if self.trying.hidden.take_if(|hidden| *hidden == job).is_some() {
            return true;
        }
        self.desk.job() == Some(job) && self.trying.holds_job()
    }

    /// What was on trial is over because a newer configuration took its place.
    fn conclude_replaced(&mut self) {
        let Some(job) = self.desk.job() else { return };
        self.desk_superseded();
        self.job_removed(JobEnd {
            id: job,
            kind: JobKind::Reload,
            instance: None,
            result: JobResult::Canceled,
            detail: Some("a newer configuration took its place".to_owned()),
        });
    }

    /// Tells how a trial ended, when all was carried out that came of the same turn.
    pub(super) fn tell_verdict(&mut self) {
        let Some(verdict) = self.trying.ended.take() else { return };
        let Some(tried) = self.desk.tried() else { return };
        let (state, level, message) = self.judgement(&verdict, tried);
        self.trying.base = None;
        let why = match &verdict {
            Verdict::Good { .. } => Vec::new(),
            Verdict::Kept { faults } => named(faults),
            Verdict::RolledBack { faults, lost } => {
                let mut why = self.tried_why(faults);
                self.trying.withdrawn = None;
                why.extend(lost.iter().map(|fault| format!("did not come back: {}", one(fault))));
                why
            }
        };
        if matches!(verdict, Verdict::RolledBack { .. }) {
            self.desk.reloaded = Some(SystemTime::now());
        }
        let noted = why.clone();
        self.note_generation(|all| {
            all.change(tried, |record| (record.state, record.why) = (state, noted))
        });
        let job = self.desk.job();
        self.remark(level, "verdict", message.clone());
        self.desk_concluded(state, why);
        if let Some(id) = job {
            let result = match state {
                State::Applied => JobResult::Done,
                _ => JobResult::Failed,
            };
            let (kind, instance, detail) = (JobKind::Reload, None, Some(message));
            self.job_removed(JobEnd { id, kind, instance, result, detail });
        }
    }

    fn judgement(&self, verdict: &Verdict, tried: Generation) -> (State, Level, String) {
        let running = self.machine.generation();
        match verdict {
            Verdict::Good { still_failing } if still_failing.is_empty() => {
                (State::Applied, Level::INFO, format!("generation {tried} is good"))
            }
            Verdict::Good { still_failing } => (
                State::Applied,
                Level::WARN,
                format!("generation {tried} is good; still failing: {}", list(still_failing)),
            ),
            Verdict::Kept { faults } => (
                State::FailedKept,
                Level::ERROR,
                format!("generation {tried} did not come up and stays: {}", list(faults)),
            ),
            Verdict::RolledBack { faults, lost } if lost.is_empty() => (
                State::RolledBack,
                Level::ERROR,
                format!(
                    "generation {running} runs again; {}",
                    self.gone(tried, &self.tried_why(faults).join("; "))
                ),
            ),
            Verdict::RolledBack { faults, lost } => (
                State::RollbackIncomplete,
                Level::ERROR,
                format!(
                    "generation {running} is wanted again, and not all of it came back: {}; {}",
                    list(lost),
                    self.gone(tried, &self.tried_why(faults).join("; "))
                ),
            ),
        }
    }

    /// What became of what was tried, and why.
    fn gone(&self, tried: Generation, why: &str) -> String {
        match &self.trying.withdrawn {
            None => format!("{tried} did not come up: {why}"),
            Some(_) => format!("{tried}: {why}"),
        }
    }

    /// Why what was tried did not come up; a daemon before may have found that.
    fn tried_why(&self, faults: &[Fault]) -> Vec<String> {
        if let Some(why) = &self.trying.withdrawn {
            return vec![why.clone()];
        }
        match self.history.held_off().map(|held| held.because) {
            Some(Because::Tried { why, .. }) if faults.is_empty() => why,
            _ => named(faults),
        }
    }

    /// Writes something about generations down. That it cannot be written is told once, and tried
    /// again.
    pub(super) fn note_generation(
        &mut self,
        write: impl FnOnce(&mut crate::store::generations::Generations) -> io::Result<()>,
    ) {
        // What the error says is asked for below.
        let _ = write(&mut self.history.lock());
        self.tell_trouble();
    }
}

fn one(fault: &Fault) -> String {
    format!("{} {}", fault.instance, fault.why.strip_prefix("it ").unwrap_or(&fault.why))
}

fn named(faults: &[Fault]) -> Vec<String> {
    faults.iter().map(one).collect()
}

fn list(faults: &[Fault]) -> String {
    named(faults).join("; ")
}

//! What a new generation has to show before it is good, and what becomes of it when it does not.
//!
//! The machine carries a configuration out; whether that was wise is judged here. A [`Trial`] is
//! prepared before the machine is given the new configuration, because it remembers how things were,
//! and begins when the machine has taken it in. From then on it is shown each turn of the machine,
//! and answers with a [`Ruling`].
//!
//! **Who is judged.** Each instance of an added process, of one that gets a new run, and of one whose
//! check changed; as far as anybody wants it up. One that was failing already when the last good
//! generation was in force is not judged: the change did not break it, and may be what mends it.
//!
//! **When one is good.** It is ready, healthy where it has a check with no failure since the last
//! success, and has been so for `settle`; or it did its work and completed. One that waits for what
//! will not come by itself, or that nobody wants any more, cannot be judged and counts as good. A
//! one-shot that another waits for has to complete.
//!
//! **When one is bad.** It failed for good; it ended [`STRIKES`] times; or it was not good within the
//! limit, counted from when its run was asked for. One that waits for others that are judged is not to
//! blame; one that waits for another has the same time from when anything last got on.
//!
//! **What follows.** All are good and the machine is done: the generation is good. One is bad: the
//! machine is to be given the last good configuration again, which the caller does, and the trial goes
//! on with that: those that were touched have to come back, by the same measure.
//! Who does not come back is named. A trial that is replaced by a newer one hands on what it remembers,
//! so that the way back always leads to what was last good.
//!
//! When the supervisor ends, the trial ends without a verdict. What was on trial is so again when it
//! begins anew.
//!
//! | part | owns |
//! |---|---|
//! | `before` | how things were |
//! | `standing` | how one that is judged stands, and why it is not good |
//!
//! | stage | goes on to |
//! |---|---|
//! | trying | over, good; going back; over, kept |
//! | going back | over, rolled back; over, rolled back incompletely |

mod before;
mod standing;

pub use before::{Before, Rest};

use self::before::pairs;
use self::standing::{Standing, last_end, waited};
use crate::ids::{Generation, InstanceId, ProcessId};
use crate::machine::Machine;
use crate::process::Phase;
use crate::spec::{Beside, Condition, Config, Numbered, Rollback};
use crate::time::{Mono, Timers};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// So many ends of its runs make an instance bad, however much time there would be.
pub(crate) const STRIKES: u64 = 3;

/// An instance that did not come up, or did not come back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Which.
    pub instance: InstanceId,
    /// Why, in words that follow its name.
    pub why: String,
}

/// What is kept of a trial for a supervisor that goes on with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialSnapshot {
    /// The generation on trial.
    pub tried: Generation,
    /// The last good one.
    pub base: Generation,
    /// How the instances were then.
    #[serde(with = "pairs")]
    pub before: Arc<BTreeMap<InstanceId, Before>>,
    /// What was found wrong; empty while it is tried.
    pub faults: Vec<Fault>,
}

/// What there is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Ruling {
    /// The last good configuration is to be given to the machine again, as the generation that it
    /// was, and what is remembered with it.
    GoBack {
        /// The last good one.
        base: Numbered,
        /// How the instances were then.
        before: Arc<BTreeMap<InstanceId, Before>>,
    },
    /// The trial is over.
    Over(Verdict),
}

/// How a trial ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The generation is good. Some may be named that were failing before and still are.
    Good {
        /// Those.
        still_failing: Vec<Fault>,
    },
    /// Not all that should be up came up, and the generation stays: nobody wants a rollback.
    Kept {
        /// Who.
        faults: Vec<Fault>,
    },
    /// It did not come up, and the last good generation is in force again.
    RolledBack {
        /// Who did not come up.
        faults: Vec<Fault>,
        /// Who did not come back. Empty where all did.
        lost: Vec<Fault>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Trying,
    GoingBack,
}

/// One that is judged and not found good yet.
#[derive(Clone, Debug)]
struct Judged {
    /// When the run was asked for that the limit counts from.
    began: Option<Mono>,
    /// Restarts by policy, as they were.
    restarts: u64,
    /// Others wait for it to complete.
    awaited: bool,
}

/// A generation on trial.
#[derive(Clone, Debug)]
pub struct Trial {
    /// What is kept of it: made once for each stage.
    kept: Arc<TrialSnapshot>,
    base: Numbered,
    stage: Stage,
    mode: Rollback,
    settle: Duration,
    /// How long each may take.
    limit: Duration,
    /// Nothing counts that was before.
    since: Mono,
    /// When anything last got on.
    progress: Mono,
    open: BTreeMap<InstanceId, Judged>,
    /// Those that wait for others that are judged.
    behind: BTreeSet<InstanceId>,
    timers: Timers<InstanceId>,
    faults: Vec<Fault>,
    lost: Vec<Fault>,
}

impl Trial {
    /// Remembers how things are, before `config` is given to the machine as generation `tried`.
    /// `former` is a trial that is not over, which this one replaces. None where there is nothing to
    /// go back to, or nobody wants that it is judged.
    #[must_use]
    pub fn prepare(
        machine: &Machine,
        former: Option<&Trial>,
        tried: Generation,
        config: &Config,
        now: Mono,
    ) -> Option<Trial> {
        if config.settings.rollback == Rollback::Off {
            return None;
        }
        let (base, mut before) = match former {
            Some(former) => (former.base.clone(), BTreeMap::clone(&former.kept.before)),
            None if !is_worth_going_back_to(machine.config()) => return None,
            None => {
                let (generation, config) = (machine.generation(), machine.config().clone());
                (Numbered { generation, config }, BTreeMap::new())
            }
        };
        remember(&mut before, machine, &base.config, config, now);
        let (base_number, before) = (base.generation, Arc::new(before));
        let kept = TrialSnapshot { tried, base: base_number, before, faults: Vec::new() };
        Some(Trial::new(kept, base, config, now))
    }

    /// Goes on with what was kept of a trial; `base` is the last good configuration, `config` the one
    /// on trial.
    #[must_use]
    pub fn resume(kept: TrialSnapshot, base: Arc<Config>, config: &Config, now: Mono) -> Trial {
        let base = Numbered { generation: kept.base, config: base };
        let faults = kept.faults.clone();
        Trial { faults, ..Trial::new(kept, base, config, now) }
    }

    /// The same, and remembers how things are, before `config` is given to the machine: it may have come
    /// while nobody was there to try it.
    #[must_use]
    pub fn resume_with(
        machine: &Machine,
        mut kept: TrialSnapshot,
        base: Arc<Config>,
        config: &Config,
        now: Mono,
    ) -> Trial {
        remember(Arc::make_mut(&mut kept.before), machine, &base, config, now);
        Trial::resume(kept, base, config, now)
    }

    fn new(kept: TrialSnapshot, base: Numbered, config: &Config, now: Mono) -> Trial {
        let settings = &config.settings;
        Trial {
            kept: Arc::new(kept),
            base,
            stage: Stage::Trying,
            mode: settings.rollback,
            settle: settings.settle,
            limit: settings.verdict_timeout.unwrap_or_default(),
            since: now,
            progress: now,
            open: BTreeMap::new(),
            behind: BTreeSet::new(),
            timers: Timers::default(),
            faults: Vec::new(),
            lost: Vec::new(),
        }
    }

    /// The generation on trial.
    #[must_use]
    pub fn tried(&self) -> Generation {
        self.kept.tried
    }

    /// What it goes back to.
    #[must_use]
    pub fn base(&self) -> &Numbered {
        &self.base
    }

    /// Whether the last good generation is being put back.
    #[must_use]
    pub fn is_going_back(&self) -> bool {
        self.stage == Stage::GoingBack
    }

    /// What was found wrong so far.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// What has to be kept of it. It is another one only when there is something else to keep.
    #[must_use]
    pub fn snapshot(&self) -> &Arc<TrialSnapshot> {
        &self.kept
    }

    /// The machine has taken the configuration in.
    pub fn begin(&mut self, machine: &Machine, now: Mono) {
        let config = machine.config().clone();
        self.since = now;
        self.progress = now;
        self.open_all(machine, &config);
        let settings = &config.settings;
        let longest = self.open.keys().filter_map(|id| config.processes.get(&id.process));
        let longest = longest.map(|spec| spec.start_timeout).max().unwrap_or_default();
        let usual = longest.saturating_add(self.settle);
        self.limit = settings.verdict_timeout.unwrap_or(usual).max(self.settle);
        self.look_at_all(machine, now);
    }

    /// The machine has taken the last good configuration in again.
    pub fn began_to_go_back(&mut self, machine: &Machine, now: Mono) {
        self.stage = Stage::GoingBack;
        let faults = self.faults.clone();
        self.kept = Arc::new(TrialSnapshot { faults, ..TrialSnapshot::clone(&self.kept) });
        self.mode = Rollback::Auto;
        // By what was good then, not by what is going.
        self.settle = self.base.config.settings.settle;
        self.open.clear();
        self.behind.clear();
        self.timers = Timers::default();
        self.begin(machine, now);
    }

    /// Finds who is judged.
    fn open_all(&mut self, machine: &Machine, config: &Arc<Config>) {
        let touched: BTreeSet<ProcessId> = match self.stage {
            Stage::Trying => {
                let judged = |process: &ProcessId| is_judged(&self.base.config, config, process);
                let mut touched = touched(&self.base.config, config);
                touched.retain(judged);
                touched
            }
            Stage::GoingBack => self.kept.before.keys().map(|id| id.process.clone()).collect(),
        };
        let awaited = awaited(config);
        for process in touched {
            let is_awaited = awaited.contains(&process);
            for (id, inst) in machine.instances_of(&process) {
                if inst.removed || self.kept.before.get(id).is_some_and(|before| before.failing) {
                    continue;
                }
                let judged = Judged { began: None, restarts: inst.restarts, awaited: is_awaited };
                self.open.insert(id.clone(), judged);
            }
        }
    }

    /// When [`Trial::look`] wants to be called, whatever happens.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Mono> {
        self.timers.next()
    }

    /// Looks at those that changed in a turn of the machine, and at those whose time is over.
    pub fn look(
        &mut self,
        machine: &Machine,
        changed: &BTreeSet<InstanceId>,
        now: Mono,
    ) -> Option<Ruling> {
        if machine.is_ending() {
            // What is not judged by now is not judged any more.
            self.timers = Timers::default();
            return None;
        }
        // Whoever is fewer is gone through.
        let concerned: Vec<InstanceId> = if changed.len() < self.open.len() {
            changed.iter().filter(|id| self.open.contains_key(*id)).cloned().collect()
        } else {
            self.open.keys().filter(|id| changed.contains(*id)).cloned().collect()
        };
        let open = self.open.len();
        for id in concerned {
            self.look_at(&id, machine, now);
        }
        while let Some(id) = self.timers.pop_due(now) {
            self.look_at(&id, machine, now);
        }
        self.look_at_those_behind(open, machine, now);
        self.rule(machine)
    }

    /// Looks at all that are judged, whatever changed.
    pub fn look_again(&mut self, machine: &Machine, now: Mono) -> Option<Ruling> {
        self.look(machine, &self.open.keys().cloned().collect(), now)
    }

    fn look_at_all(&mut self, machine: &Machine, now: Mono) {
        let all: Vec<InstanceId> = self.open.keys().cloned().collect();
        let open = all.len();
        for id in all {
            self.look_at(&id, machine, now);
        }
        self.look_at_those_behind(open, machine, now);
    }

    /// Where fewer than `open` are open by now: what is to be thought of those that wait may have
    /// changed, without a change of themselves.
    fn look_at_those_behind(&mut self, mut open: usize, machine: &Machine, now: Mono) {
        while self.open.len() < open {
            open = self.open.len();
            for id in self.behind.clone() {
                self.look_at(&id, machine, now);
            }
        }
    }

    fn look_at(&mut self, id: &InstanceId, machine: &Machine, now: Mono) {
        let Some(mut judged) = self.open.get(id).cloned() else { return };
        let standing = self.standing(&mut judged, machine, id, now);
        let began = judged.began;
        self.open.insert(id.clone(), judged);
        match &standing {
            Standing::Behind => self.behind.insert(id.clone()),
            _ => self.behind.remove(id),
        };
        match standing {
            Standing::Behind => self.timers.disarm(id),
            Standing::Good => {
                self.progress = now;
                self.close(id);
            }
            Standing::Bad(why) => {
                self.progress = now;
                self.close(id);
                self.found_bad(id, why);
            }
            // It has as long as those that it waits for, and then as long again.
            Standing::Waits => {
                let deadline = self.progress.after(self.limit);
                if deadline <= now {
                    let why = waited(machine, id, self.limit);
                    self.progress = now;
                    self.close(id);
                    self.found_bad(id, why);
                } else {
                    self.timers.arm(id.clone(), deadline);
                }
            }
            Standing::Open { good_at } => {
                let deadline = began.map(|began| began.after(self.limit));
                if deadline.is_some_and(|deadline| deadline <= now) {
                    let why = self.too_slow(machine, id);
                    self.progress = now;
                    self.close(id);
                    self.found_bad(id, why);
                    return;
                }
                let due = [good_at, deadline].into_iter().flatten().min();
                match due {
                    Some(due) => self.timers.arm(id.clone(), due),
                    None => self.timers.disarm(id),
                }
            }
        }
    }

    fn close(&mut self, id: &InstanceId) {
        self.open.remove(id);
        self.behind.remove(id);
        self.timers.disarm(id);
    }

    fn found_bad(&mut self, id: &InstanceId, why: String) {
        let fault = Fault { instance: id.clone(), why };
        match self.stage {
            Stage::Trying => self.faults.push(fault),
            Stage::GoingBack => self.lost.push(fault),
        }
    }

    fn rule(&mut self, machine: &Machine) -> Option<Ruling> {
        let trying = self.stage == Stage::Trying;
        if trying && !self.faults.is_empty() && self.mode == Rollback::Auto {
            let (base, before) = (self.base.clone(), self.kept.before.clone());
            return Some(Ruling::GoBack { base, before });
        }
        if !self.open.is_empty() || machine.is_reloading() {
            return None;
        }
        let faults = std::mem::take(&mut self.faults);
        Some(Ruling::Over(match self.stage {
            Stage::GoingBack => {
                Verdict::RolledBack { faults, lost: std::mem::take(&mut self.lost) }
            }
            Stage::Trying if faults.is_empty() => {
                Verdict::Good { still_failing: self.still_failing(machine) }
            }
            Stage::Trying => Verdict::Kept { faults },
        }))
    }

    fn still_failing(&self, machine: &Machine) -> Vec<Fault> {
        let excused = self.kept.before.iter().filter(|(_, before)| before.failing);
        let failing = excused.filter_map(|(id, _)| {
            let inst = machine.instance(id)?;
            let why = match inst.phase {
                Phase::Backoff { .. } | Phase::Failed => last_end(inst),
                _ => return None,
            };
            Some(Fault { instance: id.clone(), why })
        });
        failing.collect()
    }
}

/// Whether there is anything in a configuration that could come back. To an empty one nobody goes back:
/// of a first file with one mistake in it, all the rest would go too.
#[must_use]
pub fn is_worth_going_back_to(config: &Config) -> bool {
    !config.processes.is_empty()
}

/// Remembers how those are that `config` touches and of which nothing is remembered yet.
fn remember(
    before: &mut BTreeMap<InstanceId, Before>,
    machine: &Machine,
    base: &Config,
    config: &Config,
    now: Mono,
) {
    for process in &touched(base, config) {
        // What a former trial has touched is not as it was when the last good one was in force.
        if !machine.config().says_the_same(base, process) {
            continue;
        }
        for (id, inst) in machine.instances_of(process) {
            before.entry(id.clone()).or_insert_with(|| Before::of(inst, now));
        }
    }
}

/// The processes of which two configurations say different things.
fn touched(base: &Config, config: &Config) -> BTreeSet<ProcessId> {
    let managed = base.settings.enabled == config.settings.enabled;
    let differs = |(_, one, two): &Beside<'_>| match (one, two) {
        (Some(one), Some(two)) => !Arc::ptr_eq(one, two) && one != two,
        _ => true,
    };
    let all = base.beside(config).filter(|both| !managed || differs(both));
    all.map(|(id, ..)| id.clone()).collect()
}

/// Whether a change of a process says anything about whether it works.
fn is_judged(base: &Config, config: &Config, process: &ProcessId) -> bool {
    let Some(new) = config.processes.get(process) else { return false };
    let Some(old) = base.processes.get(process) else { return true };
    crate::fields::needs_restart(old, new)
        || old.health != new.health
        || old.readiness != new.readiness
        || old.instances < new.instances
        || (new.enabled && !old.enabled)
        || (config.settings.enabled && !base.settings.enabled)
}

/// The processes that others wait for to complete.
fn awaited(config: &Config) -> BTreeSet<ProcessId> {
    let edges = config.processes.values().flat_map(|spec| &spec.depends_on);
    let completed = edges.filter(|edge| edge.condition == Condition::Completed);
    completed.map(|edge| edge.on.clone()).collect()
}

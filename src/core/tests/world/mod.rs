//! A simulated outside for one machine: a clock, a backend that answers after drawn delays, an
//! independent model of what should be so, and the invariants that are checked after every turn.
//!
//! | part | owns |
//! |---|---|
//! | `backend` | how simulated processes behave, and when their answers come |
//! | `model` | what the outside knows: intent, runs, health, jobs; worked out without the machine |
//! | `facts` | what it knows of one instance and of one run |
//! | `watch` | what one turn may contain: each effect against the model |
//! | `results` | the same for what came of jobs and reloads |
//! | `notes` | what people are told of it |
//! | `steps` | the record of a reload, step by step |
//! | `turns` | who of several gets a new run, and when |
//! | `overlap` | two runs of one instance |
//! | `check` | what holds between turns |
//! | `dsl` | the words scenarios are written in |
//! | `chance` | drawn configurations, behaviours and edits |

// Each test uses its part of it; what is wrong in a test may panic.
#![allow(dead_code, missing_docs, clippy::unwrap_used)]

pub mod backend;
pub mod chance;
pub mod check;
pub mod dsl;
pub mod facts;
pub mod model;
pub mod notes;
pub mod overlap;
pub mod results;
pub mod steps;
pub mod turns;
pub mod watch;

use backend::Backend;
use model::Model;
use provost_core::Machine;
use provost_core::event::{Effect, Event};
use provost_core::ids::{Generation, Request};
use provost_core::reload::Plan;
use provost_core::time::Mono;
use provost_core::trial::{self, Ruling, Trial};
use std::fmt::Write;

/// What was seen is in order, or what was wrong.
pub type Verdict = Result<(), String>;

/// Ends a function with what is wrong, unless it is so.
#[macro_export]
macro_rules! hold {
    ($condition:expr, $($what:tt)+) => {
        if !$condition {
            return Err(format!($($what)+));
        }
    };
}

/// One machine and all that is around it.
pub struct World {
    pub machine: Machine,
    pub now: Mono,
    pub backend: Backend,
    pub model: Model,
    /// The effects of the last turn.
    pub effects: Vec<Effect>,
    /// Compare all that can be compared after each turn, which takes time.
    pub deep: bool,
    /// What happened, in words, where somebody wants to read it.
    pub trace: Option<String>,
    /// All that the machine was told, for a second one to be told the same.
    pub told: Option<Vec<(Mono, Option<Event>)>>,
    /// Whether new configurations are judged, and go when they do not come up.
    pub judges: bool,
    /// What is on trial.
    pub trial: Option<Trial>,
    /// How trials ended.
    pub verdicts: Vec<(Generation, trial::Verdict)>,
    /// A text of all effects in a row, as short as a hash.
    pub fingerprint: u64,
}

impl World {
    pub fn new(seed: u64) -> World {
        World {
            machine: Machine::new(seed),
            now: Mono(1_000_000_000),
            backend: Backend::default(),
            model: Model::default(),
            effects: Vec::new(),
            deep: true,
            trace: None,
            told: None,
            judges: false,
            trial: None,
            verdicts: Vec::new(),
            fingerprint: 0,
        }
    }

    /// Tells the machine one event and looks at what it does about it.
    pub fn feed(&mut self, event: Event) -> Verdict {
        let Event::ConfigAccepted { config, generation, .. } = &event else {
            self.feed_one(event)?;
            return self.judge();
        };
        if !self.judges {
            return self.feed_one(event);
        }
        let (former, now) = (self.trial.take(), self.now);
        let mut trial = Trial::prepare(&self.machine, former.as_ref(), *generation, config, now);
        self.feed_one(event)?;
        self.trial = match &self.model.last_answer {
            Some(Ok(jobs)) if !jobs.is_empty() => {
                if let Some(trial) = &mut trial {
                    trial.begin(&self.machine, now);
                }
                trial
            }
            // Nothing became of it.
            _ => former,
        };
        self.judge()
    }

    /// Has the trial look at what changed, and does what it says.
    fn judge(&mut self) -> Verdict {
        let changed = self.machine.take_unsaved();
        if self.machine.is_ending() {
            self.trial = None;
        }
        let Some(trial) = &mut self.trial else { return Ok(()) };
        match trial.look(&self.machine, &changed, self.now) {
            None => Ok(()),
            Some(Ruling::Over(verdict)) => {
                if let Some(trace) = &mut self.trace {
                    let _ = writeln!(trace, "              ⇒ {verdict:?}");
                }
                let (generation, config) = (self.machine.generation(), self.machine.config());
                let base = trial.base();
                let right = match verdict {
                    trial::Verdict::RolledBack { .. } => {
                        // A file that says the same with another `autoStart` is no other generation.
                        let same = Plan::between(config, &base.config).is_empty();
                        generation == base.generation && same
                    }
                    _ => generation == trial.tried(),
                };
                hold!(right, "generation {generation} is in force after {verdict:?}");
                self.verdicts.push((trial.tried(), verdict));
                self.trial = None;
                Ok(())
            }
            Some(Ruling::GoBack { base, before }) => {
                let request = Request(1_000_000 + base.generation.0);
                let (config, generation) = (base.config, base.generation);
                self.feed_one(Event::ConfigWithdrawn { request, config, generation, before })?;
                if let Some(trial) = &mut self.trial {
                    trial.began_to_go_back(&self.machine, self.now);
                }
                self.judge()
            }
        }
    }

    /// The same for the machine alone: what is on trial may have something to do by now.
    pub fn feed_one(&mut self, event: Event) -> Verdict {
        if let Some(trace) = &mut self.trace {
            let _ = writeln!(trace, "{:>12.6}  {}", seconds(self.now), told(&event));
        }
        if let Some(told) = &mut self.told {
            told.push((self.now, Some(event.clone())));
        }
        self.model.begin(Some(&event), self.now);
        let mut out = std::mem::take(&mut self.effects);
        out.clear();
        self.machine.handle(event, self.now, &mut out);
        self.turn(out, false)
    }

    /// Tells the machine the time.
    pub fn tick(&mut self) -> Verdict {
        let due = self.machine.poll_timeout().is_some_and(|at| at <= self.now);
        if let Some(trace) = &mut self.trace {
            let _ = writeln!(
                trace,
                "{:>12.6}  timeout{}",
                seconds(self.now),
                if due { "" } else { " (spurious)" }
            );
        }
        if let Some(told) = &mut self.told {
            told.push((self.now, None));
        }
        self.model.begin(None, self.now);
        let mut out = std::mem::take(&mut self.effects);
        out.clear();
        self.machine.handle_timeout(self.now, &mut out);
        if !due && !out.is_empty() {
            return Err(format!("a spurious timeout did something: {out:?}"));
        }
        let nothing = out.is_empty();
        self.turn(out, true)?;
        self.judge()?;
        if due && nothing && self.model.dirty.is_empty() {
            return Err("a deadline woke the machine for nothing".to_owned());
        }
        Ok(())
    }

    fn turn(&mut self, out: Vec<Effect>, timeout: bool) -> Verdict {
        if let Some(trace) = &mut self.trace {
            for effect in &out {
                let _ = writeln!(trace, "              → {}", done(effect));
            }
        }
        let mut verdict = Ok(());
        for effect in &out {
            if self.told.is_some() {
                self.fingerprint = mix(self.fingerprint, effect);
            }
            verdict = verdict.and_then(|()| self.model.watch(effect, self.now));
            self.backend.carry_out(effect, self.now);
        }
        self.effects = out;
        verdict?;
        self.model.refresh_views(&mut self.machine, self.now);
        self.model.end(&self.machine, self.now, timeout, self.deep)
    }

    /// When something will happen by itself.
    pub fn next_due(&self) -> Option<Mono> {
        [self.backend.next_due(), self.poll_timeout()].into_iter().flatten().min()
    }

    /// When the machine or the trial wants to be woken.
    pub fn poll_timeout(&self) -> Option<Mono> {
        let trial = self.trial.as_ref().and_then(Trial::poll_timeout);
        [self.machine.poll_timeout(), trial].into_iter().flatten().min()
    }

    /// Lets the next thing happen by itself. At the same moment, `timeout_first` decides. False:
    /// nothing ever will.
    pub fn next(&mut self, timeout_first: bool) -> Result<bool, String> {
        let Some(due) = self.next_due() else { return Ok(false) };
        self.now = self.now.max(due);
        let timeout = self.poll_timeout().is_some_and(|at| at <= self.now);
        let answer = self.backend.next_due().is_some_and(|at| at <= self.now);
        if timeout && (timeout_first || !answer) {
            self.tick()?;
        } else if let Some(event) = self.backend.take(0) {
            self.feed(event)?;
        }
        Ok(true)
    }
}

/// An event in a trace.
fn told(event: &Event) -> String {
    match event {
        Event::ConfigAccepted { generation, config, .. } => {
            let processes: Vec<String> = config.processes.values().map(|s| brief_spec(s)).collect();
            let settings = &config.settings;
            format!(
                "ConfigAccepted {generation}, enabled {}, autoStart {}\n                  {}",
                settings.enabled,
                settings.auto_start,
                processes.join("\n                  ")
            )
        }
        other => format!("{other:?}"),
    }
}

/// A process in a trace.
pub fn brief_spec(spec: &provost_core::spec::ProcessSpec) -> String {
    let edges: Vec<String> = spec
        .depends_on
        .iter()
        .map(|e| format!("{} {}{}", e.on, e.condition, if e.restart { " restart" } else { "" }))
        .collect();
    format!(
        "{} x{}{} {:?} on [{}] {:?}{}{}",
        spec.id,
        spec.instances,
        if spec.enabled { "" } else { " disabled" },
        spec.exec.command,
        edges.join(", "),
        spec.restart.condition,
        if spec.health.is_some() { " checked" } else { "" },
        if spec.essential { " essential" } else { "" },
    )
}

/// An effect in a trace.
fn done(effect: &Effect) -> String {
    match effect {
        Effect::Note(note) => match &note.instance {
            Some(id) => format!("  {id}: {}", note.what),
            None => format!("  {}", note.what),
        },
        Effect::Spawn { instance, run, spec, .. } => {
            format!("Spawn {instance} run {run} {:?}", spec.exec.command)
        }
        Effect::Probe { instance, probe, .. } => format!("Probe {instance} {probe}"),
        Effect::ReloadFinished(report) => format!("ReloadFinished {}", report.result.as_str()),
        other => format!("{other:?}"),
    }
}

#[allow(clippy::cast_precision_loss)]
fn seconds(at: Mono) -> f64 {
    at.0 as f64 / 1e9
}

fn mix(mut hash: u64, effect: &Effect) -> u64 {
    struct Fnv<'a>(&'a mut u64);
    impl std::fmt::Write for Fnv<'_> {
        fn write_str(&mut self, s: &str) -> std::fmt::Result {
            for byte in s.bytes() {
                *self.0 = (*self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
            Ok(())
        }
    }
    let _ = write!(Fnv(&mut hash), "{effect:?}");
    hash
}

/// The fingerprint of a second machine that is told the same.
pub fn replay(seed: u64, told: &[(Mono, Option<Event>)]) -> u64 {
    let mut machine = Machine::new(seed);
    let mut out = Vec::new();
    let mut hash = 0;
    for (now, event) in told {
        match event {
            Some(event) => machine.handle(event.clone(), *now, &mut out),
            None => machine.handle_timeout(*now, &mut out),
        }
        for effect in out.drain(..) {
            hash = mix(hash, &effect);
        }
    }
    hash
}

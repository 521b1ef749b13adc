//! How simulated processes behave, and when their answers come.
//!
//! It keeps the rules of a real backend: `Spawned` or `SpawnFailed` first, then `Exited`, then
//! `Emptied`, each once. What comes late, twice or never beyond that is brought in by the tests.

use provost_core::event::{Effect, Event, ExitStatus, SpawnError, SpawnStage, Told};
use provost_core::ids::{InstanceId, ProcessId, Run};
use provost_core::spec::{ProcessSpec, Signal};
use provost_core::time::Mono;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a spawn comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Spawning {
    /// Executed after so long.
    Works(Duration),
    /// Not executed, which is known after so long.
    Fails(Duration),
    /// No answer.
    Silent,
}

/// What the main process leaves behind when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftovers {
    Nothing,
    /// Descendants that end when asked to.
    Polite,
    /// Descendants that end when killed.
    Stubborn,
}

/// What a check of a run finds.
#[derive(Clone, Debug, PartialEq)]
pub enum Finding {
    Healthy,
    Ill(&'static str),
    /// The check is lost.
    Lost,
}

/// How one run behaves.
#[derive(Clone, Debug)]
pub struct Behaviour {
    pub spawn: Spawning,
    /// It ends by itself so long after it was executed.
    pub life: Option<(Duration, ExitStatus)>,
    /// It ends so long after it was asked to; None: it does not listen.
    pub term: Option<(Duration, ExitStatus)>,
    pub leftovers: Leftovers,
    /// Kills that have no effect.
    pub immune: u32,
    /// From the last end to nothing left.
    pub reap: Duration,
    /// Also what comes of a command by which it takes new settings.
    pub finding: Finding,
    /// How long a check takes, and a command by which it takes new settings.
    pub probe: Duration,
}

/// Ended by SIGTERM.
pub const TERMINATED: ExitStatus = ExitStatus::Signal { signal: Signal::TERM, core: false };
/// Ended by SIGKILL.
pub const KILLED: ExitStatus = ExitStatus::Signal { signal: Signal::KILL, core: false };

impl Default for Behaviour {
    /// Starts at once, runs on, ends at once when asked, is healthy.
    fn default() -> Self {
        Behaviour {
            spawn: Spawning::Works(Duration::ZERO),
            life: None,
            term: Some((Duration::ZERO, TERMINATED)),
            leftovers: Leftovers::Nothing,
            immune: 0,
            reap: Duration::ZERO,
            finding: Finding::Healthy,
            probe: Duration::ZERO,
        }
    }
}

#[derive(Debug)]
struct Running {
    behaviour: Behaviour,
    /// It says by itself when it is ready.
    speaks: bool,
    instance: InstanceId,
    /// Executed, or on the way to be: when.
    spawned: Option<Mono>,
    /// When its main process ends or ended, and the answer that says so while it is under way.
    exit: Option<(Mono, Option<u64>)>,
    empty: bool,
}

/// What one run does is drawn by this.
pub type Nature = Box<dyn FnMut(&ProcessSpec, Run) -> Behaviour>;

/// All simulated processes.
#[derive(Default)]
pub struct Backend {
    /// Answers on their way, by time and order.
    pending: Vec<(Mono, u64, Event)>,
    seq: u64,
    runs: BTreeMap<Run, Running>,
    /// Draws behaviours; without one, `scripted` says.
    pub nature: Option<Nature>,
    /// What was said of a process, or of one instance by its name.
    scripted: BTreeMap<String, Behaviour>,
    next_pid: u32,
}

impl Backend {
    /// From now on the runs of a process behave so, those that exist included.
    pub fn script(&mut self, name: &str, behaviour: Behaviour) {
        for running in self.runs.values_mut() {
            if running.instance.process.as_str() == name || running.instance.to_string() == name {
                running.behaviour = behaviour.clone();
            }
        }
        self.scripted.insert(name.to_owned(), behaviour);
    }

    pub fn scripted(&self, instance: &InstanceId) -> Behaviour {
        self.scripted
            .get(&instance.to_string())
            .or_else(|| self.scripted.get(instance.process.as_str()))
            .cloned()
            .unwrap_or_default()
    }

    pub fn scripted_for(&self, name: &str) -> Behaviour {
        self.scripted.get(name).cloned().unwrap_or_default()
    }

    /// Changes how a run behaves.
    pub fn change(&mut self, run: Run, with: impl FnOnce(&mut Behaviour)) {
        if let Some(running) = self.runs.get_mut(&run) {
            with(&mut running.behaviour);
        }
    }

    /// Runs whose main process exists.
    pub fn alive(&self) -> impl Iterator<Item = (Run, &InstanceId)> {
        self.runs
            .iter()
            .filter(|(_, r)| r.spawned.is_some() && r.exit.is_none() && !r.empty)
            .map(|(run, r)| (*run, &r.instance))
    }

    /// Runs of which anything exists, or may.
    pub fn anything(&self) -> usize {
        self.runs.len()
    }

    pub fn next_due(&self) -> Option<Mono> {
        self.pending.iter().map(|(at, _, _)| *at).min()
    }

    pub fn pending(&self) -> impl Iterator<Item = (Mono, &Event)> {
        self.pending.iter().map(|(at, _, event)| (*at, event))
    }

    fn post(&mut self, at: Mono, event: Event) -> u64 {
        self.seq += 1;
        self.pending.push((at, self.seq, event));
        self.seq
    }

    /// Takes out the answer that is the `nth` to come, of those that no other of the same run must
    /// come before.
    pub fn take(&mut self, nth: usize) -> Option<Event> {
        let mut order: Vec<(Mono, u64, usize)> =
            self.pending.iter().enumerate().map(|(i, (at, seq, _))| (*at, *seq, i)).collect();
        order.sort_unstable();
        let mut seen = Vec::new();
        let first_of_run: Vec<usize> = order
            .into_iter()
            .filter(|(_, _, i)| match run_of(&self.pending[*i].2) {
                Some(run) if seen.contains(&run) => false,
                Some(run) => {
                    seen.push(run);
                    true
                }
                None => true,
            })
            .map(|(_, _, i)| i)
            .collect();
        let at = *first_of_run.get(nth % first_of_run.len().max(1))?;
        let (_, _, event) = self.pending.swap_remove(at);
        if let Event::Exited { run, .. } = &event
            && let Some(Running { exit: Some((_, seq)), .. }) = self.runs.get_mut(run)
        {
            *seq = None;
        }
        if let Event::Emptied { run, .. } | Event::SpawnFailed { run, .. } = &event {
            self.runs.remove(run);
        }
        Some(event)
    }

    /// The main process of a run ends, at `at` or when it was going to, whichever is earlier.
    pub fn exit(&mut self, run: Run, at: Mono, status: ExitStatus) {
        let Some(running) = self.runs.get(&run) else { return };
        let Some(spawned) = running.spawned else { return };
        let at = at.max(spawned);
        match running.exit {
            Some((_, None)) => return,
            Some((due, Some(_))) if due <= at => return,
            Some((_, Some(seq))) => {
                self.pending.retain(|(_, s, event)| {
                    *s != seq && !matches!(event, Event::Emptied { run: r, .. } if *r == run)
                });
            }
            None => {}
        }
        let instance = running.instance.clone();
        let seq = self.post(at, Event::Exited { instance, run, status });
        let Some(running) = self.runs.get_mut(&run) else { return };
        running.exit = Some((at, Some(seq)));
        running.empty = false;
        if running.behaviour.leftovers == Leftovers::Nothing {
            self.empty(run, at);
        }
    }

    fn empty(&mut self, run: Run, at: Mono) {
        let Some(running) = self.runs.get_mut(&run) else { return };
        if running.empty {
            return;
        }
        running.empty = true;
        let at = at.after(running.behaviour.reap);
        let instance = running.instance.clone();
        self.post(at, Event::Emptied { instance, run });
    }

    /// Does what the machine says.
    pub fn carry_out(&mut self, effect: &Effect, now: Mono) {
        match effect {
            Effect::Spawn { instance, run, spec, .. } => self.spawn(instance, *run, spec, now),
            Effect::Terminate { run, .. } => self.terminate(*run, now),
            Effect::Kill { run, .. } => self.kill(*run, now),
            Effect::Probe { instance, run, probe, .. } => {
                let Some(running) = self.runs.get(run) else { return };
                let at = now.after(running.behaviour.probe);
                let outcome = match running.behaviour.finding {
                    Finding::Healthy => Ok(()),
                    Finding::Ill(detail) => Err(detail.to_owned()),
                    Finding::Lost => return,
                };
                let (instance, run, probe) = (instance.clone(), *run, *probe);
                self.post(at, Event::Probed { instance, run, probe, outcome });
            }
            Effect::Reload { instance, run, reload, .. } => {
                let Some(running) = self.runs.get(run) else { return };
                let at = now.after(running.behaviour.probe);
                let outcome = match running.behaviour.finding {
                    Finding::Healthy => Ok(()),
                    Finding::Ill(detail) => Err(detail.to_owned()),
                    Finding::Lost => return,
                };
                let (instance, run, reload) = (instance.clone(), *run, *reload);
                self.post(at, Event::Reloaded { instance, run, reload, outcome });
            }
            _ => {}
        }
    }

    fn spawn(&mut self, instance: &InstanceId, run: Run, spec: &ProcessSpec, now: Mono) {
        let speaks = spec.notify().is_some();
        let behaviour = match &mut self.nature {
            Some(nature) => nature(spec, run),
            None => self.scripted(instance),
        };
        let (spawn, life) = (behaviour.spawn.clone(), behaviour.life);
        let instance = instance.clone();
        let running = Running {
            behaviour,
            speaks,
            instance: instance.clone(),
            spawned: None,
            exit: None,
            empty: false,
        };
        self.runs.insert(run, running);
        match spawn {
            Spawning::Works(after) => self.execute(run, now.after(after), life),
            Spawning::Fails(after) => {
                let error = SpawnError {
                    stage: SpawnStage::Exec,
                    subject: "x".to_owned(),
                    reason: "No such file or directory".to_owned(),
                };
                self.post(now.after(after), Event::SpawnFailed { instance, run, error });
            }
            Spawning::Silent => {}
        }
    }

    /// A spawn that was silent works after all.
    pub fn execute(&mut self, run: Run, at: Mono, life: Option<(Duration, ExitStatus)>) {
        let Some(running) = self.runs.get_mut(&run) else { return };
        running.spawned = Some(at);
        let instance = running.instance.clone();
        self.next_pid += 1;
        let pid = 100 + self.next_pid;
        let (speaks, behaviour) = (running.speaks, running.behaviour.clone());
        let ready = Event::Notified { instance: instance.clone(), run, told: Told::Ready };
        // One that is quick is heard before word of its start comes.
        let is_quick = behaviour.probe.is_zero();
        if speaks && behaviour.finding == Finding::Healthy && is_quick {
            self.post(at, ready.clone());
        }
        self.post(at, Event::Spawned { instance, run, pid });
        if speaks && behaviour.finding == Finding::Healthy && !is_quick {
            self.post(at.after(behaviour.probe), ready);
        }
        if let Some((span, status)) = life {
            self.exit(run, at.after(span), status);
        }
    }

    fn terminate(&mut self, run: Run, now: Mono) {
        let Some(running) = self.runs.get(&run) else { return };
        let gone = matches!(running.exit, Some((at, _)) if at <= now);
        match (gone, running.behaviour.leftovers, running.behaviour.term) {
            (true, Leftovers::Polite, term) => {
                self.empty(run, now.after(term.map_or(Duration::ZERO, |(span, _)| span)));
            }
            (true, _, _) | (false, _, None) => {}
            (false, _, Some((span, status))) => self.exit(run, now.after(span), status),
        }
    }

    fn kill(&mut self, run: Run, now: Mono) {
        let Some(running) = self.runs.get_mut(&run) else { return };
        if running.behaviour.immune > 0 {
            running.behaviour.immune -= 1;
            return;
        }
        self.exit(run, now, KILLED);
        if let Some(Running { exit: Some((at, _)), .. }) = self.runs.get(&run) {
            let at = (*at).max(now);
            self.empty(run, at);
        }
    }

    /// A run is gone without a word.
    pub fn forget(&mut self, run: Run) {
        self.runs.remove(&run);
    }

    /// All runs of a process that exist.
    pub fn runs_of(&self, process: &ProcessId) -> Vec<Run> {
        let of = self.runs.iter().filter(|(_, running)| running.instance.process == *process);
        of.map(|(run, _)| *run).collect()
    }
}

fn run_of(event: &Event) -> Option<Run> {
    match event {
        Event::Spawned { run, .. }
        | Event::SpawnFailed { run, .. }
        | Event::Exited { run, .. }
        | Event::Emptied { run, .. } => Some(*run),
        // Answers of checks come when they come.
        _ => None,
    }
}

// A supervisor that is killed, and the next one.
impl Backend {
    /// The supervisor is killed now and another one begins at `again`. Returns the runs of which
    /// anything is there then; what happens to them from then on is reported. `lucky` says of each
    /// spawn under way whether the process had been let go.
    pub fn killed(
        &mut self,
        now: Mono,
        again: Mono,
        mut lucky: impl FnMut() -> bool,
    ) -> BTreeSet<(InstanceId, Run)> {
        let is_passing = |e: &Event| {
            matches!(e, Event::Probed { .. } | Event::Notified { .. } | Event::Reloaded { .. })
        };
        self.pending.retain(|(_, _, event)| !is_passing(event));
        let runs: Vec<Run> = self.runs.keys().copied().collect();
        for run in runs {
            let running = &self.runs[&run];
            let under_way = running.spawned.is_none_or(|at| at > now);
            let may_be = running.spawned.is_some();
            let empty_at = self.pending.iter().find_map(|(at, _, event)| match event {
                Event::Emptied { run: r, .. } if *r == run => Some(*at),
                _ => None,
            });
            let gone =
                (under_way && !(may_be && lucky())) || empty_at.is_some_and(|at| at <= again);
            if gone {
                self.runs.remove(&run);
                self.pending.retain(|(_, _, event)| run_of(event) != Some(run));
            }
        }
        // What happened in between is found when somebody looks, and how it ended is not.
        for (at, _, event) in &mut self.pending {
            if *at <= again {
                *at = again;
                if let Event::Exited { status, .. } = event {
                    *status = ExitStatus::Unknown;
                }
            }
        }
        self.runs.iter().map(|(run, running)| (running.instance.clone(), *run)).collect()
    }

    /// The instances whose processes exist, once for each run.
    pub fn instances(&self) -> impl Iterator<Item = (&InstanceId, Run)> {
        self.runs.iter().map(|(run, running)| (&running.instance, *run))
    }
}

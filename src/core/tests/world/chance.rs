//! Drawn configurations, behaviours and edits. Everything is a function of a number.

use super::backend::{Behaviour, Finding, KILLED, Leftovers, Spawning, TERMINATED};
use provost_core::event::ExitStatus;
use provost_core::ids::ProcessId;
use provost_core::spec::{
    Check, Command, Condition, Config, Dependency, HealthCheck, OnFailure, ProcessSpec, Readiness,
    ReloadSpec, RestartCondition, RestartPolicy, Signal, StopSpec, Text, WatchAction, WatchSpec,
};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// A source of numbers (SplitMix64).
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Less than `n`; 0 where that is 0.
    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.roll() >> 16).unwrap() % n.max(1)
    }

    /// True in so many of a thousand.
    pub fn chance(&mut self, per_mille: usize) -> bool {
        self.below(1000) < per_mille
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

pub fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// The pool that process ids are taken from.
pub const POOL: usize = 9;

pub fn name(n: usize) -> ProcessId {
    ProcessId::new(&format!("p{n}")).unwrap()
}

/// A configuration of `count` processes.
pub fn config(dice: &mut Dice, count: usize) -> Config {
    let mut config = Config::default();
    config.settings.auto_start = !dice.chance(60);
    config.settings.enabled = !dice.chance(20);
    for n in 0..count {
        config.processes.insert(name(n), Arc::new(process(dice, n)));
    }
    connect(dice, &mut config);
    config
}

fn process(dice: &mut Dice, n: usize) -> ProcessSpec {
    let mut spec = ProcessSpec::new(name(n), Command::Shell(Text::new("v0")));
    change_live(dice, &mut spec);
    if dice.chance(150) {
        spec.readiness = Readiness::Notify;
    }
    spec.enabled = !dice.chance(80);
    spec.instances = dice.pick(&[1, 1, 1, 2, 2, 3, 4]);
    spec.max_unavailable = at_once(dice);
    spec.overlap = dice.chance(400);
    spec.essential = dice.chance(15);
    spec
}

fn at_once(dice: &mut Dice) -> NonZeroU32 {
    NonZeroU32::new(dice.pick(&[1, 1, 1, 2, 3])).unwrap()
}

/// New settings that need no new run.
fn change_live(dice: &mut Dice, spec: &mut ProcessSpec) {
    spec.health = dice.chance(450).then(|| {
        Box::new(HealthCheck {
            check: Check::Tcp(Text::new(dice.pick(&["h:1", "h:2"]))),
            interval: millis(dice.pick(&[500, 2_000, 7_000])),
            timeout: millis(dice.pick(&[500, 1_000, 3_000])),
            start_period: millis(dice.pick(&[0, 0, 3_000])),
            failure_threshold: dice.pick(&[1, 2, 3]),
            success_threshold: dice.pick(&[1, 1, 2]),
            on_failure: dice.pick(&[
                OnFailure::Restart,
                OnFailure::Restart,
                OnFailure::Restart,
                OnFailure::None,
                OnFailure::Stop,
            ]),
        })
    });
    spec.readiness = match spec.health {
        _ if spec.readiness == Readiness::Notify => Readiness::Notify,
        Some(_) if dice.chance(800) => Readiness::Health,
        _ => Readiness::Started,
    };
    spec.start_timeout = millis(dice.pick(&[2_000, 5_000, 20_000]));
    spec.stop = StopSpec { signal: Signal::TERM, timeout: millis(dice.pick(&[0, 1_000, 5_000])) };
    spec.restart = RestartPolicy {
        condition: dice.pick(&[
            RestartCondition::Always,
            RestartCondition::Always,
            RestartCondition::UnlessStopped,
            RestartCondition::OnFailure,
            RestartCondition::No,
        ]),
        delay: millis(dice.pick(&[0, 100, 1_000])),
        max_delay: millis(dice.pick(&[1_000, 10_000, 60_000])),
        factor: dice.pick(&[1.0, 2.0, 3.0]),
        jitter: dice.pick(&[0.0, 0.2, 1.0]),
        min_uptime: millis(dice.pick(&[0, 1_000, 10_000])),
        max_attempts: dice.pick(&[None, None, None, Some(0), Some(1), Some(3)]),
        ..RestartPolicy::default()
    }
    .into();
    spec.reload = match dice.below(5) {
        0 => Some(ReloadSpec::Signal(Signal(1))),
        1 | 2 => Some(ReloadSpec::Command {
            command: Arc::from([Text::new("reread")]),
            timeout: millis(dice.pick(&[100, 2_000, 10_000])),
        }),
        _ => None,
    };
    spec.watch = dice.chance(400).then(|| {
        Box::new(WatchSpec {
            paths: Arc::from([Text::new("/x")]),
            ignore: Arc::default(),
            action: match spec.reload {
                Some(_) if dice.chance(600) => WatchAction::Reload,
                _ => WatchAction::Restart,
            },
            debounce: millis(200),
        })
    });
    spec.limits.tasks = dice.pick(&[None, None, Some(10), Some(20)]);
    spec.limits.max_memory_restart = dice.pick(&[None, None, Some(4 << 20)]);
}

/// New edges: a random order decides who may depend on whom, so that there is no cycle.
fn connect(dice: &mut Dice, config: &mut Config) {
    let mut order: Vec<ProcessId> = config.processes.keys().cloned().collect();
    for i in (1..order.len()).rev() {
        order.swap(i, dice.below(i + 1));
    }
    let density = dice.pick(&[200, 350, 600]);
    let restarts = dice.pick(&[0, 200, 600]);
    for (at, id) in order.iter().enumerate() {
        let mut edges = Vec::new();
        for on in &order[..at] {
            if dice.chance(density) {
                let condition = dice.pick(&[
                    Condition::Started,
                    Condition::Ready,
                    Condition::Ready,
                    Condition::Healthy,
                    Condition::Completed,
                ]);
                let restart = dice.chance(restarts);
                edges.push(Dependency { on: on.clone(), condition, restart });
            }
        }
        edges.sort();
        Arc::make_mut(config.processes.get_mut(id).unwrap()).depends_on = edges;
    }
    mend(config);
}

/// Makes a configuration one that validation lets through.
pub fn mend(config: &mut Config) {
    let kinds: BTreeMap<ProcessId, (bool, bool)> = config
        .processes
        .iter()
        .map(|(id, spec)| {
            let ends = matches!(
                spec.restart.condition,
                RestartCondition::No | RestartCondition::OnFailure
            );
            (id.clone(), (spec.health.is_some(), ends))
        })
        .collect();
    for spec in config.processes.values_mut() {
        let good = |edge: &Dependency| match (edge.condition, kinds.get(&edge.on)) {
            (_, None) => false,
            (Condition::Healthy, Some((checked, _))) => *checked,
            (Condition::Completed, Some((_, ends))) => *ends,
            _ => true,
        };
        if spec.depends_on.iter().all(good) {
            continue;
        }
        let spec = Arc::make_mut(spec);
        spec.depends_on.retain(|edge| kinds.contains_key(&edge.on));
        for edge in &mut spec.depends_on {
            if !good(edge) {
                edge.condition = Condition::Ready;
            }
        }
    }
}

/// An edit as somebody may make it.
pub fn edit(dice: &mut Dice, config: &mut Config) {
    for _ in 0..=dice.below(3) {
        let ids: Vec<ProcessId> = config.processes.keys().cloned().collect();
        let kind = dice.below(20);
        if ids.is_empty() || kind == 0 {
            let n = dice.below(POOL);
            let fresh = process(dice, n);
            config.processes.entry(name(n)).or_insert_with(|| Arc::new(fresh));
            if dice.chance(500) {
                connect(dice, config);
            }
            continue;
        }
        let id = ids[dice.below(ids.len())].clone();
        if kind == 1 || kind == 2 {
            config.processes.remove(&id);
            continue;
        }
        match kind {
            3 => config.settings.enabled = dice.chance(700),
            4 => config.settings.auto_start = dice.chance(700),
            5 => connect(dice, config),
            _ => {
                let spec = Arc::make_mut(config.processes.get_mut(&id).unwrap());
                match kind {
                    6 | 7 => spec.enabled = dice.chance(500),
                    8 | 9 => spec.instances = dice.pick(&[1, 2, 3, 4]),
                    10 if dice.chance(500) => spec.overlap = dice.chance(500),
                    10 => spec.description = Some(Arc::from(dice.pick(&["a", "b"]))),
                    11 => change_live(dice, spec),
                    12 => {
                        change_live(dice, spec);
                        spec.max_unavailable = at_once(dice);
                    }
                    13 => {
                        spec.depends_on.pop();
                    }
                    14 => spec.essential = dice.chance(30),
                    _ => {
                        let line = dice.pick(&["v0", "v1", "v2"]);
                        spec.exec.command = Command::Shell(Text::new(line));
                    }
                }
            }
        }
    }
    mend(config);
}

/// How a run behaves. One-shots mostly end with success.
pub fn behaviour(dice: &mut Dice, one_shot: bool) -> Behaviour {
    let spawn = match dice.below(20) {
        0 | 1 => Spawning::Fails(millis(dice.pick(&[0, 30]))),
        n => Spawning::Works(millis([0, 1, 20, 400][n % 4])),
    };
    let status = match dice.below(if one_shot { 12 } else { 8 }) {
        0 => ExitStatus::Code(1),
        1 => ExitStatus::Code(3),
        2 => KILLED,
        3 => ExitStatus::Unknown,
        _ => ExitStatus::Code(0),
    };
    let lives = one_shot || dice.chance(300);
    let life = lives.then(|| (millis(dice.pick(&[0, 5, 300, 1_500, 12_000])), status));
    let term = match dice.below(10) {
        0 | 1 => None,
        n => Some((
            millis([0, 10, 900, 3_000][n % 4]),
            if n == 9 { ExitStatus::Code(0) } else { TERMINATED },
        )),
    };
    Behaviour {
        spawn,
        life,
        term,
        leftovers: dice.pick(&[
            Leftovers::Nothing,
            Leftovers::Nothing,
            Leftovers::Nothing,
            Leftovers::Nothing,
            Leftovers::Polite,
            Leftovers::Stubborn,
        ]),
        immune: u32::from(dice.chance(50)),
        reap: millis(dice.pick(&[0, 0, 15])),
        finding: finding(dice),
        probe: millis(dice.pick(&[0, 10, 700, 4_000])),
    }
}

pub fn finding(dice: &mut Dice) -> Finding {
    match dice.below(12) {
        0 | 1 => Finding::Ill("HTTP 500"),
        2 => Finding::Lost,
        _ => Finding::Healthy,
    }
}

//! Ten thousand instances: what is done must grow like what there is, not like its square.
//!
//! No absolute time is asserted, since the machine that tests run on has other work: four times as
//! many instances may take less than nine times as long (a square would take sixteen times), the
//! best of several tries each.

use crate::*;
use provost_core::Machine;
use provost_core::event::Effect;
use provost_core::ids::{Generation, InstanceId, Request};
use provost_core::spec::Config;
use provost_core::time::Mono;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A machine whose processes do at once what they are asked.
struct Crowd {
    machine: Machine,
    spawned: usize,
    ended: usize,
    reloads: u64,
}

impl Crowd {
    fn tell(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        let mut out = Vec::new();
        while let Some(event) = events.pop_front() {
            self.machine.handle(event, Mono(1), &mut out);
            for effect in out.drain(..) {
                match effect {
                    Effect::Spawn { instance, run, .. } => {
                        self.spawned += 1;
                        events.push_back(Event::Spawned { instance, run, pid: 1 });
                    }
                    Effect::Terminate { instance, run, .. }
                        if self.machine.view(&instance).is_some_and(|view| view.pid.is_some()) =>
                    {
                        self.ended += 1;
                        let status = ExitStatus::Code(0);
                        events.push_back(Event::Exited { instance: instance.clone(), run, status });
                        events.push_back(Event::Emptied { instance, run });
                    }
                    _ => {}
                }
            }
            self.machine.take_dirty();
        }
    }

    fn config(&mut self, processes: impl Iterator<Item = Process>) {
        self.reloads += 1;
        let processes = processes.map(|p| (p.0.id.clone(), Arc::new(p.0))).collect();
        let config = Arc::new(Config { processes, ..Config::default() });
        let generation = Generation(self.reloads);
        self.tell(Event::ConfigAccepted { request: Request(1), config, generation });
    }

    fn all(&self) -> Vec<InstanceId> {
        self.machine.instances().cloned().collect()
    }
}

fn name(n: usize) -> String {
    format!("p{n:05}")
}

/// How long it takes with `n`; twice as long is told by `what` itself where it does not do all.
fn takes(n: usize, what: &dyn Fn(usize, &mut Crowd)) -> Duration {
    let once = || {
        let mut crowd = Crowd { machine: Machine::new(1), spawned: 0, ended: 0, reloads: 0 };
        let start = Instant::now();
        what(n, &mut crowd);
        start.elapsed()
    };
    (0..3).map(|_| once()).min().unwrap()
}

#[track_caller]
fn grows_like_its_size(what: &dyn Fn(usize, &mut Crowd)) {
    let n = 120;
    // Somebody else's work can only make it look worse, so a second look is fair.
    let ratios: Vec<f64> = (0..4)
        .map(|_| takes(4 * n, what).as_secs_f64() / takes(n, what).as_secs_f64())
        .take_while_inclusive(|ratio| *ratio >= 9.0)
        .collect();
    assert!(ratios.iter().any(|ratio| *ratio < 9.0), "four times as many took {ratios:?} times");
}

trait TakeWhileInclusive: Iterator + Sized {
    /// All up to the first that does not hold, and that one.
    fn take_while_inclusive(
        self,
        holds: impl Fn(&Self::Item) -> bool,
    ) -> impl Iterator<Item = Self::Item> {
        let mut over = false;
        self.map_while(move |item| {
            if over {
                return None;
            }
            over = !holds(&item);
            Some(item)
        })
    }
}

impl<I: Iterator> TakeWhileInclusive for I {}

#[test]
fn many_that_stand_alone() {
    grows_like_its_size(&|n, crowd| {
        crowd.config((0..n).map(|i| process(&name(i))));
        crowd.config((0..n).map(|i| process(&name(i)).line("v2")));
        crowd.config((0..n / 2).map(|i| process(&name(i)).line("v2")));
        crowd.tell(Event::ShutdownRequested);
        assert_eq!((crowd.spawned, crowd.ended), (2 * n, 2 * n));
    });
}

#[test]
fn many_that_depend_on_one() {
    let all = |n: usize, line: &'static str| {
        let above = (1..n).map(|i| process(&name(i)).follows(&name(0)));
        above.chain([process(&name(0)).line(line)])
    };
    grows_like_its_size(&|n, crowd| {
        crowd.config(all(n, "v1"));
        let request = Request(2);
        let db = || vec![id(&name(0))];
        crowd.tell(Event::StopRequested { request, instances: db() });
        crowd.tell(Event::StartRequested { request, instances: db(), once: false });
        crowd.tell(Event::RestartRequested { request, instances: db() });
        crowd.config(all(n, "v2"));
        crowd.tell(Event::ShutdownRequested);
        assert_eq!((crowd.spawned, crowd.ended), (4 * n, 4 * n));
    });
}

#[test]
fn a_long_chain() {
    let all = |n: usize| {
        let above = (1..n).map(|i| process(&name(i)).after(&name(i - 1)));
        above.chain([process(&name(0))])
    };
    grows_like_its_size(&|n, crowd| {
        crowd.config(all(n));
        let request = Request(2);
        crowd.tell(Event::StopRequested { request, instances: vec![id(&name(0))] });
        crowd.tell(Event::StartRequested { request, instances: vec![id(&name(0))], once: false });
        crowd.tell(Event::ShutdownRequested);
        assert_eq!((crowd.spawned, crowd.ended), (2 * n, 2 * n));
    });
}

#[test]
fn many_instances_that_roll() {
    let all = |n: usize, line: &'static str| {
        (0..n / 8).map(move |i| process(&name(i)).instances(8).line(line))
    };
    grows_like_its_size(&|n, crowd| {
        crowd.config(all(n, "v1"));
        crowd.config(all(n, "v2"));
        assert_eq!((crowd.spawned, crowd.ended), (2 * n, n));
    });
}

#[test]
fn one_process_with_many_instances() {
    grows_like_its_size(&|n, crowd| {
        let count = u32::try_from(n).unwrap();
        let web = || process("web").after("db").instances(count);
        crowd.config([web(), process("db")].into_iter());
        crowd.config([web().line("v2"), process("db")].into_iter());
        let instances = crowd.all();
        crowd.tell(Event::StopRequested { request: Request(2), instances });
        assert_eq!((crowd.spawned, crowd.ended), (2 * n + 1, 2 * n + 1));
    });
}

/// Each change of one of them may concern all the others: that must not cost a scan of all for each.
#[test]
fn thousands_may_use_thousands() {
    let mut crowd = Crowd { machine: Machine::new(1), spawned: 0, ended: 0, reloads: 0 };
    let both = |line: &str| {
        let of = |name: &str| process(name).instances(800).line(line);
        [of("api").after("db"), of("db")].into_iter()
    };
    crowd.config(both("v1"));
    assert_eq!(crowd.spawned, 1_600);
    assert_eq!(crowd.machine.summary().running, 1_600);
}

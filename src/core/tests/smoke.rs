//! A first whole turn of the machine.
#![allow(missing_docs)]

use provost_core::Machine;
use provost_core::event::{Effect, Event, ExitStatus};
use provost_core::ids::{Generation, ProcessId, Request};
use provost_core::spec::{Command, Condition, Config, Dependency, ProcessSpec, Text};
use provost_core::time::Mono;
use provost_core::view::State;
use std::sync::Arc;

fn spec(id: &str, deps: &[&str]) -> Arc<ProcessSpec> {
    let mut spec = ProcessSpec::new(ProcessId::new(id).unwrap(), Command::Shell(Text::new("true")));
    spec.depends_on = deps
        .iter()
        .map(|on| Dependency {
            on: ProcessId::new(on).unwrap(),
            condition: Condition::Ready,
            restart: false,
        })
        .collect();
    Arc::new(spec)
}

#[test]
fn a_dependent_starts_after_its_dependency_and_stops_before_it() {
    let mut machine = Machine::new(1);
    let mut out = Vec::new();
    let config = Config {
        processes: [spec("api", &["db"]), spec("db", &[])]
            .into_iter()
            .map(|spec| (spec.id.clone(), spec))
            .collect(),
        ..Config::default()
    };
    machine.handle(
        Event::ConfigAccepted {
            request: Request(1),
            config: Arc::new(config),
            generation: Generation(1),
        },
        Mono(0),
        &mut out,
    );
    let (api, db) =
        (ProcessId::new("api").unwrap().instance(0), ProcessId::new("db").unwrap().instance(0));
    let spawns = |out: &mut Vec<Effect>| {
        out.drain(..)
            .filter_map(|effect| match effect {
                Effect::Spawn { instance, run, .. } => Some((instance, run)),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    let first = spawns(&mut out);
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].0, db);
    machine.handle(
        Event::Spawned { instance: db.clone(), run: first[0].1, pid: 10 },
        Mono(1),
        &mut out,
    );
    let second = spawns(&mut out);
    assert_eq!(second[0].0, api);
    machine.handle(
        Event::Spawned { instance: api.clone(), run: second[0].1, pid: 11 },
        Mono(2),
        &mut out,
    );
    assert!(out.iter().any(|e| matches!(e, Effect::ReloadFinished(_))), "{out:#?}");
    out.clear();
    machine.handle(
        Event::StopRequested { request: Request(2), instances: vec![db.clone()] },
        Mono(3),
        &mut out,
    );
    let terminated = |out: &[Effect]| {
        out.iter()
            .filter_map(|e| match e {
                Effect::Terminate { instance, .. } => Some(instance.clone()),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(terminated(&out), [api.clone()]);
    out.clear();
    let code = ExitStatus::Code(0);
    machine.handle(
        Event::Exited { instance: api.clone(), run: second[0].1, status: code },
        Mono(4),
        &mut out,
    );
    machine.handle(Event::Emptied { instance: api.clone(), run: second[0].1 }, Mono(4), &mut out);
    assert_eq!(terminated(&out), [api.clone(), db.clone()]);
    assert_eq!(machine.view(&api).unwrap().state, State::Waiting);
}

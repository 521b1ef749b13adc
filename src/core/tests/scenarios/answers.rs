//! Answers that come late, twice, or about something else.

use crate::*;
use provost_core::event::{SpawnError, SpawnStage};
use provost_core::ids::{ProbeId, Run};

fn error() -> SpawnError {
    SpawnError { stage: SpawnStage::Cwd, subject: "/srv".into(), reason: "gone".into() }
}

#[test]
fn answers_about_an_older_run_are_not_heard() {
    let mut s = Scene::of([process("api")]);
    let run = s.run("api").unwrap();
    s.restart("api").unwrap();
    s.forget();
    let instance = || id("api");
    let view = s.view("api");
    for event in [
        Event::Spawned { instance: instance(), run, pid: 1 },
        Event::SpawnFailed { instance: instance(), run, error: error() },
        Event::Exited { instance: instance(), run, status: ExitStatus::Code(1) },
        Event::Emptied { instance: instance(), run },
        Event::Probed { instance: instance(), run, probe: ProbeId(1), outcome: Err("x".into()) },
    ] {
        s.tell(event);
    }
    assert_eq!((s.notes(), s.view("api")), (Vec::new(), view));
}

#[test]
fn answers_that_come_twice_count_once() {
    let mut s = Scene::of([process("api").checked()]);
    s.leaves("api", Leftovers::Stubborn);
    let (run, instance) = (s.run("api").unwrap(), id("api"));
    s.forget();
    s.tell(Event::Spawned { instance: instance.clone(), run, pid: 77 });
    assert_ne!(s.view("api").pid, Some(77));
    s.tell(Event::SpawnFailed { instance: instance.clone(), run, error: error() });
    assert_eq!(s.state("api"), State::Running, "what was executed did not fail to be");
    assert_eq!(s.notes(), Vec::<String>::new());
    s.exit("api", 3);
    s.forget();
    s.tell(Event::Exited { instance, run, status: ExitStatus::Code(9) });
    assert_eq!((s.notes(), s.view("api").last_exit), (Vec::new(), Some(ExitStatus::Code(3))));
}

#[test]
fn answers_about_nobody_are_not_heard() {
    let mut s = Scene::of([process("api")]);
    s.forget();
    s.tell(Event::Exited { instance: id("x"), run: Run(1), status: ExitStatus::Code(0) });
    s.tell(Event::Emptied { instance: id("api@9"), run: Run(1) });
    assert_eq!(s.notes(), Vec::<String>::new());
}

#[test]
fn emptied_without_exited_is_an_unknown_end() {
    let mut s = Scene::of([process("api").policy(RestartCondition::OnFailure)]);
    let (run, instance) = (s.run("api").unwrap(), id("api"));
    s.world.backend.forget(run);
    s.tell(Event::Emptied { instance, run });
    assert_eq!(s.view("api").last_exit, Some(ExitStatus::Unknown));
    assert_eq!(s.state("api"), State::Backoff);
    assert_eq!(s.world.model.exits.len(), 1);
}

#[test]
fn spawned_after_a_stop_is_still_ended() {
    let mut s = Scene::new();
    s.spawns("api", Spawning::Works(secs(2)));
    s.config([process("api").checked()]);
    s.stop("api").unwrap();
    assert_eq!((s.state("api"), s.view("api").sub_state), (State::Stopping, "terminating"));
    s.advance(secs(2));
    assert_eq!(s.state("api"), State::Down);
    assert_eq!(s.view("api").last_check, None, "what ends is not checked");
}

#[test]
fn a_spawn_that_fails_after_a_stop_is_a_stop() {
    let mut s = Scene::new();
    s.spawns("api", Spawning::Fails(secs(2)));
    s.config([process("api")]);
    let job = s.stop("api").unwrap();
    s.advance(secs(2));
    assert_eq!((s.state("api"), s.result(job)), (State::Down, Some(JobResult::Done)));
    let told = s.last_note("api", "spawn-failed").unwrap().to_string();
    assert!(told.starts_with("did not start: "), "{told}");
    s.forget();
    s.advance(secs(60));
    assert_eq!(s.done(), "");
}

#[test]
fn a_check_answered_twice_counts_once() {
    let mut s = Scene::of([process("api").checked().when_ill(OnFailure::None)]);
    let (run, instance) = (s.run("api").unwrap(), id("api"));
    for _ in 0..5 {
        let outcome = Err("x".to_owned());
        s.tell(Event::Probed { instance: instance.clone(), run, probe: ProbeId(1), outcome });
    }
    assert_eq!(s.view("api").health, HealthState::Healthy);
}

#[test]
fn every_exit_is_reported_once_with_its_run() {
    let mut s = Scene::of([process("api")]);
    let first = s.run("api").unwrap();
    s.exit("api", 3);
    let told = |s: &Scene| s.last_note("api", "exited").unwrap().to_string();
    assert_eq!(told(&s), "exited with code 3");
    s.advance(secs(1));
    let second = s.run("api").unwrap();
    s.exit("api", 0);
    let api = id("api");
    assert_eq!(
        s.world.model.exits,
        [(api.clone(), first, ExitStatus::Code(3)), (api, second, ExitStatus::Code(0))]
    );
    s.advance(secs(9));
    s.stop("api").unwrap();
    assert_eq!(told(&s), "was ended by SIGTERM, as asked");
}

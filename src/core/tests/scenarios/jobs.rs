//! Jobs: merge, supersede, and every result.

use crate::*;
use provost_core::event::Effect;
use provost_core::ids::Request;

#[test]
fn the_same_verb_merges() {
    let mut s = Scene::new();
    s.spawns("api", Spawning::Works(secs(1)));
    s.config([process("api")]);
    let one = s.start("api").unwrap();
    let two = s.start("api").unwrap();
    assert_eq!(one, two);
    s.advance(secs(1));
    assert_eq!(s.result(one), Some(JobResult::Done));
    assert_ne!(s.start("api").unwrap(), one, "it has ended");
}

#[test]
fn another_verb_supersedes() {
    let mut s = Scene::of([process("api")]);
    s.ends_slowly("api", secs(5));
    let stop = s.stop("api").unwrap();
    let start = s.start("api").unwrap();
    assert_eq!((s.result(stop), s.result(start)), (Some(JobResult::Canceled), None));
    let restart = s.restart("api").unwrap();
    assert_eq!((s.result(start), s.result(restart)), (Some(JobResult::Canceled), None));
    s.advance(secs(5));
    assert_eq!(s.result(restart), Some(JobResult::Done));
    let stop = s.stop("api").unwrap();
    s.advance(secs(5));
    assert_eq!(s.result(stop), Some(JobResult::Done));
}

#[test]
fn a_restart_is_done_when_the_new_run_is_ready() {
    let mut s = Scene::of([process("api").checked()]);
    let old = s.run("api");
    s.ends_slowly("api", secs(2));
    s.finds("api", Finding::Ill("starting"));
    let job = s.restart("api").unwrap();
    s.advance(secs(3));
    assert_eq!(s.result(job), None);
    assert_ne!(s.run("api"), old);
    s.finds("api", Finding::Healthy);
    s.advance(secs(1));
    assert_eq!(s.result(job), Some(JobResult::Done));
}

#[test]
fn a_start_whose_first_run_fails_has_failed() {
    let mut s = Scene::of([process("api")]);
    s.stop("api").unwrap();
    s.spawns("api", Spawning::Fails(secs(0)));
    let job = s.start("api").unwrap();
    assert_eq!(s.result(job), Some(JobResult::Failed));
    assert_eq!(s.state("api"), State::Backoff, "its policy goes on all the same");
}

#[test]
fn a_start_of_a_one_shot_that_ends_with_success_is_done() {
    let mut s = Scene::of([process("job").one_shot().checked()]);
    s.stop("job").unwrap();
    s.finds("job", Finding::Ill("never"));
    let job = s.start("job").unwrap();
    s.exit("job", 0);
    assert_eq!((s.state("job"), s.result(job)), (State::Completed, Some(JobResult::Done)));
    let job = s.start("job").unwrap();
    s.exit("job", 1);
    assert_eq!((s.state("job"), s.result(job)), (State::Failed, Some(JobResult::Failed)));
}

#[test]
fn a_stop_of_what_is_down_is_done() {
    let mut s = Scene::of([process("api")]);
    s.stop("api").unwrap();
    let job = s.stop("api").unwrap();
    assert_eq!(s.result(job), Some(JobResult::Done));
}

#[test]
fn a_verb_during_an_end_is_about_the_next_run() {
    let mut s = Scene::of([process("api"), process("job").one_shot()]);
    s.behave("api", |b| b.reap = secs(1));
    s.behave("job", |b| b.reap = secs(1));
    s.exit("api", 1);
    s.exit("job", 0);
    let start = s.start("api").unwrap();
    let restart = s.restart("job").unwrap();
    s.forget();
    s.advance(secs(1));
    assert_eq!(s.done(), "+api@0 +job@0", "at once, and not by policy");
    assert_eq!(s.result(start), Some(JobResult::Done));
    assert_eq!(s.result(restart), Some(JobResult::Done));
    assert_eq!(s.view("api").attempt, 0);
}

#[test]
fn a_stop_during_an_end_takes_a_verb_back() {
    let mut s = Scene::of([process("api")]);
    s.behave("api", |b| b.reap = secs(1));
    s.exit("api", 1);
    s.restart("api").unwrap();
    s.stop("api").unwrap();
    s.forget();
    s.advance(secs(9));
    assert_eq!((s.done().as_str(), s.state("api")), ("", State::Down));
}

#[test]
fn a_stop_takes_a_restart_back_that_is_held() {
    let mut s = Scene::of([process("api").follows("db"), process("db")]);
    s.ends_slowly("api", secs(5));
    s.restart("db").unwrap();
    s.stop("db").unwrap();
    let start = s.start("db").unwrap();
    s.forget();
    s.advance(secs(5));
    assert_eq!(s.done(), "+api@0", "db was to go down, and then not: it was never ended");
    assert_eq!(s.result(start), Some(JobResult::Done));
}

#[test]
fn backoff_is_cut_short_by_hand() {
    let mut s = Scene::of([process("api").with(|spec| spec.restart.delay = secs(100))]);
    for verb in ["start", "restart", "reset"] {
        s.exit("api", 1);
        assert_eq!(s.state("api"), State::Backoff);
        s.forget();
        match verb {
            "start" => s.start("api").unwrap(),
            "restart" => s.restart("api").unwrap(),
            _ => s.reset("api").unwrap(),
        };
        assert_eq!((s.done().as_str(), s.view("api").attempt), ("+api@0", 0), "{verb}");
        assert_eq!(s.world.machine.poll_timeout(), None, "{verb}");
    }
}

#[test]
fn reset_does_not_run_a_completed_one_shot_again() {
    let mut s = Scene::of([process("job").one_shot()]);
    s.exit("job", 0);
    s.forget();
    assert!(s.reset("job").is_ok());
    assert_eq!((s.done().as_str(), s.state("job")), ("", State::Completed));
    assert_eq!(s.reset("nobody"), Err(Refusal::NoSuchProcess("nobody@0".into())));
}

#[test]
fn all_or_nothing() {
    let mut s = Scene::of([process("a"), process("b").disabled()]);
    s.forget();
    let ids = |names: &[&str]| names.iter().map(|n| id(n)).collect::<Vec<_>>();
    let tell = |s: &mut Scene, event| {
        s.tell(event);
        s.world.model.last_answer.clone().unwrap()
    };
    let request = Request(900);
    let refused = tell(&mut s, Event::RestartRequested { request, instances: ids(&["a", "b"]) });
    assert_eq!(refused, Err(Refusal::Disabled(id("b"))));
    let refused = tell(&mut s, Event::StopRequested { request, instances: ids(&["a", "nobody"]) });
    assert_eq!(refused, Err(Refusal::NoSuchProcess("nobody@0".into())));
    assert_eq!(s.done(), "");
    let twice = tell(&mut s, Event::StopRequested { request, instances: ids(&["a", "b", "a"]) });
    let jobs = twice.unwrap();
    assert_eq!((jobs.len(), jobs[0] == jobs[2], jobs[0] == jobs[1]), (3, true, false));
}

#[test]
fn jobs_on_what_is_held_or_waits() {
    let mut s = Scene::of([process("api").after("db"), process("db")]);
    s.ends_slowly("api", secs(2));
    s.stop("db").unwrap();
    let start = s.start("api").unwrap();
    assert_eq!(s.result(start), None, "it is being ended, and what then is not known yet");
    s.advance(secs(2));
    assert_eq!(s.result(start), Some(JobResult::Dependency));
    let stop = s.stop("api").unwrap();
    assert_eq!((s.result(stop), s.state("api")), (Some(JobResult::Done), State::Down));
    s.spawns("db", Spawning::Works(secs(3)));
    s.start("db").unwrap();
    let restart = s.restart("api").unwrap();
    assert_eq!(s.result(restart), None, "it waits for what is on its way");
    s.advance(secs(3));
    assert_eq!(s.result(restart), Some(JobResult::Done));
}

#[test]
fn a_start_is_canceled_when_the_file_disables_it() {
    let mut s = Scene::new();
    s.spawns("api", Spawning::Works(secs(9)));
    s.config([process("api")]);
    let job = s.start("api").unwrap();
    s.config([process("api").disabled()]);
    assert_eq!(s.result(job), Some(JobResult::Canceled));
}

#[test]
fn jobs_on_what_is_removed_end() {
    let mut s = Scene::of([process("a"), process("b")]);
    s.ends_slowly("a", secs(2));
    s.ends_slowly("b", secs(2));
    let (stop, restart) = (s.stop("a").unwrap(), s.restart("b").unwrap());
    s.config([]);
    assert_eq!(s.result(restart), Some(JobResult::Canceled));
    assert_eq!(s.result(stop), None);
    s.advance(secs(2));
    assert_eq!(s.result(stop), Some(JobResult::Done));
}

#[test]
fn a_signal_goes_to_what_runs_and_is_refused_otherwise() {
    use provost_core::spec::Signal;
    let mut s = Scene::of([process("api"), process("b").disabled()]);
    let send = |s: &mut Scene, name: &str| {
        let (request, instance) = (Request(7), id(name));
        let (signal, whom) = (Signal(10), Whom::Main);
        s.tell(Event::SignalRequested { request, instance, signal, whom });
        s.world.model.last_answer.clone().unwrap()
    };
    assert_eq!(send(&mut s, "api"), Ok(Vec::new()));
    let (instance, run) = (id("api"), s.run("api").unwrap());
    let sent = Effect::Signal { instance, run, signal: Signal(10), whom: Whom::Main };
    assert_eq!(s.world.effects.last(), Some(&sent));
    assert_eq!(send(&mut s, "b"), Err(Refusal::NotRunning(id("b"))));
    assert_eq!(send(&mut s, "c"), Err(Refusal::NoSuchProcess("c@0".into())));
    s.leaves("api", Leftovers::Stubborn);
    s.exit("api", 0);
    assert_eq!(send(&mut s, "api"), Err(Refusal::NotRunning(id("api"))), "only others are left");
}

//! Several instances of one process get new runs.

use crate::*;
use provost_core::reload::ReloadResult;
use provost_core::spec::{Text, WatchAction, WatchSpec};
use std::num::NonZeroU32;
use std::sync::Arc;

const STARTING: Finding = Finding::Ill("starting");

fn web(n: u32) -> Process {
    process("web").instances(n).checked().attempts(9)
}

fn at_once(process: Process, n: u32) -> Process {
    process.with(|spec| spec.max_unavailable = NonZeroU32::new(n).unwrap())
}

fn runs<const N: usize>(s: &Scene, names: [&str; N]) -> [Option<Run>; N] {
    names.map(|name| s.run(name))
}

fn dead() -> Spawning {
    Spawning::Fails(secs(0))
}

#[test]
fn one_by_one_gated_on_readiness() {
    let mut s = Scene::of([web(3)]);
    s.finds("web", STARTING);
    s.forget();
    s.config([web(3).line("v2")]);
    s.advance(secs(5));
    assert_eq!(s.done(), "-web@0 +web@0", "the next waits until this one is ready");
    assert_eq!((s.state("web@1"), s.state("web@2")), (State::Running, State::Running));
    s.finds("web@0", Finding::Healthy);
    s.advance(secs(1));
    assert_eq!(s.done(), "-web@1 +web@1");
    s.finds("web", Finding::Healthy);
    s.advance(secs(1));
    assert_eq!(s.done(), "-web@2 +web@2");
    assert_eq!(s.report().result, ReloadResult::Applied);
}

/// Three change, and the first has had its turn; one follows them.
fn followed(condition: Condition) -> Scene {
    let user = || process("user").edge("web", condition, true);
    let mut s = Scene::of([web(3), user()]);
    s.finds("web", STARTING);
    s.forget();
    s.config([web(3).line("v2"), user()]);
    s.advance(secs(5));
    assert_eq!(s.done(), "-user@0 -web@0 +web@0");
    s
}

/// Also where what it needs of the others is so as soon as they begin.
#[test]
fn who_follows_is_restarted_once() {
    for condition in [Condition::Started, Condition::Ready, Condition::Healthy] {
        let mut s = followed(condition);
        s.finds("web@0", Finding::Healthy);
        s.advance(secs(1));
        assert_eq!(s.done(), "-web@1 +web@1");
        s.finds("web", Finding::Healthy);
        s.advance(secs(1));
        assert_eq!(s.done(), "-web@2 +web@2 +user@0");
        assert_eq!((s.state("user"), s.report().result), (State::Running, ReloadResult::Applied));
    }
}

/// Those that have not had their turns stay what they were, and who uses them begins again.
#[test]
fn who_follows_does_not_wait_for_turns_that_do_not_come() {
    let mut s = followed(Condition::Started);
    // An operator takes away the two that wait.
    s.stop("web@1").unwrap();
    s.stop("web@2").unwrap();
    s.advance(secs(1));
    assert_eq!(s.state("user"), State::Running);
}

#[test]
fn as_many_at_once_as_may_be_unavailable() {
    let five = || at_once(web(5), 2);
    let mut s = Scene::of([five()]);
    s.finds("web", STARTING);
    s.forget();
    s.config([five().line("v2")]);
    s.advance(secs(5));
    assert_eq!(s.done(), "-web@0 -web@1 +web@0 +web@1");
    s.finds("web@1", Finding::Healthy);
    s.advance(secs(1));
    assert_eq!(s.done(), "-web@2 +web@2", "one is ready, one may follow");
    s.finds("web", Finding::Healthy);
    s.advance(secs(5));
    assert_eq!(s.done(), "-web@3 -web@4 +web@3 +web@4");
}

#[test]
fn more_may_be_unavailable_than_there_are() {
    let mut s = Scene::of([at_once(web(2), 9)]);
    s.forget();
    s.config([at_once(web(2), 9).line("v2")]);
    assert_eq!(s.done(), "-web@0 -web@1 +web@0 +web@1");
}

#[test]
fn the_limit_may_be_raised_in_the_middle() {
    let mut s = Scene::of([web(4)]);
    s.finds("web", STARTING);
    s.config([web(4).line("v2")]);
    s.forget();
    s.config([at_once(web(4), 3).line("v2")]);
    assert_eq!(s.done(), "-web@1 -web@2 +web@1 +web@2");
    s.config([web(4).line("v2")]);
    s.finds("web@0", Finding::Healthy);
    s.advance(secs(1));
    assert_eq!(s.done(), "", "two are out still");
    s.finds("web", Finding::Healthy);
    s.advance(secs(1));
    assert_eq!(s.done(), "-web@3 +web@3");
}

#[test]
fn who_is_not_ready_comes_first_and_holds_up_nobody() {
    let mut s = Scene::of([web(3)]);
    s.spawns("web@1", dead());
    s.exit("web@1", 1);
    assert_eq!(s.state("web@1"), State::Backoff);
    s.finds("web", STARTING);
    s.forget();
    s.config([web(3).line("v2")]);
    assert_eq!(s.done(), "-web@0 +web@0", "one that is down comes with those that start");
    s.finds("web", Finding::Healthy);
    s.advance(secs(1));
    assert!(s.done().starts_with("-web@2 +web@2"));
}

#[test]
fn all_that_are_not_ready_change_at_once() {
    let mut s = Scene::new();
    s.finds("web", STARTING);
    s.config([web(3)]);
    s.forget();
    s.config([web(3).line("v2")]);
    assert_eq!(s.done(), "-web@0 -web@1 -web@2 +web@0 +web@1 +web@2");
}

#[test]
fn one_that_fails_by_itself_meanwhile_holds_up_nobody() {
    let mut s = Scene::of([web(3)]);
    s.finds("web", STARTING);
    s.config([web(3).line("v2")]);
    s.spawns("web@2", dead());
    s.exit("web@2", 1);
    s.finds("web", Finding::Healthy);
    s.forget();
    s.advance(millis(1_000));
    assert!(s.done().contains("-web@1 +web@1"), "web@2 had no turn and is not waited for");
}

#[test]
fn the_others_are_not_touched_while_the_first_fails() {
    let mut s = Scene::of([web(3)]);
    let others = ["web@1", "web@2"];
    let before = runs(&s, others);
    s.spawns("web@0", dead());
    s.config([web(3).line("v2")]);
    s.advance(millis(500));
    assert_eq!((s.state("web@0"), runs(&s, others)), (State::Backoff, before));
    assert!(s.world.machine.is_reloading(), "it may come up yet");
    s.advance(secs(60));
    assert_eq!(runs(&s, others), before);
    let end = "it could not be started: executing x: No such file or directory";
    let why = format!("held: web@0 had its turn before it, and {end}").replace("and it", "and");
    assert_eq!(
        s.steps(),
        [
            format!("restart web@0 failed: {end}"),
            format!("restart web@1 {why}"),
            format!("restart web@2 {why}"),
        ]
    );
    assert_eq!(s.report().result, ReloadResult::FailedKept);
    assert!(s.view("web@1").needs_restart);
    let told = s.last_note("web@1", "keeps-run").unwrap().to_string();
    assert_eq!(
        told,
        format!("keeps its run for now: web@0 had its turn before it, and {}", &end[3..])
    );
    assert!(s.last_note("web@0", "keeps-run").is_none());
    // When it comes up after all, the others follow.
    s.spawns("web@0", Spawning::Works(secs(0)));
    s.start("web@0").unwrap();
    s.advance(secs(1));
    assert_eq!(s.state("web@0"), State::Running);
    assert!(!s.view("web@1").needs_restart && !s.view("web@2").needs_restart);
}

#[test]
fn what_comes_up_at_the_second_try_goes_on() {
    let mut s = Scene::of([web(2)]);
    s.spawns("web@0", dead());
    s.config([web(2).line("v2")]);
    s.spawns("web@0", Spawning::Works(secs(0)));
    s.advance(secs(2));
    assert_eq!(s.steps(), ["restart web@0 done", "restart web@1 done"]);
}

#[test]
fn a_version_that_becomes_ready_and_crashes_gets_no_further() {
    let plain = || process("web").instances(3);
    let mut s = Scene::of([plain()]);
    s.ends_slowly("web@1", secs(1));
    s.config([plain().line("v2")]);
    assert_eq!(s.state("web@1"), State::Stopping);
    s.spawns("web@0", dead());
    s.exit("web@0", 1);
    let run = s.run("web@2");
    s.advance(secs(30));
    assert_eq!(s.run("web@2"), run, "the first was ready, and is not any more");
    assert_eq!(s.report().result, ReloadResult::Applied);
    assert!(s.steps()[2].starts_with("restart web@2 held: web@0 had its turn before it"));
}

#[test]
fn only_the_one_that_was_changed_goes_back() {
    for (spawns, finds) in [(dead(), Finding::Healthy), (Spawning::Works(secs(0)), STARTING)] {
        let mut s = Scene::judging([web(4)]);
        let others = ["web@1", "web@2", "web@3"];
        let before = runs(&s, others);
        s.spawns("web@0", spawns);
        s.finds("web@0", finds);
        s.config([web(4).line("v2").with(|spec| spec.start_timeout = secs(10))]);
        s.advance(secs(30));
        s.spawns("web@0", Spawning::Works(secs(0)));
        s.finds("web@0", Finding::Healthy);
        s.advance(secs(60));
        assert!(s.verdict().starts_with("2 rolled back: web@0"), "{}", s.verdict());
        assert_eq!(runs(&s, others), before);
        assert_eq!((s.state("web@0"), s.view("web@0").generation.0), (State::Running, 1));
    }
}

#[test]
fn the_way_back_takes_turns_as_well() {
    let mut s = Scene::judging([web(3)]);
    s.spawns("web@2", dead());
    s.config([web(3).line("v2").attempts(0)]);
    s.advance(secs(1));
    assert!(s.world.trial.as_ref().is_some_and(provost_core::trial::Trial::is_going_back));
    s.forget();
    s.finds("web", STARTING);
    s.spawns("web@2", Spawning::Works(secs(0)));
    s.advance(secs(1));
    let ready = ["web@0", "web@1", "web@2"].into_iter();
    let ready = ready.filter(|name| s.state(name) == State::Running).count();
    assert!(ready >= 1, "{}", s.done());
    s.finds("web", Finding::Healthy);
    s.advance(secs(60));
    assert!(s.verdict().starts_with("2 rolled back: web@2"), "{}", s.verdict());
    for name in ["web@0", "web@1", "web@2"] {
        assert_eq!((s.state(name), s.view(name).generation.0), (State::Running, 1));
    }
}

#[test]
fn one_that_is_out_is_out_for_the_next_configuration_too() {
    let mut s = Scene::of([web(2)]);
    s.spawns("web@0", dead());
    s.config([web(2).line("v2")]);
    let run = s.run("web@1");
    s.finds("web@0", STARTING);
    s.spawns("web@0", Spawning::Works(secs(0)));
    s.config([web(2).line("v3")]);
    s.advance(secs(5));
    assert_eq!(s.run("web@1"), run, "nobody knows yet whether this version works");
    s.finds("web@0", Finding::Healthy);
    s.advance(secs(1));
    assert_ne!(s.run("web@1"), run);
}

#[test]
fn who_waits_for_what_does_not_come_stops_the_roll() {
    let both = |line: &str| [web(2).line(line).after("db"), process("db").line(line).attempts(0)];
    let mut s = Scene::of(both("v1"));
    let run = s.run("web@1");
    s.spawns("db", dead());
    // Both were there, so the first went down before what it needs, and that does not come back.
    s.config(both("v2"));
    s.advance(secs(60));
    assert_eq!((s.state("web@0"), s.state("db")), (State::Waiting, State::Failed));
    assert_eq!(s.run("web@1"), run);
}

#[test]
fn several_that_somebody_wants_restarted_take_turns() {
    let mut s = Scene::of([web(3), process("other")]);
    s.finds("web", STARTING);
    s.forget();
    let jobs = s.restart_all(["web@0", "web@1", "web@2", "other@0"]);
    s.advance(secs(5));
    assert_eq!(s.done(), "-other@0 -web@0 +other@0 +web@0");
    assert_eq!(jobs.map(|job| s.result(job)), [None, None, None, Some(JobResult::Done)]);
    s.finds("web", Finding::Healthy);
    s.advance(secs(5));
    assert_eq!(s.done(), "-web@1 +web@1 -web@2 +web@2");
    assert_eq!(jobs.map(|job| s.result(job)), [Some(JobResult::Done); 4]);
}

#[test]
fn one_that_somebody_wants_restarted_has_no_turn() {
    let mut s = Scene::of([web(2)]);
    s.finds("web", STARTING);
    s.restart("web@0").unwrap();
    s.forget();
    s.restart("web@1").unwrap();
    assert_eq!(s.done(), "-web@1 +web@1", "whoever says this means now");
}

#[test]
fn a_restart_in_turns_ends_when_the_first_does_not_come_back() {
    let mut s = Scene::of([web(3)]);
    let run = s.run("web@1");
    s.spawns("web@0", dead());
    let jobs = s.restart_all(["web@0", "web@1", "web@2"]);
    s.advance(secs(60));
    assert_eq!(jobs.map(|job| s.result(job)), [Some(JobResult::Failed); 3]);
    assert_eq!(s.run("web@1"), run);
    s.spawns("web@0", Spawning::Works(secs(0)));
    s.advance(secs(600));
    assert_eq!(s.run("web@1"), run, "their jobs are over");
}

#[test]
fn a_stop_ends_the_wait_for_a_turn() {
    let mut s = Scene::of([web(2)]);
    s.finds("web", STARTING);
    let jobs = s.restart_all(["web@0", "web@1"]);
    s.forget();
    s.stop("web@1").unwrap();
    assert_eq!((s.done().as_str(), s.result(jobs[1])), ("-web@1", Some(JobResult::Canceled)));
    s.start("web@1").unwrap();
    s.finds("web", Finding::Healthy);
    s.advance(secs(5));
    assert_eq!(s.done(), "+web@1");
}

#[test]
fn a_start_does_not_end_the_wait_for_a_turn() {
    let mut s = Scene::of([web(2)]);
    s.finds("web", STARTING);
    let jobs = s.restart_all(["web@0", "web@1"]);
    let start = s.start("web@1").unwrap();
    assert_eq!(s.result(start), Some(JobResult::Done), "it is up");
    assert_eq!(s.result(jobs[1]), Some(JobResult::Canceled));
    s.forget();
    s.finds("web", Finding::Healthy);
    s.advance(secs(5));
    assert_eq!(s.done(), "-web@1 +web@1");
}

#[test]
fn one_that_changes_its_mind_in_its_turn_is_still_out() {
    let mut s = Scene::of([web(2), process("user").after("web")]);
    s.ends_slowly("web@0", secs(5));
    s.config([web(2).line("v2"), process("user").after("web")]);
    let run = s.run("web@1");
    s.stop("web@0").unwrap();
    assert_eq!(s.run("web@1"), run, "the first is not down yet");
    s.start("web@0").unwrap();
    s.finds("web@0", STARTING);
    s.advance(secs(8));
    assert_eq!((s.state("web@0"), s.run("web@1")), (State::Starting, run));
    s.stop("web@0").unwrap();
    s.advance(secs(6));
    assert_ne!(s.run("web@1"), run, "nobody waits for what an operator stopped");
}

#[test]
fn a_failure_long_after_a_roll_is_its_own() {
    let mut s = Scene::of([web(3)]);
    s.config([web(3).line("v2")]);
    s.advance(secs(60));
    s.restart_all(["web@0", "web@1", "web@2"]);
    s.advance(secs(60));
    s.spawns("web@0", dead());
    s.exit("web@0", 1);
    s.forget();
    s.config([web(3).line("v3")]);
    s.advance(millis(500));
    assert!(s.done().contains("-web@1 +web@1"), "it had its turn in another roll");
}

#[test]
fn a_start_by_hand_is_another_beginning() {
    let mut s = Scene::of([web(2)]);
    s.spawns("web@0", dead());
    s.config([web(2).line("v2")]);
    s.advance(secs(60));
    assert!(!s.world.machine.is_reloading());
    s.start("web@0").unwrap();
    let job = s.restart_all(["web@0", "web@1"])[1];
    s.advance(millis(500));
    assert_eq!(s.result(job), None, "it has failed once since, and may come up yet");
    s.advance(secs(60));
    assert_eq!(s.result(job), Some(JobResult::Failed));
}

#[test]
fn those_that_stay_what_they_were_are_judged_as_such() {
    let job = || process("job").one_shot().disabled();
    let mut s = Scene::judging([web(2), job()]);
    let run = s.run("web@1");
    s.config([web(2).line("v2").on("job", Condition::Completed), job()]);
    s.advance(secs(5));
    assert_eq!((s.verdict().as_str(), s.run("web@1")), ("2 good", run));
    s.config([web(2).line("v2"), job()]);
    s.advance(secs(10));
    assert_eq!(s.verdict(), "3 good");
    assert_ne!(s.run("web@1"), run);
}

#[test]
fn who_follows_another_takes_no_turns() {
    let all = |line: &str| [process("db").line(line), web(2).follows("db")];
    let mut s = Scene::of(all("v1"));
    s.forget();
    s.config(all("v2"));
    assert_eq!(s.done(), "-web@0 -web@1 -db@0 +db@0 +web@0 +web@1");
    // Also where it waits for a turn of its own.
    s.finds("web", STARTING);
    let jobs = s.restart_all(["web@0", "web@1"]);
    s.forget();
    s.restart("db").unwrap();
    assert_eq!(s.done(), "-web@0 -web@1 -db@0 +db@0 +web@0 +web@1");
    s.finds("web", Finding::Healthy);
    s.advance(secs(5));
    assert_eq!(jobs.map(|job| s.result(job)), [Some(JobResult::Done); 2]);
}

#[test]
fn what_a_reload_stops_goes_before_any_turn() {
    let mut s = Scene::of([web(2), process("old")]);
    s.ends_slowly("old", secs(5));
    s.forget();
    s.config([web(2).line("v2")]);
    assert_eq!(s.done(), "-old@0");
    // Somebody who asks for a new run means now.
    s.restart_all(["web@0", "web@1"]);
    assert_eq!(s.done(), "-web@0 +web@0 -web@1 +web@1");
    s.advance(secs(5));
    assert_eq!(s.done(), "", "they have it already");
    assert_eq!(s.steps(), ["stop old@0 done", "restart web@0 done", "restart web@1 done"]);
}

#[test]
fn for_one_that_failed_for_good_nobody_waits() {
    let mut s = Scene::of([web(2)]);
    let run = s.run("web@1");
    s.spawns("web@0", dead());
    s.config([web(2).line("v2").attempts(0)]);
    assert_eq!((s.state("web@0"), s.run("web@1")), (State::Failed, run));
    assert_eq!(s.report().result, ReloadResult::FailedKept);
    s.config([web(2).line("v2").attempts(0).with(|spec| spec.stop.timeout = secs(1))]);
    s.advance(secs(5));
    assert_eq!(s.run("web@1"), run, "another file that says the same of it changes nothing");
    assert!(!s.world.machine.is_reloading());
}

#[test]
fn one_that_is_starting_need_not_wait_for_another() {
    let mut s = Scene::of([web(3)]);
    s.finds("web", STARTING);
    s.exit("web@1", 1);
    s.advance(secs(2));
    assert_eq!(s.state("web@1"), State::Starting);
    s.forget();
    s.config([web(3).line("v2")]);
    assert_eq!(s.done(), "-web@0 -web@1 +web@0 +web@1");
}

/// One of two that is not ready has its turn, which nobody loses anything by, and so has the other;
/// both wait until what depends on them is down, and the first becomes ready meanwhile.
fn ready_before_it_is_taken_down(change: impl FnOnce(&mut Scene)) -> Scene {
    let mut s = Scene::of([web(2), process("user").after("web")]);
    s.ends_slowly("user", secs(5));
    s.finds("web@0", STARTING);
    s.exit("web@0", 1);
    s.advance(secs(2));
    assert_eq!(s.state("web@0"), State::Starting);
    s.stop("user").unwrap();
    s.forget();
    change(&mut s);
    assert_eq!(s.done(), "", "what depends on them is not down yet");
    s.finds("web@0", Finding::Healthy);
    s.advance(secs(2));
    assert_eq!(s.state("web@0"), State::Running);
    s.finds("web@1", STARTING);
    s
}

#[test]
fn who_becomes_ready_before_it_is_taken_down_gives_its_turn_back() {
    let mut s = ready_before_it_is_taken_down(|s| {
        s.config([web(2).line("v2"), process("user").after("web")]);
    });
    s.advance(secs(10));
    assert_eq!(s.done(), "-web@1 +web@1", "one is to stay");
    s.finds("web@1", Finding::Healthy);
    s.advance(secs(10));
    assert_eq!(s.done(), "-web@0 +web@0");
    assert_eq!(s.steps(), ["restart web@0 done", "restart web@1 done"]);
}

#[test]
fn a_restart_in_turns_gives_its_turn_back_too() {
    let mut jobs = None;
    let mut s = ready_before_it_is_taken_down(|s| jobs = Some(s.restart_all(["web@0", "web@1"])));
    s.advance(secs(10));
    assert_eq!(s.done(), "-web@1 +web@1");
    s.finds("web@1", Finding::Healthy);
    s.advance(secs(10));
    assert_eq!(s.done(), "-web@0 +web@0");
    assert_eq!(jobs.unwrap().map(|job| s.result(job)), [Some(JobResult::Done); 2]);
}

#[test]
fn a_turn_given_back_does_not_come_when_the_other_fails() {
    let mut s = ready_before_it_is_taken_down(|s| {
        s.config([web(2).line("v2"), process("user").after("web")]);
    });
    let run = s.run("web@0");
    s.spawns("web@1", dead());
    s.advance(secs(60));
    assert_eq!(s.run("web@0"), run);
    assert!(s.steps()[0].starts_with("restart web@0 held: web@1 had its turn before it"));
    assert!(!s.world.machine.is_reloading());
}

#[test]
fn what_is_restarted_alone_does_not_wait_and_is_waited_for() {
    let mut s = ready_before_it_is_taken_down(|s| {
        s.restart("web@0").unwrap();
    });
    s.finds("web@0", STARTING);
    s.config([web(2).line("v2"), process("user").after("web")]);
    s.advance(secs(10));
    assert_eq!(s.done(), "-web@0 +web@0");
    s.finds("web@0", Finding::Healthy);
    s.finds("web@1", Finding::Healthy);
    s.advance(secs(10));
    assert_eq!(s.done(), "-web@1 +web@1");
}

#[test]
fn a_turn_that_is_had_for_something_else_is_had_once() {
    let watch = || WatchSpec {
        paths: Arc::from([Text::new("/dist")]),
        ignore: Arc::default(),
        action: WatchAction::Restart,
        debounce: millis(200),
    };
    let web = |line: &str| web(2).line(line).with(|spec| spec.watch = Some(Box::new(watch())));
    let user = || process("user").after("web");
    let mut s = Scene::of([web("v1"), user(), process("old")]);
    s.ends_slowly("user", secs(20));
    s.ends_slowly("old", secs(5));
    s.finds("web@0", STARTING);
    s.exit("web@0", 1);
    s.advance(secs(2));
    // It is to be replaced for three reasons, and is not taken down before what depends on it.
    s.stop("user").unwrap();
    s.tell(Event::WatchedChanged { instance: id("web@0"), path: "/dist/a".into() });
    s.restart_all(["web@0", "web@1"]);
    s.forget();
    s.config([web("v2"), user()]);
    assert_eq!(s.done(), "-old@0", "and the supervisor goes on with something else");
    s.finds("web@0", Finding::Healthy);
    s.advance(secs(60));
    let done = s.done();
    for name in ["web@0", "web@1"] {
        assert_eq!(done.matches(&format!("+{name}")).count(), 1, "{done}");
        assert_eq!(s.state(name), State::Running);
    }
}

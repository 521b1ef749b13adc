//! A run goes on until its successor is ready: one scenario for each rule of the table.

use crate::*;
use provost_core::reload::ReloadResult;
use provost_core::snapshot::{InstanceSnapshot, Restored};
use provost_core::spec::{Config, WatchAction, WatchSpec};
use std::collections::BTreeMap;
use std::sync::Arc;

const STARTING: Finding = Finding::Ill("starting");

fn api() -> Process {
    process("api").checked().overlaps().with(|spec| {
        spec.start_timeout = secs(20);
        spec.stop.timeout = secs(10);
    })
}

fn dead() -> Spawning {
    Spawning::Fails(secs(0))
}

/// Its new run has begun and is not ready. Returns the one that serves.
fn overlapping<const N: usize>(others: [Process; N]) -> (Scene, Option<Run>) {
    let mut s = Scene::new();
    let mut all: Vec<Process> = others.into();
    all.push(api());
    config(&mut s, &all);
    let run = s.run("api");
    s.finds("api", STARTING);
    s.forget();
    let last = all.len() - 1;
    all[last] = api().line("v2");
    config(&mut s, &all);
    assert_eq!(s.done(), "+api@0-b");
    assert_eq!((s.run("api"), s.state("api")), (run, State::Running));
    (s, run)
}

fn config(s: &mut Scene, processes: &[Process]) {
    match processes {
        [a] => s.config([a.clone()]),
        [a, b] => s.config([a.clone(), b.clone()]),
        [a, b, c] => s.config([a.clone(), b.clone(), c.clone()]),
        _ => panic!("so many are not needed"),
    }
}

fn watched(process: Process) -> Process {
    process.with(|spec| {
        spec.watch = Some(Box::new(WatchSpec {
            paths: Arc::default(),
            ignore: Arc::default(),
            action: WatchAction::Restart,
            debounce: secs(0),
        }));
    })
}

fn changed(s: &mut Scene) {
    s.tell(Event::WatchedChanged { instance: id("api"), path: "/x".into() });
}

#[test]
fn the_old_one_ends_when_the_new_one_is_ready() {
    let (mut s, old) = overlapping([]);
    assert_eq!(s.view("api").sub_state, "overlapping");
    assert!(s.view("api").needs_restart);
    assert_eq!(s.reason("api"), "its new run is not ready yet");
    s.advance(secs(5));
    assert_eq!((s.done().as_str(), s.run("api")), ("", old));
    s.finds("api", Finding::Healthy);
    s.advance(secs(1));
    assert_eq!(s.done(), "-api@0");
    assert_ne!(s.run("api"), old);
    assert_eq!((s.state("api"), s.view("api").sub_state), (State::Running, ""));
    assert_eq!(
        (s.steps(), s.report().result),
        (vec!["restart api@0 done".into()], ReloadResult::Applied)
    );
    // And the other way round.
    s.config([api().line("v3")]);
    assert_eq!(s.done(), "+api@0 -api@0-b");
}

#[test]
fn the_old_one_is_killed_when_its_own_time_is_over() {
    let stubborn = |n| api().with(move |spec| spec.stop.timeout = secs(n));
    let mut s = Scene::of([stubborn(7)]);
    s.ignores_term("api");
    s.forget();
    s.config([stubborn(3).line("v2")]);
    assert_eq!(s.done(), "+api@0-b -api@0");
    assert_eq!((s.state("api"), s.view("api").sub_state), (State::Running, "overlapping"));
    s.advance(secs(6));
    assert_eq!(s.done(), "", "what is said of the new one is not said of this one");
    s.advance(secs(1));
    assert_eq!((s.done().as_str(), s.view("api").sub_state), ("!api@0", ""));
}

#[test]
fn whoever_depends_on_it_sees_the_one_that_serves() {
    let (mut s, _) = overlapping([process("user").on("api", Condition::Healthy)]);
    let user = s.run("user");
    assert!(user.is_some());
    s.restart("user").unwrap();
    assert_eq!(s.done(), "-user@0 +user@0", "it need not wait for the new one");
}

#[test]
fn what_follows_it_gets_a_new_run_when_the_new_one_serves() {
    let (mut s, _) = overlapping([process("user").follows("api")]);
    s.exit_new("api", 1);
    assert_eq!(s.done(), "", "nothing has changed for it");
    s.finds("api", Finding::Healthy);
    s.restart("api").unwrap();
    assert_eq!(s.done(), "+api@0-b -api@0 -user@0 +user@0");
}

#[test]
fn who_follows_it_and_is_to_have_a_new_run_has_it_with_it() {
    let (mut s, _) = overlapping([process("user").follows("api")]);
    s.restart("user").unwrap();
    assert_eq!(s.done(), "", "both serve");
    assert_eq!(
        s.reason("user"),
        "it goes on: a new run would wait for api to be ready: it is starting"
    );
    s.finds("api", Finding::Healthy);
    s.advance(secs(1));
    assert_eq!(s.done(), "-api@0 -user@0 +user@0");
    // Where there is no other after all, its turn comes as well.
    s.finds("api", STARTING);
    s.restart("api").unwrap();
    s.restart("user").unwrap();
    assert_eq!(s.done(), "+api@0");
    s.exit_new("api", 1);
    assert_eq!(s.done(), "-user@0 +user@0");
}

#[test]
fn both_that_changed_are_restarted_when_the_first_is_ready() {
    let user = || process("user").follows("api");
    let mut s = Scene::of([api(), user()]);
    s.finds("api", STARTING);
    s.forget();
    s.config([api().line("v2"), user().line("v2")]);
    assert_eq!(s.done(), "+api@0-b");
    s.finds("api", Finding::Healthy);
    s.advance(secs(1));
    assert_eq!(s.done(), "-api@0 -user@0 +user@0");
    assert!(!s.view("user").needs_restart);
    assert_eq!(s.report().result, ReloadResult::Applied);
}

#[test]
fn who_follows_it_and_was_down_begins_with_it() {
    let user = || process("user").follows("api");
    let mut s = Scene::of([api()]);
    s.finds("api", STARTING);
    s.forget();
    s.config([api().line("v2"), user()]);
    assert_eq!(s.done(), "+api@0-b");
    s.finds("api", Finding::Healthy);
    s.advance(secs(1));
    assert_eq!(s.done(), "-api@0 +user@0");
}

#[test]
fn who_follows_it_and_crashes_comes_back_at_once() {
    let (mut s, _) = overlapping([process("user").follows("api")]);
    s.exit("user", 1);
    s.advance(secs(2));
    assert_eq!(s.done(), "+user@0", "the one that serves is good enough until then");
    s.finds("api", Finding::Healthy);
    s.advance(secs(1));
    assert_eq!(s.done(), "-api@0 -user@0 +user@0");
}

/// All at once, and in a roll.
#[test]
fn who_follows_several_begins_when_the_last_serves() {
    let three = || api().instances(3);
    let user = || process("user").follows("api");
    let mut s = Scene::of([three(), user()]);
    s.finds("api", STARTING);
    s.forget();
    s.config([three().line("v2"), user()]);
    assert_eq!(s.done(), "+api@0-b");
    s.finds("api@0", Finding::Healthy);
    s.advance(secs(1));
    assert_eq!(s.done(), "-api@0 -user@0 +api@1-b");
    s.finds("api@1", Finding::Healthy);
    s.advance(secs(1));
    assert_eq!(s.done(), "-api@1 +api@2-b");
    s.finds("api@2", Finding::Healthy);
    s.advance(secs(1));
    assert_eq!(s.done(), "-api@2 +user@0");
}

#[test]
fn who_follows_it_does_not_wait_for_what_does_not_come_soon() {
    let db = || process("db");
    let api = || api().on("db", Condition::Ready);
    let user = || process("user").follows("api");
    let mut s = Scene::of([db(), api(), user()]);
    s.finds("api", STARTING);
    s.config([db(), api().line("v2"), user()]);
    s.exit("db", 1);
    // Another is tried instead, and that one waits.
    s.restart("api").unwrap();
    s.forget();
    s.restart("user").unwrap();
    assert_eq!(s.done(), "-user@0 +user@0");
}

#[test]
fn one_that_fails_leaves_the_old_one_as_it_was() {
    let failures: [fn(&mut Scene); 3] =
        [|s| s.exit_new("api", 3), |s| s.advance(secs(20)), |s| s.exit_new("api", 0)];
    let ends = ["exited with code 3", "was not ready in time", "exited with code 0"];
    for (fails, end) in failures.iter().zip(ends) {
        let (mut s, old) = overlapping([]);
        fails(&mut s);
        assert_eq!(
            s.last_note("api", "fell-back").unwrap().to_string(),
            format!("the run before goes on: the new one {end}")
        );
        assert_eq!(
            (s.run("api"), s.state("api"), s.view("api").sub_state),
            (old, State::Running, "")
        );
        assert_eq!(s.steps(), [format!("restart api@0 failed: it {end}")]);
        assert_eq!(s.reason("api"), format!("its new run {end}; the one before goes on"));
        s.finds("api", Finding::Healthy);
        s.forget();
        s.advance(secs(600));
        assert_eq!((s.done().as_str(), s.run("api")), ("", old), "it is not tried again by itself");
        assert!(s.view("api").needs_restart);
        assert_eq!(s.view("api").spec.exec.command, api().line("v2").0.exec.command);
    }
}

#[test]
fn one_that_cannot_be_started_leaves_the_old_one_as_it_was() {
    let mut s = Scene::of([api()]);
    let old = s.run("api");
    s.spawns("api", dead());
    s.config([api().line("v2")]);
    assert_eq!((s.run("api"), s.report().result), (old, ReloadResult::FailedKept));
    s.spawns("api", Spawning::Works(secs(0)));
    s.forget();
    s.config([api().line("v2"), process("other")]);
    assert_eq!(s.done(), "+other@0", "what the file says of it is what was tried");
    s.restart("api").unwrap();
    assert_eq!(s.done(), "+api@0-b -api@0", "somebody asked for it");
    assert!(!s.view("api").needs_restart);
}

#[test]
fn what_failed_is_tried_again_when_the_file_says_anything_else_of_it() {
    let longer = |spec: &mut provost_core::spec::ProcessSpec| spec.start_timeout = secs(60);
    let (mut s, old) = overlapping([]);
    s.advance(secs(20));
    assert_eq!((s.run("api"), s.done().as_str()), (old, "-api@0-b"));
    s.config([api().line("v2").with(longer)]);
    s.advance(secs(40));
    assert_eq!((s.run("api"), s.done().as_str()), (old, "+api@0-b"));
    s.finds("api", Finding::Healthy);
    s.advance(secs(1));
    assert_eq!(s.done(), "-api@0");
}

#[test]
fn when_the_old_one_ends_after_all_what_failed_is_what_there_is() {
    let (mut s, _) = overlapping([]);
    s.exit_new("api", 3);
    s.finds("api", Finding::Healthy);
    s.forget();
    s.exit("api", 1);
    assert_eq!((s.done().as_str(), s.view("api").needs_restart), ("+api@0", false));
}

#[test]
fn one_that_fails_stops_the_roll() {
    let mut s = Scene::of([api().instances(3)]);
    let before = ["api@0", "api@1", "api@2"].map(|name| s.run(name));
    s.spawns("api", dead());
    s.config([api().instances(3).line("v2")]);
    s.spawns("api", Spawning::Works(secs(0)));
    s.advance(secs(600));
    assert_eq!(["api@0", "api@1", "api@2"].map(|name| s.run(name)), before);
    let end = "could not be started: executing x: No such file or directory";
    assert_eq!(
        s.steps(),
        [
            format!("restart api@0 failed: it {end}"),
            format!("restart api@1 held: api@0 had its turn before it, and {end}"),
            format!("restart api@2 held: api@0 had its turn before it, and {end}"),
        ]
    );
    // When it is ready after all, the others follow.
    s.forget();
    s.restart("api@0").unwrap();
    s.advance(secs(1));
    assert_eq!(s.done(), "+api@0-b -api@0 +api@1-b -api@1 +api@2-b -api@2");
}

#[test]
fn so_many_overlap_as_may_be_unavailable() {
    let three = || api().instances(3);
    let mut s = Scene::of([three()]);
    s.finds("api", STARTING);
    s.forget();
    s.config([three().line("v2")]);
    s.advance(secs(5));
    assert_eq!(s.done(), "+api@0-b");
    s.config([three().line("v2").with(|spec| spec.max_unavailable = 2.try_into().unwrap())]);
    assert_eq!(s.done(), "+api@1-b");
    s.finds("api", Finding::Healthy);
    s.advance(secs(1));
    assert_eq!(s.done(), "-api@0 +api@2-b -api@1 -api@2");
}

#[test]
fn a_version_that_becomes_ready_and_crashes_gets_no_further() {
    let plain = || process("api").overlaps().instances(2);
    let mut s = Scene::of([plain()]);
    let second = s.run("api@1");
    s.ends_slowly("api@0", secs(60));
    s.behave("api@0", |b| b.life = Some((millis(10), ExitStatus::Code(3))));
    // The old one of the second is slow to begin with: its turn comes after a while.
    s.spawns("api@1", Spawning::Works(secs(600)));
    s.config([plain().line("v2")]);
    s.advance(secs(60));
    assert_eq!((s.run("api@1"), s.state("api@1")), (second, State::Running));
}

#[test]
fn a_newer_file_has_the_next_one_tried_beside_the_same() {
    let (mut s, old) = overlapping([process("user").follows("api")]);
    let user = s.run("user");
    s.config([api().line("v3"), process("user").follows("api")]);
    assert_eq!(s.done(), "-api@0-b +api@0-b");
    assert_eq!((s.run("api"), s.run("user")), (old, user));
    s.finds("api", Finding::Healthy);
    s.advance(secs(1));
    assert_eq!(s.done(), "-api@0 -user@0 +user@0");
}

#[test]
fn the_one_that_gives_way_waits_for_nobody() {
    let user = || process("user").after("api");
    let (mut s, old) = overlapping([user()]);
    s.ends_slowly("user", secs(30));
    s.restart("user").unwrap();
    s.forget();
    s.config([api().line("v3"), user()]);
    assert_eq!((s.done().as_str(), s.run("api")), ("-api@0-b +api@0-b", old));
}

#[test]
fn a_file_that_says_what_the_old_one_runs_ends_the_new_one_and_nothing_else() {
    let (mut s, old) = overlapping([process("user").follows("api")]);
    let (pid, user) = (s.view("api").pid, s.run("user"));
    s.config([api(), process("user").follows("api")]);
    assert_eq!(s.done(), "-api@0-b");
    assert_eq!((s.run("api"), s.view("api").pid, s.run("user")), (old, pid, user));
    assert_eq!((s.view("api").needs_restart, s.view("api").sub_state), (false, ""));
    assert!(s.last_note("api", "taken-back").is_some());
    assert_eq!(s.steps().last().unwrap(), "restart api@0 done");
}

#[test]
fn the_way_back_does_not_touch_the_one_that_serves() {
    // The first finds that it does not come up itself, the second that another does not.
    for other in [None, Some("v2")] {
        let mut s = Scene::judging([api(), process("web")]);
        let (old, pid) = (s.run("api"), s.view("api").pid);
        s.finds("api", STARTING);
        if other.is_some() {
            s.spawns("web", dead());
        }
        s.config([api().line("v2"), process("web").line(other.unwrap_or("v1")).attempts(0)]);
        s.spawns("web", Spawning::Works(secs(0)));
        if other.is_none() {
            assert_eq!(s.done(), "+api@0-b");
            s.advance(secs(20));
        }
        s.finds("api", Finding::Healthy);
        s.advance(secs(60));
        let fault = if other.is_some() { "web@0" } else { "api@0 it was not ready in time" };
        assert!(s.verdict().starts_with(&format!("2 rolled back: {fault}")), "{}", s.verdict());
        assert!(!s.verdict().contains("lost"), "{}", s.verdict());
        assert_eq!((s.run("api"), s.view("api").pid), (old, pid));
        assert_eq!((s.view("api").generation.0, s.view("api").needs_restart), (1, false));
        let done = s.done();
        assert!(!done.contains("-api@0 ") && !done.contains("+api@0 "), "{done}");
    }
}

#[test]
fn one_that_serves_while_its_new_run_ends_was_not_failing() {
    let mut s = Scene::judging([api()]);
    let old = s.run("api");
    s.ends_slowly("api", secs(5));
    s.finds("api", STARTING);
    s.restart("api").unwrap();
    s.advance(secs(20));
    assert_eq!(s.run("api"), old);
    // Its new run has not come up, and is ending still.
    s.config([api().line("v2")]);
    s.advance(secs(30));
    s.finds("api", Finding::Healthy);
    s.advance(secs(60));
    assert!(s.verdict().starts_with("2 rolled back: api@0 it was not"), "{}", s.verdict());
    // Of the file before, which is what somebody had asked for.
    assert_eq!((s.state("api"), s.view("api").generation.0), (State::Running, 1));
}

#[test]
fn a_new_one_that_came_up_is_replaced_on_the_way_back_in_the_same_way() {
    let mut s = Scene::judging([api(), process("web")]);
    s.spawns("web", dead());
    s.config([api().line("v2"), process("web").line("v2").attempts(0).after("api")]);
    s.spawns("web", Spawning::Works(secs(0)));
    s.advance(secs(60));
    assert!(s.verdict().starts_with("2 rolled back: web@0"), "{}", s.verdict());
    let done = s.done();
    let api: Vec<&str> = done.split(' ').filter(|word| word.contains("api")).collect();
    assert_eq!(api, ["+api@0-b", "-api@0", "+api@0", "-api@0-b"], "somebody served all the time");
}

#[test]
fn somebody_who_asks_for_a_new_run_gets_one() {
    let (mut s, old) = overlapping([]);
    let job = s.restart("api").unwrap();
    assert_eq!((s.done().as_str(), s.run("api")), ("-api@0-b +api@0-b", old));
    // What the old one runs is tried as well, since somebody wants it new.
    s.config([api()]);
    assert_eq!((s.done().as_str(), s.run("api")), ("-api@0-b +api@0-b", old));
    assert_eq!(s.result(job), None);
    s.finds("api", Finding::Healthy);
    s.advance(secs(1));
    assert_eq!((s.done().as_str(), s.result(job)), ("-api@0", Some(JobResult::Done)));
}

#[test]
fn a_restart_that_fails_says_so_and_a_start_is_done() {
    let (mut s, old) = overlapping([]);
    let start = s.start("api").unwrap();
    assert_eq!(s.result(start), Some(JobResult::Done), "it serves");
    let job = s.restart("api").unwrap();
    s.exit_new("api", 1);
    assert_eq!((s.result(job), s.run("api")), (Some(JobResult::Failed), old));
}

#[test]
fn there_are_never_three() {
    let mut s = Scene::of([api()]);
    s.ends_slowly("api", secs(3));
    s.forget();
    s.restart("api").unwrap();
    assert_eq!(s.done(), "+api@0-b -api@0");
    let job = s.restart("api").unwrap();
    s.advance(millis(2_999));
    assert_eq!((s.done().as_str(), s.result(job)), ("", None));
    s.advance(millis(1));
    assert_eq!((s.done().as_str(), s.result(job)), ("+api@0 -api@0-b", Some(JobResult::Done)));
}

#[test]
fn watched_files_have_the_old_one_go_on_as_well() {
    let mut s = Scene::of([watched(api())]);
    let old = s.run("api");
    s.finds("api", STARTING);
    s.forget();
    changed(&mut s);
    assert_eq!((s.done().as_str(), s.run("api")), ("+api@0-b", old));
    changed(&mut s);
    assert_eq!((s.done().as_str(), s.run("api")), ("-api@0-b +api@0-b", old));
    s.finds("api", Finding::Healthy);
    s.advance(secs(1));
    assert_eq!(s.done(), "-api@0");
}

#[test]
fn a_file_that_wants_no_overlap_any_more_has_it_replaced_as_any_other() {
    let db = |line: &str| process("db").line(line).checked();
    let wants = |p: Process| p.line("v2").after("db");
    let mut s = Scene::of([api(), db("v1")]);
    let old = s.run("api");
    s.finds("db", STARTING);
    s.forget();
    s.config([wants(api()), db("v2")]);
    assert_eq!((s.run("api"), s.state("api")), (old, State::Running));
    assert_eq!(s.done(), "-db@0 +db@0");
    assert_eq!(s.reason("api"), "its new run waits for db to be ready: it is starting");
    s.config([wants(api()).with(|spec| spec.overlap = false), db("v2")]);
    assert_eq!((s.run("api"), s.done().as_str()), (old, ""), "it serves until another could begin");
    s.finds("db", Finding::Healthy);
    s.advance(secs(5));
    assert_eq!(s.done(), "-api@0 +api@0");
}

#[test]
fn both_end_in_order_when_it_is_stopped() {
    let (mut s, _) = overlapping([process("user").after("api")]);
    s.ends_slowly("api", secs(2));
    s.ends_slowly("user", secs(3));
    s.shut_down();
    assert_eq!(s.done(), "-api@0-b -user@0", "nobody uses the new one");
    assert_eq!((s.state("api"), s.view("api").sub_state), (State::Running, "held"));
    s.advance(secs(3));
    assert_eq!((s.done().as_str(), s.code()), ("-api@0", None));
    assert_eq!((s.state("api"), s.view("api").sub_state), (State::Stopping, "terminating"));
    s.advance(secs(2));
    assert_eq!(s.code(), Some(0));
}

#[test]
fn an_end_is_over_when_both_are() {
    let (mut s, _) = overlapping([process("x")]);
    s.ends_slowly("api", secs(2));
    s.leaves("api", Leftovers::Stubborn);
    let job = s.stop("api").unwrap();
    assert_eq!(s.done(), "-api@0 -api@0-b");
    s.exit_new("api", 0);
    s.config([process("x")]);
    s.advance(secs(9));
    assert!(s.is_there("api") && s.result(job).is_none());
    s.advance(secs(1));
    assert_eq!(s.done(), "!api@0-b !api@0");
    assert!(!s.is_there("api"));
    assert_eq!((s.result(job), s.report().result), (Some(JobResult::Done), ReloadResult::Applied));
}

#[test]
fn a_smaller_count_ends_both() {
    let two = |n| api().instances(n).with(|spec| spec.max_unavailable = 2.try_into().unwrap());
    let mut s = Scene::of([two(2)]);
    s.finds("api", STARTING);
    s.config([two(2).line("v2")]);
    s.forget();
    s.config([two(1).line("v2")]);
    assert_eq!(s.done(), "-api@1 -api@1-b");
    assert!(!s.is_there("api@1") && s.is_there("api@0"));
}

#[test]
fn whoever_wants_it_dead_has_both_killed() {
    let (mut s, _) = overlapping([]);
    s.ignores_term("api");
    s.kill();
    assert_eq!((s.done().as_str(), s.code()), ("-api@0-b !api@0-b -api@0 !api@0", Some(0)));
}

#[test]
fn both_end_when_what_it_follows_restarts() {
    let db = || process("db");
    let mut s = Scene::of([db(), api().follows("db")]);
    s.finds("api", STARTING);
    s.config([db(), api().follows("db").line("v2")]);
    s.ends_slowly("api", secs(2));
    s.forget();
    s.restart("db").unwrap();
    assert_eq!(s.done(), "-api@0 -api@0-b", "it would serve without what it follows");
    s.advance(secs(2));
    assert_eq!(s.done(), "-db@0 +db@0 +api@0-b", "one after the other");
}

#[test]
fn nobody_goes_back_to_one_that_ended() {
    let (mut s, old) = overlapping([process("user").follows("api")]);
    s.exit("api", 1);
    assert_eq!(s.state("api"), State::Starting);
    assert_ne!(s.run("api"), old);
    assert_eq!(s.done(), "-user@0", "what it follows is another");
    s.exit_new("api", 1);
    assert_eq!(s.state("api"), State::Backoff, "as its policy says");
    s.finds("api", Finding::Healthy);
    s.advance(secs(1));
    assert_eq!(s.done(), "+api@0-b +user@0");
}

#[test]
fn who_starts_again_while_a_former_one_ends_does_so_beside_it() {
    let mut s = Scene::of([process("api").overlaps()]);
    s.ends_slowly("api", secs(60));
    s.forget();
    s.restart("api").unwrap();
    s.exit_new("api", 1);
    s.advance(secs(1));
    assert_eq!(s.done(), "+api@0-b -api@0 +api@0-b");
}

#[test]
fn where_there_is_no_overlap_any_more_who_starts_again_waits_for_the_former_one() {
    let mut s = Scene::of([process("api").overlaps()]);
    s.ends_slowly("api", secs(5));
    s.restart("api").unwrap();
    s.config([process("api")]);
    s.forget();
    s.exit_new("api", 1);
    s.advance(secs(2));
    assert_eq!((s.done().as_str(), s.state("api")), ("", State::Stopping));
    s.advance(secs(3));
    assert_eq!((s.done().as_str(), s.state("api")), ("+api@0-b", State::Running));
}

#[test]
fn one_at_fault_is_ended_at_once() {
    let mut s = Scene::of([api().with(|spec| spec.limits.max_memory_restart = Some(1))]);
    let run = s.run("api").unwrap();
    s.forget();
    s.tell(Event::Outgrown { instance: id("api"), run, used: 2 });
    assert_eq!(s.done(), "-api@0");
}

#[test]
fn the_one_that_serves_is_asked_nothing() {
    let takes = |p: Process| {
        p.with(|spec| {
            let signal = provost_core::spec::Signal(1);
            spec.reload = Some(provost_core::spec::ReloadSpec::Signal(signal));
            spec.limits.max_memory_restart = Some(1);
        })
    };
    let mut s = Scene::of([takes(api())]);
    let run = s.run("api").unwrap();
    s.finds("api", STARTING);
    s.config([takes(api()).line("v2")]);
    let instances = vec![id("api")];
    s.forget();
    s.tell(Event::ReloadRequested { request: provost_core::ids::Request(99), instances });
    assert!(s.world.model.last_answer.clone().unwrap().is_err());
    s.tell(Event::Outgrown { instance: id("api"), run, used: 2 });
    s.advance(secs(15));
    assert_eq!((s.done().as_str(), s.run("api")), ("", Some(run)));
    assert_eq!(s.view("api").health, HealthState::Healthy, "as healthy as it was");
}

#[test]
fn one_that_goes_on_after_all_takes_in_what_needs_no_new_run() {
    let limited = |n| api().with(move |spec| spec.limits.tasks = n);
    let mut s = Scene::of([limited(None)]);
    let old = s.run("api");
    s.finds("api", STARTING);
    s.restart("api").unwrap();
    s.config([limited(Some(7))]);
    s.exit_new("api", 1);
    // That it is held to its limits is an invariant of every turn.
    assert_eq!((s.run("api"), s.view("api").needs_restart), (old, false));
}

#[test]
fn the_next_supervisor_goes_on_with_both() {
    let (s, old) = overlapping([]);
    let kept = s.world.machine.snapshot(&id("api")).unwrap();
    let text = serde_json::to_string(&kept).unwrap();
    let kept: InstanceSnapshot = serde_json::from_str(&text).unwrap();
    let runs: Vec<Run> = kept.runs().map(|run| run.run).collect();
    assert_eq!(runs.len(), 2);
    let there = runs.iter().map(|run| (id("api"), *run)).collect();
    let instances = BTreeMap::from([(id("api"), kept)]);
    let mut next = provost_core::Machine::new(2);
    let mut out = Vec::new();
    let restored = Restored {
        generation: provost_core::ids::Generation(2),
        instances,
        there,
        ..Restored::default()
    };
    let now = s.world.now;
    next.restore(restored, now, &mut out);
    let spec = Arc::new(api().line("v2").0);
    let processes = BTreeMap::from([(spec.id.clone(), spec)]);
    let config = Arc::new(Config { processes, ..Config::default() });
    let request = provost_core::ids::Request(1);
    let generation = provost_core::ids::Generation(3);
    next.handle(Event::ConfigAccepted { request, config, generation }, now, &mut out);
    let done: Vec<&provost_core::event::Effect> = out
        .iter()
        .filter(|effect| {
            use provost_core::event::Effect::{Kill, Spawn, Terminate};
            matches!(effect, Spawn { .. } | Terminate { .. } | Kill { .. })
        })
        .collect();
    assert!(done.is_empty(), "{done:?}");
    assert_eq!(next.run_of(&id("api")), old);
    out.clear();
    next.handle(
        Event::Exited { instance: id("api"), run: runs[0], status: ExitStatus::Code(1) },
        now,
        &mut out,
    );
    next.handle(Event::Emptied { instance: id("api"), run: runs[0] }, now, &mut out);
    let view = next.view(&id("api")).unwrap();
    assert_eq!((view.run, view.state, view.sub_state), (old, State::Running, ""));
}

#[test]
fn what_completes_after_falling_back_is_the_run_that_did() {
    let on_failure = || api().with(|spec| spec.restart.condition = RestartCondition::OnFailure);
    let mut s = Scene::of([on_failure()]);
    let old = s.run("api");
    s.finds("api", STARTING);
    let _ = s.restart("api");
    s.exit_new("api", 3);
    assert!(s.last_note("api", "fell-back").is_some());
    s.finds("api", Finding::Healthy);
    s.exit("api", 0);
    let view = s.view("api");
    let of = |kind: &str| view.history.iter().rev().find(|n| n.what.kind() == kind).unwrap().run;
    assert_eq!((of("exited"), of("completed")), (old, old));
}

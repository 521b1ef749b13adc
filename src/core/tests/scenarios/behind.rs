//! Who serves is not taken down for a run that could not begin: its turn waits for what it depends on.

use crate::*;
use provost_core::reload::ReloadResult;
use provost_core::spec::{Text, WatchAction, WatchSpec};
use std::sync::Arc;

const STARTING: Finding = Finding::Ill("starting");

fn api(n: u32) -> Process {
    process("api").instances(n).after("db")
}

fn db() -> Process {
    process("db").checked().attempts(0)
}

/// What `api` needs has failed for good; `api` runs on, as it does for those who do not follow.
fn bereft(n: u32) -> Scene {
    let mut s = Scene::of([api(n), db()]);
    s.exit("db", 1);
    assert_eq!((s.state("db"), s.state("api@0")), (State::Failed, State::Running));
    s.forget();
    s
}

const BAR: &str = "it would wait for db to be ready: it is failed";

#[test]
fn a_change_takes_down_nobody_who_could_not_come_up_again() {
    for n in [1, 3] {
        let mut s = bereft(n);
        s.config([api(n).line("v2"), db()]);
        s.advance(secs(60));
        assert_eq!((s.done().as_str(), s.state("api@0")), ("", State::Running));
        assert_eq!(s.report().result, ReloadResult::Applied);
        assert_eq!(s.steps()[0], format!("restart api@0 held: {BAR}"));
        assert!(s.view("api@0").needs_restart);
        assert_eq!(
            s.reason("api@0"),
            "it goes on: a new run would wait for db to be ready: it is failed"
        );
        // What it waits for comes after all: it follows by itself, one after the other.
        s.start("db").unwrap();
        s.advance(secs(60));
        let turns: Vec<String> = (0..n).map(|i| format!("-api@{i} +api@{i}")).collect();
        assert_eq!(s.done(), format!("+db@0 {}", turns.join(" ")));
        assert!(!s.view("api@0").needs_restart);
    }
}

/// It is told once, not with each step that the dependency takes on its way.
#[test]
fn that_it_keeps_its_run_is_said_once() {
    let mut s = Scene::of([api(1), process("db").checked()]);
    s.spawns("db", Spawning::Fails(secs(0)));
    s.exit("db", 1);
    s.notes();
    s.config([api(1).line("v2"), process("db").checked()]);
    s.advance(secs(300));
    let told = s.notes().into_iter().filter(|note| note == "api@0 keeps-run").count();
    assert_eq!((told, s.state("api")), (1, State::Running));
}

#[test]
fn nor_does_a_restart() {
    let mut s = bereft(2);
    let one = s.restart("api@0").unwrap();
    let all = s.restart_all(["api@0", "api@1"]);
    s.advance(secs(60));
    assert_eq!((s.done().as_str(), s.state("api@0")), ("", State::Running));
    assert_eq!(s.result(one), Some(JobResult::Dependency));
    assert_eq!(all.map(|job| s.result(job)), [Some(JobResult::Dependency); 2]);
    // Who is started waits as well, and comes by itself.
    s.start("db").unwrap();
    s.advance(secs(60));
    assert_eq!(s.done(), "+db@0 -api@0 +api@0 -api@1 +api@1");
}

#[test]
fn whoever_is_not_ready_loses_nothing() {
    let mut s = Scene::of([api(1).checked(), db()]);
    s.finds("api", STARTING);
    s.restart("api").unwrap();
    s.exit("db", 1);
    assert_eq!((s.state("api"), s.state("db")), (State::Starting, State::Failed));
    let job = s.restart("api").unwrap();
    assert_eq!((s.state("api"), s.result(job)), (State::Waiting, Some(JobResult::Dependency)));
}

/// The restart of both is one request, in whatever order they are named: the dependency is mended first.
#[test]
fn a_restart_of_both_waits_for_the_one_that_had_failed() {
    for names in [["api@0", "db@0"], ["db@0", "api@0"]] {
        let mut s = bereft(1);
        s.finds("db", STARTING);
        let jobs = s.restart_all(names);
        s.advance(secs(5));
        assert_eq!(s.done(), "+db@0", "it serves until another could begin");
        s.finds("db", Finding::Healthy);
        s.advance(secs(5));
        assert_eq!(s.done(), "-api@0 +api@0");
        assert_eq!(jobs.map(|job| s.result(job)), [Some(JobResult::Done); 2]);
    }
}

#[test]
fn what_the_same_change_mends_comes_first() {
    let mut s = bereft(1);
    s.config([api(1).line("v2"), db().line("v2")]);
    s.advance(secs(5));
    assert_eq!(s.done(), "+db@0 -api@0 +api@0");
    assert_eq!(s.report().result, ReloadResult::Applied);
}

#[test]
fn what_the_same_change_does_not_mend_costs_nothing() {
    let mut s = bereft(1);
    s.spawns("db", Spawning::Fails(secs(0)));
    s.config([api(1).line("v2"), db().line("v2")]);
    s.advance(secs(60));
    assert_eq!((s.done().as_str(), s.state("api")), ("+db@0", State::Running));
    assert_eq!(s.report().result, ReloadResult::FailedKept);
}

/// What is new, and what has to be done first, has to show itself before anybody is taken down for it.
#[test]
fn a_migration_that_fails_costs_nothing() {
    let shot = |line: &str| process("migrate").one_shot().line(line);
    let api = |line: &str| process("api").on("migrate", Condition::Completed).line(line);
    let mut s = Scene::new();
    s.behave("migrate", |b| b.life = Some((secs(3), ExitStatus::Code(0))));
    s.config([shot("v1"), api("v1")]);
    s.world.judges = true;
    s.advance(secs(60));
    let run = s.run("api");
    s.forget();
    s.config([shot("v2"), api("v2")]);
    s.advance(secs(2));
    assert_eq!((s.done().as_str(), s.run("api")), ("+migrate@0", run), "it serves meanwhile");
    assert_eq!(s.verdict(), "none");
    s.advance(secs(20));
    assert_eq!((s.done().as_str(), s.verdict().as_str()), ("-api@0 +api@0", "2 good"));
    let run = s.run("api");
    s.behave("migrate", |b| b.life = Some((secs(3), ExitStatus::Code(4))));
    s.config([shot("v3"), api("v3")]);
    s.advance(secs(20));
    assert_eq!(s.verdict(), "3 rolled back: migrate@0 it exited with code 4");
    assert_eq!((s.run("api"), s.done().as_str()), (run, "+migrate@0"));
}

/// One that never comes is no reason to wait for ever for a verdict.
#[test]
fn what_neither_comes_nor_fails_ends_a_trial() {
    let work = || process("work").one_shot();
    let mut s = Scene::judging([process("api"), work()]);
    let run = s.run("api");
    s.config([process("api").line("v2").on("work", Condition::Completed), work()]);
    s.advance(secs(600));
    let why = "it still waits for work to be completed: it is not completed after 1m5s";
    assert_eq!(s.verdict(), format!("2 rolled back: api@0 {why}"));
    assert_eq!(s.run("api"), run);
}

/// What needs a second attempt is no reason to let those behind it pass without judgement.
#[test]
fn who_waits_with_its_old_run_is_judged_when_its_turn_comes() {
    let api = |line: &str| process("api").line(line).attempts(1);
    let mut s = Scene::judging([api("v1")]);
    s.spawns("db", Spawning::Fails(secs(0)));
    s.config([api("v2").after("db"), process("db")]);
    assert_eq!(s.state("db"), State::Backoff);
    s.spawns("db", Spawning::Works(secs(0)));
    s.spawns("api", Spawning::Fails(secs(0)));
    s.advance(secs(60));
    assert!(s.verdict().starts_with("2 rolled back: api@0"), "{}", s.verdict());
}

fn watched(process: Process) -> Process {
    process.with(|spec| {
        spec.watch = Some(Box::new(WatchSpec {
            paths: Arc::from([Text::new("dist")]),
            ignore: Arc::default(),
            action: WatchAction::Restart,
            debounce: secs(0),
        }));
    })
}

fn files_change(s: &mut Scene) {
    s.tell(Event::WatchedChanged { instance: id("api"), path: "/dist/a".into() });
}

#[test]
fn files_that_changed_are_remembered() {
    for asks in [false, true] {
        let mut s = Scene::of([watched(api(1)), db()]);
        s.exit("db", 1);
        s.forget();
        files_change(&mut s);
        files_change(&mut s);
        if asks {
            s.restart("api").unwrap();
        }
        assert_eq!((s.done().as_str(), s.state("api")), ("", State::Running));
        s.start("db").unwrap();
        s.advance(secs(5));
        assert_eq!(s.done(), "+db@0 -api@0 +api@0");
    }
}

/// Whatever had it wait before: what is told of one that waits already is told of its step.
#[test]
fn a_change_of_one_that_waits_already_comes_to_an_end() {
    let mut s = Scene::of([watched(api(1)), db()]);
    s.exit("db", 1);
    files_change(&mut s);
    s.config([watched(api(1)).line("v2"), db()]);
    assert_eq!(s.steps()[0], format!("restart api@0 held: {BAR}"));
    s.world.judges = true;
    s.config([watched(api(1)).line("v3"), db()]);
    s.advance(secs(60));
    assert_eq!(s.verdict(), "3 good");
}

#[test]
fn a_restart_while_others_are_stopped_does_not_take_the_step_away() {
    let mut s = Scene::of([api(1), db(), process("old")]);
    s.exit("db", 1);
    s.ends_slowly("old", secs(5));
    s.config([api(1).line("v2"), db()]);
    let job = s.restart("api").unwrap();
    assert_eq!(s.result(job), Some(JobResult::Dependency));
    s.advance(secs(6));
    assert_eq!(s.report().result, ReloadResult::Applied);
}

#[test]
fn one_that_overlapped_and_need_not_any_more_comes_to_an_end() {
    for db in [process("db"), db()] {
        let mut s = Scene::of([api(1).overlaps(), db.clone()]);
        s.spawns("db", Spawning::Fails(secs(0)));
        s.restart_all(["db@0", "api@0"]);
        s.advance(secs(1));
        s.config([api(1), db]);
        s.advance(secs(60));
        assert_eq!(s.report().generation.0, 2);
    }
}

/// What is asked for by hand, or by files, says nothing of the run that is judged.
#[test]
fn who_waits_for_another_run_is_judged_by_the_one_it_has() {
    let api = |line: &str| watched(process("api").line(line).after("db").attempts(1));
    let mut s = Scene::judging([api("v1"), db()]);
    s.config([api("v2"), db()]);
    s.advance(secs(1));
    s.exit("db", 1);
    files_change(&mut s);
    s.advance(secs(1));
    assert_eq!(s.verdict(), "none", "it has not been up for long enough");
    s.advance(secs(3));
    assert_eq!(s.verdict(), "2 good");
}

/// A chain: what uses one that waits for its turn goes down when that does, and not before.
#[test]
fn a_chain_goes_down_from_its_end() {
    for (low, high) in [("a", "b"), ("b", "a")] {
        for follows in [false, true] {
            let all = |line: &str| {
                let user = process(high).line(line);
                [
                    process("migrate").one_shot().line(line),
                    process(low).line(line).on("migrate", Condition::Completed),
                    if follows { user.follows(low) } else { user.after(low) },
                ]
            };
            let mut s = Scene::new();
            s.behave("migrate", |b| b.life = Some((secs(30), ExitStatus::Code(0))));
            s.config(all("v1"));
            s.advance(secs(100));
            s.forget();
            s.config(all("v2"));
            s.advance(secs(10));
            assert_eq!(s.done(), "+migrate@0", "{high} uses {low}, and both serve");
            s.advance(secs(100));
            assert_eq!(s.done(), format!("-{high}@0 -{low}@0 +{low}@0 +{high}@0"));
        }
    }
}

#[test]
fn who_uses_one_that_waits_for_its_turn_may_begin() {
    let db = |line: &str| process("db").line(line).on("migrate", Condition::Completed);
    let shot = |line: &str| process("migrate").one_shot().line(line);
    let web = || process("web").follows("db");
    let mut s = Scene::new();
    s.behave("migrate", |b| b.life = Some((secs(3600), ExitStatus::Code(0))));
    s.config([shot("v1"), db("v1"), web()]);
    s.advance(secs(4000));
    s.config([shot("v2"), db("v2"), web()]);
    assert_eq!(s.state("db"), State::Running);
    s.exit("web", 1);
    s.advance(secs(600));
    assert_eq!(s.state("web"), State::Running);
}

/// One that ends lets nobody through who would then wait for another.
#[test]
fn of_several_the_one_that_fails_counts() {
    for (fails, ends) in [("db@0", "db@1"), ("db@1", "db@0")] {
        let mut s = Scene::of([api(1), process("db").instances(2)]);
        s.spawns(fails, Spawning::Fails(secs(0)));
        s.exit(fails, 1);
        s.advance(secs(30));
        s.ends_slowly(ends, secs(3));
        s.restart(ends).unwrap();
        s.forget();
        s.restart("api").unwrap();
        s.advance(secs(1));
        assert!(!s.done().contains("api"), "{fails} fails");
    }
}

/// Before what serves and goes down its users do. What does not serve they need not wait for.
#[test]
fn what_does_not_serve_takes_nobody_down() {
    let mut s = Scene::of([api(1), db()]);
    s.ends_slowly("db", secs(60));
    s.restart("db").unwrap();
    s.forget();
    s.config([api(1).line("v2"), db()]);
    assert_eq!((s.done().as_str(), s.state("api")), ("", State::Running), "it ends already");
    // It tries to come up when a change mends it.
    let db = |line: &str| process("db").checked().line(line);
    let mut s = Scene::of([api(1), db("v1")]);
    s.finds("db", STARTING);
    s.exit("db", 1);
    s.advance(secs(2));
    assert_eq!(s.state("db"), State::Starting);
    s.forget();
    s.config([api(1).line("v2"), db("v2")]);
    s.advance(secs(5));
    assert_eq!((s.done().as_str(), s.state("api")), ("-db@0 +db@0", State::Running));
    s.finds("db", Finding::Healthy);
    s.advance(secs(5));
    assert_eq!(s.done(), "-api@0 +api@0");
}

/// Both change: who uses the other goes down before it, and comes up after it, whatever their names.
#[test]
fn both_change_in_order() {
    for (low, high) in [("a", "b"), ("b", "a")] {
        let both = |line: &str| [process(low).line(line), process(high).line(line).after(low)];
        let mut s = Scene::of(both("v1"));
        s.ends_slowly(high, secs(3));
        s.forget();
        s.config(both("v2"));
        s.advance(secs(2));
        assert_eq!(s.done(), format!("-{high}@0"), "{low} is used");
        s.advance(secs(10));
        assert_eq!(s.done(), format!("-{low}@0 +{low}@0 +{high}@0"));
        s.restart_all([&format!("{low}@0"), &format!("{high}@0")]);
        s.advance(secs(10));
        assert_eq!(s.done(), format!("-{high}@0 -{low}@0 +{low}@0 +{high}@0"));
    }
}

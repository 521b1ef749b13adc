//! Dependencies gate starts, order stops, and lead to restarts only where the edge says so.

use crate::*;

#[test]
fn each_condition_gates() {
    let mut s = Scene::new();
    s.spawns("db", Spawning::Works(secs(1)));
    s.finds("db", Finding::Ill("HTTP 503"));
    s.config([
        process("db").checked(),
        process("on-healthy").on("db", Condition::Healthy),
        process("on-ready").on("db", Condition::Ready),
        process("on-started").on("db", Condition::Started),
    ]);
    assert_eq!(s.done(), "+db@0");
    assert_eq!(s.reason("on-started"), "waits for db to be started: it is starting");
    s.advance(secs(1));
    assert_eq!(s.done(), "+on-started@0");
    s.finds("db", Finding::Healthy);
    s.advance(secs(1));
    assert_eq!(s.done(), "+on-healthy@0 +on-ready@0");
}

#[test]
fn started_counts_as_ready_where_there_is_no_check() {
    let mut s = Scene::of([process("api").after("db"), process("db")]);
    assert_eq!(s.done(), "+db@0 +api@0");
}

#[test]
fn completed_needs_success() {
    let mut s = Scene::of([
        process("api").on("migrate", Condition::Completed),
        process("migrate").policy(RestartCondition::OnFailure),
    ]);
    assert_eq!(s.reason("api"), "waits for migrate to be completed: it is not completed");
    s.exit("migrate", 1);
    assert_eq!(s.state("api"), State::Waiting);
    assert_eq!(s.reason("api"), "waits for migrate to be completed: it is failing and tried again");
    s.advance(secs(1));
    s.exit("migrate", 0);
    assert_eq!((s.state("migrate"), s.state("api")), (State::Completed, State::Running));
}

#[test]
fn a_one_shot_that_failed_is_named() {
    let mut s = Scene::of([
        process("api").on("migrate", Condition::Completed),
        process("migrate").one_shot(),
    ]);
    s.exit_with("migrate", ExitStatus::Unknown);
    assert_eq!(s.state("migrate"), State::Failed, "how it ended is unknown: no success");
    assert_eq!(s.reason("api"), "waits for migrate to be completed: it is failed");
    let job = s.start("api").unwrap();
    assert_eq!(s.result(job), Some(JobResult::Dependency));
}

#[test]
fn a_chain_is_started_as_a_whole() {
    let mut s = Scene::of([process("a").after("b"), process("b").after("c"), process("c")]);
    s.stop("c").unwrap();
    assert_eq!(s.reason("a"), "waits for b to be ready: it is stopped");
    s.stop("a").unwrap();
    let results = s.start_all(["a", "b", "c"]).map(|job| s.result(job));
    assert_eq!(results, [Some(JobResult::Done); 3]);
}

#[test]
fn a_completed_one_shot_was_ready_and_is_not_healthy() {
    let mut s = Scene::of([
        process("a").on("job", Condition::Healthy),
        process("b").on("job", Condition::Ready),
        process("c").on("job", Condition::Started),
        process("job").one_shot().checked(),
    ]);
    s.stop("a").unwrap();
    s.stop("b").unwrap();
    s.stop("c").unwrap();
    s.exit("job", 0);
    assert_eq!(s.state("job"), State::Completed);
    s.restart("job").unwrap();
    s.behave("job", |b| b.reap = secs(1));
    s.exit("job", 0);
    let over = "waits for job to be healthy: it is completed, and so not healthy any more";
    let job = s.start("a").unwrap();
    assert_eq!((s.state("job"), s.result(job)), (State::Stopping, Some(JobResult::Dependency)));
    assert_eq!(s.reason("a"), over, "something of it is left, and that is no health");
    s.stop("a").unwrap();
    s.advance(secs(1));
    let jobs = ["a", "b", "c"].map(|name| s.start(name).unwrap());
    let results = jobs.map(|job| s.result(job).unwrap());
    assert_eq!(results, [JobResult::Dependency, JobResult::Done, JobResult::Done]);
    assert_eq!(s.reason("a"), over);
}

#[test]
fn a_crash_leaves_dependents_alone() {
    let mut s = Scene::of([process("api").after("db"), process("db")]);
    s.forget();
    s.exit("db", 1);
    s.advance(secs(60));
    assert_eq!(s.done(), "+db@0");
    assert_eq!(s.state("api"), State::Running);
}

#[test]
fn an_illness_leaves_dependents_alone() {
    let mut s = Scene::of([
        process("api").on("db", Condition::Healthy),
        process("db").checked().when_ill(OnFailure::None),
    ]);
    s.forget();
    s.finds("db", Finding::Ill("HTTP 500"));
    s.advance(secs(60));
    assert_eq!((s.done(), s.view("db").health), (String::new(), HealthState::Unhealthy));
    assert_eq!(s.state("api"), State::Running);
    s.stop("api").unwrap();
    s.start("api").unwrap();
    assert_eq!(s.reason("api"), "waits for db to be healthy: it is not healthy");
    s.finds("db", Finding::Healthy);
    s.advance(secs(10));
    assert_eq!(s.state("api"), State::Running);
}

#[test]
fn with_restart_on_the_edge_a_crash_restarts_those_above_near_and_far() {
    let mut s = Scene::of([
        process("api").follows("cache"),
        process("cache").follows("db"),
        process("db"),
        process("other").after("db"),
    ]);
    s.forget();
    s.exit("db", 1);
    s.advance(secs(2));
    assert_eq!(s.done(), "-api@0 -cache@0 +db@0 +cache@0 +api@0");
    assert_eq!(
        s.last_note("cache", "stopping"),
        Some(What::Stopping { why: StopReason::DependencyRestarted(id("db").process) })
    );
}

#[test]
fn with_restart_on_the_edge_a_restart_by_hand_is_one_of_all_above() {
    let mut s = Scene::of([process("api").follows("db"), process("db"), process("x").after("db")]);
    s.forget();
    let job = s.restart("db").unwrap();
    assert_eq!(s.done(), "-api@0 -db@0 +db@0 +api@0");
    assert_eq!(s.result(job), Some(JobResult::Done));
}

#[test]
fn with_restart_on_the_edge_a_change_is_one_of_all_above() {
    let above = || [process("api").follows("cache"), process("cache").follows("db")];
    let [api, cache] = above();
    let mut s = Scene::of([api, cache, process("db")]);
    s.forget();
    let [api, cache] = above();
    s.config([api, cache, process("db").line("v2")]);
    assert_eq!(s.done(), "-api@0 -cache@0 -db@0 +db@0 +cache@0 +api@0");
}

#[test]
fn a_stop_takes_dependents_first_and_they_come_back() {
    let mut s = Scene::of([
        process("api").after("cache"),
        process("cache").after("db"),
        process("db"),
        process("free"),
    ]);
    s.forget();
    s.ends_slowly("api", secs(1));
    let job = s.stop("db").unwrap();
    assert_eq!(s.done(), "-api@0");
    assert_eq!(s.result(job), None);
    s.advance(secs(1));
    assert_eq!(s.done(), "-cache@0 -db@0");
    assert_eq!(s.result(job), Some(JobResult::Done));
    assert_eq!(s.reason("cache"), "waits for db to be ready: it is stopped");
    assert_eq!(s.reason("api"), "waits for cache to be ready: it is stopped");
    assert!(s.view("api").wanted, "what is wanted has not changed");
    let job = s.start("api").unwrap();
    assert_eq!(s.result(job), Some(JobResult::Dependency));
    s.start("db").unwrap();
    assert_eq!(s.done(), "+db@0 +cache@0 +api@0");
}

#[test]
fn what_holds_an_instance_may_change() {
    let above = process("above").after("api");
    let mut s =
        Scene::of([above, process("api").after("a").after("b"), process("a"), process("b")]);
    s.ends_slowly("above", secs(5));
    s.stop("a").unwrap();
    s.stop("b").unwrap();
    s.start("a").unwrap();
    assert_eq!(s.view("api").sub_state, "held");
    s.advance(secs(5));
    let why = StopReason::DependencyStopped(id("b").process);
    assert_eq!(s.last_note("api", "stopping"), Some(What::Stopping { why }));
    assert_eq!(s.view("api").last_end.unwrap().to_string(), "was ended: its dependency b is down");
}

#[test]
fn what_falls_ill_while_something_else_is_waited_for_is_waited_for_too() {
    let mut s = Scene::new();
    s.spawns("cache", Spawning::Works(secs(50)));
    s.config([
        process("api").on("cache", Condition::Ready).on("db", Condition::Healthy),
        process("cache"),
        process("db").checked().when_ill(OnFailure::None),
    ]);
    assert_eq!(s.reason("api"), "waits for cache to be ready: it is starting");
    s.finds("db", Finding::Ill("HTTP 500"));
    s.advance(secs(30));
    assert_eq!(
        s.reason("api"),
        "waits for cache to be ready: it is starting; db to be healthy: it is not healthy"
    );
}

#[test]
fn one_instance_of_several_may_be_stopped_alone() {
    let mut s = Scene::of([process("api").after("db"), process("db").instances(2)]);
    s.forget();
    s.stop("db@1").unwrap();
    assert_eq!(s.done(), "-db@1");
    s.restart("api").unwrap();
    assert_eq!(s.state("api"), State::Running, "the one that is to be up is ready");
    s.stop("db@0").unwrap();
    assert_eq!(s.state("api"), State::Waiting);
}

#[test]
fn what_completed_holds_nobody_down() {
    let mut s = Scene::of([
        process("api").on("migrate", Condition::Completed),
        process("migrate").one_shot(),
    ]);
    s.exit("migrate", 0);
    s.forget();
    s.stop("migrate").unwrap();
    assert_eq!(s.done(), "");
    s.restart("api").unwrap();
    assert_eq!(s.state("api"), State::Running);
    s.restart("migrate").unwrap();
    assert_eq!(s.state("api"), State::Running);
    s.stop("migrate").unwrap();
    assert_eq!((s.state("migrate"), s.state("api")), (State::Down, State::Running));
}

#[test]
fn all_instances_must_meet_the_condition() {
    let mut s = Scene::new();
    s.spawns("db@1", Spawning::Works(secs(3)));
    s.config([process("api").after("db"), process("db").instances(2)]);
    assert_eq!(s.state("api"), State::Waiting);
    s.advance(secs(3));
    assert_eq!(s.state("api"), State::Running);
}

#[test]
fn one_that_failed_beside_others_that_start_is_what_is_told() {
    let mut s = Scene::new();
    s.spawns("db@0", Spawning::Works(secs(5)));
    s.spawns("db@1", Spawning::Fails(secs(0)));
    s.config([process("api").after("db"), process("db").instances(2).attempts(0)]);
    assert_eq!((s.state("db@0"), s.state("db@1")), (State::Starting, State::Failed));
    assert_eq!(s.reason("api"), "waits for db to be ready: it is failed");
    s.advance(secs(5));
    assert_eq!(s.steps()[0], "start api@0 held: waits for db to be ready: it is failed");
}

#[test]
fn what_a_waiting_dependency_waits_for_is_told_apart() {
    let mut s = Scene::new();
    s.spawns("flaky", Spawning::Fails(secs(0)));
    s.spawns("slow", Spawning::Works(secs(9)));
    s.config([
        process("a").after("b"),
        process("b").after("slow"),
        process("c").after("d"),
        process("d").after("flaky"),
        process("e").after("f"),
        process("f").after("off"),
        process("flaky"),
        process("off").disabled(),
        process("slow"),
    ]);
    assert_eq!(s.reason("a"), "waits for b to be ready: it is waiting itself");
    assert_eq!(
        s.reason("c"),
        "waits for d to be ready: it is waiting itself for something that fails"
    );
    // What is held down by what is disabled is down by the same rule.
    assert_eq!(s.reason("e"), "waits for f to be ready: it is stopped");
}

#[test]
fn a_dependency_on_something_that_gave_up_is_stuck() {
    let mut s = Scene::new();
    s.spawns("bad", Spawning::Fails(secs(0)));
    s.config([process("a").after("b"), process("b").after("bad"), process("bad").attempts(0)]);
    assert_eq!(s.reason("b"), "waits for bad to be ready: it is failed");
    assert_eq!(
        s.reason("a"),
        "waits for b to be ready: it is waiting itself for something that is down"
    );
    let job = s.start("a").unwrap();
    assert_eq!(s.result(job), Some(JobResult::Dependency));
    s.spawns("bad", Spawning::Works(secs(0)));
    s.reset("bad").unwrap();
    assert_eq!(s.state("a"), State::Running);
}

#[test]
fn an_illness_does_not_overtake_the_order_of_a_stop() {
    let mut s = Scene::of([process("api").after("db"), process("db").checked()]);
    s.ends_slowly("api", secs(29));
    s.finds("db", Finding::Ill("HTTP 500"));
    s.forget();
    s.stop("db").unwrap();
    s.advance(secs(25));
    assert_eq!(s.view("db").health, HealthState::Unhealthy);
    assert_eq!(s.done(), "-api@0", "db goes on until api is down");
    s.advance(secs(5));
    assert_eq!(s.done(), "-db@0");
    assert_eq!(s.state("db"), State::Down);
}

#[test]
fn a_start_timeout_does_not_overtake_the_order_of_a_stop() {
    let mut s = Scene::of([process("api").on("db", Condition::Started), process("db").checked()]);
    s.restart("db").unwrap();
    s.finds("db", Finding::Ill("refused"));
    s.restart("db").unwrap();
    s.ends_slowly("api", secs(29));
    s.advance(secs(50));
    assert_eq!(s.state("db"), State::Starting);
    s.forget();
    s.stop("db").unwrap();
    s.advance(secs(20));
    assert_eq!(s.done(), "-api@0", "its time to start is over, and it ends after api");
    s.advance(secs(10));
    assert_eq!((s.state("db"), s.done().as_str()), (State::Down, "-db@0"));
}

#[test]
fn what_it_waits_for_is_told_once_for_each_news_of_it() {
    let mut s = Scene::new();
    let waits =
        |s: &mut Scene| s.notes().iter().filter(|note| note.as_str() == "api@0 waiting").count();
    s.spawns("db", Spawning::Works(secs(5)));
    s.config([process("api").after("db"), process("db")]);
    assert_eq!(waits(&mut s), 1);
    s.restart("db").unwrap();
    assert_eq!(waits(&mut s), 0, "it was coming, and is");
    s.spawns("db", Spawning::Fails(secs(0)));
    s.advance(secs(5));
    assert_eq!(waits(&mut s), 1, "it fails and is tried again");
    s.spawns("db", Spawning::Works(secs(5)));
    s.advance(secs(1));
    assert_eq!(waits(&mut s), 1, "it is coming again");
    s.stop("api").unwrap();
    s.start("api").unwrap();
    assert_eq!(waits(&mut s), 1, "it waits anew");
}

#[test]
fn the_order_of_a_reload_is_no_news_and_what_is_waited_for_after_it_is() {
    let mut s = Scene::of([process("old")]);
    s.ends_slowly("old", secs(1));
    s.spawns("db", Spawning::Works(secs(5)));
    s.forget();
    s.config([process("api").after("db"), process("db")]);
    let waits = |s: &mut Scene| s.notes().contains(&"api@0 waiting".to_owned());
    assert!(!waits(&mut s));
    s.advance(secs(1));
    assert!(waits(&mut s));
}

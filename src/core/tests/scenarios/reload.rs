//! Reload in steps.

use crate::*;
use provost_core::reload::ReloadResult;

#[test]
fn stop_then_change_then_start() {
    let mut s = Scene::of([process("changed"), process("old"), process("same")]);
    let same = s.run("same");
    s.ends_slowly("old", secs(1));
    s.ends_slowly("changed", secs(1));
    s.forget();
    s.config([process("changed").line("v2"), process("new"), process("same")]);
    assert_eq!(s.done(), "-old@0");
    assert_eq!(s.reason("new"), "waits for the reload to stop and change other processes first");
    assert_eq!(s.world.machine.summary().system_state(), "reloading");
    s.advance(secs(1));
    assert_eq!(s.done(), "-changed@0");
    assert!(s.view("changed").needs_restart);
    s.advance(secs(1));
    assert_eq!(s.done(), "+changed@0 +new@0");
    assert_eq!(s.run("same"), same);
    assert_eq!(s.steps(), ["restart changed@0 done", "start new@0 done", "stop old@0 done"],);
    assert_eq!(s.report().result, ReloadResult::Applied);
    assert!(!s.view("changed").needs_restart);
}

#[test]
fn where_nothing_goes_or_changes_nobody_hears_of_waiting() {
    let mut s = Scene::of([process("a"), process("b")]);
    let told = ["reload-started", "a@0 starting", "b@0 starting", "a@0 started", "a@0 ready"];
    assert_eq!(s.notes()[..5], told);
}

#[test]
fn removed_ones_go_dependents_first() {
    let mut s = Scene::of([process("a"), process("b").after("a"), process("c").after("b")]);
    s.ends_slowly("c", secs(1));
    s.forget();
    s.config([]);
    assert_eq!(s.done(), "-c@0");
    s.advance(secs(1));
    assert_eq!(s.done(), "-b@0 -a@0");
    assert_eq!(s.world.machine.instances().count(), 0);
}

#[test]
fn one_removed_later_still_waits_for_one_removed_before() {
    let mut s = Scene::of([process("a"), process("b").after("a"), process("c")]);
    s.ends_slowly("b", secs(5));
    s.config([process("a"), process("c")]);
    s.forget();
    s.config([process("c")]);
    assert_eq!((s.done().as_str(), s.view("a").sub_state), ("", "held"));
    s.advance(secs(5));
    assert_eq!(s.done(), "-a@0");
}

#[test]
fn a_changed_chain_goes_down_from_above_and_comes_up_from_below() {
    let mut s = Scene::of([process("api").after("db"), process("db")]);
    s.forget();
    s.config([process("api").after("db").line("v2"), process("db").line("v2")]);
    assert_eq!(s.done(), "-api@0 -db@0 +db@0 +api@0");
}

#[test]
fn several_instances_roll_one_by_one_gated_on_readiness() {
    let web = || process("web").instances(3).checked();
    let mut s = Scene::of([web()]);
    s.finds("web", Finding::Ill("starting"));
    s.forget();
    s.config([web().line("v2")]);
    s.advance(secs(5));
    assert_eq!(s.done(), "-web@0 +web@0", "the next waits until this one is ready");
    assert_eq!((s.state("web@1"), s.state("web@2")), (State::Running, State::Running));
    s.finds("web@0", Finding::Healthy);
    s.advance(secs(1));
    assert_eq!(s.done(), "-web@1 +web@1");
    s.finds("web", Finding::Healthy);
    s.advance(secs(1));
    assert_eq!(s.done(), "-web@2 +web@2");
}

#[test]
fn live_changes_need_no_run() {
    let mut s = Scene::of([process("api").checked(), process("db")]);
    let (api, db) = (s.run("api"), s.run("db"));
    s.forget();
    s.config([
        process("api").checked().after("db").attempts(4).with(|spec| {
            spec.stop.timeout = secs(1);
            spec.health.as_mut().unwrap().interval = secs(2);
        }),
        process("db").with(|spec| spec.description = Some("base".into())),
    ]);
    assert_eq!(s.done(), "");
    assert_eq!((s.run("api"), s.run("db")), (api, db));
    assert_eq!(s.steps(), ["live api@0 done", "live db@0 done"]);
    assert_eq!(s.view("api").generation.0, 2);
    assert_eq!(s.view("api").last_check, Some(s.world.now), "a changed check speaks at once");
    s.advance(secs(2));
    assert_eq!(s.view("api").last_check, Some(s.world.now));
    s.ignores_term("api");
    s.stop("db").unwrap();
    s.advance(secs(1));
    assert_eq!(s.done(), "-api@0 !api@0 -db@0", "the new stop settings and edges hold");
}

#[test]
fn a_check_may_come_and_go() {
    let mut s = Scene::of([process("api")]);
    s.finds("api", Finding::Ill("refused"));
    s.config([process("api").checked().when_ill(OnFailure::None)]);
    assert_eq!(s.state("api"), State::Running, "what was ready is");
    assert_eq!(s.view("api").health, HealthState::Starting);
    s.advance(secs(20));
    assert_eq!(s.view("api").health, HealthState::Unhealthy);
    s.config([process("api")]);
    assert_eq!(s.view("api").health, HealthState::None);
    assert_eq!(s.world.machine.poll_timeout(), None);
}

#[test]
fn readiness_and_start_timeout_are_taken_in_by_what_starts() {
    let mut s = Scene::new();
    s.finds("api", Finding::Ill("refused"));
    s.config([process("api").checked()]);
    s.advance(secs(30));
    let longer = |p: Process| p.with(|spec| spec.start_timeout = secs(100));
    s.config([longer(process("api").checked())]);
    s.advance(secs(60));
    assert_eq!(s.state("api"), State::Starting, "counted from when it was asked for");
    let job = s.start("api").unwrap();
    s.config([longer(process("api").checked()).with(|spec| spec.readiness = Readiness::Started)]);
    assert_eq!((s.state("api"), s.result(job)), (State::Running, Some(JobResult::Done)));
    let checked = process("api").checked().when_ill(OnFailure::None);
    s.config([checked.with(|spec| spec.start_timeout = secs(1))]);
    s.advance(secs(5));
    assert_eq!(s.state("api"), State::Running, "ready is ready");
}

#[test]
fn how_long_a_stop_may_take_is_settled_when_it_begins() {
    let api = |timeout| process("api").with(|spec| spec.stop.timeout = timeout);
    let mut s = Scene::of([api(secs(5))]);
    s.ignores_term("api");
    s.stop("api").unwrap();
    s.config([api(secs(1))]);
    s.forget();
    s.advance(millis(4_999));
    assert_eq!(s.done(), "");
    s.advance(millis(1));
    assert_eq!(s.done(), "!api@0");
    let told = s.last_note("api", "killing").unwrap().to_string();
    assert_eq!(told, "still there 5s after it was asked to end; killing it");
}

#[test]
fn nothing_to_do_is_said() {
    let mut s = Scene::of([process("api")]);
    s.forget();
    let answer = s.try_config(Settings::default(), [process("api")]);
    assert_eq!(answer, Ok(Vec::new()));
    assert_eq!(s.report().result, ReloadResult::Unchanged);
    assert_eq!(s.world.machine.generation().0, 1);
    assert_eq!(s.report().plan.unchanged.len(), 1);
}

#[test]
fn a_change_of_auto_start_alone_is_no_generation_and_holds_for_what_comes() {
    let mut s = Scene::of([process("api")]);
    let settings = || Settings { auto_start: false, ..Settings::default() };
    s.settings(settings(), [process("api")]);
    assert_eq!((s.report().result, s.state("api")), (ReloadResult::Unchanged, State::Running));
    s.start("api").unwrap();
    s.settings(settings(), [process("api"), process("db")]);
    assert_eq!((s.state("api"), s.state("db")), (State::Running, State::Down));
}

#[test]
fn a_first_configuration_without_processes_is_a_generation() {
    let mut s = Scene::new();
    assert_eq!(s.world.machine.generation().0, 0);
    s.config([]);
    assert_eq!(s.world.machine.generation().0, 1);
}

#[test]
fn a_newer_reload_takes_over() {
    let mut s = Scene::of([process("a"), process("b")]);
    s.ends_slowly("a", secs(5));
    s.config([process("b"), process("c")]);
    assert_eq!(s.state("c"), State::Waiting);
    let job = s.world.model.reload.as_ref().unwrap().job;
    s.config([process("b"), process("c"), process("d")]);
    assert_eq!(s.result(job), Some(JobResult::Canceled));
    assert_eq!(s.report().result, ReloadResult::Superseded);
    s.advance(secs(5));
    assert_eq!(s.report().result, ReloadResult::Applied);
    assert_eq!((s.state("c"), s.state("d")), (State::Running, State::Running));
}

#[test]
fn the_same_again_while_it_is_applied_goes_on() {
    let mut s = Scene::of([process("a"), process("b")]);
    s.ends_slowly("a", secs(5));
    let new = || [process("b").line("v2"), process("c")];
    s.config(new());
    s.config(new());
    s.forget();
    s.advance(secs(5));
    assert_eq!(s.done(), "-b@0 +b@0 +c@0");
    assert_eq!(s.report().result, ReloadResult::Applied);
}

#[test]
fn going_back_to_what_still_runs_needs_no_restart() {
    let mut s = Scene::of([process("a"), process("b"), process("z").follows("b")]);
    s.ends_slowly("a", secs(5));
    let run = s.run("b");
    s.config([process("b").line("v2"), process("z").follows("b")]);
    assert!(s.view("b").needs_restart);
    s.forget();
    s.config([process("a"), process("b"), process("z").follows("b")]);
    assert!(!s.view("b").needs_restart);
    s.advance(secs(5));
    assert_eq!(s.run("b"), run);
    assert_eq!(s.done(), "+a@0", "the removed one was on its way out");
    assert_eq!((s.state("a"), s.state("z")), (State::Running, State::Running));
}

#[test]
fn going_back_does_not_take_a_restart_by_hand_back() {
    let mut s = Scene::of([process("b"), process("z").follows("b")]);
    s.ends_slowly("z", secs(5));
    let old = s.run("b");
    let job = s.restart("b").unwrap();
    s.config([process("b").line("v2"), process("z").follows("b")]);
    s.config([process("b"), process("z").follows("b")]);
    s.advance(secs(5));
    assert_ne!(s.run("b"), old);
    assert_eq!(s.result(job), Some(JobResult::Done));
}

#[test]
fn what_was_removed_and_is_back_while_it_ends_starts_again() {
    let mut s = Scene::of([process("a"), process("b")]);
    s.ends_slowly("a", secs(5));
    let stop = s.stop("a").unwrap();
    s.config([process("b")]);
    assert_eq!(s.stop("a"), Err(Refusal::NoSuchProcess("a@0".into())));
    s.config([process("a"), process("b")]);
    assert_eq!(s.result(stop), Some(JobResult::Canceled), "it is another life");
    s.forget();
    s.advance(secs(5));
    assert_eq!((s.done().as_str(), s.state("a")), ("+a@0", State::Running));
}

#[test]
fn what_was_removed_and_is_back_before_it_ends_goes_on() {
    let mut s = Scene::of([process("a"), process("b").after("a")]);
    s.ends_slowly("b", secs(5));
    let run = s.run("a");
    s.config([]);
    assert_eq!(s.view("a").sub_state, "held");
    s.config([process("a")]);
    s.advance(secs(9));
    assert_eq!((s.run("a"), s.state("a")), (run, State::Running));
    assert!(!s.is_there("b"));
}

#[test]
fn a_changed_process_may_depend_on_an_added_one() {
    let mut s = Scene::of([process("api"), process("old")]);
    s.forget();
    s.config([process("api").line("v2").after("db"), process("db")]);
    assert_eq!(s.done(), "-old@0 +db@0 -api@0 +api@0");
    assert_eq!(s.report().result, ReloadResult::Applied);
}

#[test]
fn a_roll_that_waits_for_an_added_one_begins_after_it() {
    let mut s = Scene::of([process("api").instances(2)]);
    s.forget();
    s.config([process("api").instances(2).line("v2").after("db"), process("db")]);
    assert_eq!(s.done(), "+db@0 -api@0 +api@0 -api@1 +api@1");
    assert_eq!(s.report().result, ReloadResult::Applied);
}

#[test]
fn an_edge_that_is_no_more_holds_nobody() {
    let mut s = Scene::of([process("api").after("db"), process("db")]);
    s.ends_slowly("api", secs(9));
    s.stop("db").unwrap();
    assert_eq!(s.view("db").sub_state, "held");
    s.forget();
    s.config([process("api"), process("db")]);
    assert_eq!(s.done(), "-db@0");
    s.advance(secs(9));
    assert_eq!((s.state("db"), s.state("api")), (State::Down, State::Running));
}

#[test]
fn edges_of_what_is_gone_make_no_circle() {
    // The run of `b` still has an edge to `a`; the file turned it round before both went.
    let mut s = Scene::of([process("a"), process("b").after("a"), process("c").after("b")]);
    s.ends_slowly("c", secs(5));
    s.stop("b").unwrap();
    s.config([process("a").after("b"), process("b").line("v2"), process("c").after("b")]);
    s.config([]);
    s.advance(secs(60));
    assert_eq!(
        s.world.machine.instances().count(),
        0,
        "{:?}",
        s.world.machine.instances().collect::<Vec<_>>()
    );
}

#[test]
fn a_change_while_it_was_going_down_is_not_forgotten() {
    let mut s = Scene::of([process("api").after("db"), process("db")]);
    s.ends_slowly("api", secs(5));
    s.stop("db").unwrap();
    s.config([process("api").after("db"), process("db").line("v2")]);
    assert_eq!(s.view("db").sub_state, "held");
    assert_eq!(s.steps(), ["live db@0 done"], "no reload waits for what an operator stopped");
    s.start("db").unwrap();
    s.advance(secs(9));
    assert!(!s.view("db").needs_restart);
    assert_eq!(s.state("db"), State::Running);
}

#[test]
fn nor_while_the_reload_goes_on() {
    let all = |line: &str| [process("api").after("db"), process("db").line(line)];
    let [api, db] = all("v1");
    let mut s = Scene::of([api, db, process("slow")]);
    s.ends_slowly("api", secs(5));
    s.ends_slowly("slow", secs(20));
    s.stop("db").unwrap();
    s.config(all("v2"));
    s.start("db").unwrap();
    s.advance(secs(9));
    assert!(!s.view("db").needs_restart && s.is_there("slow"));
    assert_eq!(s.state("db"), State::Running);
}

#[test]
fn a_start_by_hand_does_not_jump_the_queue_of_a_roll() {
    let web = || process("web").instances(3).checked();
    let mut s = Scene::of([web()]);
    s.finds("web", Finding::Ill("starting"));
    s.config([web().line("v2")]);
    s.forget();
    let job = s.start("web@2").unwrap();
    assert_eq!(s.done(), "");
    assert_eq!(s.result(job), Some(JobResult::Done), "it is up, and will be again");
}

#[test]
fn what_does_not_start_is_no_step() {
    let all = || [process("a").disabled(), process("b")];
    let mut s = Scene::of(all());
    assert_eq!(s.steps(), ["start b@0 done"]);
    for settings in [
        Settings { enabled: false, ..Settings::default() },
        Settings { auto_start: false, ..Settings::default() },
    ] {
        let mut s = Scene::new();
        s.settings(settings, all());
        assert_eq!(s.steps(), Vec::<String>::new());
    }
    s.config([process("a").disabled().line("v2"), process("b")]);
    assert_eq!(s.steps(), ["live a@0 done"]);
}

#[test]
fn enabling_and_disabling_are_start_and_stop() {
    let mut s = Scene::of([process("a"), process("b").disabled(), process("c").after("a")]);
    s.forget();
    s.config([process("a").disabled(), process("b"), process("c").after("a")]);
    assert_eq!(s.done(), "-c@0 -a@0 +b@0");
    assert_eq!(s.steps(), ["stop a@0 done", "start b@0 done"]);
    assert_eq!(s.reason("c"), "waits for a to be ready: it is disabled");
}

#[test]
fn a_reload_that_waits_for_what_will_not_come_ends_and_says_so() {
    let mut s = Scene::of([process("db").disabled()]);
    s.config([process("api").after("db"), process("db").disabled()]);
    assert_eq!(s.steps(), ["start api@0 held: waits for db to be ready: it is disabled"]);
    assert_eq!(s.report().result, ReloadResult::Applied);
}

#[test]
fn what_was_hopeless_before_the_reload_is_no_reason_to_give_up() {
    // Each is looked at before what it needs, which then still waits for what was disabled.
    let all = |line: &str, enabled: bool| {
        let c = process("c").with(|spec| spec.enabled = enabled);
        [process("a").after("b").line(line), process("b").after("c").line(line), c]
    };
    let mut s = Scene::of(all("v1", false));
    s.spawns("c", Spawning::Works(secs(2)));
    s.config(all("v2", true));
    s.advance(secs(2));
    assert_eq!(s.steps(), ["start a@0 done", "start b@0 done", "start c@0 done"]);
}

#[test]
fn a_reload_waits_for_a_one_shot_between_its_end_and_nothing_left() {
    let mut s = Scene::new();
    s.behave("migrate", |b| {
        b.life = Some((secs(2), ExitStatus::Code(0)));
        b.reap = secs(1);
    });
    s.config([
        process("api").on("migrate", Condition::Completed),
        process("migrate").one_shot().checked(),
    ]);
    s.advance(millis(2_500));
    assert_eq!(s.state("migrate"), State::Stopping);
    assert!(s.world.model.reports.is_empty(), "{:?}", s.steps());
    assert_eq!(s.reason("api"), "waits for migrate to be completed: it is not completed");
    s.advance(secs(1));
    assert_eq!(s.steps(), ["start api@0 done", "start migrate@0 done"]);
}

#[test]
fn a_stop_by_hand_during_a_reload_ends_its_step() {
    let mut s = Scene::new();
    s.spawns("api", Spawning::Works(secs(5)));
    s.config([process("api"), process("db")]);
    s.stop("api").unwrap();
    s.advance(secs(9));
    assert_eq!(s.steps(), ["start api@0 held: it is not wanted any more", "start db@0 done"]);
}

#[test]
fn a_completed_one_shot_runs_again_only_for_its_own_change() {
    let all = |a: &str, b: &str| [process("job").one_shot().line(a), process("x").line(b)];
    let mut s = Scene::of(all("v1", "v1"));
    s.exit("job", 0);
    s.forget();
    s.config(all("v1", "v2"));
    assert_eq!(s.done(), "-x@0 +x@0");
    s.config([process("job").one_shot().with(|spec| spec.name = Some("J".into())), process("x")]);
    assert_eq!((s.state("job"), s.done().as_str()), (State::Completed, "-x@0 +x@0"));
    s.config(all("v2", "v1"));
    assert_eq!((s.state("job"), s.done().as_str()), (State::Running, "+job@0"));
}

#[test]
fn a_failed_one_is_tried_again_when_its_policy_changes() {
    let mut s = Scene::new();
    s.spawns("api", Spawning::Fails(secs(0)));
    s.config([process("api").attempts(0)]);
    assert_eq!(s.state("api"), State::Failed);
    s.config([process("api").attempts(0).with(|spec| spec.name = Some("A".into()))]);
    assert_eq!(s.state("api"), State::Failed, "a name is no reason");
    s.spawns("api", Spawning::Works(secs(0)));
    s.config([process("api").attempts(5)]);
    assert_eq!((s.state("api"), s.view("api").attempt), (State::Running, 0));
}

#[test]
fn a_crash_takes_the_new_spec_in() {
    let mut s = Scene::of([process("a"), process("b")]);
    s.ends_slowly("a", secs(5));
    s.config([process("b").line("v2")]);
    s.forget();
    s.exit("b", 1);
    assert_eq!((s.done().as_str(), s.view("b").needs_restart), ("+b@0", false));
    s.advance(secs(5));
    assert_eq!(s.done(), "", "once is enough");
    assert_eq!(s.steps(), ["stop a@0 done", "restart b@0 done"]);
}

#[test]
fn while_it_shuts_down_no_configuration_is_taken() {
    let mut s = Scene::of([process("a")]);
    s.ends_slowly("a", secs(5));
    s.shut_down();
    let answer = s.try_config(Settings::default(), [process("b")]);
    assert_eq!(answer, Err(Refusal::ShuttingDown));
}

#[test]
fn what_is_due_for_a_change_is_due_whatever_an_operator_says_meanwhile() {
    let all = |line: &str| [process("db").line(line), process("web").follows("db"), process("old")];
    let mut s = Scene::of(all("v1"));
    s.ends_slowly("web", secs(5));
    s.forget();
    let [db, web, _] = all("v2");
    s.config([db, web, process("new")]);
    assert_eq!(s.done(), "-old@0 -web@0", "what depends on it goes down first");
    s.restart("db").unwrap();
    s.stop("db").unwrap();
    s.start("db").unwrap();
    s.advance(secs(10));
    assert_eq!(s.done(), "-db@0 +db@0 +web@0 +new@0");
    assert!(!s.view("db").needs_restart && !s.world.machine.is_reloading());
}

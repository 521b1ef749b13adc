//! Readiness and health.

use crate::*;

#[test]
fn the_first_check_is_at_once_and_then_every_second() {
    let mut s = Scene::new();
    s.finds("api", Finding::Ill("refused"));
    s.config([process("api").checked()]);
    assert_eq!(s.view("api").last_check, Some(s.world.now));
    let mut checks = Vec::new();
    for _ in 0..4 {
        s.advance(millis(999));
        checks.push(s.view("api").last_check == Some(s.world.now));
        s.advance(millis(1));
        checks.push(s.view("api").last_check == Some(s.world.now));
    }
    assert_eq!(checks, [false, true, false, true, false, true, false, true]);
    s.finds("api", Finding::Healthy);
    s.advance(secs(1));
    assert_eq!(s.state("api"), State::Running);
    let at = s.world.now;
    s.advance(millis(9_999));
    assert_eq!(s.view("api").last_check, Some(at));
    s.advance(millis(1));
    assert_eq!(s.view("api").last_check, Some(s.world.now), "then every interval");
}

#[test]
fn an_interval_counts_from_the_end_of_a_check() {
    let mut s = Scene::of([process("api").checked()]);
    s.behave("api", |b| b.probe = secs(2));
    s.advance(secs(12));
    assert_eq!(s.view("api").last_check, Some(s.world.now));
    s.advance(secs(11));
    assert_ne!(s.view("api").last_check, Some(s.world.now));
    s.advance(secs(1));
    assert_eq!(s.view("api").last_check, Some(s.world.now));
}

#[test]
fn a_check_with_readiness_started_is_ready_at_once() {
    let mut s = Scene::new();
    s.finds("api", Finding::Ill("refused"));
    s.config([process("api").checked().with(|spec| spec.readiness = Readiness::Started)]);
    assert_eq!((s.state("api"), s.view("api").health), (State::Running, HealthState::Starting));
    assert_eq!(s.world.machine.summary().unhealthy, 0);
}

#[test]
fn failures_of_the_start_period_do_not_count() {
    let mut s = Scene::new();
    s.finds("api", Finding::Ill("refused"));
    s.config([process("api").checked(), process("above").on("api", Condition::Healthy)]);
    s.advance(millis(4_999));
    assert_eq!(s.view("api").health, HealthState::Starting);
    s.advance(secs(2));
    assert_eq!(s.reason("above"), "waits for api to be healthy: it is starting");
    assert_eq!(s.view("api").health, HealthState::Unhealthy, "two more do");
    assert_eq!(s.state("api"), State::Starting, "a slow start is no illness");
}

#[test]
fn a_start_timeout_ends_the_run_and_fails_the_job() {
    let mut s = Scene::of([process("api").checked()]);
    s.stop("api").unwrap();
    s.finds("api", Finding::Ill("HTTP 503"));
    let job = s.start("api").unwrap();
    s.forget();
    s.advance(millis(59_999));
    assert_eq!((s.state("api"), s.result(job)), (State::Starting, None));
    s.advance(millis(1));
    assert_eq!(s.result(job), Some(JobResult::Timeout));
    assert_eq!(s.done(), "-api@0");
    assert_eq!(s.view("api").last_end, Some(RunEnd::StartTimedOut));
    assert_eq!(s.state("api"), State::Backoff);
    let told = s.last_note("api", "start-timed-out").unwrap().to_string();
    assert_eq!(told, "not ready within 1m; its last check said: HTTP 503");
    let reason = s.view("api").reason(s.world.now);
    let wanted = "it was not ready in time; its last check said: HTTP 503; next start in ";
    assert!(reason.starts_with(wanted), "{reason}");
}

#[test]
fn a_spawn_that_is_never_answered_times_out_too() {
    let mut s = Scene::new();
    s.spawns("api", Spawning::Silent);
    s.config([process("api")]);
    s.forget();
    s.advance(secs(60));
    assert_eq!(s.done(), "-api@0");
    s.advance(secs(30));
    assert_eq!(s.done(), "!api@0");
    let run = s.run("api").unwrap();
    s.world.backend.execute(run, s.world.now, None);
    s.advance(secs(10));
    assert_eq!((s.state("api"), s.done().as_str()), (State::Backoff, "!api@0"));
}

#[test]
fn two_failures_in_a_row_make_it_ill_and_it_is_restarted() {
    let mut s = Scene::of([process("api").checked()]);
    s.finds("api", Finding::Ill("HTTP 500"));
    s.forget();
    s.advance(secs(10));
    let told = s.last_note("api", "check-failed").unwrap().to_string();
    assert_eq!(told, "check failed (1 of 2): HTTP 500");
    assert_eq!((s.done().as_str(), s.view("api").health), ("", HealthState::Healthy));
    s.advance(secs(10));
    assert_eq!(s.done(), "-api@0");
    assert_eq!(s.view("api").last_end, Some(RunEnd::Unhealthy("HTTP 500".into())));
    assert_eq!(s.state("api"), State::Backoff);
    s.finds("api", Finding::Healthy);
    s.advance(secs(1));
    assert_eq!((s.state("api"), s.done().as_str()), (State::Running, "+api@0"));
}

#[test]
fn one_failure_between_successes_is_nothing() {
    let mut s = Scene::of([process("api").checked()]);
    s.forget();
    for _ in 0..5 {
        s.finds("api", Finding::Ill("HTTP 500"));
        s.advance(secs(10));
        s.finds("api", Finding::Healthy);
        s.advance(secs(10));
    }
    assert_eq!(s.done(), "");
}

#[test]
fn checks_are_told_only_while_they_may_change_something() {
    let twice = |p: Process| p.with(|s| s.health.as_mut().unwrap().success_threshold = 2);
    let mut s = Scene::of([twice(process("api").checked().when_ill(OnFailure::None))]);
    let hear = |s: &mut Scene, finding, checks: u64| {
        s.finds("api", finding);
        s.advance(secs(10 * checks));
        s.notes()
    };
    s.forget();
    assert_eq!(hear(&mut s, Finding::Healthy, 3), Vec::<String>::new());
    let ill = hear(&mut s, Finding::Ill("x"), 5);
    assert_eq!(ill, ["api@0 check-failed", "api@0 unhealthy"]);
    assert_eq!(hear(&mut s, Finding::Healthy, 1), Vec::<String>::new(), "one of two");
    let again = hear(&mut s, Finding::Ill("x"), 5);
    assert_eq!(again, Vec::<String>::new(), "it is ill already");
    assert_eq!(hear(&mut s, Finding::Healthy, 2), ["api@0 healthy"]);
}

#[test]
fn a_late_answer_is_none_to_the_next_check() {
    let quick = |p: Process| p.with(|s| s.health.as_mut().unwrap().interval = secs(1));
    let mut s = Scene::of([quick(process("api").checked().when_ill(OnFailure::None))]);
    s.behave("api", |b| b.probe = millis(6_500));
    // Out at 1 s, lost at 6 s; the next is out at 7 s, when the first is answered at 7.5 s.
    s.advance(millis(7_600));
    assert_eq!(s.view("api").last_check, Some(provost_core::time::Mono(7_000_000_000)));
    assert_eq!(s.view("api").health_detail.as_deref(), Some("the check gave no answer"));
}

#[test]
fn on_failure_none_only_tells() {
    let mut s = Scene::of([process("api").checked().when_ill(OnFailure::None)]);
    s.forget();
    s.finds("api", Finding::Ill("HTTP 500"));
    s.advance(secs(100));
    assert_eq!((s.done().as_str(), s.state("api")), ("", State::Running));
    assert_eq!(s.reason("api"), "its check fails: HTTP 500");
    assert_eq!(s.world.machine.summary().unhealthy, 1);
    assert_eq!(s.world.machine.summary().system_state(), "degraded");
    s.finds("api", Finding::Healthy);
    s.advance(secs(10));
    assert_eq!((s.reason("api").as_str(), s.view("api").health), ("", HealthState::Healthy));
}

#[test]
fn on_failure_stop_gives_up() {
    let mut s = Scene::of([process("api").checked().when_ill(OnFailure::Stop)]);
    s.finds("api", Finding::Ill("HTTP 500"));
    s.advance(secs(20));
    assert_eq!(s.state("api"), State::Failed);
    assert_eq!(s.reason("api"), "its check failed (HTTP 500), and onFailure is stop");
    s.finds("api", Finding::Healthy);
    s.start("api").unwrap();
    assert_eq!(s.state("api"), State::Running, "a hand may try again");
}

#[test]
fn what_illness_leads_to_may_change_while_it_is_ill() {
    let mut s = Scene::of([process("api").checked().when_ill(OnFailure::None)]);
    s.finds("api", Finding::Ill("HTTP 500"));
    s.advance(secs(30));
    s.forget();
    s.config([process("api").checked().when_ill(OnFailure::Restart)]);
    assert_eq!(s.done(), "-api@0");
}

#[test]
fn successes_in_a_row_make_it_healthy_again() {
    let twice = process("api")
        .checked()
        .when_ill(OnFailure::None)
        .with(|spec| spec.health.as_mut().unwrap().success_threshold = 2);
    let mut s = Scene::of([twice]);
    assert_eq!(s.view("api").health, HealthState::Healthy, "the first of a run is enough");
    s.finds("api", Finding::Ill("HTTP 500"));
    s.advance(secs(20));
    s.finds("api", Finding::Healthy);
    s.advance(secs(10));
    assert_eq!(s.view("api").health, HealthState::Unhealthy);
    s.advance(secs(10));
    assert_eq!(s.view("api").health, HealthState::Healthy);
}

#[test]
fn a_check_that_gives_no_answer_has_failed() {
    let mut s = Scene::of([process("api").checked().when_ill(OnFailure::None)]);
    s.finds("api", Finding::Lost);
    s.advance(millis(10_000 + 4_999));
    assert_eq!(s.view("api").health_detail, None);
    s.advance(millis(1));
    let detail = s.view("api").health_detail.unwrap();
    assert_eq!(&*detail, "the check gave no answer", "3 s of its own and 2 s of grace");
    s.advance(secs(15));
    assert_eq!(s.view("api").health, HealthState::Unhealthy);
}

#[test]
fn an_answer_after_its_time_is_not_heard() {
    let mut s = Scene::of([process("api").checked().when_ill(OnFailure::None)]);
    s.behave("api", |b| b.probe = secs(6));
    s.advance(secs(16));
    assert_eq!(s.view("api").health_detail.as_deref(), Some("the check gave no answer"));
}

#[test]
fn one_that_says_so_is_ready_then() {
    let mut s = Scene::new();
    s.finds("api", Finding::Lost);
    let file = || [process("api").speaking(), process("above").on("api", Condition::Ready)];
    s.config(file());
    s.advance(secs(59));
    assert_eq!(s.state("api"), State::Starting);
    let status = Told::Status("loading 3 of 7".into());
    assert_eq!(s.view("api").reason(s.world.now), "it has not said that it is ready (READY=1)");
    s.says("api", status);
    let reason = s.view("api").reason(s.world.now);
    assert_eq!(reason, "not ready yet; it says: loading 3 of 7");
    s.says("api", Told::Ready);
    assert_eq!((s.state("api"), s.state("above")), (State::Running, State::Running));
    assert_eq!(s.view("api").status.as_deref(), Some("loading 3 of 7"));
    s.says("api", Told::Ready);
    // Nothing more is heard of it, and nothing more is needed.
    s.advance(secs(600));
    assert_eq!(s.state("api"), State::Running);
    s.forget();
    s.restart("api").unwrap();
    s.advance(secs(60));
    assert_eq!(s.view("api").last_end, Some(RunEnd::StartTimedOut), "each run says it anew");
    s.advance(millis(1));
    let reason = s.view("api").reason(s.world.now);
    assert!(reason.starts_with("it was not ready in time: it did not say READY=1;"), "{reason}");
    assert_eq!(s.view("api").status, None);
}

#[test]
fn one_that_is_quick_is_ready_as_soon_as_it_was_executed() {
    let mut s = Scene::new();
    s.spawns("api", Spawning::Works(secs(1)));
    s.finds("api", Finding::Lost);
    s.config([process("api").speaking()]);
    s.says("api", Told::Ready);
    assert_eq!(s.state("api"), State::Starting);
    s.advance(secs(1));
    assert_eq!(s.state("api"), State::Running);
}

#[test]
fn one_that_speaks_is_healthy_while_it_does() {
    let mut s = Scene::of([process("api").alive()]);
    assert_eq!((s.state("api"), s.view("api").health), (State::Starting, HealthState::Starting));
    let reason = s.view("api").reason(s.world.now);
    assert_eq!(reason, "it has not said that it is alive (WATCHDOG=1)");
    s.says("api", Told::Alive);
    assert_eq!((s.state("api"), s.view("api").health), (State::Running, HealthState::Healthy));
    for _ in 0..5 {
        s.advance(millis(9_999));
        s.says("api", Told::Alive);
        assert_eq!(s.view("api").last_check, Some(s.world.now));
    }
    s.forget();
    s.advance(millis(9_999));
    assert_eq!((s.view("api").health, s.done()), (HealthState::Healthy, String::new()));
    s.advance(millis(1));
    let told = s.last_note("api", "unhealthy").unwrap().to_string();
    assert_eq!(told, "unhealthy: no WATCHDOG=1 within 10s");
    assert_eq!(s.done(), "-api@0");
}

#[test]
fn one_that_says_that_something_is_wrong_is_believed() {
    let mut s = Scene::of([process("api").alive()]);
    s.says("api", Told::Alive);
    s.forget();
    s.says("api", Told::Trouble);
    assert_eq!(s.done(), "-api@0");
    let ended = s.view("api").last_end.unwrap().to_string();
    assert!(ended.contains("it says that something is wrong (WATCHDOG=trigger)"), "{ended}");
}

#[test]
fn readiness_and_health_are_two_words() {
    let both = || process("api").alive().with(|spec| spec.readiness = Readiness::Notify);
    let mut s = Scene::new();
    s.finds("api", Finding::Lost);
    s.config([both()]);
    s.says("api", Told::Alive);
    assert_eq!((s.state("api"), s.view("api").health), (State::Starting, HealthState::Healthy));
    // Nobody else's word counts.
    s.advance(secs(12));
    assert_eq!(s.view("api").health, HealthState::Unhealthy);
    assert_eq!(s.state("api"), State::Starting, "a slow start is no illness");
    s.says("api", Told::Ready);
    assert_eq!((s.state("api"), s.view("api").health), (State::Running, HealthState::Unhealthy));
    s.says("api", Told::Alive);
    assert_eq!(s.view("api").health, HealthState::Healthy);
    // What it was told when it started is the same, so this needs no new run.
    let run = s.view("api").run;
    s.config([process("api").alive()]);
    s.config([both()]);
    assert_eq!((s.view("api").run, s.state("api")), (run, State::Running));
    // This is not.
    s.config([both().with(|spec| spec.health.as_mut().unwrap().interval = secs(20))]);
    assert_ne!(s.view("api").run, run);
}

#[test]
fn who_is_asked_and_speaks_is_heard_of_its_readiness_alone() {
    let mut s = Scene::of([process("api").checked()]);
    let at = s.world.now;
    s.advance(secs(3));
    s.says("api", Told::Alive);
    s.says("api", Told::Trouble);
    let view = s.view("api");
    assert_eq!((view.last_check, view.health), (Some(at), HealthState::Healthy));
}

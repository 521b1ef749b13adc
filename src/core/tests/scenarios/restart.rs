//! The restart policy.

use crate::*;
use provost_core::ids::Run;
use provost_core::spec::ProcessSpec;

/// Seconds from each end to the next start, of a run that always ends after `life`.
fn delays(s: &mut Scene, life: std::time::Duration, n: usize) -> Vec<u64> {
    (0..n)
        .map(|_| {
            s.advance(life);
            s.exit("api", 1);
            let Some(What::BackingOff { delay, .. }) = s.last_note("api", "backing-off") else {
                panic!("it is tried again");
            };
            s.advance(delay);
            assert_ne!(s.run("api"), None, "when its delay is over");
            delay.as_millis().try_into().unwrap()
        })
        .collect()
}

/// It is asked to end, and started again as after any other end.
#[test]
fn what_outgrows_its_memory_gets_a_new_run() {
    let limited = |spec: &mut ProcessSpec| spec.limits.max_memory_restart = Some(400 << 20);
    let outgrown = |s: &mut Scene, run: Option<Run>| {
        let (instance, run) = (id("api"), run.unwrap());
        s.tell(Event::Outgrown { instance, run, used: 410 << 20 });
    };
    let mut s = Scene::of([process("api").with(limited)]);
    let run = s.run("api");
    s.forget();
    outgrown(&mut s, run);
    assert_eq!(s.done(), "-api@0");
    assert_eq!(s.view("api").last_end, Some(RunEnd::Outgrown(410 << 20)));
    assert_eq!(s.view("api").state, State::Backoff);
    // Nobody limits it any more, or nobody ever has: then nothing is done.
    let mut s = Scene::of([process("api")]);
    let run = s.run("api");
    s.forget();
    outgrown(&mut s, run);
    assert_eq!((s.done().as_str(), s.view("api").state), ("", State::Running));
}

#[test]
fn the_delay_grows_and_stays_at_its_ceiling() {
    let mut s = Scene::of([process("api").with(|spec| spec.restart.max_delay = secs(10))]);
    assert_eq!(delays(&mut s, secs(0), 6), [1_000, 2_000, 4_000, 8_000, 10_000, 10_000]);
    assert_eq!((s.view("api").attempt, s.view("api").restarts), (6, 6));
}

#[test]
fn min_uptime_resets_delay_and_attempts() {
    let mut s = Scene::of([process("api").attempts(3)]);
    assert_eq!(delays(&mut s, secs(9), 2), [1_000, 2_000], "ten seconds are needed");
    assert_eq!(delays(&mut s, secs(10), 3), [1_000, 1_000, 1_000]);
    assert_eq!(s.view("api").attempt, 1);
}

#[test]
fn uptime_counts_from_ready_and_healthy() {
    let unready = process("api").checked();
    let mut s = Scene::of([unready]);
    s.finds("api", Finding::Ill("starting"));
    s.exit("api", 1);
    s.advance(secs(1));
    s.advance(secs(8));
    s.finds("api", Finding::Healthy);
    s.advance(secs(1));
    assert_eq!(s.state("api"), State::Running);
    s.finds("api", Finding::Ill("starting"));
    assert_eq!(delays(&mut s, secs(9), 1), [2_000], "ready for 9 s of 18");
}

#[test]
fn ready_and_never_healthy_is_not_stable() {
    let spec = process("api").checked().when_ill(OnFailure::None);
    let mut s = Scene::new();
    s.finds("api", Finding::Ill("refused"));
    s.config([spec.with(|spec| spec.readiness = Readiness::Started)]);
    assert_eq!(delays(&mut s, secs(60), 2), [1_000, 2_000]);
}

#[test]
fn healthy_again_counts_anew() {
    let mut s = Scene::of([process("api").checked().when_ill(OnFailure::None)]);
    assert_eq!(delays(&mut s, secs(1), 1), [1_000]);
    s.finds("api", Finding::Ill("HTTP 500"));
    s.advance(secs(20));
    s.finds("api", Finding::Healthy);
    s.advance(secs(10));
    assert_eq!(delays(&mut s, secs(9), 1), [2_000], "healthy for 9 s in a row");
}

#[test]
fn a_run_ended_by_its_check_resets_nothing() {
    let mut s = Scene::of([process("api").checked()]);
    let mut waits = Vec::new();
    for _ in 0..3 {
        s.advance(secs(100));
        s.finds("api", Finding::Ill("HTTP 500"));
        s.advance(secs(20));
        let until = s.view("api").next_start.unwrap();
        waits.push(until.since(s.world.now).as_secs());
        s.finds("api", Finding::Healthy);
        s.advance(until.since(s.world.now));
    }
    assert_eq!(waits, [1, 2, 4]);
}

#[test]
fn a_stable_run_that_is_ended_for_its_dependency_resets() {
    let mut s = Scene::of([process("api").follows("db"), process("db")]);
    assert_eq!(delays(&mut s, secs(0), 2), [1_000, 2_000]);
    s.advance(secs(10));
    s.restart("db").unwrap();
    assert_eq!(delays(&mut s, secs(0), 1), [1_000]);
}

#[test]
fn zero_delay_is_immediate_once_and_then_doubles() {
    let mut s = Scene::of([process("api").with(|spec| spec.restart.delay = secs(0))]);
    assert_eq!(delays(&mut s, secs(0), 5), [0, 100, 200, 400, 800]);
}

#[test]
fn it_gives_up_after_max_attempts_and_says_so() {
    let mut s = Scene::of([process("api").attempts(2)]);
    delays(&mut s, secs(0), 2);
    s.exit("api", 7);
    assert_eq!(s.state("api"), State::Failed);
    assert_eq!(s.reason("api"), "gave up after 2 restarts (maxAttempts); it exited with code 7");
    assert_eq!(s.world.machine.poll_timeout(), None);
    s.reset("api").unwrap();
    assert_eq!((s.state("api"), s.view("api").attempt), (State::Running, 0));
}

#[test]
fn a_failed_spawn_is_an_attempt() {
    let mut s = Scene::new();
    s.spawns("api", Spawning::Fails(millis(5)));
    s.config([process("api").attempts(1)]);
    s.advance(secs(5));
    assert_eq!(s.state("api"), State::Failed);
    assert_eq!(s.view("api").restarts, 1);
    assert_eq!(
        s.reason("api"),
        "gave up after 1 restart (maxAttempts); it could not be started: executing x: \
         No such file or directory"
    );
    assert_eq!(s.view("api").last_exit, None);
}

#[test]
fn always_restarts_success_too() {
    let mut s = Scene::of([process("api"), process("b").policy(RestartCondition::UnlessStopped)]);
    s.exit("api", 0);
    s.exit("b", 0);
    assert_eq!((s.state("api"), s.state("b")), (State::Backoff, State::Backoff));
}

#[test]
fn success_is_what_the_file_says() {
    let codes = |p: Process| p.with(|spec| spec.restart.success_exit_codes = [0, 3].into());
    let mut s = Scene::of([codes(process("api").policy(RestartCondition::OnFailure))]);
    s.exit("api", 4);
    s.advance(secs(1));
    s.exit("api", 3);
    assert_eq!(s.state("api"), State::Completed);
}

#[test]
fn an_unknown_end_is_a_failure() {
    let mut s = Scene::of([process("api").policy(RestartCondition::OnFailure)]);
    s.exit_with("api", ExitStatus::Unknown);
    assert_eq!(s.state("api"), State::Backoff);
    assert_eq!(s.reason("api"), "it ended, how is unknown; next start in 1.0 s (restart 1)");
}

#[test]
fn leftovers_are_asked_and_then_killed_before_the_next_run() {
    let mut s = Scene::of([process("api").with(|spec| spec.stop.timeout = secs(4))]);
    s.leaves("api", Leftovers::Stubborn);
    s.forget();
    s.exit("api", 1);
    assert_eq!((s.state("api"), s.view("api").sub_state), (State::Stopping, "reaping"));
    assert_eq!(s.reason("api"), "its main process left others behind; reaping");
    assert_eq!(s.view("api").pid, None);
    s.advance(secs(4));
    assert_eq!(s.done(), "!api@0");
    assert_eq!(s.state("api"), State::Backoff);
}

#[test]
fn polite_leftovers_need_no_kill() {
    let mut s = Scene::of([process("api")]);
    s.leaves("api", Leftovers::Polite);
    s.forget();
    s.exit("api", 1);
    assert_eq!((s.done().as_str(), s.state("api")), ("", State::Backoff));
}

#[test]
fn who_ignores_the_signal_is_killed_and_killed_again() {
    let mut s = Scene::of([process("api").with(|spec| spec.stop.timeout = secs(3))]);
    s.behave("api", |b| {
        b.term = None;
        b.immune = 2;
    });
    s.forget();
    let job = s.stop("api").unwrap();
    s.advance(secs(2));
    assert_eq!(s.view("api").sub_state, "terminating");
    s.advance(secs(1));
    assert_eq!((s.done().as_str(), s.view("api").sub_state), ("-api@0 !api@0", "killing"));
    s.advance(secs(9));
    assert_eq!(s.done(), "");
    s.advance(secs(11));
    assert_eq!(s.done(), "!api@0 !api@0");
    assert_eq!((s.state("api"), s.result(job)), (State::Down, Some(JobResult::Done)));
    assert!(s.last_note("api", "still-there").is_some());
}

#[test]
fn essential_ends_the_supervisor_only_when_its_policy_gives_up() {
    let mut s = Scene::of([process("main").essential().attempts(1), process("side")]);
    s.exit("main", 9);
    assert_eq!((s.state("main"), s.code()), (State::Backoff, None));
    s.advance(secs(1));
    s.exit("main", 9);
    assert_eq!(s.code(), Some(9));
    assert_eq!(s.state("side"), State::Down);
}

#[test]
fn essential_gives_its_exit_code() {
    use provost_core::spec::Signal;
    let killed = ExitStatus::Signal { signal: Signal(11), core: true };
    for (status, code) in [
        (ExitStatus::Code(0), 0),
        (ExitStatus::Code(4), 4),
        (killed, 139),
        (ExitStatus::Unknown, 1),
    ] {
        let mut s = Scene::of([process("main").essential().one_shot()]);
        s.exit_with("main", status);
        assert_eq!(s.code(), Some(code));
    }
    let mut s = Scene::new();
    s.spawns("main", Spawning::Fails(secs(0)));
    s.config([process("main").essential().one_shot()]);
    assert_eq!(s.code(), Some(1));
}

#[test]
fn stopping_an_essential_one_by_hand_ends_nothing() {
    let mut s = Scene::of([process("main").essential()]);
    s.stop("main").unwrap();
    assert_eq!((s.state("main"), s.code()), (State::Down, None));
}

#[test]
fn nothing_can_run_when_all_have_ended() {
    let mut s =
        Scene::of([process("a").one_shot(), process("b").one_shot(), process("c").disabled()]);
    assert!(!s.world.machine.nothing_can_run());
    s.exit("a", 0);
    assert!(!s.world.machine.nothing_can_run());
    s.exit("b", 1);
    assert!(s.world.machine.nothing_can_run());
    s.start("a").unwrap();
    assert!(!s.world.machine.nothing_can_run());
    let s = Scene::of([process("c").disabled()]);
    assert!(!s.world.machine.nothing_can_run(), "nothing has run to its end");
    let mut s = Scene::of([process("a").one_shot(), process("b").on("a", Condition::Completed)]);
    assert!(!s.world.machine.nothing_can_run());
    s.exit("a", 1);
    assert_eq!(s.state("b"), State::Waiting);
    assert!(s.world.machine.nothing_can_run(), "b waits for what does not come");
    let mut s = Scene::of([process("a").one_shot(), process("b")]);
    s.exit("a", 0);
    s.stop("b").unwrap();
    assert!(!s.world.machine.nothing_can_run(), "a hand may start it again");
}

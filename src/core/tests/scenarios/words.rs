//! The words for people, and the stable names for programs.

use crate::*;
use provost_core::event::{FailReason, Note, SpawnError, SpawnStage};
use provost_core::ids::Generation;
use provost_core::job::JobKind;
use provost_core::reload::{
    ChangeKind, Plan, ReloadReport, ReloadResult, Step, StepKind, StepState,
};
use provost_core::spec::Signal;
use provost_core::time::Mono;
use provost_core::view::{InstanceView, Summary, active_state};
use std::sync::Arc;

fn db() -> provost_core::ids::ProcessId {
    id("db").process
}

#[test]
fn why_a_run_is_stopped() {
    for (why, text) in [
        (StopReason::Requested, "stopped by an operator"),
        (StopReason::Restart, "restarted by an operator"),
        (StopReason::Disabled, "disabled in the file"),
        (StopReason::Removed, "removed from the file"),
        (StopReason::Changed, "changed in the file"),
        (StopReason::DependencyStopped(db()), "its dependency db is down"),
        (StopReason::DependencyRestarted(db()), "its dependency db restarts"),
        (StopReason::Unhealthy("HTTP 500".into()), "unhealthy: HTTP 500"),
        (
            StopReason::Outgrown(410 << 20),
            "it uses 410 MiB of memory, which is above its maxMemoryRestart",
        ),
        (StopReason::StartTimedOut, "not ready in time"),
        (StopReason::Leftovers, "its main process left others behind"),
        (StopReason::Shutdown, "the supervisor is shutting down"),
    ] {
        assert_eq!(why.to_string(), text);
    }
}

#[test]
fn how_a_run_ended() {
    let error = SpawnError { stage: SpawnStage::Cwd, subject: "/x".into(), reason: "no".into() };
    for (end, text) in [
        (RunEnd::NotSpawned(Box::new(error)), "could not be started: changing directory to /x: no"),
        (RunEnd::Exited(ExitStatus::Code(3)), "exited with code 3"),
        (RunEnd::Exited(ExitStatus::Unknown), "ended, how is unknown"),
        (
            RunEnd::Exited(ExitStatus::Signal { signal: Signal(11), core: true }),
            "was ended by SIGSEGV (core dumped)",
        ),
        (
            RunEnd::Exited(ExitStatus::Signal { signal: Signal(40), core: false }),
            "was ended by signal 40",
        ),
        (RunEnd::StartTimedOut, "was not ready in time"),
        (RunEnd::Unhealthy("x".into()), "was unhealthy: x"),
        (
            RunEnd::Outgrown(1 << 20),
            "was ended: it uses 1 MiB of memory, which is above its maxMemoryRestart",
        ),
        (RunEnd::Asked(StopReason::Requested), "was ended: stopped by an operator"),
    ] {
        assert_eq!(end.to_string(), text);
    }
    let end = RunEnd::Exited(ExitStatus::Code(1));
    for (why, text) in [
        (
            FailReason::Policy(end.clone()),
            "it exited with code 1, and its policy is not to restart it",
        ),
        (FailReason::Attempts(0, end.clone()), "it exited with code 1, and maxAttempts is 0"),
        (
            FailReason::Attempts(3, end),
            "gave up after 3 restarts (maxAttempts); it exited with code 1",
        ),
        (FailReason::Unhealthy("x".into()), "its check failed (x), and onFailure is stop"),
    ] {
        assert_eq!(why.to_string(), text);
    }
}

#[test]
fn at_which_step_a_start_failed() {
    let told = |stage, subject: &str| {
        SpawnError { stage, subject: subject.into(), reason: "no".into() }.to_string()
    };
    for (stage, text) in [
        (SpawnStage::Fork, "making the process"),
        (SpawnStage::Identity, "looking up the user"),
        (SpawnStage::Sockets, "opening its socket"),
        (SpawnStage::Cgroup, "entering the control group"),
        (SpawnStage::Output, "connecting the output"),
        (SpawnStage::Limits, "setting resource limits"),
        (SpawnStage::Nice, "setting the priority"),
        (SpawnStage::Credentials, "changing to the user"),
        (SpawnStage::Cwd, "changing directory"),
        (SpawnStage::LogFile, "opening the log file"),
        (SpawnStage::PidFile, "writing the pid file"),
        (SpawnStage::Exec, "executing"),
    ] {
        assert_eq!(told(stage, ""), format!("{text}: no"));
    }
    assert_eq!(told(SpawnStage::Exec, "node"), "executing node: no");
    assert_eq!(told(SpawnStage::Cwd, "/x"), "changing directory to /x: no");
}

#[test]
fn every_note_has_its_name_and_words() {
    let report = |result| {
        Arc::new(ReloadReport {
            from: Generation(1),
            generation: Generation(2),
            result,
            plan: Plan::default(),
            steps: vec![
                step(
                    "a",
                    StepKind::Start,
                    StepState::Failed { took: secs(1), why: "it died".into() },
                ),
                step("b", StepKind::Stop, StepState::Done { took: secs(1) }),
                step("c", StepKind::Live, StepState::Held { took: secs(1), why: "waits".into() }),
            ],
            took: secs(3),
        })
    };
    let blockers = vec![
        Blocker::Reload,
        Blocker::Dependency {
            on: db(),
            condition: Condition::Healthy,
            because: DependencyState::NotHealthy,
        },
    ];
    let error = SpawnError { stage: SpawnStage::Fork, subject: String::new(), reason: "no".into() };
    let status = ExitStatus::Code(0);
    for (what, kind, text) in [
        (What::Starting { attempt: 0 }, "starting", "starting"),
        (What::Starting { attempt: 2 }, "starting", "starting, restart 2"),
        (What::Started { pid: 7 }, "started", "started as pid 7"),
        (What::Ready { after: secs(2) }, "ready", "ready after 2.0 s"),
        (
            What::SpawnFailed { error: Box::new(error.clone()), expected: false },
            "spawn-failed",
            "cannot start: making the process: no",
        ),
        (
            What::SpawnFailed { error: Box::new(error), expected: true },
            "spawn-failed",
            "did not start: making the process: no",
        ),
        (
            What::StartTimedOut { limit: secs(60), last_check: None },
            "start-timed-out",
            "not ready within 1m",
        ),
        (What::Exited { status, expected: true }, "exited", "exited with code 0, as asked"),
        (What::Exited { status, expected: false }, "exited", "exited with code 0"),
        (What::Stopping { why: StopReason::Changed }, "stopping", "stopping: changed in the file"),
        (
            What::Killing { limit: secs(30) },
            "killing",
            "still there 30s after it was asked to end; killing it",
        ),
        (What::Stopped, "stopped", "stopped; nothing of it is left"),
        (
            What::BackingOff { delay: secs(4), attempt: 3 },
            "backing-off",
            "will be started again in 4.0 s (restart 3)",
        ),
        (
            What::GaveUp { why: FailReason::Unhealthy("x".into()) },
            "gave-up",
            "failed: its check failed (x), and onFailure is stop",
        ),
        (What::Completed, "completed", "completed"),
        (
            What::CheckFailed { detail: "x".into(), failures: 1, threshold: 3 },
            "check-failed",
            "check failed (1 of 3): x",
        ),
        (What::Healthy, "healthy", "healthy"),
        (What::Unhealthy { detail: "x".into() }, "unhealthy", "unhealthy: x"),
        (
            What::Waiting { on: blockers },
            "waiting",
            "waiting for the reload to stop and change other processes first; db to be healthy: \
             it is not healthy",
        ),
        (What::KeepsRun { why: "x".into() }, "keeps-run", "keeps its run for now: x"),
        (
            What::Overlaps { why: StopReason::Changed },
            "overlaps",
            "changed in the file; it goes on until its new run is ready",
        ),
        (
            What::FellBack { end: RunEnd::StartTimedOut },
            "fell-back",
            "the run before goes on: the new one was not ready in time",
        ),
        (What::TakenBack, "taken-back", "the run before goes on: no new one is wanted any more"),
        (
            What::ReloadStarted { generation: Generation(2), plan: Arc::default() },
            "reload-started",
            "applying generation 2: 0 unchanged",
        ),
        (
            What::ReloadFinished(report(ReloadResult::FailedKept)),
            "reload-finished",
            "generation 2 did not all come up in 3.0 s: 0 unchanged; a@0: it died; c@0: waits",
        ),
        (What::ShuttingDown, "shutting-down", "shutting down"),
        (
            What::StillThere,
            "still-there",
            "still there after SIGKILL; the kernel may hold it in an uninterruptible wait",
        ),
    ] {
        assert_eq!((what.kind(), what.to_string().as_str()), (kind, text));
    }
}

fn step(name: &str, kind: StepKind, state: StepState) -> Step {
    Step { instance: id(name), kind, state }
}

#[test]
fn a_long_plan_is_counted() {
    let process = |n: usize| process(&format!("p{n}"));
    let mut s = Scene::new();
    s.config([
        process(0),
        process(1),
        process(2),
        process(3),
        process(4),
        process(5),
        process(6),
        process(7),
    ]);
    assert_eq!(s.report().plan.to_string(), "added p0 p1 p2 p3 p4 p5 p6 p7, 0 unchanged");
    s.config([]);
    let mut s = Scene::new();
    let nine = [0, 1, 2, 3, 4, 5, 6, 7, 8].map(process);
    s.config(nine);
    assert_eq!(s.report().plan.to_string(), "added 9 processes, 0 unchanged");
}

#[test]
fn dependency_states() {
    use DependencyState as D;
    for (state, text, last, long) in [
        (D::Disabled, "disabled", true, false),
        (D::Stopped, "stopped", true, false),
        (D::Failed, "failed", true, false),
        (D::Waiting, "waiting itself", false, false),
        (D::Stuck, "waiting itself for something that is down", true, false),
        (D::Delayed, "waiting itself for something that fails", false, true),
        (D::Starting, "starting", false, false),
        (D::Stopping, "stopping", false, false),
        (D::Restarting, "failing and tried again", false, true),
        (D::NotHealthy, "not healthy", false, true),
        (D::NotCompleted, "not completed", false, false),
        (D::Over, "completed, and so not healthy any more", true, false),
    ] {
        assert_eq!(state.to_string(), text);
        assert_eq!((state.is_final(), state.is_lasting()), (last, long), "{text}");
    }
    for (condition, text) in [
        (Condition::Started, "started"),
        (Condition::Ready, "ready"),
        (Condition::Healthy, "healthy"),
        (Condition::Completed, "completed"),
    ] {
        assert_eq!(condition.to_string(), text);
    }
}

#[test]
fn refusals() {
    for (refusal, text) in [
        (Refusal::NoSuchProcess("x".into()), "there is no process \"x\""),
        (
            Refusal::Disabled(id("x@1")),
            "x@1 is disabled in the file; `provost enable x` changes that, `start --once` runs it \
             until the next stop or reload",
        ),
        (Refusal::ManagementDisabled, "processManagement.enabled is false: no process may run"),
        (Refusal::NotRunning(id("x")), "x@0 is not running"),
        (Refusal::ShuttingDown, "the supervisor is shutting down"),
    ] {
        assert_eq!(refusal.to_string(), text);
    }
}

#[test]
fn closed_sets_of_words() {
    let states = State::ALL.map(|state| (state.as_str(), active_state(state)));
    assert_eq!(
        states,
        [
            ("down", "inactive"),
            ("waiting", "activating"),
            ("starting", "activating"),
            ("running", "active"),
            ("stopping", "deactivating"),
            ("backoff", "activating"),
            ("completed", "inactive"),
            ("failed", "failed"),
        ]
    );
    let health =
        [HealthState::None, HealthState::Starting, HealthState::Healthy, HealthState::Unhealthy];
    assert_eq!(health.map(HealthState::as_str), ["none", "starting", "healthy", "unhealthy"]);
    let kinds = [JobKind::Start, JobKind::Stop, JobKind::Restart, JobKind::Reload];
    assert_eq!(kinds.map(|kind| kind.to_string()), ["start", "stop", "restart", "reload"]);
    let results = [
        (JobResult::Done, "done", true),
        (JobResult::Canceled, "canceled", false),
        (JobResult::Timeout, "timeout", false),
        (JobResult::Failed, "failed", false),
        (JobResult::Dependency, "dependency", false),
        (JobResult::Skipped, "skipped", true),
    ];
    for (result, word, success) in results {
        assert_eq!((result.to_string().as_str(), result.is_success()), (word, success));
    }
    let kinds = [ChangeKind::Added, ChangeKind::Removed, ChangeKind::Modified];
    assert_eq!(kinds.map(ChangeKind::as_str), ["added", "removed", "modified"]);
    let kinds = [StepKind::Stop, StepKind::Live, StepKind::Restart, StepKind::Start];
    assert_eq!(kinds.map(StepKind::as_str), ["stop", "live", "restart", "start"]);
    let results = [
        ReloadResult::Applied,
        ReloadResult::Unchanged,
        ReloadResult::FailedKept,
        ReloadResult::Superseded,
        ReloadResult::Withdrawn,
    ];
    let words = ["applied", "unchanged", "failed-kept", "superseded", "withdrawn"];
    assert_eq!(results.map(ReloadResult::as_str), words);
    assert_eq!(provost_core::fields::Consequence::Live.as_str(), "live");
    assert_eq!(provost_core::fields::Consequence::Start.as_str(), "start");
    assert_eq!(provost_core::fields::Consequence::Stop.as_str(), "stop");
    assert_eq!(provost_core::fields::Consequence::Restart.as_str(), "restart");
}

#[test]
fn the_state_of_the_whole() {
    let all_well = Summary { generation: Generation(2), ..Summary::default() };
    for (summary, word) in [
        (all_well, "running"),
        (Summary { missing: 1, ..all_well }, "starting"),
        (Summary { missing: 1, failed: 1, ..all_well }, "degraded"),
        (Summary { unhealthy: 1, ..all_well }, "degraded"),
        (Summary { reloading: true, failed: 1, ..all_well }, "reloading"),
        (
            Summary { reloading: true, missing: 1, generation: Generation(1), ..all_well },
            "starting",
        ),
        (Summary { reloading: true, shutting_down: true, ..all_well }, "stopping"),
    ] {
        assert_eq!(summary.system_state(), word);
    }
}

#[test]
fn signals_are_read_and_written() {
    for (text, number) in [
        ("SIGTERM", 15),
        ("term", 15),
        ("Hup", 1),
        ("9", 9),
        ("64", 64),
        ("RTMIN+1", 35),
        ("SIGRTMIN+30", 64),
    ] {
        assert_eq!(Signal::parse(text), Some(Signal(number)), "{text}");
    }
    for bad in ["", "0", "65", "SIG", "NOPE", "RTMIN+31", "-1", "SIGSIGTERM"] {
        assert_eq!(Signal::parse(bad), None, "{bad}");
    }
    for name in Signal::names() {
        let signal = Signal::parse(name).unwrap();
        assert_eq!(signal.to_string(), format!("SIG{name}"));
    }
    assert_eq!(Signal::names().count(), 31);
}

/// A view in the state that is asked about.
fn view(state: State, change: impl FnOnce(&mut InstanceView)) -> String {
    let mut view = Scene::of([process("api")]).view("api");
    (view.state, view.history) = (state, Arc::default());
    change(&mut view);
    view.reason(Mono(0))
}

#[test]
fn reasons() {
    let note = |run: Option<u64>, what| {
        let run = run.map(provost_core::ids::Run);
        std::sync::Arc::new(Note { at: Mono(0), instance: Some(id("api")), run, job: None, what })
    };
    let stopping = |run| note(Some(run), What::Stopping { why: StopReason::Changed });
    assert_eq!(view(State::Running, |_| ()), "");
    assert_eq!(
        view(State::Running, |v| v.needs_restart = true),
        "its spec changed; its restart is due"
    );
    assert_eq!(
        view(State::Running, |v| {
            (v.health, v.health_detail) = (HealthState::Unhealthy, Some("x".into()));
        }),
        "its check fails: x"
    );
    assert_eq!(
        view(State::Starting, |v| v.sub_state = "spawning"),
        "its command is being executed"
    );
    assert_eq!(
        view(State::Starting, |v| v.sub_state = "checking"),
        "its check has not answered yet"
    );
    assert_eq!(
        view(State::Starting, |v| v.sub_state = "held"),
        "it is to be ended once what depends on it is down"
    );
    let ending = |run| {
        view(State::Stopping, |v| {
            (v.sub_state, v.run) = ("killing", Some(provost_core::ids::Run(7)));
            v.history = Arc::from([stopping(run)]);
        })
    };
    assert_eq!(ending(7), "changed in the file; killing");
    assert_eq!(ending(6), "its main process left others behind; killing", "that was another run");
    assert_eq!(view(State::Completed, |_| ()), "");
    let disabled = |v: &mut InstanceView| {
        v.enabled = false;
        Arc::make_mut(&mut v.spec).enabled = false;
    };
    assert_eq!(view(State::Down, disabled), "disabled in the file");
    assert_eq!(
        view(State::Down, |v| v.wanted = false),
        "not started: it waits for `provost start`"
    );
    let ended = |end: RunEnd| {
        view(State::Down, |v| {
            (v.wanted, v.last_end) = (false, Some(end));
        })
    };
    assert_eq!(ended(RunEnd::Asked(StopReason::Removed)), "removed from the file");
    assert_eq!(ended(RunEnd::StartTimedOut), "stopped by an operator");
    assert_eq!(ended(RunEnd::Asked(StopReason::Restart)), "stopped by an operator");
    assert_eq!(view(State::Down, |_| ()), "the supervisor is shutting down");
    assert_eq!(
        view(State::Failed, |v| v.last_end = Some(RunEnd::StartTimedOut)),
        "it was not ready in time"
    );
    assert_eq!(
        view(State::Backoff, |v| {
            v.last_end = Some(RunEnd::StartTimedOut);
            (v.next_start, v.attempt) = (Some(Mono(3_000_000_000)), 2);
        }),
        "it was not ready in time; next start in 3.0 s (restart 2)"
    );
    let timed_out = |last_check: Option<&str>| {
        let last_check = last_check.map(str::to_owned);
        let what = What::StartTimedOut { limit: secs(60), last_check };
        Arc::new(Note { at: Mono(0), instance: None, run: None, job: None, what })
    };
    let after = |checks: [Option<&str>; 2]| {
        view(State::Failed, |v| {
            v.last_end = Some(RunEnd::StartTimedOut);
            v.history = checks.map(timed_out).into();
        })
    };
    assert_eq!(
        after([None, Some("HTTP 503")]),
        "it was not ready in time; its last check said: HTTP 503"
    );
    // What an earlier one said is not what the last one did.
    assert_eq!(after([Some("HTTP 503"), None]), "it was not ready in time");
}

#[test]
fn a_history_is_short_and_ends_with_the_last() {
    let mut s = Scene::of([process("api")]);
    for _ in 0..9 {
        s.restart("api").unwrap();
    }
    let history = s.view("api").history;
    assert_eq!(history.len(), 10);
    assert_eq!(history.last().unwrap().what.kind(), "ready");
    assert!(history.windows(2).all(|pair| pair[0].at <= pair[1].at));
}

#[test]
fn since_when() {
    let mut s = Scene::of([process("api").checked()]);
    s.advance(secs(5));
    let start = s.view("api").since;
    assert_eq!(s.world.now.since(start), secs(5));
    s.advance(secs(30));
    assert_eq!(s.view("api").since, start, "a check that goes well changes nothing");
    s.exit("api", 1);
    assert_eq!(s.view("api").since, s.world.now);
    assert_eq!(s.view("api").started, None);
}

#[test]
fn what_runs_is_told() {
    let mut s = Scene::of([process("api").after("db"), process("db").disabled(), process("x")]);
    let summary = s.world.machine.summary();
    assert_eq!((summary.total, summary.enabled, summary.running), (3, 2, 1));
    // What waits for a hand is not on its way.
    assert_eq!((summary.missing, summary.failed, summary.jobs), (0, 0, 0));
    assert_eq!(summary.system_state(), "running");
    s.exit("x", 1);
    assert_eq!(s.world.machine.summary().failed, 1);
    assert_eq!(s.world.machine.config().processes.len(), 3);
    assert!(s.world.machine.reload_steps().is_none());
    s.ends_slowly("x", secs(5));
    s.advance(secs(1));
    s.config([]);
    assert_eq!(s.world.machine.reload_steps().unwrap().len(), 3);
}

//! Intent: enabled, wanted, actual, and the table at the top of `process`.

use crate::*;

#[test]
fn what_is_disabled_is_down_and_cannot_be_started() {
    let mut s = Scene::of([process("api").disabled()]);
    assert_eq!(s.state("api"), State::Down);
    assert_eq!(s.reason("api"), "disabled in the file");
    assert_eq!(s.start("api"), Err(Refusal::Disabled(id("api"))));
    assert_eq!(s.restart("api"), Err(Refusal::Disabled(id("api"))));
    assert_eq!(s.state("api"), State::Down);
}

#[test]
fn once_is_until_the_next_stop() {
    let mut s = Scene::of([process("api").disabled()]);
    let job = s.start_once("api").unwrap();
    assert_eq!((s.state("api"), s.result(job)), (State::Running, Some(JobResult::Done)));
    assert!(s.view("api").once);
    assert!(s.restart("api").is_ok(), "what runs may be restarted");
    assert_eq!(s.state("api"), State::Running);
    s.stop("api").unwrap();
    assert_eq!(s.state("api"), State::Down);
    assert_eq!(s.start("api"), Err(Refusal::Disabled(id("api"))));
}

#[test]
fn once_is_until_the_next_reload() {
    let mut s = Scene::of([process("api").disabled(), process("db")]);
    s.start_once("api").unwrap();
    s.config([process("api").disabled(), process("db")]);
    assert_eq!(s.state("api"), State::Down);
    assert_eq!(s.state("db"), State::Running);
    s.start_once("api").unwrap();
    s.config([process("api").disabled(), process("db").line("v2")]);
    assert_eq!(s.steps(), ["stop api@0 done", "restart db@0 done"], "which is a step of it");
    s.start_once("api").unwrap();
    s.forget();
    s.config([process("api"), process("db").line("v2")]);
    assert_eq!((s.state("api"), s.view("api").once), (State::Running, false));
    assert_eq!(s.done(), "", "what is enabled while it runs goes on");
}

#[test]
fn what_failed_once_starts_when_the_file_enables_it() {
    let mut s = Scene::of([process("api").disabled().one_shot(), process("db")]);
    s.start_once("api").unwrap();
    s.exit("api", 1);
    assert_eq!(s.state("api"), State::Failed);
    s.config([process("api").one_shot(), process("db")]);
    assert_eq!(s.state("api"), State::Running);
}

#[test]
fn what_ran_once_and_is_held_is_stopped_by_the_reload_that_ends_it() {
    let all = |line: &str| {
        [
            process("above").after("api"),
            process("api").after("db").disabled(),
            process("db"),
            process("new").line(line),
        ]
    };
    let mut s = Scene::of(all("v1"));
    s.start_once("api").unwrap();
    s.ends_slowly("above", secs(5));
    s.stop("db").unwrap();
    assert_eq!(s.view("api").sub_state, "held");
    s.config(all("v2"));
    s.forget();
    s.advance(secs(5));
    assert_eq!(s.done(), "-api@0 -db@0 -new@0 +new@0");
    assert_eq!(s.steps(), ["stop api@0 done", "restart new@0 done"]);
}

#[test]
fn once_on_what_is_enabled_is_a_start() {
    let mut s = Scene::of([process("api")]);
    s.stop("api").unwrap();
    s.start_once("api").unwrap();
    assert!(!s.view("api").once);
    s.config([process("api")]);
    assert_eq!(s.state("api"), State::Running);
}

#[test]
fn a_stop_survives_reload_and_change_of_spec() {
    let mut s = Scene::of([process("api"), process("db")]);
    s.stop("api").unwrap();
    s.forget();
    s.config([process("api").line("v2"), process("db").line("v2")]);
    assert_eq!((s.state("api"), s.view("api").wanted), (State::Down, false));
    assert_eq!(s.done(), "-db@0 +db@0");
    assert_eq!(s.steps(), ["live api@0 done", "restart db@0 done"]);
    s.config([process("api").disabled(), process("db")]);
    s.config([process("api"), process("db")]);
    assert_eq!(s.state("api"), State::Down, "nor does enabling start it");
    assert_eq!(s.reason("api"), "stopped by an operator");
}

#[test]
fn restart_starts_what_is_stopped() {
    let mut s = Scene::of([process("api")]);
    s.stop("api").unwrap();
    s.forget();
    let job = s.restart("api").unwrap();
    assert_eq!(s.done(), "+api@0");
    assert_eq!(s.result(job), Some(JobResult::Done));
    assert!(s.view("api").wanted);
}

#[test]
fn without_auto_start_nothing_starts_by_itself() {
    let settings = || Settings { auto_start: false, ..Settings::default() };
    let mut s = Scene::new();
    s.settings(settings(), [process("api"), process("db")]);
    assert_eq!((s.state("api"), s.view("api").wanted), (State::Down, false));
    assert_eq!(s.reason("api"), "not started: it waits for `provost start`");
    s.start("api").unwrap();
    s.settings(settings(), [process("api").line("v2"), process("db").line("v2")]);
    assert_eq!(s.state("api"), State::Running, "what was started by hand stays");
    assert_eq!(s.state("db"), State::Down);
}

#[test]
fn with_management_disabled_nothing_is_wanted_up() {
    let off = || Settings { enabled: false, ..Settings::default() };
    let mut s = Scene::of([process("api").after("db"), process("db")]);
    s.forget();
    s.settings(off(), [process("api").after("db"), process("db")]);
    assert_eq!(s.done(), "-api@0 -db@0");
    assert_eq!((s.state("api"), s.state("db")), (State::Down, State::Down));
    assert_eq!(s.reason("api"), "processManagement.enabled is false: no process may run");
    assert_eq!(s.start("api"), Err(Refusal::ManagementDisabled));
    assert_eq!(s.start_once("api"), Err(Refusal::ManagementDisabled));
    assert_eq!(s.world.machine.summary().enabled, 0);
    s.config([process("api").after("db"), process("db")]);
    assert_eq!(s.done(), "+db@0 +api@0");
}

#[test]
fn scaling_up_touches_nothing_and_scaling_down_takes_the_highest() {
    let mut s = Scene::of([process("api").instances(2)]);
    let before = (s.run("api@0"), s.run("api@1"));
    s.forget();
    s.config([process("api").instances(4)]);
    assert_eq!(s.done(), "+api@2 +api@3");
    assert_eq!((s.run("api@0"), s.run("api@1")), before);
    s.config([process("api").instances(1)]);
    assert_eq!(s.done(), "-api@1 -api@2 -api@3");
    assert!(!s.is_there("api@1") && s.is_there("api@0"));
    assert_eq!(s.run("api@0"), before.0);
    assert_eq!(s.stop("api@1"), Err(Refusal::NoSuchProcess("api@1".into())));
}

#[test]
fn a_rename_is_remove_and_add() {
    let mut s = Scene::of([process("api")]);
    s.forget();
    s.config([process("web")]);
    assert_eq!(s.done(), "-api@0 +web@0");
    assert_eq!(s.steps(), ["stop api@0 done", "start web@0 done"]);
}

// The table at the top of `process`, row by row.

#[test]
fn up_and_waiting() {
    let s = Scene::of([process("api").after("db"), process("db").disabled()]);
    assert_eq!(s.state("api"), State::Waiting);
    assert_eq!(s.reason("api"), "waits for db to be ready: it is disabled");
}

#[test]
fn up_and_not_ready() {
    let mut s = Scene::new();
    s.spawns("api", Spawning::Works(secs(1)));
    s.config([process("api").checked()]);
    assert_eq!((s.state("api"), s.view("api").sub_state), (State::Starting, "spawning"));
    assert_eq!((s.view("api").pid, s.view("api").started), (None, None));
    s.finds("api", Finding::Ill("refused"));
    s.advance(secs(1));
    assert_eq!((s.state("api"), s.view("api").sub_state), (State::Starting, "checking"));
    assert_eq!(s.reason("api"), "not ready yet; its check says: refused");
    assert!(s.view("api").pid.is_some());
}

#[test]
fn up_ready_and_due_for_a_restart() {
    let mut s = Scene::of([process("api").follows("db"), process("db")]);
    s.ends_slowly("api", secs(2));
    s.restart("db").unwrap();
    assert_eq!((s.state("db"), s.view("db").sub_state), (State::Running, "held"));
    assert_eq!(s.state("api"), State::Stopping);
    s.advance(secs(2));
    assert_eq!((s.state("db"), s.state("api")), (State::Running, State::Running));
    assert_eq!(s.view("db").sub_state, "");
}

#[test]
fn up_and_stopping_is_started_again() {
    let mut s = Scene::of([process("api")]);
    s.ends_slowly("api", secs(2));
    s.stop("api").unwrap();
    assert_eq!((s.state("api"), s.view("api").sub_state), (State::Stopping, "terminating"));
    assert_eq!(s.reason("api"), "stopped by an operator; terminating");
    let job = s.start("api").unwrap();
    assert_eq!(s.state("api"), State::Stopping);
    s.forget();
    s.advance(secs(2));
    assert_eq!((s.done().as_str(), s.result(job)), ("+api@0", Some(JobResult::Done)));
}

#[test]
fn up_and_in_backoff() {
    let mut s = Scene::of([process("api")]);
    s.exit("api", 1);
    assert_eq!(s.state("api"), State::Backoff);
    assert_eq!(s.reason("api"), "it exited with code 1; next start in 1.0 s (restart 1)");
    assert_eq!(s.view("api").next_start, Some(s.world.now.after(secs(1))));
    s.stop("api").unwrap();
    assert_eq!((s.state("api"), s.view("api").next_start), (State::Down, None));
    s.forget();
    s.advance(secs(60));
    assert_eq!(s.done(), "", "the next start was called off");
}

#[test]
fn up_and_completed_or_failed_is_at_rest() {
    let mut s = Scene::of([process("job").one_shot(), process("bad").one_shot()]);
    s.exit("job", 0);
    s.exit("bad", 3);
    assert_eq!((s.state("job"), s.state("bad")), (State::Completed, State::Failed));
    assert_eq!(s.reason("job"), "");
    assert_eq!(s.reason("bad"), "it exited with code 3, and its policy is not to restart it");
    assert_eq!(s.world.machine.poll_timeout(), None);
    s.stop("job").unwrap();
    s.stop("bad").unwrap();
    assert_eq!((s.state("job"), s.state("bad")), (State::Completed, State::Down));
    s.start("job").unwrap();
    assert_eq!(s.state("job"), State::Running);
}

#[test]
fn held_and_completed_or_failed_stays_so() {
    let all = || {
        [
            process("bad").after("db").one_shot(),
            process("db"),
            process("job").after("db").one_shot(),
            process("slow").after("db"),
        ]
    };
    let mut s = Scene::of(all());
    s.exit("job", 0);
    s.exit("bad", 1);
    s.exit("slow", 1);
    assert_eq!(s.state("slow"), State::Backoff);
    s.stop("db").unwrap();
    assert_eq!((s.state("job"), s.state("bad")), (State::Completed, State::Failed));
    assert_eq!(s.state("slow"), State::Waiting);
    s.forget();
    let [bad, db, job, slow] = all();
    let told = |p: Process| p.with(|spec| spec.description = Some("x".into()));
    s.config([told(bad), db, told(job), slow]);
    assert_eq!((s.state("job"), s.state("bad")), (State::Completed, State::Failed));
    s.start("db").unwrap();
    assert_eq!(s.done(), "+db@0 +slow@0");
    assert_eq!((s.state("job"), s.state("bad")), (State::Completed, State::Failed));
}

#[test]
fn not_up_and_running_waits_for_those_above() {
    let mut s = Scene::of([process("api").after("db"), process("db")]);
    s.ends_slowly("api", secs(2));
    s.stop("db").unwrap();
    assert_eq!((s.state("db"), s.view("db").sub_state), (State::Running, "held"));
    s.advance(secs(2));
    assert_eq!((s.state("db"), s.state("api")), (State::Down, State::Waiting));
}

#[test]
fn what_was_to_run_once_and_waits_is_down_after_a_reload_that_changes_nothing() {
    let all = || [process("api").disabled().after("db"), process("db")];
    let mut s = Scene::of(all());
    s.stop("db").unwrap();
    s.start_once("api").unwrap();
    assert_eq!((s.state("api"), s.view("api").once), (State::Waiting, true));
    s.config(all());
    assert_eq!((s.state("api"), s.view("api").once), (State::Down, false));
}

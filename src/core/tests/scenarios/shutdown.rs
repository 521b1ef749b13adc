//! The end of everything.

use crate::*;

#[test]
fn all_go_down_in_order_and_then_it_is_finished() {
    let mut s = Scene::of([process("api").after("db"), process("db"), process("x")]);
    s.ends_slowly("api", secs(2));
    s.forget();
    s.shut_down();
    assert_eq!(s.done(), "-api@0 -x@0");
    assert_eq!(s.world.machine.summary().system_state(), "stopping");
    s.advance(secs(2));
    assert_eq!((s.done().as_str(), s.code()), ("-db@0", Some(0)));
    assert_eq!(s.reason("db"), "the supervisor is shutting down");
}

#[test]
fn nothing_starts_any_more() {
    let mut s = Scene::of([process("a").after("b"), process("b"), process("off").disabled()]);
    s.ends_slowly("a", secs(5));
    s.exit("b", 1);
    s.shut_down();
    s.forget();
    assert_eq!(s.start("off"), Err(Refusal::ShuttingDown));
    assert_eq!(s.restart("a"), Err(Refusal::ShuttingDown));
    assert!(s.reset("b").is_ok());
    s.advance(secs(60));
    assert_eq!((s.done().as_str(), s.code()), ("", Some(0)));
}

#[test]
fn jobs_and_reload_end() {
    let mut s = Scene::of([process("a"), process("b"), process("c")]);
    for name in ["a", "b", "c"] {
        s.ends_slowly(name, secs(5));
    }
    let (stop, restart) = (s.stop("a").unwrap(), s.restart("b").unwrap());
    s.config([process("a"), process("b")]);
    let reload = s.world.model.reload.as_ref().unwrap().job;
    s.shut_down();
    assert_eq!(s.result(restart), Some(JobResult::Canceled));
    assert_eq!(s.result(reload), Some(JobResult::Canceled));
    assert_eq!(s.result(stop), None);
    s.advance(secs(5));
    assert_eq!((s.result(stop), s.code()), (Some(JobResult::Done), Some(0)));
}

#[test]
fn with_nothing_alive_it_is_finished_at_once_and_once() {
    let mut s = Scene::of([process("a").disabled()]);
    s.shut_down();
    assert_eq!(s.code(), Some(0));
    s.shut_down();
    s.kill();
    assert_eq!(s.world.model.finished, 1);
}

#[test]
fn a_kill_waits_for_nobody() {
    let mut s = Scene::of([process("api").after("db"), process("db")]);
    for name in ["api", "db"] {
        s.ignores_term(name);
    }
    s.forget();
    s.shut_down();
    assert_eq!(s.done(), "-api@0");
    s.kill();
    assert_eq!((s.done().as_str(), s.code()), ("!api@0 -db@0 !db@0", Some(0)));
}

#[test]
fn a_kill_by_itself_ends_everything_too() {
    let mut s = Scene::of([process("api").after("db"), process("db")]);
    s.forget();
    s.kill();
    assert_eq!(s.code(), Some(0));
    assert_eq!(s.done(), "-api@0 !api@0 -db@0 !db@0");
}

#[test]
fn a_later_end_does_not_change_the_exit_code() {
    let mut s = Scene::of([process("main").essential().one_shot(), process("side")]);
    s.ends_slowly("side", secs(2));
    s.exit("main", 7);
    s.shut_down();
    s.advance(secs(2));
    assert_eq!(s.code(), Some(7));
}

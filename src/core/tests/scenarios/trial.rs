//! A new configuration on trial: what makes it good, what makes it go, and what comes back.

use crate::*;
use provost_core::spec::{Rollback, Settings};

fn dead() -> Spawning {
    Spawning::Fails(secs(0))
}

/// Its program ends at once.
fn crashes(s: &mut Scene, name: &str) {
    s.behave(name, |b| b.life = Some((millis(10), ExitStatus::Code(3))));
}

fn lives(s: &mut Scene, name: &str) {
    s.behave(name, |b| b.life = None);
}

#[test]
fn what_stays_up_for_long_enough_is_good() {
    let mut s = Scene::judging([process("a"), process("b")]);
    s.config([process("a").line("v2"), process("b")]);
    s.advance(millis(4_999));
    assert_eq!(s.verdict(), "none");
    s.advance(millis(1));
    assert_eq!((s.verdict().as_str(), s.done().as_str()), ("2 good", "-a@0 +a@0"));
}

#[test]
fn what_needs_no_new_run_is_good_at_once() {
    let mut s = Scene::judging([process("a"), process("b")]);
    s.config([process("a").with(|spec| spec.description = Some("x".into()))]);
    assert_eq!((s.verdict().as_str(), s.done().as_str()), ("2 good", "-b@0"));
}

#[test]
fn what_does_not_come_up_goes_and_what_was_there_comes_back() {
    let mut s = Scene::judging([process("a"), process("b"), process("c")]);
    let b = s.run("b");
    s.spawns("a", dead());
    s.config([process("a").line("v2"), process("b"), process("d")]);
    s.spawns("a", Spawning::Works(secs(0)));
    // Started again after a second, by the old file's word or the new one's.
    s.advance(secs(20));
    assert_eq!(s.verdict(), "2 good", "one failure is none");
    crashes(&mut s, "a");
    s.config([process("a").line("v3"), process("b"), process("d")]);
    s.forget();
    s.advance(secs(4));
    lives(&mut s, "a");
    s.advance(secs(10));
    assert_eq!(s.verdict(), "3 rolled back: a@0 it exited with code 3 (3 times)");
    assert_eq!(s.world.machine.generation().0, 2);
    assert_eq!((s.run("b"), s.state("a")), (b, State::Running));
    assert!(!s.is_there("c"));
}

#[test]
fn added_and_removed_ones_change_places_again() {
    let mut s = Scene::judging([process("a"), process("old"), process("idle")]);
    s.stop("idle").unwrap();
    s.forget();
    crashes(&mut s, "a");
    s.config([process("a").line("v2"), process("new")]);
    assert_eq!(s.done(), "-old@0 -a@0 +a@0 +new@0");
    s.advance(secs(4));
    lives(&mut s, "a");
    s.advance(secs(10));
    assert_eq!(s.verdict(), "2 rolled back: a@0 it exited with code 3 (3 times)");
    assert!(!s.is_there("new"));
    assert_eq!((s.state("old"), s.state("idle")), (State::Running, State::Down));
}

#[test]
fn ten_instances_of_which_the_first_is_bad_are_changed_once() {
    let web = || process("web").instances(10);
    let mut s = Scene::judging([web()]);
    let before: Vec<_> = (1..10).map(|n| s.run(&format!("web@{n}"))).collect();
    s.behave("web@0", |b| b.spawn = dead());
    s.config([web().line("v2").with(|spec| spec.restart.max_attempts = Some(0))]);
    s.advance(secs(30));
    let after: Vec<_> = (1..10).map(|n| s.run(&format!("web@{n}"))).collect();
    assert!(s.verdict().starts_with("2 rolled back: web@0 it could not be started"));
    assert_eq!(before, after);
}

#[test]
fn a_check_that_fails_is_no_good() {
    let mut s = Scene::judging([process("a").checked()]);
    s.finds("a", Finding::Ill("HTTP 500"));
    s.config([process("a").checked().line("v2").with(|spec| spec.start_timeout = secs(20))]);
    s.advance(secs(18));
    assert_eq!(s.verdict(), "none");
    s.finds("a", Finding::Healthy);
    s.advance(secs(7));
    assert_eq!(s.verdict(), "2 good", "it became healthy in time, and stayed so");
    s.finds("a", Finding::Ill("HTTP 500"));
    s.config([process("a").checked().line("v3").with(|spec| spec.start_timeout = secs(20))]);
    s.advance(secs(25));
    s.finds("a", Finding::Healthy);
    s.advance(secs(10));
    assert!(
        s.verdict().starts_with("3 rolled back: a@0 it was not ready within 25s"),
        "{}",
        s.verdict()
    );
}

#[test]
fn a_changed_check_is_judged_where_it_is() {
    let mut s = Scene::judging([process("a").checked()]);
    let run = s.run("a");
    s.finds("a", Finding::Ill("HTTP 404"));
    s.config([process("a").checked().with(|spec| {
        spec.health.as_mut().unwrap().interval = secs(3);
        spec.start_timeout = secs(20);
    })]);
    s.finds("a", Finding::Ill("HTTP 404"));
    s.advance(secs(5));
    assert_eq!(s.verdict(), "none");
    s.advance(secs(21));
    s.finds("a", Finding::Healthy);
    s.advance(secs(10));
    assert!(s.verdict().starts_with("2 rolled back: a@0 "), "{}", s.verdict());
    assert_ne!(s.run("a"), run, "its illness ended it");
}

#[test]
fn what_failed_before_cannot_fail_the_verdict() {
    let mut s = Scene::judging([process("a"), process("sick")]);
    crashes(&mut s, "sick");
    s.exit("sick", 1);
    s.advance(secs(30));
    s.config([process("a").line("v2"), process("sick").line("v2")]);
    s.advance(secs(6));
    assert_eq!(s.verdict(), "2 good, still failing: sick@0 it exited with code 3");
}

#[test]
fn what_an_operator_stopped_counts_as_good() {
    let mut s = Scene::judging([process("a"), process("b").after("a")]);
    s.stop("a").unwrap();
    s.config([process("a").line("v2"), process("b").after("a").line("v2")]);
    assert_eq!(s.verdict(), "2 good");
    assert_eq!((s.state("a"), s.state("b")), (State::Down, State::Waiting));
}

#[test]
fn a_one_shot_is_not_run_again_by_the_way_back() {
    let shot = || process("migrate").one_shot();
    let api = || process("api").on("migrate", Condition::Completed);
    let mut s = Scene::new();
    s.behave("migrate", |b| b.life = Some((secs(1), ExitStatus::Code(0))));
    s.config([shot(), api()]);
    s.world.judges = true;
    s.advance(secs(60));
    assert_eq!(s.state("migrate"), State::Completed);
    // Fails at its work.
    s.behave("migrate", |b| b.life = Some((secs(1), ExitStatus::Code(4))));
    s.forget();
    s.config([shot().line("v2"), api().line("v2")]);
    s.advance(secs(60));
    assert_eq!(s.verdict(), "2 rolled back: migrate@0 it exited with code 4");
    assert_eq!((s.state("migrate"), s.state("api")), (State::Completed, State::Running));
    assert_eq!(s.done().matches("+migrate@0").count(), 1);
    // Hangs at its work, and is ended on the way back.
    s.behave("migrate", |b| b.life = None);
    s.config([
        shot().line("v3").with(|spec| spec.start_timeout = secs(10)),
        api().line("v3").with(|spec| spec.start_timeout = secs(10)),
    ]);
    s.advance(secs(60));
    assert_eq!(s.verdict(), "3 rolled back: migrate@0 it did not complete within 15s");
    assert_eq!((s.state("migrate"), s.state("api")), (State::Completed, State::Running));
}

#[test]
fn a_one_shot_that_waits_to_run_again_need_not_on_the_way_back() {
    let db =
        |line: &str| process("db").checked().line(line).with(|spec| spec.start_timeout = secs(5));
    let shot = || process("migrate").one_shot().after("db");
    let api = || process("api").on("migrate", Condition::Completed);
    let mut s = Scene::new();
    s.behave("migrate", |b| b.life = Some((secs(1), ExitStatus::Code(0))));
    s.config([db("v1"), shot(), api()]);
    s.world.judges = true;
    s.advance(secs(60));
    assert_eq!((s.state("migrate"), s.state("api")), (State::Completed, State::Running));
    s.finds("db", Finding::Ill("starting"));
    s.forget();
    // It is gone from the file for a moment, and is there again before anything is judged.
    s.config([db("v2"), process("api")]);
    s.config([db("v2"), shot(), api()]);
    assert_eq!(s.state("migrate"), State::Waiting);
    s.advance(secs(30));
    s.finds("db", Finding::Healthy);
    s.advance(secs(60));
    assert!(s.verdict().starts_with("3 rolled back: db@0"), "{}", s.verdict());
    assert_eq!((s.state("migrate"), s.state("api")), (State::Completed, State::Running));
    assert!(!s.done().contains("migrate"), "{}", s.done());
}

#[test]
fn what_does_not_come_back_is_named() {
    let mut s = Scene::judging([process("a")]);
    crashes(&mut s, "a");
    s.config([process("a").line("v2")]);
    s.advance(secs(60));
    assert_eq!(
        s.verdict(),
        "2 rolled back: a@0 it exited with code 3 (3 times); \
         lost: a@0 it exited with code 3 (3 times)"
    );
}

/// It went on while what it needs had failed; taken down it cannot begin again, and that is told.
#[test]
fn who_went_on_without_what_it_needs_and_cannot_come_back_is_named() {
    let db = || process("db").with(|spec| spec.restart.condition = RestartCondition::No);
    let mut s = Scene::judging([db(), process("api").after("db"), process("web")]);
    s.exit("db", 3);
    s.advance(secs(60));
    assert_eq!((s.state("db"), s.state("api")), (State::Failed, State::Running));
    crashes(&mut s, "web");
    s.config([db(), process("web").line("v2")]);
    s.advance(secs(4));
    lives(&mut s, "web");
    s.advance(secs(60));
    assert_eq!(s.state("api"), State::Waiting);
    assert_eq!(
        s.verdict(),
        "2 rolled back: web@0 it exited with code 3 (3 times); \
         lost: api@0 it waits for db to be ready: it is failed"
    );
}

#[test]
fn the_way_back_is_measured_by_what_was_good() {
    let mut s = Scene::judging([process("a")]);
    crashes(&mut s, "a");
    let settings = Settings { settle: secs(3600), ..Settings::default() };
    s.settings(settings, [process("a").line("v2")]);
    s.advance(secs(4));
    lives(&mut s, "a");
    s.advance(secs(10));
    assert_eq!(s.verdict(), "2 rolled back: a@0 it exited with code 3 (3 times)");
}

#[test]
fn the_way_back_of_one_that_replaced_another_leads_to_what_was_good() {
    let mut s = Scene::judging([process("a"), process("b")]);
    crashes(&mut s, "a");
    s.config([process("a").line("v2"), process("b")]);
    s.advance(millis(500));
    crashes(&mut s, "b");
    s.config([process("a").line("v2"), process("b").line("v3")]);
    s.advance(secs(4));
    for name in ["a", "b"] {
        lives(&mut s, name);
    }
    s.advance(secs(20));
    assert!(s.verdict().starts_with("3 rolled back: "), "{}", s.verdict());
    assert_eq!(s.world.machine.generation().0, 1);
    assert_eq!((s.state("a"), s.state("b")), (State::Running, State::Running));
}

#[test]
fn one_that_mends_it_is_judged_in_its_place() {
    let mut s = Scene::judging([process("a")]);
    crashes(&mut s, "a");
    s.config([process("a").line("v2")]);
    s.advance(millis(500));
    lives(&mut s, "a");
    s.config([process("a").line("v3")]);
    s.advance(secs(10));
    assert_eq!(s.verdict(), "3 good");
}

#[test]
fn a_word_that_changes_nothing_does_not_end_a_trial() {
    let mut s = Scene::judging([process("a")]);
    s.config([process("a").line("v2")]);
    s.advance(secs(1));
    s.config([process("a").line("v2")]);
    s.advance(secs(4));
    assert_eq!(s.verdict(), "2 good");
}

#[test]
fn nobody_goes_back_who_does_not_want_to() {
    for (rollback, verdict) in
        [(Rollback::Manual, "2 kept: a@0 it exited with code 3 (3 times)"), (Rollback::Off, "none")]
    {
        let mut s = Scene::judging([process("a")]);
        crashes(&mut s, "a");
        let settings = Settings { rollback, ..Settings::default() };
        s.settings(settings, [process("a").line("v2")]);
        s.advance(secs(10));
        assert_eq!((s.verdict().as_str(), s.world.machine.generation().0), (verdict, 2));
    }
}

#[test]
fn there_is_no_way_back_from_the_first() {
    let mut s = Scene::new();
    s.world.judges = true;
    crashes(&mut s, "a");
    s.config([process("a")]);
    s.advance(secs(60));
    assert_eq!(s.verdict(), "none");
}

#[test]
fn nobody_goes_back_to_nothing() {
    let mut s = Scene::judging([]);
    crashes(&mut s, "a");
    s.config([process("a"), process("b")]);
    s.advance(secs(60));
    assert_eq!((s.verdict().as_str(), s.state("b")), ("none", State::Running));
}

#[test]
fn a_chain_that_takes_its_time_is_not_hurried() {
    let slow = |name: &str| process(name).checked().with(|spec| spec.start_timeout = secs(30));
    let all = |line: &str| {
        [slow("a").line(line), slow("b").after("a").line(line), slow("c").after("b").line(line)]
    };
    let mut s = Scene::judging(all("v1"));
    for name in ["a", "b", "c"] {
        s.finds(name, Finding::Ill("not yet"));
    }
    s.config(all("v2"));
    for name in ["a", "b", "c"] {
        s.advance(secs(28));
        assert_eq!(s.verdict(), "none");
        s.finds(name, Finding::Healthy);
    }
    s.advance(secs(10));
    assert_eq!(s.verdict(), "2 good");
}

#[test]
fn who_waits_for_what_does_not_get_on_is_bad_in_the_end() {
    let mut s = Scene::judging([process("db").checked().with(|spec| {
        spec.start_timeout = secs(1000);
    })]);
    s.finds("db", Finding::Ill("recovering"));
    s.restart("db").unwrap();
    s.config([
        process("db").checked().with(|spec| spec.start_timeout = secs(1000)),
        process("api").after("db").with(|spec| spec.start_timeout = secs(10)),
    ]);
    s.advance(secs(14));
    assert_eq!(s.verdict(), "none");
    s.advance(secs(2));
    assert!(
        s.verdict().starts_with("2 rolled back: api@0 it still waits for db"),
        "{}",
        s.verdict()
    );
}

#[test]
fn the_limit_can_be_set() {
    let settings =
        || Settings { settle: secs(1), verdict_timeout: Some(secs(3)), ..Settings::default() };
    let mut s = Scene::judging([process("a").checked()]);
    s.finds("a", Finding::Ill("HTTP 500"));
    s.settings(settings(), [process("a").checked().line("v2")]);
    s.advance(secs(1));
    assert_eq!(s.verdict(), "none");
    s.finds("a", Finding::Healthy);
    s.advance(secs(2));
    assert_eq!(s.verdict(), "2 good");
    s.finds("a", Finding::Ill("HTTP 500"));
    s.settings(settings(), [process("a").checked().line("v3")]);
    s.advance(secs(3));
    s.finds("a", Finding::Healthy);
    s.advance(secs(3));
    assert_eq!(s.verdict(), "3 rolled back: a@0 it was not ready within 3s: HTTP 500");
}

#[test]
fn a_crash_while_it_settles_begins_it_anew() {
    let mut s = Scene::judging([process("a")]);
    s.config([process("a").line("v2")]);
    s.advance(secs(4));
    s.exit("a", 1);
    s.advance(secs(5));
    assert_eq!(s.verdict(), "none");
    s.advance(secs(2));
    assert_eq!(s.verdict(), "2 good");
}

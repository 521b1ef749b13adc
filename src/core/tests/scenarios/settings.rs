//! New settings without a new run, and files that are watched.

use crate::*;
use provost_core::event::Effect;
use provost_core::ids::{JobId, Request};
use provost_core::spec::{ReloadSpec, Signal, Text, WatchAction, WatchSpec};
use std::sync::Arc;
use std::time::Duration;

const HUP: Signal = Signal(1);

fn by_signal(process: Process) -> Process {
    process.with(|spec| spec.reload = Some(ReloadSpec::Signal(HUP)))
}

fn by_command(process: Process) -> Process {
    let command = Arc::from([Text::new("reread")]);
    process.with(|spec| spec.reload = Some(ReloadSpec::Command { command, timeout: secs(30) }))
}

fn watching(process: Process, action: WatchAction) -> Process {
    let (paths, ignore) = (Arc::from([Text::new("/dist")]), Arc::default());
    let watch = WatchSpec { paths, ignore, action, debounce: millis(200) };
    process.with(|spec| spec.watch = Some(Box::new(watch)))
}

fn restarting(name: &str) -> Process {
    watching(process(name), WatchAction::Restart)
}

impl Scene {
    fn reload(&mut self, name: &str) -> Result<JobId, Refusal> {
        let request = Request(1_000);
        self.tell(Event::ReloadRequested { request, instances: vec![id(name)] });
        let answer = self.world.model.last_answer.clone().unwrap();
        answer.map(|jobs| jobs[0])
    }

    fn watched(&mut self, name: &str) {
        self.tell(Event::WatchedChanged { instance: id(name), path: "/dist/a".into() });
    }

    /// How often commands were carried out that have something take new settings.
    fn commands(&mut self) -> usize {
        self.notes().iter().filter(|note| note.ends_with(" reloading")).count()
    }

    fn takes(&mut self, name: &str, span: Duration) {
        self.behave(name, |behaviour| behaviour.probe = span);
    }
}

#[test]
fn a_signal_is_sent_to_the_main_process_and_not_waited_for() {
    let mut s = Scene::of([by_signal(process("bot"))]);
    let (instance, run) = (id("bot"), s.run("bot").unwrap());
    let job = s.reload("bot").unwrap();
    assert_eq!(s.result(job), Some(JobResult::Done));
    let sent = Effect::Signal { instance, run, signal: HUP, whom: Whom::Main };
    assert!(s.world.effects.contains(&sent), "{:?}", s.world.effects);
    assert_eq!(s.run("bot"), Some(run));
}

#[test]
fn a_command_is_waited_for_and_may_fail() {
    let mut s = Scene::of([by_command(process("web"))]);
    s.takes("web", secs(3));
    let job = s.reload("web").unwrap();
    s.advance(secs(2));
    assert_eq!(s.result(job), None);
    s.advance(secs(1));
    assert_eq!(s.result(job), Some(JobResult::Done));
    s.finds("web", Finding::Ill("exited with code 1"));
    let job = s.reload("web").unwrap();
    s.advance(secs(3));
    assert_eq!(s.result(job), Some(JobResult::Failed));
    let told = s.last_note("web", "reload-failed").unwrap().to_string();
    assert!(told.ends_with("exited with code 1"), "{told}");
    assert_eq!(s.state("web"), State::Running);
}

#[test]
fn who_asks_while_a_command_is_out_hears_that_the_file_has_none_any_more() {
    let held = || restarting("bot");
    let mut s = Scene::of([by_command(held()), process("user").follows("bot")]);
    s.takes("bot", secs(20));
    s.ends_slowly("user", secs(28));
    s.reload("bot").unwrap();
    let job = s.reload("bot").unwrap();
    s.config([held(), process("user").follows("bot")]);
    // It is to be restarted, once what depends on it is down.
    s.watched("bot");
    s.advance(secs(21));
    assert_eq!((s.state("user"), s.result(job)), (State::Stopping, Some(JobResult::Canceled)));
}

#[test]
fn who_asks_while_a_command_is_out_gets_it_once_more() {
    let mut s = Scene::of([by_command(process("web"))]);
    s.takes("web", secs(3));
    let one = s.reload("web").unwrap();
    s.advance(secs(1));
    assert_eq!(s.reload("web"), Ok(one));
    assert_eq!(s.reload("web"), Ok(one));
    s.advance(secs(2));
    assert_eq!(s.result(one), None, "the second has just begun");
    s.advance(secs(3));
    assert_eq!(s.result(one), Some(JobResult::Done));
    assert_eq!(s.commands(), 2);
}

#[test]
fn a_command_that_is_lost_fails_in_the_end() {
    let mut s = Scene::of([by_command(process("web"))]);
    s.finds("web", Finding::Lost);
    let job = s.reload("web").unwrap();
    s.advance(secs(34));
    assert_eq!(s.result(job), None);
    s.advance(secs(1));
    assert_eq!(s.result(job), Some(JobResult::Failed));
}

#[test]
fn the_end_of_a_run_ends_what_it_was_to_take() {
    let mut s = Scene::of([by_command(process("web"))]);
    s.takes("web", secs(3));
    let job = s.reload("web").unwrap();
    s.exit("web", 3);
    assert_eq!(s.result(job), Some(JobResult::Failed));
    s.advance(secs(10));
    let job = s.reload("web").unwrap();
    s.stop("web").unwrap();
    assert_eq!(s.result(job), Some(JobResult::Canceled));
}

#[test]
fn what_cannot_take_settings_is_refused_by_name() {
    let mut s = Scene::new();
    s.spawns("slow", Spawning::Works(secs(1)));
    s.config([process("plain"), by_signal(process("off")).disabled(), by_signal(process("slow"))]);
    assert_eq!(s.reload("plain"), Err(Refusal::NoReload(id("plain"))));
    let told = Refusal::NoReload(id("plain")).to_string();
    assert!(told.contains("reload: { signal: SIGHUP }"), "{told}");
    assert_eq!(s.reload("off"), Err(Refusal::NotRunning(id("off"))));
    assert_eq!(s.reload("slow"), Err(Refusal::NotReady(id("slow"))));
    assert_eq!(s.reload("none"), Err(Refusal::NoSuchProcess("none@0".into())));
    s.advance(secs(1));
    assert!(s.reload("slow").is_ok());
    s.shut_down();
    assert_eq!(s.reload("slow"), Err(Refusal::ShuttingDown));
}

#[test]
fn a_change_of_what_is_watched_gives_a_new_run_and_is_no_failure() {
    let policy = |p: Process| p.attempts(0);
    let mut s = Scene::of([policy(restarting("web")), process("gate").after("web")]);
    let run = s.run("web");
    s.forget();
    s.watched("web");
    assert_ne!(s.run("web"), run);
    assert_eq!(s.state("web"), State::Running);
    assert_eq!(s.view("web").restarts, 0);
    assert_eq!(s.done(), "-web@0 +web@0", "what needs it is left alone");
    let told = s.last_note("web", "stopping").unwrap().to_string();
    assert_eq!(told, "stopping: /dist/a, which it watches, changed");
}

#[test]
fn those_that_follow_it_go_down_first() {
    let mut s = Scene::of([restarting("db"), process("api").follows("db")]);
    s.forget();
    s.watched("db");
    assert_eq!(s.done(), "-api@0 -db@0 +db@0 +api@0");
}

#[test]
fn a_change_while_it_is_stopped_for_another_is_in_the_new_run() {
    let mut s = Scene::of([restarting("web")]);
    s.ends_slowly("web", secs(5));
    s.forget();
    s.watched("web");
    s.advance(secs(2));
    s.watched("web");
    s.advance(secs(3));
    assert_eq!(s.done(), "-web@0 +web@0");
    s.watched("web");
    s.advance(secs(5));
    assert_eq!(s.done(), "-web@0 +web@0", "the new run had begun");
}

#[test]
fn what_an_operator_stopped_stays_stopped() {
    let mut s = Scene::of([restarting("web"), restarting("off").disabled()]);
    s.stop("web").unwrap();
    s.forget();
    s.watched("web");
    s.watched("off");
    s.watched("none");
    assert_eq!(s.done(), "");
    assert_eq!(s.state("web"), State::Down);
}

#[test]
fn what_failed_is_tried_again_at_once() {
    let mut s = Scene::of([restarting("web"), restarting("once").one_shot()]);
    s.exit("web", 1);
    assert_eq!(s.state("web"), State::Backoff);
    s.watched("web");
    assert_eq!(s.state("web"), State::Running);
    assert!(s.last_note("web", "watched-changed").is_some());
    for code in [1, 0] {
        s.exit("once", code);
        s.forget();
        s.watched("once");
        assert_eq!(s.done(), "+once@0", "after {code}");
    }
}

#[test]
fn one_that_reloads_keeps_its_run() {
    let bot = || watching(by_signal(process("bot")), WatchAction::Reload);
    let mut s = Scene::new();
    s.spawns("bot", Spawning::Works(secs(1)));
    s.config([bot()]);
    s.watched("bot");
    assert_eq!(s.commands(), 0, "it is not ready");
    s.advance(secs(1));
    assert_eq!(s.commands(), 1, "it may have read what was there before");
    let run = s.run("bot");
    s.watched("bot");
    s.watched("bot");
    assert_eq!((s.commands(), s.run("bot")), (2, run));
    s.exit("bot", 1);
    assert_eq!(s.state("bot"), State::Backoff);
    s.spawns("bot", Spawning::Works(secs(0)));
    s.watched("bot");
    assert_eq!(s.state("bot"), State::Running, "what it fails by may be mended");
}

#[test]
fn what_is_watched_follows_the_file() {
    let mut s = Scene::of([restarting("web")]);
    s.config([watching(by_signal(process("web")), WatchAction::Reload)]);
    let run = s.run("web");
    s.watched("web");
    assert_eq!(s.run("web"), run);
    s.config([process("web")]);
    s.watched("web");
    assert_eq!(s.run("web"), run);
}

#[test]
fn a_way_that_the_file_lost_is_not_gone() {
    let mut s = Scene::of([by_command(process("web"))]);
    s.takes("web", secs(3));
    let job = s.reload("web").unwrap();
    s.reload("web").unwrap();
    s.config([process("web")]);
    s.advance(secs(3));
    assert_eq!(s.result(job), Some(JobResult::Canceled));
}

//! logs, events, wait and why against a real daemon.

use crate::common::waiting::{DEADLINE, ends_within};
use crate::support::Place;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

const FILE: &str = "\
processes:
  talker:
    shell: \"echo one; echo two; printf 'gone \\\\033[2J\\\\n'; exec sleep 1000\"
  quiet:
    command: sleep
    args: [\"1001\"]
  once:
    shell: \"echo done\"
    restartPolicy: { condition: \"no\" }
  ill:
    command: sleep
    args: [\"1002\"]
    healthCheck: { exec: [\"false\"], interval: 1s }
    startTimeout: 60s
";

#[test]
fn logs_are_shown_and_followed() {
    let place = Place::new();
    let _up = place.up(FILE);
    place.run(&["wait", "talker", "--timeout", "20s"]).code(0);
    // What a process writes and that it runs are told by different ways: the lines may come later.
    let mut follow =
        place.command(&["logs", "talker", "-f"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "one");
    assert_eq!(lines.next().unwrap().unwrap(), "two");
    assert_eq!(lines.next().unwrap().unwrap(), "gone \x1b[2J", "as it is, where no terminal is");
    follow.kill().unwrap();
    follow.wait().unwrap();
    let last = place.run(&["logs", "talker", "-n", "2"]).code(0);
    assert_eq!(last.stdout, "two\ngone \x1b[2J\n");
    place.run(&["logs", "talker", "once"]).code(0).says("talker | one").says("once   | done");
    let json = place.run(&["logs", "talker", "-n", "1", "-o", "json"]).code(0).json();
    assert_eq!(json["name"], "talker");
    place.run(&["logs", "talker", "--since", "nonsense"]).code(64);
}

#[test]
fn events_are_shown_and_filtered() {
    let place = Place::new();
    let _up = place.up(FILE);
    place.run(&["wait", "quiet", "once", "--timeout", "20s"]).code(0);
    place.run(&["events"]).code(0).says("quiet").says("started").says("completed");
    let only = place.run(&["events", "quiet", "-o", "json"]).code(0);
    assert!(!only.stdout.is_empty());
    for line in only.stdout.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(event["id"], "quiet@0");
    }
    assert_eq!(place.run(&["events", "-n", "1"]).code(0).stdout.lines().count(), 1);
}

#[test]
fn events_are_followed() {
    let place = Place::new();
    let _up = place.up(FILE);
    place.run(&["wait", "quiet", "--timeout", "20s"]).code(0);
    let mut follow = place
        .command(&["events", "quiet", "-f", "-n", "1", "-o", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    place.run(&["stop", "quiet"]).code(0);
    let stopped = lines.map(Result::unwrap).find(|line| line.contains("\"stopped\""));
    assert!(stopped.is_some());
    follow.kill().unwrap();
    follow.wait().unwrap();
}

#[test]
fn wait_ends_with_the_event() {
    let place = Place::new();
    let _up = place.up(FILE);
    place.run(&["wait", "once", "--for", "completed", "--timeout", "20s"]).code(0);
    place.run(&["wait", "quiet", "--for", "running", "--timeout", "20s"]).code(0);
    let mut waiting =
        place.command(&["wait", "quiet", "--for", "down"]).stdout(Stdio::null()).spawn().unwrap();
    place.run(&["stop", "quiet"]).code(0);
    assert!(ends_within(&waiting, DEADLINE));
    assert_eq!(waiting.wait().unwrap().code(), Some(0));
}

#[test]
fn wait_does_not_wait_for_what_cannot_come() {
    let place = Place::new();
    let _up = place.up(FILE);
    place.run(&["wait", "once", "--timeout", "20s"]).code(0);
    place.run(&["wait", "once", "--for", "running"]).code(1).warns("completed");
    place.run(&["wait", "talker", "--timeout", "20s"]).code(0);
    place.run(&["wait", "talker", "--for", "healthy"]).code(1).warns("talker");
    let ran = place.run(&["wait", "ill", "--timeout", "300ms"]).code(1);
    ran.warns("not as asked after 300ms").warns("ill is starting");
}

#[test]
fn why_explains_what_waits() {
    let place = Place::new();
    let _up = place.up(
        "processes:\n  db:\n    command: sleep\n    args: [\"9\"]\n    enabled: false\n  api:\n    \
         command: sleep\n    args: [\"10\"]\n    dependsOn: [db]\n",
    );
    place.run(&["why", "api"]).code(0).says("api is waiting").says("db").says("What happened");
    place.run(&["status"]).code(3).says("db");
    let json = place.run(&["why", "api", "-o", "json"]).code(0).json();
    assert_eq!((&json[0]["state"], &json[0]["up"]), (&"waiting".into(), &false.into()));
}

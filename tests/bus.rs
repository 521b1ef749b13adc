//! The D-Bus interface of a real daemon on a private bus and on its private socket.

// Helpers may unwrap as the tests do.
#![allow(clippy::unwrap_used)]

#[path = "common/mod.rs"]
mod common;
#[path = "bus/contract.rs"]
mod contract;
#[path = "bus/daemon.rs"]
mod daemon;
#[path = "bus/peers.rs"]
mod peers;
#[path = "bus/system.rs"]
mod system;
#[path = "bus/xml.rs"]
mod xml;

use daemon::{DEADLINE, TestDaemon, name_is_there, provostd, spawn_test_daemon};
use futures_util::StreamExt;
use provost::client::proxies::{CheckpointProxy, JobProxy, ManagerProxy, ProcessProxy};
use provost::client::{Client, ClientError, Log, ReloadOptions, Target};
use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use zbus::message::Type;
use zbus::{Connection, MatchRule, Message, MessageStream, OwnedObjectPath, OwnedVariant, Variant};

const NAME: &str = "org.provost.Provost1";
const ROOT: &str = "/org/provost/Provost1";
const MANAGER: &str = "org.provost.Provost1.Manager";
const SLEEPER: &str = "/org/provost/Provost1/process/sleeper_400";

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(DEADLINE, future).await;
    done.unwrap_or_else(|_| panic!("not in time: {what}"))
}

async fn signals(connection: &Connection, interface: &str, member: &str) -> MessageStream {
    let rule = MatchRule::builder()
        .msg_type(Type::Signal)
        .interface(interface.to_owned())
        .member(member.to_owned())
        .build()
        .unwrap();
    let capacity = std::num::NonZeroUsize::new(4096);
    MessageStream::for_match_rule(rule.into_owned(), connection, capacity).await.unwrap()
}

async fn call<B>(connection: &Connection, method: &str, body: &B) -> zbus::Result<Message>
where
    B: serde::Serialize + zbus::DynamicType,
{
    connection.call_method(Some(NAME), ROOT, Some(MANAGER), method, body).await
}

/// What a tool prints; panics when it fails.
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    text
}

async fn tool(daemon: &TestDaemon, program: &str, args: &[&str]) -> String {
    let mut command = daemon.tool(program);
    command.args(args);
    tokio::task::spawn_blocking(move || output(&mut command)).await.unwrap()
}

async fn busctl(daemon: &TestDaemon, args: &[&str]) -> String {
    tool(daemon, "busctl", &[&["--user"], args].concat()).await
}

#[tokio::test]
async fn busctl_and_gdbus_drive_it() {
    let daemon = spawn_test_daemon().await;
    let connection = daemon.bus.connect().await;
    let mut changes =
        signals(&connection, "org.freedesktop.DBus.Properties", "PropertiesChanged").await;
    let stop = ["call", NAME, ROOT, MANAGER, "Stop", "asa{sv}", "1", "sleeper", "0"];
    let text = busctl(&daemon, &stop).await;
    assert!(text.starts_with("ao 1 \"/org/provost/Provost1/job/"), "{text}");
    soon("sleeper is down", async {
        loop {
            let message = changes.next().await.unwrap().unwrap();
            if message.header().path().is_none_or(|path| path.as_str() != SLEEPER) {
                continue;
            }
            let (_, changed, _) = properties_changed(&message);
            if changed.get("SubState").is_some_and(|state| **state == Variant::from("down")) {
                return;
            }
        }
    })
    .await;
    let property = ["get-property", NAME, SLEEPER, "org.provost.Provost1.Process", "SubState"];
    assert_eq!(busctl(&daemon, &property).await.trim(), "s \"down\"");
    let start = ["call", NAME, ROOT, MANAGER, "Start", "asa{sv}"];
    busctl(&daemon, &[&start[..], &["1", "sleeper", "1", "wait", "b", "true"]].concat()).await;
    assert_eq!(busctl(&daemon, &property).await.trim(), "s \"running\"");

    let gdbus = ["call", "--session", "--dest", NAME, "--object-path", ROOT, "--method"];
    let status = format!("{MANAGER}.Status");
    let text = tool(&daemon, "gdbus", &[&gdbus[..], &[&status, "['sleeper']"]].concat()).await;
    assert!(text.contains("'sleeper@0'") && text.contains("'SubState': <'running'>"), "{text}");
    assert!(!text.contains("hunter2"), "a secret is shown");
    let reload = format!("{MANAGER}.Reload");
    let text = tool(&daemon, "gdbus", &[&gdbus[..], &[&reload, "{}"]].concat()).await;
    assert!(text.contains("(objectpath '/',)"), "nothing differs, but: {text}");
}

/// A tool that knows only buses takes the private socket for one.
#[tokio::test]
async fn busctl_and_gdbus_drive_it_without_a_bus() {
    let daemon = spawn_test_daemon().await;
    let address = format!("unix:path={}", daemon.socket().display());
    let to = format!("--address={address}");
    let tree = tool(&daemon, "busctl", &[&to, "--list", "tree", NAME]).await;
    assert!(tree.lines().any(|line| line == SLEEPER), "{tree}");
    let stop = [&to, "call", NAME, ROOT, MANAGER, "Stop", "asa{sv}"];
    let wait = ["1", "sleeper", "1", "wait", "b", "true"];
    tool(&daemon, "busctl", &[&stop[..], &wait].concat()).await;
    let property = [&to, "get-property", NAME, SLEEPER, "org.provost.Provost1.Process", "SubState"];
    assert_eq!(tool(&daemon, "busctl", &property).await.trim(), "s \"down\"");
    let shown = tool(&daemon, "busctl", &[&to, "introspect", NAME, ROOT, MANAGER]).await;
    assert!(shown.contains(".Reload"), "{shown}");

    let status = format!("{MANAGER}.Status");
    let gdbus = ["call", "--address", &address, "--dest", NAME, "--object-path", ROOT];
    let status = ["--method", &status, "['sleeper']"];
    let text = tool(&daemon, "gdbus", &[&gdbus[..], &status].concat()).await;
    assert!(text.contains("'sleeper@0'") && text.contains("'SubState': <'down'>"), "{text}");
}

type PropertiesChanged = (String, HashMap<String, OwnedVariant>, Vec<String>);

fn properties_changed(message: &Message) -> PropertiesChanged {
    message.body().deserialize().unwrap()
}

#[tokio::test]
async fn what_changes_together_is_told_together_and_once() {
    let daemon = spawn_test_daemon().await;
    let connection = daemon.bus.connect().await;
    let mut changes =
        signals(&connection, "org.freedesktop.DBus.Properties", "PropertiesChanged").await;
    let client = daemon.client().await;
    for _ in 0..5 {
        client.restart(&names(&["sleeper"]), |_| {}).await.unwrap();
    }
    // Signals are told in order: when this one's object has changed, all before were received.
    client.stop(&names(&["other"]), |_| {}).await.unwrap();
    let mut told: HashMap<String, OwnedVariant> = HashMap::new();
    let mut moments = Vec::new();
    soon("other is down", async {
        loop {
            let message = changes.next().await.unwrap().unwrap();
            let path = message.header().path().unwrap().to_string();
            let (_, changed, _) = properties_changed(&message);
            if path.ends_with("/other_400") && changed.get("SubState").is_some_and(is_down) {
                return;
            }
            if path != SLEEPER {
                continue;
            }
            for (name, value) in &changed {
                assert_ne!(told.get(name), Some(value), "{name} is told again and has not changed");
            }
            if changed.contains_key("SubState") {
                let moment = &changed["StateChangeUSecMonotonic"];
                assert!(!moments.contains(moment), "one change of state in two signals");
                moments.push(moment.clone());
            }
            told.extend(changed);
        }
    })
    .await;
    assert!(moments.len() >= 10, "5 restarts have at least 10 changes of state");
}

fn is_down(state: &OwnedVariant) -> bool {
    **state == Variant::from("down")
}

#[tokio::test]
async fn the_end_of_a_job_is_told_after_the_reply() {
    let daemon = spawn_test_daemon().await;
    for connection in [daemon.bus.connect().await, daemon.peer().await] {
        let mut removed = signals(&connection, MANAGER, "JobRemoved").await;
        for round in 0..20 {
            // Starting what runs has nothing to do: such a job ends in the turn it begins. Many at
            // once make many turns, before the first reply of all is on its way.
            let verb = ["Start", "Restart", "Start", "Stop", "Start"][round % 5];
            let body = (vec!["sleeper", "other"], HashMap::<&str, Variant>::new());
            let calls = (0..20).map(|_| call(&connection, verb, &body));
            let mut replies = HashMap::new();
            for reply in futures_util::future::join_all(calls).await {
                let reply = reply.unwrap();
                let jobs: Vec<OwnedObjectPath> = reply.body().deserialize().unwrap();
                for job in jobs {
                    // A job that several calls joined was named first by the first reply.
                    let first = replies.entry(job).or_insert(reply.recv_position());
                    *first = (*first).min(reply.recv_position());
                }
            }
            soon("the jobs end", async {
                while !replies.is_empty() {
                    let signal = removed.next().await.unwrap().unwrap();
                    let (_, job, _, _): (u32, OwnedObjectPath, String, String) =
                        signal.body().deserialize().unwrap();
                    let named = replies.remove(&job);
                    assert!(
                        named.is_none_or(|named| named < signal.recv_position()),
                        "round {round}: {verb}: the end of {job} came before the reply"
                    );
                }
            })
            .await;
        }
    }
}

#[tokio::test]
async fn a_job_can_be_looked_at_until_it_ends() {
    let daemon = spawn_test_daemon().await;
    let connection = daemon.peer().await;
    let mut removed =
        signals(&connection, "org.freedesktop.DBus.ObjectManager", "InterfacesRemoved").await;
    let manager = ManagerProxy::new(&connection).await.unwrap();
    let jobs = manager.restart(&["slow"], HashMap::new()).await.unwrap();
    let job = JobProxy::builder(&connection).path(jobs[0].clone()).build().await.unwrap();
    assert_eq!(job.instance().await.unwrap(), "slow@0");
    assert_eq!(job.kind().await.unwrap(), "restart");
    soon("the object goes away", async {
        loop {
            let message = removed.next().await.unwrap().unwrap();
            let (path, _): (OwnedObjectPath, Vec<String>) = message.body().deserialize().unwrap();
            if path == jobs[0] {
                return;
            }
        }
    })
    .await;
    let number = jobs[0].rsplit('/').next().unwrap().parse().unwrap();
    assert_eq!(manager.wait_job(number).await.unwrap().0, "done");
    let error = manager.wait_job(4_000_000_000).await.unwrap_err();
    assert!(error.to_string().contains("no job 4000000000"), "{error}");
}

#[tokio::test]
async fn objects_come_and_go_with_the_file() {
    let daemon = spawn_test_daemon().await;
    let connection = daemon.bus.connect().await;
    let manager = "org.freedesktop.DBus.ObjectManager";
    let mut added = signals(&connection, manager, "InterfacesAdded").await;
    let mut removed = signals(&connection, manager, "InterfacesRemoved").await;
    let client = daemon.client().await;
    let text = daemon::PROCESSES.replace("  other:", "  newcomer:");
    std::fs::write(daemon.config(), text).unwrap();
    let summary = soon("the reload", client.reload(&ReloadOptions::default())).await.unwrap();
    assert_eq!((summary.added, summary.removed), (names(&["newcomer"]), names(&["other"])));
    for (stream, label) in [(&mut added, "newcomer_400"), (&mut removed, "other_400")] {
        soon(label, async {
            loop {
                let message = stream.next().await.unwrap().unwrap();
                let body = message.body();
                let path: OwnedObjectPath = match label {
                    "newcomer_400" => {
                        type Added = HashMap<String, HashMap<String, OwnedVariant>>;
                        body.deserialize::<(OwnedObjectPath, Added)>().unwrap().0
                    }
                    _ => body.deserialize::<(OwnedObjectPath, Vec<String>)>().unwrap().0,
                };
                if path.as_str() == format!("{ROOT}/process/{label}") {
                    return;
                }
            }
        })
        .await;
    }
}

#[tokio::test]
async fn the_typed_client_does_everything() {
    let daemon = spawn_test_daemon().await;
    let on_bus = Client::over(daemon.bus.connect().await).await.unwrap();
    for client in [daemon.client().await, on_bus] {
        let all = client.status(&[]).await.unwrap();
        let ids: Vec<&str> = all.iter().map(|process| process.id.as_str()).collect();
        assert_eq!(ids, ["off@0", "other@0", "sleeper@0", "slow@0"]);
        let sleeper = &all[2];
        assert_eq!((sleeper.state.as_str(), sleeper.reason.as_str()), ("running", ""));
        assert_eq!(sleeper.tags, ["night"]);
        assert_eq!(sleeper.environment_names, ["SECRET_TOKEN"]);
        assert!(sleeper.pid.is_some() && sleeper.started.is_some());
        assert!(!sleeper.history.is_empty());
        assert!(!format!("{all:?}").contains("hunter2"), "a secret is shown");

        let mut told = Vec::new();
        let ended = client.stop(&names(&["tag:night"]), |end| told.push(end.name.clone())).await;
        assert_eq!(ended.unwrap()[0].result, "done");
        assert_eq!(told, ["sleeper@0"]);
        assert_eq!(client.status(&names(&["sleeper"])).await.unwrap()[0].state, "down");
        let ended = client.start(&names(&["sleeper"]), false, |_| {}).await.unwrap();
        assert!(ended[0].is_success());

        let missing = client.start(&names(&["nobody"]), false, |_| {}).await;
        assert!(matches!(missing, Err(ClientError::NoSuchProcess(_))), "{missing:?}");
        let disabled = client.start(&names(&["off"]), false, |_| {}).await;
        assert!(
            matches!(&disabled, Err(ClientError::Refused { name, .. }) if name == "ProcessDisabled"),
            "{disabled:?}"
        );

        let manager = client.manager().await.unwrap();
        assert_eq!((manager.processes, manager.enabled, manager.running), (4, 3, 3));
        assert!(manager.valid && manager.generation >= 1);
        let unchanged = client.reload(&ReloadOptions::default()).await.unwrap();
        assert_eq!(unchanged.result, "unchanged");
        let stale = ReloadOptions { expect_generation: Some(999), force: false };
        let stale = client.reload(&stale).await;
        assert!(
            matches!(&stale, Err(ClientError::Refused { name, .. }) if name == "GenerationMismatch"),
            "{stale:?}"
        );

        let (events, cursor) = client.events(None, 0).await.unwrap();
        assert!(events.iter().any(|event| event.instance.as_deref() == Some("sleeper@0")));
        assert!(client.events(Some(&cursor), 0).await.unwrap().0.is_empty());
    }
}

fn descriptor(text: &str) -> std::os::fd::OwnedFd {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.into()
}

#[tokio::test]
async fn a_file_is_checked_and_planned_through_a_descriptor() {
    let daemon = spawn_test_daemon().await;
    let client = daemon.client().await;
    let changed = daemon::PROCESSES.replacen("1000", "2000", 1);
    let plan = client.plan(Some(descriptor(&changed))).await.unwrap();
    assert!(plan.valid());
    assert_eq!(plan.changes.len(), 1);
    let change = &plan.changes[0];
    assert_eq!(
        (change.process.as_str(), change.kind.as_str(), change.consequence.as_str()),
        ("sleeper", "modified", "restart")
    );
    assert!(change.fields[0].new.contains("2000"), "{:?}", change.fields);
    assert!(client.plan(None).await.unwrap().changes.is_empty());

    let bad = daemon::PROCESSES.replacen("command:", "comand:", 1);
    let diagnostics = client.validate(descriptor(&bad)).await.unwrap();
    assert!(diagnostics.iter().any(|line| line.line > 0 && line.text.contains("comand")));
    std::fs::write(daemon.config(), &bad).unwrap();
    let rejected = client.reload(&ReloadOptions::default()).await;
    let Err(ClientError::ConfigInvalid(text)) = rejected else { panic!("{rejected:?}") };
    assert!(text.contains("comand"), "{text}");
    let manager = client.manager().await.unwrap();
    assert!(!manager.valid);
    assert!(!manager.diagnostics.is_empty());
    assert_eq!(manager.running, 3, "an invalid file changes nothing");
}

#[tokio::test]
async fn a_pipe_is_no_configuration() {
    let daemon = spawn_test_daemon().await;
    let manager = ManagerProxy::new(&daemon.peer().await).await.unwrap();
    let (reader, _writer) = std::io::pipe().unwrap();
    let reader = std::os::fd::OwnedFd::from(reader);
    let asked = manager.validate_config(zbus::Fd::from(&reader), HashMap::new());
    let error = soon("the answer", asked).await.unwrap_err();
    assert!(error.to_string().contains("regular file"), "{error}");
}

#[tokio::test]
async fn enabling_edits_the_file() {
    let daemon = spawn_test_daemon().await;
    let client = daemon.client().await;
    let summary = soon("enabling", client.set_enabled(&names(&["off"]), true)).await.unwrap();
    assert_eq!(summary.modified, ["off"]);
    let text = std::fs::read_to_string(daemon.config()).unwrap();
    assert!(text.contains("enabled: true"), "{text}");
    assert_eq!(client.status(&names(&["off"])).await.unwrap()[0].state, "running");
}

#[tokio::test]
async fn events_are_followed() {
    let daemon = spawn_test_daemon().await;
    let client = daemon.client().await;
    let tail = client.events_tail().await.unwrap();
    let mut events = client.follow_events(Some(&tail)).await.unwrap();
    client.signal("sleeper", "main", 9).await.unwrap();
    soon("the exit is told", async {
        loop {
            let event = events.next().await.unwrap();
            if event.kind == "exited" {
                assert_eq!(event.instance.as_deref(), Some("sleeper@0"));
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn logs_are_read_or_their_place_is_named() {
    let daemon = spawn_test_daemon().await;
    let client = daemon.client().await;
    match client.open_log(&names(&["sleeper"]), 9, false).await.unwrap() {
        Log::Stream(stream) => {
            let mut text = String::new();
            let mut file = std::fs::File::from(stream);
            tokio::task::spawn_blocking(move || file.read_to_string(&mut text).unwrap())
                .await
                .unwrap();
        }
        Log::Journal(command) => assert!(command.starts_with("journalctl "), "{command}"),
    }
    let many = client.open_log(&names(&["sleeper", "other"]), 9, false).await;
    assert!(matches!(many, Err(ClientError::Refused { .. })), "{many:?}");
}

#[tokio::test]
async fn arguments_that_make_no_sense_are_refused() {
    let daemon = spawn_test_daemon().await;
    let connection = daemon.peer().await;
    let manager = ManagerProxy::new(&connection).await.unwrap();
    let refused = |error: zbus::Error| match error {
        zbus::Error::FDO(error) => matches!(*error, zbus::fdo::Error::InvalidArgs(_)),
        _ => false,
    };
    let typo = HashMap::from([("wiat", Variant::from(true))]);
    assert!(refused(manager.start(&["sleeper"], typo).await.unwrap_err()));
    let wrong = HashMap::from([("wait", Variant::from("yes"))]);
    assert!(refused(manager.stop(&["sleeper"], wrong).await.unwrap_err()));
    assert!(refused(manager.stop(&[], HashMap::new()).await.unwrap_err()));
    assert!(refused(manager.signal("sleeper", "some", 15).await.unwrap_err()));
    assert!(refused(manager.signal("sleeper", "main", 0).await.unwrap_err()));
    assert!(refused(manager.signal("sleeper", "main", 65).await.unwrap_err()));
    assert!(refused(manager.get_events("yesterday", 1).await.unwrap_err()));
}

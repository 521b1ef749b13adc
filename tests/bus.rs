//! The D-Bus interface of a real daemon on a private bus and on its private socket.

#[path = "bus/daemon.rs"]
mod daemon;
#[path = "bus/xml.rs"]
mod xml;

use daemon::{DEADLINE, TestDaemon, name_is_there, provostd, spawn_test_daemon};
use futures_util::StreamExt;
use provost::client::proxies::{JobProxy, ManagerProxy, ProcessProxy};
use provost::client::{Client, ClientError, Log, ReloadOptions, Target};
use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};
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

fn interface_file(name: &str) -> xml::Element {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("dbus/{name}.xml"));
    xml::parse(&std::fs::read_to_string(path).unwrap())
}

async fn introspect(connection: &Connection, path: &str) -> xml::Element {
    let interface = Some("org.freedesktop.DBus.Introspectable");
    let reply = connection.call_method(Some(NAME), path, interface, "Introspect", &()).await;
    xml::parse(&reply.unwrap().body().deserialize::<String>().unwrap())
}

#[tokio::test]
async fn the_daemon_shows_what_the_xml_says() {
    let daemon = spawn_test_daemon().await;
    let connection = daemon.bus.connect().await;
    for (path, name) in [(ROOT, MANAGER), (SLEEPER, "org.provost.Provost1.Process")] {
        let shown = introspect(&connection, path).await;
        let written = interface_file(name);
        let (shown, written) = (shown.interface(name), written.interface(name));
        assert_eq!(xml::contract(shown), xml::contract(written), "{name}");
    }
    // `other` ends at SIGTERM, but not so soon that its job cannot be looked at.
    let reply =
        call(&connection, "Restart", &(vec!["other"], HashMap::<&str, Variant>::new())).await;
    let jobs: Vec<OwnedObjectPath> = reply.unwrap().body().deserialize().unwrap();
    let name = "org.provost.Provost1.Job";
    let shown = introspect(&connection, &jobs[0]).await;
    let written = interface_file(name);
    assert_eq!(xml::contract(shown.interface(name)), xml::contract(written.interface(name)));
}

#[test]
fn the_policy_lists_every_member_and_no_other() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("dbus/org.provost.Provost1.conf");
    let policy = xml::parse(&std::fs::read_to_string(path).unwrap());
    let default = policy.named("policy").find(|p| p.attribute("context") == "default").unwrap();
    assert_eq!(default.children[0].name, "deny", "everything is denied first");
    let allowed: Vec<(String, String)> = default
        .named("allow")
        .map(|allow| (allow.attribute("send_interface"), allow.attribute("send_member")))
        .filter(|(interface, _)| interface.starts_with(NAME))
        .map(|(interface, member)| (interface.to_owned(), member.to_owned()))
        .collect();
    let mut members = Vec::new();
    for name in ["Manager", "Process", "Job"] {
        let name = format!("{NAME}.{name}");
        for method in interface_file(&name).interface(&name).named("method") {
            members.push((name.clone(), method.attribute("name").to_owned()));
        }
    }
    assert_eq!(allowed, members);
}

macro_rules! properties {
    ($proxy:expr, $($name:ident)*) => {{
        let mut count = 0;
        $(
            $proxy.$name().await.unwrap_or_else(|error| panic!("{}: {error}", stringify!($name)));
            count += 1;
        )*
        count
    }};
}

fn property_count(name: &str) -> usize {
    interface_file(name).interface(name).named("property").count()
}

#[tokio::test]
async fn the_proxies_read_every_property() {
    let daemon = spawn_test_daemon().await;
    let connection = daemon.bus.connect().await;
    let manager = ManagerProxy::new(&connection).await.unwrap();
    let read = properties!(
        manager, version backend config_file system_state config_state config_generation
        config_digest last_modified last_reloaded watching valid diagnostics n_processes n_enabled
        n_running n_failed n_unhealthy n_jobs
    );
    assert_eq!(read, property_count(MANAGER));
    let path = manager.get_process("sleeper").await.unwrap();
    assert_eq!(path.as_str(), SLEEPER);
    let process = ProcessProxy::builder(&connection).path(path).build().await.unwrap();
    let read = properties!(
        process, name instance description enabled desired_state active_state sub_state phase
        state_change_usec state_change_monotonic last_result health health_detail last_check
        main_pid exit_code exit_status n_restarts next_restart_usec started_at memory_current
        cpu_usage_nsec tasks_current control_group unit waiting_for needs_restart config_generation
        environment_names
    );
    assert_eq!(read, property_count("org.provost.Provost1.Process"));
    let jobs = manager.restart(&["slow"], HashMap::new()).await.unwrap();
    let job = JobProxy::builder(&connection).path(jobs[0].clone()).build().await.unwrap();
    assert_eq!(
        properties!(job, id kind instance process created_usec),
        property_count("org.provost.Provost1.Job")
    );
}

#[tokio::test]
async fn status_and_properties_say_the_same() {
    let daemon = spawn_test_daemon().await;
    let connection = daemon.bus.connect().await;
    let reply = call(&connection, "Status", &(vec!["sleeper"],)).await.unwrap();
    let mut status: HashMap<String, BTreeMap<String, OwnedVariant>> =
        reply.body().deserialize().unwrap();
    let mut status = status.remove("sleeper@0").unwrap();
    let interface = "org.freedesktop.DBus.Properties";
    let body = "org.provost.Provost1.Process";
    let reply = connection.call_method(Some(NAME), SLEEPER, Some(interface), "GetAll", &body).await;
    let properties: BTreeMap<String, OwnedVariant> = reply.unwrap().body().deserialize().unwrap();
    for extra in ["Reason", "History", "Tags", "DisplayName", "LogKind"] {
        assert!(status.remove(extra).is_some(), "{extra}");
    }
    let keys = |dict: &BTreeMap<String, OwnedVariant>| dict.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&status), keys(&properties));
    let measured = ["MemoryCurrent", "CPUUsageNSec", "TasksCurrent"];
    for (name, value) in status.iter().filter(|(name, _)| !measured.contains(&name.as_str())) {
        assert_eq!(*value, properties[name], "{name}");
    }
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
    assert_eq!(change.fields[0].key, "args");
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
    match client.open_log(&names(&["sleeper"]), false).await.unwrap() {
        Log::Stream(stream) => {
            let mut text = String::new();
            let mut file = std::fs::File::from(stream);
            tokio::task::spawn_blocking(move || file.read_to_string(&mut text).unwrap())
                .await
                .unwrap();
        }
        Log::Journal(command) => assert!(command.starts_with("journalctl "), "{command}"),
    }
    let many = client.open_log(&names(&["sleeper", "other"]), false).await;
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

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_a_call_disturbs_nobody() {
    let daemon = spawn_test_daemon().await;
    for _ in 0..50 {
        let connection = daemon.peer().await;
        let wait = HashMap::from([("wait", Variant::from(true))]);
        let message = Message::method_call(ROOT, "Restart")
            .interface(MANAGER)
            .build(&(vec!["sleeper"], wait))
            .unwrap();
        connection.send(&message).await.unwrap();
        connection.close().await.unwrap();
    }
    let client = daemon.client().await;
    let ended = soon("a restart", client.restart(&names(&["sleeper"]), |_| {})).await.unwrap();
    assert!(ended[0].is_success(), "{ended:?}");
}

/// Says hello as a D-Bus client does, and nothing more.
fn mute_peer(path: &Path) -> std::io::Result<UnixStream> {
    let mut stream = UnixStream::connect(path)?;
    let uid = rustix::process::geteuid().as_raw().to_string();
    let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
    stream.write_all(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes())?;
    let mut answer = [0; 128];
    let size = stream.read(&mut answer)?;
    if !answer[..size].starts_with(b"OK ") {
        return Err(std::io::ErrorKind::ConnectionRefused.into());
    }
    stream.write_all(b"BEGIN\r\n")?;
    Ok(stream)
}

#[tokio::test]
async fn a_client_that_does_not_read_disturbs_nobody() {
    let daemon = spawn_test_daemon().await;
    let socket = daemon.socket();
    let mute = tokio::task::spawn_blocking(move || mute_peer(&socket)).await.unwrap().unwrap();
    let client = daemon.client().await;
    for _ in 0..100 {
        soon("a restart", client.restart(&names(&["sleeper"]), |_| {})).await.unwrap();
    }
    drop(mute);
}

#[tokio::test]
async fn no_more_peers_than_there_is_room_for() {
    let daemon = spawn_test_daemon().await;
    let socket = daemon.socket();
    let turned_away = tokio::task::spawn_blocking(move || {
        let mut peers = Vec::new();
        loop {
            match mute_peer(&socket) {
                Ok(peer) => peers.push(peer),
                Err(_) => return peers.len(),
            }
            assert!(peers.len() <= 128, "one too many was let in");
        }
    });
    let peers = turned_away.await.unwrap();
    // Clients of the set-up may still be on their way out.
    assert!((120..=128).contains(&peers), "{peers} were let in");
    // All of them have left; the daemon learns it from the kernel.
    soon("room again", async {
        while Client::connect(&Target::Socket(daemon.socket())).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn other_users_are_turned_away() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root");
        eprintln!("skipped: needs root, to become somebody else");
        return;
    }
    let daemon = spawn_test_daemon().await;
    // The modes alone would keep them out; the check of the peer must do it without them.
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let socket = daemon.socket();
    mode(daemon.directory.path(), 0o755);
    mode(socket.parent().unwrap(), 0o755);
    mode(&socket, 0o666);
    // gdbus takes any socket for a bus and asks it for a name. We have none to give, but say so.
    let answer = |user: &str| {
        let mut gdbus = Command::new("setpriv");
        gdbus.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"]);
        gdbus.args(["gdbus", "call", "--timeout=20"]);
        gdbus.arg("--address").arg(format!("unix:path={}", socket.display()));
        gdbus.args(["--dest", NAME, "--object-path", ROOT, "--method", "a.b"]);
        tokio::task::spawn_blocking(move || gdbus.output().unwrap())
    };
    let answered = |output: &Output| {
        String::from_utf8_lossy(&output.stderr).contains("org.freedesktop.DBus.Error.UnknownObject")
    };
    let owner = answer("0").await.unwrap();
    assert!(answered(&owner), "{owner:?}");
    let nobody = answer("65534").await.unwrap();
    assert!(!nobody.status.success() && !answered(&nobody), "{nobody:?}");
    assert!(daemon.client().await.manager().await.is_ok());
}

#[tokio::test]
async fn another_user_on_the_bus_may_look_and_not_touch() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root");
        eprintln!("skipped: needs root, to become somebody else");
        return;
    }
    let daemon = spawn_test_daemon().await;
    let path = daemon.directory.path();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let nobody = |args: &[&str]| {
        let mut command = daemon.tool("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "gdbus", "call"]);
        command.args(["--session", "--dest", NAME, "--object-path", ROOT, "--method"]);
        command.args(args);
        tokio::task::spawn_blocking(move || command.output().unwrap())
    };
    let status = nobody(&[&format!("{MANAGER}.Status"), "[]"]).await.unwrap();
    assert!(status.status.success(), "{status:?}");
    for args in [
        &["Start", "['sleeper']", "{}"][..],
        &["Stop", "['sleeper']", "{}"],
        &["Restart", "['sleeper']", "{}"],
        &["Reload", "{}"],
        &["SetEnabled", "['sleeper']", "false", "{}"],
        &["Signal", "sleeper", "main", "9"],
        &["ResetFailed", "['sleeper']"],
        &["PlanReload", "{}"],
        &["OpenLog", "['sleeper']", "{}"],
        &["GetEvents", "''", "0"],
        &["WaitJob", "1"],
    ] {
        let method = format!("{MANAGER}.{}", args[0]);
        let call: Vec<&str> = std::iter::once(method.as_str()).chain(args[1..].to_vec()).collect();
        let refused = nobody(&call).await.unwrap();
        let text = String::from_utf8_lossy(&refused.stderr);
        assert!(text.contains("org.freedesktop.DBus.Error.AccessDenied"), "{}: {text}", args[0]);
    }
}

#[tokio::test]
async fn a_second_daemon_is_told_who_is_there() {
    let daemon = spawn_test_daemon().await;
    let socket = daemon.directory.path().join("second/private");
    let mut second = provostd(daemon.directory.path(), &daemon.bus.address, &socket);
    let second = daemon::Running::spawn(second.stderr(Stdio::piped()));
    let ended = tokio::task::spawn_blocking(move || second.end());
    let (status, text) = soon("the second ends", ended).await.unwrap();
    assert!(!status.success());
    let first = daemon.provostd.pid().as_raw_nonzero().to_string();
    assert!(text.contains("another supervisor") && text.contains(&first), "{text}");
}

#[tokio::test]
async fn the_bus_may_go_and_come_back() {
    let mut daemon = spawn_test_daemon().await;
    let client = daemon.client().await;
    let before = client.status(&[]).await.unwrap();
    let on_bus = Client::over(daemon.bus.connect().await).await.unwrap();
    let mut watch = on_bus.watch().await.unwrap();
    daemon.bus.go_away();
    let gone = soon("the client notices", async {
        loop {
            if let Err(error) = watch.changed().await {
                return error;
            }
        }
    });
    assert!(matches!(gone.await, ClientError::Gone));
    client.restart(&names(&["other"]), |_| {}).await.unwrap();
    daemon.bus.come_back();
    let connection = daemon.bus.connect().await;
    soon("the name is back", name_is_there(&connection)).await;
    let on_bus = Client::over(connection).await.unwrap();
    let after = on_bus.status(&names(&["sleeper"])).await.unwrap();
    assert_eq!(after[0].pid, before[2].pid, "supervising went on");
}

//! What is written in `dbus/` is what the daemon shows and what the client library knows.

use super::*;

fn interface_file(name: &str) -> xml::Element {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("dbus/{name}.xml"));
    xml::parse(&std::fs::read_to_string(path).unwrap())
}

async fn introspect(connection: &Connection, path: &str) -> xml::Element {
    try_introspect(connection, path).await.unwrap()
}

/// An error where there is no such object.
async fn try_introspect(connection: &Connection, path: &str) -> zbus::Result<xml::Element> {
    let interface = Some("org.freedesktop.DBus.Introspectable");
    let reply = connection.call_method(Some(NAME), path, interface, "Introspect", &()).await?;
    Ok(xml::parse(&reply.body().deserialize::<String>()?))
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
async fn the_daemon_shows_what_the_xml_says() {
    let daemon = spawn_test_daemon().await;
    let connection = daemon.bus.connect().await;
    for (path, name) in [(ROOT, MANAGER), (SLEEPER, "org.provost.Provost1.Process")] {
        let shown = introspect(&connection, path).await;
        let written = interface_file(name);
        let (shown, written) = (shown.interface(name), written.interface(name));
        assert_eq!(xml::contract(shown), xml::contract(written), "{name}");
    }
    let name = "org.provost.Provost1.Job";
    let job = async {
        loop {
            // It takes a second to end; on a busy machine its job may be over all the same.
            let options = HashMap::<&str, Variant>::new();
            let reply = call(&connection, "Restart", &(vec!["slow"], options)).await;
            let jobs: Vec<OwnedObjectPath> = reply.unwrap().body().deserialize().unwrap();
            if let Ok(shown) = try_introspect(&connection, &jobs[0]).await {
                return shown;
            }
        }
    };
    let shown = soon("a job that is looked at in time", job).await;
    let written = interface_file(name);
    assert_eq!(xml::contract(shown.interface(name)), xml::contract(written.interface(name)));
}

/// What waits to be confirmed has an object as the XML says, from the property that names it until it
/// was confirmed, on a bus and on the private socket.
#[tokio::test]
async fn what_waits_to_be_confirmed_has_an_object() {
    let daemon = spawn_test_daemon().await;
    let connection = daemon.bus.connect().await;
    // What is kept of properties would be brought up to date at a time of its own.
    let uncached = zbus::proxy::CacheProperties::No;
    let manager =
        ManagerProxy::builder(&connection).cache_properties(uncached).build().await.unwrap();
    assert_eq!(manager.pending_checkpoint().await.unwrap().as_str(), "/");
    let mut added =
        signals(&connection, "org.freedesktop.DBus.ObjectManager", "InterfacesAdded").await;
    let mut changed =
        signals(&connection, "org.freedesktop.DBus.Properties", "PropertiesChanged").await;
    let mut tried = tempfile::tempfile().unwrap();
    tried.write_all(daemon::PROCESSES.replace("1000", "1001").as_bytes()).unwrap();
    let options = HashMap::from([("confirm-usec", Variant::from(3_600_000_000u64))]);
    manager.apply(zbus::Fd::from(&tried), options).await.unwrap();
    let path = "/org/provost/Provost1/checkpoint/2";
    soon("the object is announced", async {
        loop {
            let message = added.next().await.unwrap().unwrap();
            let (object, _): (OwnedObjectPath, HashMap<String, HashMap<String, OwnedVariant>>) =
                message.body().deserialize().unwrap();
            if object.as_str() == path {
                break;
            }
        }
    })
    .await;
    assert_eq!(manager.pending_checkpoint().await.unwrap().as_str(), path);
    let name = "org.provost.Provost1.Checkpoint";
    for connection in [&connection, &peer(&daemon).await] {
        let shown = introspect(connection, path).await;
        let written = interface_file(name);
        assert_eq!(xml::contract(shown.interface(name)), xml::contract(written.interface(name)));
    }
    let checkpoint = CheckpointProxy::builder(&connection).path(path).cache_properties(uncached);
    let checkpoint = checkpoint.build().await.unwrap();
    soon("it waits", async {
        // Its verdict is settle away; that it changed is announced.
        while checkpoint.state().await.unwrap() != "waiting" {
            changed.next().await.unwrap().unwrap();
        }
    })
    .await;
    let read = properties!(checkpoint, generation base user state deadline_usec);
    assert_eq!(read, property_count(name));
    assert_eq!((checkpoint.generation().await.unwrap(), checkpoint.base().await.unwrap()), (2, 1));
    assert_ne!(checkpoint.deadline_usec().await.unwrap(), 0);
    checkpoint.commit().await.unwrap();
    soon("it is gone", async {
        while manager.pending_checkpoint().await.unwrap().as_str() != "/" {
            changed.next().await.unwrap().unwrap();
        }
    })
    .await;
    assert!(checkpoint.commit().await.is_err());
}

async fn peer(daemon: &TestDaemon) -> Connection {
    let address = format!("unix:path={}", daemon.socket().display());
    zbus::connection::Builder::address(&*address).p2p().build().await.unwrap()
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
    for name in ["Manager", "Process", "Job", "Checkpoint"] {
        let name = format!("{NAME}.{name}");
        for method in interface_file(&name).interface(&name).named("method") {
            members.push((name.clone(), method.attribute("name").to_owned()));
        }
    }
    assert_eq!(allowed, members);
}

#[tokio::test]
async fn the_proxies_read_every_property() {
    let daemon = spawn_test_daemon().await;
    let connection = daemon.bus.connect().await;
    let manager = ManagerProxy::new(&connection).await.unwrap();
    let read = properties!(
        manager, version backend config_file system_state config_state config_detail
        config_generation config_digest last_modified last_reloaded watching valid diagnostics
        disk_generation reloads reloads_took_usec last_reload_took_usec last_succeeded
        pending_checkpoint n_processes n_enabled
        n_running n_failed n_unhealthy n_jobs
    );
    assert_eq!(read, property_count(MANAGER));
    let path = manager.get_process("sleeper").await.unwrap();
    assert_eq!(path.as_str(), SLEEPER);
    let process = ProcessProxy::builder(&connection).path(path).build().await.unwrap();
    let read = properties!(
        process, name instance description enabled desired_state active_state sub_state phase
        state_change_usec state_change_monotonic last_result health health_detail status_text
        last_check main_pid overlap_pid exit_code exit_status n_restarts next_restart_usec started_at memory_current
        cpu_usage_nsec tasks_current control_group memory_max memory_high cpu_quota max_memory_restart tasks_max
        limits_enforced unenforced_limits program_changed unit waiting_for needs_restart config_generation
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

//! Clients that misbehave, clients that may not, and a bus that goes away.

use super::*;
use std::collections::BTreeSet;

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
    // gdbus takes any socket for a bus.
    let answer = |user: &str| {
        let mut gdbus = Command::new("setpriv");
        gdbus.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"]);
        gdbus.args(["gdbus", "call", "--timeout=20"]);
        gdbus.arg("--address").arg(format!("unix:path={}", socket.display()));
        gdbus.args(["--dest", NAME, "--object-path", ROOT]);
        gdbus.args(["--method", &format!("{MANAGER}.ListJobs")]);
        tokio::task::spawn_blocking(move || gdbus.output().unwrap())
    };
    let owner = answer("0").await.unwrap();
    assert!(owner.status.success(), "{owner:?}");
    let nobody = answer("65534").await.unwrap();
    assert!(!nobody.status.success(), "{nobody:?}");
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
        &["GetHistory", "{}"],
        &["ShowGeneration", "1"],
        &["DiffGenerations", "0", "1"],
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

/// What a peer is sent in answer to its first call, up to the reply.
async fn first_call(daemon: &TestDaemon, call: Message) -> Vec<Message> {
    let connection = daemon.peer().await;
    let mut messages = MessageStream::from(&connection);
    let serial = call.primary_header().serial_num();
    connection.send(&call).await.unwrap();
    soon("a reply", async {
        let mut seen = Vec::new();
        loop {
            let message = messages.next().await.unwrap().unwrap();
            let header = message.header();
            let answers = header.reply_serial() == Some(serial);
            assert!(!answers || message.message_type() == Type::MethodReturn, "{message:?}");
            drop(header);
            seen.push(message);
            if answers {
                return seen;
            }
        }
    })
    .await
}

fn announcements(messages: &[Message]) -> usize {
    let announces = |message: &&Message| {
        message.header().member().is_some_and(|member| member.as_str() == "InterfacesAdded")
    };
    messages.iter().filter(announces).count()
}

#[tokio::test]
async fn objects_are_there_for_whoever_asks_and_no_burden_to_who_does_not() {
    let daemon = spawn_test_daemon().await;
    let call = |path: &str, interface: &'static str, member: &'static str| {
        Message::method_call(path.to_owned(), member).interface(interface)
    };
    let object = format!("{ROOT}/process/sleeper_400");

    let status = call(ROOT, MANAGER, "Status").build(&(names(&["sleeper"]))).unwrap();
    assert_eq!(announcements(&first_call(&daemon, status).await), 0);

    let get_all = call(&object, "org.freedesktop.DBus.Properties", "GetAll")
        .build(&("org.provost.Provost1.Process"))
        .unwrap();
    let seen = first_call(&daemon, get_all).await;
    assert!(announcements(&seen) > 0);
    let properties: HashMap<String, OwnedVariant> =
        seen.last().unwrap().body().deserialize().unwrap();
    assert_eq!(properties["Name"], OwnedVariant::from(zbus::Str::from("sleeper")));

    let introspect =
        call(ROOT, "org.freedesktop.DBus.Introspectable", "Introspect").build(&()).unwrap();
    let xml: String =
        first_call(&daemon, introspect).await.last().unwrap().body().deserialize().unwrap();
    assert!(xml.contains("sleeper_400"), "{xml}");

    let managed =
        call(ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects").build(&()).unwrap();
    type Objects = HashMap<OwnedObjectPath, HashMap<String, HashMap<String, OwnedVariant>>>;
    let objects: Objects =
        first_call(&daemon, managed).await.last().unwrap().body().deserialize().unwrap();
    assert!(objects.keys().any(|path| path.as_str() == object), "{:?}", objects.keys());
}

/// Sends a call; the reply, and how many objects were announced before it.
async fn call(connection: &Connection, call: Message) -> (Message, usize) {
    let mut messages = MessageStream::from(connection);
    let serial = call.primary_header().serial_num();
    connection.send(&call).await.unwrap();
    let mut announced = 0;
    loop {
        let message = messages.next().await.unwrap().unwrap();
        announced += announcements(std::slice::from_ref(&message));
        if message.header().reply_serial() == Some(serial) {
            return (message, announced);
        }
    }
}

/// Restarts what takes a second to stop, and looks at the job. False when that has ended by then.
async fn a_new_job_is_there(connection: &Connection, has_objects: bool) -> bool {
    let options = HashMap::<String, Variant<'_>>::new();
    let restart =
        Message::method_call(ROOT, "Restart").interface(MANAGER).build(&(vec!["slow"], options));
    let (reply, announced) = call(connection, restart.unwrap()).await;
    assert!(has_objects || announced == 0, "nobody has asked for an object");
    let jobs: Vec<OwnedObjectPath> = reply.body().deserialize().unwrap();
    let get = Message::method_call(jobs[0].as_str(), "Get")
        .interface("org.freedesktop.DBus.Properties")
        .build(&("org.provost.Provost1.Job", "Kind"));
    let (reply, announced) = call(connection, get.unwrap()).await;
    assert!(has_objects || announced > 0);
    reply.message_type() == Type::MethodReturn
}

#[tokio::test]
async fn a_job_is_there_for_whoever_asks_for_it_first() {
    let daemon = spawn_test_daemon().await;
    soon("jobs that are looked at in time", async {
        loop {
            let connection = daemon.peer().await;
            if a_new_job_is_there(&connection, false).await
                && a_new_job_is_there(&connection, true).await
            {
                return;
            }
        }
    })
    .await;
}

async fn say_what_is_wanted(
    connection: &Connection,
    method: &str,
    rule: &str,
) -> zbus::Result<Message> {
    let (path, dbus) = ("/org/freedesktop/DBus", "org.freedesktop.DBus");
    soon(method, connection.call_method(None::<&str>, path, Some(dbus), method, &(rule))).await
}

/// The names of the signals that a peer is sent until it has an answer, which comes after them.
async fn told_of_a_restart(connection: &Connection, client: &Client) -> BTreeSet<String> {
    let mut messages = MessageStream::from(connection);
    let ended = soon("a restart", client.restart(&names(&["sleeper"]), |_| {})).await.unwrap();
    assert!(ended[0].is_success(), "{ended:?}");
    let job = Message::method_call(ROOT, "Restart").interface(MANAGER);
    let wait = HashMap::from([("wait", Variant::from(true))]);
    let job = job.build(&(vec!["other"], wait)).unwrap();
    let serial = job.primary_header().serial_num();
    connection.send(&job).await.unwrap();
    let mut told = BTreeSet::new();
    soon("an answer", async {
        loop {
            let message = messages.next().await.unwrap().unwrap();
            let header = message.header();
            if header.reply_serial() == Some(serial) {
                return;
            }
            told.extend(header.member().map(ToString::to_string));
        }
    })
    .await;
    told
}

#[tokio::test]
async fn a_peer_is_told_what_it_asks_for() {
    const ENDS: &str = "type='signal',interface='org.provost.Provost1.Manager',member='JobRemoved'";
    const EXITS: &str = "type='signal',interface='org.provost.Provost1.Process'";
    let daemon = spawn_test_daemon().await;
    let client = daemon.client().await;
    let peer = daemon.peer().await;
    let everything = ["EventsAdded", "Exited", "JobNew", "JobRemoved", "PropertiesChanged"];
    let told = told_of_a_restart(&peer, &client).await;
    assert!(everything.iter().all(|name| told.contains(*name)), "{told:?}");

    say_what_is_wanted(&peer, "AddMatch", ENDS).await.unwrap();
    say_what_is_wanted(&peer, "AddMatch", EXITS).await.unwrap();
    assert_eq!(
        told_of_a_restart(&peer, &client).await,
        ["Exited", "JobRemoved"].map(Into::into).into()
    );
    say_what_is_wanted(&peer, "RemoveMatch", EXITS).await.unwrap();
    assert_eq!(told_of_a_restart(&peer, &client).await, ["JobRemoved"].map(Into::into).into());
    say_what_is_wanted(&peer, "RemoveMatch", ENDS).await.unwrap();
    assert_eq!(told_of_a_restart(&peer, &client).await, BTreeSet::new());

    let again = daemon.peer().await;
    let told = told_of_a_restart(&again, &client).await;
    assert!(everything.iter().all(|name| told.contains(*name)), "it is a matter of each: {told:?}");
    let unknown = say_what_is_wanted(&peer, "RemoveMatch", ENDS).await.unwrap_err().to_string();
    assert!(unknown.contains("MatchRuleNotFound"), "{unknown}");
    say_what_is_wanted(&peer, "AddMatch", "type='nonsense'").await.unwrap_err();
}

#[tokio::test]
async fn a_client_is_told_what_it_listens_to_and_nothing_when_it_does_not() {
    let daemon = spawn_test_daemon().await;
    let other = daemon.client().await;
    let peer = daemon.peer().await;
    let client = Client::over(peer.clone()).await.unwrap();
    let watch = client.watch().await.unwrap();
    let again = client.watch().await.unwrap();
    drop(watch);
    let told = told_of_a_restart(&peer, &other).await;
    assert!(told.contains("PropertiesChanged") && told.contains("JobRemoved"), "{told:?}");
    drop(again);
    soon("silence", silence(&peer, &other)).await;
    let ended = soon("a restart", client.restart(&names(&["other"]), |_| {})).await.unwrap();
    assert!(ended[0].is_success(), "{ended:?}");
    assert_eq!(told_of_a_restart(&peer, &other).await, BTreeSet::new(), "it was said at once");
}

/// Comes when nothing is told: a task of its own says that nobody listens any more.
async fn silence(peer: &Connection, other: &Client) {
    while !told_of_a_restart(peer, other).await.is_empty() {}
}

//! Nothing that reads the daemon sees a value of an environment, wherever the file puts it.

use crate::support::{Daemon, Prepared};
use provost::client::{Client, ReloadOptions, Target};
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

/// A value that must never be seen. Made of parts, so that no listing of this test's own command
/// line or source can be what is found.
fn canary(n: usize) -> String {
    format!("cana{}{n}", "ry7fe1x")
}

/// Environment files whose values are used everywhere a `${NAME}` may stand.
fn env_file(dir: &Path) {
    let values = (0..10).fold(String::new(), |mut text, n| {
        writeln!(text, "C{n}={}", canary(n)).unwrap();
        text
    });
    let path = format!("OWNPATH=/{}/bin:/usr/bin:/bin\n", canary(0));
    std::fs::write(dir.join("secrets.env"), values + &path).unwrap();
}

fn prepared() -> Prepared {
    Daemon::prepare(env_file)
}

/// All that can be read of a daemon by its own command line and by any client of the bus.
async fn everything(daemon: &Daemon) -> String {
    let mut seen = String::new();
    let socket = daemon.path().join("private");
    for line in [
        "status",
        "--output json status",
        "--output wide status",
        "why *",
        "--output json why *",
        "events",
        "--output json events",
        "plan",
        "--output json plan",
        "history",
        "--output json history",
        "show 1",
        "--output json show 1",
        "diff disk",
        "--output json diff disk --text",
        "check",
        "reload",
        "logs *",
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_provost"));
        command.current_dir(daemon.path()).arg("--socket").arg(&socket).args(line.split(' '));
        let output = command.output().unwrap();
        for stream in [output.stdout, output.stderr] {
            writeln!(seen, "$ {line}\n{}", String::from_utf8_lossy(&stream)).unwrap();
        }
    }
    writeln!(seen, "$ introspection\n{}", properties(&socket).await).unwrap();
    let client = Client::connect(&Target::Socket(socket)).await.unwrap();
    writeln!(seen, "$ dbus\n{:?}", client.status(&[]).await.unwrap()).unwrap();
    writeln!(seen, "{:?}", client.manager().await.unwrap()).unwrap();
    let reloaded = client.reload(&ReloadOptions::default()).await;
    writeln!(seen, "{reloaded:?}").unwrap();
    seen + &daemon.log()
}

/// Every property of every object.
async fn properties(socket: &Path) -> String {
    let stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    let connection = zbus::connection::Builder::unix_stream(stream).p2p().build().await.unwrap();
    let interface = Some("org.freedesktop.DBus.ObjectManager");
    let path = "/org/provost/Provost1";
    let asked = connection.call_method(None::<&str>, path, interface, "GetManagedObjects", &());
    let reply = asked.await.unwrap();
    let body = reply.body();
    let objects: zbus::Structure<'_> = body.deserialize().unwrap();
    let text = format!("{objects:?}");
    assert!(text.contains("HealthDetail"), "{text}");
    text
}

fn assert_clean(seen: &str) {
    let leaks: Vec<&str> = seen.lines().filter(|line| line.contains(&canary(0)[..9])).collect();
    assert!(leaks.is_empty(), "{}", leaks.join("\n"));
}

const FILE: &str = r#"
processes:
  cwd: { command: sleep, args: ["1000"], envFile: [secrets.env], cwd: "/nowhere/${C1}" }
  program: { command: "./${C2}", envFile: [secrets.env] }
  args: { command: "false", args: ["${C3}"], envFile: [secrets.env] }
  line: { shell: "exit 1 # ${C4}", envFile: [secrets.env] }
  log: { command: sleep, args: ["1000"], envFile: [secrets.env], logFile: "/proc/${C5}/x.log" }
  pid: { command: sleep, args: ["1000"], envFile: [secrets.env], pidFile: "/proc/${C6}/x.pid" }
  path: { command: no-such-program, envFile: [secrets.env], env: { PATH: "${OWNPATH}" } }
  url:
    command: sleep
    args: ["1000"]
    envFile: [secrets.env]
    healthCheck: { url: "http://127.0.0.1:1/${C7}?x=${C7}", interval: 1s }
    startTimeout: 2s
  host:
    command: sleep
    args: ["1000"]
    envFile: [secrets.env]
    healthCheck: { tcp: "${C8}.invalid:80", interval: 1s }
    startTimeout: 2s
  exec:
    command: sleep
    args: ["1000"]
    envFile: [secrets.env]
    healthCheck: { exec: [sh, -c, "echo the database said no; exit 3"], interval: 1s }
    startTimeout: 2s
"#;

#[tokio::test]
async fn values_in_texts_are_never_shown() {
    let daemon = prepared().with(FILE);
    daemon
        .until("all failing", |all| {
            let broken = ["cwd@0", "program@0", "log@0", "pid@0", "path@0", "line@0", "args@0"];
            broken.iter().all(|name| all[*name].restarts > 0 || all[*name].state == "backoff")
                && ["url@0", "host@0", "exec@0"]
                    .iter()
                    .all(|name| !all[*name].health_detail.is_empty())
        })
        .await;
    let seen = everything(&daemon).await;
    // What is said must still help.
    for text in [
        "changing directory to /nowhere/${C1}: No such file or directory",
        "./${C2}",
        "no-such-program (searched in the PATH of its env)",
        "connection refused (http://127.0.0.1:1/${C7}?x=${C7})",
        "${C8}.invalid:80",
    ] {
        assert!(seen.contains(text), "{text}: {seen}");
    }
    assert_clean(&seen);
}

#[tokio::test]
async fn a_changed_value_plans_as_a_change_and_is_not_shown() {
    let daemon = prepared().with(
        r#"
processManagement: { watchConfig: false }
processes:
  a: { shell: "exec sleep 1000 # ${C4}", envFile: [secrets.env] }
  b: { shell: exec sleep 1000 }
"#,
    );
    let before = daemon.until_running(&["a@0", "b@0"]).await;
    let file = daemon.path().join("secrets.env");
    let changed = std::fs::read_to_string(&file).unwrap().replace("x4\n", "x4new\n");
    std::fs::write(file, changed).unwrap();
    let seen = everything(&daemon).await;
    assert!(seen.contains("(with another value)"), "{seen}");
    assert_clean(&seen);
    // The last thing it asked for was a reload.
    let after = daemon.until_running(&["a@0", "b@0"]).await;
    assert_ne!(before["a@0"].pid, after["a@0"].pid);
    assert_eq!(before["b@0"].pid, after["b@0"].pid);
}

#[tokio::test]
async fn a_file_that_is_refused_shows_no_value() {
    let daemon = prepared().with("processes: { a: { shell: exec sleep 1000 } }");
    daemon.until_running(&["a@0"]).await;
    for bad in [
        "command: sleep, cwd: \"/nowhere/${C1}\"",
        "command: \"./${C2}\"",
        "command: \"${C2}\"",
        "command: no-such-program, env: { PATH: \"${OWNPATH}\" }",
        "command: sleep, healthCheck: { url: \"http://localhost:${C3}/\" }",
        "command: sleep, healthCheck: { url: \"${C3}\" }",
        "command: sleep, healthCheck: { tcp: \"${C3}\" }",
        "command: sleep, healthCheck: { tcp: \"localhost:${C3}\" }",
        "command: sleep, healthCheck: { exec: [\"${C3}\"] }",
        "command: sleep, envFile: [secrets.env, \"${C3}.env\"]",
    ] {
        daemon.save(&format!("processes: {{ b: {{ envFile: [secrets.env], {bad} }} }}"));
        let refused = daemon.client().await.reload(&ReloadOptions::default()).await;
        assert!(refused.is_err(), "{bad}: {refused:?}");
        let seen = format!("{refused:?}\n{}", everything(&daemon).await);
        assert_clean(&seen);
    }
}

#[tokio::test]
async fn what_a_check_prints_is_for_those_who_may_read_the_log() {
    let daemon = prepared().with(
        r#"
processes:
  db:
    shell: exec sleep 1000
    envFile: [secrets.env]
    healthCheck: { exec: [sh, -c, "echo first; echo no login as $C0; exit 3"], interval: 1s }
    startTimeout: 2s
"#,
    );
    let status = daemon.until("failing", |all| !all["db@0"].health_detail.is_empty()).await;
    assert_eq!(status["db@0"].health_detail, "exited with code 3");
    assert_clean(&daemon.log());
    assert_clean(&properties(&daemon.path().join("private")).await);
    assert_clean(&format!("{status:?}"));
    let printed = daemon.client().await.check_output("db").await.unwrap();
    assert_eq!(printed, format!("first\nno login as {}", canary(0)));
}

//! The system's daemon on a bus with the rules of a system bus and the policy that is installed.

use crate::daemon::{DEADLINE, PROCESSES, Running, TestBus, name_is_there};
use crate::{MANAGER, NAME, ROOT};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

#[tokio::test]
async fn root_may_act_and_others_may_look() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "CI runs as root");
        eprintln!("skipped: the system's daemon needs root");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    // The processes run as somebody who is there on every machine.
    let yaml = format!("processManagement: {{ defaultUser: nobody }}\n{PROCESSES}");
    std::fs::write(path.join("processes.yaml"), yaml).unwrap();
    let bus = TestBus::system(path);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut provostd = Command::new(env!("CARGO_BIN_EXE_provostd"));
    provostd.args(["--system", "--bus", "system", "--socket"]).arg(path.join("run/private"));
    provostd.arg("-c").arg(path.join("processes.yaml"));
    provostd.env("DBUS_SYSTEM_BUS_ADDRESS", &bus.address);
    let _daemon = Running::spawn(provostd.env("STATE_DIRECTORY", path.join("state")));
    name_is_there(&bus.connect().await).await;

    let call = |user: &str, method: &str, arguments: &[&str]| -> Output {
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"]);
        command.args(["gdbus", "call", "--address", &bus.address, "--dest", NAME]);
        command.args(["--object-path", ROOT, "--method", method, "--timeout"]);
        command.arg(DEADLINE.as_secs().to_string()).args(arguments);
        command.output().unwrap()
    };
    let (root, nobody) = ("0", "65534");
    let verb = |verb: &str| format!("{MANAGER}.{verb}");
    let waited = "{'wait': <true>}";

    let out = call(root, &verb("Start"), &["['sleeper']", waited]);
    assert!(out.status.success(), "{out:?}");
    let status = call(nobody, &verb("Status"), &["[]"]);
    assert!(status.status.success(), "{status:?}");
    let text = String::from_utf8_lossy(&status.stdout);
    assert!(text.contains("sleeper@0") && text.contains("running"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
    let get = "org.freedesktop.DBus.Properties.Get";
    let property = call(nobody, get, &[MANAGER, "NRunning"]);
    assert!(property.status.success(), "{property:?}");

    for (method, arguments) in [
        ("Start", &["['sleeper']", "{}"][..]),
        ("Stop", &["['sleeper']", "{}"]),
        ("Restart", &["['sleeper']", "{}"]),
        ("Signal", &["sleeper", "main", "9"]),
        ("ResetFailed", &["['sleeper']"]),
        ("SetEnabled", &["['sleeper']", "false", "{}"]),
        ("Reload", &["{}"]),
        ("ReloadProcess", &["['sleeper']", "{}"]),
        ("GetReloadOutput", &["sleeper"]),
        ("PlanReload", &["{}"]),
        ("GetHistory", &["{}"]),
        ("ShowGeneration", &["1"]),
        ("DiffGenerations", &["0", "1"]),
        ("OpenLog", &["['sleeper']", "{}"]),
    ] {
        let refused = call(nobody, &verb(method), arguments);
        let text = String::from_utf8_lossy(&refused.stderr);
        assert!(text.contains("org.freedesktop.DBus.Error.AccessDenied"), "{method}: {text}");
    }
    // What runs, runs as the default user of the file.
    let text =
        String::from_utf8_lossy(&call(root, &verb("Status"), &["['sleeper']"]).stdout).into_owned();
    let pid = text.split("'MainPID': <uint32 ").nth(1).unwrap().split('>').next().unwrap();
    let process = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(process.contains("Uid:\t65534\t65534\t65534\t65534"), "{process}");

    let stopped = call(root, &verb("Stop"), &["['sleeper']", waited]);
    assert!(stopped.status.success(), "{stopped:?}");
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

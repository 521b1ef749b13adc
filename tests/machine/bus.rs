//! The daemon on the system's bus, as others see it.

use crate::image::Debian;
use crate::machine::Machine;

const OBJECT: &str = "org.provost.Provost1 /org/provost/Provost1";

pub fn is_asked_told_and_watched(debian: Debian, backend: &str) {
    let Some(machine) = Machine::installed(debian, backend) else { return };
    machine.processes("processes: { web: { command: [sleep, infinity] } }");
    machine.up("web");
    let get = |name: &str| {
        let manager = "org.provost.Provost1.Manager";
        machine.run(&format!("busctl get-property {OBJECT} {manager} {name}"))
    };
    assert_eq!(get("NRunning"), "u 1\n");
    assert_eq!(get("Backend"), format!("s {backend:?}\n"));
    let shown = machine.run(&format!("busctl introspect {OBJECT}"));
    assert!(shown.contains("Restart") && shown.contains("ConfigGeneration"), "{shown}");
    // What is installed for programs is what is served.
    let installed =
        machine.run("cat /usr/share/dbus-1/interfaces/org.provost.Provost1.Manager.xml");
    assert!(installed.contains("ConfigGeneration"), "{installed}");

    // Who watches is told of a restart: of the new pid, and of the job's end.
    let mut watch = machine.command(
        "exec timeout 30 busctl monitor --json=short \
         --match \"type='signal',sender='org.provost.Provost1'\"",
    );
    let watch = Watching::new(watch.stdout(std::process::Stdio::piped()).spawn().unwrap());
    let pid = machine.running()["web@0"].0;
    // It may begin to watch late, so the process is restarted until it was seen.
    let calls = std::cell::Cell::new(0);
    let call = || {
        calls.set(calls.get() + 1);
        machine.run(&format!(
            "busctl call {OBJECT} org.provost.Provost1.Manager Restart 'asa{{sv}}' 1 web 1 wait b true"
        ))
    };
    let seen = watch.until(call, |lines| {
        let has = |text: &str| lines.iter().any(|line| line.contains(text));
        has("PropertiesChanged") && has("\"MainPID\"") && has("JobRemoved") && has("done")
    });
    assert!(seen, "after {} restarts", calls.get());
    assert_ne!(machine.running()["web@0"].0, pid);

    // Others may look, and that is all.
    let alice = |line: &str| machine.code(&format!("runuser -u alice -- {line}"));
    let (code, out) =
        alice(&format!("busctl call {OBJECT} org.provost.Provost1.Manager Status as 0"));
    assert!(code == 0 && out.contains("web@0"), "{out}");
    let stop = "org.provost.Provost1.Manager Stop 'asa{sv}' 1 web 0";
    let (code, out) = alice(&format!("busctl call {OBJECT} {stop}"));
    assert!(code != 0 && out.to_lowercase().contains("denied"), "{out}");

    // systemctl finds the log of the daemon by its name on the bus.
    machine.run("systemctl service-log-level provostd debug");
    assert_eq!(machine.run("systemctl service-log-level provostd"), "debug\n");

    // The bus goes and comes back; the daemon is there again, and its processes never left.
    let before = machine.running();
    let service = match debian {
        Debian::TrixieBroker => "dbus-broker",
        _ => "dbus",
    };
    let daemon = machine.daemon();
    machine.run(&format!("systemctl restart {service}"));
    machine.until(&format!("busctl get-property {OBJECT} org.provost.Provost1.Manager Version"));
    assert_eq!((machine.running(), machine.daemon()), (before, daemon));
}

/// A program whose lines are collected.
struct Watching {
    child: std::process::Child,
    lines: std::sync::mpsc::Receiver<String>,
}

impl Watching {
    fn new(mut child: std::process::Child) -> Watching {
        use std::io::BufRead;
        let out = std::io::BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Watching { child, lines }
    }

    /// Acts again and again until the lines are as wanted; false at the deadline.
    fn until(&self, act: impl Fn() -> String, wanted: impl Fn(&[String]) -> bool) -> bool {
        let deadline = std::time::Instant::now() + crate::machine::DEADLINE;
        let mut all = Vec::new();
        while std::time::Instant::now() < deadline {
            act();
            let more = self.lines.recv_timeout(std::time::Duration::from_millis(200));
            all.extend(more.into_iter().chain(self.lines.try_iter()));
            if wanted(&all) {
                return true;
            }
        }
        false
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! The systemd backend, on machines.

use crate::SCENARIOS;
use crate::image::Debian;
use crate::machine::{DEADLINE, Machine};
use std::time::Duration;

/// What scenarios read from the environment.
const SETTINGS: [&str; 4] = ["PROVOST_SEED", "PROVOST_EDITS", SECONDS, "PROVOST_CONNECTIONS"];
const SECONDS: &str = "PROVOST_CHANGES_SECONDS";

/// Runs all scenarios in one machine with a prefix of the command, and says which did not hold.
fn all(debian: Debian, prepare: &str, prefix: &str) {
    let Some(machine) = Machine::booted(debian) else { return };
    machine.run(prepare);
    let program = std::env::current_exe().unwrap();
    let name = program.file_name().unwrap().to_str().unwrap();
    let mut broken = Vec::new();
    let set = |name: &&str| Some(format!("{name}={}", std::env::var(name).ok()?));
    let given: Vec<String> = SETTINGS.iter().filter_map(set).collect();
    // What is drawn is another on each machine; the same one again in another run.
    let name_of_test = std::thread::current().name().unwrap_or_default().to_owned();
    let seed: u64 = name_of_test.bytes().map(u64::from).sum();
    let drawn = format!("env PROVOST_SEED={seed} PROVOST_EDITS=6 {}", given.join(" "));
    let longer = std::env::var(SECONDS).map_or(0, |seconds| seconds.parse().expect("a number"));
    let deadline = DEADLINE + Duration::from_secs(longer);
    // While one is being written, the others need not run.
    let only = std::env::var("PROVOST_SCENARIOS").unwrap_or_default();
    for scenario in SCENARIOS.iter().filter(|scenario| scenario.contains(&only)) {
        let line = format!(
            "{drawn} {prefix} /package/deps/{name} --ignored --exact inside::{scenario} --nocapture"
        );
        let (code, said) = machine.code_within(&line, deadline);
        if !only.is_empty() {
            eprintln!("{said}");
        }
        if code != 0 || !said.contains("1 passed") {
            broken.push(format!("{scenario}: {code}\n{said}"));
        }
    }
    assert!(broken.is_empty(), "{} of {}\n{}", broken.len(), SCENARIOS.len(), broken.join("\n"));
}

fn system(debian: Debian) {
    all(debian, "true", "");
}

fn user(debian: Debian) {
    user_with(debian, "");
}

fn user_with(debian: Debian, more: &str) {
    let environment = format!("HOME=/home/alice USER=alice XDG_RUNTIME_DIR=/run/user/1000 {more}");
    let alice = "setpriv --reuid=alice --regid=alice --init-groups env";
    // Over the bus it is there a moment later, and nobody waits for that.
    let manager = "busctl --address=unix:path=/run/user/1000/bus status org.freedesktop.systemd1";
    let reached = format!(
        "systemctl start user@1000; for n in $(seq 300); do {alice} {manager} >/dev/null 2>&1 && break; \
         sleep 0.1; done"
    );
    let ready = if more.is_empty() { "systemctl start user@1000" } else { &reached };
    all(debian, ready, &format!("{alice} {environment}"));
}

#[test]
fn debian_12() {
    system(Debian::Bookworm);
}

#[test]
fn debian_13() {
    system(Debian::Trixie);
}

/// By the bus instead of systemd's private socket, as a daemon goes that is not root.
#[test]
fn debian_13_bus() {
    all(Debian::Trixie, "true", "env CONFORMANCE_BUS=1");
}

#[test]
fn debian_13_broker_bus() {
    all(Debian::TrixieBroker, "true", "env CONFORMANCE_BUS=1");
}

#[test]
fn debian_12_user() {
    user(Debian::Bookworm);
}

#[test]
fn debian_13_user() {
    user(Debian::Trixie);
}

#[test]
fn debian_12_user_bus() {
    let bus = "CONFORMANCE_BUS=1 DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus";
    user_with(Debian::Bookworm, bus);
}

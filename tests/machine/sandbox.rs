//! What the unit takes from the daemon, and not from its processes.

use crate::image::Debian;
use crate::machine::Machine;

/// What a process may do (proc(5)).
const MAY: &str = "grep -E '^(CapBnd|CapAmb|NoNewPrivs|Seccomp):'";

pub fn the_sandbox_is_the_daemons_alone(debian: Debian, backend: &str) {
    let Some(machine) = Machine::installed(debian, backend) else { return };
    machine.processes("processes: { web: { user: root, command: [sleep, infinity] } }");
    machine.up("web");
    let may = |pid: u64| machine.run(&format!("{MAY} /proc/{pid}/status"));
    let daemon = may(machine.daemon());
    // As a service that somebody else wrote, in the same name spaces.
    let other = machine.run(&format!("systemd-run --quiet --pipe --wait {MAY} /proc/self/status"));
    let web = machine.running()["web@0"].0;
    assert_eq!(may(web), other);
    let place = |pid: u64| machine.run(&format!("readlink /proc/{pid}/ns/mnt /proc/{pid}/ns/net"));
    assert_eq!(place(web), place(1));
    let is_tied = daemon.contains("NoNewPrivs:\t1");
    assert_eq!(is_tied, backend == "systemd", "{daemon}");
    if is_tied {
        // In tenths.
        machine.run("systemd-analyze security --no-pager --threshold=20 provostd");
    }
}

pub fn a_sandbox_that_holds_for_processes_is_told(debian: Debian, _: &str) {
    let Some(machine) = Machine::installed(debian, "native") else { return };
    let drop_in = "/etc/systemd/system/provostd.service.d/native.conf";
    let again = "systemctl daemon-reload; systemctl restart provostd";
    machine.run(&format!("rm {drop_in}; {again}"));
    machine.processes("processes: { web: { command: [sleep, infinity] } }");
    machine.until("journalctl --sync; journalctl -u provostd -p err | grep native.conf");
    machine.run(&format!("ln -s /usr/share/provost/native.conf {drop_in}; {again}"));
    machine.up("web");
}

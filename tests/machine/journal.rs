//! What the journal has, and how it is found there.

use crate::image::Debian;
use crate::machine::Machine;

const THREE: &str = r#"
processes:
  web: { shell: 'trap "echo sentinel" USR1; echo one; echo two >&2; while :; do sleep 0.1; done' }
  brief: { shell: 'echo last words', restartPolicy: { condition: "no" } }
  broken: { shell: 'echo why; exit 3', restartPolicy: { condition: "no" } }
"#;

pub fn shows_what_happened_and_what_to_do(debian: Debian, backend: &str) {
    let Some(machine) = Machine::installed(debian, backend) else { return };
    machine.processes(THREE);
    machine.up("web");
    machine.until("provost --system wait brief --for completed --timeout 20s");
    machine.until("provost --system wait broken --for failed --timeout 20s");
    let has = |line: &str, text: &str| {
        let line = format!("journalctl --sync; {line} | grep -F -- {text:?}");
        machine.until(&line)
    };
    // Under the unit: what the daemon says, and what its processes write, the last words of a short
    // life among it. With systemd each has a unit of its own.
    has("journalctl -u provostd", "broken@0: exited with code 3");
    let unit = |name: &str| match backend {
        "systemd" => format!("journalctl -u provost-{name}@0"),
        _ => "journalctl -u provostd".to_owned(),
    };
    has(&unit("broken"), "broken@0: exited with code 3");
    for (name, text) in [("web", "one"), ("web", "two"), ("brief", "last words"), ("broken", "why")]
    {
        has(&unit(name), text);
    }
    // By the fields of the daemon's entries.
    has("journalctl PROVOST_PROCESS=web", "web@0: started as pid");
    let entries = machine.run("journalctl PROVOST_PROCESS=web --output cat");
    // Those of a unit have the field too, and so have what systemd says of it.
    let own = |line: &str| backend == "systemd" || line.contains("web@0");
    assert!(entries.lines().all(own), "{entries}");
    let exit = has("journalctl PROVOST_PROCESS=broken PROVOST_EVENT=exited -o verbose", "");
    for field in [
        "MESSAGE_ID=",
        "PROVOST_INSTANCE=0",
        "PROVOST_GENERATION=2",
        "PRIORITY=4",
        "_SYSTEMD_UNIT=provostd.service",
        "SYSLOG_IDENTIFIER=provostd",
    ] {
        assert!(exit.contains(field), "{field}: {exit}");
    }
    machine.run("provost --system restart web");
    has("journalctl PROVOST_PROCESS=web PROVOST_EVENT=stopping -o verbose", "PROVOST_JOB=");

    // The explanation, with the name filled in.
    let explained = machine.run("journalctl -x PROVOST_PROCESS=broken PROVOST_EVENT=gave-up");
    assert!(explained.contains("Subject: Process broken has failed"), "{explained}");
    assert!(explained.contains("provost logs broken"), "{explained}");

    // The command line reads it.
    assert_eq!(
        machine.run("provost --system logs brief 2>/dev/null | sed 's/.*: //'"),
        "last words\n"
    );
    // And follows it.
    let followed = machine.run(
        "coproc timeout 20 provost --system logs web -f 2>/dev/null; \
         read -r _ <&${COPROC[0]}; provost --system signal USR1 web >/dev/null; \
         grep -m1 sentinel <&${COPROC[0]}; kill $COPROC_PID",
    );
    assert!(followed.contains("sentinel"), "{followed}");
}

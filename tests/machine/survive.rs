//! The daemon is restarted, upgraded, killed, or found to be stuck: its processes go on.

use crate::image::Debian;
use crate::machine::Machine;

const THREE: &str = r#"
processes:
  web: { command: [sleep, infinity], instances: 2 }
  tree: { shell: 'setsid sleep infinity & wait' }
"#;

pub fn every_way_to_end_the_daemon_leaves_its_processes(debian: Debian, backend: &str) {
    let Some(machine) = Machine::installed(debian, backend) else { return };
    machine.processes(THREE);
    machine.up("'web@*' tree");
    let before = machine.running();
    assert_eq!(before.len(), 3, "{before:?}");
    let mut daemon = machine.daemon();
    let mut goes_on = |how: &str| {
        // Another daemon, which is ready.
        let wait = format!(
            "new=$(systemctl show --value -p MainPID provostd); state=$(systemctl show --value -p ActiveState provostd); \
             test $state = active && test $new != 0 && test $new != {daemon} && echo $new"
        );
        daemon = machine.until(&wait).trim().parse().unwrap();
        assert_eq!(machine.running(), before, "{how}");
        let copies = machine.run("pgrep -xc sleep || true");
        assert_eq!(copies.trim(), "3", "{how}: {copies}");
    };

    machine.run("systemctl restart provostd");
    goes_on("restart");
    machine.run("systemctl kill --signal=KILL --kill-whom=main provostd");
    goes_on("kill -9");
    machine.run("dpkg --install /package/provost.deb");
    goes_on("reinstalled");
    machine.run(
        "dpkg-deb -R /package/provost.deb /tmp/next; sed -i 's/^Version: .*/Version: 99/' /tmp/next/DEBIAN/control; \
         dpkg-deb -Znone -b /tmp/next /tmp/next.deb; dpkg --install /tmp/next.deb",
    );
    goes_on("upgraded");

    // A daemon that does not get on any more.
    machine.run("mkdir -p /run/systemd/system/provostd.service.d");
    machine.save("/run/systemd/system/provostd.service.d/soon.conf", "[Service]\nWatchdogSec=1s\n");
    machine.run("systemctl daemon-reload; systemctl restart provostd");
    goes_on("restarted with another unit");
    let killed = machine.daemon();
    machine.run(&format!("kill -STOP {killed}"));
    goes_on("stuck");
    let log = machine.run("journalctl --sync; journalctl -u provostd");
    assert!(log.contains("Watchdog timeout"), "{log}");
    // What an operator stopped stays stopped.
    machine.run("provost --system stop tree; systemctl restart provostd");
    let status = machine.status();
    assert_eq!(status["tree@0"]["state"], "down", "{status:?}");
    // After all of it, a stop is a stop.
    machine.run("systemctl stop provostd");
    assert_eq!(machine.run("pgrep -xc sleep || true").trim(), "0");
}

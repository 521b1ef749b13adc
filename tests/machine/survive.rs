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

const WORDS_AND_SOCKETS: &str = r#"
processes:
  late:
    shell: 'while ! test -e /tmp/go; do sleep 0.05; done; systemd-notify --ready --status=up; exec sleep infinity'
    readiness: notify
    startTimeout: 10m
"#;

/// A low port, which the daemon may use and the process may not.
const HELD: &str = r#"
  held:
    command: [perl, /tmp/held.pl]
    sockets: { http: 127.0.0.1:80 }
    restartPolicy: { delay: 50ms }
"#;

const SERVER: &str = r#"
open(my $listener, "+<&=", 3) or die;
while (accept(my $client, $listener)) {
    print $client "$$ $ENV{LISTEN_PID} $ENV{LISTEN_FDNAMES}\n";
    close $client;
}
"#;

/// Asks the server, and waits for an answer.
const ASK: &str = "timeout 25 bash -c 'exec 3<>/dev/tcp/127.0.0.1/80; head -n 1 <&3'";

/// systemd keeps what they hold and what they say until there is a daemon again.
pub fn what_processes_hold_and_say_outlives_the_daemon(debian: Debian, backend: &str) {
    let Some(machine) = Machine::installed(debian, backend) else { return };
    let holds = backend == "native" || debian != Debian::Bookworm;
    machine.save("/tmp/held.pl", SERVER);
    machine.processes(&(WORDS_AND_SOCKETS.to_owned() + if holds { HELD } else { "" }));
    machine.until("provost --system why late | grep 'not said that it is ready'");
    machine.run("mkdir -p /run/systemd/system/provostd.service.d");
    let wait = "[Service]\nRestartSec=3s\n";
    machine.save("/run/systemd/system/provostd.service.d/wait.conf", wait);
    machine.run("systemctl daemon-reload");
    let mut held = String::new();
    if holds {
        machine.up("held");
        let pid = machine.running()["held@0"].0;
        assert_eq!(machine.run(ASK).trim(), format!("{pid} {pid} http"));
        held = machine.run(&format!("readlink /proc/{pid}/fd/3"));
        machine
            .run(&format!("systemctl kill --signal=KILL --kill-whom=main provostd; kill -9 {pid}"));
        // There is nobody but systemd now.
        machine.run("touch /tmp/go");
        let gone = format!(
            "test $(systemctl show --value -p MainPID provostd) = 0 && ! test -e /proc/{pid} && \
             pgrep -x systemd-notify"
        );
        machine.until(&gone);
        let answer = machine.run(ASK);
        assert!(!answer.starts_with(&format!("{pid} ")) && answer.ends_with(" http\n"), "{answer}");
    } else {
        machine.run("systemctl kill --signal=KILL --kill-whom=main provostd; touch /tmp/go");
        let gone =
            "test $(systemctl show --value -p MainPID provostd) = 0 && pgrep -x systemd-notify";
        machine.until(gone);
    }
    machine.up("late");
    assert_eq!(machine.status()["late@0"]["status_text"], "up");
    for _ in 0..3 {
        if holds {
            machine.run("systemctl restart provostd; provost --system restart held");
            let pid = machine.running()["held@0"].0;
            assert_eq!(machine.run(&format!("readlink /proc/{pid}/fd/3")), held);
        }
    }
    // What is stored is one of each, and goes with what it is for.
    let stored = "systemctl show --value -p NFileDescriptorStore provostd";
    let pidfds = if backend == "native" { 2 } else { 0 };
    machine.until(&format!("test $({stored}) = {}", 1 + u64::from(holds) + pidfds));
    machine.processes("processes: {}");
    machine.run("provost --system reload");
    // That for what they say stays.
    machine.until(&format!("test $({stored}) = 1"));
    if holds {
        machine.run("! bash -c 'exec 3<>/dev/tcp/127.0.0.1/80' 2>/dev/null");
    }
}

/// `daemon-reexec`: the same process to systemd, before and after, and to whoever asks on the bus.
pub fn another_program_goes_on_in_the_same_process(debian: Debian, backend: &str) {
    let Some(machine) = Machine::installed(debian, backend) else { return };
    machine.run("mkdir -p /run/systemd/system/provostd.service.d");
    // It is fed in between.
    let soon = "[Service]\nWatchdogSec=5s\n";
    machine.save("/run/systemd/system/provostd.service.d/soon.conf", soon);
    machine.run("systemctl daemon-reload; systemctl restart provostd");
    machine.processes(THREE);
    machine.up("'web@*' tree");
    let (before, daemon) = (machine.running(), machine.daemon());
    for round in 0..5 {
        machine.run("cp /usr/bin/provostd /usr/bin/.new; mv /usr/bin/.new /usr/bin/provostd");
        machine.run("provost --system daemon-reexec");
        // The client was answered by the new one; that it is ready may be on its way still.
        machine.until("test $(systemctl is-active provostd) = active");
        assert_eq!(machine.daemon(), daemon, "{round}");
        let exe = machine.run(&format!("readlink /proc/{daemon}/exe"));
        assert_eq!(exe.trim(), "/usr/bin/provostd", "{round}");
        assert_eq!(machine.running(), before, "{round}");
    }
    assert_eq!(machine.run("pgrep -xc sleep || true").trim(), "3");
    assert_eq!(machine.run("systemctl show --value -p NRestarts provostd").trim(), "0");
    let call = "busctl --system call org.provost.Provost1 /org/provost/Provost1 \
                org.provost.Provost1.Manager Reexec 'a{sv}' 0";
    let (code, denied) = machine.code(&format!("runuser -u nobody -- {call} 2>&1"));
    assert!(code != 0 && denied.contains("denied"), "{denied}");
    machine.run(call);
    machine.until(
        "test $(systemctl is-active provostd) = active && \
         busctl --system status org.provost.Provost1",
    );
    assert_eq!((machine.daemon(), machine.running()), (daemon, before.clone()));
    // How they end it is told, as before.
    machine.run(&format!("kill -9 {}", before["tree@0"].0));
    machine
        .until("journalctl --sync; journalctl -u provostd | grep 'tree@0: was ended by SIGKILL'");
    machine.up("'web@*' tree");
    let log = machine.run("journalctl --sync; journalctl -u provostd");
    assert!(!log.contains("Watchdog timeout") && log.contains("going on as"), "{log}");
    machine.run("systemctl stop provostd");
    assert_eq!(machine.run("pgrep -xc sleep || true").trim(), "0");
}

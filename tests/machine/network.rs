//! What is asked of the network, where the daemon has none.

use crate::image::Debian;
use crate::machine::Machine;

/// Answers by HTTP, and listens at a second port.
const SERVER: &str = r#"
use IO::Socket::INET;
my $second = IO::Socket::INET->new(LocalAddr => "127.0.0.1:8081", Listen => 99, ReuseAddr => 1);
my $first = IO::Socket::INET->new(LocalAddr => "127.0.0.1:8080", Listen => 99, ReuseAddr => 1);
while (my $client = $first->accept) {
    1 while ($_ = <$client>) && /\S/;
    print $client "HTTP/1.0 200 OK\r\n\r\nwell";
}
"#;

/// A check that hangs has somebody to wait for when the helper is killed.
const PROCESSES: &str = r#"
processes:
  web:
    command: [perl, /tmp/server.pl]
    healthCheck: { url: "http://localhost:8080/", interval: 100ms, onFailure: none }
  tcp:
    command: [sleep, infinity]
    dependsOn: { web: ready }
    healthCheck: { tcp: "localhost:8081", interval: 100ms, onFailure: none }
  bad:
    command: [sleep, infinity]
    startTimeout: 1h
    healthCheck: { tcp: "127.0.0.1:9", interval: 100ms, startPeriod: 0s, onFailure: none }
"#;

/// The pid of the helper; there is one.
const HELPER: &str = "systemctl list-units --plain --no-legend --state=active 'provost.net-*' \
    | { read unit rest; ! read another; systemctl show --value --property=MainPID $unit; } \
    | grep -v '^0$'";

pub fn is_not_the_daemons(debian: Debian, backend: &str) {
    let Some(machine) = Machine::installed(debian, backend) else { return };
    let network = |pid: u64| machine.run(&format!("readlink /proc/{pid}/ns/net"));
    let helper = || machine.until(HELPER).trim().parse::<u64>().unwrap();
    let healthy = "provost --system wait web tcp --for healthy --timeout 30s";
    machine.save("/etc/hosts", "127.0.0.1 localhost\n");
    machine.save("/tmp/server.pl", SERVER);
    machine.processes(PROCESSES);
    machine.until(healthy);
    let refused = "provost --system why bad | grep -F 'connection refused (127.0.0.1:9)'";
    machine.until(refused);
    let first = helper();
    assert_ne!(network(machine.daemon()), network(1));
    assert_eq!(network(first), network(1));
    let may = machine.run(&format!("grep -E '^(Uid|CapEff|NoNewPrivs)' /proc/{first}/status"));
    let words: Vec<&str> = may.split_whitespace().collect();
    assert!(words[1] != "0" && words[6] == "0000000000000400" && words[8] == "1", "{may}");
    let running = machine.running();

    // Killed in the middle of checks, it is followed by another one, and the checks by others.
    let mut before = first;
    for _ in 0..5 {
        machine.run(&format!("kill -9 {before}"));
        let next = format!("pid=$({HELPER}) && test $pid != {before}");
        machine.until(&next);
        machine.until(healthy);
        before = helper();
    }
    machine.until(
        "journalctl --sync; journalctl -u provostd | \
         grep 'provost-net ended: was ended by SIGKILL'",
    );

    // It goes with the daemon, however that goes, and the next one has its own.
    for how in ["restart", "kill --signal=KILL --kill-whom=main"] {
        let daemon = machine.daemon();
        machine.run(&format!("systemctl {how} provostd"));
        machine.until(&format!("! test -e /proc/{before} && ! test -e /proc/{daemon}"));
        machine.until(healthy);
        machine.until(refused);
        before = helper();
        assert_eq!(machine.running(), running, "{how}");
    }
    machine.run("provost --system daemon-reexec");
    machine.until(&format!("! test -e /proc/{before}"));
    machine.until(healthy);
    assert_eq!(machine.running(), running);

    // Where there can be no users that come and go, somebody else may be it.
    let drop_ins = "/etc/systemd/system/provost.net-.service.d";
    machine.run(&format!("mkdir {drop_ins}"));
    let other = "[Service]\nDynamicUser=no\nUser=provost\n";
    machine.save(&format!("{drop_ins}/user.conf"), other);
    before = helper();
    machine.run(&format!("systemctl daemon-reload; kill -9 {before}"));
    machine.until(&format!("pid=$({HELPER}) && test $pid != {before}"));
    machine.until(healthy);
    let user = machine.run(&format!("ps -o user= -p {}", helper()));
    assert_eq!(user.trim(), "provost");
    machine.run("systemctl stop provostd");
    machine.until("! pgrep -x provost-net");
    let units = "systemctl list-units --all --plain --no-legend 'provost.net-*'";
    machine.until(&format!("test -z \"$({units})\""));
}

/// What is asked before anything is started.
pub fn an_address_that_somebody_has_is_found(debian: Debian, backend: &str) {
    let Some(machine) = Machine::installed(debian, backend) else { return };
    machine.save("/tmp/server.pl", SERVER);
    machine.run("systemd-run --quiet --unit=other perl /tmp/server.pl");
    machine.until("bash -c 'exec 3<>/dev/tcp/127.0.0.1/8080'");
    let held = |port: u16| {
        let held = format!("sockets: {{ http: \"127.0.0.1:{port}\" }}");
        format!("processes: {{ held: {{ command: [sleep, infinity], {held} }} }}")
    };
    machine.processes("processes: {}");
    machine.run("provost --system reload");
    machine.processes(&held(8080));
    let (code, said) = machine.code("provost --system reload");
    assert!(code != 0 && said.contains("127.0.0.1:8080: Address already in use"), "{said}");
    machine.processes(&held(81));
    machine.run("provost --system reload");
    machine.up("held");
    machine.run("bash -c 'exec 3<>/dev/tcp/127.0.0.1/81'");
}

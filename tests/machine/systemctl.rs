//! The daemon as a service: what systemctl does with it.

use crate::image::Debian;
use crate::machine::Machine;

/// `api` needs `db`, and ends later than it is asked to.
const GRAPH: &str = r#"
processes:
  db:
    shell: 'trap "echo db >>/tmp/order; exit" TERM; echo up >>/tmp/up; while :; do sleep 0.05; done'
    user: root
  api:
    shell: 'trap "sleep 0.3; echo api >>/tmp/order; exit" TERM; echo up >>/tmp/up; while :; do sleep 0.05; done'
    user: root
    dependsOn: [db]
"#;

pub fn starts_reloads_and_stops(debian: Debian, backend: &str) {
    let Some(machine) = Machine::installed(debian, backend) else { return };
    machine.processes(GRAPH);
    machine.up("db api");
    machine.until("test $(wc -l </tmp/up) = 2");
    let status = machine.run("systemctl status provostd --no-pager");
    assert!(status.contains("Status: \"2 of 2 running; generation 2\""), "{status}");
    let before = machine.running();
    assert_eq!(before.len(), 2, "{before:?}");

    // What changed is touched, and nothing else.
    machine.processes(&format!("{GRAPH}  more: {{ command: [sleep, infinity] }}\n"));
    machine.run("systemctl reload provostd");
    let after = machine.running();
    assert_eq!(after.len(), 3, "{after:?}");
    assert!(before.iter().all(|(id, run)| after[id] == *run), "{before:?} {after:?}");
    // It names no user, so it is nobody else's.
    let user = format!("ps -o user= -p {}", after["more@0"].0);
    assert_eq!(machine.run(&user).trim(), "provost");

    // A file that is not valid: systemctl says no, the log says why, nothing is changed.
    machine.processes(&format!("{GRAPH}  more: {{ comand: [sleep, infinity] }}\n"));
    let (code, said) = machine.code("systemctl reload provostd");
    assert_ne!(code, 0, "{said}");
    let log = machine.until("journalctl --sync; journalctl -u provostd | grep -B12 'did you mean'");
    assert!(log.contains("comand"), "{log}");
    assert_eq!(machine.run("systemctl show --value -p ActiveState provostd"), "active\n");
    assert_eq!(machine.running(), after);
    // It cannot be said that the reload is under way for ever.
    machine.processes(GRAPH);
    machine.run("systemctl reload provostd");
    assert_eq!(machine.running(), before);

    // Stopping goes by the graph, and is over when everything is gone.
    machine.run("systemctl stop provostd");
    assert_eq!(machine.run("cat /tmp/order"), "api\ndb\n");
    let left = machine.code("cat /sys/fs/cgroup/system.slice/provostd.service/cgroup.procs");
    assert_ne!(left.0, 0, "{left:?}");
    machine.run("systemctl start provostd");
    machine.up("db api");
}

pub fn a_stop_takes_the_time_it_needs_and_no_more(debian: Debian, backend: &str) {
    let Some(machine) = Machine::installed(debian, backend) else { return };
    // The service manager is less patient than the processes are slow.
    machine.run("mkdir -p /etc/systemd/system/provostd.service.d");
    machine.save(
        "/etc/systemd/system/provostd.service.d/impatient.conf",
        "[Service]\nTimeoutStopSec=1s\n",
    );
    machine.run("systemctl daemon-reload; systemctl restart provostd");
    let slow = "'trap \"sleep 1.5; echo end >>/tmp/ends; exit\" TERM; echo up >>/tmp/ups; while :; do sleep 0.05; done'";
    machine.processes(&format!(
        "processes:\n  a: {{ user: root, shell: {slow} }}\n  b: {{ user: root, shell: {slow}, dependsOn: [a] }}\n"
    ));
    machine.until("test $(wc -l </tmp/ups) = 2");
    machine.run("systemctl stop provostd");
    assert_eq!(machine.run("systemctl show --value -p Result provostd"), "success\n");
    assert_eq!(machine.run("cat /tmp/ends"), "end\nend\n");
}

//! Powering off, and on again.

use crate::image::Debian;
use crate::machine::Machine;

const GRAPH: &str = r#"
processes:
  db:
    user: root
    shell: 'echo db up >>/var/tmp/order; trap "echo db down >>/var/tmp/order; exit" TERM; while :; do sleep 0.05; done'
  api:
    user: root
    shell: 'echo api up >>/var/tmp/order; trap "sleep 0.3; echo api down >>/var/tmp/order; exit" TERM; while :; do sleep 0.05; done'
    dependsOn: [db]
"#;

pub fn off_goes_by_the_graph_and_on_starts_it_again(debian: Debian) {
    let Some(mut machine) = Machine::installed(debian) else { return };
    machine.processes(GRAPH);
    machine.up("api db");
    // Their shells have set their traps.
    machine.until("grep -q 'api up' /var/tmp/order");
    machine.power_off();
    let order = "db up\napi up\napi down\ndb down\n";
    assert_eq!(machine.file_when_off("/var/tmp/order"), order);
    let told = machine.journal(&["--output=cat", "--unit=provostd"]);
    assert_eq!(told.matches("started as pid").count(), 2, "{told}");
    assert!(told.contains("nothing of it is left"), "{told}");
    machine.boot();
    machine.up("api db");
    let again = machine.until("test $(grep -c 'api up' /var/tmp/order) = 2; cat /var/tmp/order");
    assert_eq!(again, format!("{order}db up\napi up\n"));
}

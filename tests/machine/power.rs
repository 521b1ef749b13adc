//! Powering off, and on again.

use crate::image::Debian;
use crate::machine::Machine;

const GRAPH: &str = r#"
processes:
  db:
    user: root
    shell: 'trap "echo db >>/var/tmp/order; exit" TERM; echo up >>/var/tmp/up; while :; do sleep 0.05; done'
  api:
    user: root
    shell: 'trap "sleep 0.3; echo api >>/var/tmp/order; exit" TERM; echo up >>/var/tmp/up; while :; do sleep 0.05; done'
    dependsOn: [db]
"#;

pub fn off_goes_by_the_graph_and_on_starts_it_again(debian: Debian, backend: &str) {
    let Some(mut machine) = Machine::installed(debian, backend) else { return };
    machine.processes(GRAPH);
    // Their shells have set their traps.
    machine.until("test $(wc -l </var/tmp/up) = 2");
    machine.power_off();
    assert_eq!(machine.file_when_off("/var/tmp/order"), "api\ndb\n");
    let told = machine.journal(&["--output=cat", "--unit=provostd"]);
    assert_eq!(told.matches("started as pid").count(), 2, "{told}");
    assert!(told.contains("nothing of it is left"), "{told}");
    machine.boot();
    machine.until("test $(wc -l </var/tmp/up) = 4");
    machine.up("api db");
    assert_eq!(machine.run("cat /var/tmp/order"), "api\ndb\n");
}

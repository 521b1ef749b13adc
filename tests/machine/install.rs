//! Installing, removing, purging; and who starts the daemon.

use crate::image::Debian;
use crate::machine::Machine;

/// What is on the disk, and who there is; but for what others keep of packages.
const EVERYTHING: &str = "{ find /etc /usr /var/lib /run/provost -xdev 2>/dev/null || true; } \
     | grep -vE '^/var/lib/(dpkg|systemd|private)|^/etc/(passwd|group|shadow|gshadow|subuid|subgid)|\\.cache$|/catalog/database$|ldconfig' \
     | sort; cut -d: -f1 /etc/passwd /etc/group; systemctl list-unit-files --no-legend --plain | awk '{print $1, $2}'";

pub fn installs_starts_and_goes_without_a_trace(debian: Debian, _: &str) {
    let Some(machine) = Machine::booted(debian) else { return };
    let before = machine.run(EVERYTHING);
    machine.run("dpkg --install /package/provost.deb");
    assert_eq!(machine.run("systemctl is-enabled provostd"), "enabled\n");
    assert_eq!(machine.run("systemctl is-active provostd"), "active\n");
    assert_eq!(machine.run("provost --system status --output json").trim(), "[]");
    machine.run("getent passwd provost; test -d /etc/provost/processes.d");
    let verified = machine.code("systemd-analyze verify --man=no provostd.service");
    assert_eq!(verified, (0, String::new()));

    // A message starts it, as it is enabled.
    machine.run("systemctl stop provostd");
    let ask = "busctl call org.provost.Provost1 /org/provost/Provost1 \
               org.freedesktop.DBus.Peer Ping";
    machine.run(ask);
    // It answers a moment before it says that it is ready.
    machine.until("systemctl is-active provostd");
    // Nobody starts one that somebody disabled.
    machine.run("systemctl disable --now provostd");
    assert_ne!(machine.code(ask).0, 0);
    assert_eq!(machine.code("systemctl is-active provostd").1, "inactive\n");
    machine.run("systemctl enable --now provostd");

    let check = r#"startTimeout: 1h, healthCheck: { tcp: "127.0.0.1:9", interval: 100ms }"#;
    machine.processes(&format!(
        "processes: {{ web: {{ command: [sleep, infinity] }}, \
         bad: {{ command: [sleep, infinity], {check} }} }}"
    ));
    machine.up("web");
    machine.until("provost --system why bad | grep 'connection refused'");
    machine.run("dpkg --remove provost");
    assert_ne!(machine.code("pgrep -x sleep || pgrep -x provostd").0, 0);
    machine.until("! pgrep -x provost-net");
    // What somebody wrote is theirs.
    machine.run("rm /etc/provost/processes.yaml");
    machine.run("dpkg --purge provost");
    machine.run("systemctl daemon-reload");
    let after = machine.run(EVERYTHING);
    let differs = |one: &str, other: &str| -> Vec<String> {
        let other: std::collections::BTreeSet<&str> = other.lines().collect();
        one.lines().filter(|line| !other.contains(line)).map(str::to_owned).collect()
    };
    assert_eq!(differs(&after, &before), [""; 0], "left behind");
    assert_eq!(differs(&before, &after), [""; 0], "taken away");
}

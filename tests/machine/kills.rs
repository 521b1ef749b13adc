//! The daemon is killed again and again, at moments that nobody chose.

use crate::image::Debian;
use crate::machine::Machine;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

/// Each takes a lock that it has as long as anything of it lives, and says so when it is not the only
/// one. One ends again and again, one writes numbered lines.
const TWENTY: &str = r#"
processes:
  steady:
    user: root
    shell: 'exec 9>/tmp/steady.${INSTANCE}; flock -n 9 || echo steady >>/tmp/twice; exec sleep infinity'
    instances: 18
  crash:
    user: root
    shell: 'exec 9>/tmp/crash; flock -n 9 || echo crash >>/tmp/twice; echo $$ >>/tmp/crashed; sleep 0.05; exit 7'
    restartPolicy: { delay: 100ms, maxDelay: 200ms }
  flood:
    user: root
    shell: 'exec 9>/tmp/flood; flock -n 9 || echo flood >>/tmp/twice; n=0; while [ ! -e /tmp/enough ]; do for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do echo $((n=n+1)); done; sleep 0.01; done; echo $n >/tmp/written; exec sleep infinity'
"#;

pub fn ten_of_them_lose_nothing_and_double_nothing(debian: Debian, backend: &str) {
    let Some(machine) = Machine::installed(debian, backend) else { return };
    machine.run("mkdir -p /run/systemd/system/provostd.service.d");
    machine
        .save("/run/systemd/system/provostd.service.d/soon.conf", "[Service]\nRestartSec=20ms\n");
    machine.run("systemctl daemon-reload; systemctl restart provostd");
    machine.processes(TWENTY);
    machine.up("'steady@*' flood");
    let steady = |all: BTreeMap<String, (u64, String)>| -> BTreeMap<String, (u64, String)> {
        all.into_iter().filter(|(id, _)| !id.starts_with("crash")).collect()
    };
    let before = steady(machine.running());
    assert_eq!(before.len(), 19);

    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos();
    eprintln!("seed {seed}");
    let mut random = u64::from(seed);
    for _ in 0..10 {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let pause = Duration::from_millis((random >> 33) % 400);
        // The moment is what is tested; nothing is waited for.
        std::thread::sleep(pause);
        let daemon = machine.until(
            "pid=$(systemctl show --value -p MainPID provostd); test $pid != 0 && kill -9 $pid && echo $pid",
        );
        machine.until(&format!(
            "pid=$(systemctl show --value -p MainPID provostd); test $pid != 0 && test $pid != {}",
            daemon.trim()
        ));
    }
    machine.up("'steady@*' flood");
    assert_eq!(steady(machine.running()), before);
    assert_ne!(machine.code("cat /tmp/twice").0, 0, "two copies at once");

    // Every line, each once and in order.
    machine.run("touch /tmp/enough");
    let written: u64 = machine.until("cat /tmp/written").trim().parse().unwrap();
    machine.until(&format!("journalctl --sync; journalctl -t flood -o cat | grep -qx {written}"));
    let lines = machine.run("journalctl -t flood -o cat | grep -E '^[0-9]+$'");
    let expected = (1..=written).map(|n| n.to_string());
    assert!(lines.lines().eq(expected), "{} of {written} lines", lines.lines().count());

    // Each end of the one that crashes was told, and with 7, or that nobody could tell.
    machine.run("provost --system stop crash");
    let began = machine.number("wc -l </tmp/crashed");
    let told = "journalctl --sync; \
        journalctl PROVOST_PROCESS=crash PROVOST_EVENT=exited -o cat | sed 's/ after.*//'";
    let ends =
        machine.until(&format!("{told} | tee /tmp/ends; test $(wc -l </tmp/ends) -ge {began}"));
    // One that was ended before its first line has an end of another kind, and did not begin.
    let by_itself = ends.lines().filter(|end| end.contains("code 7")).count() as u64;
    assert!(by_itself <= began, "{began} began\n{ends}");
    let kinds: BTreeSet<&str> = ends.lines().collect();
    assert!(kinds.contains("crash@0: exited with code 7"), "{kinds:?}");
    let known = |kind: &&str| ["code 7", "unknown", "as asked"].iter().any(|k| kind.contains(k));
    assert!(kinds.iter().all(known), "{kinds:?}");
    eprintln!("{written} lines; {began} runs, {} ends: {kinds:?}", ends.lines().count());
}

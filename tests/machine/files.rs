//! What a process has in files: those of its user, which nobody else may read.

use crate::image::Debian;
use crate::machine::Machine;

const TWO: &str = r#"
processes:
  web:
    user: alice
    cwd: /home/alice/app
    envFile: [/home/alice/app/.env]
    shell: 'echo "$WORD in $PWD"; exec sleep infinity'
    logFile: /home/alice/app/log/web.log
    pidFile: /home/alice/app/web.pid
    healthCheck: { exec: [test, -f, ready] }
  rotated:
    user: alice
    cwd: /home/alice/app
    shell: 'seq 1 3000; exec sleep infinity'
    logFile: /home/alice/app/log/rotated.log
    log: { maxSize: 4K, maxFiles: 100 }
"#;

pub fn files_of_a_user_are_theirs(debian: Debian, backend: &str) {
    let Some(machine) = Machine::installed(debian, backend) else { return };
    machine.run(
        "install -d -m 700 -o alice -g alice /home/alice/app /home/alice/app/log; \
         cd /home/alice/app; echo WORD=hello >.env; touch ready; chown alice: .env; chmod 600 .env",
    );
    machine.processes(TWO);
    machine.until("provost --system wait web --for healthy --timeout 30s");
    machine.up("rotated");
    let log = machine.until("grep -H . /home/alice/app/log/web.log");
    assert!(log.ends_with("hello in /home/alice/app\n"), "{log}");
    assert_eq!(machine.run("stat -c %U /home/alice/app/log/web.log").trim(), "alice");
    assert_eq!(
        machine.number("cat /home/alice/app/web.pid"),
        machine.running()["web@0"].0,
        "the pid file"
    );
    machine.until("grep -qx 3000 /home/alice/app/log/rotated.log");
    let lines = machine.run("cd /home/alice/app/log; cat $(ls rotated.log* | sort -V -r)");
    assert!(lines.lines().eq((1..=3000).map(|n| n.to_string())), "{} lines", lines.lines().count());
    assert_eq!(machine.run("find /home/alice/app ! -user alice ! -name ready"), "");

    // The daemon itself edits the file that says what runs.
    machine.run("provost --system disable rotated");
    assert!(machine.run("cat /etc/provost/processes.yaml").contains("enabled: false"));
    machine.run("provost --system stop web");
    machine.until("test ! -e /home/alice/app/web.pid");
}

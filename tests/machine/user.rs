//! A user's own daemon.

use crate::image::Debian;
use crate::machine::Machine;

pub fn a_user_has_their_own(debian: Debian, backend: &str) {
    let Some(machine) = Machine::installed(debian, backend) else { return };
    // What `loginctl enable-linger` does; that wants to be asked from within a session or a service.
    machine.run(
        "mkdir -p /var/lib/systemd/linger; touch /var/lib/systemd/linger/alice; \
         systemctl start user@$(id -u alice)",
    );
    let alice = |line: &str| {
        format!(
            "cd /home/alice; runuser -u alice -- env XDG_RUNTIME_DIR=/run/user/$(id -u alice) \
             DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/$(id -u alice)/bus bash -c {line:?}"
        )
    };
    machine.until(&alice("systemctl --user is-system-running --wait | grep -x running"));
    // Nobody gets one unasked.
    assert_eq!(machine.code(&alice("systemctl --user is-enabled provostd")).1, "disabled\n");
    machine.run(&alice(&format!(
        "mkdir -p ~/.config/provost; \
         echo 'processManagement: {{ backend: {backend} }}' >~/.config/provost/provost.yaml"
    )));
    let save = |yaml: &str| {
        machine.save("/home/alice/.config/provost/processes.yaml", yaml);
        machine.run("chown alice: /home/alice/.config/provost/processes.yaml");
    };
    save("processes: { web: { shell: 'echo up; exec sleep infinity' } }");
    machine.run(&alice("systemctl --user enable --now provostd"));
    machine.run(&alice("provost --user wait web --for running --timeout 30s"));
    let pid = "pgrep -u alice -x sleep";
    // What has started is a shell at first.
    let before = machine.until(pid);
    assert_eq!(before.lines().count(), 1);
    let same = |how: &str| {
        machine.until(&alice("provost --user wait web --for running --timeout 30s"));
        assert_eq!(machine.run(pid), before, "{how}");
    };
    machine.run(&alice("systemctl --user restart provostd"));
    same("restart");
    machine.run(&alice("systemctl --user kill --signal=KILL --kill-whom=main provostd"));
    same("kill -9");
    save("processes: { web: { shel: 'exec sleep infinity' } }");
    assert_ne!(machine.code(&alice("systemctl --user reload provostd")).0, 0);
    same("a file that is not valid");
    let call = "busctl --user get-property org.provost.Provost1 /org/provost/Provost1 \
                org.provost.Provost1.Manager NRunning";
    assert_eq!(machine.run(&alice(call)), "u 1\n");
    let lines = machine.until(&alice("journalctl --user -t web -o cat | grep -x up"));
    assert_eq!(lines, "up\n");
    machine.run(&alice("systemctl --user stop provostd"));
    assert_ne!(machine.code(pid).0, 0);
}

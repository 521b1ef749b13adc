//! What is found wrong with the machine.

use crate::{Files, good};
use provost::config::able::Able;
use provost::config::check::check_machine;
use provost::config::load::Mode;
use provost::core::limits::Limit;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;

fn codes(files: &Files, mode: Mode) -> Vec<(String, String)> {
    let loaded = files.load("processes.yaml");
    let config = good(&loaded);
    let which: BTreeSet<_> = config.processes.keys().cloned().collect();
    let found = check_machine(&config, &which, mode, "nobody", &loaded.places);
    for diagnostic in &found {
        assert!(diagnostic.place.line > 1, "it has the place of the process");
    }
    found
        .into_iter()
        .map(|d| (d.code.to_owned(), d.message.split(':').next().unwrap().to_owned()))
        .collect()
}

fn found(text: &str, mode: Mode) -> Vec<String> {
    let files = Files::new().with("processes.yaml", text).with("plain", "x").with("bin/tool", "x");
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(files.path("bin/tool"), executable).unwrap();
    std::fs::set_permissions(files.root(), std::fs::Permissions::from_mode(0o755)).unwrap();
    codes(&files, mode).into_iter().map(|(code, id)| format!("{id} {code}")).collect()
}

#[test]
fn commands_and_directories() {
    let text = "processes:
  a: {command: sh}
  b: {command: no-such-command-here}
  c: {command: ./plain}
  d: {command: ./bin/tool}
  e: {command: tool, env: {PATH: bin}}
  f: {command: tool}
  g: {command: ./none}
  h: {command: /bin}
  i: {command: sh, cwd: none}
  j: {command: sh, cwd: plain}
  k: {shell: no matter what}
  l: {command: no-such-command-here, enabled: false}
  m: {command: sh, healthCheck: {exec: [no-such-command-here]}}
  n: {command: plain, env: {PATH: .}}
  o: {command: sh, cwd: 'dir${INSTANCE}', instances: 2}
";
    assert_eq!(
        found(text, Mode::User),
        [
            "b command-not-found",
            "c not-executable",
            "f command-not-found",
            "g command-not-found",
            "h not-executable",
            "i bad-cwd",
            "j bad-cwd",
            "m command-not-found",
            "n not-executable",
            "o bad-cwd",
            "o bad-cwd",
        ]
    );
}

#[test]
fn what_nobody_carries_out() {
    let text = "processes:
  a: {command: sh, limits: {memory: 1G, tasks: 5}}
  b: {command: sh, sandbox: default}
  c: {command: sh, systemd: {IOWeight: 5}}
  d: {command: sh}
";
    let files = Files::new().with("processes.yaml", text);
    let loaded = files.load("processes.yaml");
    let found = |able: Able| -> Vec<String> {
        let found = able.check(&good(&loaded), &loaded.places);
        found.iter().map(|one| format!("{} {}", one.place.line, one.code)).collect()
    };
    let nothing = Able { has_units: false, limits: BTreeSet::new() };
    let all = ["limit-not-enforced", "without-systemd", "without-systemd"];
    let all = all.iter().zip(2..).map(|(code, line)| format!("{line} {code}"));
    assert_eq!(found(nothing), all.collect::<Vec<_>>());
    assert!(found(Able { has_units: true, limits: Limit::ALL.into() }).is_empty());
}

#[test]
fn users_and_groups() {
    let text = "processes:
  a: {command: sh, user: no-such-user-here}
  b: {command: sh, group: no-such-group-here}
  c: {command: sh, user: 65534, group: 65534}
  d: {command: sh}
";
    let found = found(text, Mode::System);
    let wanted: &[&str] = match nix::unistd::geteuid().is_root() {
        true => &["a unknown-user", "b unknown-group"],
        false => &["a unknown-user", "b unknown-group", "c cannot-switch-user"],
    };
    assert_eq!(found, wanted);
}

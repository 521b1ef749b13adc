//! How reloads ended is counted, and told to the commands that the file names.

use crate::common::waiting::until;
use crate::support::Daemon;
use provost::client::{ManagerStatus, ReloadOptions};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// A hook that writes down what it was told.
fn prepare(dir: &std::path::Path) {
    let script = "#!/bin/sh\n\
        echo \"$1 $PROVOST_RESULT $PROVOST_GENERATION/$PROVOST_TRIED $PROVOST_CAUSE: $PROVOST_WHY\" \
        >>told\n";
    fs::write(dir.join("tell"), script).unwrap();
    fs::set_permissions(dir.join("tell"), fs::Permissions::from_mode(0o755)).unwrap();
}

fn with(b: &str) -> String {
    format!(
        "processManagement:
  settle: 50ms
  hooks:
    onApplied: ['@DIR@/tell', applied]
    onRejected: ['@DIR@/tell', rejected]
    onRolledBack: ['@DIR@/tell', rolled-back]
processes:
  b: {{ shell: '{b}', restartPolicy: {{ delay: 0, jitter: 0 }} }}
"
    )
}

fn told(daemon: &Daemon, line: &str) {
    let file = daemon.path().join("told");
    let is_told = || {
        let read = fs::read_to_string(&file).unwrap_or_default();
        read.lines().any(|told| told.starts_with(line))
    };
    until(&format!("{line:?} is told"), is_told);
}

#[tokio::test]
async fn each_end_of_a_reload_is_counted_and_told() {
    let daemon = Daemon::prepare(prepare).with(&with("exec sleep 88831"));
    told(&daemon, "applied applied 1/ start: ");
    let client = daemon.client().await;
    daemon.save(&with("exit 3"));
    told(&daemon, "rolled-back rolled-back 1/2 file: b@0 exited with code 3 (3 times)");
    let is_back = |manager: &ManagerStatus| manager.config_state == "rolled-back";
    let manager = daemon.until_manager("rolled back", is_back).await;
    assert_eq!((manager.generation, manager.disk_generation), (1, 2));
    daemon.save("processes: { b: { comand: x } }");
    told(&daemon, "rejected rejected 1/ file: ");
    let manager = client.manager().await.unwrap();
    assert_eq!((manager.generation, manager.disk_generation), (1, 0));
    daemon.save(&with("exec sleep 88832"));
    told(&daemon, "applied applied 3/ file: ");
    // Nothing differs: counted, and nobody is told.
    let before = fs::read_to_string(daemon.path().join("told")).unwrap();
    client.reload(&ReloadOptions::default()).await.unwrap();
    let manager = client.manager().await.unwrap();
    assert_eq!((manager.generation, manager.disk_generation), (3, 3));
    let counted: Vec<_> = manager.reloads.iter().map(|(word, n)| (&**word, *n)).collect();
    let expected = [("applied", 2), ("rejected", 1), ("rolled-back", 1), ("unchanged", 1)];
    assert_eq!(counted, expected);
    let after = fs::read_to_string(daemon.path().join("told")).unwrap();
    assert_eq!(after, before);
    // Of what is not valid each error is told, in a line of its own.
    assert_eq!(after.lines().count(), 5, "{after}");
}

#[tokio::test]
async fn a_hook_that_fails_is_said_and_changes_nothing() {
    let yaml = |n: u32| {
        format!(
            "processManagement: {{ settle: 50ms, hooks: {{ onApplied: ['/bin/sh', -c, 'exit 7'] }} }}
processes:
  b: {{ shell: exec sleep 888{n} }}
"
        )
    };
    let daemon = Daemon::start(&yaml(33));
    daemon.logged("the hook onApplied failed: exited with code 7");
    daemon.save(&yaml(34));
    daemon.until_generation(2).await;
    let manager = daemon.client().await.manager().await.unwrap();
    assert_eq!(manager.config_state, "applied");
}

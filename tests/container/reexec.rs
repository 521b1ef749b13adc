//! The first process of a container goes on as the program that is on disk by now: nothing could
//! bring it back, and with it ends everything.

use crate::common::processes::{kill, start_of};
use crate::container::{BOTH, Image, children};
use crate::support::wait_for;
use nix::sys::signal::Signal;
use std::fs;

const FILE: &str = "processes:
  a:
    shell: |
      i=0; while ! test -e @DIR@/enough; do i=$((i + 1)); echo $i; done
      echo $i >@DIR@/last.new; mv @DIR@/last.new @DIR@/last
      exec sleep 1000
  b: { shell: 'echo $$ >@DIR@/b; exec sleep 1000', restartPolicy: { delay: 1h } }
  orphans:
    shell: |
      while ! test -e @DIR@/go; do sleep 0.05; done
      i=0; while [ $i -lt 100 ]; do ( : & ); i=$((i + 1)); done
      echo >@DIR@/done
      exec sleep 1000
";

#[tokio::test]
async fn the_first_process_goes_on_with_its_children() {
    for which in BOTH {
        let Some(mut container) = Image::of(which, FILE).started() else { return };
        let names = ["a@0", "b@0", "orphans@0"];
        let before = container.until_running(&names).await;
        let first = container.first();
        let began = start_of(first);
        for round in 0..3 {
            container.client().await.reexec().await.unwrap();
            let after = container.until_running(&names).await;
            for name in names {
                assert_eq!(after[name].pid, before[name].pid, "{which:?} {round}: {name}");
            }
            assert_eq!((container.first(), start_of(first)), (first, began), "{which:?}");
        }
        fs::write(container.path().join("enough"), "").unwrap();
        wait_for(&container.path().join("last"));
        let last: usize =
            fs::read_to_string(container.path().join("last")).unwrap().trim().parse().unwrap();
        container.logged(&format!("| {last}\n"), 1);
        let log = container.log();
        let lines = log.lines().filter_map(|line| line.split_once(" | "));
        let lines: Vec<usize> = lines
            .filter(|(name, _)| name.trim() == "a")
            .map(|(_, text)| text.parse().unwrap())
            .collect();
        assert!(lines == (1..=last).collect::<Vec<_>>(), "{which:?}: {} of {last}", lines.len());
        // Orphans come to it as before.
        fs::write(container.path().join("go"), "").unwrap();
        wait_for(&container.path().join("done"));
        crate::common::waiting::until("no zombie is left", || children(first).len() == 3);
        // How its children end it is told, as before.
        let b = children(first).into_iter().find(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let inside = crate::container::field(*pid, "NSpid");
            let inside = inside.and_then(|pids| Some(pids.split_whitespace().last()?.to_owned()));
            line.starts_with(b"sleep")
                && inside.as_deref()
                    == Some(fs::read_to_string(container.path().join("b")).unwrap().trim())
        });
        kill(b.unwrap());
        container.logged("b@0: was ended by SIGKILL", 1);
        container.signal(Signal::SIGTERM);
        assert_eq!(container.ended().code(), Some(0), "{which:?}");
    }
}

//! The clock of the machine is set. Nothing that is waited for goes by it.

use crate::supervisor::*;
use crate::world::is_root;
use std::fs;
use std::time::{Duration, Instant, SystemTime};

/// Says that the clock is one that may be set: an emulated machine's. Never that of a host.
const OURS: &str = "CONFORMANCE_CLOCK";

const HOUR: Duration = Duration::from_secs(3600);

/// No run of this test takes as long, however slow the machine is.
const LONG: Duration = Duration::from_secs(30 * 60);

const DELAY: Duration = Duration::from_secs(3);

/// Between two checks.
const CHECKS: Duration = Duration::from_millis(500);

fn file(description: &str) -> String {
    format!(
        "  steady: {{ command: [sleep, '@MARK@'], log: {{ target: none }}, description: '{description}' }}\n  \
         checked: {{ command: [sleep, '1000'], log: {{ target: none }}, \
         healthCheck: {{ exec: [test, -e, '@DIR@/well'], interval: 500ms, failureThreshold: 1000 }} }}\n  \
         crash: {{ shell: 'exit 3', log: {{ target: none }}, \
         restartPolicy: {{ delay: 3s, factor: 1, jitter: 0 }} }}\n"
    )
}

fn set(time: SystemTime) {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let done = std::process::Command::new("date")
        .args(["--set", &format!("@{}", since.as_secs())])
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
}

/// Forward and backward by hours, for a daemon that goes on and for one that was killed meanwhile.
pub async fn a_clock_that_is_set_changes_nothing(mut it: Supervisor) {
    if std::env::var_os(OURS).is_none() || !is_root() {
        return;
    }
    fs::write(it.path("well"), "").unwrap();
    it.run(&file("before")).await;
    let healthy = |all: &Status| all.get("checked@0").is_some_and(|one| one.health == "healthy");
    it.until("healthy", healthy).await;
    let before = it.until_all("running", &["steady@0", "checked@0"]).await;
    let (wall, begun) = (SystemTime::now(), Instant::now());
    for (number, is_killed) in [false, true, false, true].into_iter().enumerate() {
        if is_killed {
            it.kill();
        }
        let right = wall + begun.elapsed();
        // Also to before the files were written, and before anything was started.
        set(if number < 2 { right + 5 * HOUR } else { right - 5 * HOUR });
        if is_killed {
            it.start().await;
        }
        // It waits as long as it should: not for hours, and not for nothing.
        let restarts = it.status().await["crash@0"].restarts;
        let next = |all: &Status| all["crash@0"].restarts > restarts;
        it.until("crashing on", next).await;
        let first = Instant::now();
        it.until("crashing on", |all| all["crash@0"].restarts > restarts + 1).await;
        // It was seen a moment after it was started.
        assert!(first.elapsed() > DELAY / 2, "{:?}", first.elapsed());
        // Checks are made, and their answers taken.
        let since = it.status().await["checked@0"].last_check.unwrap() + CHECKS / 2;
        it.until("checked", |all| all["checked@0"].last_check.is_some_and(|at| at > since)).await;
        // What is saved now may be older than what was read.
        let description = format!("set {number} times");
        it.save(&file(&description));
        it.until("taken in", |all| all["steady@0"].description == description).await;
        let after = it.until("healthy", healthy).await;
        for name in ["steady@0", "checked@0"] {
            let (before, after) = (&before[name], &after[name]);
            assert_eq!((after.pid, after.restarts), (before.pid, 0), "{name}\n{}", it.log());
            let up = SystemTime::now().duration_since(after.started.unwrap()).unwrap();
            assert!(up >= begun.elapsed() - DELAY && up < LONG, "{name}: up for {up:?}");
        }
    }
    set(wall + begun.elapsed());
    it.stop();
    assert!(it.marked().is_empty());
}

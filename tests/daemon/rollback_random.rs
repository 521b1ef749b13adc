//! Random changes, of which half do not come up, with a daemon that is killed at random moments:
//! after each, what runs is wholly of one configuration, and what was not touched was not touched.
//!
//! Environment: `PROVOST_EDITS` how many (default 25), or `PROVOST_CHANGES_SECONDS` for how long;
//! `PROVOST_SEED` the seed, which is printed.

use crate::common::processes::processes_with;
use crate::common::rng::Rng;
use crate::support::{Daemon, identities};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// Which version of each there is to be; the one that does not come up, where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    versions: [u32; 4],
    bad: Option<(usize, Bad)>,
}

/// In which way one does not come up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bad {
    /// It ends at once.
    Exits,
    /// It cannot be executed.
    CannotStart,
    /// Its check never succeeds.
    NeverReady,
    /// Its check succeeds, and then fails.
    TurnsIll,
    /// It ends after it was ready.
    EndsLater,
}

const BAD: [Bad; 5] =
    [Bad::Exits, Bad::CannotStart, Bad::NeverReady, Bad::TurnsIll, Bad::EndsLater];

impl Bad {
    fn keys(self, marker: &str, version: u32) -> String {
        match self {
            Bad::Exits => format!("shell: ': {marker}; exit 3'"),
            Bad::CannotStart => "command: ['@DIR@/broken']".to_owned(),
            Bad::NeverReady => format!(
                "shell: 'exec {marker}', startTimeout: 200ms, \
                 healthCheck: {{ exec: ['false'], interval: 1h }}"
            ),
            Bad::TurnsIll => format!(
                "shell: '(sleep 0.05; : >@DIR@/ill-{version}) & exec {marker}', \
                 startTimeout: 400ms, healthCheck: {{ exec: [test, '!', -e, '@DIR@/ill-{version}'], \
                 interval: 100ms, startPeriod: 0, failureThreshold: 1 }}"
            ),
            Bad::EndsLater => format!("shell: 'sleep 0.05; : {marker}; exit 3'"),
        }
    }
}

fn marker(n: usize, version: u32) -> String {
    format!("sleep 8{:07}{n}{version:04}", std::process::id())
}

impl Wanted {
    fn yaml(&self, count: usize) -> String {
        // By the first line it is told which file was read.
        let mut yaml = format!("# {count}\nprocessManagement: {{ settle: 250ms }}\nprocesses:\n");
        for (n, name) in NAMES.iter().enumerate() {
            let (version, marker) = (self.versions[n], marker(n, self.versions[n]));
            let keys = match self.bad {
                Some((which, bad)) if which == n => bad.keys(&marker, version),
                _ => format!("shell: 'exec {marker}'"),
            };
            let after =
                if n == 0 { String::new() } else { format!(", dependsOn: [{}]", NAMES[n - 1]) };
            yaml += &format!(
                "  {name}: {{ {keys}, restartPolicy: {{ delay: 0, jitter: 0 }}{after} }}\n"
            );
        }
        yaml
    }
}

fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
}

#[tokio::test]
async fn whatever_dies_on_the_way_it_is_wholly_the_one_or_wholly_the_other() {
    let seed = setting("PROVOST_SEED", 11);
    eprintln!("seed {seed}");
    let mut rng = Rng::new(seed);
    let mut good = Wanted { versions: [1; 4], bad: None };
    let prepared = Daemon::prepare(|dir| {
        fs::write(dir.join("broken"), "#!/nowhere/at/all\n").unwrap();
        fs::set_permissions(dir.join("broken"), fs::Permissions::from_mode(0o755)).unwrap();
    });
    let mut daemon = prepared.with(&good.yaml(0));
    let all = NAMES.map(|name| format!("{name}@0"));
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let mut before = identities(&daemon.until_running(&all).await);
    let mut version = 1;
    let seconds = setting("PROVOST_CHANGES_SECONDS", 0);
    let most = if seconds == 0 { setting("PROVOST_EDITS", 25) } else { u64::MAX };
    let begun = Instant::now();
    for count in 1..=usize::try_from(most).unwrap() {
        if seconds != 0 && begun.elapsed() > Duration::from_secs(seconds) {
            eprintln!("{} changes in {seconds} s", count - 1);
            break;
        }
        let mut next = good;
        version += 1;
        let touched: Vec<usize> = (0..NAMES.len()).filter(|_| rng.percent(40)).collect();
        for n in &touched {
            next.versions[*n] = version;
        }
        if !touched.is_empty() && rng.percent(50) {
            next.bad = Some((*rng.pick(&touched), *rng.pick(&BAD)));
        }
        daemon.save(&next.yaml(count));
        while rng.percent(40) {
            // A random moment, not an event.
            tokio::time::sleep(Duration::from_millis(rng.between(0, 700))).await;
            daemon = daemon.killed_and_again();
        }
        let what = format!("edit {count} of seed {seed}: {next:?}");
        settled(&daemon, &what, next.bad.is_some(), count).await;
        if next.bad.is_none() {
            good = next;
        }
        let after = identities(&daemon.until_running(&all).await);
        for (n, name) in NAMES.iter().enumerate() {
            let running = processes_with(&marker(n, good.versions[n]));
            assert_eq!(running.len(), 1, "{name} of {what}\n{}", daemon.log());
            // With all versions it has ever had.
            let any = format!("sleep 8{:07}{n}", std::process::id());
            assert_eq!(processes_with(&any), running, "{name} of {what}\n{}", daemon.log());
            let id = format!("{name}@0");
            if !touched.contains(&n) {
                assert_eq!(before[&id], after[&id], "{name} of {what}\n{}", daemon.log());
            }
        }
        before = after;
    }
}

/// Waits until the daemon has made up its mind about the file.
async fn settled(daemon: &Daemon, what: &str, is_bad: bool, count: usize) {
    let client = daemon.client().await;
    let mut watch = client.watch().await.unwrap();
    let marker = format!("# {count}\n");
    let deadline = tokio::time::Instant::now() + crate::common::waiting::DEADLINE;
    loop {
        let manager = client.manager().await.unwrap();
        let is_over = match (is_bad, manager.config_state.as_str()) {
            (true, "rolled-back") => {
                let newest = client.history(Some(1)).await.unwrap();
                let page = client.generation(newest[0].number).await.unwrap();
                let mut texts = page.files.iter().filter_map(|file| file.text.as_deref());
                texts.any(|text| text.starts_with(&marker))
            }
            (false, "applied") => client.plan(None).await.unwrap().changes.is_empty(),
            _ => false,
        };
        if is_over {
            return;
        }
        let changed = tokio::time::timeout_at(deadline, watch.changed()).await;
        assert!(changed.is_ok(), "never over: {what}: {manager:#?}\n{}", daemon.log());
    }
}

//! Random changes, of which half do not come up, with a daemon that is killed at random moments:
//! after each, what runs is wholly of one configuration, and what was not touched was not touched.
//!
//! Environment: `PROVOST_EDITS` how many (default 12), or `PROVOST_CHANGES_SECONDS` for how long;
//! `PROVOST_SEED` the seed, which is printed. On machines as well.

use crate::common::processes::{processes_with, start_of};
use crate::common::rng::Rng;
use crate::common::waiting::DEADLINE;
use crate::supervisor::{Status, Supervisor};
use std::collections::BTreeMap;
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

/// How long what is good has to stay so.
const SETTLE: &str = ", settle: 250ms";
/// Long enough for any machine to find out that it does not stay good; nobody waits for its end.
const SETTLE_FOR_LONG: &str = ", settle: 50s";

impl Bad {
    fn settle(bad: Option<Bad>) -> &'static str {
        match bad {
            Some(Bad::TurnsIll | Bad::EndsLater) => SETTLE_FOR_LONG,
            Some(Bad::Exits | Bad::CannotStart | Bad::NeverReady) | None => SETTLE,
        }
    }

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
        // By this line it is told which file was read.
        let mut yaml = number(count);
        for (n, name) in NAMES.iter().enumerate() {
            let (version, marker) = (self.versions[n], marker(n, self.versions[n]));
            let keys = match self.bad {
                Some((which, bad)) if which == n => bad.keys(&marker, version),
                _ => format!("shell: 'exec {marker}'"),
            };
            let after =
                if n == 0 { String::new() } else { format!(", dependsOn: [{}]", NAMES[n - 1]) };
            yaml += &format!(
                "  {name}: {{ {keys}, restartPolicy: {{ delay: 0, jitter: 0 }}, \
                 log: {{ target: none }}{after} }}\n"
            );
        }
        yaml
    }
}

fn number(count: usize) -> String {
    format!("# {count} of those that are drawn\n")
}

fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
}

/// Which processes they are, by instance: a pid alone comes again.
fn identities(status: &Status) -> BTreeMap<String, (u32, u64)> {
    let pids = status.iter().filter_map(|(name, process)| Some((name.clone(), process.pid?)));
    pids.map(|(name, pid)| (name, (pid, start_of(pid)))).collect()
}

pub async fn whatever_dies_on_the_way_it_is_wholly_the_one_or_wholly_the_other(mut it: Supervisor) {
    let seed = setting("PROVOST_SEED", 11);
    eprintln!("seed {seed}");
    let mut rng = Rng::new(seed);
    let mut good = Wanted { versions: [1; 4], bad: None };
    fs::write(it.path("broken"), "#!/nowhere/at/all\n").unwrap();
    fs::set_permissions(it.path("broken"), fs::Permissions::from_mode(0o755)).unwrap();
    it.settings = SETTLE;
    it.run(&good.yaml(0)).await;
    let all = NAMES.map(|name| format!("{name}@0"));
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let mut before = identities(&it.until_all("running", &all).await);
    let mut version = 1;
    let seconds = setting("PROVOST_CHANGES_SECONDS", 0);
    let most = if seconds == 0 { setting("PROVOST_EDITS", 12) } else { u64::MAX };
    let begun = Instant::now();
    let (mut done, mut deaths) = (0, 0);
    while done < usize::try_from(most).unwrap()
        && (seconds == 0 || begun.elapsed() < Duration::from_secs(seconds))
    {
        done += 1;
        let mut next = good;
        version += 1;
        let touched: Vec<usize> = (0..NAMES.len()).filter(|_| rng.percent(40)).collect();
        for n in &touched {
            next.versions[*n] = version;
        }
        if !touched.is_empty() && rng.percent(50) {
            next.bad = Some((*rng.pick(&touched), *rng.pick(&BAD)));
        }
        it.settings = Bad::settle(next.bad.map(|(_, bad)| bad));
        it.save(&next.yaml(done));
        while rng.percent(40) {
            // A random moment, not an event.
            tokio::time::sleep(Duration::from_millis(rng.between(0, 700))).await;
            it.kill();
            it.start().await;
            deaths += 1;
        }
        let what = format!("edit {done} of seed {seed}: {next:?}");
        settled(&it, &what, next.bad.is_some(), done).await;
        if next.bad.is_none() {
            good = next;
        }
        let after = identities(&it.until_all("running", &all).await);
        for (n, name) in NAMES.iter().enumerate() {
            let running = processes_with(&marker(n, good.versions[n]));
            assert_eq!(running.len(), 1, "{name} of {what}");
            // With all versions it has ever had.
            let any = format!("sleep 8{:07}{n}", std::process::id());
            assert_eq!(processes_with(&any), running, "{name} of {what}");
            let id = format!("{name}@0");
            assert_eq!(running, [after[&id].0], "{name} of {what}");
            if !touched.contains(&n) {
                assert_eq!(before[&id], after[&id], "{name} of {what}");
            }
        }
        before = after;
    }
    eprintln!("{done} changes, {deaths} deaths of the daemon");
}

/// Waits until the daemon has made up its mind about the file.
async fn settled(it: &Supervisor, what: &str, is_bad: bool, count: usize) {
    let client = it.client().await;
    let mut watch = client.watch().await.unwrap();
    // A machine waits no longer than that for the whole of it, and would not show the log.
    let deadline = tokio::time::Instant::now() + DEADLINE / 2;
    loop {
        let manager = client.manager().await.unwrap();
        let is_over = match (is_bad, manager.config_state.as_str()) {
            (true, "rolled-back") => {
                let newest = client.history(Some(1)).await.unwrap();
                let page = client.generation(newest[0].number).await.unwrap();
                let mut texts = page.files.iter().filter_map(|file| file.text.as_deref());
                texts.any(|text| text.contains(&number(count)))
            }
            (false, "applied") => client.plan(None).await.unwrap().changes.is_empty(),
            _ => false,
        };
        if is_over {
            return;
        }
        let changed = tokio::time::timeout_at(deadline, watch.changed()).await;
        assert!(changed.is_ok(), "never over: {what}: {manager:#?}\n{}", it.log());
    }
}

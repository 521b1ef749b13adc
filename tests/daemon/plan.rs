//! What a plan says is what then happens; and what no file spells out is told as well.

use crate::common::rng::Rng;
use crate::support::{Daemon, Status, content, identities};
use provost::client::Change;
use std::collections::BTreeMap;
use std::fs;

/// One process of a file that changes.
#[derive(Clone, Copy, Debug)]
struct One {
    there: bool,
    enabled: bool,
    command: u64,
    variable: u64,
    attempts: u64,
    instances: u64,
    interval: u64,
    /// Restarts with the one before it.
    follows: bool,
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

fn draw(rng: &mut Rng) -> One {
    One {
        there: true,
        enabled: true,
        command: rng.between(0, 9),
        variable: rng.between(0, 9),
        attempts: rng.between(1, 9),
        instances: rng.between(1, 3),
        interval: rng.between(1, 9),
        follows: rng.percent(50),
    }
}

fn change(one: &mut One, rng: &mut Rng) {
    match rng.between(0, 9) {
        0 => one.there = !one.there,
        1 => one.enabled = !one.enabled,
        2 => one.command += 1,
        3 => one.variable += 1,
        4 | 5 => one.attempts += 1,
        6 => one.instances = rng.between(1, 3),
        7 | 8 => one.interval += 1,
        _ => one.follows = !one.follows,
    }
}

fn yaml(all: &[One; 5]) -> String {
    let mut yaml =
        "processManagement: { settle: 20ms, watchConfig: false }\nprocesses:\n".to_owned();
    let mut last: Option<&str> = None;
    for (name, one) in NAMES.iter().zip(all).filter(|(_, one)| one.there) {
        let One { enabled, command, variable, attempts, instances, interval, .. } = one;
        yaml += &format!(
            "  {name}:
    command: [sleep, '{}']
    enabled: {enabled}
    env: {{ V: '{variable}' }}
    instances: {instances}
    restartPolicy: {{ maxAttempts: {attempts} }}
    healthCheck: {{ exec: [test, -d, /], interval: {interval}h }}
",
            10_000 + command
        );
        if let Some(last) = last {
            let restart = one.follows;
            yaml += &format!(
                "    dependsOn: {{ {last}: {{ condition: started, restart: {restart} }} }}\n"
            );
        }
        last = Some(name);
    }
    if last.is_none() { yaml.replace("processes:\n", "processes: {}\n") } else { yaml }
}

/// The pids with their start times, by instance; only of what runs.
fn running(status: &Status) -> BTreeMap<String, (u32, u64)> {
    identities(status)
}

fn process(id: &str) -> &str {
    id.split('@').next().unwrap()
}

/// What is there after a change is what the plan said of it.
fn compare(
    plan: &BTreeMap<String, Change>,
    before: &BTreeMap<String, (u32, u64)>,
    after: &BTreeMap<String, (u32, u64)>,
    what: &str,
) {
    let restarted_with: Vec<&String> = plan
        .values()
        .filter(|change| change.consequence == "restart")
        .flat_map(|change| &change.touches)
        .collect();
    let held: Vec<&String> = plan
        .values()
        .filter(|change| change.consequence == "stop")
        .flat_map(|change| &change.touches)
        .collect();
    for (id, old) in before {
        let name = process(id);
        let new = after.get(id);
        let consequence = plan.get(name).map(|change| &*change.consequence);
        let kept = new == Some(old);
        match consequence {
            Some("restart") => assert!(!kept, "{id} was to restart: {what}"),
            Some("stop") => {} // Of several instances some go; counted below.
            _ if restarted_with.iter().any(|touched| *touched == name) => {
                assert!(!kept, "{id} was to restart with another: {what}");
            }
            _ if held.iter().any(|touched| *touched == name) => {
                assert!(!kept, "{id} was to wait without another: {what}");
            }
            _ => assert!(kept, "{id} was not to be touched ({consequence:?}): {what}"),
        }
    }
    let comes_with: Vec<&String> = plan
        .values()
        .filter(|change| change.consequence == "start")
        .flat_map(|change| &change.touches)
        .collect();
    for id in after.keys().filter(|id| !before.contains_key(*id)) {
        let consequence = plan.get(process(id)).map(|change| &*change.consequence);
        assert!(
            matches!(consequence, Some("start"))
                || comes_with.iter().any(|one| *one == process(id)),
            "{id} was not to start ({consequence:?}): {what}"
        );
    }
}

#[tokio::test]
async fn what_happens_is_what_the_plan_said() {
    let setting = |name: &str, usual: u64| {
        std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
    };
    let seed = setting("PROVOST_SEED", 5);
    eprintln!("seed {seed}");
    let mut rng = Rng::new(seed);
    let mut all: [One; 5] = std::array::from_fn(|_| draw(&mut rng));
    let daemon = Daemon::start(&yaml(&all));
    let client = daemon.client().await;
    let mut before = at_rest(&daemon).await;
    for count in 0..setting("PROVOST_EDITS", 30) {
        for _ in 0..rng.between(1, 3) {
            let which = usize::try_from(rng.between(0, 4)).unwrap();
            change(&mut all[which], &mut rng);
        }
        let text = yaml(&all);
        let planned = client.plan(Some(content(&text))).await.unwrap();
        assert!(planned.valid(), "{planned:?}\n{text}");
        let plan: BTreeMap<String, Change> =
            planned.changes.iter().map(|change| (change.process.clone(), change.clone())).collect();
        daemon.save(&text);
        let summary = daemon.reload().await;
        assert!(matches!(&*summary.result, "applied" | "unchanged"), "{summary:?}");
        let what = format!("edit {count} of seed {seed}\n{plan:#?}\n{text}\n{}", daemon.log());
        assert_eq!(summary.result == "unchanged", plan.is_empty(), "{what}");
        let after = at_rest(&daemon).await;
        compare(&plan, &before, &after, &what);
        assert!(client.plan(None).await.unwrap().changes.is_empty(), "{what}");
        before = after;
    }
}

/// What runs when nothing moves any more.
async fn at_rest(daemon: &Daemon) -> BTreeMap<String, (u32, u64)> {
    daemon
        .until_manager("applied", |manager| manager.config_state == "applied" && manager.jobs == 0)
        .await;
    let status = daemon
        .until("at rest", |status| {
            status.values().all(|one| !matches!(&*one.state, "starting" | "stopping" | "backoff"))
        })
        .await;
    running(&status)
}

/// What a file does not spell out is in the plan all the same: an env file, a drop-in, a default.
#[tokio::test]
async fn what_stands_elsewhere_is_in_the_plan() {
    let yaml = "processes:\n  a: { shell: exec sleep 88841, envFile: a.env }\n  b: { shell: exec sleep 88842 }\n";
    let daemon =
        Daemon::prepare(|dir| fs::write(dir.join("a.env"), "TOKEN=hunter1\n").unwrap()).with(yaml);
    daemon.until_running(&["a@0", "b@0"]).await;
    let client = daemon.client().await;
    fs::write(
        daemon.path().join("processes.yaml"),
        format!("processManagement: {{ watchConfig: false }}\n{yaml}"),
    )
    .unwrap();
    daemon.reload().await;
    fs::write(daemon.path().join("a.env"), "TOKEN=hunter2\n").unwrap();
    fs::create_dir(daemon.path().join("processes.d")).unwrap();
    fs::write(
        daemon.path().join("processes.d/c.yaml"),
        "processes: { c: { shell: exec sleep 1 } }\n",
    )
    .unwrap();
    let told = |changes: &[Change]| -> Vec<String> {
        let one = |change: &Change| {
            let fields = change
                .fields
                .iter()
                .map(|field| format!("{} {}->{}", field.key, field.old, field.new));
            format!("{} {} {:?}", change.process, change.consequence, fields.collect::<Vec<_>>())
        };
        changes.iter().map(one).collect()
    };
    let plan = client.plan(None).await.unwrap();
    assert_eq!(told(&plan.changes), ["a restart [\"env.TOKEN ***->***\"]", "c start []"]);
    fs::write(
        daemon.path().join("processes.yaml"),
        format!("processManagement: {{ watchConfig: false, restartAttempts: 9 }}\n{yaml}"),
    )
    .unwrap();
    let plan = client.plan(None).await.unwrap();
    assert_eq!(
        told(&plan.changes),
        [
            "a restart [\"restartPolicy.maxAttempts ->9\", \"env.TOKEN ***->***\"]",
            "b live [\"restartPolicy.maxAttempts ->9\"]",
            "c start []"
        ]
    );
}

/// A program that was replaced is shown, and restarted only for who says so.
#[tokio::test]
async fn a_program_that_was_replaced_is_told_and_restarted_on_demand() {
    let fill = |dir: &std::path::Path| {
        fs::copy("/bin/sleep", dir.join("server")).unwrap();
        fs::copy("/bin/sleep", dir.join("other")).unwrap();
    };
    let yaml = "processes:\n  a: { command: ./server, args: ['88851'] }\n  b: { command: ./other, args: ['88852'] }\n";
    let daemon = Daemon::prepare(fill).with(yaml);
    let before = identities(&daemon.until_running(&["a@0", "b@0"]).await);
    let run = |words: &[&str]| daemon.provost(words);
    let restart = ["reload", "--restart-changed-binaries"];
    let (code, out, _) = run(&restart);
    assert!(code == 0 && out.contains("no program that runs was replaced"), "{out}");
    // As a package manager does it.
    fs::copy("/bin/sleep", daemon.path().join("server.new")).unwrap();
    fs::rename(daemon.path().join("server.new"), daemon.path().join("server")).unwrap();
    let (code, out, err) = run(&["plan"]);
    assert_eq!((code, out.trim()), (0, "nothing would change"), "{err}");
    assert!(err.contains("a: its program was replaced on disk"), "{err}");
    assert!(!err.contains("b: its program"), "{err}");
    assert_eq!(identities(&daemon.status().await), before, "it is only shown");
    let (code, out, err) = run(&restart);
    assert_eq!(code, 0, "{out}{err}");
    let after = identities(&daemon.until_running(&["a@0", "b@0"]).await);
    assert_ne!(after["a@0"], before["a@0"]);
    assert_eq!(after["b@0"], before["b@0"]);
    let (_, _, err) = run(&["plan"]);
    assert!(!err.contains("was replaced"), "{err}");
}

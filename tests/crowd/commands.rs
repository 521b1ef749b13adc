//! Contradictory commands at once.

use crate::common::processes::processes_with;
use crate::common::waiting::DEADLINE;
use crate::outside::clients;
use crate::support::{Daemon, Status, wait_for};
use futures_util::future::join_all;
use provost::client::{Client, ClientError, Verb};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

const CLIENTS: u64 = 8;
const EACH: usize = 40;
const NAMES: [&str; 3] = ["a", "b", "c"];

/// The last word of those that became jobs: they are numbered as they are accepted.
type Words = RefCell<BTreeMap<&'static str, (u32, Verb)>>;

/// Each holds a lock for as long as anything of it lives; who cannot have it is a second copy.
fn file(marker: &str) -> String {
    let process = |name: &str| {
        format!(
            "  {name}:
    shell: 'exec 9>@DIR@/{name}.lock; flock -n 9 || echo {name} >>@DIR@/doubled; exec sleep 1000.{marker}'
    restartPolicy: {{ delay: 10ms, maxDelay: 20ms }}
"
        )
    };
    NAMES.iter().fold("processes:\n".to_owned(), |text, name| text + &process(name))
}

/// SplitMix64, so that a failure can be seen again.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % limit
    }
}

/// A refusal is an answer too; that nobody answers is none.
fn answered<T>(result: Result<T, ClientError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(ClientError::Refused { .. }) => None,
        Err(other) => panic!("{other:?}"),
    }
}

async fn command(client: &Client, name: &'static str, which: u64, words: &Words) {
    let names = [name.to_owned()];
    let verb = match which {
        0..3 => Verb::Start { once: false },
        3..6 => Verb::Stop,
        6..8 => Verb::Restart,
        8 => {
            answered(client.signal(name, "main", 15).await);
            return;
        }
        9 => {
            answered(client.reset_failed(&names).await);
            return;
        }
        _ => {
            answered(client.set_enabled(&names, which == 10).await);
            return;
        }
    };
    // All wait for the end now and then.
    let job = if which.is_multiple_of(2) {
        let ended = answered(client.run(verb, &names, |_| {}).await);
        ended.map(|ended| {
            let known = ["done", "skipped", "canceled", "failed", "dependency", "timeout"];
            assert!(known.contains(&ended[0].result.as_str()), "{ended:?}");
            ended[0].id
        })
    } else {
        answered(client.submit(verb, &names).await).map(|jobs| jobs[0].id)
    };
    let Some(job) = job else { return };
    let mut words = words.borrow_mut();
    let last = words.entry(name).or_insert((job, verb));
    if job >= last.0 {
        *last = (job, verb);
    }
}

fn is_enabled(daemon: &Daemon, name: &str) -> bool {
    let text = fs::read_to_string(daemon.file()).unwrap();
    let after = text.split_once(&format!("\n  {name}:")).unwrap().1;
    let own: String = after.lines().skip(1).take_while(|line| line.starts_with("   ")).collect();
    !own.contains("enabled: false")
}

#[tokio::test]
async fn contradictory_commands_all_end_and_the_last_word_holds() {
    let marker = format!("7{}", std::process::id());
    let daemon = Daemon::start(&file(&marker));
    daemon.until_running(&["a@0", "b@0", "c@0"]).await;
    for name in NAMES {
        wait_for(&daemon.path().join(format!("{name}.lock")));
    }
    let words = Words::default();
    let clients = clients(&daemon, usize::try_from(CLIENTS).unwrap()).await;
    let all = clients.iter().zip(1..).map(|(client, seed)| {
        let words = &words;
        async move {
            let mut chance = Chance(seed);
            for _ in 0..EACH {
                let name = NAMES[usize::try_from(chance.below(3)).unwrap()];
                command(client, name, chance.below(12), words).await;
            }
        }
    });
    tokio::time::timeout(DEADLINE * 3, join_all(all)).await.expect("every call is answered");
    let wanted: BTreeMap<String, bool> = NAMES
        .iter()
        .map(|name| {
            let last = words.borrow().get(name).map(|(_, verb)| *verb);
            let up = !matches!(last, Some(Verb::Stop)) && is_enabled(&daemon, name);
            (format!("{name}@0"), up)
        })
        .collect();
    let as_wanted = |status: &Status| {
        wanted.iter().all(|(name, up)| {
            let process = &status[name];
            process.state == if *up { "running" } else { "down" } && process.pid.is_some() == *up
        })
    };
    println!("wanted: {wanted:?}, by {:?}", words.borrow());
    let status = daemon.until("as the last word says", as_wanted).await;
    // From outside: those and no others.
    let mut known: Vec<u32> = status.values().filter_map(|process| process.pid).collect();
    known.sort_unstable();
    let deadline = Instant::now() + DEADLINE;
    loop {
        let mut there = processes_with(&format!("sleep 1000.{marker}"));
        there.sort_unstable();
        if there == known {
            break;
        }
        assert!(Instant::now() < deadline, "{there:?} run and {known:?} are known");
        tokio::task::yield_now().await;
    }
    assert!(!daemon.path().join("doubled").exists(), "there were two at once");
    assert!(as_wanted(&daemon.status().await));
}

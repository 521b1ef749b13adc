//! Many connect to what is changed again and again.
//!
//! `PROVOST_CONNECTIONS` says how many (default 3,000).

use crate::held::{free, is_possible};
use crate::supervisor::*;
use crate::world::DEADLINE;
use provost::client::Verb;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Answers a line with its pid. When it is asked to end, it serves whom it has accepted.
const SERVER: &str = r#"
use Socket;
my $over = 0;
$SIG{TERM} = sub { $over = 1 };
open(my $listener, "+<&=", 3) or die $!;
if ($ENV{NOTIFY_SOCKET}) {
    socket(my $manager, PF_UNIX, SOCK_DGRAM, 0) or die $!;
    send($manager, "READY=1", 0, sockaddr_un($ENV{NOTIFY_SOCKET})) or die $!;
}
until ($over) {
    accept(my $client, $listener) or next;
    my $line = readline($client);
    syswrite($client, "$$ $line");
    close $client;
}
"#;

/// How many connect at the same time.
const CLIENTS: usize = 4;

/// What became of those that connected.
#[derive(Debug, Default, PartialEq)]
struct Told {
    served: usize,
    /// How many were not, by why.
    failed: BTreeMap<String, usize>,
    /// Who served.
    by: BTreeSet<String>,
    /// How long it took at most.
    longest: Duration,
}

fn connections() -> usize {
    let told = std::env::var("PROVOST_CONNECTIONS");
    told.map_or(3_000, |number| number.parse().expect("a number"))
}

/// Connects, asks, and is answered by somebody, who is named.
fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.write_all(b"hello\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.strip_suffix(" hello\n") {
        Some(pid) => Ok(pid.to_owned()),
        None => Err(io::Error::other(format!("it was answered {answer:?}"))),
    }
}

/// Connects until nothing is changed any more.
fn knock(address: SocketAddr, count: &AtomicUsize, over: &AtomicBool) -> Told {
    let mut told = Told::default();
    while !over.load(Ordering::Relaxed) {
        count.fetch_add(1, Ordering::Relaxed);
        let asked = Instant::now();
        match ask(address) {
            Ok(pid) => {
                told.longest = told.longest.max(asked.elapsed());
                told.served += 1;
                told.by.insert(pid);
            }
            Err(error) => *told.failed.entry(error.to_string()).or_default() += 1,
        }
    }
    told
}

async fn nobody_is_refused(mut it: Supervisor, instances: u32, more: &str) {
    it.settings = ", settle: 0ms, watchConfig: false";
    if !is_possible(&mut it).await {
        return;
    }
    fs::write(it.path("server.pl"), SERVER).unwrap();
    let address = free();
    let file = |version: usize| {
        format!(
            "  api:\n    command: [perl, \"@DIR@/server.pl\"]\n    log: {{ target: none }}\n    \
             instances: {instances}\n    sockets: {{ http: \"{address}\" }}\n    \
             env: {{ VERSION: {version} }}\n{more}"
        )
    };
    let client = it.run(&file(0)).await;
    let names: Vec<String> = (0..instances).map(|index| format!("api@{index}")).collect();
    let named: Vec<&str> = names.iter().map(String::as_str).collect();
    it.until_all("running", &named).await;
    let wanted = connections();
    let (count, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (count, over) = (count.clone(), over.clone());
            std::thread::spawn(move || knock(address, &count, &over))
        })
        .collect();
    let mut changes = 0;
    while count.load(Ordering::Relaxed) < wanted || changes < 2 {
        changes += 1;
        if changes % 4 == 0 {
            client.run(Verb::Restart, &["api@*".to_owned()], |_| {}).await.unwrap();
        } else {
            let summary = it.reload(&file(changes)).await;
            assert_eq!(summary.result, "applied", "{summary:?}\n{}", it.log());
        }
    }
    // Not before: who is asked to end just before it waits for somebody ends when somebody came.
    over.store(true, Ordering::Relaxed);
    let mut all = Told::default();
    for client in clients {
        let told = client.join().unwrap();
        all.served += told.served;
        all.by.extend(told.by);
        all.longest = all.longest.max(told.longest);
        for (why, many) in told.failed {
            *all.failed.entry(why).or_default() += many;
        }
    }
    let (by, longest) = (all.by.len(), all.longest);
    eprintln!(
        "{} served by {by} over {changes} changes, within {longest:?}; {:?}",
        all.served, all.failed
    );
    assert_eq!((all.served, all.failed), (count.load(Ordering::Relaxed), BTreeMap::new()));
    assert!(all.by.len() > instances as usize, "{changes} changes: {:?}", all.by);
}

pub async fn nobody_is_refused_while_one_that_serves_is_replaced(it: Supervisor) {
    nobody_is_refused(it, 1, "").await;
}

pub async fn nobody_is_refused_while_several_that_serve_are_replaced(it: Supervisor) {
    nobody_is_refused(it, 3, "    maxUnavailable: 2\n").await;
}

pub async fn nobody_is_refused_while_the_old_one_and_the_new_one_serve(it: Supervisor) {
    nobody_is_refused(it, 1, "    overlap: true\n    readiness: notify\n").await;
}

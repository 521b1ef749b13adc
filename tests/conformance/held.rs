//! Sockets that are held for processes.

use crate::supervisor::*;
use crate::world::until;
use provost::client::Verb;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;

/// Answers on its sockets who it is and what it was told, with what every Debian has.
const SERVER: &str = r#"
my @listeners = map { open(my $one, "+<&=", $_) or die "$_: $!"; $one } 3 .. 2 + $ENV{LISTEN_FDS};
my $readable = sub { my $bits = ""; vec($bits, fileno($_), 1) = 1 for @listeners; $bits };
while (1) {
    select(my $ready = $readable->(), undef, undef, undef);
    for my $listener (grep { vec($ready, fileno($_), 1) } @listeners) {
        accept(my $client, $listener) or next;
        print $client "$$ $ENV{LISTEN_PID} $ENV{LISTEN_FDS} $ENV{LISTEN_FDNAMES} ", fileno($listener), "\n";
        close $client;
    }
}
"#;

/// A port that nobody has, as it seems.
pub fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn line(stream: impl io::Read) -> Vec<String> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line.split_whitespace().map(str::to_owned).collect()
}

/// Connects, and is answered. What is not there any more would refuse.
fn ask(address: SocketAddr) -> Vec<String> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(crate::world::DEADLINE)).unwrap();
    line(stream)
}

/// Which sockets a process has as these descriptors.
fn sockets(pid: u32, fds: &[u32]) -> Vec<String> {
    let link = |fd| fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap();
    fds.iter().map(|fd| link(fd).to_string_lossy().into_owned()).collect()
}

/// systemd 252 cannot do it. That it says so is what is looked at then.
pub async fn is_possible(it: &mut Supervisor) -> bool {
    if it.backend == "native" {
        return true;
    }
    let version = Command::new("systemctl").arg("--version").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let number: u32 = version.split_whitespace().nth(1).unwrap().parse().unwrap();
    if number >= 257 {
        return true;
    }
    let held = "  api:\n    command: [sleep, \"1000\"]\n    sockets: { http: 127.0.0.1:9 }\n    \
                restartPolicy: { condition: \"no\" }\n";
    it.run(held).await;
    let all = it.until_all("failed", &["api@0"]).await;
    assert!(all["api@0"].reason.contains("cannot pass `sockets`"), "{all:#?}");
    it.save(&held.replace("api:", "other:"));
    let refused = it.client().await.reload(&Default::default()).await.unwrap_err().to_string();
    assert!(refused.contains("cannot pass `sockets`"), "{refused}");
    let told = it.client().await.manager().await.unwrap().diagnostics;
    assert!(told.iter().any(|one| one.code == "cannot-hold-socket"), "{told:?}");
    false
}

pub async fn sockets_are_held_for_a_process(mut it: Supervisor) {
    if !is_possible(&mut it).await {
        return;
    }
    fs::write(it.path("server.pl"), SERVER).unwrap();
    let address = free();
    let file = |rest: &str| {
        format!(
            "  api:\n    command: [perl, \"@DIR@/server.pl\"]\n    log: {{ target: none }}\n    \
             restartPolicy: {{ delay: 200ms, jitter: 0 }}\n    limits: {{ files: 64 }}\n    \
             sockets: {{ http: \"{address}\", admin: {{ listen: \"@DIR@/admin\", mode: 0600 }} }}\n{rest}"
        )
    };
    let client = it.run(&file("")).await;
    let before = it.until_all("running", &["api@0"]).await["api@0"].pid.unwrap();
    let pid = before.to_string();
    assert_eq!(ask(address), [&*pid, &*pid, "2", "admin:http", "4"]);
    let admin = it.path("admin");
    assert_eq!(line(UnixStream::connect(&admin).unwrap()), [&*pid, &*pid, "2", "admin:http", "3"]);
    use std::os::unix::fs::MetadataExt;
    let found = fs::metadata(&admin).unwrap();
    assert_eq!(found.mode() & 0o777, 0o600);
    assert_eq!(found.uid(), fs::metadata(format!("/proc/{before}")).unwrap().uid());
    let kept = sockets(before, &[3, 4]);
    // Nothing else of the daemon's; the last connection is closed after its answer.
    let open = || {
        let open = fs::read_dir(format!("/proc/{before}/fd")).unwrap().flatten();
        let open = open.filter_map(|fd| fs::read_link(fd.path()).ok());
        open.filter(|to| to.to_string_lossy().starts_with("socket:")).count()
    };
    until("two sockets", || open() == 2).await;

    // Who comes between two runs waits.
    let process = nix::unistd::Pid::from_raw(i32::try_from(before).unwrap());
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL).unwrap();
    let answer = ask(address);
    assert_ne!(answer[0], pid);
    assert_eq!(answer[0], answer[1]);
    let after = it.until_all("running", &["api@0"]).await["api@0"].pid.unwrap();
    assert_eq!(sockets(after, &[3, 4]), kept);
    // So it is over a change of something else, even while nobody serves. What the file calls by the
    // names that belong to the sockets is not what it is told.
    let summary =
        it.reload(&file("    env: { A: b, LISTEN_PID: \"1\", LISTEN_FDS: \"9\" }\n")).await;
    assert_eq!(summary.result, "applied", "{summary:?}");
    let changed = it.until_all("running", &["api@0"]).await["api@0"].pid.unwrap();
    assert_ne!(changed, after);
    assert_eq!(sockets(changed, &[3, 4]), kept);
    let told = changed.to_string();
    assert_eq!(ask(address), [&*told, &*told, "2", "admin:http", "4"]);
    // Nobody has kept them for the next daemon here; the run has its own.
    it.kill();
    assert_eq!(ask(address)[0], changed.to_string());
    it.start().await;
    assert_eq!(it.until_all("running", &["api@0"]).await["api@0"].pid, Some(changed));
    let client = {
        drop(client);
        it.client().await
    };
    client.run(Verb::Restart, &["api".into()], |_| {}).await.unwrap();
    it.until_all("running", &["api@0"]).await;
    assert_eq!(ask(address)[2..], ["2", "admin:http", "4"]);
    line(UnixStream::connect(&admin).unwrap());
    // Who is stopped is not waited for.
    client.run(Verb::Stop, &["api".into()], |_| {}).await.unwrap();
    it.until_all("down", &["api@0"]).await;
    refused(address).await;
    client.run(Verb::Start { once: false }, &["api".into()], |_| {}).await.unwrap();
    it.until_all("running", &["api@0"]).await;
    ask(address);
    it.reload("  other: { command: [sleep, \"1000\"] }\n").await;
    it.until("gone", |all| !all.contains_key("api@0")).await;
    refused(address).await;
}

/// The daemon closes it when it says that nobody serves it, and systemd a moment later.
async fn refused(address: SocketAddr) {
    until("a connection that is refused", || TcpStream::connect(address).is_err()).await;
}

pub async fn sockets_are_those_of_all_instances(mut it: Supervisor) {
    if !is_possible(&mut it).await {
        return;
    }
    fs::write(it.path("server.pl"), SERVER).unwrap();
    let address = free();
    let file = format!(
        "  api:\n    command: [perl, \"@DIR@/server.pl\"]\n    log: {{ target: none }}\n    \
         instances: 3\n    sockets: {{ http: \"{address}\" }}\n"
    );
    let client = it.run(&file).await;
    let names = ["api@0", "api@1", "api@2"];
    let all = it.until_all("running", &names).await;
    let has = |name: &str, all: &Status| sockets(all[name].pid.unwrap(), &[3]);
    let kept = has("api@0", &all);
    assert!(names.iter().all(|name| has(name, &all) == kept));
    // One that is stopped takes it from nobody.
    client.run(Verb::Stop, &["api@1".into()], |_| {}).await.unwrap();
    it.until_all("down", &["api@1"]).await;
    client.run(Verb::Restart, &["api@2".into()], |_| {}).await.unwrap();
    client.run(Verb::Start { once: false }, &["api@1".into()], |_| {}).await.unwrap();
    let all = it.until_all("running", &names).await;
    assert!(names.iter().all(|name| has(name, &all) == kept));
    let serving: Vec<String> = all.values().map(|one| one.pid.unwrap().to_string()).collect();
    assert!(serving.contains(&ask(address)[0]));
}

pub async fn a_socket_that_cannot_be_had_is_told(mut it: Supervisor) {
    if !is_possible(&mut it).await {
        return;
    }
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let plain = "  plain: { command: [sleep, \"1000\"], log: { target: none } }\n";
    let held = |name: &str| {
        format!(
            "  {name}:\n    command: [sleep, \"1000\"]\n    log: {{ target: none }}\n    \
             sockets: {{ http: \"{address}\" }}\n    restartPolicy: {{ delay: 50ms, maxDelay: 50ms }}\n"
        )
    };
    it.run(&(plain.to_owned() + &held("first"))).await;
    // At the start it is a failure of the one process, which is tried again.
    let told = |all: &Status| {
        let first = &all["first@0"];
        first.state == "backoff" && first.reason.contains("Address already in use")
    };
    let all = it.until("told", told).await;
    let wanted = format!("opening its socket http ({address}): Address already in use");
    assert!(all["first@0"].reason.contains(&wanted), "{all:#?}");
    drop(other);
    it.until_all("running", &["first@0", "plain@0"]).await;
    // What is held for one is not free for another, until that is gone.
    let both = plain.to_owned() + &held("first") + &held("second");
    it.save(&both);
    let refused = it.client().await.reload(&Default::default()).await.unwrap_err().to_string();
    assert!(refused.contains("is a socket of `first` already"), "{refused}");
    let summary = it.reload(&(plain.to_owned() + &held("second"))).await;
    assert_eq!(summary.result, "applied", "{summary:?}");
    it.until_all("running", &["second@0"]).await;
    // Somebody else's is found before anything is touched.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    it.save(&(plain.to_owned() + &held("third").replace(&address.to_string(), &taken.to_string())));
    let refused = it.client().await.reload(&Default::default()).await.unwrap_err().to_string();
    let wanted = format!("socket `http` at {taken}: Address already in use");
    assert!(refused.contains(&wanted), "{refused}");
    let told = it.client().await.manager().await.unwrap().diagnostics;
    assert!(told.iter().any(|one| one.code == "address-in-use"), "{told:?}");
    assert_eq!(it.status().await["second@0"].state, "running");
}

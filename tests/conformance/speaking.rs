//! What processes say of themselves.

use crate::world::*;
use provost::core::event::{Event, Told};
use provost::core::ids::Run;
use provost::core::spec::{Check, HealthCheck, ProcessSpec, Readiness};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

/// Sends its arguments in one datagram and stays: with what every Debian has.
const SAY: &str = r#"#!/usr/bin/perl
use Socket;
socket(my $socket, PF_UNIX, SOCK_DGRAM, 0) or die $!;
send($socket, join("\n", @ARGV), 0, pack_sockaddr_un($ENV{NOTIFY_SOCKET})) or die $!;
sleep 1000 unless $ENV{LEAVE};
"#;

/// The program of these lines.
fn say(world: &World) -> String {
    let path = world.path("say");
    std::fs::write(&path, SAY).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// One that is to speak for itself.
fn speaker(line: &str) -> ProcessSpec {
    let mut spec = shell(line);
    spec.readiness = Readiness::Notify;
    let check = HealthCheck::new(Check::Notify);
    spec.health = Some(Box::new(HealthCheck { interval: Duration::from_millis(1500), ..check }));
    spec
}

/// What was said, and by which run.
async fn said(world: &mut World) -> (Run, Told) {
    loop {
        match world.event().await {
            Event::Notified { run, told, .. } => return (run, told),
            // Either may come first.
            Event::Spawned { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

fn status(text: &str) -> Told {
    Told::Status(text.into())
}

pub async fn a_run_is_heard_whoever_of_it_speaks(mut world: World) {
    let (out, go, say) = (world.pipe("out"), world.pipe("go"), say(&world));
    let run = world.start(speaker(&format!(
        "echo \"$WATCHDOG_USEC\" >{out}; read x <{go}; systemd-notify --status='by a child'; \
         setsid {say} STATUS=grandchild & read x <{go}; exec {say} READY=1 WATCHDOG=1 X=1 STATUS=main"
    )));
    assert_eq!(world.line("out").await, "1500000");
    world.spawned().await;
    world.write("go");
    assert_eq!(said(&mut world).await, (run, status("by a child")));
    assert_eq!(said(&mut world).await, (run, status("grandchild")));
    world.write("go");
    for told in [Told::Ready, Told::Alive, status("main")] {
        assert_eq!(said(&mut world).await, (run, told));
    }
    world.end(run).await;
}

/// It speaks with its first instructions.
pub async fn a_run_that_is_quick_is_heard(mut world: World) {
    let say = say(&world);
    for _ in 0..10 {
        let run = world.start(speaker(&format!("exec {say} READY=1")));
        assert_eq!(said(&mut world).await, (run, Told::Ready));
        world.kill(run);
        while !matches!(world.event().await, Event::Emptied { .. }) {}
    }
}

/// Others can send as well, in whatever name and as whatever user.
pub async fn what_others_say_is_not_heard(mut world: World) {
    let (out, go, say) = (world.pipe("out"), world.pipe("go"), say(&world));
    let line = format!("echo $NOTIFY_SOCKET >{out}; read x <{go}; exec {say} STATUS=own");
    let run = world.start(speaker(&line));
    let socket = world.line("out").await;
    let pid = world.spawned().await;
    let own = std::os::unix::net::UnixDatagram::unbound().unwrap();
    for datagram in ["READY=1", "WATCHDOG=1", &format!("READY=1\nMAINPID={pid}"), ""] {
        own.send_to(datagram.as_bytes(), &socket).unwrap();
    }
    // More than is ever read.
    own.send_to(&[b'x'; 5000], &socket).unwrap();
    for user in [None, Some(65534)].into_iter().take(if is_root() { 2 } else { 1 }) {
        use std::os::unix::process::CommandExt;
        let mut other = Command::new(&say);
        other.args(["READY=1", "STATUS=other"]).env("NOTIFY_SOCKET", &socket).env("LEAVE", "1");
        if let Some(user) = user {
            other.uid(user).gid(user);
        }
        assert!(other.status().unwrap().success());
    }
    // What was sent before is read before.
    world.write("go");
    assert_eq!(said(&mut world).await, (run, status("own")));
    world.end(run).await;
}

pub async fn who_shall_not_speak_is_told_nothing(mut world: World) {
    let out = world.pipe("out");
    world.start(shell(&format!("echo \"<$NOTIFY_SOCKET$WATCHDOG_USEC>\" >{out}")));
    assert_eq!(world.line("out").await, "<>");
    world.spawned().await;
    world.exited().await;
    world.emptied().await;
}

//! `provost-net`, as a child of the test: what becomes of questions when it ends, or hangs.

use crate::common::processes::{kill, pidfd, raw};
use crate::common::waiting::wait_readable;
use crate::world::*;
use provost::core::spec::Rendered;
use provost::net::Network;
use provost::net::asking::{Doing, Helper, Launcher, Program};
use provost::net::bind::Use;
use provost::net::check::Check;
use provost::net::message::{Answer, Channel, Numbered, Question};
use rustix::process::{Signal, kill_process};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Starts it as a child, and keeps the pid of each.
#[derive(Clone, Default)]
pub struct Children(Arc<Mutex<Vec<u32>>>);

impl Children {
    fn pids(&self) -> Vec<u32> {
        self.0.lock().unwrap().clone()
    }
}

struct Running(u32);

impl Launcher for Children {
    fn launch(&self, end: OwnedFd) -> Doing<'_, Result<Box<dyn Program>, String>> {
        Box::pin(async move {
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_provost-net"));
            let child = command.stdin(Stdio::from(end)).spawn().map_err(|io| io.to_string())?;
            self.0.lock().unwrap().push(child.id());
            Ok(Box::new(Running(child.id())) as Box<dyn Program>)
        })
    }
}

impl Program for Running {
    fn ended(&mut self) -> Doing<'_, String> {
        let pidfd = pidfd(self.0);
        Box::pin(async move {
            let wait = move || wait_readable(&pidfd, "the end of provost-net");
            tokio::task::spawn_blocking(wait).await.unwrap();
            "it is gone".to_owned()
        })
    }

    fn stop(self: Box<Self>) -> Doing<'static, ()> {
        Box::pin(async move { kill(self.0) })
    }
}

/// One that is always there once it was asked.
pub fn network(launcher: impl Launcher + 'static) -> Network {
    Network::Helper(Helper::new(launcher, DEADLINE))
}

fn helper() -> (Arc<Network>, Children) {
    let children = Children::default();
    (Arc::new(network(children.clone())), children)
}

/// One that takes connections and never answers, and its address.
fn silent() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn http(address: SocketAddr) -> Check {
    Check::Http(Rendered::from(&*format!("http://{address}/")))
}

fn tcp(address: SocketAddr) -> Check {
    Check::Tcp(Rendered::from(&*address.to_string()))
}

#[tokio::test]
async fn sockets_come_from_it() {
    let (network, children) = helper();
    let any = "127.0.0.1:0".parse().unwrap();
    let listener = TcpListener::from(network.bind(any, Use::Listen).await.unwrap());
    let address = listener.local_addr().unwrap();
    // Nobody else has it.
    let connected = TcpStream::connect(address).unwrap();
    assert_eq!(listener.accept().unwrap().1, connected.local_addr().unwrap());
    let taken = network.bind(address, Use::Listen).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    let blocking = network.clone();
    let taken = tokio::task::spawn_blocking(move || blocking.bind_blocking(address, Use::Try));
    assert_eq!(taken.await.unwrap().unwrap_err().kind(), ErrorKind::AddrInUse);
    drop((listener, connected));
    let tried = network.bind(any, Use::Try).await.unwrap();
    let address = TcpListener::from(tried.try_clone().unwrap()).local_addr().unwrap();
    assert!(TcpStream::connect(address).is_err(), "it shall not listen");
    assert_eq!(children.pids().len(), 1);
}

#[tokio::test]
async fn one_that_is_killed_is_told_and_followed_by_another() {
    let (network, children) = helper();
    let (listener, address) = silent();
    let asked = |check| {
        let network = network.clone();
        tokio::spawn(async move { network.check(check, DEADLINE).await })
    };
    let (one, other) = (asked(http(address)), asked(http(address)));
    // Both are asked by now.
    let accept = move || (listener.accept().unwrap(), listener.accept().unwrap(), listener);
    let (_one, _other, _listener) = tokio::task::spawn_blocking(accept).await.unwrap();
    kill(children.pids()[0]);
    for one in [one, other] {
        let text = in_time(one).await.unwrap().unwrap_err();
        assert_eq!(text, "provost-net, which does it, ended: it is gone");
    }
    assert_eq!(network.check(tcp(address), DEADLINE).await, Ok(()));
    assert_eq!(children.pids().len(), 2);
}

#[tokio::test]
async fn one_that_hangs_is_killed_and_followed_by_another() {
    let (network, children) = helper();
    let (_listener, address) = silent();
    assert_eq!(network.check(tcp(address), DEADLINE).await, Ok(()));
    let first = children.pids()[0];
    let ended = pidfd(first);
    kill_process(raw(first), Signal::STOP).unwrap();
    let text = network.check(tcp(address), Duration::from_millis(1)).await.unwrap_err();
    assert_eq!(text, "provost-net, which does it, says nothing");
    assert_eq!(network.check(tcp(address), DEADLINE).await, Ok(()));
    assert_eq!(children.pids().len(), 2);
    wait_readable(&ended, "the end of the one that hangs");
}

#[tokio::test]
async fn one_that_nobody_asks_ends_and_the_next_question_starts_another() {
    let children = Children::default();
    let helper = Helper::new(children.clone(), Duration::from_millis(1));
    let network = Network::Helper(helper);
    let (_listener, address) = silent();
    for count in 1..=5 {
        assert_eq!(network.check(tcp(address), DEADLINE).await, Ok(()));
        assert_eq!(children.pids().len(), count);
        let ended = pidfd(children.pids()[count - 1]);
        let wait = move || wait_readable(&ended, "the end of it");
        tokio::task::spawn_blocking(wait).await.unwrap();
    }
}

/// As when the daemon is killed.
#[tokio::test]
async fn it_ends_with_whoever_asks() {
    let (network, children) = helper();
    let (_listener, address) = silent();
    assert_eq!(network.check(tcp(address), DEADLINE).await, Ok(()));
    let ended = pidfd(children.pids()[0]);
    drop(network);
    let wait = move || wait_readable(&ended, "the end of it");
    tokio::task::spawn_blocking(wait).await.unwrap();
}

struct Nothing;

impl Launcher for Nothing {
    fn launch(&self, _: OwnedFd) -> Doing<'_, Result<Box<dyn Program>, String>> {
        Box::pin(async { Err("there is none".to_owned()) })
    }
}

#[tokio::test]
async fn one_that_cannot_be_started_is_told() {
    let network = network(Nothing);
    let (_listener, address) = silent();
    let why = "provost-net, which does it, could not be started: there is none";
    for _ in 0..2 {
        assert_eq!(network.check(tcp(address), DEADLINE).await, Err(why.to_owned()));
        assert_eq!(network.bind(address, Use::Try).await.unwrap_err().to_string(), why);
    }
}

/// Answers everything with a socket at some address.
struct Lying;

struct Unending;

impl Program for Unending {
    fn ended(&mut self) -> Doing<'_, String> {
        Box::pin(std::future::pending())
    }

    fn stop(self: Box<Self>) -> Doing<'static, ()> {
        Box::pin(async {})
    }
}

impl Launcher for Lying {
    fn launch(&self, end: OwnedFd) -> Doing<'_, Result<Box<dyn Program>, String>> {
        let channel = Channel::new(end).unwrap();
        tokio::spawn(async move {
            while let Ok(Some((asked, _))) = channel.receive::<Numbered<Question>>().await {
                let answer = Numbered { number: asked.number, what: Answer::Bound(Ok(())) };
                let some = TcpListener::bind("127.0.0.1:0").unwrap();
                channel.send(&answer, Some(some.as_fd())).await.unwrap();
            }
        });
        Box::pin(async { Ok(Box::new(Unending) as Box<dyn Program>) })
    }
}

#[tokio::test]
async fn what_it_answers_is_not_believed_blindly() {
    let network = network(Lying);
    let (_listener, address) = silent();
    let why = "what provost-net answered is no answer to it";
    let there = network.bind(address, Use::Listen).await.unwrap_err();
    assert_eq!(there.to_string(), why);
    assert_eq!(network.check(tcp(address), DEADLINE).await, Err(why.to_owned()));
    assert!(network.bind("127.0.0.1:0".parse().unwrap(), Use::Listen).await.is_ok());
    assert!(network.bind("127.0.0.2:0".parse().unwrap(), Use::Listen).await.is_err());
}

#[test]
fn whoever_starts_it_by_hand_is_told() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_provost-net"));
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert_eq!(output.stderr, b"provost-net is started by provostd\n");
}

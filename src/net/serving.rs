//! `provost-net`: is on the network for a daemon that is not.
//!
//! Its standard input is its end of the [`Channel`]. It ends when the daemon closes the other one,
//! or is gone; until then it answers each question, in whatever order they come to an end.

use super::bind;
use super::message::{Answer, Channel, Numbered, Question};
use rustix::net::{SocketType, sockopt};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::Arc;

/// Usage errors, as sysexits(3) has it.
const USAGE: u8 = 64;

/// All of the program.
#[must_use]
pub fn main() -> ExitCode {
    let stdin = io::stdin();
    if sockopt::socket_type(&stdin) != Ok(SocketType::SEQPACKET) {
        eprintln!("provost-net is started by provostd");
        return ExitCode::from(USAGE);
    }
    match run(stdin.as_fd().try_clone_to_owned()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("provost-net: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(end: io::Result<OwnedFd>) -> io::Result<()> {
    let end = end?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = runtime.block_on(serve(end));
    // A name that nobody answers for is waited for by a thread.
    runtime.shutdown_background();
    served
}

async fn serve(end: OwnedFd) -> io::Result<()> {
    let channel = Arc::new(Channel::new(end)?);
    while let Some((asked, _)) = channel.receive::<Numbered<Question>>().await? {
        let channel = channel.clone();
        tokio::spawn(async move {
            let (what, socket) = answer(asked.what).await;
            let answer = Numbered { number: asked.number, what };
            // Whoever asked may be gone; then so are we.
            let _ = channel.send(&answer, socket.as_ref().map(AsFd::as_fd)).await;
        });
    }
    Ok(())
}

async fn answer(question: Question) -> (Answer, Option<OwnedFd>) {
    match question {
        Question::Check(check, timeout) => (Answer::Checked(check.ask(timeout).await), None),
        Question::Bind(address, used) => match bind::bind(address, used) {
            Ok(socket) => (Answer::Bound(Ok(())), Some(socket)),
            Err(error) => {
                // All that bind does is to ask the system, whose errors have numbers.
                let number = error.raw_os_error().unwrap_or(libc::EIO);
                (Answer::Bound(Err(number)), None)
            }
        },
    }
}

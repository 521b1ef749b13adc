//! The daemon's side of `provost-net`.
//!
//! It is started by the first question, ends when there was none for a while, and is started again
//! by the next one, also when it was killed or says nothing any more; what was asked of it by then is
//! answered with that. One task does all of this, so one is never started beside another.

use super::bind::Use;
use super::check::Check;
use super::message::{Answer, Channel, Numbered, Question, pair};
use rustix::net::{SocketType, getsockname, sockopt};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

/// An answer comes at the end of the time for it at the latest. One that is not there so long after
/// that never comes.
const GRACE: Duration = Duration::from_secs(5);

/// One that takes longer to start will not come.
const STARTING: Duration = Duration::from_secs(30);

/// A future of [`Program`] or [`Launcher`].
pub type Doing<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Starts the program.
pub trait Launcher: Send + Sync {
    /// Starts it with this as its standard input.
    ///
    /// # Errors
    /// Says why it could not be started.
    fn launch(&self, end: OwnedFd) -> Doing<'_, Result<Box<dyn Program>, String>>;
}

/// The program.
pub trait Program: Send {
    /// Comes when it has ended, and says how.
    fn ended(&mut self) -> Doing<'_, String>;

    /// Kills it.
    fn stop(self: Box<Self>) -> Doing<'static, ()>;
}

/// Somebody who asks.
struct Call {
    question: Question,
    answer: oneshot::Sender<Result<Answered, String>>,
}

/// What came, with the socket of a [`Question::Bind`].
type Answered = (Answer, Option<OwnedFd>);

/// One that asks the program.
pub struct Helper {
    calls: mpsc::UnboundedSender<Call>,
}

impl Helper {
    /// Starts nothing yet. The program ends when there was no question for as long as `idle`. Needs a
    /// tokio runtime.
    #[must_use]
    pub fn new(launcher: impl Launcher + 'static, idle: Duration) -> Helper {
        let (sender, calls) = mpsc::unbounded_channel();
        tokio::spawn(keep(launcher, idle, calls));
        Helper { calls: sender }
    }

    /// See [`super::Network::check`].
    pub(super) async fn check(&self, check: Check, timeout: Duration) -> Result<(), String> {
        let answer = self.ask(Question::Check(check, timeout)).await.unwrap_or_else(|_| ending());
        match answer {
            Ok((Answer::Checked(outcome), _)) => outcome,
            Ok(_) => Err(UNFIT.to_owned()),
            Err(text) => Err(text),
        }
    }

    /// See [`super::Network::bind`].
    pub(super) async fn bind(&self, address: SocketAddr, used: Use) -> io::Result<OwnedFd> {
        let answer = self.ask(Question::Bind(address, used)).await;
        bound(address, answer.unwrap_or_else(|_| ending()))
    }

    /// See [`super::Network::bind_blocking`].
    pub(super) fn bind_blocking(&self, address: SocketAddr, used: Use) -> io::Result<OwnedFd> {
        let answer = self.ask(Question::Bind(address, used)).blocking_recv();
        bound(address, answer.unwrap_or_else(|_| ending()))
    }

    fn ask(&self, question: Question) -> oneshot::Receiver<Result<Answered, String>> {
        let (answer, receiver) = oneshot::channel();
        // Where nobody listens the receiver hears of it.
        let _ = self.calls.send(Call { question, answer });
        receiver
    }
}

const UNFIT: &str = "what provost-net answered is no answer to it";

fn ending<T>() -> Result<T, String> {
    Err("the supervisor is ending".to_owned())
}

fn bound(address: SocketAddr, answer: Result<Answered, String>) -> io::Result<OwnedFd> {
    match answer {
        Ok((Answer::Bound(Ok(())), Some(socket))) if is_at(&socket, address) => Ok(socket),
        Ok((Answer::Bound(Err(number)), _)) => Err(io::Error::from_raw_os_error(number)),
        Ok(_) => Err(io::Error::other(UNFIT)),
        Err(text) => Err(io::Error::other(text)),
    }
}

/// Whoever speaks to others is not believed blindly: the process that gets a socket relies on where it
/// is.
fn is_at(socket: &OwnedFd, wanted: SocketAddr) -> bool {
    let address = getsockname(socket).ok().and_then(|address| SocketAddr::try_from(address).ok());
    let is_same = |is: SocketAddr| {
        is.ip() == wanted.ip() && (is.port() == wanted.port() || wanted.port() == 0)
    };
    sockopt::socket_type(socket) == Ok(SocketType::STREAM) && address.is_some_and(is_same)
}

/// Has the program there while anybody asks.
async fn keep(launcher: impl Launcher, idle: Duration, mut calls: mpsc::UnboundedReceiver<Call>) {
    let mut told = String::new();
    while let Some(first) = calls.recv().await {
        match start(&launcher).await {
            Ok((channel, program)) => {
                told.clear();
                let waiting = HashMap::new();
                let mut session = Session { channel, idle, number: 0, waiting };
                session.run(program, first, &mut calls).await;
            }
            Err(error) => {
                // Every question tries again.
                if error != told {
                    tracing::warn!("provost-net could not be started: {error}");
                }
                let text = format!("provost-net, which does it, could not be started: {error}");
                told = error;
                // Those who came meanwhile wanted the same one.
                let mut call = Some(first);
                while let Some(one) = call {
                    let _ = one.answer.send(Err(text.clone()));
                    call = calls.try_recv().ok();
                }
            }
        }
    }
}

async fn start(launcher: &impl Launcher) -> Result<(Channel, Box<dyn Program>), String> {
    let (own, end) = pair().map_err(|error| error.to_string())?;
    let channel = Channel::new(own).map_err(|error| error.to_string())?;
    let started = timeout(STARTING, launcher.launch(end)).await;
    // One that comes all the same finds its end closed.
    let program = started.unwrap_or_else(|_| Err(format!("not within {STARTING:?}")))?;
    Ok((channel, program))
}

/// One program that runs.
struct Session {
    channel: Channel,
    idle: Duration,
    number: u64,
    waiting: HashMap<u64, Waiting>,
}

struct Waiting {
    answer: oneshot::Sender<Result<Answered, String>>,
    /// After that nothing comes.
    until: Instant,
}

/// Why a program is done with.
enum Over {
    /// Nobody asked.
    Idle,
    /// It ended.
    Ended(String),
    /// It says nothing, or something that cannot be read.
    Stuck(String),
}

impl Session {
    /// Asks and hears until the program is done with.
    async fn run(
        &mut self,
        mut program: Box<dyn Program>,
        first: Call,
        calls: &mut mpsc::UnboundedReceiver<Call>,
    ) {
        let over = {
            // It takes in what is told of the program, and must not be given up in between.
            let mut ended = program.ended();
            let mut over = self.ask(first).await;
            loop {
                if let Some(over) = over.take() {
                    break over;
                }
                let until = self.until();
                over = tokio::select! {
                    biased;
                    message = self.channel.receive() => match message {
                        Ok(Some((message, socket))) => {
                            self.hear(message, socket);
                            None
                        }
                        // How it ended is told next.
                        Ok(None) => Some(Over::Ended((&mut ended).await)),
                        Err(error) => Some(Over::Stuck(error.to_string())),
                    },
                    how = &mut ended => Some(Over::Ended(how)),
                    call = calls.recv() => match call {
                        Some(call) => self.ask(call).await,
                        None => Some(Over::Idle),
                    },
                    () = sleep_until(until) => Some(match self.waiting.is_empty() {
                        true => Over::Idle,
                        false => Over::Stuck("it does not answer".to_owned()),
                    }),
                };
            }
        };
        self.finish(program, over);
    }

    /// When to give up waiting.
    fn until(&self) -> Instant {
        let first = self.waiting.values().map(|waiting| waiting.until).min();
        first.unwrap_or_else(|| Instant::now() + self.idle)
    }

    async fn ask(&mut self, Call { question, answer }: Call) -> Option<Over> {
        self.number += 1;
        let time = match &question {
            Question::Check(_, time) => *time,
            Question::Bind(..) => Duration::ZERO,
        };
        let message = Numbered { number: self.number, what: question };
        // It takes questions while it works on others, so this does not wait but for one that hangs.
        match timeout(GRACE, self.channel.send(&message, None)).await {
            Err(_) => {
                let _ = answer.send(Err(STUCK.to_owned()));
                return Some(Over::Stuck("it takes no questions".to_owned()));
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidInput => {
                let _ = answer.send(Err(error.to_string()));
                return None;
            }
            // One that is gone is heard of, by all who wait.
            Ok(_) => {}
        }
        let until = Instant::now() + time + GRACE;
        self.waiting.insert(self.number, Waiting { answer, until });
        None
    }

    fn hear(&mut self, message: Numbered<Answer>, socket: Option<OwnedFd>) {
        if let Some(waiting) = self.waiting.remove(&message.number) {
            // Whoever asked may be gone.
            let _ = waiting.answer.send(Ok((message.what, socket)));
        }
    }

    fn finish(&mut self, mut program: Box<dyn Program>, over: Over) {
        let text = match over {
            Over::Idle => {
                // It ends when this end is closed, which is when this function is left.
                tokio::spawn(async move {
                    if timeout(GRACE, program.ended()).await.is_err() {
                        program.stop().await;
                    }
                });
                return;
            }
            Over::Ended(how) => {
                tracing::warn!(
                    "provost-net ended: {how}; another one is started when it is needed"
                );
                format!("provost-net, which does it, ended: {how}")
            }
            Over::Stuck(what) => {
                tracing::warn!("provost-net: {what}: it is killed");
                tokio::spawn(program.stop());
                STUCK.to_owned()
            }
        };
        for (_, waiting) in self.waiting.drain() {
            let _ = waiting.answer.send(Err(text.clone()));
        }
    }
}

const STUCK: &str = "provost-net, which does it, says nothing";

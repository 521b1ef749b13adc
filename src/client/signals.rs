//! Signals of the daemon, always taken off the connection at once.
//!
//! A stream of signals that is not read would in the end block the whole connection, answers
//! included. So each has a task of its own, which ends with whoever holds it.

use super::connect::Link;
use super::error::ClientError;
use super::matches::Asked;
use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use zbus::message::{Message, Type};
use zbus::{MatchRule, MessageStream};

/// Ends a task when dropped.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// All of some signals, in order.
#[derive(Debug)]
pub struct Signals {
    messages: mpsc::UnboundedReceiver<Message>,
    _task: Task,
    asked: Option<Asked>,
}

/// That there were signals, not which.
#[derive(Debug)]
pub struct Bell {
    rung: watch::Receiver<()>,
    _task: Task,
    _asked: Option<Asked>,
}

/// What to listen to.
#[derive(Clone, Copy, Debug)]
pub enum Select {
    /// The signals of the manager.
    Manager,
    /// One signal of the manager.
    Member(&'static str),
    /// All signals of all objects.
    All,
}

impl Signals {
    pub async fn of(link: &Link, select: Select) -> Result<Signals, ClientError> {
        let Streams { mut stream, mut left, rule } = streams(link, select).await?;
        let (send, messages) = mpsc::unbounded_channel();
        let task = Task(tokio::spawn(async move {
            while let Some(message) = next(&mut stream, &mut left).await {
                if send.send(message).is_err() {
                    break;
                }
            }
        }));
        let asked = ask_for(link, rule).await?;
        Ok(Signals { messages, _task: task, asked })
    }

    pub async fn next(&mut self) -> Result<Message, ClientError> {
        self.messages.recv().await.ok_or(ClientError::Gone)
    }

    /// Listens no more, which the daemon is told before anything else.
    pub async fn end(self) {
        if let Some(asked) = self.asked {
            asked.end().await;
        }
    }
}

impl Bell {
    pub async fn of(link: &Link, select: Select) -> Result<Bell, ClientError> {
        let Streams { mut stream, mut left, rule } = streams(link, select).await?;
        let (ring, rung) = watch::channel(());
        let task = Task(tokio::spawn(async move {
            while next(&mut stream, &mut left).await.is_some() {
                if ring.send(()).is_err() {
                    break;
                }
            }
        }));
        let asked = ask_for(link, rule).await?;
        Ok(Bell { rung, _task: task, _asked: asked })
    }

    pub async fn rung(&mut self) -> Result<(), ClientError> {
        self.rung.changed().await.map_err(|_| ClientError::Gone)
    }
}

/// The next signal; None when the daemon or the connection is gone.
async fn next(stream: &mut MessageStream, left: &mut Option<MessageStream>) -> Option<Message> {
    let gone = async {
        match left {
            Some(left) => drop(left.next().await),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        message = stream.next() => message?.ok(),
        () = gone => None,
    }
}

/// What is listened to.
struct Streams {
    stream: MessageStream,
    /// Tells that the daemon has left the bus.
    left: Option<MessageStream>,
    /// On a private socket: what is to be asked for.
    rule: Option<MatchRule<'static>>,
}

/// When somebody takes what comes off the connection.
async fn ask_for(
    link: &Link,
    rule: Option<MatchRule<'static>>,
) -> Result<Option<Asked>, ClientError> {
    let Some(rule) = rule else { return Ok(None) };
    Ok(Some(link.matches.ask_for(&link.connection, &rule).await?))
}

async fn streams(link: &Link, select: Select) -> Result<Streams, ClientError> {
    let mut rule = MatchRule::builder().msg_type(Type::Signal);
    rule = match select {
        Select::All => rule.path_namespace("/org/provost/Provost1"),
        Select::Manager => rule.interface("org.provost.Provost1.Manager"),
        Select::Member(member) => rule.interface("org.provost.Provost1.Manager").member(member),
    };
    let Some(daemon) = &link.daemon else {
        let rule = rule.build()?.into_owned();
        let stream = MessageStream::for_match_rule(rule.clone(), &link.connection, None).await?;
        return Ok(Streams { stream, left: None, rule: Some(rule) });
    };
    let rule = rule.sender(daemon.as_str()).build()?;
    let stream = MessageStream::for_match_rule(rule, &link.connection, None).await?;
    let left = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender("org.freedesktop.DBus")
        .interface("org.freedesktop.DBus")
        .member("NameOwnerChanged")
        .arg(0, daemon.as_str())
        .build()?;
    let left = MessageStream::for_match_rule(left, &link.connection, None).await?;
    Ok(Streams { stream, left: Some(left), rule: None })
}

//! confirm, and the question after `apply --confirm`.

use super::args::Confirm as Args;
use super::reload::{File, follow};
use super::screen::{Screen, Tone};
use super::{CliError, Outcome, exit::Exit, human};
use crate::client::{CheckpointStatus, Client};
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, SystemTime};
use tokio::sync::oneshot;

/// Keeps what waits to be confirmed.
pub async fn run(client: &Client, args: &Args, screen: &mut Screen) -> Outcome {
    let pending = client.checkpoint().await?;
    let Some(pending) = pending else {
        return Err(CliError::Failed("nothing waits to be confirmed".to_owned()));
    };
    let generation = args.generation.unwrap_or(pending.generation);
    client.confirm(generation).await?;
    kept(generation, screen)
}

fn kept(generation: u64, screen: &mut Screen) -> Outcome {
    if screen.json() {
        screen.value(&serde_json::json!({ "generation": generation, "confirmed": true }))?;
    } else if !screen.quiet {
        screen.line(format_args!("confirmed: generation {generation} stays"))?;
    }
    Ok(Exit::Ok)
}

/// What was applied waits to be confirmed: asks, where somebody is there to be asked, or says how.
pub async fn ask(client: &Client, screen: &mut Screen) -> Outcome {
    // Where nothing differed there is nothing to be confirmed.
    let Some(pending) = client.checkpoint().await? else { return Ok(Exit::Ok) };
    let left = left(&pending);
    let generation = pending.generation;
    if screen.json() || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        screen.note(format_args!(
            "  it is undone in {} unless: provost confirm",
            human::duration(left)
        ));
        return Ok(Exit::Ok);
    }
    // What was applied is read before the question about it.
    screen.flush()?;
    let question = format!(
        "Keep generation {generation}? In {} it is undone by itself. [y/N] ",
        human::duration(left)
    );
    let answer = answer(&screen.err_style.paint(Tone::Uneasy, question).to_string());
    match tokio::time::timeout(left, answer).await {
        Ok(Ok(true)) => {
            client.confirm(generation).await?;
            kept(generation, screen)
        }
        Ok(Ok(false)) => {
            let work = client.take_back(generation);
            follow(client, work, File::GoesBack, None, screen).await
        }
        // Nobody can say anything any more.
        Ok(Err(_)) => {
            screen.note("\n  not answered; it is undone in time, unless: provost confirm");
            Ok(Exit::Ok)
        }
        Err(_) => {
            screen.note("\nnot confirmed in time: it is being undone, see provost status");
            Ok(Exit::RolledBack)
        }
    }
}

fn left(pending: &CheckpointStatus) -> Duration {
    let left = pending.deadline.and_then(|at| at.duration_since(SystemTime::now()).ok());
    // Of a minute that was just given, nobody wants to read 59 seconds.
    let left = left.unwrap_or_default() + Duration::from_millis(999);
    Duration::from_secs(left.as_secs())
}

/// Comes with the answer; with an error when the input ends without one.
fn answer(question: &str) -> oneshot::Receiver<bool> {
    let _ = write!(io::stderr(), "{question}");
    let (sender, receiver) = oneshot::channel();
    // A thread that is waited for would hold up the end until somebody presses a key.
    std::thread::spawn(move || {
        let mut line = String::new();
        if matches!(io::stdin().read_line(&mut line), Ok(1..)) {
            let word = line.trim().to_ascii_lowercase();
            // Nobody listens any more after the time is over.
            let _ = sender.send(matches!(word.as_str(), "y" | "yes"));
        }
    });
    receiver
}

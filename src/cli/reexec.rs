//! `daemon-reexec`: the program on disk in the place of the one that runs.

use super::screen::Screen;
use super::{CliError, Outcome, exit::Exit, target::Found};
use crate::client::{Client, ClientError, Target};
use std::time::{Duration, Instant};

/// It adopts everything before it answers; with ten thousand processes that takes seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// A bus does not tell those who only look for a name.
const AGAIN: Duration = Duration::from_millis(50);

/// Asks, and waits until what followed answers.
pub async fn run(found: &Found, screen: &mut Screen) -> Outcome {
    let before = found.client.manager().await?.version;
    found.client.reexec().await?;
    let now = back(&found.target).await?.manager().await?.version;
    if screen.json() {
        screen.value(&serde_json::json!({ "before": before, "now": now }))?;
    } else {
        screen.note(format_args!("{} goes on as {now}, after {before}", found.whose));
    }
    Ok(Exit::Ok)
}

async fn back(target: &Target) -> Result<Client, CliError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match tokio::time::timeout_at(deadline.into(), Client::connect(target)).await {
            Ok(Ok(client)) => return Ok(client),
            Ok(Err(error @ ClientError::Denied(_))) => return Err(error.into()),
            Ok(Err(_)) if Instant::now() < deadline => tokio::time::sleep(AGAIN).await,
            Ok(Err(error)) => return Err(gone(&error.to_string())),
            Err(_) => return Err(gone("it does not answer")),
        }
    }
}

fn gone(why: &str) -> CliError {
    CliError::Failed(format!(
        "the daemon made way for the program on disk, which has not come: {why}\n  \
         its log says why: journalctl -u provostd"
    ))
}

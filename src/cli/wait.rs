//! `wait`: until processes are as asked, told by the daemon's signals and never by asking again and
//! again.

use super::args::{Goal, Wait as Args};
use super::screen::Screen;
use super::{CliError, Outcome, exit::Exit, human, json, names::Names, state};
use crate::client::{Client, ClientError, ProcessStatus};
use std::time::Duration;

/// Waits until all that the names stand for are as asked.
pub async fn run(client: &Client, args: &Args, screen: &mut Screen) -> Outcome {
    let names = Names::ask(client).await?;
    for remark in names.remarks(&args.on.names) {
        screen.note(remark);
    }
    let work = until(client, args, &names);
    let waited = tokio::time::timeout(args.timeout.unwrap_or(Duration::MAX), work).await;
    match waited {
        Ok(reached) => {
            let reached = reached?;
            if screen.json() {
                let rows = reached.iter().map(|s| json::process(s, names.show(&s.id)));
                screen.value(&rows.collect())?;
            } else if !screen.quiet {
                for status in &reached {
                    screen.line(format_args!("{}: {}", names.show(&status.id), status.state))?;
                }
            }
            Ok(Exit::Ok)
        }
        Err(_) => {
            let limit = human::duration(args.timeout.unwrap_or_default());
            let left: Vec<String> = client
                .status(&args.on.names)
                .await?
                .iter()
                .filter(|status| verdict(status, args.state) != Verdict::Reached)
                .map(|status| format!("\n  {} {}", names.show(&status.id), state::doing(status)))
                .collect();
            Err(CliError::Failed(format!("not as asked after {limit}:{}", left.concat())))
        }
    }
}

async fn until(
    client: &Client,
    args: &Args,
    names: &Names,
) -> Result<Vec<ProcessStatus>, CliError> {
    // Before the first look: what changes between the two is not missed.
    let mut watch = client.watch().await?;
    let mut seen = false;
    loop {
        let chosen = match client.status(&args.on.names).await {
            // Taken out of the file while we waited for it to be down: it is.
            Err(ClientError::NoSuchProcess(_)) if seen && args.state == Goal::Down => {
                return Ok(Vec::new());
            }
            other => other?,
        };
        seen = true;
        let verdicts = || chosen.iter().map(|status| (status, verdict(status, args.state)));
        if verdicts().all(|(_, verdict)| verdict == Verdict::Reached) {
            return Ok(chosen);
        }
        if let Some((status, _)) = verdicts().find(|(_, verdict)| *verdict == Verdict::Never) {
            let shown = names.show(&status.id);
            let why = match state::why(status) {
                why if why.is_empty() => String::new(),
                why => format!(": {why}"),
            };
            return Err(CliError::Failed(format!(
                "{shown} is {}{why}\n  provost why {shown}  # what happened",
                status.state
            )));
        }
        watch.changed().await?;
    }
}

/// Whether it is as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Reached,
    NotYet,
    /// Not without somebody's doing.
    Never,
}

fn verdict(status: &ProcessStatus, goal: Goal) -> Verdict {
    let state = status.state.as_str();
    let reached = match goal {
        Goal::Up => state::is_up(status),
        Goal::Running => state == "running",
        Goal::Healthy => state == "running" && status.health == "healthy",
        Goal::Down => matches!(state, "down" | "completed" | "failed"),
        Goal::Completed => state == "completed",
        Goal::Failed => state == "failed",
    };
    let never = match goal {
        Goal::Up | Goal::Completed => state == "failed",
        Goal::Running => matches!(state, "failed" | "completed"),
        Goal::Healthy => {
            matches!(state, "failed" | "completed") || state == "running" && status.health == "none"
        }
        Goal::Down => false,
        Goal::Failed => state == "completed",
    };
    match (reached, never) {
        (true, _) => Verdict::Reached,
        (false, true) => Verdict::Never,
        (false, false) => Verdict::NotYet,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(state: &str, health: &str) -> ProcessStatus {
        ProcessStatus { state: state.into(), health: health.into(), ..Default::default() }
    }

    #[test]
    fn what_cannot_come_by_itself_is_not_awaited() {
        use Goal::{Completed, Down, Failed, Healthy, Running, Up};
        use Verdict::{Never, NotYet, Reached};
        for (state, health, goal, expected) in [
            ("running", "none", Up, Reached),
            ("running", "unhealthy", Up, NotYet),
            ("completed", "none", Up, Reached),
            ("backoff", "none", Up, NotYet),
            ("failed", "none", Up, Never),
            ("running", "unhealthy", Running, Reached),
            ("completed", "none", Running, Never),
            ("running", "healthy", Healthy, Reached),
            ("running", "starting", Healthy, NotYet),
            ("running", "none", Healthy, Never),
            ("stopping", "none", Down, NotYet),
            ("down", "none", Down, Reached),
            ("running", "none", Completed, NotYet),
            ("completed", "none", Completed, Reached),
            ("failed", "none", Failed, Reached),
            ("down", "none", Running, NotYet),
        ] {
            assert_eq!(verdict(&of(state, health), goal), expected, "{state} {health} {goal:?}");
        }
    }
}

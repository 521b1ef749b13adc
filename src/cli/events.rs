//! `events`: what happened, and what happens.

use super::args::Events as Args;
use super::screen::{Screen, Tone, visible};
use super::{CliError, Outcome, exit::Exit, human, json, names::Names};
use crate::client::{Client, EventLine};
use std::collections::{BTreeSet, VecDeque};

/// How many lines are asked for at a time.
const PAGE: u32 = 1000;

/// Shows the event log.
pub async fn run(client: &Client, args: &Args, screen: &mut Screen) -> Outcome {
    let names = Names::ask(client).await?;
    for remark in names.remarks(&args.names) {
        screen.note(remark);
    }
    let only: Option<BTreeSet<String>> = if args.names.is_empty() {
        None
    } else {
        let chosen = client.status(&args.names).await?;
        Some(chosen.into_iter().map(|status| status.id).collect())
    };
    let concerns = |line: &EventLine| match (&only, &line.instance) {
        (None, _) => true,
        (Some(only), Some(instance)) => only.contains(instance),
        (Some(_), None) => false,
    };
    let (lines, cursor) = last(client, args.lines, concerns).await?;
    for line in &lines {
        print(line, &names, screen)?;
    }
    screen.flush()?;
    if !args.follow {
        return Ok(Exit::Ok);
    }
    let mut stream = client.follow_events(cursor.as_deref()).await?;
    loop {
        let line = stream.next().await?;
        if concerns(&line) {
            print(&line, &names, screen)?;
            screen.flush()?;
        }
    }
}

/// The last lines that are of concern, and the cursor after all there are.
async fn last(
    client: &Client,
    count: usize,
    concerns: impl Fn(&EventLine) -> bool,
) -> Result<(VecDeque<EventLine>, Option<String>), CliError> {
    let mut kept = VecDeque::new();
    let mut cursor: Option<String> = None;
    loop {
        let (lines, next) = client.events(cursor.as_deref(), PAGE).await?;
        let end = lines.is_empty();
        for line in lines.into_iter().filter(&concerns) {
            kept.push_back(line);
            if kept.len() > count {
                kept.pop_front();
            }
        }
        cursor = Some(next);
        if end {
            return Ok((kept, cursor));
        }
    }
}

fn print(line: &EventLine, names: &Names, screen: &mut Screen) -> std::io::Result<()> {
    if screen.json() {
        return screen.value_line(&json::event(line));
    }
    let style = screen.style;
    let tone = match line.kind.as_str() {
        "spawn-failed" | "gave-up" | "start-timed-out" | "still-there" => Tone::Bad,
        "unhealthy" | "killing" | "backing-off" | "check-failed" => Tone::Uneasy,
        "ready" | "healthy" | "completed" => Tone::Good,
        _ => Tone::Plain,
    };
    let at = style.paint(Tone::Quiet, human::clock(line.at));
    let about = line.instance.as_deref().map_or("-", |id| names.show(id));
    let kind = style.paint(tone, format!("{:16}", line.kind)).to_string();
    screen.line(format_args!("{at}  {about:12}  {kind}  {}", visible(&line.message)))
}

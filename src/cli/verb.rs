//! start, stop, restart, reload of processes, and reset-failed: asked for, waited for, and one line for each result.

use super::args::Waiting;
use super::progress::{self, View, Waited};
use super::screen::{Screen, Style, Tone, visible};
use super::{CliError, Outcome, exit::Exit, human, json, names::Names, state};
use crate::client::{Client, JobOutcome, ProcessStatus, Verb};
use std::collections::BTreeSet;
use std::time::Instant;

/// Does `verb` to what the names stand for.
pub async fn run(
    client: &Client,
    verb: Verb,
    written: &[String],
    waiting: Waiting,
    screen: &mut Screen,
) -> Outcome {
    let before = client.status(&[]).await?;
    let names = Names::new(before.iter().map(|status| status.id.as_str()));
    let asked: BTreeSet<String> =
        client.status(written).await?.into_iter().map(|status| status.id).collect();
    for remark in names.remarks(written) {
        screen.note(remark);
    }
    if waiting.no_wait {
        return submit(client, verb, written, &names, screen).await;
    }
    let begun = Instant::now();
    let (ends, ended) = tokio::sync::mpsc::unbounded_channel();
    let work = client.run(verb, written, move |outcome| {
        // Nobody listens any more only when we are gone ourselves.
        let _ = ends.send(outcome.clone());
    });
    let concerns = |status: &ProcessStatus, ended: &BTreeSet<String>| {
        let first = verb == Verb::Stop && status.state == "stopping";
        let awaited = asked.contains(&status.id) || first;
        awaited && !ended.contains(&status.id)
    };
    let view = View { client, names: &names, concerns: &concerns };
    let told = |outcome: &JobOutcome, screen: &mut Screen| {
        if screen.json() || screen.quiet && outcome.is_success() {
            return Ok(());
        }
        let shown = names.show(&outcome.name);
        let took = human::duration(begun.elapsed());
        let outcome = &unless_it_was(verb, &before, outcome);
        screen.line(line(verb, outcome, shown, asked.contains(&outcome.name), &took, screen.style))
    };
    match progress::watch(work, ended, view, waiting.timeout, screen, told).await? {
        Waited::Ended(mut outcomes) => {
            for along in went_along(client, verb, &before, &asked).await? {
                told(&along, screen)?;
                outcomes.push(along);
            }
            finish(client, verb, &outcomes, &asked, &names, screen).await
        }
        Waited::OutOfTime(left) => Err(out_of_time(&left, &names, waiting)),
    }
}

/// The outcome, where it says `done`, as `skipped` for what was so before it was asked for.
fn unless_it_was(verb: Verb, before: &[ProcessStatus], outcome: &JobOutcome) -> JobOutcome {
    let was = before.iter().find(|status| status.id == outcome.name);
    let was_so = was.is_some_and(|status| match (verb, status.state.as_str()) {
        (Verb::Start { .. }, "running") => status.desired == "up",
        (Verb::Stop, "down" | "completed" | "failed") => true,
        _ => false,
    });
    let mut outcome = outcome.clone();
    if was_so && outcome.result == "done" {
        outcome.result = "skipped".to_owned();
    }
    outcome
}

/// What went down because what it depends on was stopped: it had no job of its own.
async fn went_along(
    client: &Client,
    verb: Verb,
    before: &[ProcessStatus],
    asked: &BTreeSet<String>,
) -> Result<Vec<JobOutcome>, CliError> {
    if verb != Verb::Stop {
        return Ok(Vec::new());
    }
    let ran = |id: &str| before.iter().any(|status| status.id == id && status.pid.is_some());
    let now = client.status(&[]).await?;
    let along = now.into_iter().filter(|status| {
        status.state == "waiting" && !asked.contains(&status.id) && ran(&status.id)
    });
    let outcome = |status: ProcessStatus| JobOutcome {
        id: 0,
        name: status.id,
        result: "done".to_owned(),
        detail: String::new(),
    };
    Ok(along.map(outcome).collect())
}

/// Asks, and says what was asked for.
async fn submit(
    client: &Client,
    verb: Verb,
    written: &[String],
    names: &Names,
    screen: &mut Screen,
) -> Outcome {
    let jobs = client.submit(verb, written).await?;
    if screen.json() {
        let rows = jobs.iter().map(|job| {
            serde_json::json!({ "id": job.name, "name": names.show(&job.name), "job": job.id })
        });
        screen.value(&rows.collect())?;
    } else if !screen.quiet {
        for job in &jobs {
            screen.line(format_args!("{}: {} asked for", names.show(&job.name), word(verb)))?;
        }
    }
    Ok(Exit::Ok)
}

/// The exit code, the data for programs, and what to do about failures.
async fn finish(
    client: &Client,
    verb: Verb,
    outcomes: &[JobOutcome],
    asked: &BTreeSet<String>,
    names: &Names,
    screen: &mut Screen,
) -> Outcome {
    if screen.json() {
        let rows = outcomes.iter().map(|outcome| {
            json::job(outcome, names.show(&outcome.name), asked.contains(&outcome.name))
        });
        screen.value(&rows.collect())?;
    }
    let failed: Vec<&JobOutcome> = outcomes.iter().filter(|o| !o.is_success()).collect();
    if failed.is_empty() {
        return Ok(Exit::Ok);
    }
    let ids: Vec<String> = failed.iter().map(|outcome| outcome.name.clone()).collect();
    // What it is like by now; a process that is gone by now needs no advice.
    let now = client.status(&ids).await.unwrap_or_default();
    for outcome in failed {
        let Some(status) = now.iter().find(|status| status.id == outcome.name) else { continue };
        let shown = names.show(&status.id);
        let why = state::why(status);
        if outcome.detail.is_empty() && !why.is_empty() {
            screen.error(format_args!("{shown}: {why}"));
        }
        if verb == Verb::Reload {
            // Who may not read it is not told it.
            let printed = client.reload_output(&status.id).await.unwrap_or_default();
            for line in printed.lines() {
                screen.note(format_args!("  {}", visible(line)));
            }
        }
        for (command, what) in state::advice(status, shown) {
            screen.note(format_args!("  {command}  # {what}"));
        }
        screen.note(format_args!("  provost why {shown}  # what happened, and what comes next"));
    }
    Ok(Exit::Failed)
}

fn out_of_time(left: &[ProcessStatus], names: &Names, waiting: Waiting) -> CliError {
    let limit = human::duration(waiting.timeout.unwrap_or_default());
    let left: Vec<String> = left
        .iter()
        .map(|status| format!("\n  {} {}", names.show(&status.id), state::doing(status)))
        .collect();
    CliError::Failed(format!("not done after {limit}; what was asked for goes on{}", left.concat()))
}

fn word(verb: Verb) -> &'static str {
    match verb {
        Verb::Start { .. } => "start",
        Verb::Stop => "stop",
        Verb::Restart => "restart",
        Verb::Reload => "reload",
    }
}

/// One line of result.
fn line(
    verb: Verb,
    outcome: &JobOutcome,
    shown: &str,
    asked: bool,
    took: &str,
    style: Style,
) -> String {
    let detail = |otherwise: &str| {
        if outcome.detail.is_empty() { otherwise.to_owned() } else { visible(&outcome.detail) }
    };
    let said = match (outcome.result.as_str(), verb) {
        ("done", Verb::Start { .. }) => format!("started in {took}"),
        ("done", Verb::Stop) if !asked => "stopped first".to_owned(),
        ("done", Verb::Stop) => format!("stopped in {took}"),
        ("done", Verb::Restart) => format!("restarted in {took}"),
        ("done", Verb::Reload) => "told to take its settings anew".to_owned(),
        ("skipped", Verb::Start { .. }) => detail("was up already"),
        ("skipped", Verb::Stop) => detail("was down already"),
        ("skipped", Verb::Restart | Verb::Reload) => detail("there was nothing to do"),
        ("failed", _) => format!("{} failed: {}", word(verb), detail("see below")),
        ("timeout", _) => format!("{} ran out of time: {}", word(verb), detail("not ready")),
        ("dependency", _) => {
            format!("{} is held: {}", word(verb), detail("what it depends on is not up"))
        }
        ("canceled", _) => {
            format!("{} was canceled: {}", word(verb), detail("something newer was asked for"))
        }
        (other, _) => format!("{}: {}", word(verb), detail(other)),
    };
    let also = if asked { "" } else { ", because it depends on what was asked for" };
    let (tone, symbol) = match (outcome.is_success(), style.unicode) {
        (true, true) => (Tone::Good, "✓ "),
        (true, false) => (Tone::Good, "+ "),
        (false, true) => (Tone::Bad, "✗ "),
        (false, false) => (Tone::Bad, "x "),
    };
    let symbol = if style.terminal { symbol } else { "" };
    format!("{}{shown}: {said}{also}", style.paint(tone, symbol))
}

/// Has failed ones tried again.
pub async fn reset_failed(client: &Client, written: &[String], screen: &mut Screen) -> Outcome {
    let names = Names::ask(client).await?;
    for remark in names.remarks(written) {
        screen.note(remark);
    }
    client.reset_failed(written).await?;
    let now = client.status(written).await?;
    if screen.json() {
        let rows = now.iter().map(|status| json::process(status, names.show(&status.id)));
        screen.value(&rows.collect())?;
    } else if !screen.quiet {
        for status in &now {
            screen.line(format_args!("{}: {}", names.show(&status.id), state::doing(status)))?;
        }
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(verb: Verb, result: &str, detail: &str, asked: bool) -> String {
        let outcome = JobOutcome {
            id: 1,
            name: "api@0".into(),
            result: result.into(),
            detail: detail.into(),
        };
        line(verb, &outcome, "api", asked, "1.2s", Style::default())
    }

    #[test]
    fn each_result_has_its_line() {
        let start = Verb::Start { once: false };
        assert_eq!(said(start, "done", "", true), "api: started in 1.2s");
        assert_eq!(said(start, "skipped", "", true), "api: was up already");
        assert_eq!(
            said(start, "failed", "exited with code 1", true),
            "api: start failed: exited with code 1"
        );
        assert_eq!(
            said(Verb::Reload, "failed", "exited with code 1", true),
            "api: reload failed: exited with code 1"
        );
        assert_eq!(
            said(Verb::Stop, "done", "", false),
            "api: stopped first, because it depends on what was asked for"
        );
        assert_eq!(
            said(Verb::Restart, "canceled", "", true),
            "api: restart was canceled: something newer was asked for"
        );
        assert_eq!(
            said(Verb::Stop, "word-of-a-newer-daemon", "", true),
            "api: stop: word-of-a-newer-daemon"
        );
    }
}

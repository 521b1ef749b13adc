//! `why`: what happened, what is awaited, when the next try is, and what to do.

use super::screen::{Screen, Tone, visible};
use super::{Outcome, exit::Exit, human, json, names::Names, state};
use crate::client::{Client, ProcessStatus};
use std::io;
use std::time::SystemTime;

/// Explains the state of processes.
pub async fn run(client: &Client, written: &[String], screen: &mut Screen) -> Outcome {
    let names = Names::ask(client).await?;
    let chosen = client.status(written).await?;
    let mut printed = Vec::new();
    for status in &chosen {
        printed.push(check_output(client, status).await);
    }
    if screen.json() {
        let rows = chosen.iter().zip(&printed).map(|(status, printed)| {
            let shown = names.show(&status.id);
            let advice = state::advice(status, shown);
            serde_json::json!({
                "id": status.id,
                "name": shown,
                "state": status.state,
                "up": state::is_up(status),
                "explanation": explain(status, shown, SystemTime::now()),
                "check_output": printed,
                "advice": advice.iter().map(|(command, what)| {
                    serde_json::json!({ "command": command, "for": what })
                }).collect::<Vec<_>>(),
                "process": json::process(status, shown),
            })
        });
        screen.value(&rows.collect())?;
        return Ok(Exit::Ok);
    }
    for remark in names.remarks(written) {
        screen.note(remark);
    }
    for (n, (status, printed)) in chosen.iter().zip(&printed).enumerate() {
        if n > 0 {
            screen.line("")?;
        }
        print(status, names.show(&status.id), printed.as_deref(), screen)?;
    }
    Ok(Exit::Ok)
}

/// What the check wrote, where it fails and the caller may know.
async fn check_output(client: &Client, status: &ProcessStatus) -> Option<String> {
    if status.health_detail.is_empty() || status.health == "healthy" {
        return None;
    }
    // Who may not read the log is still told all the rest.
    client.check_output(&status.id).await.ok().filter(|text| !text.is_empty())
}

fn print(
    status: &ProcessStatus,
    shown: &str,
    check_output: Option<&str>,
    screen: &mut Screen,
) -> io::Result<()> {
    let style = screen.style;
    let mut sentences = explain(status, shown, SystemTime::now()).into_iter();
    if let Some(first) = sentences.next() {
        screen.line(style.paint(Tone::Strong, first))?;
    }
    for sentence in sentences {
        screen.line(format_args!("  {}", visible(&sentence)))?;
    }
    if let Some(text) = check_output {
        screen.line("What its check wrote:")?;
        for line in text.lines() {
            screen.line(format_args!("  {}", visible(line)))?;
        }
    }
    if !status.history.is_empty() {
        screen.line("What happened, the latest last:")?;
        history(status, screen)?;
    }
    let advice = state::advice(status, shown);
    if !advice.is_empty() {
        screen.line("What you can do:")?;
        let width = advice.iter().map(|(command, _)| command.len()).max().unwrap_or(0);
        for (command, what) in advice {
            screen.line(format_args!("  {command:width$}  {what}"))?;
        }
    }
    Ok(())
}

/// The sentences, the state first.
fn explain(status: &ProcessStatus, shown: &str, now: SystemTime) -> Vec<String> {
    let since = status.since.map_or_else(String::new, |at| {
        format!(" since {} ({})", human::clock(at), human::ago(at, now))
    });
    let mut sentences = vec![format!("{shown} is {}{since}.", with_health(status))];
    let mut add = |text: String| {
        if !text.is_empty() {
            sentences.push(sentence(&text));
        }
    };
    let why = state::why(status);
    if !why.is_empty() {
        add(why.clone());
    } else if let Some(exit) = status.exit
        && !state::is_up(status)
    {
        add(format!("its last run ended with {}", state::ended(exit)));
    }
    // Where it is the reason it was said already.
    if !status.status_text.is_empty() && !why.contains(&status.status_text) {
        add(format!("it says: {}", status.status_text));
    }
    if status.enabled && status.desired == "down" && status.state == "down" {
        add("an operator's word holds until `provost start`, also over a reload".to_owned());
    }
    if status.state == "failed" {
        add("it is not tried again by itself".to_owned());
    }
    if status.restarts > 0 {
        let times = if status.restarts == 1 { "once" } else { "times" };
        let count =
            if status.restarts == 1 { String::new() } else { format!("{} ", status.restarts) };
        add(format!("it was restarted {count}{times} so far"));
    }
    sentences
}

fn with_health(status: &ProcessStatus) -> String {
    match (status.state.as_str(), status.health.as_str()) {
        ("running", "healthy" | "unhealthy") => format!("running and {}", status.health),
        ("running", "starting") => "running, its health not known yet".to_owned(),
        ("backoff", _) => "waiting for its next try (backoff)".to_owned(),
        (state, _) => state.to_owned(),
    }
}

/// With a capital letter and a full stop.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    let stop = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{first}{}{stop}", chars.as_str())
}

/// What happened, oldest first.
pub fn history(status: &ProcessStatus, screen: &mut Screen) -> io::Result<()> {
    for line in &status.history {
        let at = screen.style.paint(Tone::Quiet, human::clock(line.at)).to_string();
        screen.line(format_args!("  {at}  {}", visible(&line.message)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Exit as Ended;
    use std::time::Duration;

    fn of(state: &str) -> ProcessStatus {
        ProcessStatus {
            id: "api@0".into(),
            process: "api".into(),
            enabled: true,
            desired: "up".into(),
            state: state.into(),
            health: "none".into(),
            ..Default::default()
        }
    }

    fn explained(status: &ProcessStatus) -> String {
        explain(status, "api", SystemTime::now()).join(" ")
    }

    #[test]
    fn a_crash_is_explained_with_its_next_try() {
        let mut status = of("backoff");
        status.exit = Some(Ended::Code(3));
        status.restarts = 4;
        let rest = "It was restarted 4 times so far.";
        let head = "api is waiting for its next try (backoff).";
        assert_eq!(explained(&status), format!("{head} Its last run ended with code 3. {rest}"));
        status.next_restart = Some(Duration::from_secs(12));
        assert_eq!(explained(&status), format!("{head} Next try in 12s. {rest}"));
        status.reason = "it exited with code 3; next start in 12 s".into();
        let why = "It exited with code 3; next start in 12 s.";
        assert_eq!(explained(&status), format!("{head} {why} {rest}"));
    }

    #[test]
    fn what_is_down_says_who_wants_it_so() {
        let mut status = of("down");
        status.reason = "stopped by an operator".into();
        status.desired = "down".into();
        assert_eq!(
            explained(&status),
            "api is down. Stopped by an operator. An operator's word holds until `provost start`, \
             also over a reload."
        );
        status.enabled = false;
        status.reason = "disabled in the file".into();
        assert_eq!(explained(&status), "api is down. Disabled in the file.");
    }

    #[test]
    fn what_waits_names_what_for() {
        let mut status = of("waiting");
        status.waiting_for = vec!["db to be healthy: it is starting".into()];
        assert!(explained(&status).contains("Waits for db to be healthy: it is starting."));
    }

    #[test]
    fn nobody_is_told_to_restart_what_could_not_begin() {
        let mut status = of("running");
        status.needs_restart = true;
        assert_eq!(crate::cli::state::advice(&status, "api").len(), 1);
        status.waiting_for = vec!["db to be ready: it is failed".into()];
        assert!(crate::cli::state::advice(&status, "api").is_empty());
    }

    #[test]
    fn even_what_is_well_is_explained() {
        let mut status = of("running");
        status.health = "healthy".into();
        assert_eq!(explained(&status), "api is running and healthy.");
    }
}

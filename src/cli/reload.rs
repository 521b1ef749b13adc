//! reload, enable and disable: what a change of the files came to.

use super::args::{Apply, Reload as Args, Rollback};
use super::progress::{self, View, Waited};
use super::screen::{Screen, Style, Tone, visible};
use super::{CliError, Outcome, confirm, exit::Exit, human, json, names::Names, state};
use crate::client::{
    ApplyOptions, Client, ClientError, ProcessStatus, ReloadOptions, ReloadSummary, Verb,
};
use std::collections::BTreeSet;
use std::time::Duration;

/// Has the files read and applied.
pub async fn run(client: &Client, args: &Args, screen: &mut Screen) -> Outcome {
    let options = ReloadOptions { expect_generation: args.expect_generation, force: args.force };
    let work = client.reload(&options);
    let exit = follow(client, work, File::Stays, args.timeout, screen).await?;
    if !args.restart_changed_binaries || exit != Exit::Ok {
        return Ok(exit);
    }
    let changed = super::plan::changed_programs(client).await?;
    if changed.is_empty() {
        if !screen.json() && !screen.quiet {
            screen.line("no program that runs was replaced")?;
        }
        return Ok(exit);
    }
    let waiting = super::args::Waiting { no_wait: false, timeout: args.timeout };
    super::verb::run(client, Verb::Restart, &changed, waiting, screen).await
}

/// Changes `enabled` in the file, and has that applied.
pub async fn set_enabled(
    client: &Client,
    written: &[String],
    enabled: bool,
    screen: &mut Screen,
) -> Outcome {
    let work = client.set_enabled(written, enabled);
    let exit = follow(client, work, File::Stays, None, screen).await?;
    if enabled && exit == Exit::Ok && !screen.json() {
        stopped_by_hand(client, written, screen).await;
    }
    Ok(exit)
}

/// Puts a file in the place of the one with the processes.
pub async fn apply(client: &Client, args: &Apply, screen: &mut Screen) -> Outcome {
    if args.dry_run {
        let plan = super::args::Plan { file: Some(args.file.clone()) };
        return super::plan::run(client, &plan, screen).await;
    }
    let content = super::plan::open(&args.file)?;
    let file = if args.confirm.is_some() { File::GoesBack } else { File::Stays };
    let options = ApplyOptions { expect_generation: args.expect_generation, confirm: args.confirm };
    let work = client.apply(content.into(), &options);
    let exit = follow(client, work, file, None, screen).await?;
    // What did not come up was undone already.
    if args.confirm.is_some() && exit == Exit::Ok {
        return confirm::ask(client, screen).await;
    }
    Ok(exit)
}

/// Applies a configuration of before again.
pub async fn roll_back(client: &Client, args: &Rollback, screen: &mut Screen) -> Outcome {
    let pending = client.checkpoint().await?.map(|pending| pending.generation);
    if let (Some(pending), None) = (pending, args.number) {
        // That it is gone again is what was asked for.
        follow(client, client.take_back(pending), File::GoesBack, None, screen).await?;
        return Ok(Exit::Ok);
    }
    let work = client.roll_back(args.number, args.write);
    let exit = follow(client, work, File::Stays, None, screen).await?;
    if exit == Exit::Ok && !args.write && !screen.json() {
        screen.note(format_args!("  the file on disk waits until it changes: see provost status"));
    }
    Ok(exit)
}

/// Enabling starts nothing that an operator stopped: who expects it to run should know.
async fn stopped_by_hand(client: &Client, written: &[String], screen: &mut Screen) {
    // It is said beside the answer; that it cannot be said is no failure of the command.
    for status in client.status(written).await.unwrap_or_default() {
        if status.desired == "down" {
            screen.note(format_args!(
                "{} is not wanted by its operator and stays down until: provost start {}",
                status.id, status.id
            ));
        }
    }
}

/// What becomes of the file on disk when what it says does not come up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum File {
    /// It stays, and is not tried again.
    Stays,
    /// It has the content of before again.
    GoesBack,
}

pub(super) async fn follow(
    client: &Client,
    work: impl Future<Output = Result<ReloadSummary, ClientError>>,
    file: File,
    timeout: Option<Duration>,
    screen: &mut Screen,
) -> Outcome {
    let names = Names::ask(client).await?;
    let moving = |status: &ProcessStatus, _: &BTreeSet<String>| {
        matches!(status.state.as_str(), "starting" | "stopping") || status.needs_restart
    };
    let view = View { client, names: &names, concerns: &moving };
    let ends = progress::no_jobs();
    let waited = progress::watch(work, ends, view, timeout, screen, |_, _| Ok(())).await;
    match waited {
        Ok(Waited::Ended(summary)) => report(client, &summary, file, screen).await,
        Ok(Waited::OutOfTime(left)) => {
            let left: Vec<String> = left
                .iter()
                .map(|status| format!("\n  {} {}", names.show(&status.id), state::doing(status)))
                .collect();
            Err(CliError::Failed(format!("not done yet; it goes on{}", left.concat())))
        }
        Err(CliError::Client(ClientError::ConfigInvalid(text))) => {
            if screen.json() {
                screen.value(&serde_json::json!({ "result": "rejected", "text": text }))?;
                return Ok(Exit::Failed);
            }
            screen.error(text.trim_end());
            Err(CliError::Failed("rejected: nothing was changed".to_owned()))
        }
        Err(CliError::Client(ClientError::Refused { name, text })) if name == "ConfigHeldOff" => {
            if screen.json() {
                screen.value(&serde_json::json!({ "result": "held-off", "text": text }))?;
            } else {
                screen.error(&text);
                screen.note("  provost reload --force  # tries it again");
            }
            Ok(Exit::RolledBack)
        }
        Err(other) => Err(other),
    }
}

async fn report(
    client: &Client,
    summary: &ReloadSummary,
    file: File,
    screen: &mut Screen,
) -> Outcome {
    let exit = match summary.result.as_str() {
        "applied" | "unchanged" | "superseded" => Exit::Ok,
        "rolled-back" | "rollback-incomplete" => Exit::RolledBack,
        _ => Exit::Failed,
    };
    if screen.json() {
        screen.value(&json::reload(summary))?;
        return Ok(exit);
    }
    if screen.quiet && exit == Exit::Ok {
        return Ok(exit);
    }
    // After the reload, so that what is new has its name and what is gone has a name at all.
    let names = Names::ask(client).await.unwrap_or_default();
    for line in lines(summary, &names, screen.style) {
        screen.line(line)?;
    }
    for why in &summary.why {
        screen.line(screen.style.paint(Tone::Bad, format!("  {}", visible(why))))?;
    }
    if exit == Exit::RolledBack && file == File::Stays {
        screen.note(format_args!(
            "  the file on disk is not tried again until it changes, or: provost reload --force"
        ));
    }
    for failed in &summary.failed {
        screen.note(format_args!("  provost why {}  # what happened", names.show(failed)));
    }
    Ok(exit)
}

/// What a reload came to, for people.
fn lines(summary: &ReloadSummary, names: &Names, style: Style) -> Vec<String> {
    let took = human::duration(summary.took);
    let headline = match summary.result.as_str() {
        "unchanged" => {
            return vec![format!("unchanged: generation {} stays", summary.generation)];
        }
        "applied" => style.paint(Tone::Good, format!("applied generation {}", summary.generation)),
        "failed-kept" => style.paint(
            Tone::Bad,
            format!("applied generation {}, but not all came up", summary.generation),
        ),
        "rolled-back" | "rollback-incomplete" => {
            let (back, tried) = (summary.generation, summary.tried.unwrap_or_default());
            let all = if summary.result == "rolled-back" { "" } else { ", but not all came back" };
            let what = match tried {
                0 => format!("rolled back: generation {back} runs{all}"),
                _ => format!("rolled back: generation {back} runs again instead of {tried}{all}"),
            };
            style.paint(Tone::Bad, what)
        }
        "superseded" => {
            let what = "superseded by a newer reload, or by the end of the daemon";
            style.paint(Tone::Uneasy, what.to_owned())
        }
        other => style.paint(Tone::Plain, format!("{other}: generation {}", summary.generation)),
    };
    let mut lines = vec![format!(
        "{headline} in {took}: {} added, {} removed, {} modified, {} unchanged",
        summary.added.len(),
        summary.removed.len(),
        summary.modified.len(),
        summary.unchanged
    )];
    let width =
        summary.steps.iter().map(|step| names.show(&step.name).len()).max().unwrap_or_default();
    for step in &summary.steps {
        let shown = names.show(&step.name);
        let sign = sign(summary, &step.name);
        let tone = match step.state.as_str() {
            "failed" => Tone::Bad,
            "held" | "superseded" => Tone::Uneasy,
            _ => Tone::Plain,
        };
        let done = step_done(&step.kind, &step.state);
        let why =
            if step.why.is_empty() { String::new() } else { format!(": {}", visible(&step.why)) };
        let took = human::duration(step.took);
        lines.push(format!(
            "  {sign} {shown:width$}  {}",
            style.paint(tone, format!("{done} in {took}{why}"))
        ));
    }
    if !summary.timings.is_empty() {
        let stages: Vec<String> = summary
            .timings
            .iter()
            .map(|(stage, took)| format!("{stage} {}", human::duration(*took)))
            .collect();
        lines.push(style.paint(Tone::Quiet, format!("  ({})", stages.join(", "))).to_string());
    }
    lines
}

/// `+`, `-` or `~`, as in a plan; a space for what only goes along.
fn sign(summary: &ReloadSummary, instance: &str) -> char {
    let process = instance.rsplit_once('@').map_or(instance, |(process, _)| process);
    let among = |list: &[String]| list.iter().any(|name| name == process);
    match () {
        () if among(&summary.added) => '+',
        () if among(&summary.removed) => '-',
        () if among(&summary.modified) => '~',
        () => ' ',
    }
}

fn step_done(kind: &str, state: &str) -> String {
    match (kind, state) {
        ("start", "done") => "started".to_owned(),
        ("stop", "done") => "stopped".to_owned(),
        ("restart", "done") => "restarted".to_owned(),
        ("live", "done") => "changed without a restart".to_owned(),
        (kind, "held") => format!("{kind} is held"),
        (kind, state) => format!("{kind} {state}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Step;

    fn step(name: &str, kind: &str, state: &str, why: &str) -> Step {
        Step {
            name: name.into(),
            kind: kind.into(),
            state: state.into(),
            took: Duration::from_millis(200),
            why: why.into(),
        }
    }

    #[test]
    fn a_reload_is_told_step_by_step() {
        let summary = ReloadSummary {
            generation: 4,
            result: "failed-kept".into(),
            added: vec!["new".into()],
            removed: vec!["old".into()],
            modified: vec!["api".into()],
            unchanged: 27,
            took: Duration::from_secs(3),
            timings: vec![("read".into(), Duration::from_millis(2))],
            steps: vec![
                step("old@0", "stop", "done", ""),
                step("api@0", "restart", "failed", "exited with code 1"),
                step("new@0", "start", "done", ""),
            ],
            ..Default::default()
        };
        assert_eq!(
            lines(&summary, &Names::default(), Style::default()),
            [
                "applied generation 4, but not all came up in 3s: 1 added, 1 removed, 1 modified, 27 unchanged",
                "  - old  stopped in 200ms",
                "  ~ api  restart failed in 200ms: exited with code 1",
                "  + new  started in 200ms",
                "  (read 2ms)",
            ]
        );
    }

    #[test]
    fn nothing_to_do_is_said() {
        let summary =
            ReloadSummary { generation: 4, result: "unchanged".into(), ..Default::default() };
        let said = lines(&summary, &Names::default(), Style::default());
        assert_eq!(said, ["unchanged: generation 4 stays"]);
    }
}

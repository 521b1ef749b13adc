//! `plan`: what a reload would do, key by key.

use super::args::Plan as Args;
use super::screen::{Screen, Style, Tone, visible};
use super::{CliError, Outcome, exit::Exit, human, json, names::Names};
use crate::client::{Change, Client, FieldChange, PlanSummary};

/// Shows what a reload would do.
pub async fn run(client: &Client, args: &Args, screen: &mut Screen) -> Outcome {
    let content = match &args.file {
        None => None,
        Some(path) => Some(open(path)?.into()),
    };
    let plan = client.plan(content).await?;
    let exit = match (plan.valid(), plan.changes.is_empty()) {
        (false, _) => Exit::Failed,
        (true, true) => Exit::Ok,
        (true, false) => Exit::Changes,
    };
    let mut replaced = changed_programs(client).await?;
    // What is restarted anyway runs the new one then.
    replaced.retain(|id| !plan.changes.iter().any(|change| gets_a_run(change, id)));
    if screen.json() {
        screen.value(&json::plan(&plan, &replaced))?;
        return Ok(exit);
    }
    for diagnostic in &plan.diagnostics {
        screen.error(diagnostic.text.trim_end());
    }
    if !plan.valid() {
        return Err(CliError::Failed(
            "the files are not valid; a reload would change nothing".to_owned(),
        ));
    }
    if !screen.quiet {
        for line in lines(&plan, screen.style) {
            screen.line(line)?;
        }
        let names = Names::ask(client).await?;
        for id in &replaced {
            screen.note(format_args!(
                "{}: its program was replaced on disk since it was started; this changes nothing of \
                 that, `provost reload --restart-changed-binaries` does",
                names.show(id)
            ));
        }
    }
    Ok(exit)
}

fn gets_a_run(change: &Change, id: &str) -> bool {
    let is_it = id.rsplit_once('@').is_some_and(|(process, _)| process == change.process);
    is_it && matches!(change.consequence.as_str(), "restart" | "stop")
}

/// The instances that run a program whose file is another by now.
pub(super) async fn changed_programs(client: &Client) -> Result<Vec<String>, CliError> {
    let all = client.status(&[]).await?;
    let changed = all.into_iter().filter(|status| status.program_changed);
    Ok(changed.map(|status| status.id).collect())
}

/// The caller's file: the daemon may not be able to read it, and shall not be asked to.
pub(super) fn open(path: &std::path::Path) -> Result<std::fs::File, CliError> {
    let fail = |error: std::io::Error| {
        CliError::Failed(format!("cannot read {}: {error}", path.display()))
    };
    let stdin = std::path::Path::new("/dev/stdin");
    let opened = if path.as_os_str() == "-" { stdin } else { path };
    let file = std::fs::File::open(opened).map_err(fail)?;
    if file.metadata().map_err(fail)?.is_dir() {
        return Err(CliError::Failed(format!("{} is a directory; name a file", path.display())));
    }
    Ok(file)
}

fn lines(plan: &PlanSummary, style: Style) -> Vec<String> {
    if plan.changes.is_empty() {
        return vec!["nothing would change".to_owned()];
    }
    let mut lines = changes(&plan.changes, style);
    lines.push(format!("{}, against generation {}", counts(&plan.changes), plan.generation));
    lines
}

/// What each change does, key by key.
#[must_use]
pub fn changes(changes: &[Change], style: Style) -> Vec<String> {
    let width = changes.iter().map(|change| change.process.len()).max().unwrap_or(0);
    let mut lines = Vec::new();
    for change in changes {
        let (sign, tone) = match change.kind.as_str() {
            "added" => ('+', Tone::Good),
            "removed" => ('-', Tone::Bad),
            "modified" => ('~', Tone::Uneasy),
            _ => ('?', Tone::Plain),
        };
        let head = format!("{sign} {:width$}", change.process);
        lines.push(format!("{}  {}", style.paint(tone, head), consequence(change)));
        lines.extend(change.fields.iter().map(field));
        if !change.touches.is_empty() {
            let why = match change.consequence.as_str() {
                "restart" => "restarts with it",
                "stop" => "waits without it",
                "start" => "starts with it",
                _ => "is touched by it",
            };
            lines.push(format!("    {why}: {}", change.touches.join(", ")));
        }
        lines.extend(awaited(change));
    }
    lines
}

/// How many there are, in one line.
#[must_use]
pub fn counts(changes: &[Change]) -> String {
    let count = |kind: &str| changes.iter().filter(|change| change.kind == kind).count();
    format!(
        "{} to add, {} to remove, {} to modify; all else stays as it is",
        count("added"),
        count("removed"),
        count("modified")
    )
}

fn consequence(change: &Change) -> &str {
    match (change.kind.as_str(), change.consequence.as_str()) {
        ("added", "start") => "is new and starts",
        ("added", _) => "is new and does not start",
        ("removed", _) => "is gone and stops",
        (_, "live") => "changes without a restart",
        (_, "restart") if change.overlaps => {
            "restarts, the new run beside the old one until it is ready"
        }
        (_, "restart") => "restarts",
        (_, "start") => "starts",
        (_, "stop") => "stops",
        (_, other) => other,
    }
}

/// What a run is waited for, where it is more than that it was executed.
fn awaited(change: &Change) -> Option<String> {
    let what = match change.awaits.as_str() {
        "health" => "its check succeeds",
        "notify" => "it says that it is ready",
        _ => return None,
    };
    let within = human::duration(change.awaits_within);
    Some(format!("    waited for until {what}, at most {within}"))
}

fn field(field: &FieldChange) -> String {
    let value = |text: &str| if text.is_empty() { "(none)".to_owned() } else { visible(text) };
    format!(
        "    {}: {} -> {} ({})",
        field.key,
        value(&field.old),
        value(&field.new),
        field.consequence
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_names_each_key_and_what_it_causes() {
        let plan = PlanSummary {
            changes: vec![
                Change {
                    process: "api".into(),
                    kind: "modified".into(),
                    consequence: "restart".into(),
                    fields: vec![
                        FieldChange {
                            key: "command".into(),
                            old: "a".into(),
                            new: "b\x1b[2J".into(),
                            consequence: "restart".into(),
                        },
                        FieldChange {
                            key: "description".into(),
                            old: String::new(),
                            new: "x".into(),
                            consequence: "live".into(),
                        },
                    ],
                    touches: vec!["web".into()],
                    awaits: "health".into(),
                    awaits_within: std::time::Duration::from_secs(60),
                    overlaps: false,
                },
                Change {
                    process: "db".into(),
                    kind: "modified".into(),
                    consequence: "restart".into(),
                    overlaps: true,
                    ..Default::default()
                },
                Change {
                    process: "new".into(),
                    kind: "added".into(),
                    consequence: "start".into(),
                    ..Default::default()
                },
                Change {
                    process: "old".into(),
                    kind: "removed".into(),
                    consequence: "stop".into(),
                    ..Default::default()
                },
            ],
            diagnostics: Vec::new(),
            generation: 4,
        };
        assert_eq!(
            lines(&plan, Style::default()),
            [
                "~ api  restarts",
                "    command: a -> b\\u{1b}[2J (restart)",
                "    description: (none) -> x (live)",
                "    restarts with it: web",
                "    waited for until its check succeeds, at most 1m00s",
                "~ db   restarts, the new run beside the old one until it is ready",
                "+ new  is new and starts",
                "- old  is gone and stops",
                "1 to add, 1 to remove, 2 to modify; all else stays as it is, against generation 4",
            ]
        );
    }

    #[test]
    fn an_empty_plan_says_so() {
        assert_eq!(lines(&PlanSummary::default(), Style::default()), ["nothing would change"]);
    }
}

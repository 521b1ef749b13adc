//! `history` and `show`: the configurations that were accepted, and one of them.

use super::args::{History as HistoryArgs, Show as ShowArgs};
use super::screen::{Screen, Style, Tone, visible};
use super::table::{Cell, Table};
use super::{Outcome, exit::Exit, human, json, plan};
use crate::client::{Client, FileText, Generation, GenerationPage};
use serde_json::Value;

/// Lists them, the newest first.
pub async fn run(client: &Client, args: &HistoryArgs, screen: &mut Screen) -> Outcome {
    let all = client.history(args.lines).await?;
    if screen.json() {
        screen.value(&Value::Array(all.iter().map(json::generation).collect()))?;
        return Ok(Exit::Ok);
    }
    if all.is_empty() && args.lines != Some(0) {
        screen.note("no configuration was accepted yet");
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["GENERATION", "TIME", "STATE", "CHANGES", "CAUSE", "WHY"]);
    for one in &all {
        let time = one.time.map_or_else(|| "-".to_owned(), human::clock);
        let (state, tone) = state(one);
        table.row(vec![
            Cell::number(Some(one.number)),
            Cell::text(time),
            Cell::text(state).tone(tone),
            Cell::text(counts(one)),
            Cell::text(&one.cause_text),
            Cell::text(one.why.join("; ")),
        ]);
    }
    table.print(screen)?;
    Ok(Exit::Ok)
}

/// Shows one of them.
pub async fn show(client: &Client, args: &ShowArgs, screen: &mut Screen) -> Outcome {
    let page = client.generation(args.number).await?;
    if screen.json() {
        screen.value(&json::generation_page(&page))?;
        return Ok(Exit::Ok);
    }
    for line in lines(&page, screen.style) {
        screen.line(line)?;
    }
    Ok(Exit::Ok)
}

fn state(one: &Generation) -> (String, Tone) {
    let tone = match one.state.as_str() {
        "applied" => Tone::Good,
        "superseded" => Tone::Quiet,
        "applying" | "rolling-back" | "rolled-back" => Tone::Uneasy,
        "failed-kept" | "rollback-incomplete" => Tone::Bad,
        _ => Tone::Plain,
    };
    match (one.running, one.state.as_str()) {
        (true, "applied") => ("running".to_owned(), tone),
        (true, state) => (format!("{state}, running"), tone),
        // What came up once and was replaced since is of no concern any more.
        (false, "applied") => ("applied".to_owned(), Tone::Plain),
        (false, state) => (state.to_owned(), tone),
    }
}

fn counts(one: &Generation) -> String {
    let counts = [('+', one.added), ('~', one.modified), ('-', one.removed)];
    let parts = counts.iter().filter(|(_, count)| *count > 0);
    let parts: Vec<String> = parts.map(|(sign, count)| format!("{sign}{count}")).collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(" ") }
}

fn lines(page: &GenerationPage, style: Style) -> Vec<String> {
    let one = &page.generation;
    let (state, tone) = state(one);
    let mut lines = vec![format!(
        "{}  {}",
        style.paint(Tone::Strong, format!("generation {}", one.number)),
        style.paint(tone, state)
    )];
    let mut entry = |name: &str, value: String| {
        if !value.is_empty() {
            lines.push(format!("{name:>10}  {}", visible(&value)));
        }
    };
    entry("accepted", one.time.map(human::clock).unwrap_or_default());
    entry("cause", one.cause_text.clone());
    for why in &one.why {
        entry("why", why.clone());
    }
    entry("after", one.base.map(|base| format!("generation {base}")).unwrap_or_default());
    let took =
        page.timings.iter().map(|(stage, took)| format!("{stage} {}", human::duration(*took)));
    entry("took", took.collect::<Vec<_>>().join(", "));
    entry("digest", one.digest.clone());
    for remark in &page.diagnostics {
        entry("remark", remark.clone());
    }
    if !page.changes.is_empty() {
        lines.push(String::new());
        lines.extend(plan::changes(&page.changes, style));
    }
    for step in page.steps.iter().filter(|step| !step.why.is_empty()) {
        lines.push(format!(
            "    {} {} {}: {}",
            step.name,
            step.kind,
            step.state,
            visible(&step.why)
        ));
    }
    lines.push(plan::counts(&page.changes));
    for file in &page.files {
        lines.push(String::new());
        lines.extend(file_lines(file, style));
    }
    lines
}

fn file_lines(file: &FileText, style: Style) -> Vec<String> {
    let head = format!("# {} ({})", visible(&file.path), visible(&file.kind));
    let head = match &file.text {
        Some(_) => head,
        None => format!("{head}: there was no such file"),
    };
    let text = file.text.iter().flat_map(|text| text.lines()).map(visible);
    std::iter::once(style.paint(Tone::Strong, head).to_string()).chain(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Change, Step};
    use std::time::Duration;

    #[test]
    fn a_generation_is_shown_with_what_came_of_it() {
        let change = Change { process: "api".into(), ..Change::default() };
        let page = GenerationPage {
            generation: Generation {
                number: 7,
                cause_text: "reload by uid 1000".into(),
                base: Some(6),
                state: "rolled-back".into(),
                why: vec!["api: exited with code 1".into()],
                digest: "abc".into(),
                ..Generation::default()
            },
            changes: vec![Change { kind: "added".into(), consequence: "start".into(), ..change }],
            steps: vec![Step {
                name: "api@0".into(),
                kind: "start".into(),
                state: "failed".into(),
                took: Duration::ZERO,
                why: "exited\x1b[2J".into(),
            }],
            timings: vec![("read".into(), Duration::from_millis(3))],
            files: vec![
                FileText {
                    kind: "main".into(),
                    path: "/p.yaml".into(),
                    text: Some("a: 1\nb\n".into()),
                },
                FileText { kind: "env".into(), path: "/e.env".into(), text: None },
            ],
            ..GenerationPage::default()
        };
        assert_eq!(
            lines(&page, Style::default()),
            [
                "generation 7  rolled-back",
                "     cause  reload by uid 1000",
                "       why  api: exited with code 1",
                "     after  generation 6",
                "      took  read 3ms",
                "    digest  abc",
                "",
                "+ api  is new and starts",
                "    api@0 start failed: exited\\u{1b}[2J",
                "1 to add, 0 to remove, 0 to modify; all else stays as it is",
                "",
                "# /p.yaml (main)",
                "a: 1",
                "b",
                "",
                "# /e.env (env): there was no such file",
            ]
        );
    }

    #[test]
    fn what_runs_is_told_and_changes_are_counted() {
        let one = |state: &str, running| Generation {
            state: state.into(),
            running,
            modified: 2,
            removed: 1,
            ..Generation::default()
        };
        assert_eq!(state(&one("applied", true)), ("running".to_owned(), Tone::Good));
        assert_eq!(state(&one("applied", false)), ("applied".to_owned(), Tone::Plain));
        assert_eq!(state(&one("failed-kept", true)).0, "failed-kept, running");
        assert_eq!(state(&one("unheard-of", false)), ("unheard-of".to_owned(), Tone::Plain));
        assert_eq!(counts(&one("applied", true)), "~2 -1");
        assert_eq!(counts(&Generation::default()), "none");
    }
}

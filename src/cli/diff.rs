//! `diff`: what differs between two configurations, by process and key, or as text.

use super::args::{Diff as Args, Which};
use super::screen::{Screen, Style, Tone, visible};
use super::{CliError, Outcome, exit::Exit, json, plan};
use crate::client::{Client, Difference, FileDifference, Generation};

/// Compares two of them.
pub async fn run(client: &Client, args: &Args, screen: &mut Screen) -> Outcome {
    let (old, new) = sides(client, args).await?;
    let found = client.difference(number(old), number(new)).await?;
    if screen.json() {
        screen.value(&json::difference(&found, number(old), number(new)))?;
        return Ok(Exit::Ok);
    }
    if !screen.quiet {
        screen.note(format_args!("from {} to {}:", name(old), name(new)));
    }
    let as_text = args.text || !found.comparable;
    if !found.comparable {
        screen.note(
            "one of the two is not valid here and now, so this is by lines; `provost check` shows \
             what is wrong with the files on disk",
        );
    }
    let lines = if as_text {
        text(&found, old, new, screen.style)
    } else {
        by_process(&found, screen.style)
    };
    for line in lines {
        screen.line(line)?;
    }
    Ok(Exit::Ok)
}

/// One of the two, once it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Disk,
    Kept(u64),
}

fn number(side: Side) -> Option<u64> {
    match side {
        Side::Disk => None,
        Side::Kept(number) => Some(number),
    }
}

fn name(side: Side) -> String {
    match side {
        Side::Disk => "disk".to_owned(),
        Side::Kept(number) => format!("generation {number}"),
    }
}

async fn sides(client: &Client, args: &Args) -> Result<(Side, Side), CliError> {
    let known = match (args.old, args.new) {
        // Numbers need no looking up.
        (Some(Which::Number(_) | Which::Disk), Some(Which::Number(_) | Which::Disk)) => Vec::new(),
        _ => client.history(None).await?,
    };
    choose(args.old, args.new, &known)
}

/// The two, from what was written: nothing means what runs and the one before it, one means that and
/// what runs.
fn choose(
    old: Option<Which>,
    new: Option<Which>,
    known: &[Generation],
) -> Result<(Side, Side), CliError> {
    let running = || {
        let found = known.iter().find(|one| one.running);
        found.ok_or_else(|| CliError::Failed("no generation that runs is kept".to_owned()))
    };
    let side = |which: Which| match which {
        Which::Disk => Ok(Side::Disk),
        Which::Number(number) => Ok(Side::Kept(number)),
        Which::Running => running().map(|one| Side::Kept(one.number)),
    };
    match (old, new) {
        (Some(old), Some(new)) => Ok((side(old)?, side(new)?)),
        (Some(Which::Disk), None) => Ok((side(Which::Running)?, Side::Disk)),
        (Some(old @ Which::Number(_)), None) => Ok((side(old)?, side(Which::Running)?)),
        (None | Some(Which::Running), _) => {
            let one = running()?;
            let base = one.base.ok_or_else(|| {
                CliError::Failed(format!("generation {} is the first one", one.number))
            })?;
            Ok((Side::Kept(base), Side::Kept(one.number)))
        }
    }
}

fn by_process(found: &Difference, style: Style) -> Vec<String> {
    if found.files.is_empty() {
        return vec!["nothing differs".to_owned()];
    }
    let mut lines = plan::changes(&found.changes, style);
    if found.changes.is_empty() {
        lines.push("no process differs".to_owned());
    } else {
        lines.push(plan::counts(&found.changes));
    }
    for file in &found.files {
        let hidden = if file.hidden { ", with other values of variables" } else { "" };
        lines.push(format!("{}: {}{hidden}", visible(&file.path), visible(&file.kind)));
    }
    lines
}

fn text(found: &Difference, old: Side, new: Side, style: Style) -> Vec<String> {
    if found.files.is_empty() {
        return vec!["nothing differs".to_owned()];
    }
    found.files.iter().flat_map(|file| hunks(file, old, new, style)).collect()
}

fn hunks(file: &FileDifference, old: Side, new: Side, style: Style) -> Vec<String> {
    let path = visible(&file.path);
    let head = |side: Side, missing: &str| match file.kind == missing {
        true => "/dev/null".to_owned(),
        false => format!("{path} ({})", name(side)),
    };
    let heads = [format!("--- {}", head(old, "added")), format!("+++ {}", head(new, "removed"))];
    let heads = heads.map(|head| style.paint(Tone::Strong, head).to_string());
    let paint = |line: &str| {
        let tone = match line.as_bytes().first() {
            Some(b'+') => Tone::Good,
            Some(b'-') => Tone::Bad,
            Some(b'@' | b'\\') => Tone::Quiet,
            _ => Tone::Plain,
        };
        style.paint(tone, visible(line)).to_string()
    };
    let mut lines: Vec<String> = heads.into_iter().chain(file.hunks.lines().map(paint)).collect();
    if file.hidden {
        lines.push("(values of variables differ, which are not shown)".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<Generation> {
        let one =
            |number, base, running| Generation { number, base, running, ..Generation::default() };
        vec![one(7, Some(5), false), one(6, Some(5), true), one(1, None, false)]
    }

    #[test]
    fn what_is_not_written_is_what_runs_and_the_one_before_it() {
        let (seven, disk) = (Which::Number(7), Which::Disk);
        for (old, new, wanted) in [
            (None, None, (Side::Kept(5), Side::Kept(6))),
            (Some(Which::Running), None, (Side::Kept(5), Side::Kept(6))),
            (Some(seven), None, (Side::Kept(7), Side::Kept(6))),
            (Some(disk), None, (Side::Kept(6), Side::Disk)),
            (Some(seven), Some(disk), (Side::Kept(7), Side::Disk)),
            (Some(disk), Some(Which::Running), (Side::Disk, Side::Kept(6))),
            (Some(Which::Running), Some(disk), (Side::Kept(6), Side::Disk)),
        ] {
            assert_eq!(choose(old, new, &known()).unwrap(), wanted, "{old:?} {new:?}");
        }
        let error = choose(None, None, &[]).unwrap_err().to_string();
        assert_eq!(error, "no generation that runs is kept");
        let first = [Generation { number: 1, running: true, ..Generation::default() }];
        let error = choose(None, None, &first).unwrap_err().to_string();
        assert_eq!(error, "generation 1 is the first one");
    }

    #[test]
    fn lines_are_those_of_the_usual_tools() {
        let file = |kind: &str, hunks: &str, hidden| FileDifference {
            path: "/p.yaml".into(),
            kind: kind.into(),
            hidden,
            hunks: hunks.into(),
        };
        let found = Difference {
            comparable: true,
            changes: Vec::new(),
            files: vec![
                file("modified", "@@ -1 +1 @@\n-a\n+b\x1b\n", true),
                file("added", "@@ -0,0 +1 @@\n+c\n", false),
            ],
        };
        assert_eq!(
            text(&found, Side::Kept(6), Side::Disk, Style::default()),
            [
                "--- /p.yaml (generation 6)",
                "+++ /p.yaml (disk)",
                "@@ -1 +1 @@",
                "-a",
                "+b\\u{1b}",
                "(values of variables differ, which are not shown)",
                "--- /dev/null",
                "+++ /p.yaml (disk)",
                "@@ -0,0 +1 @@",
                "+c",
            ]
        );
        assert_eq!(
            by_process(&found, Style::default()),
            [
                "no process differs",
                "/p.yaml: modified, with other values of variables",
                "/p.yaml: added"
            ]
        );
        let none = Difference::default();
        assert_eq!(by_process(&none, Style::default()), ["nothing differs"]);
        assert_eq!(text(&none, Side::Disk, Side::Disk, Style::default()), ["nothing differs"]);
    }
}

//! `logs`: what processes wrote, and write.

use super::args::Logs as Args;
use super::log_source::{self, Line};
use super::screen::{Screen, Tone, visible};
use super::{CliError, Outcome, exit::Exit, human, names::Names};
use crate::client::{Client, Log, ProcessStatus};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

/// Shows what processes write.
pub async fn run(client: &Client, args: &Args, screen: &mut Screen) -> Outcome {
    let since = match &args.since {
        None => None,
        Some(text) => Some(human::parse_since(text, SystemTime::now()).map_err(CliError::Usage)?),
    };
    let names = Names::ask(client).await?;
    for remark in names.remarks(&args.names) {
        screen.note(remark);
    }
    let chosen = client.status(&args.names).await?;
    let mut streams = Vec::new();
    let mut journals = Vec::new();
    for status in &chosen {
        let shown = names.show(&status.id).to_owned();
        match client.open_log(std::slice::from_ref(&status.id), args.lines, args.follow).await? {
            Log::Stream(stream) => streams.push((shown, stream)),
            Log::Journal(command) => journals.push((shown, command)),
        }
    }
    if let (Some(_), Some((shown, _))) = (since, streams.first()) {
        return Err(CliError::Failed(format!(
            "--since needs the journal, and what {shown} writes is not in it{}; use -n",
            elsewhere(&chosen)
        )));
    }
    if streams.is_empty() && !screen.json() {
        return journalctl(&journals, args, since, screen);
    }
    for (shown, command) in journals {
        streams.push((shown, journal_stream(&command, args, since)?));
    }
    show(streams, args, screen).await
}

fn elsewhere(chosen: &[ProcessStatus]) -> String {
    match chosen.first().map(|status| status.log_kind.as_str()) {
        Some("file") => " but in its log file".to_owned(),
        _ => String::new(),
    }
}

/// One journalctl for all: it has the lines in order, pages, and knows the terminal.
fn journalctl(
    journals: &[(String, String)],
    args: &Args,
    since: Option<SystemTime>,
    screen: &mut Screen,
) -> Outcome {
    let commands: Vec<&str> = journals.iter().map(|(_, command)| command.as_str()).collect();
    let mut command = journal_command(&commands, args, since)?;
    command.arg("--no-pager");
    screen.flush()?;
    let status = command.status().map_err(|error| no_journalctl(&error))?;
    Ok(if status.success() { Exit::Ok } else { Exit::Failed })
}

/// The bare lines of one instance from the journal.
fn journal_stream(
    command: &str,
    args: &Args,
    since: Option<SystemTime>,
) -> Result<OwnedFd, CliError> {
    let mut command = journal_command(&[command], args, since)?;
    command.args(["--no-pager", "--quiet", "--output=cat"]).stdout(Stdio::piped());
    let child = command.spawn().map_err(|error| no_journalctl(&error))?;
    // It ends with its pipe, so at the latest with us.
    child
        .stdout
        .map(OwnedFd::from)
        .ok_or_else(|| CliError::Failed("journalctl has no output".to_owned()))
}

fn no_journalctl(error: &io::Error) -> CliError {
    CliError::Failed(format!("the output is in the journal and journalctl does not run: {error}"))
}

/// Makes one command of those the daemon named, each `journalctl OPTION... FIELD=VALUE...`; matches
/// of several are alternatives (journalctl(1), "+").
fn journal_command(
    commands: &[&str],
    args: &Args,
    since: Option<SystemTime>,
) -> Result<Command, CliError> {
    let mut options: Vec<&str> = Vec::new();
    let mut matches: Vec<&str> = Vec::new();
    for command in commands {
        let mut words = command.split_whitespace();
        if words.next() != Some("journalctl") {
            return Err(CliError::Failed(format!(
                "the supervisor says to read it with: {command}"
            )));
        }
        if !matches.is_empty() {
            matches.push("+");
        }
        for word in words {
            if !word.starts_with('-') {
                matches.push(word);
            } else if !options.contains(&word) {
                options.push(word);
            }
        }
    }
    let mut all = Command::new("journalctl");
    all.args(options).arg(format!("--lines={}", args.lines));
    if args.follow {
        all.arg("--follow");
    }
    if let Some(since) = since {
        let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        all.arg(format!("--since=@{}", since.as_secs()));
    }
    all.args(matches).stdin(Stdio::null());
    Ok(all)
}

/// Shows streams: each begins with the last lines of what was written before.
async fn show(streams: Vec<(String, OwnedFd)>, args: &Args, screen: &mut Screen) -> Outcome {
    let width = streams.iter().map(|(shown, _)| shown.len()).max().unwrap_or(0);
    let prefixed = streams.len() > 1;
    let shown: Vec<String> = streams.iter().map(|(shown, _)| shown.clone()).collect();
    let streams = streams.into_iter().map(|(_, stream)| stream).collect();
    let mut lines = log_source::read(streams, args.lines);
    let print = |source: usize, text: &[u8], screen: &mut Screen| {
        let name = &shown[source];
        if screen.json() {
            let text = String::from_utf8_lossy(text);
            return screen.value_line(&serde_json::json!({ "name": name, "line": text }));
        }
        if prefixed {
            let prefix = screen.style.paint(Tone::Quiet, format!("{name:width$} |")).to_string();
            screen.raw(prefix.as_bytes())?;
            screen.raw(b" ")?;
        }
        if screen.style.terminal {
            screen.line(for_terminal(&String::from_utf8_lossy(text), screen.style.colour))
        } else {
            screen.raw(text)?;
            screen.raw(b"\n")
        }
    };
    // What was written before, one after the other; then all that comes, as it comes.
    let mut before: BTreeMap<usize, Vec<Vec<u8>>> = BTreeMap::new();
    while let Some(line) = lines.recv().await {
        match line {
            Line::Old { source, text } => {
                before.entry(source).or_default().push(text);
            }
            Line::CaughtUp { source } => {
                for text in before.remove(&source).unwrap_or_default() {
                    print(source, &text, screen)?;
                }
                screen.flush()?;
            }
            Line::New { source, text } => {
                print(source, &text, screen)?;
                screen.flush()?;
            }
            Line::Failed { source, error } => {
                return Err(CliError::Failed(format!("{}: cannot read: {error}", shown[source])));
            }
        }
    }
    Ok(Exit::Ok)
}

/// A line of a process as a terminal may get it: colours stay where there are colours, everything
/// else that a terminal would obey is made visible.
fn for_terminal(text: &str, colour: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.strip_suffix('\r').unwrap_or(text);
    let mut coloured = false;
    while let Some(at) = rest.find("\x1b[") {
        let (before, sequence) = rest.split_at(at);
        out.push_str(&visible(before));
        let parameters = &sequence[2..];
        let end = parameters.find(|c: char| !c.is_ascii_digit() && c != ';' && c != ':');
        match end {
            Some(end) if parameters[end..].starts_with('m') => {
                if colour {
                    out.push_str(&sequence[..2 + end + 1]);
                    coloured = true;
                }
                rest = &parameters[end + 1..];
            }
            _ => {
                out.push_str(&visible("\x1b["));
                rest = parameters;
            }
        }
    }
    out.push_str(&visible(rest));
    if coloured {
        out.push_str("\x1b[0m");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    fn args(follow: bool) -> Args {
        Args { names: Vec::new(), follow, lines: 20, since: None }
    }

    #[test]
    fn several_journals_are_read_by_one_command() {
        let commands = ["journalctl --user A=api@0", "journalctl --user A=web@0 B=c"];
        let since = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(99));
        let command = journal_command(&commands, &args(true), since).unwrap();
        let words: Vec<&OsStr> = command.get_args().collect();
        assert_eq!(
            words,
            ["--user", "--lines=20", "--follow", "--since=@99", "A=api@0", "+", "A=web@0", "B=c"]
        );
    }

    #[test]
    fn only_journalctl_is_run() {
        let error = journal_command(&["rm -rf x"], &args(false), None).unwrap_err().to_string();
        assert!(error.contains("rm -rf x"), "{error}");
    }

    #[test]
    fn a_terminal_gets_colours_and_nothing_else_to_obey() {
        let line = "\x1b[32mok\x1b[0m \x1b[2J\x1b]0;title\x07end\r";
        assert_eq!(
            for_terminal(line, true),
            "\x1b[32mok\x1b[0m \\u{1b}[2J\\u{1b}]0;title\\u{7}end\x1b[0m"
        );
        assert_eq!(for_terminal(line, false), "ok \\u{1b}[2J\\u{1b}]0;title\\u{7}end");
        assert_eq!(for_terminal("cut \x1b[3", true), "cut \\u{1b}[3");
        assert_eq!(for_terminal("plain", true), "plain");
    }
}

//! `check`: all that is wrong with a file, with no daemon.

use super::args::{Check as Args, Global};
use super::screen::{Screen, Tone};
use super::{CliError, Outcome, exit::Exit, up};
use crate::config::able::Able;
use crate::config::diagnostic::{Diagnostic, Place, Severity};
use crate::config::load::{Loaded, Location, Mode};
use crate::config::{LARGEST, check, load, render};
use serde_json::{Value, json};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Checks a file.
pub fn run(args: &Args, global: &Global, screen: &mut Screen) -> Outcome {
    let location = location(args, global)?;
    let content = args.file.as_deref().filter(|file| is_stdin(file)).map(|_| stdin());
    let loaded = load::load_with(&location, content.transpose()?);
    let mut diagnostics = loaded.diagnostics.clone();
    diagnostics.extend(of_the_machine(&loaded, &location));
    let count = |severity| diagnostics.iter().filter(|d| d.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let bad = errors > 0 || loaded.missing || args.strict && warnings > 0;
    let exit = if bad { Exit::Failed } else { Exit::Ok };
    if screen.json() {
        screen.value(&diagnostics.iter().map(value).collect())?;
        return Ok(exit);
    }
    for text in render::render(&diagnostics, &loaded.sources, screen.style.colour) {
        screen.line(text.trim_end())?;
        screen.line("")?;
    }
    if !screen.quiet {
        let mut text = summary(&location.main, &loaded, errors, warnings);
        if bad && errors == 0 && !loaded.missing {
            text.push_str("; with --strict that is not enough");
        }
        let tone = if bad { Tone::Bad } else { Tone::Good };
        let text = screen.style.paint(tone, text);
        screen.line(text)?;
    }
    Ok(exit)
}

fn of_the_machine(loaded: &Loaded, location: &Location) -> Vec<Diagnostic> {
    match &loaded.config {
        Some(config) if loaded.daemon.validate => {
            let all = config.processes.keys().cloned().collect();
            let user = &loaded.daemon.default_user;
            let mut found = check::check_machine(config, &all, location.mode, user, &loaded.places);
            let able = Able::at_most(loaded.daemon.backend);
            found.extend(able.check(config, &loaded.places));
            found
        }
        _ => Vec::new(),
    }
}

fn summary(main: &Path, loaded: &Loaded, errors: usize, warnings: usize) -> String {
    let plural = |count: usize, word: &str| {
        let s = if count == 1 { "" } else { "s" };
        format!("{count} {word}{s}")
    };
    let main = main.display();
    let warned =
        if warnings > 0 { format!(", {}", plural(warnings, "warning")) } else { String::new() };
    match &loaded.config {
        Some(_) if loaded.missing => format!("{main}: there is no file with the processes{warned}"),
        Some(config) if errors == 0 => {
            let processes = config.processes.len();
            let word = if processes == 1 { "process" } else { "processes" };
            format!("{main}: valid, {processes} {word}{warned}")
        }
        _ => format!("{main}: not valid, {}{warned}", plural(errors, "error")),
    }
}

fn value(diagnostic: &Diagnostic) -> Value {
    json!({
        "severity": diagnostic.severity,
        "code": diagnostic.code,
        "message": diagnostic.message,
        "file": *diagnostic.place.file,
        "line": diagnostic.place.line,
        "column": diagnostic.place.column,
        "help": diagnostic.help,
        "related": diagnostic.related.iter().map(|(place, word)| related(place, word))
            .collect::<Vec<_>>(),
    })
}

fn related(place: &Place, word: &str) -> Value {
    json!({ "file": *place.file, "line": place.line, "column": place.column, "message": word })
}

fn is_stdin(file: &Path) -> bool {
    file.as_os_str() == "-"
}

fn stdin() -> Result<Vec<u8>, CliError> {
    let mut content = Vec::new();
    let read = std::io::stdin().take(LARGEST + 1).read_to_end(&mut content);
    let failed = |error| CliError::Failed(format!("cannot read standard input: {error}"));
    read.map(|_| content).map_err(failed)
}

/// Which file, and by whose rules.
fn location(args: &Args, global: &Global) -> Result<Location, CliError> {
    let here = std::env::current_dir()
        .map_err(|error| CliError::Failed(format!("cannot tell the directory: {error}")))?;
    let (main, mode) = match &args.file {
        // As if that were in the file that would be read.
        Some(file) if is_stdin(file) => {
            standard(&here, global).unwrap_or_else(|| (here.join("processes.yaml"), Mode::User))
        }
        Some(file) => {
            let mode = if global.system { Mode::System } else { Mode::User };
            (up::named(&here, file)?, mode)
        }
        None => standard(&here, global).ok_or_else(|| {
            CliError::Failed(format!(
                "there is no provost.yaml and no processes.yaml in {}, and none of the user or the \
                 system\n  name the file: provost check FILE",
                here.display()
            ))
        })?,
    };
    // What is not UTF-8 cannot stand in the file either.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    Ok(Location { main, mode, environment: Arc::new(environment) })
}

/// The file where none is named: the project's, else the user's, else the system's, or the one the
/// options ask for.
fn standard(here: &Path, global: &Global) -> Option<(PathBuf, Mode)> {
    let any = !global.user && !global.system;
    let user = || {
        let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
        let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".config"));
        let dir = config.filter(|dir| dir.is_absolute()).or_else(home)?;
        up::in_directory(&dir.join("provost"))
    };
    let project = if any { up::in_directory(here) } else { None };
    let user = if any || global.user { user() } else { None };
    let system =
        if any || global.system { up::in_directory(Path::new("/etc/provost")) } else { None };
    project
        .or(user)
        .map(|file| (file, Mode::User))
        .or_else(|| system.map(|file| (file, Mode::System)))
}

//! What the manual says is so: its tables are those of the code, its files are accepted or refused
//! by the program, its commands exist.
//!
//! `BLESS=1 cargo test --test docs` writes the tables anew.

// Helpers may unwrap as the tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "docs/blocks.rs"]
mod blocks;
#[path = "docs/examples.rs"]
mod examples;
#[path = "docs/tables.rs"]
mod tables;

use blocks::{Block, blocks, words};
use clap::Parser;
use examples::{OF_A_PROCESS, consequence};
use provost::cli::args::Cli;
use provost::config::diagnostic::Severity;
use provost::config::load::{Loaded, Location, Mode, load as load_location};
use provost::config::render;
use provost::core::fields::{Causes, FIELDS};
use provost::core::job::JobResult;
use provost::core::view::{HealthState, State};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// The files of the manual, with their paths below the top.
fn manual() -> Vec<(String, String)> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = vec![PathBuf::from("README.md"), PathBuf::from("ARCHITECTURE.md")];
    for entry in std::fs::read_dir(top.join("docs")).unwrap() {
        let name = entry.unwrap().file_name();
        paths.push(Path::new("docs").join(name));
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    assert!(paths.len() >= 4);
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(top.join(&path)).unwrap();
        (path.to_string_lossy().into_owned(), text)
    };
    paths.into_iter().map(read).collect()
}

/// Reads a configuration as a user's daemon would, with an environment file beside it.
fn load(dir: &Path, text: &str) -> Loaded {
    let main = dir.join("provost.yaml");
    std::fs::write(&main, text).unwrap();
    std::fs::write(dir.join(".env"), "DATABASE_URL=postgres://db/shop\n").unwrap();
    load_location(&Location { main, mode: Mode::User, environment: Arc::default() })
}

#[test]
fn the_tables_are_those_of_the_code() {
    let mut made = 0;
    for (path, text) in manual() {
        let mut fresh = String::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            fresh += line;
            fresh.push('\n');
            let name = line.strip_prefix("<!-- made: ").and_then(|line| line.strip_suffix(" -->"));
            let Some(name) = name else { continue };
            made += 1;
            // A blank line on both sides, or some readers take the table for a part of the comment.
            fresh += &format!("\n{}\n<!-- end -->\n", tables::table(name));
            assert!(lines.any(|line| line == "<!-- end -->"), "{path}: `{name}` has no end");
        }
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(&path), &fresh).unwrap();
            continue;
        }
        let differs = text.lines().zip(fresh.lines()).find(|(is, should)| is != should);
        assert!(
            text == fresh,
            "{path} is not what the code says; `BLESS=1 cargo test --test docs` mends it\n{differs:#?}"
        );
    }
    // All sections of keys, the keys that are not available, the exit codes, what a unit may have.
    assert_eq!(made, provost::config::keys::SECTIONS.len() + 4);
}

#[test]
fn what_a_change_causes_is_what_the_table_of_the_core_says() {
    let mut known = BTreeSet::new();
    for section in OF_A_PROCESS {
        for key in section.keys {
            let name = section.full_name(key.name);
            let Some(field) = FIELDS.iter().find(|field| field.key == name) else { continue };
            if matches!(key.kind, provost::config::keys::Kind::Section(_)) {
                continue;
            }
            known.insert(field.key);
            let word = match field.causes {
                // Of what it may also cause the text tells.
                Causes::Live | Causes::Told => "live",
                Causes::Restart => "restart",
                Causes::Count => "start or stop",
            };
            assert_eq!(consequence(section, key), word, "{name}");
        }
    }
    // The check itself is one field, and four keys; how it takes settings is one, and two keys.
    let missing: Vec<&str> =
        FIELDS.iter().map(|field| field.key).filter(|key| !known.contains(key)).collect();
    assert_eq!(missing, ["healthCheck", "reload"]);
}

#[test]
fn files_of_the_manual_are_read_as_it_says() {
    let mut counts = (0, 0);
    for (path, text) in manual() {
        for block in blocks(&text).iter().filter(|block| block.language() == "yaml") {
            let place = format!("{path}:{}", block.line);
            let dir = tempfile::tempdir().unwrap();
            let loaded = load(dir.path(), &block.text);
            let shown = render::render(&loaded.diagnostics, &loaded.sources, false).join("\n");
            match &block.info[1..] {
                [] => {
                    counts.0 += 1;
                    let bad = loaded.diagnostics.iter().find(|d| d.code != "missing-file");
                    assert!(loaded.config.is_some() && bad.is_none(), "{place}\n{shown}");
                }
                [word, code] if word == "refused" => {
                    counts.1 += 1;
                    let errors =
                        loaded.diagnostics.iter().filter(|d| d.severity == Severity::Error);
                    let codes: Vec<&str> = errors.map(|d| d.code).collect();
                    assert_eq!(codes, [code.as_str()], "{place}\n{shown}");
                }
                other => panic!("{place}: {other:?}; write `yaml` or `yaml refused RULE`"),
            }
        }
    }
    assert!(counts.0 >= 10 && counts.1 >= 4, "{counts:?}");
}

/// The commands of a block: all lines of one without a language, as far as they are not indented,
/// else those after a `$`.
fn commands(block: &Block) -> Vec<Vec<String>> {
    let lines = block.text.lines().filter_map(|line| match line.strip_prefix("$ ") {
        Some(line) => Some(line),
        None => (block.language().is_empty() && !line.starts_with(' ')).then_some(line),
    });
    lines.map(words).collect()
}

#[test]
fn commands_of_the_manual_exist() {
    let makefile = include_str!("../Makefile");
    let (mut ours, mut targets) = (0, 0);
    for (path, text) in manual() {
        for block in blocks(&text) {
            for command in commands(&block) {
                let place = format!("{path}:{}: {}", block.line, command.join(" "));
                let program = command.first().map_or("", String::as_str);
                if program.rsplit('/').next() == Some("provost") {
                    ours += 1;
                    let parsed = Cli::try_parse_from(&command);
                    assert!(parsed.is_ok(), "{place}\n{}", parsed.unwrap_err());
                } else if program == "make" {
                    targets += 1;
                    let target = format!("\n{}:", command[1]);
                    assert!(makefile.contains(&target), "{place}");
                }
            }
        }
    }
    assert!(ours >= 12 && targets >= 2, "{ours} {targets}");
}

#[test]
fn names_of_commands_in_sentences_exist() {
    for (path, text) in manual() {
        // Without the blocks, which have a test of their own.
        let prose: String = text.split("```").step_by(2).collect();
        for quoted in prose.split('`').skip(1).step_by(2) {
            let words = words(quoted);
            let [program, command, ..] = &words[..] else { continue };
            let word = command.chars().all(|c| c.is_ascii_lowercase() || c == '-');
            if program != "provost" || !word || command.starts_with('-') {
                continue;
            }
            // Some name only the command, which may need more.
            let asked = ["provost", command, "--help"];
            let error = Cli::try_parse_from(asked).unwrap_err();
            let help = error.kind() == clap::error::ErrorKind::DisplayHelp;
            assert!(help, "{path}: `{quoted}`\n{error}");
        }
    }
}

/// The first cells of the rows below a heading, without their quotes.
fn first_cells(text: &str, heading: &str) -> Vec<String> {
    let below = text.split(&format!("\n## {heading}\n")).nth(1).expect("the heading");
    let section = below.split("\n## ").next().unwrap();
    let rows = section.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let cells = rows.take_while(|line| line.starts_with('|'));
    cells.map(|row| row.split('|').nth(1).unwrap().trim().trim_matches('`').to_owned()).collect()
}

#[test]
fn all_words_for_states_are_explained() {
    let text = include_str!("../docs/states.md");
    assert_eq!(first_cells(text, "States"), State::ALL.map(State::as_str));
    let health =
        [HealthState::None, HealthState::Starting, HealthState::Healthy, HealthState::Unhealthy];
    assert_eq!(first_cells(text, "Health"), health.map(HealthState::as_str));
    use JobResult::{Canceled, Dependency, Done, Failed, Skipped, Timeout};
    let results = [Done, Canceled, Timeout, Failed, Dependency, Skipped];
    assert_eq!(first_cells(text, "Jobs"), results.map(JobResult::as_str));
    let text = include_str!("../docs/generations.md");
    let states = provost::store::generations::State::ALL;
    assert_eq!(first_cells(text, "States of a generation"), states.map(|state| state.as_str()));
}

/// The anchor that a heading gets, as the usual readers of markdown make it.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn links_lead_somewhere() {
    let all: BTreeMap<String, String> = manual().into_iter().collect();
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (path, text) in &all {
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split(')').next().unwrap();
            if target.starts_with("http") {
                continue;
            }
            let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
            let file = match file {
                "" => path.clone(),
                _ => Path::new(path).with_file_name(file).to_string_lossy().into_owned(),
            };
            assert!(top.join(&file).exists(), "{path}: {target}");
            if !fragment.is_empty() {
                let headings = all[&file].lines().filter(|line| line.starts_with('#'));
                let mut anchors = headings.map(|line| anchor(line.trim_start_matches('#').trim()));
                assert!(anchors.any(|anchor| anchor == fragment), "{path}: {target}");
            }
        }
    }
}

#[test]
fn the_page_of_the_daemon_has_its_options() {
    let page = include_str!("../packaging/man/provostd.8").replace('\\', "");
    let help = Command::new(env!("CARGO_BIN_EXE_provostd")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let options: Vec<&str> =
        help.split_whitespace().filter(|word| word.starts_with("--") && word.len() > 2).collect();
    assert!(options.len() >= 6, "{help}");
    for option in options {
        assert!(page.contains(option), "{option} is not in packaging/man/provostd.8");
    }
}

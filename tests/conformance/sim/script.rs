//! What simulated processes can do, and the same for real ones: `act`, a program of a few lines.
//!
//! `act NAME STEP...` takes its steps one after the other:
//!
//! | step | what it does |
//! |---|---|
//! | `slowly` | asked to end, it says `ends`, takes a moment, says `ended`, and ends with 0 |
//! | `leaving` | begins another process, which no signal ends but SIGKILL |
//! | `moment` | takes a moment |
//! | `exit-N` | ends with this code |
//! | `stay` | does nothing until it is asked to end |
//! | any other | writes it down behind its name, in `said` beside the program |

use std::path::{Path, PathBuf};
use std::time::Duration;

/// The program for real machines.
pub const ACT: &str = r#"#!/bin/sh
name=$1
said=${0%/*}/said
shift
for step; do
    case $step in
        slowly) trap 'echo $name ends >>$said; sleep 0.2; echo $name ended >>$said; exit' TERM ;;
        leaving) (trap '' TERM; while :; do sleep 0.05; done) & ;;
        moment) sleep 0.2 ;;
        exit-*) exit "${step#exit-}" ;;
        stay) while :; do sleep 0.05; done ;;
        *) echo "$name $step" >>$said ;;
    esac
done
"#;

/// How long a moment is.
pub const MOMENT: Duration = Duration::from_millis(200);

/// What is said of a program that is not there.
pub const MISSING: &str = "No such file or directory";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Slowly,
    Leaving,
    Moment,
    Exit(u8),
    Stay,
    Say(String),
}

/// A process as it is told what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    name: String,
    said: PathBuf,
    pub steps: Vec<Step>,
}

impl Script {
    /// Of a command; None: there is no such program.
    pub fn of(argv: &[String]) -> Option<Script> {
        let words: Vec<&str> = argv.iter().map(String::as_str).collect();
        let steps = match words[..] {
            ["sleep", _] => vec![Step::Stay],
            ["true"] => vec![Step::Exit(0)],
            ["/bin/sh", "-c", line] => {
                vec![Step::Exit(line.strip_prefix("exit ")?.parse().ok()?)]
            }
            [act, _, ref steps @ ..] if act.ends_with("/act") => {
                let steps = steps.iter().map(|word| Step::of(word));
                // At the end of the program it ends.
                steps.chain([Step::Exit(0)]).collect()
            }
            _ => return None,
        };
        let name = words.get(1).copied().unwrap_or_default().to_owned();
        Some(Script { name, said: Path::new(words[0]).with_file_name("said"), steps })
    }

    /// Writes a word down.
    pub fn say(&self, word: &str) {
        let file = std::fs::File::options().append(true).create(true).open(&self.said);
        let line = format!("{} {word}\n", self.name);
        std::io::Write::write_all(&mut file.unwrap(), line.as_bytes()).unwrap();
    }
}

impl Step {
    fn of(word: &str) -> Step {
        match word {
            "slowly" => Step::Slowly,
            "leaving" => Step::Leaving,
            "moment" => Step::Moment,
            "stay" => Step::Stay,
            word => match word.strip_prefix("exit-").map(str::parse) {
                Some(Ok(code)) => Step::Exit(code),
                _ => Step::Say(word.to_owned()),
            },
        }
    }
}

/// The exit code of a command beside a run; None: there is no such program.
pub fn command(argv: &[&str]) -> Option<u8> {
    match argv {
        ["true"] => Some(0),
        ["false"] => Some(1),
        ["test", "-e", path] => Some(u8::from(!Path::new(path).exists())),
        _ => None,
    }
}

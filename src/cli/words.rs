//! Words that people bring from other tools: understood where they mean exactly one of our commands,
//! else answered with the command to use. They are in no help, so that help stays short.

use std::ffi::{OsStr, OsString};

/// What a command line is, once the foreign words are out of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Words {
    /// Ours; to be parsed.
    Ours(Vec<OsString>),
    /// Not ours; what to use.
    Answer(String),
}

/// What a foreign word means.
enum Meaning {
    /// These words of ours, in its place.
    Same(&'static [&'static str]),
    /// None; what to use.
    Use(&'static str),
}

/// Replaces or answers a foreign command. The first element is the name of the program.
#[must_use]
pub fn translate(args: Vec<OsString>) -> Words {
    let Some(at) = command_at(&args) else { return Words::Ours(args) };
    let Some(word) = args[at].to_str() else { return Words::Ours(args) };
    if word == "help" {
        let mut all = args;
        all.remove(at);
        all.truncate(at + 1);
        all.push("--help".into());
        return Words::Ours(all);
    }
    match meaning(word) {
        None => Words::Ours(args),
        Some(Meaning::Use(what)) => {
            Words::Answer(format!("`{word}` is not a command of provost: {what}"))
        }
        Some(Meaning::Same(ours)) => {
            let mut all = args;
            all.splice(at..=at, ours.iter().map(OsString::from));
            Words::Ours(all)
        }
    }
}

/// Where the command is: the first argument that is neither an option nor the value of one.
fn command_at(args: &[OsString]) -> Option<usize> {
    let mut at = 1;
    while let Some(arg) = args.get(at) {
        let bytes = arg.as_encoded_bytes();
        if takes_value(arg) {
            at += 2;
        } else if bytes.first() == Some(&b'-') {
            at += 1;
        } else {
            return Some(at);
        }
    }
    None
}

fn takes_value(arg: &OsStr) -> bool {
    ["--socket", "--output", "-o", "--color"].iter().any(|option| arg == *option)
}

fn meaning(word: &str) -> Option<Meaning> {
    use Meaning::{Same, Use};
    Some(match word {
        // Understood.
        "ls" | "list" | "ps" | "l" | "get" => Same(&["status"]),
        "describe" | "desc" | "info" => Same(&["status"]),
        "jlist" => Same(&["status", "--output", "json"]),
        "ping" => Same(&["status", "--quiet"]),
        "version" => Same(&["--version"]),
        "update" | "daemon-reload" => Same(&["reload"]),
        "reread" | "avail" => Same(&["plan"]),
        "validate" | "configtest" | "config" => Same(&["check"]),
        "kill" | "sendSignal" => Same(&["signal"]),
        "tail" | "log" => Same(&["logs"]),
        // Answered.
        "down" => Use(
            "use `provost stop NAME...`, Ctrl-C where `provost up` runs, or `systemctl stop provostd`",
        ),
        "run" | "foreground" => Use("use `provost up`"),
        "startOrReload" | "startOrRestart" => {
            Use("save the file; the daemon applies it by itself, or at once with `provost reload`")
        }
        "try-restart" | "reload-or-restart" | "condrestart" => Use("use `provost restart NAME...`"),
        "maintail" => Use("use `journalctl -u provostd`"),
        "mask" => Use("use `provost disable NAME...`"),
        "unmask" => Use("use `provost enable NAME...`"),
        "scale" => Use("set `instances` in the file and save it"),
        "rollout" => Use("use `provost wait NAME...` or `provost plan`"),
        "monit" | "dash" | "monitor" => Use("use `provost status` or `provost events -f`"),
        "ecosystem" | "init" => {
            Use("write a processes.yaml; `provost check` says what is wrong with it")
        }
        "save" | "resurrect" | "dump" => Use("there is nothing to save, the file is the state"),
        "startup" => Use("use `systemctl enable provostd`"),
        "unstartup" => Use("use `systemctl disable provostd`"),
        "delete" | "del" | "remove" | "rm" => Use(
            "take the process out of the file and save it; to stop it only, `provost stop NAME`",
        ),
        "add" => Use("put the process into the file and save it"),
        "pid" => Use("use `provost status NAME --output json`"),
        "shutdown" => Use(
            "use `systemctl stop provostd`, or Ctrl-C where `provost up` runs; both stop all processes",
        ),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Words {
        translate(line.split(' ').map(OsString::from).collect())
    }

    fn ours(line: &str) -> Words {
        Words::Ours(line.split(' ').map(OsString::from).collect())
    }

    #[test]
    fn words_with_one_meaning_are_understood() {
        assert_eq!(words("provost ls"), ours("provost status"));
        assert_eq!(words("provost --user ps -q"), ours("provost --user status -q"));
        assert_eq!(words("provost -o json describe api"), ours("provost -o json status api"));
        assert_eq!(words("provost jlist"), ours("provost status --output json"));
        assert_eq!(words("provost update"), ours("provost reload"));
        assert_eq!(words("provost reread"), ours("provost plan"));
        assert_eq!(words("provost configtest a.yaml"), ours("provost check a.yaml"));
        assert_eq!(words("provost kill -s HUP api"), ours("provost signal -s HUP api"));
        assert_eq!(words("provost tail api"), ours("provost logs api"));
        assert_eq!(words("provost help"), ours("provost --help"));
        assert_eq!(words("provost help stop"), ours("provost stop --help"));
    }

    #[test]
    fn words_without_are_answered_with_the_command_to_use() {
        for (word, command) in [
            ("down", "provost stop"),
            ("mask", "provost disable"),
            ("maintail", "journalctl -u provostd"),
            ("try-restart", "provost restart"),
            ("scale", "instances"),
            ("save", "the file is the state"),
            ("pid", "--output json"),
        ] {
            let Words::Answer(answer) = words(&format!("provost {word} x")) else {
                panic!("{word} is taken as a command")
            };
            assert!(answer.contains(command) && !answer.contains('\n'), "{answer}");
        }
    }

    #[test]
    fn our_own_words_and_names_of_processes_are_left_alone() {
        for line in ["provost", "provost start ls", "provost -q", "provost --socket ls status"] {
            assert_eq!(words(line), ours(line));
        }
    }

    #[test]
    fn no_foreign_word_is_one_of_our_commands() {
        use clap::CommandFactory;
        for command in crate::cli::args::Cli::command().get_subcommands() {
            assert!(meaning(command.get_name()).is_none(), "{}", command.get_name());
        }
    }
}

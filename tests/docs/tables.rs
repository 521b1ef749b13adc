//! The tables of the manual, made from the code.

use crate::examples::{OF_A_PROCESS, consequence, example};
use clap::CommandFactory;
use provost::cli::args::Cli;
use provost::config::keys::{Key, Kind, SECTIONS, Section};
use provost::core::unit::{PROPERTIES, Part, Sandbox};

/// The table of that name.
pub fn table(name: &str) -> String {
    match name {
        "later" => later(),
        "exit-codes" => exit_codes(),
        "properties" => properties(),
        "sandboxes" => sandboxes(),
        _ => {
            let found = SECTIONS.iter().find(|(known, _)| *known == name);
            section(found.unwrap_or_else(|| panic!("there is no table `{name}`")).1)
        }
    }
}

fn row(cells: &[String]) -> String {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    format!("| {} |\n", cells.join(" | "))
}

fn head(names: &[&str]) -> String {
    format!("| {} |\n|{}\n", names.join(" | "), "---|".repeat(names.len()))
}

fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{text}`") }
}

fn section(section: &'static Section) -> String {
    let of_a_process = OF_A_PROCESS.iter().any(|other| std::ptr::eq(*other, section));
    let mut columns = vec!["key", "value", "default", "example", "meaning"];
    if of_a_process {
        columns.push("a change");
    }
    let mut table = head(&columns);
    for key in section.keys.iter().filter(|key| !matches!(key.kind, Kind::Later)) {
        let example = example(section, key);
        let mut cells = vec![
            code(key.name),
            value(&key.kind),
            default(key),
            example.map(code).unwrap_or_default(),
            key.doc.to_owned(),
        ];
        if of_a_process {
            let caused = example.map_or("see there", |_| consequence(section, key));
            cells.push(caused.to_owned());
        }
        table += &row(&cells);
    }
    table
}

/// Values of the file as code, sentences as they are.
fn default(key: &Key) -> String {
    let sentence = key.default.contains(' ') || matches!(key.default, "unlimited" | "the user's");
    if sentence { key.default.to_owned() } else { code(key.default) }
}

fn value(kind: &Kind) -> String {
    match kind {
        Kind::Bool => "`true` or `false`".into(),
        Kind::Text => "text".into(),
        Kind::Texts => "list of texts".into(),
        Kind::TextOrTexts => "text, or list of texts".into(),
        Kind::Duration { min, max } => {
            format!("duration, {} to {}", duration(*min), duration(*max))
        }
        Kind::Size { min, max } => {
            format!(
                "size, {} to {}",
                provost::core::text::size(*min),
                provost::core::text::size(*max)
            )
        }
        Kind::Integer { min, max } => format!("whole number, {min} to {max}"),
        Kind::Integers { min, max } => format!("list of whole numbers, {min} to {max}"),
        Kind::Number { min, max } => format!("number, {min} to {max}"),
        Kind::Octal => "octal digits, up to `0777`".into(),
        Kind::Words { words, .. } => {
            words.iter().map(|word| code(word)).collect::<Vec<_>>().join(", ")
        }
        Kind::Signal => "signal".into(),
        Kind::Variables => "mapping of names to texts".into(),
        Kind::Properties => "mapping of [properties](backends.md#properties) to values".into(),
        Kind::Dependencies => "list or mapping, [see below](#dependson)".into(),
        Kind::Sockets => "mapping of names to addresses, [see below](#sockets)".into(),
        Kind::Section(section) => {
            format!("mapping, [see below](#{})", section.path.to_lowercase().replace('.', ""))
        }
        Kind::Processes => "mapping of ids to [processes](#a-process)".into(),
        Kind::Later => unreachable!("it is in a table of its own"),
    }
}

fn duration(milliseconds: u64) -> String {
    provost::core::text::span(std::time::Duration::from_millis(milliseconds))
}

/// The keys and words that a later version will have.
fn later() -> String {
    let mut table = head(&["key", "meaning"]);
    for section in SECTIONS.iter().map(|(_, section)| *section) {
        for key in section.keys {
            let name = section.full_name(key.name);
            match &key.kind {
                Kind::Later => table += &row(&[code(&name), key.doc.to_owned()]),
                Kind::Words { later, .. } => {
                    for word in *later {
                        let written = if *word == "log" { "{ log: … }" } else { word };
                        table += &row(&[code(&format!("{name}: {written}")), key.doc.to_owned()]);
                    }
                }
                _ => {}
            }
        }
    }
    table
}

/// The properties that the file may set.
fn properties() -> String {
    let mut table = head(&["property", "value", "checks too"]);
    for property in PROPERTIES {
        let beside = if property.part == Part::Sandbox { "yes" } else { "" };
        table += &row(&[code(property.name), property.form.about(), beside.to_owned()]);
    }
    table
}

/// What sandboxes are made of.
fn sandboxes() -> String {
    let mut table = head(&["property", "`default`", "`strict`"]);
    let cwd = "CWD";
    let (default, strict) = (Sandbox::Default.properties(cwd), Sandbox::Strict.properties(cwd));
    for (name, words) in &strict {
        let before = default.get(name).map(|words| code(&words.join(" "))).unwrap_or_default();
        let words = words.join(" ").replace(cwd, "the `cwd` of the process");
        let shown = if words.contains('`') { words } else { code(&words) };
        table += &row(&[code(name), before, shown]);
    }
    table
}

/// Commands with the same exit codes, and what each code means.
struct Group {
    commands: Vec<String>,
    codes: Vec<(String, String)>,
}

/// The exit codes as the help of each command has them; commands with the same ones together.
fn exit_codes() -> String {
    let mut groups: Vec<Group> = Vec::new();
    for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
        let help = command.get_after_help().expect("exit codes in its help").to_string();
        let (_, codes) = help.split_once("Exit codes:\n").expect("exit codes in its help");
        let lines = codes.lines().map(|line| {
            let (code, meaning) = line.trim().split_once(' ').expect("a code and its meaning");
            (code.to_owned(), meaning.trim().to_owned())
        });
        // That one is the same for all and said once.
        let codes: Vec<_> = lines.filter(|(code, _)| code != "64").collect();
        let name = command.get_name().to_owned();
        match groups.iter_mut().find(|group| group.codes == codes) {
            Some(group) => group.commands.push(name),
            None => groups.push(Group { commands: vec![name], codes }),
        }
    }
    let mut table = head(&["command", "code", "meaning"]);
    for Group { commands, codes } in groups {
        let mut names = commands.iter().map(|name| code(name)).collect::<Vec<_>>().join(", ");
        for (number, meaning) in codes {
            table += &row(&[std::mem::take(&mut names), number, meaning]);
        }
    }
    table
}

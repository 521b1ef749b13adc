//! How diagnostics look.

use crate::Files;
use provost::config::diagnostic::{Diagnostic, Place};
use provost::config::render::{one_line, render};
use std::sync::Arc;

/// All of them as one text, with the directory left out.
fn look(text: &str) -> String {
    let files = Files::new().with("p.yaml", text);
    let loaded = files.load("p.yaml");
    let shown = render(&loaded.diagnostics, &loaded.sources, false);
    assert_eq!(shown.len(), loaded.diagnostics.len());
    shown.join("\n\n").replace(files.root().to_str().unwrap(), "")
}

#[test]
fn place_line_help() {
    let shown = look("processes:\n  api:\n    command: npm start\n    dependson: [db]\n");
    assert_eq!(
        shown,
        "\
error[command-with-spaces]: `command` is one program, and this has spaces
 --> /p.yaml:3:14
  |
3 |     command: npm start
  |              ^^^^^^^^^
  |
  = help: write `shell: npm start`, or `command: [\"npm\", \"start\"]`; a program with a space in its name goes into a list too

error[unknown-key]: unknown key `dependson`
 --> /p.yaml:4:5
  |
4 |     dependson: [db]
  |     ^^^^^^^^^
  |
  = help: did you mean `dependsOn`?"
    );
}

#[test]
fn other_places() {
    let shown = look("processes:\n  a: {command: x}\n  a: {command: x}\n");
    assert_eq!(
        shown,
        "\
error[duplicate-process]: process `a` is defined twice
 --> /p.yaml:3:3
  |
3 |   a: {command: x}
  |   ^
  |
 ::: /p.yaml:2:3
  |
2 |   a: {command: x}
  |   - first given here"
    );
}

#[test]
fn values_are_masked_and_columns_are_true() {
    let shown = look(
        "processes:\n  a: {command: x, env: {A: \"s3cret ${X}\", B: s3cret, 1C: s3cret}, cwdd: y}\n",
    );
    assert_eq!(
        shown,
        "\
error[unset-variable]: `${X}` in `env.A` is not set
 --> /p.yaml:2:36
  |
2 |   a: {command: x, env: {A: ***, B: ***, 1C: ***}, cwdd: y}
  |                            ^^^
  |
  = help: set it in an `envFile` or in the environment of the daemon; for the shell's own write `$X`

error[bad-env-name]: `1C` is no name of a variable
 --> /p.yaml:2:54
  |
2 |   a: {command: x, env: {A: ***, B: ***, 1C: ***}, cwdd: y}
  |                                         ^^
  |
  = help: letters, digits and `_`, no digit first

error[unknown-key]: unknown key `cwdd`
 --> /p.yaml:2:67
  |
2 |   a: {command: x, env: {A: ***, B: ***, 1C: ***}, cwdd: y}
  |                                                   ^^^^
  |
  = help: did you mean `cwd`?"
    );
}

#[test]
fn a_quote_that_is_not_closed_hides_what_follows() {
    let shown =
        look("processes:\n  a:\n    command: x\n    env:\n      A: \"s3cret\n      B: s3cret\n");
    assert_eq!(
        shown,
        "\
error[unclosed-quote]: a quote was not closed before here
 --> /p.yaml:6:7
  |
6 |       B: ***
  |       ^
  |
 ::: /p.yaml:5:10
  |
5 |       A: ***
  |          --- the quote opens here
  |
  = help: close the quote, or indent the lines that belong to it"
    );
}

#[test]
fn a_bracket_that_is_not_closed_is_shown_alone() {
    for text in ["processes: [", "processes: [\n"] {
        assert_eq!(
            look(text),
            "\
error[yaml-syntax]: a `[` is not closed
 --> /p.yaml:1:12
  |
1 | processes: [
  |            ^"
        );
    }
    // Another bracket before it, in a comment or not closed either, is not the one.
    for text in ["[[", "processes: # [\n  [", "processes: [{[\n\n"] {
        let shown = look(text);
        assert!(shown.contains("is not closed") && !shown.contains(":::"), "{shown}");
    }
}

#[test]
fn a_file_that_ends_anywhere_is_shown_with_places() {
    let whole =
        "# c\nprocesses:\n  a: {command: [x, \"y\"], env: {A: 'b'}}\n  c:\n    command: *d\n\n";
    for end in 0..=whole.len() {
        for text in [&whole[..end], &format!("{}\n\n", &whole[..end])] {
            let shown = look(text);
            let mut origins =
                shown.lines().filter(|line| line.trim_start().starts_with(['-', ':']));
            let is_number = |part: Option<&str>| part.is_some_and(|p| p.parse::<u32>().is_ok());
            let placed = |line: &str| {
                let mut parts = line.rsplit(':');
                is_number(parts.next()) && is_number(parts.next())
            };
            let about_all = shown.contains("[empty-file]");
            assert!(about_all || origins.all(placed), "{text:?}\n{shown}");
        }
    }
}

#[test]
fn a_whole_file() {
    assert_eq!(
        look("# nothing\n"),
        "\
error[empty-file]: the file has no `processes:`
--> /p.yaml
 = help: `processes: {}` is how to say that there are none"
    );
}

#[test]
fn a_long_line_is_cut_around_the_mark() {
    let long = "x".repeat(5_000);
    let shown =
        look(&format!("processes:\n  a: {{command: x, args: [{long}, '${{NOPE}}', {long}]}}\n"));
    assert!(shown.contains("/p.yaml:2:5029"), "{shown}");
    assert!(shown.contains("…xxx") && shown.contains("'${NOPE}'"), "{shown}");
    assert!(shown.lines().all(|line| line.chars().count() < 200), "{shown}");
}

#[test]
fn environment_files_are_masked_too() {
    let files = Files::new()
        .with("p.yaml", "processes:\n  a: {command: x, envFile: e.env}\n")
        .with("e.env", "A=s3cret\nB='s3cret' s3cret\ns3cret\nC='s3cret\ns3cret=s3cret\n");
    let loaded = files.load("p.yaml");
    assert_eq!(loaded.diagnostics.len(), 3);
    let shown = render(&loaded.diagnostics, &loaded.sources, false).concat();
    assert!(!shown.contains("s3cret"), "{shown}");
    assert!(shown.contains("2 | B=***") && shown.contains("named here"), "{shown}");
}

#[test]
fn nothing_reaches_the_terminal_unescaped() {
    let text = "processes:\n  a: {\"\\e[31mx\": 1, command: x, logFile: \"\\e]0;x\\a\", cwd: \"~/\\e[2J\"}\n  b: {command: y, \"b\\nc\": 1}\n";
    let files = Files::new().with("p.yaml", text);
    let loaded = files.load("p.yaml");
    assert!(loaded.diagnostics.len() >= 3);
    for shown in render(&loaded.diagnostics, &loaded.sources, false) {
        assert!(!shown.contains('\x1b'), "{shown:?}");
    }
    for line in loaded.diagnostics.iter().map(one_line) {
        assert!(!line.contains(char::is_control), "{line:?}");
    }
}

#[test]
fn colour_only_where_asked_for() {
    let files = Files::new().with("p.yaml", "");
    let loaded = files.load("p.yaml");
    let coloured = render(&loaded.diagnostics, &loaded.sources, true).concat();
    assert!(coloured.contains("\x1b["));
}

#[test]
fn one_line_each() {
    let file = Arc::new("/etc/p.yaml".into());
    let place = Place { file, line: 3, column: 7, bytes: 9..12 };
    let whole = Place::whole(Arc::clone(&place.file));
    let error = Diagnostic::error("unknown-key", place, "unknown key `x`");
    assert_eq!(one_line(&error), "/etc/p.yaml:3:7: error: unknown key `x`");
    let warning = Diagnostic::warning("missing-file", whole, "gone").help("bring it back");
    assert_eq!(one_line(&warning), "/etc/p.yaml: warning: gone (bring it back)");
}

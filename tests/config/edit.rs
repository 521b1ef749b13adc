//! Edits in place: what the bytes are afterwards, and what is refused.

use provost::config::edit::{EditRefused, set_enabled};
use provost::core::ids::ProcessId;

fn id(text: &str) -> ProcessId {
    ProcessId::new(text).unwrap()
}

fn disabled(text: &str) -> Result<String, EditRefused> {
    set_enabled(text, &[id("a")], false)
}

#[test]
fn the_bytes_around_stay() {
    for (name, before, after) in [
        (
            "set",
            "processes:\n  a:\n    enabled: true # yes\n    command: x\n",
            "processes:\n  a:\n    enabled: false # yes\n    command: x\n",
        ),
        (
            "missing",
            "# top\nprocesses:\n  a: # the one\n    # what it runs\n    command: x # tail\n\n  b:\n    command: y\n",
            "# top\nprocesses:\n  a: # the one\n    enabled: false\n    # what it runs\n    command: x # tail\n\n  b:\n    command: y\n",
        ),
        (
            "flow",
            "processes: {a: {command: x}}\n",
            "processes: {a: {enabled: false, command: x}}\n",
        ),
        (
            "flow with spaces",
            "processes:\n  a: { command: x, args: [y] }\n",
            "processes:\n  a: { enabled: false, command: x, args: [y] }\n",
        ),
        (
            "flow over lines",
            "processes:\n  a: {\n    command: x,\n  }\n",
            "processes:\n  a: {\n    enabled: false, command: x,\n  }\n",
        ),
        (
            "flow set",
            "processes: {a: {command: x, enabled: true}, b: {command: y, enabled: true}}",
            "processes: {a: {command: x, enabled: false}, b: {command: y, enabled: true}}",
        ),
        (
            "CRLF",
            "processes:\r\n  a:\r\n    command: x\r\n",
            "processes:\r\n  a:\r\n    enabled: false\r\n    command: x\r\n",
        ),
        (
            "no final newline",
            "processes:\n  a:\n    command: x",
            "processes:\n  a:\n    enabled: false\n    command: x",
        ),
        (
            "set at the very end",
            "processes:\n  a:\n    command: x\n    enabled: true",
            "processes:\n  a:\n    command: x\n    enabled: false",
        ),
        (
            "byte order mark",
            "\u{feff}processes:\n  a:\n    command: x\n",
            "\u{feff}processes:\n  a:\n    enabled: false\n    command: x\n",
        ),
        (
            "unicode",
            "# été\nprocesses:\n  b: {command: 'ü'}\n  a:\n    name: \"wéb – 日本\"\n    enabled: true\n    command: x\n",
            "# été\nprocesses:\n  b: {command: 'ü'}\n  a:\n    name: \"wéb – 日本\"\n    enabled: false\n    command: x\n",
        ),
        (
            "block scalar that looks like it",
            "processes:\n  a:\n    description: |\n      enabled: true\n    command: x\n",
            "processes:\n  a:\n    enabled: false\n    description: |\n      enabled: true\n    command: x\n",
        ),
        (
            "quoted key and id",
            "processes:\n  \"a\":\n    'enabled': true\n    command: x\n",
            "processes:\n  \"a\":\n    'enabled': false\n    command: x\n",
        ),
        (
            "a wrong value is mended",
            "processes:\n  a:\n    enabled: yes\n    command: x\n",
            "processes:\n  a:\n    enabled: false\n    command: x\n",
        ),
        (
            "odd indentation",
            "processes:\n a:\n       command: x\n",
            "processes:\n a:\n       enabled: false\n       command: x\n",
        ),
        (
            "anchor nobody uses",
            "processes:\n  a: &a\n    command: x\n",
            "processes:\n  a: &a\n    enabled: false\n    command: x\n",
        ),
        (
            "anchor on its own line",
            "processes:\n  a:\n    &a\n    command: x\n",
            "processes:\n  a:\n    &a\n    enabled: false\n    command: x\n",
        ),
        (
            "an alias as the value",
            "x-on: &on true\nprocesses:\n  a: {command: x, enabled: *on}\n  b: {command: x, enabled: *on}\n",
            "x-on: &on true\nprocesses:\n  a: {command: x, enabled: false}\n  b: {command: x, enabled: *on}\n",
        ),
        (
            "a template without it",
            "x-t: &t\n  command: x\nprocesses:\n  a:\n    <<: *t\n  b:\n    <<: *t\n",
            "x-t: &t\n  command: x\nprocesses:\n  a:\n    enabled: false\n    <<: *t\n  b:\n    <<: *t\n",
        ),
        (
            "a template that sets it",
            "x-t: &t {command: x, enabled: true}\nprocesses:\n  a: {<<: *t}\n  b: {<<: *t}\n",
            "x-t: &t {command: x, enabled: true}\nprocesses:\n  a: {enabled: false, <<: *t}\n  b: {<<: *t}\n",
        ),
        ("empty mapping", "processes:\n  a: {}\n", "processes:\n  a: {enabled: false}\n"),
        (
            "document marker",
            "---\nprocesses:\n  a:\n    command: x\n...\n",
            "---\nprocesses:\n  a:\n    enabled: false\n    command: x\n...\n",
        ),
        (
            "processes before other keys",
            "processes:\n  a:\n    command: x\nprocessManagement:\n  enabled: true\n",
            "processes:\n  a:\n    enabled: false\n    command: x\nprocessManagement:\n  enabled: true\n",
        ),
    ] {
        assert_eq!(disabled(before).as_deref(), Ok(after), "{name}");
        let again = disabled(after);
        assert_eq!(again.as_deref(), Ok(after), "{name}: a second time changes nothing");
    }
}

#[test]
fn what_cannot_be_done_is_refused() {
    let by_reference = || EditRefused::ByReference(id("a"));
    let too_far = || EditRefused::TooFar("`a`".into());
    for (text, wanted) in [
        ("processes:\n  b: &b {command: x}\n  a: *b\n", by_reference()),
        ("x-p: &p\n  a: {command: x}\nprocesses: *p\n", by_reference()),
        ("x-p: &p\n  a: {command: x}\nprocesses:\n  <<: *p\n  b: {command: x}\n", by_reference()),
        ("processes:\n  a: &a {command: x}\n  b: *a\n", too_far()),
        ("processes:\n  a: &a\n    command: x\n  b:\n    <<: *a\n    name: b\n", too_far()),
        (
            "processes:\n  a: {command: x, enabled: &on true}\n  b: {command: x, enabled: *on}\n",
            too_far(),
        ),
        ("processes:\n  b: {command: x}\n", EditRefused::NoSuchProcess(id("a"))),
        ("processManagement: {}\n", EditRefused::NoSuchProcess(id("a"))),
        ("processes:\n  a:\n  b: {command: x}\n", EditRefused::Unusual(id("a"))),
        ("processes:\n  a: x\n", EditRefused::Unusual(id("a"))),
        ("processes:\n  ? a\n  : command: x\n    cwd: /\n", EditRefused::Unusual(id("a"))),
    ] {
        assert_eq!(disabled(text), Err(wanted), "{text}");
    }
    for text in ["", "processes: [", "processes:\n  a: !t {command: x}\n"] {
        assert!(matches!(disabled(text), Err(EditRefused::Invalid(_))), "{text}");
    }
}

#[test]
fn several_at_once_and_back() {
    let text = "processes:\n  a:\n    command: x\n  b: {enabled: true, command: y}\n  c:\n    command: z\n";
    let off = set_enabled(text, &[id("c"), id("b"), id("a"), id("b")], false).unwrap();
    let wanted = "processes:\n  a:\n    enabled: false\n    command: x\n  b: {enabled: false, command: y}\n  c:\n    enabled: false\n    command: z\n";
    assert_eq!(off, wanted);
    let on = set_enabled(&off, &[id("a"), id("b"), id("c")], true).unwrap();
    assert_eq!(on, wanted.replace("false", "true"));
    assert_eq!(set_enabled(text, &[id("a")], true).as_deref(), Ok(text), "it is so already");
}

#[test]
fn a_large_file_takes_no_time() {
    use std::fmt::Write;
    let mut text = String::from("processes:\n");
    let mut ids = Vec::new();
    for n in 0..5_000 {
        writeln!(text, "  p{n}:\n    command: x").unwrap();
        ids.push(id(&format!("p{n}")));
    }
    let edited = set_enabled(&text, &ids, false).unwrap();
    assert_eq!(edited.matches("enabled: false").count(), 5_000);
}

//! Input that was made to hurt: bounded time and memory, no panic, a good answer.

use crate::{good, load_text, places, refused};
use std::time::{Duration, Instant};

/// Generous for a debug build on a busy machine; what goes wrong here takes minutes or for ever.
const LONG: Duration = Duration::from_secs(60);

fn codes(text: &str) -> Vec<&'static str> {
    let before = Instant::now();
    let loaded = load_text(text);
    assert!(before.elapsed() < LONG, "took {:?}", before.elapsed());
    loaded.diagnostics.iter().map(|d| d.code).collect()
}

#[test]
fn many_aliases_of_a_long_list_are_refused() {
    let args = vec!["x"; 5_000].join(", ");
    let mut text = format!("x-a: &a [{args}]\nprocesses:\n");
    for n in 0..5_000 {
        text += &format!("  p{n}: {{command: x, args: *a}}\n");
    }
    assert_eq!(codes(&text), ["too-large"]);
}

#[test]
fn ten_thousand_processes_of_one_template_are_fine() {
    let mut text = String::from(
        "x-t: &t\n  command: node\n  args: [a, b, c]\n  env: {A: 1, B: 2}\n  healthCheck: {tcp: 'x:1'}\n  \
         restartPolicy: {delay: 1s, maxDelay: 2s}\nprocesses:\n",
    );
    for n in 0..10_000 {
        text += &format!("  p{n}: {{<<: *t, description: number {n}}}\n");
    }
    let loaded = load_text(&text);
    assert_eq!(good(&loaded).processes.len(), 10_000);
}

#[test]
fn ten_thousand_whole_processes_are_fine() {
    let mut text = String::from("processes:\n");
    for n in 0..10_000 {
        text += &format!(
            "  p{n}:\n    command: node\n    args: [a, b, c, d, e]\n    cwd: /srv\n    env: {{A: 1, B: 2, C: 3}}\n    \
             dependsOn: [p{}]\n    restartPolicy: {{delay: 1s, maxDelay: 2s, jitter: 0.1}}\n    \
             healthCheck: {{tcp: 'x:1', interval: 5s, timeout: 1s}}\n    tags: [a, b]\n",
            if n == 0 { 9_999 } else { n - 1 }
        );
    }
    // All of them in one ring: the longest path there is.
    let loaded = load_text(&text);
    assert_eq!(places(&loaded.diagnostics), ["7:17 dependency-cycle"]);
    let open = text.replace("dependsOn: [p9999]", "dependsOn: []");
    assert_eq!(good(&load_text(open)).processes.len(), 10_000);
}

#[test]
fn depth() {
    assert_eq!(codes(&"[".repeat(200_000)), ["too-deep"]);
    assert_eq!(codes(&format!("processes: {}", "{a: ".repeat(100_000))), ["too-deep"]);
    assert_eq!(codes(&"- ".repeat(100_000)), ["too-deep"]);
    let block: String = (0..2_000).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
    assert_eq!(codes(&block), ["too-deep"]);
}

#[test]
fn size() {
    assert_eq!(codes(&format!("processes: {}", "x".repeat(64 << 20))), ["unreadable"]);
    assert_eq!(codes(&format!("processes: {}", "x".repeat(15 << 20))), ["wrong-type"]);
    let long = format!("processes:\n  a: {{command: x, args: [{}]}}\n", "x".repeat(200_000));
    assert_eq!(codes(&long), ["too-long"]);
}

#[test]
fn a_megabyte_of_errors() {
    let text = format!("processes:\n  a: {{command: x, args: [{}]}}\n", "[], ".repeat(300_000));
    let codes = codes(&text);
    assert_eq!(codes.len(), 1_001);
    assert!(codes.contains(&"too-many-problems"));
}

#[test]
fn text_from_little_text() {
    let big = "x".repeat(60_000);
    let uses = "'${V}${V}', ".repeat(10_000);
    let text = format!("processes:\n  a: {{command: x, envFile: e, args: [{uses}]}}\n");
    let files = crate::Files::new().with("e", format!("V={big}\n")).with("processes.yaml", text);
    let loaded = files.load("processes.yaml");
    assert!(loaded.diagnostics.iter().any(|d| d.code == "too-large"));
    assert!(refused(&loaded));
}

#[test]
fn half_a_file_never_panics() {
    let text = "\u{feff}x-t: &t {nice: 1}\r\nprocesses:\n  \"a\": &a\n    <<: [*t, {nice: 2}]\n    command: 'été'\n    args: [\"a\\u00e9\", b]\n    env: {A: '${A}', B: |\n      }\n    ?  x\n    : y\n  b: *a\n  # c\n  c: {dependsOn: {a: {condition: ready}}, healthCheck: {url: \"http://[::1]:300${INSTANCE}/\"}}\n";
    let mut refusals = 0;
    for end in 0..=text.len() {
        let loaded = load_text(&text.as_bytes()[..end]);
        refusals += usize::from(refused(&loaded));
        let shown = provost::config::render::render(&loaded.diagnostics, &loaded.sources, true);
        assert_eq!(shown.len(), loaded.diagnostics.len());
    }
    assert!(refusals > text.len() / 2);
}

//! Input that was made to hurt: bounded time and memory, no panic, a good answer.

use crate::{good, load_text, places, refused};
use provost::config::edit::set_enabled;
use provost::config::load::load_with;
use provost::core::ids::ProcessId;
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

#[test]
fn many_duplicates_in_one_line() {
    let text = format!("processes:\n  a: {{command: x, env: {{{}}}}}\n", "A: 1, ".repeat(200_000));
    assert_eq!(codes(&text).len(), 1_001);
}

#[test]
fn many_dependencies_on_nothing() {
    let mut text = String::from("processes:\n");
    for n in 0..10_000 {
        text += &format!("  p{n}: {{command: x, dependsOn: [q{n}]}}\n");
    }
    assert_eq!(codes(&text).len(), 1_001);
}

#[test]
fn everything_depends_on_everything() {
    let ids: Vec<String> = (0..600).map(|n| format!("p{n}")).collect();
    let mut text = String::from("processes:\n");
    for id in &ids {
        let others: Vec<&str> = ids.iter().filter(|o| *o != id).map(String::as_str).collect();
        text += &format!("  {id}: {{command: x, dependsOn: [{}]}}\n", others.join(", "));
    }
    let codes = codes(&text);
    assert!(codes.len() == 50 && codes.iter().all(|code| *code == "dependency-cycle"));
}

/// Bytes of a good file changed at random: never a panic, and an edit that is made is one that
/// loads.
#[test]
fn mutations_never_panic() {
    const TEXT: &str = "\u{feff}processManagement: {restartAttempts: 3, watchConfig: true}\nx-t: &t\n  env: &e {A: \"1\", B: 'é'}\n  nice: 1\nprocesses:\n  a: &a # c\n    <<: *t\n    command: [x, \"${INSTANCE}\"]\n    healthCheck: {url: 'http://h:1/', interval: 5s}\n  b:\n    <<: [*t, {nice: 2}]\n    shell: |\n      echo $X\n    dependsOn: {a: {condition: healthy, restart: true}}\n    stop: {signal: TERM}\n    env: {<<: *e, C: x}\n";
    const BITS: &[&str] = &[
        "*a", "&a", "<<", ": ", "- ", "\n", "\n  ", "{", "}", "[", "]", "'", "\"", "#", "${", "~",
        "!", "|", ">", "\u{0}", "é", "%", "?", "\t", "---\n", "no", "5s", "env:",
    ];
    let location = crate::Files::new().with("none", "").location("processes.yaml");
    // A generator of our own, so that a failure can be had again.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    let mut edits = 0;
    for round in 0..3_000 {
        let mut bytes = TEXT.as_bytes().to_vec();
        for _ in 0..=next(3) {
            let at = next(bytes.len());
            match next(4) {
                0 => drop(bytes.remove(at)),
                1 => bytes[at] = u8::try_from(next(256)).unwrap(),
                2 => {
                    let bit = BITS[next(BITS.len())];
                    bytes.splice(at..at, bit.bytes());
                }
                _ => {
                    let end = (at + next(40)).min(bytes.len());
                    let piece = bytes[at..end].to_vec();
                    let to = next(bytes.len());
                    bytes.splice(to..to, piece);
                }
            }
        }
        let loaded = load_with(&location, Some(bytes.clone()));
        let shown = provost::config::render::render(&loaded.diagnostics, &loaded.sources, false);
        assert_eq!(shown.len(), loaded.diagnostics.len(), "round {round}");
        let (Ok(text), Some(before)) = (String::from_utf8(bytes), &loaded.config) else { continue };
        let id = ProcessId::new("b").unwrap();
        let Ok(edited) = set_enabled(&text, std::slice::from_ref(&id), false) else { continue };
        let after = load_with(&location, Some(edited.clone().into_bytes())).config;
        let Some(after) = after else { panic!("round {round}: {text:?} became {edited:?}") };
        let mut wanted = (**before).clone();
        let spec = wanted.processes.get_mut(&id).unwrap();
        std::sync::Arc::make_mut(spec).enabled = false;
        assert_eq!(*after, wanted, "round {round}: {text:?} became {edited:?}");
        edits += 1;
    }
    assert!(edits > 50, "too few of them were good: {edits}");
}

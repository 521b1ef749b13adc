//! What is said about what is wrong, and where: exact lines and columns.

use crate::{Files, load_text, places, refused};
use provost::config::diagnostic::Diagnostic;
use provost::config::load::Mode;
use std::collections::BTreeSet;

/// A text and all that is wrong with it.
pub(crate) struct Case {
    name: &'static str,
    text: &'static str,
    wanted: &'static [&'static str],
    /// Words that the first message and its help must contain.
    says: &'static [&'static str],
}

pub(crate) const fn case(
    name: &'static str,
    text: &'static str,
    wanted: &'static [&'static str],
    says: &'static [&'static str],
) -> Case {
    Case { name, text, wanted, says }
}

const YAML: &[Case] = &[
    case(
        "unclosed quote",
        "processes:\n  api:\n    command: node\n    name: \"API\n    cwd: /x\n",
        &["5:5 unclosed-quote"],
        &["close the quote"],
    ),
    case(
        "a quote within quotes",
        "processes:\n  a:\n    command: x\n    args: ['it's']\n",
        &["4:16 unclosed-quote"],
        &["write ''"],
    ),
    case("NUL", "processes:\n  a:\n    command: a\0b\n", &["3:15 nul-byte"], &["NUL"]),
    case(
        "escaped NUL",
        "processes:\n  a:\n    command: x\n    args: [\"a\\0b\"]\n",
        &["4:12 nul-byte"],
        &["`args`"],
    ),
    case(
        "tag",
        "processes:\n  a:\n    command: x\n    cwd: !env HOME\n",
        &["4:10 tag"],
        &["`!env`", "remove the tag"],
    ),
    case(
        "tags of collections",
        "processes: !!map\n  a:\n    command: !list [x]\n",
        &["1:12 tag", "3:14 tag"],
        &["`!!map`"],
    ),
    case(
        "second document",
        "processes:\n  a:\n    command: x\n---\nprocesses: {}\n",
        &["4:1 second-document"],
        &["one document"],
    ),
    case("self reference", "processes: &p\n  a: *p\n", &["2:6 self-reference"], &["`*p`"]),
    case(
        "unknown anchors, all of them",
        "processes:\n  a: *x\n  b:\n    command: c\n    args: *y\n",
        &["2:6 unknown-anchor", "5:11 unknown-anchor"],
        &["`&x`"],
    ),
    case(
        "tab as indentation",
        "processes:\n  a:\n\tcommand: x\n",
        &["3:2 yaml-syntax"],
        &["tab", "spaces"],
    ),
    case(
        "colon in plain text",
        "processes:\n  a:\n    command: x\n    name: API: the one\n",
        &["4:14 yaml-syntax"],
        &["second `: `", "quotes"],
    ),
    case(
        "no space after the colon",
        "processes:\n  a:\n    command:a\n    cwd: /\n",
        &["4:8 yaml-syntax"],
        &["lacks a space", "`command: …`"],
    ),
    case(
        "only a key without a space",
        "processes:\n  a:\n    command:a\n",
        &["3:5 wrong-type"],
        &["process `a` must be a mapping"],
    ),
    case(
        "bad indentation",
        "processes:\n  a:\n      command: x\n    cwd: /\n",
        &["4:5 yaml-syntax"],
        &["indentation"],
    ),
    case(
        "bracket not closed",
        "processes:\n  a:\n    command: [x, y\n",
        &["3:14 yaml-syntax"],
        &["`[`"],
    ),
    case(
        "wrong bracket",
        "processes:\n  a:\n    command: [x, y}\n",
        &["3:14 yaml-syntax"],
        &["`}`", "`[`"],
    ),
    case("an at sign", "processes:\n  a:\n    command: @x\n", &["3:14 yaml-syntax"], &["quotes"]),
    case("empty file", "", &["0:0 empty-file"], &["no `processes:`", "`processes: {}`"]),
    case("only comments", "# a\n\n# b\n", &["0:0 empty-file"], &["no `processes:`"]),
    case("null file", "~\n", &["0:0 empty-file"], &["no `processes:`"]),
    case("nothing below", "processes:\n", &["1:1 empty-processes"], &["`processes: {}`"]),
    case("null below", "processes: null\n", &["1:1 empty-processes"], &["`processes: {}`"]),
    case("a list at the top", "- a\n- b\n", &["1:1 wrong-type"], &["the file must be a mapping"]),
    case(
        "characters, not bytes",
        "processes:\n  a: {command: x, name: \"été wéb\", cwdd: /x}\n",
        &["2:36 unknown-key"],
        &["`cwdd`", "`cwd`"],
    ),
    case(
        "byte order mark and CRLF",
        "\u{feff}processes:\r\n  a:\r\n    command: x\r\n    cwdd: y\r\n",
        &["4:5 unknown-key"],
        &["`cwd`"],
    ),
    case(
        "byte order mark, first line",
        "\u{feff}procesess: {}\n",
        &["1:1 unknown-key", "1:1 no-processes"],
        &["`processes`"],
    ),
];

#[test]
fn yaml() {
    run(YAML);
}

const KEYS: &[Case] = &[
    case(
        "the thirteen of one pass",
        "processes:
  base: &base
    enabled: yes
    comand: node
  api:
    command: node
    args: server.js
    enabled: no
    restartPolicy: { maxAttempts: three, dellay: 1s, condition: on-failiure }
    dependsOn: [bse]
    healthCheck: { url: \"http://localhost:99999/\", interval: 5 sec }
    env: { A: 1, A: 2 }
  api:
    command: x
",
        &[
            "2:3 missing-command",
            "3:14 bad-boolean",
            "4:5 unknown-key",
            "7:11 wrong-type",
            "8:14 bad-boolean",
            "9:35 bad-number",
            "9:42 unknown-key",
            "9:65 unknown-word",
            "10:17 unknown-dependency",
            "11:25 bad-port",
            "11:62 bad-duration",
            "12:18 duplicate-key",
            "13:3 duplicate-process",
        ],
        &["process `base` has no `command`"],
    ),
    case(
        "unknown keys at each level",
        "processManagment: {}\nprocesses:\n  a:\n    command: x\n    image: y\n    stop: { signl: TERM }\n",
        &["1:1 unknown-key", "5:5 unknown-key", "6:13 unknown-key"],
        &["`processManagment`", "did you mean `processManagement`?"],
    ),
    case(
        "a word of another tool",
        "processes:\n  a:\n    cmd: x\n",
        &["2:3 missing-command", "3:5 unknown-key"],
        &[],
    ),
    case(
        "quoted boolean",
        "processes:\n  a:\n    command: x\n    enabled: \"true\"\n",
        &["4:14 quoted-value"],
        &["remove the quotes"],
    ),
    case(
        "quoted numbers",
        "processes:\n  a:\n    command: x\n    instances: '2'\n    startTimeout: \"500\"\n",
        &["4:16 quoted-value", "5:19 quoted-value"],
        &["remove the quotes"],
    ),
    case(
        "enabled: no",
        "processes:\n  a:\n    command: x\n    enabled: no\n",
        &["4:14 bad-boolean"],
        &["write `false`"],
    ),
    case(
        "no is for conditions of restart only",
        "processes:\n  a:\n    command: x\n    restartPolicy: { condition: no }\n  b:\n    command: x\n    \
         restartPolicy: { condition: false }\n  c:\n    command: x\n    essential: off\n    readiness: no\n",
        &["10:16 bad-boolean", "11:16 unknown-word"],
        &["write `false`"],
    ),
    case(
        "ids",
        "processes:\n  1: {command: x}\n  true: {command: x}\n  null: {command: x}\n  \"a b\": {command: x}\n  -x: {command: x}\n",
        &["5:3 bad-process-id", "6:3 bad-process-id"],
        &["for example `a-b`"],
    ),
    case(
        "processes that are a list",
        "processes:\n  - command: x\n",
        &["2:3 wrong-type"],
        &["the id of each process as its key"],
    ),
    case(
        "a process with nothing",
        "processes:\n  a:\n  b: ~\n  c: x\n  d: {}\n",
        &["2:3 missing-command", "3:3 missing-command", "4:6 wrong-type", "5:3 missing-command"],
        &["nothing below it"],
    ),
    case(
        "processes without the word",
        "example-server:\n  enabled: true\n  command: node\nother:\n  shell: x\n",
        &["1:1 no-processes"],
        &["below a line `processes:`", "`example-server`, `other`"],
    ),
    case(
        "a process at the wrong indentation",
        "processes:\n  a:\n    command: x\nb:\n  command: y\n",
        &["4:1 unknown-key"],
        &["indent `b` below `processes:`"],
    ),
    case(
        "command and shell",
        "processes:\n  a:\n    command: x\n    shell: y\n",
        &["4:5 command-and-shell"],
        &["both"],
    ),
    case(
        "args of a shell",
        "processes:\n  a:\n    shell: y\n    args: [z]\n",
        &["4:5 args-with-shell"],
        &["`shell` takes none"],
    ),
    case(
        "command with spaces",
        "processes:\n  a:\n    command: npm start\n  b:\n    command: \"echo 'a b'\"\n",
        &["3:14 command-with-spaces", "5:14 command-with-spaces"],
        &["`shell: npm start`", "`command: [\"npm\", \"start\"]`"],
    ),
    case(
        "commands of nothing",
        "processes:\n  a:\n    command: \"\"\n  b:\n    command: []\n  c:\n    command:\n  d:\n    command: {a: b}\n  e:\n    command: ['']\n",
        &[
            "3:14 empty-value",
            "5:14 empty-value",
            "6:3 missing-command",
            "7:5 empty-value",
            "9:14 wrong-type",
            "11:14 empty-value",
        ],
        &["empty"],
    ),
    case(
        "values left out",
        "processes:\n  a:\n    command: x\n    cwd:\n    env:\n    args:\n    nice: ~\n",
        &["4:5 empty-value", "5:5 empty-value", "6:5 empty-value"],
        &["remove the line"],
    ),
    case(
        "numbers",
        "processes:\n  a:\n    command: x\n    instances: 0\n    nice: 20\n    umask: 0999\n    limits: {files: 010}\n    \
         restartPolicy: {factor: 0.5, jitter: x, successExitCodes: [0, 256], maxAttempts: 99999999999999999999}\n",
        &[
            "4:16 out-of-range",
            "5:11 out-of-range",
            "6:12 bad-number",
            "7:21 bad-number",
            "8:29 out-of-range",
            "8:42 bad-number",
            "8:67 out-of-range",
            "8:86 out-of-range",
        ],
        &["between 1 and 10000"],
    ),
    case(
        "two runs at once",
        "processes:\n  a: {command: x, overlap: maybe}\n  b: {command: x, overlap: true, pidFile: /run/b.pid}\n  \
         c: {command: x, overlap: true, restartPolicy: {condition: \"no\"}}\n  \
         d: {command: x, overlap: false, pidFile: /run/d.pid, restartPolicy: {condition: \"no\"}}\n",
        &["2:28 bad-boolean", "3:43 overlapping-pid-file", "4:28 overlapping-one-shot"],
        &[],
    ),
    case(
        "two runs of which the new one may count as ready too early",
        "processes:\n  a: {command: x, overlap: true}\n  b: {command: x, overlap: true, readiness: notify}\n  \
         c: {command: x, overlap: true, healthCheck: {url: 'http://x:1/'}}\n  \
         d: {command: x, overlap: true, healthCheck: {tcp: 'x:1'}}\n  \
         e: {command: x, overlap: true, healthCheck: {tcp: 'x:1'}, readiness: notify}\n  \
         f: {command: x, overlap: true, healthCheck: {exec: [y]}}\n  \
         g: {command: x, overlap: true, healthCheck: {notify: true}}\n",
        &["2:28 overlapping-readiness", "4:28 overlapping-readiness", "5:28 overlapping-readiness"],
        &["counts as ready", "`readiness: notify`"],
    ),
    case(
        "how many may be down",
        "processes:\n  a: {command: x, maxUnavailable: 0}\n  b: {command: x, maxUnavailable: 50%}\n",
        &["2:35 out-of-range", "3:35 bad-number"],
        &["between 1 and 10000"],
    ),
    case(
        "durations",
        "processes:\n  a:\n    command: x\n    startTimeout: 5 minutes\n    stop: {timeout: -1}\n    \
         restartPolicy: {delay: 10m, maxDelay: 5m}\n    healthCheck: {tcp: 'x:1', interval: 10ms, timeout: 5000d}\n",
        &[
            "4:19 bad-duration",
            "5:21 bad-duration",
            "6:43 out-of-range",
            "7:41 out-of-range",
            "7:56 out-of-range",
        ],
        &["`2m30s`"],
    ),
    case(
        "sizes",
        "processes:\n  a:\n    command: x\n    logFile: a.log\n    log: {maxSize: 50MB, maxFiles: 0}\n  b:\n    command: x\n    logFile: b.log\n    log: {maxSize: 100}\n  c:\n    command: x\n    logFile: c.log\n    log: {maxFiles: 3}\n  d:\n    command: x\n    log: {maxSize: 50M}\n",
        &[
            "5:20 bad-size",
            "5:36 out-of-range",
            "9:20 out-of-range",
            "13:11 files-without-size",
            "16:11 rotation-without-file",
        ],
        &["`512K`, `50M`, `1G`"],
    ),
    case(
        "signals",
        "processes:\n  a:\n    command: x\n    stop: {signal: SIGTREM}\n  b:\n    command: x\n    stop: {signal: hup}\n  c:\n    command: x\n    stop: {signal: 65}\n",
        &["4:20 bad-signal", "7:20 bad-signal", "10:20 bad-signal"],
        &["did you mean `SIGTERM`?"],
    ),
    case(
        "words",
        "processes:\n  a:\n    command: x\n    log: {target: syslog}\n    healthCheck: {tcp: 'x:1', onFailure: kill}\n    readiness: ready\n",
        &["4:19 unknown-word", "5:42 unknown-word", "6:16 unknown-word"],
        &["one of `auto`, `journal`, `none`"],
    ),
    case(
        "duplicate keys show both places",
        "processes:\n  a:\n    command: x\n    command: y\n    env: {A: 1, A: 2}\nprocesses: {}\n",
        &["4:5 duplicate-key", "5:17 duplicate-key", "6:1 duplicate-key"],
        &["given twice"],
    ),
    case(
        "merges",
        "x-a: &a {command: x, cwdd: 1}\nx-b: &b {enabled: maybe}\nx-c: &c [1]\nprocesses:\n  a:\n    <<: [*a, *b]\n  b:\n    <<: *a\n    <<: *b\n  c:\n    <<: *c\n    command: x\n",
        &["1:22 unknown-key", "2:19 bad-boolean", "3:10 wrong-type", "9:5 duplicate-key"],
        &["`cwd`"],
    ),
    case(
        "environment",
        "processes:\n  a:\n    command: x\n    env: {A-B: 1, 1A: 2, OK: , X: [1], Y: {a: b}}\n  b:\n    command: x\n    env: [A=1]\n",
        &[
            "4:11 bad-env-name",
            "4:19 bad-env-name",
            "4:26 empty-value",
            "4:35 wrong-type",
            "4:43 wrong-type",
            "7:10 wrong-type",
        ],
        &["`A-B`"],
    ),
    case(
        "interpolation",
        "processes:\n  a:\n    command: x\n    args: [\"-p\", \"${PORT}\", \"${A:-b}\", \"$HOME $${HOME}\"]\n    cwd: ~/app\n    shell: ~\n",
        &["4:19 unset-variable", "4:30 bad-interpolation", "5:10 tilde"],
        &["`${PORT}` in `args` is not set", "write `$PORT`"],
    ),
    case(
        "checks",
        "processes:\n  a: {command: x, healthCheck: {enabled: true}}\n  b: {command: x, healthCheck: {tcp: 'a:1', url: 'http://a'}}\n  c: {command: x, healthCheck: {url: 'localhost:1'}}\n  d: {command: x, healthCheck: {tcp: 5432}}\n  e: {command: x, healthCheck: {exec: 'a b'}}\n  f: {command: x, healthCheck: {exec: []}}\n  g: {command: x, healthCheck: {tcp: 'x:99999'}}\n",
        &[
            "2:19 no-check",
            "3:45 two-checks",
            "4:38 bad-url",
            "5:38 bad-address",
            "6:39 wrong-type",
            "7:39 empty-value",
            "8:38 bad-port",
        ],
        &["`url`, `tcp`, `exec` or `notify: true`"],
    ),
    case(
        "sockets",
        "processes:\n  a:\n    command: x\n    sockets:\n      ok: 127.0.0.1:1\n      b c: 127.0.0.1:2\n      c: localhost:3\n      d: 127.0.0.1:0\n      e: { listen: '[::1]:4', mode: 0600 }\n      f: { mode: 0600 }\n      g: run/x\n      h: { listen: /run/x, mode: 9 }\n  b: {command: x, sockets: {x: 127.0.0.1:1}}\n",
        &[
            "6:7 bad-socket-name",
            "7:10 bad-address",
            "8:10 bad-address",
            "9:31 misplaced-key",
            "10:7 missing-address",
            "11:10 bad-address",
            "12:34 bad-number",
            "13:32 duplicate-socket",
        ],
        &["`b c`", "at most 64"],
    ),
    case(
        "a check that nobody asks",
        "processes:\n  a: {command: x, healthCheck: {notify: true, tcp: 'a:1'}}\n  b: {command: x, healthCheck: {notify: true, timeout: 5s}}\n  c: {command: x, healthCheck: {notify: false}}\n  d: {command: x, healthCheck: {notify: 1s}}\n",
        &["2:47 two-checks", "3:47 timeout-with-notify", "4:19 no-check", "5:41 bad-boolean"],
        &["`healthCheck.notify` and `healthCheck.tcp`"],
    ),
    case(
        "a pid file for two",
        "processes:\n  a: {command: x, instances: 2, pidFile: a.pid}\n  b: {command: x, instances: 2, pidFile: 'b${INSTANCE}.pid'}\n",
        &["2:42 shared-pid-file"],
        &["`${INSTANCE}`"],
    ),
];

#[test]
fn keys_and_values() {
    run(KEYS);
}

const GRAPH: &[Case] = &[
    case(
        "unknown dependency",
        "processes:\n  database: {command: x}\n  api: {command: x, dependsOn: [databse]}\n",
        &["3:33 unknown-dependency"],
        &["did you mean `database`?"],
    ),
    case(
        "a cycle as its path",
        "processes:\n  a: {command: x, dependsOn: [b]}\n  b: {command: x, dependsOn: {c: started}}\n  c: {command: x, dependsOn: [d, a]}\n  d: {command: x}\n",
        &["2:31 dependency-cycle"],
        &["a → b → c → a"],
    ),
    case(
        "two cycles",
        "processes:\n  a: {command: x, dependsOn: [b]}\n  b: {command: x, dependsOn: [a]}\n  c: {command: x, dependsOn: [d]}\n  d: {command: x, dependsOn: [c]}\n",
        &["2:31 dependency-cycle", "4:31 dependency-cycle"],
        &["a → b → a"],
    ),
    case(
        "itself",
        "processes:\n  a: {command: x, dependsOn: [a]}\n",
        &["2:31 self-dependency"],
        &[],
    ),
    case(
        "completed of one that is restarted",
        "processes:\n  a: {command: x}\n  b: {command: x, restartPolicy: {condition: unless-stopped}}\n  c: {command: x, restartPolicy: {condition: on-failure}}\n  d:\n    command: x\n    dependsOn: {a: completed, b: completed, c: completed}\n",
        &["7:17 completed-restarts", "7:31 completed-restarts"],
        &["never `completed`"],
    ),
    case(
        "healthy of one without a check",
        "processes:\n  a: {command: x}\n  b: {command: x, healthCheck: {enabled: false, tcp: 'x:1'}}\n  c: {command: x, healthCheck: {tcp: 'x:1'}}\n  d:\n    command: x\n    dependsOn: {a: healthy, b: healthy, c: healthy}\n    readiness: health\n",
        &[
            "7:17 healthy-without-check",
            "7:29 healthy-without-check",
            "8:16 readiness-without-check",
        ],
        &["never `healthy`"],
    ),
    case(
        "an unreadable part is no second error",
        "processes:\n  a: {command: x, restartPolicy: {condition: nope}, healthCheck: {url: x}}\n  b: {command: x, dependsOn: {a: completed}}\n  c: {command: x, dependsOn: {a: healthy}}\n",
        &["2:46 unknown-word", "2:72 bad-url"],
        &[],
    ),
    case(
        "shapes of dependsOn",
        "processes:\n  a: {command: x}\n  b: {command: x, dependsOn: a}\n  c: {command: x, dependsOn: {a: redy}}\n  d: {command: x, dependsOn: {a: {condition: ready, restrt: true}}}\n  e: {command: x, dependsOn: [a, a]}\n  f: {command: x, dependsOn: {a: }}\n",
        &[
            "3:30 wrong-type",
            "4:34 unknown-word",
            "5:53 unknown-key",
            "6:34 duplicate-key",
            "7:32 empty-value",
        ],
        &["write `[a]`"],
    ),
];

#[test]
fn between_processes() {
    run(GRAPH);
}

pub(crate) fn run(cases: &[Case]) {
    for case in cases {
        let loaded = load_text(case.text);
        assert_eq!(places(&loaded.diagnostics), case.wanted, "{}", case.name);
        let warns = |wanted: &&str| {
            ["shared-pid-file", "overlapping-readiness"].iter().any(|code| wanted.ends_with(code))
        };
        let warnings_only = case.wanted.iter().all(warns);
        assert_eq!(refused(&loaded), !warnings_only, "{}", case.name);
        let said = loaded.diagnostics.first().map(sentence).unwrap_or_default();
        for words in case.says {
            assert!(said.contains(words), "{}: {said:?} lacks {words:?}", case.name);
        }
    }
}

fn sentence(diagnostic: &Diagnostic) -> String {
    format!("{} ({})", diagnostic.message, diagnostic.help.as_deref().unwrap_or_default())
}

#[test]
fn a_feature_of_a_later_version_is_refused_by_name() {
    for (key, name) in [
        ("schedule: daily", "schedule"),
        ("hooks: {preStart: [x]}", "hooks"),
        ("healthCheck: {url: 'https://x/'}", "https:"),
        ("readiness: {log: listening}", "readiness: { log: … }"),
        ("stop: {command: [x]}", "stop.command"),
    ] {
        let loaded = load_text(format!("processes:\n  a:\n    command: x\n    {key}\n"));
        let codes: Vec<_> = loaded.diagnostics.iter().map(|d| d.code).collect();
        assert_eq!(codes, ["unavailable"], "{key}");
        let message = &loaded.diagnostics[0].message;
        assert!(message.contains(name), "{key}: {message}");
        assert!(message.ends_with("is not available in this version"), "{message}");
    }
    let loaded = load_text("processManagement: {gateway: {}}\nprocesses: {}\n");
    let codes: Vec<_> = loaded.diagnostics.iter().map(|d| d.code).collect();
    assert_eq!(codes, ["unavailable"]);
    let nulls = "processes:\n  a:\n    command: x\n    schedule: null\n    hooks:\n    stop: {command: null}\n";
    assert!(!refused(&load_text(nulls)));
}

#[test]
fn an_error_behind_an_alias_names_its_uses() {
    let text = "x-t: &t\n  enabled: maybe\nprocesses:\n  a: {<<: *t, command: x}\n  b: {<<: *t, command: x}\n";
    let loaded = load_text(text);
    // One thing is wrong, so one thing is said.
    assert_eq!(places(&loaded.diagnostics), ["2:12 bad-boolean"]);
    let related = &loaded.diagnostics[0].related;
    let uses: Vec<_> = related.iter().map(|(p, word)| (p.line, p.column, &**word)).collect();
    assert_eq!(uses, [(4, 11, "used here")]);
}

#[test]
fn duplicates_show_both_places() {
    let loaded = load_text("processes:\n  a: {command: x}\n  b: {command: y}\n  a: {command: z}\n");
    assert_eq!(places(&loaded.diagnostics), ["4:3 duplicate-process"]);
    let (place, _) = &loaded.diagnostics[0].related[0];
    assert_eq!((place.line, place.column), (2, 3));
}

#[test]
fn the_quote_that_opened_is_shown() {
    let loaded = load_text(YAML[0].text);
    let (place, word) = &loaded.diagnostics[0].related[0];
    assert_eq!((place.line, place.column, &**word), (4, 11, "the quote opens here"));
}

#[test]
fn environment_values_are_in_no_message() {
    let text = "processes:\n  a:\n    command: x\n    env:\n      A: \"hunter2${hunter3:-hunter4}\"\n      B: {hunter5: x}\n      \
                C: \"hunter6\\0\"\n      D: !tag hunter7\n      E: [hunter8\n";
    for text in [text.to_owned(), text.replace("[hunter8", "[hunter8]")] {
        let files = Files::new().with("processes.yaml", text);
        let loaded = files.load("processes.yaml");
        assert!(refused(&loaded));
        let shown = provost::config::render::render(&loaded.diagnostics, &loaded.sources, false);
        for text in loaded.diagnostics.iter().map(sentence).chain(shown) {
            assert!(!text.contains("hunter"), "{text}");
        }
    }
}

#[test]
fn the_daemons_environment_is_for_users_only() {
    let text = "processes:\n  a: {command: x, args: ['${TOKEN}']}\n";
    let files = || Files::new().with("processes.yaml", text).variable("TOKEN", "t");
    assert!(!refused(&files().load("processes.yaml")));
    let system = files().mode(Mode::System).load("processes.yaml");
    assert_eq!(places(&system.diagnostics), ["2:27 unset-variable"]);
}

/// The tables above, the tests of other files and this list together reach every code there is.
#[test]
fn every_code_is_reached() {
    let source = concat!(
        include_str!("diagnostics.rs"),
        include_str!("accepted.rs"),
        include_str!("hostile.rs"),
        include_str!("files.rs"),
        include_str!("machine.rs"),
        include_str!("moment.rs"),
        include_str!("renewal.rs"),
        include_str!("resources.rs"),
        include_str!("../conformance/daemons.rs"),
        include_str!("../conformance/held.rs"),
    );
    let mut unreached = BTreeSet::new();
    for code in provost::config::diagnostic::CODES {
        if !source.contains(&format!("{code}\"")) {
            unreached.insert(code);
        }
    }
    assert!(unreached.is_empty(), "{unreached:?}");
}

//! What is read upon a configuration that is known is what is read without: of every file that is cut,
//! bent or edited, and of every change of what the processes have from elsewhere.

use crate::Files;
use provost::config::known::Known;
use provost::config::load::{Loaded, Location, Mode, load, load_over, load_with};
use provost::core::ids::ProcessId;
use std::sync::Arc;

/// Everything that ends, begins or continues something where it is hard to tell.
const TEXT: &str = "\
# A comment, été.
processManagement:
  restartAttempts: 3
processes:
  db:
    command: [postgres, -D,
      /srv/db]
    healthCheck: { tcp: \"localhost:5432\" }

  # Of the next.
  \"api\":
    command: node
    args: [\"a
      b\", 'c d',
       e]
    dependsOn: { db: healthy }
    env:
      A: one
        two
      B: >-
        3
  job:
    shell: |+
      echo ü

      echo two

  last: { shell: \"x: y\", instances: 2 }
";

/// What is put between or in the place of others, byte by byte.
const BYTES: &[u8] = b" \n:#-{}]\"'|&*?\tx";

/// What is put in as a whole.
const PIECES: &[&str] = &[
    "\n",
    "\r\n",
    "\r",
    "---\n",
    "...\n",
    "  ",
    "    ",
    "\t",
    "# x\n",
    "  # x\n",
    "x-a: &a 1\n",
    "  new:\n    shell: \"true\"\n",
    "  new: { shell: \"true\" }\n",
    "  db:\n",
    "  api: &a\n",
    "*a",
    "processes:\n",
    "processManagement: { restartAttempts: 1 }\n",
    "  ? new\n  : { shell: x }\n",
    "  <<: {}\n",
    "    <<: { nice: 1 }\n",
    "x-t:\n",
    "%YAML 1.2\n",
    "!!str ",
    "\"",
    "'",
    "[",
    "]",
    "{",
    "}",
    "|",
    "|2\n",
    ">-\n",
    ": ",
    ", ",
    "- ",
    "\u{feff}",
    "\u{2028}",
    "\u{85}",
    "é",
    "null",
];

fn location() -> Location {
    let main = "/nowhere/processes.yaml".into();
    Location { main, mode: Mode::User, environment: Arc::default() }
}

fn load_text(content: impl Into<Vec<u8>>) -> Loaded {
    load_with(&location(), Some(content.into()))
}

#[track_caller]
fn same(one: &Loaded, two: &Loaded, what: &str) {
    assert_eq!(one.config, two.config, "{what}");
    assert_eq!(one.daemon, two.daemon, "{what}");
    assert_eq!(one.missing, two.missing, "{what}");
    assert_eq!(one.diagnostics, two.diagnostics, "{what}");
    assert_eq!(one.places, two.places, "{what}");
    assert_eq!(one.sources.digest, two.sources.digest, "{what}");
    assert_eq!(one.sources.drop_ins, two.sources.drop_ins, "{what}");
    assert_eq!(one.sources.has_drop_ins, two.sources.has_drop_ins, "{what}");
    let files = |loaded: &Loaded| {
        let files = loaded.sources.files.iter();
        files.map(|file| (file.path.clone(), file.kind, file.modified)).collect::<Vec<_>>()
    };
    assert_eq!(files(one), files(two), "{what}");
}

/// Compares; what was read upon what is known.
#[track_caller]
fn over(known: &Known, content: &[u8]) -> Loaded {
    let upon = load_over(Some(known), &location(), Some(content.to_vec()));
    let alone = load_text(content);
    assert_eq!(alone.taken_over, 0);
    same(&upon, &alone, &String::from_utf8_lossy(content));
    upon
}

/// Numbers that are the same in each run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end.max(1)
    }
}

#[test]
fn only_what_differs_is_read() {
    let known = Known::of(&load_text(TEXT));
    let taken = |from: &str, to: &str| {
        assert!(TEXT.contains(from));
        over(&known, TEXT.replacen(from, to, 1).as_bytes()).taken_over
    };
    // The one before and the one after it are read along.
    assert_eq!(taken("node", "deno"), 1);
    assert_eq!(taken("x: y", "x: z"), 2);
    assert_eq!(taken("postgres", "mysql"), 2);
    assert_eq!(taken("# Of", "# Off"), 2);
    assert_eq!(taken("  job:", "  new: { shell: x }\n  job:"), 1);
    assert_eq!(taken("  last:", "  a: { shell: x }\n\n  b: { shell: x }\n  last:"), 2);
    assert_eq!(taken("x", "x"), 2);
    // What they have from elsewhere, or could have.
    assert_eq!(taken("Attempts: 3", "Attempts: 4"), 0);
}

#[test]
fn cut_at_every_byte() {
    let whole = Known::of(&load_text(TEXT));
    let mut taken = 0;
    for end in 0..TEXT.len() {
        let cut = &TEXT.as_bytes()[..end];
        taken += usize::from(over(&whole, cut).taken_over > 0);
        over(&Known::of(&load_text(cut)), TEXT.as_bytes());
        // The other half, and a hole in the middle.
        over(&whole, &TEXT.as_bytes()[end..]);
        let hole = [cut, &TEXT.as_bytes()[(end + 37).min(TEXT.len())..]].concat();
        taken += usize::from(over(&whole, &hole).taken_over > 0);
    }
    assert!(taken > 30, "{taken}");
}

/// Each byte replaced by some of [`BYTES`] and each of the others put before it.
fn every_byte_another(text: &str, step: usize) {
    let known = Known::of(&load_text(text));
    let mut taken = 0;
    for at in (0..text.len()).step_by(step) {
        for (number, byte) in BYTES.iter().enumerate() {
            let mut bytes = text.as_bytes().to_vec();
            match (at + number).is_multiple_of(2) {
                true => bytes[at] = *byte,
                false => bytes.insert(at, *byte),
            }
            taken += usize::from(over(&known, &bytes).taken_over > 0);
        }
    }
    assert!(taken > 500 / step, "{taken}");
}

#[test]
fn every_byte_replaced() {
    every_byte_another(TEXT, 1);
}

#[test]
fn every_byte_replaced_with_other_line_ends() {
    every_byte_another(&TEXT.replace('\n', "\r\n"), 3);
}

/// One edit of lines or pieces.
fn edit(bytes: &mut Vec<u8>, chance: &mut Chance) {
    let starts: Vec<usize> = std::iter::once(0)
        .chain(bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1))
        .collect();
    let line = |chance: &mut Chance| starts[chance.below(starts.len())];
    let (from, to) = (line(chance), line(chance));
    let (from, to) = (from.min(to), from.max(to));
    let piece = PIECES[chance.below(PIECES.len())].as_bytes();
    match chance.below(7) {
        0 => drop(bytes.drain(from..to)),
        1 => {
            let lines = bytes[from..to].to_vec();
            let at = line(chance);
            bytes.splice(at..at, lines);
        }
        2 => {
            let lines: Vec<u8> = bytes.drain(from..to).collect();
            let at = from.min(bytes.len());
            bytes.splice(at..at, lines.iter().rev().copied());
        }
        3 | 4 => drop(bytes.splice(from..from, piece.iter().copied())),
        5 => {
            let at = chance.below(bytes.len() + 1);
            bytes.splice(at..at, piece.iter().copied());
        }
        _ => {
            let end = (from + 1 + chance.below(3)).min(bytes.len());
            bytes.drain(from..end);
        }
    }
}

#[test]
fn random_edits() {
    let (mut taken, mut good) = (0, 0);
    for seed in 0..40 {
        let mut chance = Chance(seed);
        let mut text = TEXT.as_bytes().to_vec();
        let mut known = Known::of(&load_text(TEXT));
        for _ in 0..60 {
            let mut next = text.clone();
            for _ in 0..=chance.below(2) {
                edit(&mut next, &mut chance);
            }
            let loaded = over(&known, &next);
            taken += usize::from(loaded.taken_over > 0);
            // What is good is what the next one is read upon, as in a daemon.
            if loaded.config.is_some() && next.len() < 4 * TEXT.len() {
                good += 1;
                known = Known::of(&loaded);
                text = next;
            }
            if text.len() < TEXT.len() / 2 {
                known = Known::of(&load_text(TEXT));
                text = TEXT.into();
            }
        }
    }
    assert!(taken > 100 && good > 200, "{taken} {good}");
}

/// Many processes that are edited one after the other, most of the edits good.
#[test]
fn one_upon_the_other() {
    let process = |id: usize, value: usize| {
        let indent = if value.is_multiple_of(3) { "\n\n  # x\n" } else { "\n" };
        match value % 4 {
            0 => format!("  p{id}: {{ shell: \"run {value}\" }}{indent}"),
            1 => format!("  p{id}:\n    command: [run, \"{value}\"]{indent}"),
            2 => format!("  p{id}:\n    shell: |\n      run {value}\n{indent}"),
            _ => format!("  'p{id}':\n    dependsOn: [p0]\n    shell: run\n      {value}{indent}"),
        }
    };
    let text = |list: &[(usize, usize)]| {
        let blocks: String = list.iter().map(|(id, value)| process(*id, *value)).collect();
        format!("processes:\n{blocks}")
    };
    let mut chance = Chance(7);
    let mut list: Vec<(usize, usize)> = (0..30).map(|id| (id, 4 * id)).collect();
    let mut known = Known::of(&load_text(text(&list)));
    let mut taken = 0;
    for round in 0..300 {
        let at = chance.below(list.len());
        match chance.below(4) {
            0 => list.insert(at, (30 + round, round)),
            1 if list.len() > 5 && list[at].0 != 0 => drop(list.remove(at)),
            2 if at > 0 => list.swap(at - 1, at),
            _ => list[at].1 = round,
        }
        let loaded = over(&known, text(&list).as_bytes());
        // A process that is first and waits for itself is none.
        if loaded.config.is_some() {
            taken += loaded.taken_over;
            known = Known::of(&loaded);
        }
    }
    assert!(taken > 200 * 20, "{taken}");
}

#[test]
fn what_they_have_from_elsewhere() {
    let files = Files::new()
        .with("provost.yaml", "processManagement: { processConfigFile: processes.yaml }\n")
        .with("processes.yaml", "processes:\n  a: { shell: a, envFile: a.env }\n  b: { shell: b }\n  c: { shell: \"c ${X}\", envFile: [b.env, a.env] }\n  d: { shell: d, envFile: d.env }\n")
        .with("processes.d/x.yaml", "baseDir: /srv\nprocesses:\n  x: { shell: x, cwd: y }\n  y: { shell: x }\n  z: { shell: x }\n")
        .with("a.env", "X=1\n")
        .with("b.env", "Y=1\n")
        .with("d.env", "Z=1\n");
    let location = files.location("provost.yaml");
    let mut known = Known::of(&load(&location));
    let mut step = |what: &str, name: &str, content: Option<&str>, taken: usize| {
        match content {
            Some(content) => files.write(name, content),
            None => std::fs::remove_file(files.path(name)).unwrap(),
        }
        let loaded = load_over(Some(&known), &location, None);
        same(&loaded, &load(&location), what);
        assert_eq!(loaded.taken_over, taken, "{what}");
        known = Known::of(&loaded);
    };
    let processes = |b: &str| {
        format!(
            "processes:\n  a: {{ shell: a, envFile: a.env }}\n  b: {{ shell: {b} }}\n  c: {{ shell: \"c ${{X}}\", envFile: [b.env, a.env] }}\n  d: {{ shell: d, envFile: d.env }}\n"
        )
    };
    step("another process", "processes.yaml", Some(&processes("e")), 2);
    step("an environment file", "a.env", Some("X=2\n"), 0);
    step("settings", "provost.yaml", Some("processManagement: { restartAttempts: 2 }\n"), 0);
    step(
        "settings that no process has",
        "provost.yaml",
        Some("processManagement: { restartAttempts: 2, history: 9 }\n"),
        3,
    );
    step("a drop-in", "processes.d/w.yaml", Some("processes: { w: { shell: w } }\n"), 3);
    step("twice", "processes.d/w.yaml", Some("processes: { b: { shell: w } }\n"), 0);
    step("not twice", "processes.d/w.yaml", None, 0);
    step(
        "its directory",
        "processes.d/x.yaml",
        Some(
            "baseDir: /var\nprocesses:\n  x: { shell: x, cwd: y }\n  y: { shell: x }\n  z: { shell: x }\n",
        ),
        2,
    );
    // One that is read for the one that differs, and changed for others.
    files.write("d.env", "Z=2\n");
    let shared = processes("e").replace("{ shell: e }", "{ shell: e, envFile: d.env }");
    step("an environment file with one of its processes", "processes.yaml", Some(&shared), 0);
    step("neither of them", "processes.yaml", Some(&processes("e")), 2);
    step("an environment file that is gone", "d.env", None, 0);
    step("a cycle", "processes.yaml", Some("processes:\n  a: { shell: a, dependsOn: [a] }\n"), 0);
}

/// Files are kept in memory, and nothing that is printed for us has values of environments in it.
#[test]
fn nothing_that_is_kept_is_shown() {
    let loaded = load_text("processes:\n  a: { command: [x], env: { KEY: tops3cret } }\n");
    assert!(loaded.config.is_some(), "{:#?}", loaded.diagnostics);
    let known = Known::of(&loaded);
    let shown = format!("{loaded:?} {known:?} {:?}", loaded.sources);
    let as_bytes = format!("{:?}", b"tops3cret");
    assert!(!shown.contains("tops3cret") && !shown.contains(as_bytes.trim_matches(['[', ']'])));
}

#[test]
fn what_depends_on_links_is_read_each_time() {
    let files = Files::new().with(
        "processes.yaml",
        "processes:\n  a: { shell: a, cwd: l/../x }\n  b: { shell: b }\n  c: { shell: b }\n",
    );
    let location = files.location("processes.yaml");
    let known = Known::of(&load(&location));
    std::os::unix::fs::symlink("/srv/here", files.path("l")).unwrap();
    let loaded = load_over(Some(&known), &location, None);
    same(&loaded, &load(&location), "a link");
    let spec = &loaded.config.unwrap().processes[&ProcessId::new("a").unwrap()];
    assert!(spec.exec.cwd.to_string().ends_with("l/../x"));
}

//! Files that were damaged on their way: a valid whole or a refusal, and never a panic.

use crate::{Files, good, places, refused};
use provost::config::load::{Loaded, Location, Mode, load_with};
use provost::config::render::render;
use rustix::fs::{CWD, FileType, mknodat};
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// A file that uses most of what there is.
const TEXT: &str = "\
# A comment, été.
processManagement:
  restartAttempts: 3
x-t: &t
  nice: 1
  env: { A: \"1\", B: 'two words' }
processes:
  db:
    <<: *t
    command: [postgres, -D, /srv/db]
    healthCheck: { tcp: \"localhost:5432\", interval: 5s }
  api:
    command: node
    args: [\"server.js\", \"300${INSTANCE}\"]
    dependsOn: { db: healthy }
    restartPolicy:
      condition: on-failure
      maxDelay: 2m30s
  job:
    shell: |
      echo one
      echo two
    restartPolicy: { condition: no }
";

/// What comes of this content, always of a file of the same name.
fn load_text(content: impl Into<Vec<u8>>) -> Loaded {
    let main = "/nowhere/processes.yaml".into();
    let location = Location { main, mode: Mode::User, environment: Arc::default() };
    load_with(&location, Some(content.into()))
}

/// What was loaded is whole or refused, and can be shown; true when it is whole.
fn whole(loaded: &Loaded) -> bool {
    let refused = refused(loaded);
    let shown = render(&loaded.diagnostics, &loaded.sources, false);
    assert_eq!(shown.len(), loaded.diagnostics.len());
    !refused
}

#[test]
fn cut_at_every_byte() {
    let all = good(&load_text(TEXT)).processes.len();
    let mut kept = 0;
    for end in 0..TEXT.len() {
        let loaded = load_text(TEXT.as_bytes()[..end].to_vec());
        if whole(&loaded) {
            // No process that the file has not, and none when nothing is said of any.
            let processes = loaded.config.unwrap().processes.len();
            assert!((1..=all).contains(&processes), "cut at {end}: {processes}");
            kept += 1;
        }
    }
    assert!(kept > 10 && kept < TEXT.len() / 2, "{kept}");
}

#[test]
fn every_bit_flipped() {
    let (mut wholes, mut refusals) = (0, 0);
    for at in 0..TEXT.len() {
        for bit in 0..8 {
            let mut bytes = TEXT.as_bytes().to_vec();
            bytes[at] ^= 1 << bit;
            let loaded = load_text(bytes);
            match whole(&loaded) {
                true => wholes += 1,
                false => refusals += 1,
            }
        }
    }
    // A letter in a comment or a value may be another one; the rest may not.
    assert!(wholes > 100 && refusals > wholes, "{wholes} {refusals}");
}

#[test]
fn each_byte_lost_and_each_doubled() {
    for at in 0..TEXT.len() {
        let mut lost = TEXT.as_bytes().to_vec();
        lost.remove(at);
        whole(&load_text(lost));
        let mut doubled = TEXT.as_bytes().to_vec();
        doubled.insert(at, doubled[at]);
        whole(&load_text(doubled));
        let mut zero = TEXT.as_bytes().to_vec();
        zero[at] = 0;
        assert!(!whole(&load_text(zero)), "a NUL byte at {at}");
    }
}

/// What a crash leaves of a file on some file systems: its length, and no content.
#[test]
fn nothing_but_zeroes() {
    assert!(!whole(&load_text(vec![0; TEXT.len()])));
    let mut tail = TEXT.as_bytes().to_vec();
    tail[200..].fill(0);
    assert!(!whole(&load_text(tail)));
}

#[test]
fn line_ends_of_every_kind_say_the_same() {
    let expected = good(&load_text(TEXT));
    let dos = TEXT.replace('\n', "\r\n");
    assert_eq!(good(&load_text(dos.as_str())).processes, expected.processes);
    let mixed: String = TEXT
        .lines()
        .enumerate()
        .map(|(n, line)| format!("{line}{}", ["\n", "\r\n"][n % 2]))
        .collect();
    assert_eq!(good(&load_text(mixed)).processes, expected.processes);
    let without_last = dos.trim_end();
    assert!(whole(&load_text(without_last)));
    // YAML takes them for line ends too.
    let old = load_text(TEXT.replace('\n', "\r"));
    assert_eq!(good(&old).processes, expected.processes);
}

#[test]
fn a_byte_order_mark() {
    let expected = good(&load_text(TEXT));
    assert_eq!(good(&load_text(format!("\u{feff}{TEXT}"))).processes, expected.processes);
    // Elsewhere it is a letter, and a file of two that were joined has one in the middle.
    let joined = format!("{TEXT}\u{feff}processes:\n  more: {{command: x}}\n");
    assert!(!whole(&load_text(joined)));
    for wide in [utf16(u16::to_le_bytes), utf16(u16::to_be_bytes)] {
        let loaded = load_text(wide);
        assert!(!whole(&loaded));
        assert!(loaded.diagnostics[0].help.as_ref().unwrap().contains("UTF-16"));
    }
}

fn utf16(order: fn(u16) -> [u8; 2]) -> Vec<u8> {
    format!("\u{feff}{TEXT}").encode_utf16().flat_map(order).collect()
}

#[test]
fn tabs() {
    for text in [
        "processes:\n\ta:\n\t\tcommand: x\n",
        "processes:\n  a:\n\tcommand: x\n",
        "processes:\n  a:\n    command: x\n\tb: {command: y}\n",
    ] {
        let loaded = load_text(text);
        assert!(!whole(&loaded), "{text:?}");
        assert!(loaded.diagnostics[0].place.line >= 2, "{:?}", places(&loaded.diagnostics));
    }
    // Between things they are blanks as any.
    let blanks = "processes:\t# a\n  a:\t{\tcommand:\tx\t}\t# b\n";
    assert_eq!(good(&load_text(blanks)).processes.len(), 1);
}

#[test]
fn invalid_utf8_at_every_place() {
    for bad in
        [&b"\xff"[..], b"\xc3", b"\xe2\x82", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf5\x80\x80\x80"]
    {
        for at in (0..=TEXT.len()).filter(|at| TEXT.is_char_boundary(*at)) {
            let mut bytes = TEXT.as_bytes().to_vec();
            bytes.splice(at..at, bad.iter().copied());
            let loaded = load_text(bytes);
            assert!(!whole(&loaded));
            assert_eq!(loaded.diagnostics[0].code, "not-utf8", "{bad:?} at {at}");
            let line = TEXT[..at].matches('\n').count() + 1;
            assert_eq!(loaded.diagnostics[0].place.line as usize, line, "{bad:?} at {at}");
        }
    }
}

/// How something is called, and how it is made.
type Thing = (&'static str, fn(&Path));

/// What may stand where a file should.
fn things() -> Vec<Thing> {
    vec![
        ("a directory, not a file", |path| fs::create_dir(path).unwrap()),
        ("a FIFO, not a file", |path| {
            mknodat(CWD, path, FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
        }),
        ("a socket, not a file", |path| drop(UnixListener::bind(path).unwrap())),
        ("a device, not a file", |path| std::os::unix::fs::symlink("/dev/zero", path).unwrap()),
        ("larger than 16 MiB", |path| {
            fs::File::create(path).unwrap().set_len(1 << 34).unwrap();
        }),
    ]
}

/// In the place of each file that a configuration has, and of its directory.
#[test]
fn things_that_are_no_files() {
    const MAIN: &str = "processManagement: { processConfigFile: p.yaml }\n";
    const PROCESSES: &str = "processes: { a: { command: x, envFile: e.env } }\n";
    for (said, make) in things() {
        for which in ["provost.yaml", "p.yaml", "e.env", "processes.d/b.yaml"] {
            let files = Files::new()
                .with("provost.yaml", MAIN)
                .with("p.yaml", PROCESSES)
                .with("e.env", "A=1\n")
                .with("processes.d/b.yaml", "processes: { b: { command: x } }\n");
            assert_eq!(good(&files.load("provost.yaml")).processes.len(), 2);
            fs::remove_file(files.path(which)).unwrap();
            make(&files.path(which));
            let loaded = files.load("provost.yaml");
            assert!(!whole(&loaded), "{which}: {said}");
            let messages: Vec<_> = loaded.diagnostics.iter().map(|d| &d.message).collect();
            let told = |message: &&&String| message.contains(which) && message.contains(said);
            assert!(messages.iter().any(|message| told(&message)), "{which}: {messages:?}");
        }
    }
    let files = Files::new().with("p.yaml", PROCESSES).with("processes.d", "").with("e.env", "");
    assert!(!whole(&files.load("p.yaml")), "a file in the place of the drop-in directory");
}

#[test]
fn loops_and_dangling_links() {
    use std::os::unix::fs::symlink;
    let files = Files::new();
    symlink("p.yaml", files.path("p.yaml")).unwrap();
    let loaded = files.load("p.yaml");
    assert!(!whole(&loaded));
    assert!(loaded.diagnostics[0].message.contains("symbolic links"), "{:?}", loaded.diagnostics);
    fs::remove_file(files.path("p.yaml")).unwrap();
    // As if there were none: it is picked up when it appears.
    symlink("nowhere", files.path("p.yaml")).unwrap();
    assert!(files.load("p.yaml").missing);
}

#[test]
fn environment_files_that_were_damaged() {
    const ENV: &str = "# été\nA=1\nexport B='x y'\nC=\"two\nlines\"\nD=last\n";
    let files = Files::new().with("p.yaml", "processes: { a: { command: x, envFile: e.env } }\n");
    let load = |content: &[u8]| {
        files.write("e.env", content);
        files.load("p.yaml")
    };
    let expected = good(&load(ENV.as_bytes()));
    let joined = ENV.replace("two\nlines", "two lines");
    let one_line = good(&load(joined.as_bytes()));
    assert_eq!(good(&load(joined.replace('\n', "\r\n").as_bytes())), one_line);
    assert_eq!(good(&load(format!("\u{feff}{ENV}").as_bytes())), expected);
    for at in 0..ENV.len() {
        whole(&load(&ENV.as_bytes()[..at]));
        let mut bytes = ENV.as_bytes().to_vec();
        bytes[at] = 0xff;
        assert!(!whole(&load(&bytes)), "invalid UTF-8 at {at}");
        for bit in 0..8 {
            bytes[at] = ENV.as_bytes()[at] ^ (1 << bit);
            whole(&load(&bytes));
        }
    }
}

/// Root may read everything, so this is asked as somebody else.
#[test]
fn files_that_may_not_be_read() {
    use std::os::unix::fs::PermissionsExt;
    let is_root = rustix::process::geteuid().is_root();
    let files = Files::new()
        .with("p.yaml", "processes: { a: { command: sleep, envFile: e.env } }\n")
        .with("e.env", "A=hunter2\n")
        .with("processes.d/b.yaml", "processes: { b: { command: sleep } }\n");
    let own = files.path("provost");
    fs::copy(env!("CARGO_BIN_EXE_provost"), &own).unwrap();
    let set = |name: &str, mode| {
        fs::set_permissions(files.path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    set("", 0o755);
    let check = || {
        let mut command = match is_root {
            true => Command::new("setpriv"),
            false => Command::new("env"),
        };
        if is_root {
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        }
        command.arg(&own).arg("check").arg(files.path("p.yaml")).current_dir("/").output().unwrap()
    };
    let first = check();
    assert!(first.status.success(), "{first:?}");
    for (which, mode, back) in [
        ("p.yaml", 0o000, 0o644),
        ("e.env", 0o000, 0o644),
        ("processes.d/b.yaml", 0o000, 0o644),
        ("processes.d", 0o000, 0o755),
        ("processes.d", 0o444, 0o755),
    ] {
        set(which, mode);
        let output = check();
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(output.status.code(), Some(1), "{which}: {text}");
        assert!(text.contains("Permission denied") && text.contains(which), "{which}: {text}");
        set(which, back);
    }
    assert!(check().status.success());
}

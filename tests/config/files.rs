//! Which files are read, and what is wrong with them as files.

use crate::{Files, good, places, process, refused};
use provost::config::load::{Mode, SourceKind, load_with};
use provost::config::render::one_line;
use std::os::unix::fs::symlink;

const ONE: &str = "processes:\n  one: {command: x}\n";
const TWO: &str = "processes:\n  two: {command: x}\n";

fn ids(files: &Files, main: &str) -> Vec<String> {
    good(&files.load(main)).processes.keys().map(ToString::to_string).collect()
}

#[test]
fn main_alone_or_with_a_second_file_or_both() {
    let files = Files::new().with("processes.yaml", ONE);
    assert_eq!(ids(&files, "processes.yaml"), ["one"]);
    // The file beside it is the default, also where there is no main file at all.
    assert_eq!(ids(&files, "provost.yaml"), ["one"]);
    files.write("provost.yaml", "processManagement: {}\n");
    assert_eq!(ids(&files, "provost.yaml"), ["one"]);
    files.write("sub/other.yaml", TWO);
    files.write("provost.yaml", "processManagement: {processConfigFile: sub/other.yaml}\n");
    assert_eq!(ids(&files, "provost.yaml"), ["two"]);
    files.write(
        "provost.yaml",
        format!("processManagement: {{processConfigFile: sub/other.yaml}}\n{ONE}"),
    );
    assert_eq!(ids(&files, "provost.yaml"), ["one", "two"]);
}

#[test]
fn drop_ins_are_read_in_order_and_debris_is_not() {
    let files = Files::new()
        .with("processes.yaml", ONE)
        .with("processes.d/20-b.yaml", "processes:\n  b: {command: ./x, cwd: .}\n")
        .with("processes.d/10-a.yaml", "processes:\n  a: {command: x, dependsOn: [one, b]}\n")
        .with("processes.d/.20-b.yaml.swp", "[")
        .with("processes.d/.hidden.yaml", "[")
        .with("processes.d/10-a.yaml~", "[")
        .with("processes.d/#10-a.yaml#", "[")
        .with("processes.d/README", "[");
    assert_eq!(ids(&files, "processes.yaml"), ["a", "b", "one"]);
    let loaded = files.load("processes.yaml");
    let names: Vec<_> = loaded
        .sources
        .files
        .iter()
        .map(|source| source.path.file_name().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(names, ["processes.yaml", "10-a.yaml", "20-b.yaml"]);
    assert_eq!(loaded.sources.files[1].kind, SourceKind::DropIn);
    assert_eq!(loaded.sources.drop_ins, files.path("processes.d"));
    let cwd = crate::process(&loaded, "b").exec.cwd.to_string();
    assert_eq!(cwd, files.path("processes.d").to_str().unwrap());
    files.write("processes.d/x.yml", TWO);
    let loaded = files.load("processes.yaml");
    assert_eq!(places(&loaded.diagnostics), ["0:0 ignored-file"]);
    assert!(!refused(&loaded));
}

#[test]
fn an_id_in_two_files_shows_both_places() {
    let files = Files::new().with("processes.yaml", ONE).with("processes.d/a.yaml", ONE);
    let loaded = files.load("processes.yaml");
    assert_eq!(places(&loaded.diagnostics), ["2:3 duplicate-process"]);
    let diagnostic = &loaded.diagnostics[0];
    assert_eq!(*diagnostic.place.file, files.path("processes.d/a.yaml"));
    assert_eq!(*diagnostic.related[0].0.file, files.path("processes.yaml"));
}

#[test]
fn settings_belong_into_the_main_file() {
    let files = Files::new()
        .with("provost.yaml", "processManagement: {}\n")
        .with("processes.yaml", format!("processManagement: {{}}\n{ONE}"));
    let loaded = files.load("provost.yaml");
    assert_eq!(places(&loaded.diagnostics), ["1:1 misplaced-key"]);
}

#[test]
fn base_dir_moves_the_relative_paths_of_its_file() {
    let files = Files::new()
        .with(
            "config/provost.yaml",
            "baseDir: ..\nprocessManagement: {processConfigFile: config/processes.yaml}\n",
        )
        .with("config/processes.yaml", "processes:\n  a: {command: x}\n")
        .with(
            "config/processes.d/b.yaml",
            "baseDir: ../../srv\nprocesses:\n  b: {command: x, logFile: l}\n",
        );
    let loaded = files.load("config/provost.yaml");
    let cwd = |id| crate::process(&loaded, id).exec.cwd.to_string();
    assert_eq!(cwd("a"), files.path("config").to_str().unwrap());
    let srv = files.path("srv");
    assert_eq!(cwd("b"), srv.to_str().unwrap());
    let log = crate::process(&loaded, "b").exec.log_file.as_ref().unwrap().to_string();
    assert_eq!(log, srv.join("l").to_str().unwrap());
}

#[test]
fn a_missing_file_is_an_empty_set_with_a_warning() {
    let files = Files::new();
    let loaded = files.load("processes.yaml");
    assert!(loaded.missing && loaded.config.as_ref().unwrap().processes.is_empty());
    assert_eq!(places(&loaded.diagnostics), ["0:0 missing-file"]);
    assert_eq!(loaded.sources.files.len(), 1, "it is watched for");
    // What is there besides is not lost.
    files.write("processes.d/a.yaml", TWO);
    let loaded = files.load("processes.yaml");
    assert!(loaded.missing);
    assert_eq!(loaded.config.unwrap().processes.len(), 1);
}

#[test]
fn a_missing_second_file_is_named_where_it_stands() {
    let files = Files::new().with(
        "config/proxy.yaml",
        "processManagement:\n  processConfigFile: \"config/processes.yaml\"\n",
    );
    let loaded = files.load("config/proxy.yaml");
    assert!(loaded.missing);
    assert_eq!(places(&loaded.diagnostics), ["2:22 missing-file"]);
    assert_eq!(loaded.diagnostics[0].help, None);
    files.write("config/processes.yaml", ONE);
    let loaded = files.load("config/proxy.yaml");
    assert!(loaded.diagnostics[0].help.as_ref().unwrap().contains("baseDir: .."));
}

#[test]
fn things_that_are_no_files() {
    let files = Files::new();
    std::fs::create_dir(files.path("processes.yaml")).unwrap();
    let loaded = files.load("processes.yaml");
    assert_eq!(places(&loaded.diagnostics), ["0:0 unreadable"]);
    assert!(loaded.diagnostics[0].message.ends_with("a directory, not a file"));
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, files.path("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    let loaded = files.load("fifo");
    assert!(loaded.diagnostics[0].message.ends_with("a FIFO, not a file"));
    files.write("real.yaml", ONE);
    symlink("real.yaml", files.path("link.yaml")).unwrap();
    assert_eq!(ids(&files, "link.yaml"), ["one"]);
}

#[test]
fn invalid_utf8_has_a_place() {
    let files = Files::new().with("a.yaml", b"processes:\n  a: {name: \xc3\xa9\xff}\n");
    let loaded = files.load("a.yaml");
    assert_eq!(places(&loaded.diagnostics), ["2:14 not-utf8"]);
    let files = Files::new().with("a.yaml", b"\xff\xfep\0r\0");
    assert!(files.load("a.yaml").diagnostics[0].help.as_ref().unwrap().contains("UTF-16"));
}

#[test]
fn environment_files() {
    let text = "processes:\n  a: {command: x, envFile: [none.env]}\n  b: {command: x, envFile: bad.env}\n  c: {command: x, envFile: none.env}\n  d: {command: x, envFile: latin.env}\n  e: {command: x, envFile: 'e${INSTANCE}'}\n";
    let files = Files::new()
        .with("processes.yaml", text)
        .with("bad.env", "OK=1\nhunter2\nA B=hunter2\n")
        .with("latin.env", b"A=\xe9\n");
    let loaded = files.load("processes.yaml");
    assert_eq!(
        places(&loaded.diagnostics),
        [
            "2:29 env-file",
            "4:28 env-file",
            "6:28 bad-interpolation",
            "2:1 env-file-syntax",
            "3:1 env-file-syntax",
            "1:3 not-utf8",
        ]
    );
    let lines: Vec<String> = loaded.diagnostics.iter().map(one_line).collect();
    assert!(lines[0].contains("no such file") && !lines.concat().contains("hunter"));
    // Watched for too, though it is not there.
    assert!(loaded.sources.files.iter().any(|s| s.path.ends_with("none.env")));
}

#[test]
fn each_file_is_read_once_and_counts_in_the_digest() {
    let text = "processes:\n  a: {command: x, envFile: e.env}\n  b: {command: x, envFile: e.env}\n";
    let files = Files::new().with("processes.yaml", text).with("e.env", "A=1\n");
    let first = files.load("processes.yaml");
    assert_eq!(first.sources.files.len(), 2);
    let digest = first.sources.digest;
    assert_eq!(digest.len(), 64);
    assert_eq!(files.load("processes.yaml").sources.digest, digest);
    files.write("e.env", "A=2\n");
    let changed = files.load("processes.yaml").sources.digest;
    assert_ne!(changed, digest);
    std::fs::remove_file(files.path("e.env")).unwrap();
    let missing = files.load("processes.yaml").sources.digest;
    assert!(missing != changed && missing != digest);
    files.write("processes.d/x.yaml", "processes: {}\n");
    assert_ne!(files.load("processes.yaml").sources.digest, missing);
}

#[test]
fn a_content_can_stand_in() {
    let ids = |files: &Files, main: &str| {
        let loaded = load_with(&files.location(main), Some(TWO.into()));
        let config = good(&loaded);
        config.processes.keys().map(ToString::to_string).collect::<Vec<_>>()
    };
    let files = Files::new().with("processes.yaml", ONE);
    assert_eq!(ids(&files, "processes.yaml"), ["two"]);
    assert_eq!(ids(&files, "provost.yaml"), ["two"]);
    files.write("provost.yaml", "processManagement: {}\n");
    assert_eq!(ids(&files, "provost.yaml"), ["two"]);
    files.write("processes.yaml", "broken: [");
    assert_eq!(ids(&files, "processes.yaml"), ["two"]);
    assert_eq!(ids(&files, "provost.yaml"), ["two"]);
    let empty = Files::new();
    assert_eq!(ids(&empty, "processes.yaml"), ["two"]);
}

#[test]
fn diagnostics_come_in_the_order_of_the_files() {
    let files = Files::new()
        .with("provost.yaml", "processManagement: {enabled: 1}\n")
        .with("processes.yaml", "processes:\n  a: {}\n  b: {dependsOn: [x]}\n")
        .with("processes.d/a.yaml", "processes:\n  c: {}\n")
        .mode(Mode::System);
    let loaded = files.load("provost.yaml");
    assert_eq!(
        places(&loaded.diagnostics),
        [
            "1:30 bad-boolean",
            "2:3 missing-command",
            "3:3 missing-command",
            "3:19 unknown-dependency",
            "2:3 missing-command",
        ]
    );
}

#[test]
fn the_default_user_is_resolved_before_files_are_compared() {
    let yaml = "processManagement: { defaultUser: nobody }\nprocesses: { a: { command: sleep }, b: { command: sleep, user: daemon } }\n";
    let user = |mode| {
        let files = Files::new().with("provost.yaml", yaml).mode(mode);
        let loaded = files.load("provost.yaml");
        let of = |id| process(&loaded, id).exec.user.as_ref().map(ToString::to_string);
        (of("a"), of("b"))
    };
    let expected = nix::unistd::geteuid().is_root().then(|| "nobody".to_owned());
    assert_eq!(user(provost::config::load::Mode::System), (expected, Some("daemon".into())));
    assert_eq!(user(provost::config::load::Mode::User), (None, Some("daemon".into())));
}

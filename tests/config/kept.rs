//! What was kept of a configuration is the same configuration, whatever is on disk by now.

use crate::{Files, good, refused};
use provost::config::difference::between;
use provost::config::load::{Loaded, Mode, Sources, load_kept};
use provost::core::reload::ChangeKind;
use std::fs;

fn whole(files: Files) -> Files {
    files
        .with("provost.yaml", "processManagement: {processConfigFile: sub/p.yaml}\n")
        .with(
            "sub/p.yaml",
            "processes:\n  a: {command: [x, '${V}'], envFile: [../e.env, f.env], env: {C: c}}\n",
        )
        .with("e.env", "V=v1\n")
        .with("sub/f.env", "W='two\nlines'\n")
        .with("sub/processes.d/2.yaml", "processes: {c: {command: x, dependsOn: [a]}}\n")
        .with("sub/processes.d/1.yaml", "processes: {b: {command: x, envFile: ../f.env}}\n")
        .with("sub/processes.d/.hidden.yaml", "[")
}

fn same(now: &Loaded, then: &Loaded) {
    assert!(then.config.is_some());
    assert_eq!(now.config, then.config);
    assert_eq!(now.daemon, then.daemon);
    assert_eq!(now.missing, then.missing);
    assert_eq!(now.places, then.places);
    assert_eq!(now.diagnostics, then.diagnostics);
    assert_eq!(now.sources.digest, then.sources.digest);
    assert_eq!(now.sources.drop_ins, then.sources.drop_ins);
    assert_eq!(now.sources.has_drop_ins, then.sources.has_drop_ins);
    let files = |loaded: &Loaded| {
        let files = loaded.sources.files.iter();
        files.map(|f| (f.path.clone(), f.content.clone(), f.modified, f.kind)).collect::<Vec<_>>()
    };
    assert_eq!(files(now), files(then));
}

fn empty(files: &Files) {
    let root = files.path("");
    fs::remove_dir_all(&root).unwrap();
    fs::create_dir(&root).unwrap();
}

#[test]
fn all_kinds_of_files_are_read_as_they_were() {
    let files = whole(Files::new());
    let then = files.load("provost.yaml");
    assert_eq!(then.sources.files.len(), 6);
    let location = files.location("provost.yaml");
    same(&load_kept(&location, &then.sources), &then);
    // Others have taken their places.
    files.write("sub/p.yaml", "processes: {z: {command: x}}\n");
    files.write("sub/processes.d/3.yaml", "[");
    files.write("e.env", "V=v2\n");
    same(&load_kept(&location, &then.sources), &then);
    empty(&files);
    same(&load_kept(&location, &then.sources), &then);
}

#[test]
fn what_was_missing_is_missing_whatever_is_there_now() {
    let files = Files::new();
    let location = files.location("provost.yaml");
    // No file at all; then no main file; then one that names none that is there.
    let nothing = files.load("provost.yaml");
    assert!(nothing.missing && !nothing.sources.has_drop_ins);
    files.write("processes.yaml", "processes: {a: {command: x}}\n");
    let beside = files.load("provost.yaml");
    files.write("provost.yaml", "processManagement: {processConfigFile: other.yaml}\n");
    let other = files.load("provost.yaml");
    assert!(other.missing);
    files.write("other.yaml", "processes: {b: {command: x}}\n");
    files.write("processes.d/1.yaml", "processes: {c: {command: x}}\n");
    for then in [&nothing, &beside, &other] {
        same(&load_kept(&location, &then.sources), then);
    }
    assert_eq!(good(&files.load("provost.yaml")).processes.len(), 2);
    // The directory was there, and nothing in it.
    fs::remove_file(files.path("processes.d/1.yaml")).unwrap();
    let bare = files.load("provost.yaml");
    assert!(bare.sources.has_drop_ins);
    fs::remove_dir(files.path("processes.d")).unwrap();
    same(&load_kept(&location, &bare.sources), &bare);
}

#[test]
fn what_was_not_kept_is_not_taken_from_the_disk() {
    let files = whole(Files::new());
    let location = files.location("provost.yaml");
    let then = files.load("provost.yaml");
    for n in 1..then.sources.files.len() {
        let Sources { drop_ins, has_drop_ins, .. } = then.sources.clone();
        let mut kept = then.sources.files.clone();
        let path = kept.remove(n).path;
        let now = load_kept(&location, &Sources::new(kept, drop_ins, has_drop_ins));
        assert_ne!(now.sources.digest, then.sources.digest);
        // A drop-in is one only where it is listed.
        if !path.starts_with(files.path("sub/processes.d")) {
            assert!(refused(&now), "{}", path.display());
            let text = format!("{:?}", now.diagnostics);
            assert!(text.contains("it was not kept"), "{text}");
        }
    }
}

#[test]
fn whose_daemon_it_is_matters_as_before() {
    let files = Files::new()
        .mode(Mode::User)
        .variable("HOME_OF", "hunter2")
        .with("p.yaml", "processes: {a: {command: ['${HOME_OF}/x']}}\n");
    let then = files.load("p.yaml");
    same(&load_kept(&files.location("p.yaml"), &then.sources), &then);
    let files = files.variable("HOME_OF", "hunter3");
    let now = load_kept(&files.location("p.yaml"), &then.sources);
    assert_ne!(now.config, then.config);
    assert_eq!(now.sources.digest, then.sources.digest);
}

#[test]
fn what_differs_is_told_by_process_and_by_file() {
    let files = whole(Files::new());
    let location = files.location("provost.yaml");
    let old = files.load("provost.yaml").sources;
    files.write("e.env", "V=hunter2\n");
    fs::remove_file(files.path("sub/processes.d/2.yaml")).unwrap();
    files.write("sub/processes.d/9.yaml", "processes: {d: {command: x}}\n");
    let new = files.load("provost.yaml").sources;
    let found = between(&location, &old, &new);
    let plan = found.plan.unwrap();
    let ids = |kind| plan.of(kind).map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(ids(ChangeKind::Added), ["d"]);
    assert_eq!(ids(ChangeKind::Removed), ["c"]);
    assert_eq!(ids(ChangeKind::Modified), ["a"]);
    let keys: Vec<_> = plan.changes[0].fields.iter().map(|field| field.key.as_str()).collect();
    assert_eq!(keys, ["command", "env.V"]);
    let names: Vec<_> = found
        .files
        .iter()
        .map(|file| (file.path.file_name().unwrap().to_str().unwrap(), file.kind, file.hidden))
        .collect();
    assert_eq!(
        names,
        [
            ("e.env", ChangeKind::Modified, true),
            ("2.yaml", ChangeKind::Removed, false),
            ("9.yaml", ChangeKind::Added, false),
        ]
    );
    let all = format!("{plan:?} {:?}", found.files);
    assert!(!all.contains("hunter2") && !all.contains("v1"), "{all}");
}

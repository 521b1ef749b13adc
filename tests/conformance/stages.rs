//! From what a spec says to what a process is, and what is said when it cannot be had.

use crate::world::*;
use provost::core::event::{ExitStatus, SpawnStage};
use provost::core::spec::{LogRotation, ProcessSpec, Secret, Text};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::Arc;

pub async fn arguments_and_environment_arrive_as_they_are(mut world: World) {
    let odd = [
        "$HOME",
        "${X}",
        "$$",
        "%n %%",
        "a;b",
        "",
        " ",
        "\"q\" 'r' \\",
        "tab\tnew\nline",
        "é😀",
        "#",
        "-",
    ];
    let out = world.path("out");
    let script = format!("out={}; printf '%s\\0' \"$@\" >$out; env -0 >>$out", out.display());
    let args: Vec<&str> = ["-c", &script, "sh"].into_iter().chain(odd).collect();
    let mut spec = program("sh", &args);
    let values: BTreeMap<String, Secret> = odd
        .iter()
        .enumerate()
        .map(|(n, odd)| (format!("ODD_{n}"), Secret(Text::new(odd))))
        .collect();
    spec.exec.env = Arc::new(values);
    assert_eq!(world.run(spec).await, ExitStatus::Code(0));
    let seen = fs::read(out).unwrap();
    let seen: Vec<String> = seen
        .split(|byte| *byte == 0)
        .map(|text| String::from_utf8(text.to_vec()).unwrap())
        .collect();
    assert_eq!(seen[..odd.len()], odd.map(str::to_owned));
    let env: BTreeMap<&str, &str> =
        seen[odd.len()..].iter().filter_map(|pair| pair.split_once('=')).collect();
    for (n, odd) in odd.iter().enumerate() {
        assert_eq!(env.get(&*format!("ODD_{n}")), Some(odd));
    }
    assert_eq!(env["INSTANCE"], "0");
    assert_eq!(
        env["PATH"],
        if is_root() { provost::config::environment::SYSTEM_PATH } else { "/usr/bin:/bin" }
    );
}

pub async fn a_process_is_what_it_shall_be(mut world: World) {
    let up = world.pipe("up");
    let mut spec = shell(&format!(
        "pwd >{up}; umask >{up}; ulimit -n >{up}; ulimit -Hn >{up}; \
         grep SigIgn /proc/self/status >{up}; grep SigBlk /proc/self/status >{up}; sleep 1000"
    ));
    fs::create_dir(world.path("here")).unwrap();
    spec.exec.cwd = world.text("here");
    spec.exec.umask = Some(0o027);
    spec.exec.nice = Some(5);
    spec.exec.max_files = Some(77);
    let run = world.start(spec);
    let pid = world.spawned().await;
    assert_eq!(world.line("up").await, world.path("here").to_str().unwrap());
    assert_eq!(world.line("up").await, "0027");
    assert_eq!(world.line("up").await, "77");
    assert_eq!(world.line("up").await, "77");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let nice = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap();
    assert_eq!(nice, "5");
    for nothing in ["SigIgn", "SigBlk"] {
        let line = world.line("up").await;
        let mask = line.strip_prefix(nothing).unwrap().trim_start_matches(':').trim();
        let mask = u64::from_str_radix(mask, 16).unwrap();
        // Two signals are the C library's own; systemd passes on what it was itself started with.
        const OF_THE_LIBRARY: u64 = 0b11 << 31;
        assert_eq!(mask & !OF_THE_LIBRARY, 0, "{line}");
    }
    let session = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(3).unwrap();
    assert_eq!(session, pid.to_string());
    let input = fs::read_link(format!("/proc/{pid}/fd/0")).unwrap();
    assert_eq!(input.to_str(), Some("/dev/null"));
    world.end(run).await;
}

pub async fn a_program_is_found_from_its_directory(mut world: World) {
    let here = world.path("here");
    fs::create_dir(&here).unwrap();
    fs::write(here.join("run"), "#!/bin/sh\nexit \"$1\"\n").unwrap();
    fs::set_permissions(here.join("run"), PermissionsExt::from_mode(0o755)).unwrap();
    for (cwd, name) in
        [("here", "./run"), ("here/../here/.", "./run"), ("", "here/run"), ("here", "../here/run")]
    {
        let mut spec = program(name, &["5"]);
        spec.exec.cwd = world.text(cwd);
        assert_eq!(world.run(spec).await, ExitStatus::Code(5), "{name} in {cwd}");
    }
    let mut spec = program("run", &["6"]);
    let path = format!("/nowhere:{}", here.display());
    let own = BTreeMap::from([("PATH".to_owned(), Secret(Text::new(&path)))]);
    spec.exec.env = Arc::new(own);
    assert_eq!(world.run(spec).await, ExitStatus::Code(6));
}

pub async fn a_user_is_taken_on(mut world: World) {
    let up = world.pipe("up");
    let line = format!("id -u >{up}; id -g >{up}; id -G >{up}; echo $HOME $USER >{up}");
    let mut spec = shell(&line);
    if is_root() {
        assert_eq!(world.run(spec.clone()).await, ExitStatus::Code(0));
        let nobody = ["65534", "65534", "65534", "/nonexistent nobody"];
        for expected in nobody {
            assert_eq!(world.line("up").await, expected);
        }
        spec.exec.user = Some("daemon".into());
        spec.exec.group = Some("games".into());
        assert_eq!(world.run(spec).await, ExitStatus::Code(0));
        for expected in ["1", "60", "60", "/usr/sbin daemon"] {
            assert_eq!(world.line("up").await, expected);
        }
    } else {
        assert_eq!(world.run(spec).await, ExitStatus::Code(0));
        let own = rustix::process::geteuid().as_raw().to_string();
        assert_eq!(world.line("up").await, own);
    }
}

pub async fn each_stage_that_fails_is_named(mut world: World) {
    let text = |path: &std::path::Path| Text::new(path.to_str().unwrap());
    let (plain, link) = (world.path("plain"), world.path("link"));
    fs::write(&plain, "no program").unwrap();
    fs::set_permissions(&plain, PermissionsExt::from_mode(0o644)).unwrap();
    symlink(world.path("elsewhere"), &link).unwrap();
    let with = |change: fn(&mut ProcessSpec, Text), path: &std::path::Path| {
        let mut spec = program("true", &[]);
        change(&mut spec, text(path));
        spec
    };
    let missing = world.path("missing");
    let not_there = "No such file or directory";
    let cases = [
        (program("no-such-program", &[]), SpawnStage::Exec, not_there),
        (program("/no/such/program", &[]), SpawnStage::Exec, not_there),
        (program(plain.to_str().unwrap(), &[]), SpawnStage::Exec, "Permission denied"),
        (with(|spec, path| spec.exec.cwd = path, &missing), SpawnStage::Cwd, not_there),
        (with(|spec, path| spec.exec.cwd = path, &plain), SpawnStage::Cwd, "Not a directory"),
        (
            with(|spec, path| spec.exec.log_file = Some(path), &link),
            SpawnStage::LogFile,
            "symbolic link",
        ),
        (
            with(|spec, path| spec.exec.pid_file = Some(path), &link),
            SpawnStage::PidFile,
            "symbolic link",
        ),
        (
            with(|spec, _| spec.exec.user = Some("no-such-user".into()), &link),
            SpawnStage::Identity,
            "no such user",
        ),
    ];
    for (spec, stage, reason) in cases {
        world.start(spec);
        let error = world.spawn_failed().await;
        assert_eq!(error.stage, stage, "{error}");
        assert!(error.reason.contains(reason), "{error}");
    }
    assert!(!world.path("elsewhere").exists());
    // Nothing of them is in the way of the next one.
    assert_eq!(world.run(program("true", &[])).await, ExitStatus::Code(0));
}

pub async fn a_log_file_is_its_users(mut world: World) {
    let mut spec = shell("echo out; echo err >&2");
    spec.exec.log_file = Some(world.text("logs/test.log"));
    spec.exec.umask = Some(0o077);
    let spec_of = |spec: &ProcessSpec| Arc::new(spec.clone());
    for _ in 0..2 {
        assert_eq!(world.run(spec.clone()).await, ExitStatus::Code(0));
    }
    let path = world.path("logs/test.log");
    assert_eq!(fs::read_to_string(&path).unwrap(), "out\nerr\nout\nerr\n");
    let found = fs::metadata(&path).unwrap();
    assert_eq!(found.mode() & 0o777, 0o600);
    assert_eq!(found.uid(), if is_root() { 65534 } else { rustix::process::geteuid().as_raw() });
    let open = world.backend.open_log(&instance(), &spec_of(&spec), Default::default());
    let mut log = String::new();
    std::io::Read::read_to_string(&mut fs::File::from(open.unwrap().unwrap()), &mut log).unwrap();
    assert_eq!(log, "out\nerr\nout\nerr\n");
}

pub async fn a_log_file_is_rotated(mut world: World) {
    let mut spec =
        shell("i=0; while [ $i -lt 2000 ]; do echo a line with number $i; i=$((i+1)); done");
    spec.exec.log_file = Some(world.text("test.log"));
    spec.exec.log_rotation = Some(LogRotation { max_size: 20_000, max_files: 9 });
    assert_eq!(world.run(spec).await, ExitStatus::Code(0));
    // The last line is in the file when the run is over.
    let newest = fs::read_to_string(world.path("test.log")).unwrap();
    assert!(newest.ends_with("number 1999\n"), "{newest}");
    assert!(world.path("test.log.1").exists());
    in_time(world.backend.drained(), "the end of the log").await;
}

pub async fn a_pid_file_is_there_as_long_as_the_run(mut world: World) {
    let up = world.pipe("up");
    let mut spec = shell(&format!("echo up >{up}; exec sleep 1000"));
    spec.exec.pid_file = Some(world.text("run/test.pid"));
    let run = world.start(spec);
    let pid = world.spawned().await;
    world.line("up").await;
    let path = world.path("run/test.pid");
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{pid}\n"));
    world.end(run).await;
    assert!(!path.exists());
}

//! Log files that are rotated: the program that writes them, as the backend starts it.

use crate::common::log_files::{numbers, whole};
use crate::common::processes::kill;
use crate::world::*;
use provost::backend::Backend;
use provost::backend::native::reaper;
use provost::core::event::{Event, ExitStatus, Whom};
use provost::core::spec::{LogRotation, ProcessSpec, Signal};
use provost::sys::stat::Stat;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

fn rotated(world: &World, line: &str, max_size: u64) -> ProcessSpec {
    let mut spec = shell(line);
    spec.exec.cwd = text(world.directory.path());
    spec.exec.log_file = Some(text(&world.path("logs/test.log")));
    spec.exec.log_rotation = Some(LogRotation { max_size, max_files: 1000 });
    spec
}

/// What runs of the program that writes logs, below this process.
fn writers() -> Vec<u32> {
    let name = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let is_child = |pid: u32| Stat::of(pid).is_some_and(|stat| stat.parent == std::process::id());
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| is_child(*pid) && name(*pid) == "provost-log\n")
        .collect()
}

#[tokio::test]
async fn no_line_is_lost_at_full_speed_and_all_is_there_when_the_run_is_over() {
    const LINES: usize = 200_000;
    let mut world = World::new();
    world.start(rotated(&world, &format!("seq 1 {LINES}"), 32 << 10));
    world.spawned().await;
    assert_eq!(world.exited().await, ExitStatus::Code(0));
    world.emptied().await;
    // Nothing is waited for.
    let (text, files) = whole(&world.path("logs/test.log"));
    assert!(files > 20, "{files}");
    assert!(text == numbers(LINES), "{} lines", text.lines().count());
    for number in 0..files {
        let name = if number == 0 { String::new() } else { format!(".{number}") };
        let file = std::fs::read(world.path(&format!("logs/test.log{name}"))).unwrap();
        assert!(file.len() <= 32 << 10 && file.ends_with(b"\n"), "{number}: {}", file.len());
    }
    assert_eq!(writers(), [0; 0]);
}

#[tokio::test]
async fn only_so_many_files_are_kept() {
    let mut world = World::new();
    let mut spec = rotated(&world, "seq 1 20000", 8 << 10);
    spec.exec.log_rotation = Some(LogRotation { max_size: 8 << 10, max_files: 3 });
    world.run_quietly(spec).await;
    let (text, files) = whole(&world.path("logs/test.log"));
    assert_eq!(files, 4);
    assert!(numbers(20000).ends_with(&text));
    let names = std::fs::read_dir(world.path("logs")).unwrap().count();
    assert_eq!(names, 4);
}

#[tokio::test]
async fn the_writer_is_no_part_of_the_run() {
    for world in [Some(World::new()), World::with_cgroup()] {
        let Some(mut world) = world else { continue };
        let line = "trap 'echo told' TERM; echo up >up; while :; do sleep 0.02; done";
        let run = world.start(rotated(&world, line, 1 << 20));
        world.spawned().await;
        let path = world.path("logs/test.log");
        until(|| world.path("up").exists()).await;
        let [writer] = writers()[..] else { panic!("{:?}", writers()) };
        world.backend.signal(&instance(), run, Signal::TERM, Whom::All);
        until(|| whole(&path).0.contains("told\n")).await;
        // A daemon that is told to end with its group does not take the last lines along.
        let pid = nix::unistd::Pid::from_raw(i32::try_from(writer).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        world.backend.signal(&instance(), run, Signal::TERM, Whom::All);
        until(|| whole(&path).0.matches("told\n").count() >= 2).await;
        assert_eq!(writers(), [writer]);
        world.end(run).await;
        gone(writer).await;
    }
}

#[tokio::test]
async fn another_one_goes_on_where_a_writer_was_killed() {
    let mut world = World::new();
    let line = "echo one; until test -e go; do sleep 0.01; done; seq 1 100000; echo end";
    world.start(rotated(&world, line, 64 << 10));
    world.spawned().await;
    let path = world.path("logs/test.log");
    until(|| whole(&path).0 == "one\n").await;
    let [writer] = writers()[..] else { panic!("{:?}", writers()) };
    kill(writer);
    gone(writer).await;
    std::fs::write(world.path("go"), "").unwrap();
    assert_eq!(world.exited().await, ExitStatus::Code(0));
    world.emptied().await;
    in_time(world.backend.drained()).await;
    assert!(whole(&path).0 == format!("one\n{}end\n", numbers(100_000)));
}

#[tokio::test]
async fn who_left_the_run_and_holds_its_output_does_not_hold_up_its_end() {
    let mut world = World::new();
    // Beyond what the census can find: another session, another mark, and no parent.
    let line = "setsid sh -c 'ulimit -m 1000; echo $$ >left; exec sleep 1000' & \
                until test -s left; do sleep 0.01; done; echo end";
    let mut world_spec = rotated(&world, line, 1 << 20);
    world_spec.exec.cwd = text(world.directory.path());
    let run = world.start(world_spec);
    world.spawned().await;
    assert_eq!(world.exited().await, ExitStatus::Code(0));
    let left: u32 = std::fs::read_to_string(world.path("left")).unwrap().trim().parse().unwrap();
    match world.event().await {
        Event::Emptied { .. } => {
            assert_eq!(whole(&world.path("logs/test.log")).0, "end\n");
            kill(left);
        }
        other => panic!("{other:?} {run:?}"),
    }
    gone(left).await;
}

#[tokio::test]
async fn a_gigabyte_without_an_end_of_line_needs_no_memory() {
    let mut world = World::new();
    let line = "head -c 200000000 /dev/zero | tr '\\0' x; echo; echo end; \
                until test -e go; do sleep 0.01; done";
    let mut spec = rotated(&world, line, 4 << 20);
    spec.exec.log_rotation = Some(LogRotation { max_size: 4 << 20, max_files: 2 });
    world.start(spec);
    world.spawned().await;
    let path = world.path("logs/test.log");
    until(|| std::fs::read(&path).unwrap_or_default().ends_with(b"x\nend\n")).await;
    let [writer] = writers()[..] else { panic!("{:?}", writers()) };
    let status = std::fs::read_to_string(format!("/proc/{writer}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 8 << 10, "{peak} KiB");
    // It is divided where a file is full, and nowhere else.
    for name in ["logs/test.log.1", "logs/test.log.2"] {
        assert_eq!(std::fs::read(world.path(name)).unwrap(), vec![b'x'; 4 << 20]);
    }
    std::fs::write(world.path("go"), "").unwrap();
    assert_eq!(world.exited().await, ExitStatus::Code(0));
    world.emptied().await;
}

#[tokio::test]
async fn bytes_are_written_as_they_are() {
    let mut world = World::new();
    let line = r"printf 'a\377\376\033[31m\000\r\n\n\tno end'";
    world.run_quietly(rotated(&world, line, 1 << 20)).await;
    let written = std::fs::read(world.path("logs/test.log")).unwrap();
    assert_eq!(written, b"a\xff\xfe\x1b[31m\0\r\n\n\tno end");
}

#[tokio::test]
async fn what_cannot_be_written_is_said_with_its_stage() {
    let mut world = World::new();
    let mut said = Vec::new();
    std::fs::create_dir(world.path("logs")).unwrap();
    std::os::unix::fs::symlink("elsewhere", world.path("logs/test.log")).unwrap();
    world.start(rotated(&world, "true", 1 << 20));
    said.push(world.spawn_failed().await.to_string());
    assert!(!world.path("logs/elsewhere").exists());

    std::fs::remove_file(world.path("logs/test.log")).unwrap();
    let fifo = world.path("logs/test.log");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    let reader = rustix::fs::open(
        &fifo,
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK,
        rustix::fs::Mode::empty(),
    );
    world.start(rotated(&world, "true", 1 << 20));
    said.push(world.spawn_failed().await.to_string());
    drop(reader);

    let mut world_without = World::with(|options| options.log_program = "/nowhere/log".into());
    world_without.start(rotated(&world, "true", 1 << 20));
    said.push(world_without.spawn_failed().await.to_string());

    let path = fifo.display();
    assert_eq!(
        said,
        [
            format!("opening the log file {path}: it is a symbolic link, which is not followed"),
            format!(
                "opening the log file {path}: it is no regular file, and only such are rotated"
            ),
            "connecting the output to the log file: executing /nowhere/log: No such file or \
             directory"
                .to_owned(),
        ]
    );
    // Nothing waits for what did not begin.
    until(|| reaper::moment().registered.is_empty()).await;
}

#[tokio::test]
async fn the_file_belongs_to_the_user_of_the_process() {
    if !is_root() {
        return;
    }
    let mut world = World::with(|options| options.mode = provost::config::load::Mode::System);
    // Others may pass through it.
    std::fs::set_permissions(world.directory.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let mut spec = rotated(&world, "seq 1 5000; id -u >&2", 8 << 10);
    spec.exec.user = Some("nobody".into());
    world.run_quietly(spec).await;
    let path = world.path("logs/test.log");
    let (text, files) = whole(&path);
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    assert_eq!(text, format!("{}{}\n", numbers(5000), nobody.uid));
    assert!(files > 2);
    for name in ["logs/test.log", "logs/test.log.1"] {
        let metadata = std::fs::metadata(world.path(name)).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&metadata), nobody.uid.as_raw());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o640);
    }
}

#[tokio::test]
async fn a_log_is_followed_through_its_rotations_each_line_once() {
    const LINES: usize = 100_000;
    let mut world = World::new();
    let line =
        format!("echo begin; until test -e go; do sleep 0.01; done; seq 1 {LINES}; echo end");
    let spec = rotated(&world, &line, 16 << 10);
    world.start(spec.clone());
    world.spawned().await;
    let path = world.path("logs/test.log");
    until(|| whole(&path).0 == "begin\n").await;
    let log = world.backend.open_log(&instance(), &Arc::new(spec), FOLLOW).unwrap().unwrap();
    let mut log = pipe::Receiver::from_owned_fd(log).unwrap();
    let mut begin = [0; 6];
    in_time(log.read_exact(&mut begin)).await.unwrap();
    assert_eq!(&begin, b"begin\n");
    std::fs::write(world.path("go"), "").unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"end\n") {
        assert_ne!(in_time(log.read_buf(&mut seen)).await.unwrap(), 0);
    }
    let expected = numbers(LINES) + "end\n";
    assert!(seen == expected.as_bytes(), "{} of {}", seen.len(), expected.len());
    assert!(whole(&path).1 > 20);
    assert_eq!(world.exited().await, ExitStatus::Code(0));
    world.emptied().await;
    // Whoever follows leaves, and the program with them.
    let followers = writers();
    assert_eq!(followers.len(), 1);
    drop(log);
    gone(followers[0]).await;
}

/// Waits for something that happens in a file.
async fn until(mut what: impl FnMut() -> bool) {
    in_time(async {
        while !what() {
            tokio::task::yield_now().await;
            std::thread::yield_now();
        }
    })
    .await;
}

//! What a process starts with, and what is said when it cannot be had.

use crate::world::*;
use provost::config::environment::base_environment;
use provost::config::load::Mode;
use provost::core::event::SpawnStage;
use provost::core::spec::{ProcessSpec, Secret, Text};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

fn status_of(pid: u32, key: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim_start_matches(':').split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn the_environment_is_the_stated_one_and_no_more() {
    let mut world = World::new();
    let mut spec = program("env", &[]);
    let own = BTreeMap::from([("PORT".to_owned(), Secret(Text::new("300\0")))]);
    spec.exec.env = Arc::new(own);
    let (_, text) = world.run(spec).await;
    let seen: BTreeMap<String, String> = text
        .lines()
        .map(|line| line.split_once('=').unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let daemon = BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into())]);
    let user = provost::backend::native::identity::caller(&daemon);
    let mut stated = base_environment(Mode::User, &daemon, &user, 0);
    stated.insert("PORT".into(), "3000".into());
    assert_eq!(seen, stated);
}

#[tokio::test]
async fn no_descriptor_is_inherited() {
    // One that is not close-on-exec, as a careless library or our own parent would leave it.
    let null = std::fs::File::open("/dev/null").unwrap();
    let _careless = rustix::io::dup(&null).unwrap();
    let mut world = World::new();
    // Looked at once it runs: the loader of a program opens libraries before that.
    let run = world.start(shell("echo up=1; while :; do sleep 1000; done"));
    let pid = world.spawned().await;
    world.screen.value("up").await;
    let open: BTreeSet<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(open, BTreeSet::from(["0".to_owned(), "1".to_owned(), "2".to_owned()]));
    let input = std::fs::read_link(format!("/proc/{pid}/fd/0")).unwrap();
    assert_eq!(input.to_str(), Some("/dev/null"));
    world.end(run).await;
}

#[tokio::test]
async fn signals_are_as_new_and_the_session_is_its_own() {
    use nix::sys::signal::{SigSet, Signal};
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGUSR1);
    blocked.thread_block().unwrap();
    // The Rust runtime ignores SIGPIPE in every program, this one included.
    assert_ne!(status_of(std::process::id(), "SigIgn"), "0000000000000000");

    let mut world = World::new();
    let run = world.start(program("sleep", &["1000"]));
    let pid = world.spawned().await;
    for set in ["SigBlk", "SigIgn", "SigCgt"] {
        assert_eq!(status_of(pid, set), "0000000000000000", "{set}");
    }
    let process = provost::backend::native::census::read(pid).unwrap();
    assert_eq!((process.session, process.parent), (pid, std::process::id()));
    world.end(run).await;
}

#[tokio::test]
async fn umask_priority_and_limits_are_set() {
    let mut world = World::new();
    let mut spec = shell("umask; nice; ulimit -Sn; ulimit -Hn; pwd; echo $0 $#");
    spec.exec.umask = Some(0o027);
    spec.exec.nice = Some(5);
    spec.exec.max_files = Some(300);
    spec.exec.cwd = "/usr".into();
    let (_, text) = world.run(spec).await;
    assert_eq!(text, "0027\n5\n300\n300\n/usr\n/bin/sh 0\n");
}

#[tokio::test]
async fn the_usual_limit_of_open_files_is_that_of_a_login() {
    let mut world = World::new();
    let (_, text) = world.run(shell("umask; ulimit -Sn")).await;
    assert_eq!(text, "0022\n1024\n");
}

#[tokio::test]
async fn user_and_groups_are_given_up_for_good() {
    if !is_root() {
        return;
    }
    let mut world = World::with(|options| options.mode = Mode::System);
    let run = world.start(program("sleep", &["1000"]));
    let pid = world.spawned().await;
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let (uid, gid) = (nobody.uid, nobody.gid);
    assert_eq!(status_of(pid, "Uid"), format!("{uid} {uid} {uid} {uid}"));
    assert_eq!(status_of(pid, "Gid"), format!("{gid} {gid} {gid} {gid}"));
    assert_eq!(status_of(pid, "Groups"), gid.to_string());
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status_of(pid, set), "0000000000000000", "{set}");
    }
    world.end(run).await;
}

async fn failure_of(change: impl FnOnce(&mut ProcessSpec, &World)) -> (SpawnStage, String) {
    let mut world = World::new();
    let mut spec = program("true", &[]);
    change(&mut spec, &world);
    world.start(spec);
    let error = world.spawn_failed().await;
    // All paths are in the directory of the test.
    let text = error.to_string().replace(world.directory.path().to_str().unwrap(), "DIR");
    (error.stage, text)
}

#[tokio::test]
async fn a_command_that_is_not_there_is_named_with_where_it_was_searched() {
    let (stage, text) = failure_of(|spec, _| *spec = program("no-such-command", &[])).await;
    assert_eq!(stage, SpawnStage::Exec);
    assert_eq!(
        text,
        "executing no-such-command (searched in /usr/bin:/bin): No such file or directory"
    );
    let (_, text) = failure_of(|spec, _| *spec = program("/no/such/command", &[])).await;
    assert_eq!(text, "executing /no/such/command: No such file or directory");
}

#[tokio::test]
async fn a_command_that_cannot_be_executed_is_named() {
    let (_, text) = failure_of(|spec, world| {
        std::fs::write(world.path("plain"), "x").unwrap();
        *spec = program(world.path("plain").to_str().unwrap(), &[]);
    })
    .await;
    assert_eq!(text, "executing DIR/plain: Permission denied");
    let (_, text) = failure_of(|spec, world| {
        write_script(world, "#!/no/such/interpreter\n");
        *spec = program(world.path("script").to_str().unwrap(), &[]);
    })
    .await;
    let because = "the file is there, but the interpreter or loader it names is not";
    assert_eq!(text, format!("executing DIR/script: {because}"));
}

fn write_script(world: &World, content: &str) {
    let path = world.path("script");
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn a_script_without_interpreter_is_one_for_the_shell() {
    let mut world = World::new();
    write_script(&world, "echo \"$1 $2 $#\"\n");
    let script = world.path("script");
    let (_, text) = world.run(program(script.to_str().unwrap(), &["a b", "c"])).await;
    assert_eq!(text, "a b c 2\n");
}

#[tokio::test]
async fn the_search_goes_on_after_a_file_that_cannot_be_executed() {
    let mut world = World::new();
    std::fs::write(world.path("true"), "x").unwrap();
    let mut spec = program("true", &[]);
    let path = format!("{}:/usr/bin:/bin", world.directory.path().display());
    spec.exec.env = Arc::new(BTreeMap::from([("PATH".to_owned(), Secret(Text::new(&path)))]));
    assert_eq!(world.run(spec).await.0, provost::core::event::ExitStatus::Code(0));
}

#[tokio::test]
async fn a_missing_directory_is_named() {
    let (stage, text) = failure_of(|spec, _| spec.exec.cwd = "/srv/no/such".into()).await;
    assert_eq!(stage, SpawnStage::Cwd);
    assert_eq!(text, "changing directory to /srv/no/such: No such file or directory");
}

#[tokio::test]
async fn a_missing_user_is_named() {
    let (stage, text) = failure_of(|spec, _| spec.exec.user = Some("no-such-user".into())).await;
    assert_eq!(stage, SpawnStage::Identity);
    assert_eq!(text, "looking up the user no-such-user: there is no such user");
}

#[tokio::test]
async fn arguments_that_cannot_be_passed_are_no_crash() {
    let (stage, text) =
        failure_of(|spec, _| *spec = program("true", &[&"x".repeat(200_000)])).await;
    assert_eq!(
        (stage, text.as_str()),
        (SpawnStage::Exec, "executing /usr/bin/true: Argument list too long")
    );
}

#[tokio::test]
async fn a_log_directory_that_is_not_the_users_is_named() {
    if !is_root() {
        return;
    }
    let (stage, text) = failure_of(|spec, world| {
        spec.exec.user = Some("nobody".into());
        spec.exec.log_file = Some(text(&world.path("logs/a.log")));
        let directory = world.directory.path();
        std::fs::set_permissions(directory, PermissionsExt::from_mode(0o755)).unwrap();
    })
    .await;
    assert_eq!(stage, SpawnStage::LogFile);
    assert_eq!(
        text,
        "opening the log file DIR/logs/a.log: making directory DIR/logs: Permission denied"
    );
}

#[tokio::test]
async fn a_link_in_place_of_log_or_pid_file_is_not_followed() {
    let link = |world: &World| {
        std::fs::write(world.path("victim"), "mine").unwrap();
        std::os::unix::fs::symlink(world.path("victim"), world.path("link")).unwrap();
        Some(text(&world.path("link")))
    };
    let (stage, said) = failure_of(|spec, world| spec.exec.log_file = link(world)).await;
    assert_eq!(stage, SpawnStage::LogFile);
    let because = "it is a symbolic link, which is not followed";
    assert_eq!(said, format!("opening the log file DIR/link: {because}"));
    let (stage, said) = failure_of(|spec, world| spec.exec.pid_file = link(world)).await;
    assert_eq!(stage, SpawnStage::PidFile);
    assert_eq!(said, format!("writing the pid file DIR/link: {because}"));
}

#[tokio::test]
async fn the_pid_file_holds_the_pid_while_it_runs() {
    let mut world = World::new();
    let path = world.path("run/deep/test.pid");
    let mut spec = program("sleep", &["1000"]);
    spec.exec.pid_file = Some(text(&path));
    let run = world.start(spec);
    let pid = world.spawned().await;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{pid}\n"));
    world.end(run).await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_pid_file_that_somebody_else_has_written_since_stays() {
    let mut world = World::new();
    let path = world.path("test.pid");
    let mut spec = program("sleep", &["1000"]);
    spec.exec.pid_file = Some(text(&path));
    let run = world.start(spec);
    world.spawned().await;
    std::fs::write(&path, "1\n").unwrap();
    world.end(run).await;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n");
}

#[tokio::test]
async fn no_pid_file_is_left_by_a_command_that_was_not_executed() {
    let mut world = World::new();
    let path = world.path("test.pid");
    let mut spec = program("no-such-command", &[]);
    spec.exec.pid_file = Some(text(&path));
    world.start(spec);
    assert_eq!(world.spawn_failed().await.stage, SpawnStage::Exec);
    assert!(!path.exists());
}

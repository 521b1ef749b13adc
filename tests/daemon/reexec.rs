//! Another program in the place of the one that runs: the same process, the same children.

use crate::common::log_files::{numbers, whole};
use crate::common::processes::{end_by, kill, processes_with, start_of};
use crate::common::waiting::{DEADLINE, ended, until};
use crate::support::{Daemon, identities, pids, wait_for};
use crate::survival_faults::Tracer;
use nix::sys::signal::Signal;
use provost::client::{Client, Log, Target, Verb};
use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Asks for it, and returns when the program that followed is ready.
async fn followed(daemon: &Daemon) -> String {
    let version = daemon.client().await.reexec().await.unwrap();
    daemon.notified("RELOADING=1");
    daemon.notified("READY=1");
    version
}

/// The daemon's own number and start: they stay.
fn own(daemon: &Daemon) -> (u32, u64) {
    (daemon.pid(), start_of(daemon.pid()))
}

#[tokio::test]
async fn the_process_and_its_children_stay() {
    let mut daemon = Daemon::start(
        "processes: { a: { shell: exec sleep 88901 }, off: { shell: exec sleep 88902 }, \
         crash: { shell: 'exit 3', restartPolicy: { delay: 1h } }, \
         job: { shell: 'echo once >>@DIR@/job', restartPolicy: { condition: on-failure } } }",
    );
    daemon.until_running(&["a@0", "off@0"]).await;
    daemon
        .until("it rests", |all| {
            all["crash@0"].state == "backoff" && all["job@0"].state == "completed"
        })
        .await;
    let client = daemon.client().await;
    client.submit(Verb::Stop, &["off".into()]).await.unwrap();
    daemon.until("off is down", |all| all["off@0"].state == "down").await;
    let (before, own_before) = (identities(&daemon.status().await), own(&daemon));
    let crash = daemon.status().await["crash@0"].clone();
    for _ in 0..10 {
        assert_eq!(followed(&daemon).await, env!("CARGO_PKG_VERSION"));
        let status = daemon.status().await;
        assert_eq!(identities(&status), before);
        assert_eq!(own(&daemon), own_before);
        assert_eq!((&*status["off@0"].state, &*status["crash@0"].state), ("down", "backoff"));
        assert_eq!(status["crash@0"].restarts, crash.restarts);
    }
    let manager = daemon.client().await.manager().await.unwrap();
    assert_eq!((manager.generation, &*manager.config_state), (1, "applied"));
    assert_eq!(fs::read_to_string(daemon.path().join("job")).unwrap(), "once\n");
    // Its children still: it takes their statuses, and no other is invented.
    kill(before["a@0"].0);
    daemon.until("a has ended", |all| all["a@0"].pid != Some(before["a@0"].0)).await;
    daemon.logged("a@0: was ended by SIGKILL");
    assert!(daemon.stop().success());
}

/// Somebody at a terminal asks for it.
fn ask(daemon: &Daemon) -> Child {
    let socket = daemon.path().join("private");
    Command::new(env!("CARGO_BIN_EXE_provost"))
        .arg("--socket")
        .arg(socket)
        .arg("daemon-reexec")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What they are told at the end.
fn answered(mut asked: Child) -> (bool, String) {
    let status = ended(&mut asked, "the end of `provost daemon-reexec`");
    let mut text = String::new();
    asked.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    (status.success(), text)
}

/// Another program is executed half a second after everything is ready for it.
fn slowly(daemon: &Daemon) -> Option<Tracer> {
    let how = "inject=execve:delay_enter=500000:when=1";
    crate::survival_faults::can_trace().then(|| Tracer::of(daemon.pid(), how))
}

#[tokio::test]
async fn an_end_in_between_is_told_as_it_was() {
    let daemon = Daemon::start(
        "processes: { a: { shell: 'trap \"exit 7\" USR1; while :; do sleep 0.05; done', \
         restartPolicy: { delay: 1h } }, b: { shell: exec sleep 88911 } }",
    );
    let before = pids(&daemon.until_running(&["a@0", "b@0"]).await);
    let Some(_tracer) = slowly(&daemon) else { return };
    let asked = ask(&daemon);
    daemon.logged("going on as ");
    end_by(before["a@0"], rustix::process::Signal::USR1);
    until("it has ended", || {
        provost::sys::stat::Stat::of(before["a@0"]).is_none_or(|stat| stat.state == b'Z')
    });
    assert!(!daemon.log().contains("exited with code 7"), "it was told too early to mean anything");
    let (done, said) = answered(asked);
    assert!(done && said.contains(" goes on as "), "{said}");
    let status = daemon.until("it is told", |all| all["a@0"].state == "backoff").await;
    assert_eq!(format!("{:?}", status["a@0"].exit), "Some(Code(7))");
    assert_eq!(status["b@0"].pid, Some(before["b@0"]));
}

#[tokio::test]
async fn a_signal_in_between_is_heard() {
    let mut daemon = Daemon::start("processes: { a: { shell: exec sleep 88912 } }");
    daemon.until_running(&["a@0"]).await;
    let Some(_tracer) = slowly(&daemon) else { return };
    let asked = ask(&daemon);
    daemon.logged("going on as ");
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.ended().success());
    // It comes, and goes: whoever asked may see it or not.
    answered(asked);
    daemon.logged("a@0: stopped; nothing of it is left");
}

#[tokio::test]
async fn no_line_is_lost_and_none_is_torn() {
    let count = "i=0; while ! test -e @DIR@/enough; do i=$((i + 1)); echo $i; done; \
                 echo $i >@DIR@/NAME.last; exec sleep 88921";
    let shown = count.replace("NAME", "shown");
    let rotated = count.replace("NAME", "rotated");
    let file = format!(
        "processes:\n  shown: {{ shell: '{shown}' }}\n  rotated: {{ shell: '{rotated}', \
         logFile: '@DIR@/rotated.log', log: {{ maxSize: 64K, maxFiles: 1000 }} }}\n"
    );
    let daemon = Daemon::start(&file);
    daemon.until_running(&["shown@0", "rotated@0"]).await;
    for _ in 0..5 {
        followed(&daemon).await;
    }
    fs::write(daemon.path().join("enough"), "").unwrap();
    let last = |name: &str| -> usize {
        let path = daemon.path().join(format!("{name}.last"));
        wait_for(&path);
        let mut text = String::new();
        until("it says so", || {
            text = fs::read_to_string(&path).unwrap();
            text.ends_with('\n')
        });
        text.trim().parse().unwrap()
    };
    let (shown, rotated) = (last("shown"), last("rotated"));
    let written = || whole(&daemon.path().join("rotated.log")).0;
    until("the log is whole", || written() == numbers(rotated));
    daemon.logged(&format!(" | {shown}\n"));
    let log = daemon.log();
    // How wide the names are depends on who was there first.
    let lines = log.lines().filter_map(|line| line.split_once(" | "));
    let lines: Vec<&str> =
        lines.filter(|(name, _)| name.trim() == "shown").map(|(_, text)| text).collect();
    let expected: Vec<String> = (1..=shown).map(|n| n.to_string()).collect();
    assert!(lines == expected, "{} of {shown} lines", lines.len());
    // What is kept in memory went over as well.
    let mut kept = String::new();
    let log = daemon.client().await.open_log(&["shown".into()], 2000, false).await.unwrap();
    let Log::Stream(log) = log else { panic!("it is in the journal") };
    fs::File::from(log).read_to_string(&mut kept).unwrap();
    assert!(kept.ends_with(&format!("{shown}\n")) && kept.lines().count() > 1000);
}

/// Whoever writes a log is looked after by the next program as by the one that started it.
#[tokio::test]
async fn another_one_writes_the_log_where_one_is_killed() {
    let mut daemon = Daemon::start(
        "processes: { a: { shell: 'i=0; while :; do i=$((i + 1)); echo $i; sleep 0.01; done', \
         logFile: '@DIR@/a.log', log: { maxSize: 64K, maxFiles: 10 } } }",
    );
    let before = pids(&daemon.until_running(&["a@0"]).await);
    let writers = |daemon: u32| -> Vec<u32> {
        let is_one = |pid: &u32| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let stat = provost::sys::stat::Stat::of(*pid);
            name == "provost-log\n" && stat.is_some_and(|stat| stat.parent == daemon)
        };
        crate::common::processes::all().filter(is_one).collect()
    };
    let pid = daemon.pid();
    let [first] = writers(pid)[..] else { panic!("{:?}", writers(pid)) };
    followed(&daemon).await;
    followed(&daemon).await;
    assert_eq!(writers(pid), [first]);
    kill(first);
    daemon.logged("a@0: what writes its log ended: was ended by SIGKILL; another one is started");
    until("another one writes", || matches!(writers(pid)[..], [next] if next != first));
    let written = || whole(&daemon.path().join("a.log")).0.lines().count();
    let some = written();
    until("it goes on", || written() > some + 10);
    assert_eq!(pids(&daemon.until_running(&["a@0"]).await), before);
    assert!(daemon.stop().success());
    assert_eq!(writers(pid), [0_u32; 0]);
}

#[tokio::test]
async fn sockets_are_held_on() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = "my $l; open($l, \"+<&=\", 3) or die; while (1) { accept(my $c, $l) or next; \
                  print $c \"$$\\n\"; close $c; }";
    let file = format!(
        "processes: {{ web: {{ command: [perl, -e, '{server}'], \
         sockets: {{ http: '127.0.0.1:{port}' }} }} }}"
    );
    let daemon = Daemon::start(&file);
    let before = pids(&daemon.until_running(&["web@0"]).await);
    let served = || {
        let mut text = String::new();
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        std::io::Read::read_to_string(&mut stream, &mut text).unwrap();
        // One that is being replaced may take a connection and not answer.
        text.trim().parse::<u32>().ok()
    };
    let mut asked = ask(&daemon);
    let status = loop {
        assert_eq!(served(), Some(before["web@0"]));
        if let Some(status) = asked.try_wait().unwrap() {
            break status;
        }
    };
    assert!(status.success());
    // It is the daemon's still: nobody is refused while the process is replaced.
    let client = daemon.client().await;
    let restart = tokio::spawn(async move {
        client.run(Verb::Restart, &["web".into()], |_| {}).await.unwrap();
    });
    while !restart.is_finished() {
        served();
        tokio::task::yield_now().await;
    }
    restart.await.unwrap();
    assert_ne!(served().unwrap(), before["web@0"]);
}

/// Whoever asks meanwhile is answered, is told that the connection has ended, and finds the next.
#[tokio::test]
async fn nobody_is_refused_however_often() {
    let daemon = Daemon::start(
        "processes: { a: { shell: exec sleep 88931 }, b: { shell: exec sleep 88932 } }",
    );
    let before = identities(&daemon.until_running(&["a@0", "b@0"]).await);
    let socket = daemon.path().join("private");
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let others: Vec<_> = (0..4)
        .map(|number| {
            let (socket, stopped) = (Target::Socket(socket.clone()), stopped.clone());
            tokio::spawn(async move {
                let mut done = 0;
                while !*stopped.borrow() {
                    // It is always there to be connected to.
                    let std_socket = match &socket {
                        Target::Socket(path) => path,
                        _ => unreachable!(),
                    };
                    std::os::unix::net::UnixStream::connect(std_socket).unwrap();
                    let Ok(client) = Client::connect(&socket).await else { continue };
                    let asked = match number {
                        0 => client.run(Verb::Restart, &["b".into()], |_| {}).await.is_ok(),
                        _ => client.status(&[]).await.is_ok(),
                    };
                    done += u32::from(asked);
                }
                done
            })
        })
        .collect();
    for _ in 0..10 {
        followed(&daemon).await;
    }
    stop.send(true).unwrap();
    for other in others {
        assert!(other.await.unwrap() > 0);
    }
    let after = daemon.until_running(&["a@0", "b@0"]).await;
    assert_eq!(identities(&after)["a@0"], before["a@0"]);
    assert_eq!(processes_with("sleep 88932"), [after["b@0"].pid.unwrap()]);
}

/// What a run has started is found, whoever its parent is by now.
#[tokio::test]
async fn a_stop_takes_all_of_what_was_started_before() {
    let mut daemon = Daemon::start(
        "processes: { a: { shell: '( setsid sleep 88941 & ); exec sleep 88942' }, \
         gone: { shell: '( setsid sleep 88943 & ); echo $$ >@DIR@/gone; exec sleep 88944', \
         stop: { timeout: 1s } } }",
    );
    let before = pids(&daemon.until_running(&["a@0", "gone@0"]).await);
    until("all are there", || processes_with("sleep 8894").len() == 4);
    followed(&daemon).await;
    // Its children come to the daemon, and it is not over before they are.
    kill(before["gone@0"]);
    daemon
        .until("gone runs again", |all| {
            all["gone@0"].state == "running" && all["gone@0"].pid != Some(before["gone@0"])
        })
        .await;
    until("one each", || processes_with("sleep 88943").len() == 1);
    followed(&daemon).await;
    assert!(daemon.stop().success());
    assert_eq!(processes_with("sleep 8894"), [0_u32; 0]);
}

#[tokio::test]
async fn what_was_adopted_is_handed_on() {
    let daemon = Daemon::start("processes: { a: { shell: exec sleep 88951 } }");
    let before = identities(&daemon.until_running(&["a@0"]).await);
    let daemon = daemon.killed_and_again();
    daemon.until_running(&["a@0"]).await;
    followed(&daemon).await;
    assert_eq!(identities(&daemon.until_running(&["a@0"]).await), before);
    kill(before["a@0"].0);
    daemon
        .until("it is replaced", |all| all["a@0"].pid.is_some_and(|p| p != before["a@0"].0))
        .await;
}

#[tokio::test]
async fn a_trial_goes_on() {
    let good = "processes: { a: { shell: exec sleep 88961 } }";
    let daemon = Daemon::start(good);
    let before = pids(&daemon.until_running(&["a@0"]).await);
    // It never becomes ready, and is given time.
    daemon.save(
        "processManagement: { settle: 100ms, verdictTimeout: 3s }\n\
         processes: { a: { shell: exec sleep 88961 }, \
         slow: { shell: exec sleep 88962, readiness: notify, startTimeout: 2s } }",
    );
    daemon.until("it is tried", |all| all.contains_key("slow@0")).await;
    followed(&daemon).await;
    let is_back = |manager: &provost::client::ManagerStatus| manager.config_state == "rolled-back";
    daemon.until_manager("rolled back", is_back).await;
    let status = daemon.until("the former", |all| !all.contains_key("slow@0")).await;
    assert_eq!(status["a@0"].pid, Some(before["a@0"]));
    until("nothing is left of it", || processes_with("sleep 88962").is_empty());
}

/// A daemon whose program can be replaced, and the path of that.
fn replaceable() -> (Daemon, PathBuf) {
    let prepared = Daemon::prepare(|dir| {
        fs::create_dir(dir.join("bin")).unwrap();
        let built = Path::new(env!("CARGO_BIN_EXE_provostd")).parent().unwrap();
        for name in ["provostd", "provost-log"] {
            fs::copy(built.join(name), dir.join("bin").join(name)).unwrap();
        }
        let file = "processes: { a: { shell: exec sleep 88971 } }";
        fs::write(dir.join("processes.yaml"), file).unwrap();
    });
    let program = prepared.dir.path().join("bin/provostd");
    let words = ["bash", "-c", "exec \"$PROGRAM\" \"$@\""];
    let daemon = prepared.run_under(&words, &[("PROGRAM", program.to_str().unwrap())]);
    (daemon, program)
}

#[tokio::test]
async fn the_program_on_disk_is_what_comes() {
    let (daemon, program) = replaceable();
    let before = identities(&daemon.until_running(&["a@0"]).await);
    // As a package manager does it.
    fs::copy(env!("CARGO_BIN_EXE_provostd"), program.with_extension("new")).unwrap();
    fs::rename(program.with_extension("new"), &program).unwrap();
    let runs = || fs::read_link(format!("/proc/{}/exe", daemon.pid())).unwrap();
    assert!(runs().to_string_lossy().ends_with("(deleted)"));
    followed(&daemon).await;
    assert_eq!(runs(), program);
    assert_eq!(identities(&daemon.until_running(&["a@0"]).await), before);
}

#[tokio::test]
async fn a_program_that_cannot_follow_is_refused_and_nothing_has_changed() {
    let (mut daemon, program) = replaceable();
    let before = identities(&daemon.until_running(&["a@0"]).await);
    let own_before = own(&daemon);
    let put = |what: &dyn Fn(&Path)| {
        let new = program.with_extension("new");
        let _ = fs::remove_file(&new);
        what(&new);
        fs::rename(&new, &program).unwrap();
    };
    type Case<'a> = (&'a str, &'a dyn Fn(&Path));
    let cases: [Case<'_>; 4] = [
        ("Permission denied", &|new| fs::write(new, "").unwrap()),
        ("Exec format error", &|new| {
            fs::write(new, "nonsense").unwrap();
            Command::new("chmod").arg("755").arg(new).status().unwrap();
        }),
        // It knows nothing of the question.
        ("cannot follow this program", &|new| {
            fs::copy("/bin/false", new).unwrap();
        }),
        ("cannot follow this program", &|new| {
            fs::copy(env!("CARGO_BIN_EXE_provost-log"), new).unwrap();
        }),
    ];
    for (why, what) in cases {
        put(what);
        let refused = daemon.client().await.reexec().await.unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
        assert_eq!(identities(&daemon.status().await), before);
    }
    fs::remove_file(&program).unwrap();
    let refused = daemon.client().await.reexec().await.unwrap_err().to_string();
    assert!(refused.contains("No such file"), "{refused}");
    // It goes on, to the last.
    kill(before["a@0"].0);
    let status =
        daemon.until("a again", |all| all["a@0"].pid.is_some_and(|p| p != before["a@0"].0));
    status.await;
    assert_eq!(own(&daemon), own_before);
    assert!(daemon.stop().success());
}

#[tokio::test]
async fn what_cannot_be_kept_is_not_left() {
    let daemon = Daemon::start("processes: { a: { shell: exec sleep 88981 } }");
    let before = identities(&daemon.until_running(&["a@0"]).await);
    // Nothing can be written there, whoever one is.
    fs::rename(daemon.path().join("state"), daemon.path().join("away")).unwrap();
    fs::write(daemon.path().join("state"), "").unwrap();
    let refused = daemon.client().await.reexec().await.unwrap_err().to_string();
    assert!(refused.contains("cannot be kept"), "{refused}");
    fs::remove_file(daemon.path().join("state")).unwrap();
    fs::rename(daemon.path().join("away"), daemon.path().join("state")).unwrap();
    followed(&daemon).await;
    assert_eq!(identities(&daemon.until_running(&["a@0"]).await), before);
}

/// What nobody asked for in this process is no reason to believe it.
#[tokio::test]
async fn a_variable_of_somebody_else_means_nothing() {
    for value in ["1:5", "nonsense", "99999999:3"] {
        let daemon = Daemon::prepare(|dir| {
            let file = "processes: { a: { shell: 'env >@DIR@/env; exec sleep 88991' } }";
            let file = file.replace("@DIR@", dir.to_str().unwrap());
            fs::write(dir.join("processes.yaml"), file).unwrap();
        })
        .run_under(&[], &[("PROVOST_HANDOVER", value)]);
        daemon.until_running(&["a@0"]).await;
        assert!(!fs::read_to_string(daemon.path().join("env")).unwrap().contains("HANDOVER"));
    }
}

/// Children do not get what the daemon has raised or blocked for itself.
#[tokio::test]
async fn what_is_started_afterwards_is_as_before() {
    // It has the name once all of it is there.
    let file = "processManagement: { rollback: off }\n\
                processes: { a: { shell: '{ ulimit -n -S; ulimit -n -H; \
                grep -E \"Sig(Blk|Ign|Cgt)|CapEff\" /proc/self/status; ls /proc/self/fd; \
                } >@DIR@/part; mv @DIR@/part @DIR@/NAME; exec sleep 88992' } }";
    let daemon = Daemon::start(&file.replace("NAME", "one"));
    daemon.until_running(&["a@0"]).await;
    followed(&daemon).await;
    followed(&daemon).await;
    daemon.save(&file.replace("NAME", "two"));
    daemon.until_generation(2).await;
    let said = |name: &str| fs::read_to_string(daemon.path().join(name)).unwrap_or_default();
    until("both have said", || !said("one").is_empty() && !said("two").is_empty());
    assert_eq!(said("one"), said("two"));
}

/// Where nobody can ask for anything it hears signals all the same.
#[test]
fn a_foreground_that_nobody_can_ask_is_told_by_signals() {
    let dir = tempfile::tempdir().unwrap();
    let file = "processes: { a: { shell: 'echo >up; exec sleep 88993' } }";
    fs::write(dir.path().join("processes.yaml"), file).unwrap();
    // No directory can be made below a file.
    fs::write(dir.path().join("runtime"), "").unwrap();
    let mut up = Command::new(env!("CARGO_BIN_EXE_provost"))
        .arg("up")
        .current_dir(dir.path())
        .env("XDG_RUNTIME_DIR", dir.path().join("runtime"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(&dir.path().join("up"));
    let pid = nix::unistd::Pid::from_raw(i32::try_from(up.id()).unwrap());
    nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
    assert!(ended(&mut up, "the end of `provost up`").success());
    assert_eq!(processes_with("sleep 88993"), [0_u32; 0]);
}

//! The ways in which files are saved, each by the tool that has it.

use crate::watched::{Watched, shell, version};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::{Command, Stdio};

fn inode(watched: &Watched) -> u64 {
    fs::metadata(watched.daemon.file()).unwrap().ino()
}

fn vim(watched: &Watched, backup_copy: &str, from: u32, to: u32) {
    // Without backupskip= there is no backup of files below /tmp, and so neither way is gone.
    let settings = format!("set backupskip= writebackup backupcopy={backup_copy}");
    let output = Command::new("vim")
        .args(["-u", "NONE", "-i", "NONE", "-es", "-c", &settings])
        .args(["-c", &format!("%s/{from}/{to}/"), "-c", "wq"])
        .arg(watched.daemon.file())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
async fn vim_writes_in_place() {
    let mut watched = Watched::plain().await;
    let before = inode(&watched);
    vim(&watched, "yes", 1001, 1002);
    watched.becomes(1002).await;
    vim(&watched, "yes", 1002, 1003);
    watched.becomes(1003).await;
    assert_eq!(inode(&watched), before, "that was the other way");
}

#[tokio::test]
async fn vim_moves_the_old_away() {
    let mut watched = Watched::plain().await;
    let before = inode(&watched);
    vim(&watched, "no", 1001, 1002);
    watched.becomes(1002).await;
    assert_ne!(inode(&watched), before, "that was the other way");
    vim(&watched, "no", 1002, 1003);
    watched.becomes(1003).await;
}

#[tokio::test]
async fn nano() {
    let mut watched = Watched::plain().await;
    watched.write("processes.yaml", &format!("x-note: 1\n{}", version(1002)));
    watched.becomes(1002).await;
    for number in [1003, 1004] {
        // Cuts every line, types the new ones, writes and leaves.
        let lines = version(number).replace('\n', "\r");
        let keys = format!("{}{lines}\x0f\r\x18", "\x0b".repeat(6));
        let typist = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/daemon/typist.py");
        let output = Command::new("python3")
            .args([typist, "GNU nano", &keys, "nano", "--ignorercfiles"])
            .arg(watched.daemon.file())
            .env("TERM", "xterm")
            .env("HOME", watched.daemon.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let saved = fs::read_to_string(watched.daemon.file()).unwrap();
        assert_eq!(saved.trim_end(), version(number).trim_end());
        watched.becomes(number).await;
    }
}

#[tokio::test]
async fn sed_in_place() {
    let mut watched = Watched::plain().await;
    watched.shell("sed -i s/1001/1002/ processes.yaml");
    watched.becomes(1002).await;
    watched.shell("sed -i.bak s/1002/1003/ processes.yaml");
    watched.becomes(1003).await;
}

#[tokio::test]
async fn cp_and_mv_and_a_shell() {
    let mut watched = Watched::plain().await;
    for number in 1002..=1005 {
        watched.write(&format!("v{number}"), &version(number));
    }
    watched.shell("cp v1002 processes.yaml");
    watched.becomes(1002).await;
    watched.shell("mv v1003 processes.yaml");
    watched.becomes(1003).await;
    watched.shell("cp --remove-destination v1004 processes.yaml");
    watched.becomes(1004).await;
    watched.shell("cat v1005 >processes.yaml");
    watched.becomes(1005).await;
    watched.shell("printf '  b: { command: sleep, args: [\"1006\"] }\\n' >>processes.yaml");
    watched.daemon.until_running(&["b@0"]).await;
    watched.is_untouched().await;
}

#[tokio::test]
async fn a_hard_link_and_an_exchange() {
    let mut watched = Watched::plain().await;
    for number in 1002..=1004 {
        watched.write(&format!("v{number}"), &version(number));
    }
    watched.shell("ln -f v1002 processes.yaml");
    watched.becomes(1002).await;
    // Through its other name.
    watched.shell("cat v1003 >v1002");
    watched.becomes(1003).await;
    let (one, other) = (watched.daemon.file(), watched.path("v1004"));
    let exchange = rustix::fs::RenameFlags::EXCHANGE;
    rustix::fs::renameat_with(rustix::fs::CWD, one, rustix::fs::CWD, other, exchange).unwrap();
    watched.becomes(1004).await;
}

#[tokio::test]
async fn ln_to_another_file_and_to_another_directory() {
    let mut watched = Watched::filled(|dir| {
        for number in 1001..=1005 {
            fs::create_dir_all(dir.join(format!("r{number}"))).unwrap();
            fs::write(dir.join(format!("r{number}/p.yaml")), version(number)).unwrap();
        }
        symlink("r1001", dir.join("current")).unwrap();
        symlink("current/p.yaml", dir.join("processes.yaml")).unwrap();
    })
    .await;
    watched.shell("ln -sfn r1002 current");
    watched.becomes(1002).await;
    watched.shell("ln -sfn r1003/p.yaml processes.yaml");
    watched.becomes(1003).await;
    watched.shell("rm processes.yaml; ln -s r1004/p.yaml processes.yaml");
    watched.becomes(1004).await;
    watched.shell("ln -sfn r1005 current; ln -sfn \"$PWD/current/p.yaml\" processes.yaml");
    watched.becomes(1005).await;
    watched.write("r1005/p.yaml", &version(1006));
    watched.becomes(1006).await;
}

#[tokio::test]
async fn rsync_beside_and_in_place() {
    let mut watched = Watched::plain().await;
    fs::create_dir(watched.path("from")).unwrap();
    for (number, options) in [(1002, "--inplace"), (1003, ""), (1004, "--delay-updates")] {
        let before = inode(&watched);
        watched.write("from/processes.yaml", &version(number));
        watched.shell(&format!("rsync -a --ignore-times {options} from/ ./"));
        watched.becomes(number).await;
        assert_eq!(inode(&watched) == before, number == 1002);
    }
}

/// As its file service does: in place by default; atomically beside and renamed.
#[tokio::test]
async fn visual_studio_code() {
    let mut watched = Watched::plain().await;
    let file = watched.daemon.file();
    let mut open = OpenOptions::new().write(true).open(&file).unwrap();
    open.set_len(0).unwrap();
    open.write_all(version(1002).as_bytes()).unwrap();
    open.sync_data().unwrap();
    drop(open);
    watched.becomes(1002).await;
    let beside = watched.path("processes.yaml.vsctmp");
    let mut open = File::create_new(&beside).unwrap();
    open.write_all(version(1003).as_bytes()).unwrap();
    open.sync_data().unwrap();
    drop(open);
    fs::rename(beside, file).unwrap();
    watched.becomes(1003).await;
}

/// The links and directories of a ConfigMap in a container, and how they are swapped.
#[tokio::test]
async fn the_data_of_a_config_map() {
    let data = |number: u32| {
        format!(
            "mkdir ..{number}; cp v{number} ..{number}/p.yaml; echo N={number} >..{number}/e.env; "
        ) + &format!("ln -s ..{number} ..data_tmp; mv -T ..data_tmp ..data")
    };
    let mut watched = Watched::filled(|dir| {
        fs::create_dir(dir.join("mounted")).unwrap();
        let mounted = dir.join("mounted");
        for number in 1001..=1004 {
            let text = version(number)
                .replace("keep:", "b: { command: [sleep, \"8$N\"], envFile: e.env }\n  keep:");
            fs::write(mounted.join(format!("v{number}")), text.replace("8$N", "8${N}")).unwrap();
        }
        shell(&mounted, &data(1001));
        symlink("..data/p.yaml", mounted.join("p.yaml")).unwrap();
        symlink("..data/e.env", mounted.join("e.env")).unwrap();
        fs::write(
            dir.join("processes.yaml"),
            "processManagement: { processConfigFile: mounted/p.yaml }",
        )
        .unwrap();
    })
    .await;
    for number in 1002..=1004 {
        shell(&watched.path("mounted"), &format!("{}; rm -r ..{}", data(number), number - 1));
        watched.becomes(number).await;
        let line = format!("sleep 8{number}");
        watched.daemon.until(&line, |status| crate::watched::runs(status, "b@0", &line)).await;
    }
}

#[tokio::test]
async fn deleted_and_made_again() {
    let mut watched = Watched::plain().await;
    fs::remove_file(watched.daemon.file()).unwrap();
    watched.daemon.logged("does not exist");
    watched.is_untouched().await;
    watched.write("processes.yaml", &version(1002));
    watched.becomes(1002).await;
    watched.shell("rm processes.yaml; sed s/1002/1003/ >processes.yaml <<end\nprocesses:\n  a: { command: [sleep, \"1002\"] }\n  keep: { command: [sleep, \"7777\"] }\nend");
    watched.becomes(1003).await;
}

/// The processes are in `conf/p.yaml`.
async fn in_a_directory() -> Watched {
    Watched::filled(|dir| {
        fs::create_dir(dir.join("conf")).unwrap();
        fs::write(dir.join("conf/p.yaml"), version(1001)).unwrap();
        let main = "processManagement: { processConfigFile: conf/p.yaml }";
        fs::write(dir.join("processes.yaml"), main).unwrap();
    })
    .await
}

#[tokio::test]
async fn the_directory_replaced() {
    let mut watched = in_a_directory().await;
    for number in 1002..=1003 {
        fs::create_dir(watched.path("new")).unwrap();
        watched.write("new/p.yaml", &version(number));
        watched.shell(&format!("mv conf old{number}; mv new conf"));
        watched.becomes(number).await;
    }
    // And back at once.
    let (one, other) = (watched.path("conf"), watched.path("old1002"));
    let exchange = rustix::fs::RenameFlags::EXCHANGE;
    rustix::fs::renameat_with(rustix::fs::CWD, one, rustix::fs::CWD, other, exchange).unwrap();
    watched.becomes(1001).await;
}

#[tokio::test]
async fn the_directory_deleted_and_made_again() {
    let mut watched = in_a_directory().await;
    fs::remove_dir_all(watched.path("conf")).unwrap();
    watched.daemon.logged("conf/p.yaml does not exist");
    watched.is_untouched().await;
    fs::create_dir(watched.path("conf")).unwrap();
    watched.write("conf/p.yaml", &version(1002));
    watched.becomes(1002).await;
    watched.shell("cp -r conf new; rm -r conf; sed -i s/1002/1003/ new/p.yaml; mv new conf");
    watched.becomes(1003).await;
}

/// A directory that is somebody's current directory tells of its end only when that one leaves.
#[tokio::test]
async fn the_directory_deleted_while_somebody_works_in_it() {
    let mut watched = in_a_directory().await;
    let mut somebody =
        Command::new("sleep").arg("1000").current_dir(watched.path("conf")).spawn().unwrap();
    fs::remove_file(watched.path("conf/p.yaml")).unwrap();
    watched.daemon.logged("conf/p.yaml does not exist");
    fs::remove_dir(watched.path("conf")).unwrap();
    fs::create_dir(watched.path("conf")).unwrap();
    watched.write("conf/p.yaml", &version(1002));
    watched.becomes(1002).await;
    somebody.kill().unwrap();
    somebody.wait().unwrap();
}

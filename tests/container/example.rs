//! The container example that is in `packaging`, run by the command lines that are in it.

use crate::common::waiting::DEADLINE;
use crate::container::children;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;
use tempfile::TempDir;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/container");

/// Nobody, and never more than that.
const NOBODY: [&str; 5] =
    ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"];

/// What the image has where: our programs, the file, and a place for the socket.
const SETUP: &str = r#"
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /srv
mkdir /srv/bin /srv/app /run/app
cp "$PROGRAMS"/provost "$PROGRAMS"/provostd "$PROGRAMS"/provost-log /srv/bin
cp "$EXAMPLE/processes.yaml" /srv/app
chown -R 65534:65534 /srv/app /run/app
ip link set lo up
cd /srv/app
exec "$@"
"#;

struct Example {
    child: Child,
    log: TempDir,
}

impl Example {
    fn start(entry: &[String]) -> Option<Example> {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "CI runs as root");
            eprintln!("skipped: the example needs root for its places");
            return None;
        }
        let log = tempfile::tempdir().unwrap();
        let out = fs::File::create(log.path().join("log")).unwrap();
        let programs = Path::new(env!("CARGO_BIN_EXE_provostd")).parent().unwrap();
        let child = Command::new("unshare")
            .args(["--mount", "--pid", "--net", "--fork", "--mount-proc", "--kill-child=KILL"])
            .args(["--propagation", "private", "bash", "-euc", SETUP, "setup"])
            .args(NOBODY)
            .args(entry)
            .env_clear()
            .env("PATH", path())
            .env("PROGRAMS", programs)
            .env("EXAMPLE", EXAMPLE)
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        Some(Example { child, log })
    }

    fn first(&self) -> Option<u32> {
        children(self.child.id()).first().copied()
    }

    /// Runs something beside it, as `podman exec` does.
    fn run(&self, words: &[String]) -> Output {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.first().unwrap().to_string(), "--mount", "--pid"]);
        command.args(NOBODY).args(words).env_clear().env("PATH", path()).output().unwrap()
    }

    fn said(&self) -> String {
        fs::read_to_string(self.log.path().join("log")).unwrap()
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn path() -> String {
    "/srv/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()
}

/// The words of an instruction of the Containerfile, given as an array.
fn words(containerfile: &str, instruction: &str) -> Vec<String> {
    let line = containerfile.lines().find(|line| line.starts_with(instruction)).unwrap();
    serde_json::from_str(&line[line.find('[').unwrap()..]).unwrap()
}

#[test]
fn starts_is_healthy_and_stops() {
    let containerfile = fs::read_to_string(format!("{EXAMPLE}/Containerfile")).unwrap();
    let health = words(&containerfile, "HEALTHCHECK");
    let Some(mut example) = Example::start(&words(&containerfile, "ENTRYPOINT")) else { return };
    let deadline = Instant::now() + DEADLINE;
    let is_healthy =
        |example: &Example| example.first().is_some() && example.run(&health).status.success();
    while !is_healthy(&example) {
        let ended = example.child.try_wait().unwrap();
        assert!(ended.is_none() && Instant::now() < deadline, "{ended:?}\n{}", example.said());
        std::thread::yield_now();
    }
    let status = ["provost", "--socket", "/run/app/private"].map(str::to_owned);
    let shown = example.run(&status);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("web") && shown.contains("worker"), "{shown}");
    // It is process 1, and an ordinary user's.
    let first = example.first().unwrap();
    let field = |name: &str| crate::container::field(first, name).unwrap();
    assert!(field("NSpid").ends_with("\t1"), "{}", field("NSpid"));
    assert!(field("Uid").starts_with("65534"), "{}", field("Uid"));
    // What somebody stopped is not wanted, and no reason to be ill.
    let stop = ["stop", "worker"].map(str::to_owned);
    assert!(example.run(&[&status[..], &stop[..]].concat()).status.success());
    assert!(example.run(&health).status.success());
    let kill = ["kill", "-TERM", "1"].map(str::to_owned);
    assert!(example.run(&kill).status.success());
    let ended = example.child.wait().unwrap();
    assert!(ended.success(), "{ended}\n{}", example.said());
}

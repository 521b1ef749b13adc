//! A real daemon on a bus of its own.

pub use crate::common::waiting::DEADLINE;
use crate::common::waiting::ends_within;
use provost::client::{Client, Target};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use zbus::Connection;
use zbus::connection::Builder;

/// Processes that do nothing, one that is not to run, and one that takes a second to stop.
pub const PROCESSES: &str = "\
processes:
  sleeper:
    description: \"Sleeps\"
    tags: [night]
    command: sleep
    args: [\"1000\"]
    env: { SECRET_TOKEN: \"hunter2-canary\" }
  other:
    command: sleep
    args: [\"1000\"]
  slow:
    command: sleep
    args: [\"1000\"]
    stop: { signal: SIGCONT, timeout: 1s }
  off:
    enabled: false
    command: sleep
    args: [\"1000\"]
";

/// Ends when dropped.
pub struct Running(Child);

impl Running {
    pub fn spawn(command: &mut Command) -> Running {
        Running(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.0)
    }

    /// Waits for its end.
    pub fn end(mut self) -> (std::process::ExitStatus, String) {
        let mut text = String::new();
        if let Some(stderr) = self.0.stderr.as_mut() {
            stderr.read_to_string(&mut text).unwrap();
        }
        (self.0.wait().unwrap(), text)
    }

    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A daemon that is asked takes its processes with it. One that does not end is killed.
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = rustix::process::kill_process(self.pid(), rustix::process::Signal::TERM);
            ends_within(&self.0, Duration::from_secs(10));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A bus that nobody else knows.
pub struct TestBus {
    pub address: String,
    config: PathBuf,
    daemon: Running,
}

impl TestBus {
    pub fn spawn(directory: &Path) -> TestBus {
        let address = format!("unix:path={}", directory.join("bus").display());
        let config = directory.join("bus.conf");
        let text = format!(
            "<busconfig><type>session</type><listen>{address}</listen><auth>EXTERNAL</auth>\
             <policy context=\"default\"><allow user=\"*\"/><allow own=\"*\"/>\
             <allow send_destination=\"*\"/><allow receive_sender=\"*\"/></policy></busconfig>"
        );
        std::fs::write(&config, text).unwrap();
        let daemon = Self::start(&config);
        TestBus { address, config, daemon }
    }

    /// One with the rules of Debian's system bus and with our policy.
    pub fn system(directory: &Path) -> TestBus {
        let address = format!("unix:path={}", directory.join("bus").display());
        let config = directory.join("bus.conf");
        let policy = concat!(env!("CARGO_MANIFEST_DIR"), "/dbus/org.provost.Provost1.conf");
        let text = format!(
            "<busconfig><type>system</type><listen>{address}</listen><auth>EXTERNAL</auth>\
             <policy context=\"default\"><allow user=\"*\"/><deny own=\"*\"/>\
             <deny send_type=\"method_call\"/><allow send_type=\"signal\"/>\
             <allow send_requested_reply=\"true\" send_type=\"method_return\"/>\
             <allow send_requested_reply=\"true\" send_type=\"error\"/>\
             <allow receive_type=\"method_call\"/><allow receive_type=\"method_return\"/>\
             <allow receive_type=\"error\"/><allow receive_type=\"signal\"/>\
             <allow send_destination=\"org.freedesktop.DBus\"/></policy>\
             <include>{policy}</include></busconfig>"
        );
        std::fs::write(&config, text).unwrap();
        let daemon = Self::start(&config);
        TestBus { address, config, daemon }
    }

    fn start(config: &Path) -> Running {
        let mut daemon = Running::spawn(
            Command::new("dbus-daemon")
                .arg(format!("--config-file={}", config.display()))
                .args(["--nofork", "--print-address"])
                .stdout(Stdio::piped()),
        );
        let mut line = String::new();
        let stdout = daemon.0.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        assert!(line.starts_with("unix:"), "the bus did not start: {line:?}");
        daemon
    }

    /// Takes the bus away; [`TestBus::come_back`] has it again at the same address.
    pub fn go_away(&mut self) {
        self.daemon.kill();
        let _ = std::fs::remove_file(self.address.trim_start_matches("unix:path="));
    }

    pub fn come_back(&mut self) {
        self.daemon = Self::start(&self.config);
    }

    pub async fn connect(&self) -> Connection {
        Builder::address(self.address.as_str()).build().await.unwrap()
    }
}

/// A daemon with the processes of [`PROCESSES`], up and served.
pub struct TestDaemon {
    // Dropped in this order: the daemon ends while its bus is there.
    pub provostd: Running,
    pub bus: TestBus,
    pub directory: TempDir,
}

impl TestDaemon {
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("run/private")
    }

    pub fn config(&self) -> PathBuf {
        self.directory.path().join("processes.yaml")
    }

    /// A client on the private socket.
    pub async fn client(&self) -> Client {
        Client::connect(&Target::Socket(self.socket())).await.unwrap()
    }

    /// A connection on the private socket.
    pub async fn peer(&self) -> Connection {
        let stream = std::os::unix::net::UnixStream::connect(self.socket()).unwrap();
        Builder::unix_stream(stream).p2p().build().await.unwrap()
    }

    /// A command that talks to this bus.
    pub fn tool(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("DBUS_SESSION_BUS_ADDRESS", &self.bus.address);
        command
    }
}

/// A daemon that is not waited for.
pub fn provostd(directory: &Path, address: &str, socket: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_provostd"));
    command
        .args(["--user", "--bus", "session", "--socket"])
        .arg(socket)
        .arg("-c")
        .arg(directory.join("processes.yaml"))
        .arg("--state")
        .arg(directory.join("state"))
        .env("DBUS_SESSION_BUS_ADDRESS", address);
    command
}

/// The real daemon, when it says that it is ready and its name is on the bus.
pub async fn spawn_test_daemon() -> TestDaemon {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("processes.yaml"), PROCESSES).unwrap();
    let bus = TestBus::spawn(directory.path());
    let notify = UnixDatagram::bind(directory.path().join("notify")).unwrap();
    notify.set_read_timeout(Some(DEADLINE)).unwrap();
    let socket = directory.path().join("run/private");
    let provostd = Running::spawn(
        provostd(directory.path(), &bus.address, &socket)
            .env("NOTIFY_SOCKET", directory.path().join("notify")),
    );
    let begun = Instant::now();
    let mut buffer = [0; 4096];
    loop {
        let size = notify.recv(&mut buffer).expect("the daemon was not ready in time");
        let text = String::from_utf8_lossy(&buffer[..size]);
        if text.lines().any(|line| line == "READY=1") {
            break;
        }
        assert!(begun.elapsed() < DEADLINE, "the daemon was not ready in time");
    }
    name_is_there(&bus.connect().await).await;
    let daemon = TestDaemon { provostd, bus, directory };
    all_up(&daemon).await;
    daemon
}

/// Waits for the name.
pub async fn name_is_there(connection: &Connection) {
    use futures_util::StreamExt;
    let name = "org.provost.Provost1";
    let dbus = zbus::fdo::DBusProxy::new(connection).await.unwrap();
    let mut owners = dbus.receive_name_owner_changed_with_args(&[(0, name)]).await.unwrap();
    let owned = dbus.name_has_owner(name.try_into().unwrap()).await.unwrap();
    if !owned {
        let changed = tokio::time::timeout(DEADLINE, owners.next()).await;
        assert!(changed.expect("the name did not come in time").is_some());
    }
}

/// Waits until what is enabled runs.
pub async fn all_up(daemon: &TestDaemon) {
    let client = daemon.client().await;
    let mut watch = client.watch().await.unwrap();
    let up = async {
        loop {
            let all = client.status(&[]).await.unwrap();
            if !all.is_empty() && all.iter().all(|p| !p.enabled || p.state == "running") {
                return;
            }
            watch.changed().await.unwrap();
        }
    };
    tokio::time::timeout(DEADLINE, up).await.expect("the processes were not up in time");
}

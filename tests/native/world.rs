//! What the tests stand on: a backend, its events, and a screen.

pub use crate::common::waiting::DEADLINE;
use provost::backend::native::console::ConsoleOptions;
use provost::backend::native::{NativeBackend, NativeOptions, cgroup};
use provost::backend::{Backend, Facts, LogRequest};
use provost::config::load::Mode;
use provost::core::event::{Event, ExitStatus, SpawnError};
use provost::core::ids::{Generation, InstanceId, ProcessId, Run, Slot};
use provost::core::spec::{Command, ProcessSpec, Signal, StopSpec, Text};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;
use tokio::sync::{mpsc, watch};

/// All of it, and what comes.
pub const FOLLOW: LogRequest = LogRequest { lines: None, follow: true };

/// A backend with one process, `test`.
pub struct World {
    pub backend: Arc<NativeBackend>,
    pub facts: Facts,
    pub screen: Screen,
    pub directory: tempfile::TempDir,
    events: mpsc::UnboundedReceiver<Event>,
    runs: u64,
    /// Removed after the backend.
    _cgroup: Option<TestCgroup>,
}

impl World {
    pub fn new() -> World {
        World::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut NativeOptions)) -> World {
        let screen = Screen::default();
        let mut options = NativeOptions {
            mode: Mode::User,
            environment: Arc::new(BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into())])),
            default_user: "nobody".into(),
            name: "test".into(),
            journal: None,
            console: ConsoleOptions {
                writer: Box::pin(screen.clone()),
                terminal: false,
                colours: false,
            },
            log_program: env!("CARGO_BIN_EXE_provost-log").into(),
            runs: provost::store::runs::Runs::unkept(std::process::id()),
            notices: None,
            sockets: Default::default(),
        };
        change(&mut options);
        let (facts, events) = mpsc::unbounded_channel();
        World {
            backend: NativeBackend::new(facts.clone(), options).unwrap(),
            facts,
            screen,
            directory: tempfile::tempdir().unwrap(),
            events,
            runs: 0,
            _cgroup: None,
        }
    }

    /// With a control group for each run; None, with a word about it, where that is not possible.
    pub fn with_cgroup() -> Option<World> {
        let group = TestCgroup::new()?;
        let path = group.0.display().to_string();
        let mut world = World::with(|options| {
            let mut environment = (*options.environment).clone();
            environment.insert(cgroup::VARIABLE.into(), path);
            options.environment = Arc::new(environment);
        });
        world._cgroup = Some(group);
        Some(world)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn start(&mut self, spec: ProcessSpec) -> Run {
        self.runs += 1;
        let run = Run(self.runs);
        self.backend.spawn(&instance(), run, Slot::A, Generation(1), &Arc::new(spec));
        run
    }

    pub async fn event(&mut self) -> Event {
        in_time(self.events.recv()).await.unwrap()
    }

    pub async fn spawned(&mut self) -> u32 {
        match self.event().await {
            Event::Spawned { pid, .. } => pid,
            other => panic!("{other:?}"),
        }
    }

    pub async fn spawn_failed(&mut self) -> SpawnError {
        match self.event().await {
            Event::SpawnFailed { error, .. } => error,
            other => panic!("{other:?}"),
        }
    }

    pub async fn exited(&mut self) -> ExitStatus {
        match self.event().await {
            Event::Exited { status, .. } => status,
            other => panic!("{other:?}"),
        }
    }

    pub async fn emptied(&mut self) {
        match self.event().await {
            Event::Emptied { .. } => {}
            other => panic!("{other:?}"),
        }
    }

    /// Runs to its end, and what it wrote.
    pub async fn run(&mut self, spec: ProcessSpec) -> (ExitStatus, String) {
        self.start(spec);
        self.spawned().await;
        let status = self.exited().await;
        self.emptied().await;
        in_time(self.backend.drained()).await;
        (status, self.screen.take_texts())
    }

    pub fn terminate(&self, run: Run) {
        self.backend.terminate(&instance(), run, &StopSpec::default());
    }

    pub fn kill(&self, run: Run) {
        self.backend.kill(&instance(), run);
    }

    /// Kills a run and sees it off.
    pub async fn end(&mut self, run: Run) {
        self.kill(run);
        assert_eq!(self.exited().await, killed());
        self.emptied().await;
    }
}

pub fn killed() -> ExitStatus {
    ExitStatus::Signal { signal: Signal::KILL, core: false }
}

pub fn instance() -> InstanceId {
    ProcessId::new("test").unwrap().instance(0)
}

pub fn shell(line: &str) -> ProcessSpec {
    ProcessSpec::new(ProcessId::new("test").unwrap(), Command::Shell(line.into()))
}

pub fn program(program: &str, args: &[&str]) -> ProcessSpec {
    let args = args.iter().map(|arg| Text::new(arg)).collect();
    let command = Command::Program { program: program.into(), args };
    ProcessSpec::new(ProcessId::new("test").unwrap(), command)
}

pub fn text(path: &Path) -> Text {
    Text::new(path.to_str().unwrap())
}

pub async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("it should have come by now")
}

/// Whether the test runs as root; says so where it does not.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("not run: it needs root");
    }
    root
}

/// Waits until a process is gone.
pub async fn gone(pid: u32) {
    if let Some(pidfd) = provost::sys::signal::open(pid).unwrap() {
        in_time(provost::sys::signal::gone(pidfd)).await.unwrap();
    }
}

/// What the processes show.
#[derive(Clone)]
pub struct Screen(Arc<Mutex<Vec<u8>>>, watch::Sender<usize>);

impl Default for Screen {
    fn default() -> Self {
        Screen(Arc::default(), watch::Sender::new(0))
    }
}

impl Screen {
    /// Everything so far, with the names before the lines.
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// The lines without the name, which is `test` in all of them.
    pub fn take_texts(&self) -> String {
        let all = String::from_utf8(self.take()).unwrap();
        all.lines().map(|line| line.strip_prefix("test | ").unwrap().to_owned() + "\n").collect()
    }

    /// Waits for a line that begins with `key=`, and gives its value.
    pub async fn value(&self, key: &str) -> String {
        let mut changes = self.1.subscribe();
        let find = || {
            let all = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            let whole = all.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            let mut texts = whole.filter_map(|line| line.split_once("| ").map(|(_, text)| text));
            texts
                .find_map(|text| Some(text.strip_prefix(key)?.strip_prefix('=')?.trim().to_owned()))
        };
        in_time(async {
            loop {
                if let Some(value) = find() {
                    return value;
                }
                changes.changed().await.unwrap();
            }
        })
        .await
    }

    pub async fn pid(&self, key: &str) -> u32 {
        self.value(key).await.parse().unwrap()
    }
}

impl AsyncWrite for Screen {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        self.1.send_modify(|len| *len += bytes.len());
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A control group for one test.
pub struct TestCgroup(pub PathBuf);

impl TestCgroup {
    fn new() -> Option<TestCgroup> {
        if !is_root() {
            return None;
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "));
        let Some(mount) = mount.and_then(|line| line.split(' ').nth(4)) else {
            println!("not run: there is no cgroup2 file system");
            return None;
        };
        let name = format!("provost-test-{:016x}", provost::sys::random());
        let path = Path::new(mount).join(name);
        match std::fs::create_dir(&path) {
            Ok(()) => Some(TestCgroup(path)),
            Err(error) => {
                println!("not run: {}: {error}", path.display());
                None
            }
        }
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        let _ = std::fs::write(self.0.join("cgroup.kill"), "1");
        let _ = std::fs::remove_dir(self.0.join("test.runs"));
        let removed = std::fs::remove_dir(&self.0);
        if !std::thread::panicking() {
            removed.expect("the groups of the runs were removed");
        }
    }
}

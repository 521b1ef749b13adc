//! A backend, its events, and places where processes can be heard.

use crate::sim::{Nature, Sim};
use provost::backend::native::console::ConsoleOptions;
use provost::backend::native::{NativeBackend, NativeOptions};
use provost::backend::notices::Notices;
use provost::backend::systemd::link::Way;
use provost::backend::systemd::unit::Names;
use provost::backend::systemd::{SystemdBackend, SystemdOptions, way};
use provost::backend::{Backend, Facts};
use provost::config::load::Mode;
use provost::core::event::{Event, ExitStatus, SpawnError};
use provost::core::ids::{Generation, InstanceId, ProcessId, Run, Slot};
use provost::core::spec::{Command, LogTarget, ProcessSpec, Signal, StopSpec, Text};
use provost::store::runs::Runs;
use provost::sys::random;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe::{OpenOptions, Receiver};
use tokio::sync::mpsc;

/// Nothing takes as long as this, and nothing waits for it when all is well.
pub const DEADLINE: Duration = Duration::from_secs(30);

pub const TERMINATED: ExitStatus = ExitStatus::Signal { signal: Signal::TERM, core: false };
pub const KILLED: ExitStatus = ExitStatus::Signal { signal: Signal::KILL, core: false };

/// A backend with one process, `test`.
pub struct World {
    pub backend: Arc<dyn Backend>,
    pub directory: tempfile::TempDir,
    events: mpsc::UnboundedReceiver<Event>,
    heard: HashMap<&'static str, BufReader<Receiver>>,
    runs: u64,
    /// Where processes are, if they are simulated.
    pub nature: Option<Nature>,
}

/// What both are given.
struct Common {
    mode: Mode,
    environment: Arc<BTreeMap<String, String>>,
    facts: Facts,
    events: mpsc::UnboundedReceiver<Event>,
    directory: tempfile::TempDir,
    notices: Notices,
}

impl Common {
    fn new() -> Common {
        let (facts, events) = mpsc::unbounded_channel();
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777)).unwrap();
        let runtime = std::env::var("XDG_RUNTIME_DIR").ok();
        let mut environment = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
        environment.extend(runtime.map(|runtime| ("XDG_RUNTIME_DIR".to_owned(), runtime)));
        let mode = if is_root() { Mode::System } else { Mode::User };
        let notices = Notices::open(directory.path(), Vec::new()).unwrap();
        Common { mode, environment: Arc::new(environment), facts, events, directory, notices }
    }

    fn world(self, backend: Arc<dyn Backend>) -> World {
        let (directory, events) = (self.directory, self.events);
        tokio::spawn(self.notices.listen(backend.clone(), self.facts));
        World { backend, directory, events, heard: HashMap::new(), runs: 0, nature: None }
    }
}

impl World {
    pub fn native() -> World {
        let common = Common::new();
        let options = NativeOptions {
            mode: common.mode,
            environment: common.environment.clone(),
            default_user: "nobody".into(),
            name: "conformance".into(),
            journal: None,
            console: ConsoleOptions {
                writer: Box::pin(tokio::io::sink()),
                terminal: false,
                colours: false,
            },
            log_program: env!("CARGO_BIN_EXE_provost-log").into(),
            runs: Runs::unkept(std::process::id()),
            notices: Some(common.notices.path().into()),
            sockets: Default::default(),
        };
        let backend = NativeBackend::new(common.facts.clone(), options).unwrap();
        common.world(backend)
    }

    pub fn sim() -> World {
        let common = Common::new();
        let (nature, facts) = (Nature::new(), common.facts.clone());
        nature.recover(BTreeMap::new(), facts.clone());
        let mut world = common.world(Sim::new(nature.clone(), facts, None));
        world.nature = Some(nature);
        world
    }

    pub async fn systemd() -> World {
        let common = Common::new();
        let way = match (std::env::var_os("CONFORMANCE_BUS"), common.mode) {
            (None, mode) => way(mode, &common.environment).unwrap(),
            (Some(_), Mode::System) => Way::SystemBus,
            (Some(_), Mode::User) => Way::UserBus,
        };
        let runtime = common.directory.path().join("runtime");
        let options = SystemdOptions {
            mode: common.mode,
            environment: common.environment.clone(),
            default_user: "nobody".into(),
            name: "conformance".into(),
            names: Names::new(false, random() as u32),
            log_program: "/package/provost-log".into(),
            net_program: "/package/provost-net".into(),
            runtime,
            token: std::process::id(),
            notices: Some(common.notices.path().into()),
            sockets: Default::default(),
        };
        let backend = SystemdBackend::new(common.facts.clone(), way, options).await.unwrap();
        common.world(backend)
    }

    pub fn is_native(&self) -> bool {
        self.backend.name() == "native"
    }

    /// Whether there is a process with this number.
    pub fn is_there(&self, pid: u32) -> bool {
        self.nature.as_ref().map_or_else(|| is_there(pid), |nature| nature.is_there(pid))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn text(&self, name: &str) -> Text {
        Text::new(self.path(name).to_str().unwrap())
    }

    /// A pipe with a name, into which processes write lines.
    pub fn pipe(&mut self, name: &'static str) -> String {
        let path = self.path(name);
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
        // Open for writing as well: it has no end between two writers.
        let receiver = OpenOptions::new().read_write(true).open_receiver(&path).unwrap();
        self.heard.insert(name, BufReader::new(receiver));
        path.to_str().unwrap().to_owned()
    }

    /// The next line of a pipe.
    pub async fn line(&mut self, name: &str) -> String {
        let mut line = String::new();
        let pipe = self.heard.get_mut(name).unwrap();
        in_time(pipe.read_line(&mut line), name).await.unwrap();
        line.trim_end().to_owned()
    }

    /// A line for who reads from a pipe.
    pub fn write(&self, name: &str) {
        let mut pipe = std::fs::File::options().write(true).open(self.path(name)).unwrap();
        std::io::Write::write_all(&mut pipe, b"go\n").unwrap();
    }

    pub fn start(&mut self, spec: ProcessSpec) -> Run {
        self.start_in(Slot::A, spec)
    }

    pub fn start_in(&mut self, slot: Slot, spec: ProcessSpec) -> Run {
        self.runs += 1;
        let run = Run(self.runs);
        self.backend.spawn(&instance(), run, slot, Generation(1), &Arc::new(spec));
        run
    }

    /// The next event. An end is kept at once, as far as the backend knows.
    pub async fn event(&mut self) -> Event {
        let event = self.event_unkept().await;
        if let Event::Exited { instance, run, .. } = &event {
            self.backend.end_is_kept(instance, *run);
        }
        event
    }

    pub async fn event_unkept(&mut self) -> Event {
        in_time(self.events.recv(), "an event").await.unwrap()
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

    /// Nothing has happened.
    pub fn is_quiet(&mut self) -> bool {
        self.events.try_recv().is_err()
    }

    /// Runs to its end.
    pub async fn run(&mut self, spec: ProcessSpec) -> ExitStatus {
        self.start(spec);
        self.spawned().await;
        let status = self.exited().await;
        self.emptied().await;
        status
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
        assert_eq!(self.exited().await, KILLED);
        self.emptied().await;
    }
}

pub fn instance() -> InstanceId {
    ProcessId::new("test").unwrap().instance(0)
}

fn spec(command: Command) -> ProcessSpec {
    let mut spec = ProcessSpec::new(ProcessId::new("test").unwrap(), command);
    spec.exec.log_target = LogTarget::None;
    spec
}

pub fn shell(line: &str) -> ProcessSpec {
    spec(Command::Shell(line.into()))
}

pub fn program(program: &str, args: &[&str]) -> ProcessSpec {
    let args = args.iter().map(|arg| Text::new(arg)).collect();
    spec(Command::Program { program: program.into(), args })
}

pub async fn in_time<T>(future: impl Future<Output = T>, what: &str) -> T {
    let deadline = tokio::time::timeout(DEADLINE, future).await;
    deadline.unwrap_or_else(|_| panic!("{what}: it should have come by now"))
}

/// Looks again and again: for what nobody is told of.
pub async fn until(what: &str, is_so: impl Fn() -> bool) {
    until_right(|| (!is_so()).then(|| what.to_owned())).await;
}

/// The same, until it is this.
pub async fn until_is<T: PartialEq + Debug>(wanted: T, is: impl Fn() -> T) {
    let wrong = || Some(is()).filter(|now| *now != wanted);
    until_right(|| wrong().map(|now| format!("{wanted:?}; it is {now:?}"))).await;
}

/// `wrong` says what is not as it should be.
async fn until_right(wrong: impl Fn() -> Option<String>) {
    let deadline = Instant::now() + DEADLINE;
    while let Some(wrong) = wrong() {
        assert!(Instant::now() < deadline, "never: {wrong}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether there is a process with this number.
pub fn is_there(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

//! Where output goes, and that it cannot harm.

use crate::world::*;
use provost::backend::native::console::ConsoleOptions;
use provost::backend::{Backend, LogRequest};
use provost::core::event::ExitStatus;
use provost::core::spec::LogTarget;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncReadExt, AsyncWrite};

fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[derive(Clone, Default)]
struct Counter(Arc<AtomicU64>);

impl AsyncWrite for Counter {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.0.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_line_without_end_takes_no_memory() {
    const MANY: u64 = 100_000_000;
    let counter = Counter::default();
    let shown = counter.clone();
    let mut world = World::with(|options| {
        let writer = Box::pin(shown);
        options.console = ConsoleOptions { writer, terminal: true, colours: false };
    });
    // What one line costs is not what is measured.
    world.run_quietly(shell("echo x")).await;
    let before = peak_memory();
    world.run_quietly(shell(&format!("head -c {MANY} /dev/zero | tr '\\0' x"))).await;
    let grown = peak_memory() - before;
    assert!(counter.0.load(Ordering::Relaxed) > MANY);
    assert!(grown < MANY / 10, "{grown} bytes more");
}

impl World {
    pub async fn run_quietly(&mut self, spec: provost::core::spec::ProcessSpec) {
        self.start(spec);
        self.spawned().await;
        assert_eq!(self.exited().await, ExitStatus::Code(0));
        self.emptied().await;
        in_time(self.backend.drained()).await;
    }
}

#[tokio::test]
async fn both_outputs_are_shown_in_order_with_the_name() {
    let mut world = World::new();
    let (_, text) = world.run(shell("echo a; echo b >&2; printf c")).await;
    assert_eq!(text, "a\nb\nc\n");
}

#[tokio::test]
async fn one_of_several_is_shown_with_its_number() {
    let mut world = World::new();
    let mut spec = shell("echo a");
    spec.instances = 2;
    world.run_quietly(spec).await;
    assert_eq!(world.screen.take(), b"test@0 | a\n");
}

#[tokio::test]
async fn what_is_no_text_is_kept_in_a_file_and_escaped_on_a_terminal() {
    let line = r"printf '\377\376 \033[2J\007\n'";
    let mut world = World::new();
    world.run_quietly(shell(line)).await;
    assert_eq!(world.screen.take(), b"test | \xff\xfe \x1b[2J\x07\n");
    let mut world = World::with(|options| options.console.terminal = true);
    world.run_quietly(shell(line)).await;
    assert_eq!(world.screen.take(), b"test | \\xff\\xfe \\x1b[2J\\x07\n");
}

#[tokio::test]
async fn a_log_file_is_held_by_the_process_alone() {
    let mut world = World::new();
    let path = world.path("logs/deep/test.log");
    let mut spec = shell("echo one; echo two >&2; ls -l /proc/$$/fd/1");
    spec.exec.log_file = Some(text(&path));
    let spec = Arc::new(spec);
    for _ in 0..2 {
        world.run_quietly((*spec).clone()).await;
    }
    let content = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = content.lines().collect();
    assert_eq!((lines.len(), lines[0], lines[1], lines[3]), (6, "one", "two", "one"));
    assert!(lines[2].ends_with(path.to_str().unwrap()), "{}", lines[2]);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    assert_eq!(world.screen.take(), b"");

    let log = world.backend.open_log(&instance(), &spec, LogRequest::default()).unwrap().unwrap();
    let mut read = String::new();
    std::fs::File::from(log).read_to_string(&mut read).unwrap();
    assert_eq!(read, content);
}

#[tokio::test]
async fn what_was_shown_can_be_read_and_followed() {
    let mut world = World::new();
    let spec = Arc::new(shell("echo first; while read line; do :; done < fifo; echo second"));
    let fifo = world.path("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    let mut spec = (*spec).clone();
    spec.exec.cwd = text(world.directory.path());
    world.start(spec.clone());
    world.spawned().await;
    let spec = Arc::new(spec);
    let log = world.backend.open_log(&instance(), &spec, FOLLOW).unwrap().unwrap();
    let mut log = follow(log);
    let mut seen = [0; 6];
    in_time(log.read_exact(&mut seen)).await.unwrap();
    assert_eq!(&seen, b"first\n");
    // It goes on when somebody has opened and closed the other end.
    let open =
        tokio::task::spawn_blocking(move || std::fs::OpenOptions::new().write(true).open(fifo));
    drop(in_time(open).await.unwrap().unwrap());
    let mut seen = [0; 7];
    in_time(log.read_exact(&mut seen)).await.unwrap();
    assert_eq!(&seen, b"second\n");
    assert_eq!(world.exited().await, ExitStatus::Code(0));
    world.emptied().await;
}

#[tokio::test]
async fn what_is_gone_for_good_leaves_nothing_in_memory() {
    let mut world = World::new();
    let spec = shell("echo kept");
    world.run(spec.clone()).await;
    let spec = Arc::new(spec);
    let kept = || {
        let log =
            world.backend.open_log(&instance(), &spec, LogRequest::default()).unwrap().unwrap();
        let mut log = follow(log);
        async move {
            let mut text = String::new();
            in_time(log.read_to_string(&mut text)).await.unwrap();
            text
        }
    };
    assert_eq!(kept().await, "kept\n");
    world.backend.forget(&instance());
    assert_eq!(kept().await, "");
}

fn follow(log: OwnedFd) -> tokio::net::UnixStream {
    let log = std::os::unix::net::UnixStream::from(log);
    log.set_nonblocking(true).unwrap();
    tokio::net::UnixStream::from_std(log).unwrap()
}

/// A journal that keeps what one stream brings.
struct Journal {
    directory: tempfile::TempDir,
    listener: UnixListener,
}

impl Journal {
    fn new() -> Journal {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("stdout")).unwrap();
        Journal { directory, listener }
    }

    fn world(&self) -> World {
        World::with(|options| options.journal = Some(self.directory.path().join("stdout")))
    }

    fn stream(&self) -> String {
        let mut text = String::new();
        self.listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
        text
    }
}

/// Root may say which unit it is: that of whoever starts the process, where it is in one.
fn header() -> String {
    let root = rustix::process::geteuid().is_root();
    let unit = root.then(provost::journal::stream::own_unit).flatten().unwrap_or_default();
    format!("test\n{unit}\n6\n1\n0\n0\n0\n")
}

#[tokio::test]
async fn the_journal_gets_its_stream_from_the_process_itself() {
    let journal = Journal::new();
    let mut world = journal.world();
    world.run_quietly(shell("echo out; echo err >&2; ls -l /proc/$$/fd/1")).await;
    let text = journal.stream();
    let lines = text.strip_prefix(&header()).unwrap();
    assert!(lines.starts_with("out\nerr\n") && lines.contains("socket:["), "{text}");
    assert!(
        world
            .backend
            .open_log(&instance(), &Arc::new(shell("true")), LogRequest::default())
            .is_none()
    );
}

#[tokio::test]
async fn journal_and_file_both_get_it() {
    let journal = Journal::new();
    let mut world = journal.world();
    let mut spec = shell("echo out");
    spec.exec.log_target = LogTarget::Journal;
    spec.exec.log_file = Some(text(&world.path("logs/test.log")));
    world.run_quietly(spec).await;
    assert_eq!(journal.stream(), header() + "out\n");
    assert_eq!(std::fs::read_to_string(world.path("logs/test.log")).unwrap(), "out\n");
}

#[tokio::test]
async fn a_journal_that_is_wanted_and_not_there_is_said() {
    let mut world = World::new();
    let mut spec = shell("echo out");
    spec.exec.log_target = LogTarget::Journal;
    world.start(spec);
    let error = world.spawn_failed().await;
    assert_eq!(error.to_string(), "connecting the output to the journal: there is no journal here");
}

#[tokio::test]
async fn nowhere_is_nowhere() {
    let mut world = World::new();
    let mut spec = shell("echo out; test /proc/self/fd/1 -ef /dev/null");
    spec.exec.log_target = LogTarget::None;
    world.run_quietly(spec).await;
    assert_eq!(world.screen.take(), b"");
}

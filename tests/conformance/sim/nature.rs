//! The processes that there are. They go on when a daemon is killed, and how they ended is kept until
//! somebody asks.

use super::script::{MISSING, MOMENT, Script, Step};
use provost::backend::Facts;
use provost::core::event::{Event, ExitStatus, SpawnError, SpawnStage};
use provost::core::ids::{InstanceId, Run};
use provost::core::spec;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::mpsc;

type Key = (InstanceId, Run);

/// What a process can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Terminate,
    Kill,
}

/// All processes, whoever has started them.
#[derive(Clone)]
pub struct Nature {
    table: Arc<Mutex<Table>>,
    /// Where they live: longer than a daemon.
    runtime: tokio::runtime::Handle,
}

struct Table {
    last_pid: u32,
    runs: BTreeMap<Key, Entry>,
    /// Who is told.
    facts: Option<Facts>,
}

struct Entry {
    pid: u32,
    argv: Vec<String>,
    signals: mpsc::UnboundedSender<Signal>,
    state: State,
    /// Whether the daemon that there is has written down how it ended. Before that it is not over.
    is_kept: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Beginning,
    Running,
    /// Something of it is left.
    Exited(ExitStatus),
    Over(ExitStatus),
}

impl Table {
    fn tell(&mut self, event: Event) {
        // A daemon that was killed hears nothing.
        if self.facts.as_ref().is_some_and(|facts| facts.send(event).is_err()) {
            self.facts = None;
        }
    }

    fn enter(&mut self, key: &Key, state: State) {
        let Some(entry) = self.runs.get_mut(key) else { return };
        entry.state = state;
        let (pid, is_kept, (instance, run)) = (entry.pid, entry.is_kept, key.clone());
        self.tell(match state {
            State::Beginning => return,
            State::Over(_) if !is_kept => return,
            State::Running => Event::Spawned { instance, run, pid },
            State::Exited(status) => Event::Exited { instance, run, status },
            State::Over(_) => Event::Emptied { instance, run },
        });
    }
}

impl Nature {
    /// An empty one, with a thread of its own: it goes on whoever waits for what.
    pub fn new() -> Nature {
        let table = Table { last_pid: 1_000_000, runs: BTreeMap::new(), facts: None };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let handle = runtime.handle().clone();
        std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
        Nature { table: Arc::new(Mutex::new(table)), runtime: handle }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap()
    }

    /// Tells of all that comes, from now on; ends what is none of these. Returns those of which
    /// something is there, or of which it is known how they ended. `known` says of each whether it is
    /// known to have begun.
    pub fn recover(&self, known: BTreeMap<Key, bool>, facts: Facts) -> BTreeSet<Key> {
        let mut table = self.table();
        table.facts = Some(facts);
        // What had not begun yet does not: who wanted it is gone.
        let strange =
            |key: &Key, entry: &Entry| !known.contains_key(key) || entry.state == State::Beginning;
        let all = table.runs.iter();
        let strangers: Vec<Key> =
            all.filter(|(key, entry)| strange(key, entry)).map(|(key, _)| key.clone()).collect();
        for key in strangers {
            let entry = table.runs.remove(&key).unwrap();
            let _ = entry.signals.send(Signal::Kill);
        }
        let found: Vec<(Key, u32, State)> =
            table.runs.iter().map(|(key, of)| (key.clone(), of.pid, of.state)).collect();
        let there = found.iter().map(|(key, ..)| key.clone()).collect();
        for (key, pid, state) in found {
            table.runs.get_mut(&key).unwrap().is_kept = false;
            let (instance, run) = key.clone();
            if !known[&key] {
                table.tell(Event::Spawned { instance: instance.clone(), run, pid });
            }
            if let State::Exited(status) | State::Over(status) = state {
                table.tell(Event::Exited { instance, run, status });
            }
        }
        there
    }

    /// In the runtime of the daemon, which has its say before anything begins.
    pub fn spawn(&self, instance: InstanceId, run: Run, argv: Vec<String>) {
        let (signals, received) = mpsc::unbounded_channel();
        let key = (instance, run);
        let mut table = self.table();
        // How the one before ended is not asked for any more.
        table.runs.retain(|(of, _), entry| *of != key.0 || !matches!(entry.state, State::Over(_)));
        table.last_pid += 1;
        let entry = Entry {
            pid: table.last_pid,
            argv: argv.clone(),
            signals,
            state: State::Beginning,
            is_kept: false,
        };
        table.runs.insert(key.clone(), entry);
        let nature = self.clone();
        tokio::spawn(async move {
            nature.runtime.spawn(nature.clone().live(key, argv, received));
        });
    }

    /// How it ended is written down, and need not be remembered.
    pub fn end_is_kept(&self, instance: &InstanceId, run: Run) {
        let mut table = self.table();
        let key = (instance.clone(), run);
        let Some(entry) = table.runs.get_mut(&key) else { return };
        if std::mem::replace(&mut entry.is_kept, true) {
            return;
        }
        if let state @ State::Over(_) = entry.state {
            table.enter(&key, state);
        }
    }

    pub fn signal(&self, instance: &InstanceId, run: Run, signal: Signal) {
        if let Some(entry) = self.table().runs.get(&(instance.clone(), run)) {
            // What is over takes none.
            let _ = entry.signals.send(signal);
        }
    }

    /// Kills a main process, as anybody may.
    pub fn kill(&self, pid: u32) {
        let table = self.table();
        let entry = table.runs.values().find(|entry| entry.pid == pid).unwrap();
        entry.signals.send(Signal::Kill).unwrap();
    }

    pub fn is_running(&self, instance: &InstanceId, run: Run) -> bool {
        let key = (instance.clone(), run);
        self.table().runs.get(&key).is_some_and(|entry| entry.state == State::Running)
    }

    /// The main processes that have this word as an argument, and what is left of those.
    pub fn with(&self, word: &str) -> Vec<u32> {
        let table = self.table();
        let alive = table.runs.values().filter(|entry| !matches!(entry.state, State::Over(_)));
        let those = alive.filter(|entry| entry.argv.iter().any(|argument| argument == word));
        those.map(|entry| entry.pid).collect()
    }

    pub fn is_there(&self, pid: u32) -> bool {
        let table = self.table();
        let mut of = table.runs.values().filter(|entry| entry.pid == pid);
        of.any(|entry| entry.state == State::Running)
    }

    fn enter(&self, key: &Key, state: State) {
        self.table().enter(key, state);
    }

    /// The life of a process, and of what it leaves behind.
    async fn live(self, key: Key, argv: Vec<String>, mut signals: mpsc::UnboundedReceiver<Signal>) {
        let refused = |stage, subject: &str, reason: &str| {
            let error = SpawnError { stage, subject: subject.into(), reason: reason.into() };
            let (instance, run) = key.clone();
            let mut table = self.table();
            if table.runs.remove(&key).is_some() {
                table.tell(Event::SpawnFailed { instance, run, error });
            }
        };
        if signals.try_recv().is_ok() {
            return refused(SpawnStage::Fork, "", "it was stopped before it was started");
        }
        let Some(script) = Script::of(&argv) else {
            return refused(SpawnStage::Exec, &argv[0], MISSING);
        };
        self.enter(&key, State::Running);
        let mut is_left = false;
        let status = follow(&script, &mut signals, &mut is_left).await;
        self.enter(&key, State::Exited(status));
        while is_left {
            is_left = !matches!(signals.recv().await, Some(Signal::Kill) | None);
        }
        self.enter(&key, State::Over(status));
    }
}

/// Takes the steps of a script until it ends, or is ended.
async fn follow(
    script: &Script,
    signals: &mut mpsc::UnboundedReceiver<Signal>,
    is_left: &mut bool,
) -> ExitStatus {
    const fn by(signal: spec::Signal) -> ExitStatus {
        ExitStatus::Signal { signal, core: false }
    }
    let mut is_slow = false;
    for step in &script.steps {
        let wait = match step {
            Step::Slowly => {
                is_slow = true;
                continue;
            }
            Step::Leaving => {
                *is_left = true;
                continue;
            }
            Step::Say(word) => {
                script.say(word);
                continue;
            }
            Step::Exit(code) => return ExitStatus::Code(*code),
            Step::Moment => tokio::time::timeout(MOMENT, signals.recv()).await,
            Step::Stay => Ok(signals.recv().await),
        };
        match wait {
            Err(_) => {}
            Ok(Some(Signal::Terminate)) if is_slow => {
                script.say("ends");
                let killed =
                    async { while !matches!(signals.recv().await, Some(Signal::Kill) | None) {} };
                if tokio::time::timeout(MOMENT, killed).await.is_ok() {
                    return by(spec::Signal::KILL);
                }
                script.say("ended");
                return ExitStatus::Code(0);
            }
            Ok(Some(Signal::Terminate)) => return by(spec::Signal::TERM),
            Ok(Some(Signal::Kill) | None) => return by(spec::Signal::KILL),
        }
    }
    ExitStatus::Code(0)
}

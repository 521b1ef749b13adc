//! A daemon above a simulated machine, in a thread of its own: the parts of the real one but for the
//! backend, signals and what a service manager is told.

use super::{Nature, Sim};
use provost::backend::Backend;
use provost::bus::{LogControl, PrivateSocket, Service};
use provost::config::load::{Location, Mode};
use provost::daemon::kept_runs;
use provost::driver::{self, Driver, Keeping};
use provost::notify::Notifier;
use provost::probe::Prober;
use provost::store::Store;
use provost::store::checkpoint::Checkpoints;
use provost::store::generations::Generations;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::mpsc;

/// One that runs.
pub struct Daemon {
    thread: JoinHandle<Option<u8>>,
    asked: mpsc::UnboundedSender<Asked>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// To end all it runs, and then itself.
    Stop,
    /// To be no more, at once.
    Die,
}

impl Daemon {
    /// Starts it. In the directory are `processes.yaml`, and what it keeps.
    pub fn start(directory: &Path, nature: &Nature) -> Daemon {
        let (asked, requests) = mpsc::unbounded_channel();
        let (directory, nature) = (directory.to_owned(), nature.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.unwrap();
            let code = runtime.block_on(serve(directory, nature, requests));
            runtime.shutdown_background();
            code
        });
        Daemon { thread, asked }
    }

    pub fn kill(self) {
        let _ = self.asked.send(Asked::Die);
        assert_eq!(self.thread.join().unwrap(), None);
    }

    /// The exit code.
    pub fn stop(self) -> u8 {
        let _ = self.asked.send(Asked::Stop);
        self.thread.join().unwrap().unwrap()
    }
}

async fn serve(
    directory: PathBuf,
    nature: Nature,
    mut asked: mpsc::UnboundedReceiver<Asked>,
) -> Option<u8> {
    let at = |name: &str| directory.join(name);
    let private = PrivateSocket::bind(&at("run/private")).unwrap();
    let (runtime, state) = (at("run/state"), at("state"));
    let (store, _, mut found) = Store::open(Some(&runtime), Some(&state));
    let generations = Generations::open(Some(&state), &mut found.remarks);
    let (checkpoints, tentative) = Checkpoints::open(Some(&state), &mut found.remarks);
    let (sender, facts) = driver::facts();
    let backend: Arc<dyn Backend> = Sim::new(nature, sender.clone(), Some(runtime.join("ledger")));
    found.restored.there = backend.recover(kept_runs(&found.restored), HashMap::new()).await;
    let keeping = Keeping { store, checkpoints, found, tentative };
    let prober = Prober::new(sender, backend.clone());
    let path = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
    let location =
        Location { main: at("processes.yaml"), mode: Mode::User, environment: Arc::new(path) };
    let options = driver::Options { location, ends_by_itself: false, seed: 1 };
    let notifier = Notifier::from_environment();
    let (driver, handle) =
        Driver::new(options, keeping, generations, backend, prober, facts, notifier);
    let service = Service::new(handle.clone(), Arc::new(NoLog), None);
    tokio::spawn(private.serve(service));
    let driver = driver.run();
    tokio::pin!(driver);
    loop {
        tokio::select! {
            code = &mut driver => return Some(code),
            request = asked.recv() => match request {
                Some(Asked::Stop) => {
                    let handle = handle.clone();
                    tokio::spawn(async move { handle.shutdown().await });
                }
                Some(Asked::Die) | None => return None,
            }
        }
    }
}

/// There is none.
struct NoLog;

impl LogControl for NoLog {
    fn level(&self) -> String {
        "info".to_owned()
    }

    fn set_level(&self, _: &str) -> Result<(), String> {
        Ok(())
    }

    fn target(&self) -> String {
        "null".to_owned()
    }
}

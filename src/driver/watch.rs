//! The task that watches files.

use super::desk::Work;
use crate::config::load::Sources;
use crate::config::watch::Watcher;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// The task that watches files, seen from outside.
#[derive(Clone)]
pub(super) struct Watch(mpsc::UnboundedSender<Order>);

struct Order {
    files: Vec<PathBuf>,
    drop_ins: PathBuf,
    debounce: Duration,
    reply: oneshot::Sender<Option<String>>,
}

impl Watch {
    pub(super) fn new(work: &mpsc::UnboundedSender<Work>) -> Watch {
        let (orders, receiver) = mpsc::unbounded_channel();
        tokio::spawn(watch(receiver, work.clone()));
        Watch(orders)
    }

    /// Watches these from now on, and nothing else; None: nothing at all. What is not watched yet
    /// counts as changed once it is, so nothing between a read and its watch is lost.
    ///
    /// Returns why not everything can be watched.
    ///
    /// # Errors
    /// Why files are not watched at all.
    pub(super) async fn set(
        &self,
        sources: Option<&Sources>,
        debounce: Duration,
    ) -> Result<Option<String>, String> {
        let (reply, answer) = oneshot::channel();
        let gone = || "the watcher has ended".to_owned();
        let (files, drop_ins) = match sources {
            Some(sources) => {
                let files = sources.files.iter().map(|source| PathBuf::clone(&source.path));
                (files.collect(), sources.drop_ins.clone())
            }
            None => Default::default(),
        };
        self.0.send(Order { files, drop_ins, debounce, reply }).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}

async fn watch(mut orders: mpsc::UnboundedReceiver<Order>, work: mpsc::UnboundedSender<Work>) {
    let mut watcher: Option<Watcher> = None;
    loop {
        let order = match &mut watcher {
            None => orders.recv().await,
            Some(watcher) => tokio::select! {
                biased;
                order = orders.recv() => order,
                in_vain = watcher.changed() => {
                    if work.send(Work::FilesChanged { in_vain }).is_err() {
                        return;
                    }
                    continue;
                }
            },
        };
        let Some(Order { files, drop_ins, debounce, reply }) = order else { return };
        let told = if files.is_empty() {
            watcher = None;
            None
        } else {
            let watcher = watcher.get_or_insert_with(|| Watcher::new(debounce));
            watcher.set_debounce(debounce);
            watcher.rewatch(&files, &drop_ins).await;
            not_watched(watcher)
        };
        // Whoever asked may have given up.
        let _ = reply.send(told);
    }
}

/// What is not watched, how often it is looked at instead, and why; None when everything is watched.
fn not_watched(watcher: &Watcher) -> Option<String> {
    let every = watcher.compared().map(|(_, every)| every).min()?.as_secs();
    let reasons: Vec<&str> = watcher.compared().map(|(why, _)| why).collect();
    Some(format!(
        "not every file can be watched, so changes are looked for every {every} s: {}",
        reasons.join("; ")
    ))
}

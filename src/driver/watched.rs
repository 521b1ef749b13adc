//! The task that watches what processes have watched (`watch:` of the file).
//!
//! Each instance that is enabled has its files watched, whether it runs or not. The machine is told of
//! each change, and decides: what an operator stopped stays stopped. Nothing is remembered for the next
//! daemon: what changes while there is none is not told.

use super::Driver;
use super::desk::Work;
use crate::config::watch::trees::{Told, Trees, Wanted};
use crate::core::event::Event;
use crate::core::ids::InstanceId;
use crate::core::view::InstanceView;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc;
use tracing::Level;

/// The task, seen from outside. It begins with the first process that has something watched.
#[derive(Default)]
pub(super) struct Watched {
    orders: Option<mpsc::UnboundedSender<Order>>,
    /// Those that have something watched.
    members: BTreeSet<InstanceId>,
}

type Order = (InstanceId, Option<Wanted>);

impl Watched {
    /// What an instance has watched from now on; None: the instance is gone.
    pub(super) fn follow(
        &mut self,
        id: &InstanceId,
        view: Option<&InstanceView>,
        work: &mpsc::UnboundedSender<Work>,
    ) {
        let wanted = view.and_then(|view| wanted(id, view));
        let changed = match &wanted {
            Some(_) => {
                self.members.insert(id.clone());
                true
            }
            None => self.members.remove(id),
        };
        if !changed {
            return;
        }
        let orders = self.orders.get_or_insert_with(|| {
            let (orders, receiver) = mpsc::unbounded_channel();
            tokio::spawn(watch(receiver, work.clone()));
            orders
        });
        // The task ends only with the runtime.
        let _ = orders.send((id.clone(), wanted));
    }
}

fn wanted(id: &InstanceId, view: &InstanceView) -> Option<Wanted> {
    let watch = view.spec.watch.as_ref().filter(|_| view.enabled || view.once)?;
    let paths = watch.paths.iter().map(|path| PathBuf::from(&*path.render(id.index)));
    let ignore = watch.ignore.clone();
    Some(Wanted { paths: paths.collect(), ignore, debounce: watch.debounce })
}

async fn watch(mut orders: mpsc::UnboundedReceiver<Order>, work: mpsc::UnboundedSender<Work>) {
    let mut trees = Trees::new();
    loop {
        tokio::select! {
            biased;
            order = orders.recv() => match order {
                Some((id, wanted)) => trees.set(&id, wanted),
                None => return,
            },
            told = trees.changed() => {
                if work.send(Work::Watched(told)).is_err() {
                    return;
                }
            }
        }
    }
}

impl Driver {
    pub(super) fn take_watched(&mut self, told: Told) {
        match told {
            Told::Changed { who, path } => {
                let path: Arc<str> = path.display().to_string().into();
                for instance in who {
                    self.feed(Event::WatchedChanged { instance, path: path.clone() });
                }
            }
            Told::Unwatched { who, why } => {
                let who: Vec<String> = who.iter().map(ToString::to_string).collect();
                let text = format!("not all that {} watches is watched: {why}", who.join(" "));
                self.remark(Level::WARN, "not-watched", text);
            }
        }
    }
}

//! What others read, brought up to date after each turn.

use super::handle::{ManagerView, Turn};
use super::{Driver, checkpoint};
use crate::core::event::Event;
use crate::core::view::{State, Summary};
use std::sync::Arc;

impl Driver {
    /// Publishes what the turn changed, tells subscribers, and tells the service manager.
    pub(super) fn publish(&mut self) {
        if self.options.ends_by_itself && self.finished.is_none() && self.machine.nothing_can_run()
        {
            self.feed(Event::ShutdownRequested);
        }
        let dirty = self.machine.take_dirty();
        for id in &dirty {
            let view = self.machine.view(id);
            if view.as_ref().is_none_or(|view| is_at_rest(view.state)) {
                self.backend.sockets().at_rest(id);
            }
            if view.is_none() {
                self.backend.forget(id);
            }
            self.watched.follow(id, view.as_ref(), &self.desk.work_sender());
            self.published.set_instance(id, view);
        }
        self.turn.instances.extend(dirty);
        if self.has_looked {
            self.published.set_looked();
        }
        self.publish_manager();
        let turn = std::mem::take(&mut self.turn);
        if !is_empty(&turn) {
            // Nobody may be listening.
            let _ = self.turns.send(Arc::new(turn));
        }
    }

    fn publish_manager(&mut self) {
        let old = self.published.manager();
        let summary = self.machine.summary();
        let config_detail = self.config_detail();
        let reloads = Arc::clone(&self.tally);
        let view = ManagerView { summary, config_detail, reloads, ..ManagerView::clone(&old) };
        let checkpoint = self.checkpoint.as_ref().and_then(checkpoint::Checkpoint::view);
        let view = ManagerView { checkpoint, ..self.desk.describe(view) };
        if view != *old {
            self.notifier.status(&status_line(&summary, &view));
            self.published.set_manager(view);
            self.turn.manager = true;
        }
    }
}

impl Driver {
    /// What there is to be said where the files are not what runs.
    fn config_detail(&self) -> String {
        let running = self.machine.generation();
        match (&self.trying.trial, self.history.held_off()) {
            (Some(trial), _) if trial.is_going_back() => match &self.trying.withdrawn {
                None => format!("going back to {running}: {} did not come up", trial.tried()),
                Some(why) => format!("going back to {running} from {}: {why}", trial.tried()),
            },
            (Some(trial), _) if self.machine.is_reloading() => {
                format!(
                    "trying {}; {} is what it goes back to",
                    trial.tried(),
                    trial.base().generation
                )
            }
            (Some(trial), _) => format!("{} is up; it has to stay so for a while", trial.tried()),
            (None, Some(held)) => format!("running {running}; the file on disk {held}"),
            (None, None) => self.confirm_detail().unwrap_or_default(),
        }
    }
}

/// Whether an instance has no run, and gets none by itself.
fn is_at_rest(state: State) -> bool {
    matches!(state, State::Down | State::Completed | State::Failed)
}

/// One line for `systemctl status`.
fn status_line(summary: &Summary, view: &ManagerView) -> String {
    let mut line = format!("{} of {} running", summary.running, summary.enabled);
    if summary.failed > 0 {
        line += &format!(", {} failed", summary.failed);
    }
    if summary.unhealthy > 0 {
        line += &format!(", {} unhealthy", summary.unhealthy);
    }
    if !view.config_detail.is_empty() {
        return format!("{line}; {}", view.config_detail);
    }
    line += &format!("; generation {}", summary.generation);
    line += match view.config_state {
        "rejected" => "; the file on disk is not valid and was not applied",
        "failed-kept" => "; not all of it came up",
        "applying" => ", being applied",
        _ => "",
    };
    line
}

fn is_empty(turn: &Turn) -> bool {
    turn.instances.is_empty()
        && turn.jobs_new.is_empty()
        && turn.jobs_removed.is_empty()
        && turn.exits.is_empty()
        && turn.reloads.is_empty()
        && !turn.has_looked
        && !turn.manager
}

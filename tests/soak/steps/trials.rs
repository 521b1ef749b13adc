//! What does not come up, and is gone back from.

use crate::daemon::{Daemon, Told};
use crate::disk::Save;
use crate::file::{Entry, Instance, Mode, Place};
use crate::model::{Known, Moves, State, Step};
use crate::outside;
use crate::soak::{Judged, Soak};
use nix::sys::signal::Signal;
use provost::client::ReloadOptions;
use std::collections::BTreeSet;
use std::time::Duration;

/// How the name begins of what does not come up.
const RUIN: &str = "ruin";

impl Soak {
    /// The files say something else, and one more that fails for good: all of it goes. Who was not
    /// touched by it has not moved, and the others are what they were, in a new run or not; whoever
    /// dies on the way.
    pub(super) async fn ruin(&mut self) -> Judged {
        // Who is up for once is so until another file is applied: whether that was is the question here.
        let for_once = self.world.values().any(|known| known.once);
        if !self.files.is_managed() || !self.files.auto_start() || for_once {
            return Ok(());
        }
        self.calm().await?;
        let mut files = self.files.clone();
        let what: Vec<String> =
            (0..self.draw.rng.below(4)).map(|_| self.draw.change(&mut files)).collect();
        files.settings = self.files.settings.clone();
        let touched = super::files::touched(&[self.files.clone(), files.clone()]);
        let in_force = self.disk.clone();
        files.entries.insert(format!("{RUIN}{}", self.steps), self.a_ruin());
        files.settings.rollback = Some("auto");
        // Much longer than it runs, on a busy machine too.
        files.settings.settle = Some(self.draw.rng.between(2_000, 4_000));
        files.settings.verdict = Some(60_000);
        outside::make_locks(&files, &self.ground);
        let change = self.disk.write(&files, &self.ground, &mut self.draw.rng, false);
        let deaths = *self.draw.rng.pick(&[0, 0, 0, 1, 1, 2]);
        let moments: Vec<u64> = (0..deaths).map(|_| self.draw.rng.between(0, 600)).collect();
        self.note(format!("ruin: {what:?}, and kill -9 the daemon after {moments:?} ms"));
        self.change(&change, Save::Rename);
        // Who watches may have tried it, and gone back, before anybody asks.
        let is_asked = moments.is_empty() && !self.files.is_watched();
        if is_asked {
            let done = self.daemon.client.reload(&ReloadOptions::default()).await;
            let done = done.map_err(|error| format!("a valid file is refused: {error}"))?;
            if !["rolled-back", "rollback-incomplete"].contains(&&*done.result) {
                return Err(format!("what cannot come up is {}: {done:?}", done.result));
            }
        } else if !self.files.is_watched() {
            self.daemon.signal(Signal::SIGHUP);
        }
        for moment in moments {
            // The moment is what is drawn here.
            std::thread::sleep(Duration::from_millis(moment));
            self.daemon.signal(Signal::SIGKILL);
            self.daemon.ended();
            self.daemon = Daemon::start(&self.ground).await;
        }
        let unsure = self.unsure(&touched);
        let mut expected = self.expect(&Step::default());
        for (instance, expected) in &mut expected {
            if touched.contains(&instance.0) {
                expected.moves = Moves::Any(0);
            }
            expected.either |= unsure.contains(&instance.0);
        }
        // Who begins anew after that says so too where something fails that failed before.
        let is_back = |told: &Told| match &*told.manager.config_state {
            "rolled-back" | "rollback-incomplete" => true,
            "failed-kept" => is_tried(told),
            _ => false,
        };
        self.judge(expected, Box::new(is_back)).await?;
        self.take_ruin_back(in_force).await
    }

    /// Those that had failed and may have been tried again as something else, whatever they came to;
    /// those that waited and may not have had to, and go on then; those that went on while what they need
    /// was not there, and may have been taken down; and those that depend on them.
    fn unsure(&self, touched: &BTreeSet<String>) -> BTreeSet<String> {
        let is_up = |known: &Known| matches!(known.state, State::Up | State::Completed);
        let is_met = |on: &String| {
            let mut instances = self.world.iter().filter(|((of, _), _)| of == on);
            instances.all(|(_, known)| is_up(known))
        };
        let is_unsure = |(id, _): &Instance, known: &Known| {
            let lacks = || !self.files.entries[id].depends.keys().all(is_met);
            match known.state {
                State::Failed | State::Waiting => true,
                State::Up => lacks(),
                _ => false,
            }
        };
        let unsure = self.world.iter().filter(|(instance, known)| is_unsure(instance, known));
        let mut found: BTreeSet<String> = unsure
            .map(|(instance, _)| instance.0.clone())
            .filter(|id| touched.contains(id))
            .collect();
        for id in self.files.in_order() {
            if self.files.below(&id, |_| true).iter().any(|on| found.contains(on)) {
                found.insert(id);
            }
        }
        found
    }

    /// The files are again what runs: nothing moves.
    async fn take_ruin_back(&mut self, in_force: crate::disk::Disk) -> Judged {
        let change = self.disk.go_back(in_force);
        self.note("the ruin is taken back".to_owned());
        self.change(&change, Save::Rename);
        if !self.files.is_watched() {
            self.daemon.signal(Signal::SIGHUP);
        }
        let expected = self.expect(&Step::default());
        let is_in_force = |told: &Told| match &*told.manager.config_state {
            "applied" => true,
            "failed-kept" => !is_tried(told),
            _ => false,
        };
        self.judge(expected, Box::new(is_in_force)).await
    }

    /// It fails for good, sooner or later.
    fn a_ruin(&mut self) -> Entry {
        let mut entry = Entry::new(Place::Main, Mode::End(self.draw.rng.between(0, 20), 3));
        entry.policy.condition = self.draw.rng.maybe(80, &["no", "always", "on-failure"]);
        entry.policy.delay = Some(self.draw.rng.between(0, 50));
        entry.policy.max_delay = Some(100);
        entry
    }
}

/// Whether what is on disk was tried, and something else runs.
fn is_tried(told: &Told) -> bool {
    told.manager.config_detail.contains("was tried as")
}

//! What dies: what runs, what is not well, and the daemon.

use crate::common::processes::kill;
use crate::daemon::{Daemon, Told};
use crate::disk::Save;
use crate::file::{Files, Instance, Mode, name};
use crate::model::{Push, State, Step};
use crate::outside;
use crate::soak::{Judged, Soak};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;

impl Soak {
    /// Somebody kills a main process.
    pub(super) async fn kill(&mut self) -> Judged {
        let Some(instance) = self.some_up(|_, _| true) else { return Ok(()) };
        self.note(format!("kill -9 {} ({})", name(&instance), self.runs[&instance].pid));
        kill(self.runs[&instance].pid as u32);
        self.killed(instance).await
    }

    pub(super) async fn killed(&mut self, instance: Instance) -> Judged {
        let (id, pid) = (name(&instance), self.runs[&instance].pid as u32);
        let step = Step { pushed: [(instance, Push::Killed)].into(), ..Step::default() };
        let expected = self.expect(&step);
        self.judge(expected, Box::new(move |told| is_over(told, &id, pid))).await
    }

    /// Somebody kills what a main process left beside it: no affair of the daemon's.
    pub(super) async fn kill_child(&mut self) -> Judged {
        let forks =
            |files: &Files, instance: &Instance| files.entries[&instance.0].mode == Mode::Fork;
        let Some(instance) = self.some_up(forks) else { return Ok(()) };
        let found = outside::look(&self.ground.token);
        let Some(children) = found.children.get(&name(&instance)) else { return Ok(()) };
        self.note(format!("kill -9 what {} left beside it", name(&instance)));
        kill(children[0].pid as u32);
        self.childless.insert(instance);
        let expected = self.expect(&Step::default());
        self.judge(expected, Box::new(|_| true)).await
    }

    /// Something runs and is not well.
    pub(super) async fn sick(&mut self) -> Judged {
        let can = |files: &Files, instance: &Instance| {
            files.entries[&instance.0].check().is_some_and(|check| check.kind != "tcp")
        };
        let Some(instance) = self.some_up(can) else { return Ok(()) };
        self.note(format!("{} falls ill", name(&instance)));
        let flag = self.ground.sick_flag(&instance);
        std::fs::write(&flag, "").unwrap();
        let (id, pid) = (name(&instance), self.runs[&instance].pid as u32);
        let check = self.files.entries[&instance.0].check().cloned();
        if check.and_then(|check| check.on_failure) == Some("none") {
            let seen = self
                .daemon
                .until(|told| told.processes.iter().any(|p| p.id == id && p.health == "unhealthy"));
            seen.await.map_err(|_| format!("{id} is ill, and nobody sees it"))?;
            // It gets well by itself.
            std::fs::remove_file(&flag).unwrap();
            let expected = self.expect(&Step::default());
            return self.judge(expected, Box::new(|_| true)).await;
        }
        let step = Step { pushed: [(instance, Push::Sick)].into(), ..Step::default() };
        let expected = self.expect(&step);
        let judged = self.judge(expected, Box::new(move |told| is_over(told, &id, pid))).await;
        // One that is not tried again leaves it.
        let _ = std::fs::remove_file(flag);
        judged
    }

    /// The daemon is ended in order, and started again.
    pub(super) async fn restart_daemon(&mut self) -> Judged {
        self.note("the daemon ends and is started again".to_owned());
        self.end().await?;
        self.births.forget();
        self.runs.clear();
        self.daemon = Daemon::start(&self.ground).await;
        let expected = if self.survives() {
            let step = Step { files: Some(self.files.clone()), ..Step::default() };
            let mut world = self.world.clone();
            for known in world.values_mut() {
                if !matches!(known.state, State::Completed) {
                    known.state = State::Down;
                }
            }
            crate::model::expect(&world, &self.files, &step, &self.ground)
        } else {
            crate::model::from_nothing(&self.files, &self.ground)
        };
        self.judge(expected, Box::new(|_| true)).await
    }

    /// Whether the daemon is killed, and has to find its processes and what was wanted again.
    fn survives(&self) -> bool {
        std::env::var_os("PROVOST_SOAK_SURVIVAL").is_none_or(|said| said != "0")
    }

    /// The daemon dies, and is started again.
    pub(super) async fn kill_daemon(&mut self) -> Judged {
        if !self.survives() {
            return Ok(());
        }
        if self.draw.rng.percent(40) {
            return self.kill_daemon_at_work().await;
        }
        let meanwhile = self.some_up(|_, _| true).filter(|_| self.draw.rng.percent(30));
        let what = meanwhile.as_ref().map_or(String::new(), |one| format!(", and {}", name(one)));
        self.note(format!("kill -9 the daemon{what}"));
        self.daemon.signal(Signal::SIGKILL);
        self.daemon.ended();
        if let Some(instance) = &meanwhile {
            kill(self.runs[instance].pid as u32);
        }
        self.daemon = Daemon::start(&self.ground).await;
        let pushed = meanwhile.map(|instance| (instance, Push::Killed)).into_iter().collect();
        let expected = self.expect(&Step { pushed, ..Step::default() });
        self.judge(expected, Box::new(|_| true)).await
    }

    /// The same somewhere on the way from one version of the files to the next: what has moved, and
    /// what has not, must come out as if nobody had died.
    async fn kill_daemon_at_work(&mut self) -> Judged {
        self.calm().await?;
        let mut files = self.files.clone();
        let what = [self.draw.change(&mut files), self.draw.change(&mut files)];
        outside::make_locks(&files, &self.ground);
        let change = self.disk.write(&files, &self.ground, &mut self.draw.rng, false);
        let moment = self.draw.rng.between(0, 250);
        self.note(format!("edit: {what:?}, and kill -9 the daemon {moment} ms later"));
        self.change(&change, Save::Rename);
        if !self.files.is_watched() {
            self.daemon.signal(Signal::SIGHUP);
        }
        // The moment is what is drawn here: how far the daemon has come by then is what differs, and
        // no event stands for it.
        std::thread::sleep(std::time::Duration::from_millis(moment));
        self.daemon.signal(Signal::SIGKILL);
        self.daemon.ended();
        self.daemon = Daemon::start(&self.ground).await;
        let touched = super::files::touched(&[self.files.clone(), files.clone()]);
        let mut expected = if self.is_idle(&files, &change) {
            self.files = files;
            self.expect(&Step::default())
        } else {
            self.expect(&Step { files: Some(files), ..Step::default() })
        };
        // How a one-shot ended that had begun by then, and ended before the next one came, nobody can
        // tell. So it has failed, and what waits for it to be done goes on waiting.
        let mut unsure: BTreeSet<String> = BTreeSet::new();
        for id in self.files.in_order() {
            let entry = &self.files.entries[&id];
            let ends = !entry.stays() && ["no", "on-failure"].contains(&entry.condition());
            let mut below = self.files.below(&id, |_| true).into_iter();
            if ends && touched.contains(&id) || below.any(|on| unsure.contains(&on)) {
                unsure.insert(id);
            }
        }
        for (instance, expected) in &mut expected {
            expected.either |= unsure.contains(&instance.0);
        }
        self.judge(expected, Box::new(|_| true)).await
    }

    /// Ends the daemon; nothing may be left.
    pub async fn end(&mut self) -> Judged {
        self.daemon.signal(Signal::SIGTERM);
        let status = self.daemon.ended();
        if !status.success() {
            return Err(format!("the daemon ended with {status}"));
        }
        let left = outside::look(&self.ground.token);
        if left != outside::Found::default() {
            return Err(format!("the daemon ended and left {left:?}"));
        }
        let mut pids = std::fs::read_dir(self.ground.dir.join("pids")).unwrap();
        if let Some(left) = pids.next() {
            return Err(format!("the daemon ended and left {left:?}"));
        }
        Ok(())
    }
}

/// Whether a run is over as far as the daemon is concerned.
fn is_over(told: &Told, id: &str, pid: u32) -> bool {
    told.processes.iter().any(|process| process.id == id && process.pid != Some(pid))
}

//! What operators say.

use crate::common::waiting::DEADLINE;
use crate::file::{Files, Instance, name};
use crate::model::{Expected, Moves, Push, State, Step};
use crate::soak::{Judged, Soak};
use provost::client::{JobOutcome, Verb};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long one waits for what may never come.
const PATIENCE: Duration = Duration::from_secs(3);

impl Soak {
    /// Names of instances for a command, and which they are.
    pub(super) fn names(&mut self) -> (Vec<String>, Vec<Instance>) {
        let all: Vec<Instance> = self.world.keys().cloned().collect();
        let (mut names, mut found) = (Vec::new(), BTreeSet::new());
        if all.is_empty() {
            return (names, Vec::new());
        }
        for _ in 0..*self.draw.rng.pick(&[1, 1, 1, 2, 3]) {
            let instance = self.draw.rng.pick(&all).clone();
            let kind = self.draw.rng.below(6);
            let entry = &self.files.entries[&instance.0];
            let whole = |id: &String| -> Vec<Instance> {
                (0..self.files.entries[id].count()).map(|n| (id.clone(), n)).collect()
            };
            match kind {
                0 => {
                    names.push(format!("{}@*", instance.0));
                    found.extend(whole(&instance.0));
                }
                1 if !entry.tags.is_empty() => {
                    let tag = *entry.tags.first().unwrap();
                    names.push(format!("tag:{tag}"));
                    let tagged = self.files.entries.iter().filter(|(_, e)| e.tags.contains(tag));
                    found.extend(tagged.flat_map(|(id, _)| whole(id)));
                }
                2 => {
                    names.push(instance.0.clone());
                    found.insert((instance.0.clone(), 0));
                }
                _ => {
                    names.push(name(&instance));
                    found.insert(instance);
                }
            }
        }
        (names, found.into_iter().collect())
    }

    /// Whether somebody may start these.
    fn may_start(&self, instances: &[Instance]) -> bool {
        self.files.is_managed()
            && instances.iter().all(|instance| {
                self.files.entries[&instance.0].is_enabled() || self.world[instance].once
            })
    }

    pub(super) async fn command(&mut self) -> Judged {
        let (names, instances) = self.names();
        if names.is_empty() {
            return Ok(());
        }
        let verb =
            *self.draw.rng.pick(&["start", "stop", "restart", "stop", "start", "reset-failed"]);
        let typed = self.draw.rng.percent(50);
        self.note(format!("{verb} {names:?}{}", if typed { ", typed" } else { "" }));
        let refused = matches!(verb, "start" | "restart") && !self.may_start(&instances);
        let mut step = Step::default();
        if !refused {
            match verb {
                "start" => step.pushed.extend(instances.iter().map(|i| (i.clone(), Push::Start))),
                "restart" => {
                    step.pushed.extend(instances.iter().map(|i| (i.clone(), Push::Restart)))
                }
                "stop" => step.stopped.extend(instances.iter().cloned()),
                _ => step.pushed.extend(instances.iter().map(|i| (i.clone(), Push::Reset))),
            }
        }
        let expected = self.expect(&step);
        let mut all_up = instances
            .iter()
            .all(|instance| matches!(expected[instance].known.state, State::Up | State::Completed));
        // What a new run would wait for does not come: it keeps the one it has.
        let keeps = |instance: &Instance| {
            let Expected { known, moves, either } = expected[instance];
            known.state == State::Up && (moves == Moves::Same || either)
        };
        let kept = verb == "restart" && instances.iter().any(keeps);
        all_up &= !kept;
        let patience = match verb {
            "start" | "restart" if !all_up => PATIENCE,
            _ => DEADLINE,
        };
        let mut said = String::new();
        let ok = if typed {
            let mut args = vec![verb.to_owned()];
            if verb != "reset-failed" {
                args.extend(["--timeout".to_owned(), format!("{}s", patience.as_secs())]);
            }
            args.extend(names.clone());
            let output = self.daemon.provost(&args);
            said = format!("{output:?}");
            output.status.success()
        } else {
            let verb = match verb {
                "start" => Some(Verb::Start { once: false }),
                "stop" => Some(Verb::Stop),
                "restart" => Some(Verb::Restart),
                _ => None,
            };
            match verb {
                None => self.daemon.client.reset_failed(&names).await.is_ok(),
                Some(verb) => {
                    let jobs = self.daemon.ask(verb, &names, patience).await;
                    let all = |jobs: Vec<JobOutcome>| jobs.iter().all(JobOutcome::is_success);
                    jobs.is_ok_and(|jobs| jobs.is_some_and(all))
                }
            }
        };
        match (verb, ok) {
            (_, true) if refused => return Err(format!("{verb} {names:?} was not refused")),
            (_, true) if kept && !instances.iter().any(|instance| expected[instance].either) => {
                return Err(format!("{verb} {names:?} succeeded, and could not: {said}"));
            }
            ("start" | "restart", false) if !refused && all_up => {
                return Err(format!("{verb} {names:?} did not succeed: {said}"));
            }
            ("stop" | "reset-failed", false) => {
                return Err(format!("{verb} {names:?} failed: {said}"));
            }
            _ => {}
        }
        self.judge(expected, Box::new(|_| true)).await
    }

    /// Something disabled is started all the same.
    pub(super) async fn once(&mut self) -> Judged {
        let disabled: Vec<Instance> = self
            .world
            .keys()
            .filter(|(id, _)| !self.files.entries[id].is_enabled())
            .cloned()
            .collect();
        if disabled.is_empty() || !self.files.is_managed() {
            return self.command().await;
        }
        let instance = self.draw.rng.pick(&disabled).clone();
        self.note(format!("start --once {}", name(&instance)));
        let verb = Verb::Start { once: true };
        let done = self.daemon.ask(verb, &[name(&instance)], PATIENCE).await;
        done.map_err(|error| format!("start --once: {error}"))?;
        let step = Step {
            pushed: [(instance.clone(), Push::Start)].into(),
            once: [instance].into(),
            ..Step::default()
        };
        let expected = self.expect(&step);
        self.judge(expected, Box::new(|_| true)).await
    }

    /// A signal that changes nothing, or one that ends a run.
    pub(super) async fn signal(&mut self) -> Judged {
        let Some(instance) = self.some_up(|_, _| true) else { return Ok(()) };
        let deadly = self.draw.rng.percent(50);
        let word = if deadly { "KILL" } else { "USR1" };
        let whom = *self.draw.rng.pick(&["main", "all"]);
        self.note(format!("signal {word} to {whom} of {}", name(&instance)));
        let words = ["signal", "--whom", whom, word];
        let mut args: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        args.push(name(&instance));
        let output = self.daemon.provost(&args);
        if !output.status.success() {
            return Err(format!("signal: {output:?}"));
        }
        if deadly {
            return self.killed(instance).await;
        }
        let expected = self.expect(&Step::default());
        self.judge(expected, Box::new(|_| true)).await
    }

    /// What only asks.
    pub(super) async fn nothing(&mut self) -> Judged {
        let words = *self.draw.rng.pick(&["reload", "plan", "status", "events"]);
        self.note(format!("nothing: {words}"));
        let output = self.daemon.provost(&[words.to_owned()]);
        if matches!(words, "reload" | "plan") && !output.status.success() {
            return Err(format!("{words}: {output:?}"));
        }
        let expected = self.expect(&Step::default());
        self.judge(expected, Box::new(|_| true)).await
    }

    /// Many want different things of the same few at once; the last word is said after them all.
    pub(super) async fn storm(&mut self) -> Judged {
        let can = |files: &Files, instance: &Instance| {
            let entry = &files.entries[&instance.0];
            entry.stays() && entry.is_enabled() && files.is_managed()
        };
        let mut few: BTreeSet<Instance> = BTreeSet::new();
        for _ in 0..3 {
            few.extend(self.some_up(can));
        }
        if few.is_empty() {
            return Ok(());
        }
        let few: Vec<Instance> = few.into_iter().collect();
        self.note(format!("storm on {:?}", few.iter().map(name).collect::<Vec<_>>()));
        let mut asked = Vec::new();
        for _ in 0..self.draw.rng.between(4, 20) {
            let verbs = [Verb::Stop, Verb::Start { once: false }, Verb::Restart];
            let (verb, name) = (*self.draw.rng.pick(&verbs), name(self.draw.rng.pick(&few)));
            let client = self.daemon.client.clone();
            asked.push(tokio::spawn(async move { client.submit(verb, &[name]).await }));
        }
        for one in asked {
            one.await.unwrap().map_err(|error| format!("in a storm: {error}"))?;
        }
        let mut step = Step::default();
        for instance in &few {
            let up = self.draw.rng.percent(70);
            let verb = if up { Verb::Start { once: false } } else { Verb::Stop };
            let done = self.daemon.ask(verb, &[name(instance)], PATIENCE).await;
            done.map_err(|error| format!("after a storm: {error}"))?;
            if up {
                step.pushed.insert(instance.clone(), Push::Start);
            } else {
                step.stopped.insert(instance.clone());
            }
        }
        let ids: BTreeSet<&String> = few.iter().map(|(id, _)| id).collect();
        let touched: BTreeSet<Instance> = self
            .world
            .keys()
            .filter(|instance| {
                let below = self.files.below(&instance.0, |edge| edge.condition() != "completed");
                few.contains(instance) || below.iter().any(|on| ids.contains(on))
            })
            .cloned()
            .collect();
        // What had to start anew may not find what it needs.
        let mut worse = step.clone();
        for instance in touched.iter().filter(|instance| !step.stopped.contains(*instance)) {
            if self.world[instance].state == State::Up {
                worse.pushed.insert(instance.clone(), Push::Again);
            }
        }
        let worst = self.expect(&worse);
        let mut expected = self.expect(&step);
        for instance in &touched {
            let expected = expected.get_mut(instance).unwrap();
            expected.moves = Moves::Any(0);
            expected.known.due |= few.contains(instance);
            let worst = &worst[instance];
            expected.either |= worst.either || expected.known.state != worst.known.state;
        }
        self.judge(expected, Box::new(|_| true)).await
    }
}

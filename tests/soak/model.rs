//! What is to be expected: from what was, the files before and after, and what somebody did, to
//! what must be there after it, and who may have moved. Made from the manual, not from the daemon.
//!
//! # The facts
//!
//! For each instance of the files: whether the operator *wants* it (in the beginning `autoStart`
//! says so; `start`, `stop` and `restart` after that), whether it was started *once* although it is
//! disabled (until the next stop, or until the next changed file is applied), and its [`State`].
//!
//! # Who should be up
//!
//! `wished` = the files manage and enable it (or *once*), and the operator wants it.
//! `up` = wished, and each process it depends on, but for `completed`, has an instance that is wished
//! and is itself up.
//!
//! # What becomes of each instance, dependencies first
//!
//! 1. It was `Completed` or `Failed`: stays so, unless what a run takes in changed, or it is started
//!    or restarted. `Failed` also ends with `reset-failed`, a changed restart policy, or when it is
//!    not wished any more.
//! 2. Not up: nothing of it runs. It is `Waiting` where it is wished and only held by what it
//!    depends on, and `Down` otherwise.
//! 3. Up, and a run is there that nothing ended: it goes on, **with the same pid**. Ended it is by a
//!    change of what a run takes in, by `restart`, by a kill, by an illness with `onFailure`, and,
//!    along edges with `restart: true`, by the end of a run of what it depends on.
//! 4. Up, and its policy says that there is no other run after a kill or an illness: `Failed`.
//! 5. Up, and in want of a run: `Waiting` unless every instance that is up of each dependency meets
//!    its condition; else **exactly one** new run. What ends by itself follows its policy: it is
//!    `Completed`, `Failed`, or `Restless`, which means that it comes and goes for ever.
//!
//! 6. Who serves is not taken down for a run that could not begin (the manual: a change of the file). Up,
//!    changed or restarted, and what it depends on was not up before and does not come: it keeps its run,
//!    and is told of the change later (*held*). Where what it depends on goes down with the same step, it
//!    may have gone down before that; of several that take turns only some. So of these it is not said
//!    whether they have had their turns, until what they depend on is there.
//!
//! An instance that the files have no more is gone, with all that was remembered of it.
//!
//! When several things are done at once, only the end of it is certain: whoever was named may have
//! had any number of runs ([`Moves::Any`]).

use crate::file::{Edge, Entry, Files, Ground, Instance, Mode};
use std::collections::{BTreeMap, BTreeSet};

/// What an instance is doing, at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Down,
    Waiting,
    Up,
    Completed,
    Failed,
    /// It ends and begins for ever.
    Restless,
}

/// What a step may have done to a run that is there in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moves {
    /// It is the run that was there before.
    Same,
    /// One new run began, and only one.
    New,
    /// At least so many new runs began.
    Any(usize),
}

/// What happened to an instance, beside the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push {
    /// `start`.
    Start,
    /// `restart`.
    Restart,
    /// `reset-failed`.
    Reset,
    /// Its main process was killed.
    Killed,
    /// Its check fails until its next run.
    Sick,
    /// Its run was ended by an operator, and another was asked for.
    Again,
}

/// What is known of one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    pub wanted: bool,
    pub once: bool,
    pub state: State,
    /// Its run may be one of before a change, which it will be told of later.
    pub held: bool,
    /// It may have a restart to come, that somebody asked for when a new run could not begin.
    pub due: bool,
}

/// What must be there of one instance after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    pub known: Known,
    pub moves: Moves,
    /// Completed before, and disabled in between: the manual does not say whether it runs again. Or its
    /// turn may have come or not.
    pub either: bool,
}

/// What is not certain of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    None,
    Either,
    /// See 6: it may have had its turn.
    Held,
    /// See 6: it has not.
    Keeps,
    /// It follows one that may have had its turn.
    Follows,
}

pub type World = BTreeMap<Instance, Known>;

/// One step, as far as it concerns what is expected.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// The files after it, where they changed and are valid.
    pub files: Option<Files>,
    pub pushed: BTreeMap<Instance, Push>,
    pub stopped: BTreeSet<Instance>,
    pub once: BTreeSet<Instance>,
}

/// A new instance.
fn fresh(files: &Files) -> Known {
    Known { wanted: files.auto_start(), once: false, state: State::Down, held: false, due: false }
}

/// What must be there after the daemon was started for the first time, or forgot everything.
pub fn from_nothing(files: &Files, ground: &Ground) -> BTreeMap<Instance, Expected> {
    let step = Step { files: Some(files.clone()), ..Step::default() };
    expect(&World::new(), &Files::default(), &step, ground)
}

/// What must be there after a step.
pub fn expect(
    before: &World,
    old: &Files,
    step: &Step,
    ground: &Ground,
) -> BTreeMap<Instance, Expected> {
    let new = step.files.as_ref().unwrap_or(old);
    let mut world = World::new();
    for instance in new.instances() {
        let mut known = before.get(&instance).copied().unwrap_or_else(|| fresh(new));
        if let Some(Push::Start | Push::Restart | Push::Again) = step.pushed.get(&instance) {
            known.wanted = true;
        }
        known.once |= step.once.contains(&instance);
        if step.stopped.contains(&instance) {
            known.wanted = false;
        }
        if step.files.is_some() || step.stopped.contains(&instance) {
            known.once = false;
        }
        world.insert(instance, known);
    }
    let turn = Turn { before, old, new, step, ground };
    turn.settle(world)
}

struct Turn<'a> {
    before: &'a World,
    old: &'a Files,
    new: &'a Files,
    step: &'a Step,
    ground: &'a Ground,
}

impl Turn<'_> {
    fn settle(&self, mut world: World) -> BTreeMap<Instance, Expected> {
        let ups = ups(self.new, &world);
        let mut expected = BTreeMap::new();
        // Processes of which a run that was there has ended.
        let mut disturbed: BTreeSet<String> = BTreeSet::new();
        // Processes of which nobody can tell what they come to.
        let mut unsure: BTreeSet<String> = BTreeSet::new();
        // Processes of which a run that was there may have ended.
        let mut loose: BTreeSet<String> = BTreeSet::new();
        // Processes that were not up and are what they were, without a run in between.
        let mut still: BTreeSet<String> = BTreeSet::new();
        for id in self.new.in_order() {
            let entry = &self.new.entries[&id];
            let mut rests = true;
            for number in 0..entry.count() {
                let instance = (id.clone(), number);
                let is_up = ups.contains(&instance);
                let known = (&disturbed, &loose, &still);
                let (state, moves, doubt) = self.one(&instance, entry, &world, is_up, known);
                let goes_on = (state, moves) == (State::Up, Moves::Same);
                let mut either = !matches!(doubt, Doubt::None | Doubt::Keeps);
                rests &= self.was(&instance) == Some(state) && moves == Moves::Same && !either;
                rests &= !matches!(state, State::Up | State::Restless);
                either |= !goes_on && entry.depends.keys().any(|on| unsure.contains(on));
                if either {
                    unsure.insert(id.clone());
                }
                let known = world.get_mut(&instance).unwrap();
                known.state = state;
                let waits = matches!(doubt, Doubt::Held | Doubt::Keeps);
                known.held = waits;
                known.due = waits && (known.due || self.is_restarted(&instance));
                let was_up = self.was(&instance) == Some(State::Up);
                let may_have = was_up && (state, moves) == (State::Up, Moves::Any(0));
                if may_have || matches!(doubt, Doubt::Held | Doubt::Follows) {
                    loose.insert(id.clone());
                } else if was_up && is_up && !goes_on {
                    disturbed.insert(id.clone());
                }
                expected.insert(instance, Expected { known: *known, moves, either });
            }
            if rests {
                still.insert(id);
            }
        }
        expected
    }

    fn was(&self, instance: &Instance) -> Option<State> {
        self.before.get(instance).map(|known| known.state)
    }

    /// State and moves of one, with all it depends on settled.
    fn one(
        &self,
        instance: &Instance,
        entry: &Entry,
        world: &World,
        up: bool,
        (disturbed, loose, still): (&BTreeSet<String>, &BTreeSet<String>, &BTreeSet<String>),
    ) -> (State, Moves, Doubt) {
        let was = self.was(instance).unwrap_or(State::Down);
        let before = self.before.get(instance);
        let was_held = before.is_some_and(|known| known.held || known.due);
        // Whether a restart is to come is not certain after a storm.
        let (is_told, may_be_due) = before.map_or((false, false), |known| (known.held, known.due));
        let at_rest = |state| (state, Moves::Same, Doubt::None);
        let wished = is_wished(self.new, instance, world);
        let wished_before = is_wished(self.old, instance, self.before);
        let changed = self.old.has(instance)
            && self.old.exec(instance, self.ground) != self.new.exec(instance, self.ground);
        let push = self.step.pushed.get(instance).copied();
        let again = matches!(push, Some(Push::Start | Push::Restart | Push::Again));
        match was {
            State::Completed if !wished => return at_rest(State::Completed),
            State::Completed if !(changed || again) => {
                let doubt = if wished_before { Doubt::None } else { Doubt::Either };
                return (State::Completed, Moves::Same, doubt);
            }
            State::Failed if wished => {
                let other = self.old.has(instance)
                    && self.old.policy(&self.old.entries[&instance.0]) != self.new.policy(entry);
                let reset = push == Some(Push::Reset);
                if !(changed || again || reset || other || !wished_before) {
                    return at_rest(State::Failed);
                }
            }
            _ => {}
        }
        if !up {
            return at_rest(if wished { State::Waiting } else { State::Down });
        }
        let check = entry.check().map(|check| check.on_failure.unwrap_or("restart"));
        let ended = match push {
            Some(Push::Killed | Push::Again) => true,
            Some(Push::Sick) => check.is_some_and(|leads_to| leads_to != "none"),
            _ => false,
        };
        let follows = self.follows(&instance.0, disturbed);
        let renewed = changed || was_held || self.is_restarted(instance);
        if was == State::Up {
            if !(ended || renewed || follows) {
                return match self.follows(&instance.0, loose) {
                    true => (State::Up, Moves::Any(0), Doubt::Follows),
                    false => at_rest(State::Up),
                };
            }
            // What is changed has not failed in what it is to be from now on.
            let ended_by_itself = matches!(push, Some(Push::Killed | Push::Sick));
            let failed = ended_by_itself && !changed && !is_told;
            let stop = push == Some(Push::Sick) && check == Some("stop");
            if failed && (stop || !self.tries_again(entry)) {
                return match may_be_due {
                    true => (State::Failed, Moves::Any(0), Doubt::Either),
                    false => at_rest(State::Failed),
                };
            }
        }
        let unmet = |on: &String, edge: &Edge| !self.is_met(on, edge, world);
        let unmet = entry.depends.iter().filter(|(on, edge)| unmet(on, edge));
        let unmet: Vec<&String> = unmet.map(|(on, _)| on).collect();
        if !unmet.is_empty() {
            if was != State::Up || ended || !renewed {
                return at_rest(State::Waiting);
            }
            let may_follow = follows || self.follows(&instance.0, loose);
            return match !may_follow && unmet.iter().all(|on| still.contains(*on)) {
                true => (State::Up, Moves::Same, Doubt::Keeps),
                false => (State::Up, Moves::Any(0), Doubt::Held),
            };
        }
        let state = runs_into(self.new, &instance.0);
        let moves = match (was, state) {
            // It may have had its turn, or what it is told may be what it was.
            (State::Up, State::Up)
                if was_held && matches!(push, None | Some(Push::Start | Push::Reset)) =>
            {
                Moves::Any(0)
            }
            (_, State::Up) => Moves::New,
            (State::Restless, _) => Moves::Any(0),
            _ => Moves::Any(1),
        };
        (state, moves, Doubt::None)
    }

    /// Whether somebody asks for a new run of one that may have one.
    fn is_restarted(&self, instance: &Instance) -> bool {
        self.step.pushed.get(instance) == Some(&Push::Restart)
    }

    /// Whether something that it follows along `restart: true` had a run that ended.
    fn follows(&self, id: &str, disturbed: &BTreeSet<String>) -> bool {
        let followed = self.new.below(id, |edge| edge.restart == Some(true));
        followed.iter().any(|on| disturbed.contains(on))
    }

    /// Whether a failure is followed by another run, at the first time.
    fn tries_again(&self, entry: &Entry) -> bool {
        entry.condition() != "no" && self.new.policy(entry).max_attempts != Some(0)
    }

    /// Whether a condition holds, once all has settled.
    fn is_met(&self, on: &str, edge: &Edge, world: &World) -> bool {
        let ups = ups(self.new, world);
        let mut any = false;
        for number in 0..self.new.entries[on].count() {
            let instance = (on.to_owned(), number);
            let state = world[&instance].state;
            let completed = state == State::Completed;
            if edge.condition() == "completed" && completed {
                any = true;
                continue;
            }
            if !ups.contains(&instance) {
                continue;
            }
            any = true;
            let met = match edge.condition() {
                "completed" => completed,
                "healthy" => state == State::Up,
                _ => state == State::Up || completed,
            };
            if !met {
                return false;
            }
        }
        any
    }
}

/// What a new run comes to.
pub fn runs_into(files: &Files, id: &str) -> State {
    let entry = &files.entries[id];
    let Mode::End(_, code) = entry.mode else { return State::Up };
    let limit = files.policy(entry).max_attempts;
    match (entry.condition(), files.is_success(entry, code)) {
        ("no" | "on-failure", true) => State::Completed,
        ("no", false) => State::Failed,
        _ if limit.is_some_and(|most| most < 1000) => State::Failed,
        _ => State::Restless,
    }
}

fn is_wished(files: &Files, instance: &Instance, world: &World) -> bool {
    let Some(entry) = files.entries.get(&instance.0) else { return false };
    world.get(instance).is_some_and(|known| {
        files.is_managed()
            && files.has(instance)
            && known.wanted
            && (entry.is_enabled() || known.once)
    })
}

/// All that should be up.
pub fn ups(files: &Files, world: &World) -> BTreeSet<Instance> {
    let mut ups = BTreeSet::new();
    let mut carried: BTreeSet<String> = BTreeSet::new();
    for id in files.in_order() {
        let entry = &files.entries[&id];
        let held = entry
            .depends
            .iter()
            .any(|(on, edge)| edge.condition() != "completed" && !carried.contains(on));
        if held {
            continue;
        }
        for number in 0..entry.count() {
            let instance = (id.clone(), number);
            if is_wished(files, &instance, world) {
                carried.insert(id.clone());
                ups.insert(instance);
            }
        }
    }
    ups
}

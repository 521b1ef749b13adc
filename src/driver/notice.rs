//! How reloads ended: counted, and told to the commands that the file names.
//!
//! A hook is run as the user of processes that name none, apart from everything else, with a deadline;
//! one after the other. What it needs to know is in its environment. That it fails is said, and has no
//! other consequence: a change is not undone because nobody could be told of it.

use super::Driver;
use super::desk::Work;
use super::handle::{ReloadOutcome, Trigger};
use crate::backend::{Beside, CommandEnd};
use crate::config::load::Hooks;
use crate::core::ids::{InstanceId, ProcessId};
use crate::core::spec::{Command, ProcessSpec, Secret, Text};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tracing::Level;

/// So long a hook may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// What reloads came to, since this daemon was started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many ended in which way, by the words of [`ReloadOutcome::result`].
    pub counts: BTreeMap<&'static str, u64>,
    /// How long all of them took, to their verdicts.
    pub took: Duration,
    /// How long the last one took.
    pub last_took: Duration,
    /// When one last came up, or found that nothing differed.
    pub last_success: Option<SystemTime>,
}

impl Tally {
    fn count(&mut self, result: &'static str, took: Duration) {
        *self.counts.entry(result).or_default() += 1;
        self.took += took;
        self.last_took = took;
        if matches!(result, "applied" | "unchanged") {
            self.last_success = Some(SystemTime::now());
        }
    }
}

/// The command that is told of such an end, and the key that names it.
fn hook<'a>(hooks: &'a Hooks, result: &str) -> Option<(&'static str, &'a Arc<[Text]>)> {
    let (name, hook) = match result {
        "applied" => ("onApplied", &hooks.applied),
        "rejected" => ("onRejected", &hooks.rejected),
        "rolled-back" | "rollback-incomplete" | "failed-kept" => {
            ("onRolledBack", &hooks.rolled_back)
        }
        _ => return None,
    };
    Some((name, hook.as_ref()?))
}

impl Driver {
    /// A reload has ended, `took` after its files were asked for.
    pub(super) fn tell_outcome(&mut self, outcome: Arc<ReloadOutcome>, took: Duration) {
        Arc::make_mut(&mut self.tally).count(outcome.result, took);
        self.run_hook(&outcome);
        self.turn.reloads.push(outcome);
    }

    fn run_hook(&self, outcome: &ReloadOutcome) {
        let Some(active) = &self.desk.active else { return };
        let Some((name, words)) = hook(&active.daemon.hooks, outcome.result) else { return };
        // What stands above it in the file. Nobody else has commands of such a name.
        let Ok(id) = ProcessId::new("processManagement") else { return };
        let (instance, sender) =
            (InstanceId { process: id.clone(), index: 0 }, self.desk.work_sender());
        let Some((program, args)) = words.split_first() else { return };
        let command = Command::Program { program: program.clone(), args: args.into() };
        let argv = command.argv(0);
        let mut spec = ProcessSpec::new(id, command);
        let directory = self.options.location.main.parent();
        spec.exec.cwd = Text::new(&directory.unwrap_or("/".as_ref()).to_string_lossy());
        spec.exec.env = Arc::new(environment(outcome));
        let end =
            self.backend.run_in_context(&instance, &Arc::new(spec), Beside::Hook, argv, DEADLINE);
        tokio::spawn(async move {
            // The driver may have ended meanwhile.
            let _ = sender.send(Work::Told { name, end: end.await });
        });
    }

    pub(super) fn hook_ended(&mut self, name: &str, end: &CommandEnd) {
        let why = match end {
            CommandEnd::Success => return,
            CommandEnd::Failure(why) => why.clone(),
            CommandEnd::TimedOut => format!("not done within {} s", DEADLINE.as_secs()),
        };
        self.remark(Level::ERROR, "hook-failed", format!("the hook {name} failed: {why}"));
    }
}

/// So much of a text as a program can be given for sure, and nothing that ends it.
fn cut(text: String) -> String {
    const LONGEST: usize = 16 * 1024;
    let mut end = LONGEST.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].replace('\0', "")
}

/// What a hook is told.
fn environment(outcome: &ReloadOutcome) -> BTreeMap<String, Secret> {
    let uid = |trigger: &Trigger| trigger.uid().map(|uid| uid.to_string()).unwrap_or_default();
    let why = match outcome.result {
        "rejected" => super::history::lines(&outcome.diagnostics).join("\n"),
        _ => outcome.why.join("\n"),
    };
    let values = [
        ("PROVOST_RESULT", outcome.result.to_owned()),
        ("PROVOST_GENERATION", outcome.generation.to_string()),
        ("PROVOST_TRIED", outcome.tried.map(|tried| tried.to_string()).unwrap_or_default()),
        ("PROVOST_CAUSE", outcome.trigger.as_str().to_owned()),
        ("PROVOST_UID", uid(&outcome.trigger)),
        ("PROVOST_WHY", why),
    ];
    let values = values.map(|(name, value)| (name.to_owned(), Secret(Text::new(&cut(value)))));
    values.into()
}

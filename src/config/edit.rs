//! Edits in place that keep comments, order and formatting.
//!
//! An edit replaces or inserts a few bytes. The result is parsed again and must differ from the old
//! text in exactly what was asked for, aliases and merges followed; otherwise nothing is edited.

use super::yaml::{self, Kind, Node, Style};
use crate::core::ids::ProcessId;
use std::collections::BTreeSet;
use std::ops::Range;

/// Why a file was not edited. A person can do it with an editor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditRefused {
    /// The text is not valid to begin with.
    #[error("the file is not valid: {0}")]
    Invalid(String),
    /// It is not in this file.
    #[error("there is no process `{0}` in this file")]
    NoSuchProcess(ProcessId),
    /// The whole process is an alias or comes with a merge: it has no place of its own.
    #[error("process `{0}` stands here only by reference; edit what it refers to")]
    ByReference(ProcessId),
    /// It is written in a way that leaves no place for a line.
    #[error("process `{0}` is written in a way that cannot be edited; edit the file by hand")]
    Unusual(ProcessId),
    /// The edit would change more than was asked for: an anchored value is used elsewhere too.
    #[error("the change would reach further than {0}; edit the file by hand")]
    TooFar(String),
}

/// Sets `enabled` of some processes, where it is not so already.
///
/// # Errors
/// Says why it cannot be done; then nothing is to be written.
pub fn set_enabled(text: &str, ids: &[ProcessId], enabled: bool) -> Result<String, EditRefused> {
    let root = tree(text)?;
    let ids: BTreeSet<&ProcessId> = ids.iter().collect();
    let mut splices = Vec::new();
    for id in &ids {
        splices.extend(splice(text, &root, id, enabled)?);
    }
    splices.sort_by_key(|(range, _)| std::cmp::Reverse(range.start));
    let mut edited = text.to_owned();
    for (range, new) in splices {
        edited.replace_range(range, &new);
    }
    let names: Vec<String> = ids.iter().map(|id| format!("`{id}`")).collect();
    let too_far = || EditRefused::TooFar(names.join(", "));
    let after = tree(&edited).map_err(|_| too_far())?;
    let guard = Guard { ids: &ids, word: word(enabled) };
    if guard.file(&root, &after) { Ok(edited) } else { Err(too_far()) }
}

fn word(enabled: bool) -> &'static str {
    if enabled { "true" } else { "false" }
}

fn tree(text: &str) -> Result<Node<'_>, EditRefused> {
    let parsed = yaml::parse(text);
    if let Some(problem) = parsed.problems.first() {
        return Err(EditRefused::Invalid(problem.message.clone()));
    }
    parsed.root.ok_or_else(|| EditRefused::Invalid("it is empty".into()))
}

type Splice = (Range<usize>, String);

/// What to replace or insert for one process. None when it is so already.
fn splice(
    text: &str,
    root: &Node<'_>,
    id: &ProcessId,
    enabled: bool,
) -> Result<Option<Splice>, EditRefused> {
    let no_such = || EditRefused::NoSuchProcess(id.clone());
    let processes = root.get("processes").ok_or_else(no_such)?;
    let entries = processes.entries().ok_or_else(no_such)?;
    let own = entries.iter().find(|(key, _)| key.text() == Some(id.as_str()));
    let Some((key, process)) = own else {
        let merged = lookup(processes, id.as_str()).is_some();
        return Err(if merged { EditRefused::ByReference(id.clone()) } else { no_such() });
    };
    if process.alias || processes.alias {
        return Err(EditRefused::ByReference(id.clone()));
    }
    let unusual = || EditRefused::Unusual(id.clone());
    let Kind::Mapping { entries, flow } = &process.value.kind else { return Err(unusual()) };
    let now = lookup(process, "enabled").and_then(Node::text).unwrap_or("true");
    if now == word(enabled) {
        return Ok(None);
    }
    if let Some(value) = process.get("enabled") {
        return match &value.value.kind {
            Kind::Scalar { style: Style::Plain | Style::Quoted, .. }
            | Kind::Null { written: true } => {
                Ok(Some((value.at.range(), word(enabled).to_owned())))
            }
            _ => Err(unusual()),
        };
    }
    let line = format!("enabled: {}", word(enabled));
    let Some((first, _)) = entries.first() else {
        // `{}`
        let after = process.value.span.start as usize + 1;
        return Ok(Some((after..after, line)));
    };
    let first = first.at.range().start;
    if *flow {
        return Ok(Some((first..first, line + ", ")));
    }
    block_splice(text, key.at.range().end, first, &line).map(Some).ok_or_else(unusual)
}

/// Below the line of the key, before any comment that belongs to what follows; where something else
/// stands between, directly before the first entry.
fn block_splice(text: &str, key_end: usize, first: usize, line: &str) -> Option<Splice> {
    let begin = text[..first].rfind('\n')? + 1;
    let indent = &text[begin..first];
    if !indent.bytes().all(|b| b == b' ') {
        return None;
    }
    let below = key_end + text[key_end..first].find('\n')? + 1;
    let newline = if text[..below].ends_with("\r\n") { "\r\n" } else { "\n" };
    let comments = text[below..begin].lines().map(str::trim);
    if comments.into_iter().all(|between| between.is_empty() || between.starts_with('#')) {
        Some((below..below, format!("{indent}{line}{newline}")))
    } else {
        Some((first..first, format!("{line}{newline}{indent}")))
    }
}

/// The value of a key, merges followed.
fn lookup<'n, 'a>(node: &'n Node<'a>, key: &str) -> Option<&'n Node<'a>> {
    let merged = || {
        let (_, merge) = node.entries()?.iter().find(|(key, _)| key.is_merge())?;
        match &merge.value.kind {
            Kind::Sequence(items) => items.iter().find_map(|item| lookup(item, key)),
            _ => lookup(merge, key),
        }
    };
    node.get(key).or_else(merged)
}

/// Compares before and after.
struct Guard<'g> {
    ids: &'g BTreeSet<&'g ProcessId>,
    word: &'static str,
}

impl Guard<'_> {
    fn file(&self, before: &Node<'_>, after: &Node<'_>) -> bool {
        self.entries(before, after, |key, before, after| match key {
            Some("processes") => self.entries(before, after, |key, before, after| {
                match key.is_some_and(|key| self.ids.iter().any(|id| id.as_str() == key)) {
                    true => self.process(before, after),
                    false => same(before, after),
                }
            }),
            _ => same(before, after),
        })
    }

    /// The same keys in the same order, and each pair of values good.
    fn entries(
        &self,
        before: &Node<'_>,
        after: &Node<'_>,
        good: impl Fn(Option<&str>, &Node<'_>, &Node<'_>) -> bool,
    ) -> bool {
        let (Some(before), Some(after)) = (before.entries(), after.entries()) else {
            return false;
        };
        before.len() == after.len()
            && before.iter().zip(after).all(|((old_key, old), (new_key, new))| {
                same(old_key, new_key) && good(new_key.text(), old, new)
            })
    }

    /// All but `enabled` is the same, and that is what was asked for.
    fn process(&self, before: &Node<'_>, after: &Node<'_>) -> bool {
        let (Some(old), Some(new)) = (before.entries(), after.entries()) else { return false };
        let rest = |entries: &'_ [(Node<'_>, Node<'_>)]| -> Vec<usize> {
            (0..entries.len()).filter(|n| entries[*n].0.text() != Some("enabled")).collect()
        };
        let (old_rest, new_rest) = (rest(old), rest(new));
        let others_are_same = old_rest.len() == new_rest.len()
            && old_rest
                .iter()
                .zip(&new_rest)
                .all(|(o, n)| same(&old[*o].0, &new[*n].0) && same(&old[*o].1, &new[*n].1));
        let now = lookup(after, "enabled").map_or(Some("true"), Node::text);
        others_are_same && new.len() - new_rest.len() <= 1 && now == Some(self.word)
    }
}

/// Whether both mean the same, aliases followed.
fn same(a: &Node<'_>, b: &Node<'_>) -> bool {
    match (&a.value.kind, &b.value.kind) {
        (Kind::Null { written: a }, Kind::Null { written: b }) => a == b,
        (Kind::Scalar { text: a, style: x }, Kind::Scalar { text: b, style: y }) => {
            a == b && x == y
        }
        (Kind::Sequence(a), Kind::Sequence(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Kind::Mapping { entries: a, .. }, Kind::Mapping { entries: b, .. }) => {
            a.len() == b.len() && a.iter().zip(b).all(|((k, v), (l, w))| same(k, l) && same(v, w))
        }
        _ => false,
    }
}

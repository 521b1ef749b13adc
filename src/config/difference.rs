//! Files as they may be shown, and what differs between those of two configurations.
//!
//! The values of variables are masked before anything is compared, so none of them is in a
//! difference; that some of them differ is told all the same.

use super::load::{Location, Source, Sources, load_kept};
use super::mask;
use crate::core::reload::{ChangeKind, Plan};
use similar::TextDiff;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// After so long a difference is no longer looked for at its smallest.
const PATIENCE: Duration = Duration::from_secs(2);

/// What differs in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDifference {
    /// Absolute.
    pub path: PathBuf,
    /// Whether it is there in one of the two only.
    pub kind: ChangeKind,
    /// The hunks of a unified diff, without a header; empty where nothing that is shown differs.
    pub text: String,
    /// Whether values differ that are not shown.
    pub hidden: bool,
}

/// What differs between two configurations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// By process and field; None where one of the two is not valid, as a newer version or this
    /// machine sees it.
    pub plan: Option<Plan>,
    /// By file.
    pub files: Vec<FileDifference>,
}

/// What differs between two configurations, from their files.
#[must_use]
pub fn between(location: &Location, old: &Sources, new: &Sources) -> Difference {
    let config = |sources| load_kept(location, sources).config;
    let plan = match (config(old), config(new)) {
        (Some(old), Some(new)) => Some(Plan::between(&old, &new)),
        _ => None,
    };
    Difference { plan, files: differences(old, new) }
}

/// The text of a file with its secrets masked; None where there is no file.
///
/// A control character is shown as its escape, so that no file can command a terminal.
#[must_use]
pub fn shown(source: &Source) -> Option<String> {
    Masked::of(source).map(|masked| masked.shown)
}

/// What differs between the files of two configurations, in the order of their paths.
#[must_use]
pub fn differences(old: &Sources, new: &Sources) -> Vec<FileDifference> {
    let (old, new) = (by_path(old), by_path(new));
    let paths: BTreeSet<&Path> = old.keys().chain(new.keys()).copied().collect();
    let compare = |path: &Path| {
        let (was, is) = (old.get(path).copied(), new.get(path).copied());
        difference(path, was, is)
    };
    paths.into_iter().filter_map(compare).collect()
}

/// The files that are there.
fn by_path(sources: &Sources) -> BTreeMap<&Path, &Source> {
    let there = sources.files.iter().filter(|file| file.content.is_some());
    there.map(|file| (file.path.as_path(), file)).collect()
}

fn difference(path: &Path, was: Option<&Source>, is: Option<&Source>) -> Option<FileDifference> {
    let content = |source: Option<&Source>| source.and_then(|source| source.content.clone());
    if content(was) == content(is) {
        return None;
    }
    let kind = match (was, is) {
        (None, _) => ChangeKind::Added,
        (_, None) => ChangeKind::Removed,
        (Some(_), Some(_)) => ChangeKind::Modified,
    };
    let masked = |source: Option<&Source>| source.and_then(Masked::of).unwrap_or_default();
    let (was, is) = (masked(was), masked(is));
    let hidden = kind == ChangeKind::Modified && was.secrets != is.secrets;
    let mut config = TextDiff::configure();
    let diff = config.timeout(PATIENCE).diff_lines(was.shown.as_str(), is.shown.as_str());
    let text = diff.unified_diff().to_string();
    Some(FileDifference { path: path.to_owned(), kind, text, hidden })
}

/// A text, and what is not shown of it.
#[derive(Default)]
struct Masked {
    shown: String,
    secrets: Vec<String>,
}

impl Masked {
    fn of(source: &Source) -> Option<Masked> {
        let content = source.content.as_deref()?;
        let text = String::from_utf8_lossy(content);
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        Some(Masked::new(text, &mask::secrets(text, source.kind)))
    }

    fn new(text: &str, secrets: &[Range<usize>]) -> Masked {
        let mut masked = Masked::default();
        let mut at = 0;
        for secret in secrets {
            masked.show(&text[at..secret.start]);
            let value = &text[secret.clone()];
            masked.shown.push_str(if value.starts_with(' ') { " ***" } else { "***" });
            masked.secrets.push(value.to_owned());
            at = secret.end;
        }
        masked.show(&text[at..]);
        masked
    }

    fn show(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '\n' | '\t' => self.shown.push(c),
                c if c.is_control() => self.shown.extend(c.escape_default()),
                c => self.shown.push(c),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::SourceKind;
    use std::sync::Arc;

    fn source(path: &str, kind: SourceKind, content: Option<&str>) -> Source {
        Source {
            path: Arc::new(path.into()),
            content: content.map(|content| content.as_bytes().into()),
            modified: None,
            kind,
        }
    }

    fn sources(files: Vec<Source>) -> Sources {
        Sources::new(files, "/c/processes.d".into(), false)
    }

    fn main(content: &str) -> Sources {
        sources(vec![source("/c/p.yaml", SourceKind::Main, Some(content))])
    }

    #[test]
    fn a_file_is_shown_without_secrets_and_commands() {
        let text = "p:\r\n  # \u{1b}[2J\n  env: {A: hunter2}\n";
        let file = source("/c/p.yaml", SourceKind::Main, Some(text));
        assert_eq!(shown(&file).unwrap(), "p:\\r\n  # \\u{1b}[2J\n  env: ***\n");
        let file = source("/c/e.env", SourceKind::Env, Some("A=hunter2\nexport B='x\ny'\n"));
        assert_eq!(shown(&file).unwrap(), "A=***\nexport B=***\n***\n");
        assert_eq!(shown(&source("/c/p.yaml", SourceKind::Main, None)), None);
    }

    #[test]
    fn what_differs_is_told_and_no_secret_with_it() {
        let old = main("p:\n  a: 1\n  env: {A: hunter1}\n");
        let new = main("p:\n  a: 2\n  env: {A: hunter2}\n");
        let found = differences(&old, &new);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].text, "@@ -1,3 +1,3 @@\n p:\n-  a: 1\n+  a: 2\n   env: {A: ***}\n");
        assert!(found[0].hidden);
        assert_eq!(differences(&old, &old), []);
        let new = main("p:\n  a: 1\n  env: {A: hunter3}\n");
        let found = differences(&old, &new);
        assert_eq!((found[0].text.as_str(), found[0].hidden), ("", true));
    }

    #[test]
    fn a_file_may_come_and_go() {
        let with = |content| {
            let mut all = main("a: 1\n");
            all.files.push(source("/c/e.env", SourceKind::Env, content));
            all
        };
        let kinds = |old: &Sources, new: &Sources| {
            let found = differences(old, new).into_iter();
            found.map(|one| (one.kind, one.text, one.hidden)).collect::<Vec<_>>()
        };
        let there = with(Some("A=hunter2\n"));
        for without in [with(None), main("a: 1\n")] {
            let text = "@@ -0,0 +1 @@\n+A=***\n".to_owned();
            assert_eq!(kinds(&without, &there), [(ChangeKind::Added, text, false)]);
            let text = "@@ -1 +0,0 @@\n-A=***\n".to_owned();
            assert_eq!(kinds(&there, &without), [(ChangeKind::Removed, text, false)]);
        }
    }
}

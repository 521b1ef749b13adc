//! From trees to specs, collecting everything that is wrong.
//!
//! A value that is wrong is reported and replaced by its default, so that the rest is looked at
//! too; what comes out is used only when nothing was reported as an error.

mod at;
mod blocks;
mod environment;
mod fields;
mod file;
mod graph;
mod parts;
mod process;
mod renewal;
mod resources;
mod sockets;
mod values;

pub(crate) use blocks::{Block, Blocks};
pub(crate) use file::{Found, Role, Settings};

use at::At;

use super::diagnostic::{Diagnostic, Place, Report};
use super::load::Mode;
use super::read::FileSet;
use super::text::SourceText;
use super::yaml::{Span, Value};
use crate::core::ids::ProcessId;
use crate::core::spec::{Dependency, Listen, ProcessSpec, Secret, Text};
use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// So many bytes of text may come out of all files. Aliases and `${NAME}` can make much of little.
const MOST_TEXT: u64 = 256 << 20;

/// What all files add up to.
pub(crate) struct Whole {
    /// What is wrong.
    pub(crate) report: Report,
    /// What was read.
    pub(crate) files: FileSet,
    /// Whose daemon it is.
    pub(crate) mode: Mode,
    /// The daemon's own environment.
    pub(crate) environment: Arc<BTreeMap<String, String>>,
    /// Settings of the daemon and defaults of processes.
    pub(crate) settings: Settings,
    /// The processes so far.
    pub(crate) processes: BTreeMap<ProcessId, Lowered>,
    /// Whether any of it depends on what the directories on the way to a file are.
    pub(crate) depends_on_links: bool,
    env_files: HashMap<PathBuf, EnvFile>,
    /// How many of them were taken over from what was known.
    pub(crate) taken_over: usize,
    /// How much text came out of all files, see [`MOST_TEXT`].
    pub(crate) text: u64,
    /// The process that was read last: what the next one has alike is there once.
    last: Option<Arc<ProcessSpec>>,
}

/// An environment file that was read.
#[derive(Clone)]
struct EnvFile {
    /// None where it could not be read.
    content: Option<Arc<[u8]>>,
    /// None where something is wrong with it.
    values: Option<Rc<BTreeMap<String, String>>>,
}

/// A process and what the others must know of it.
pub(crate) struct Lowered {
    /// What it is to be.
    pub(crate) spec: Arc<ProcessSpec>,
    /// The environment files it names.
    pub(crate) env_files: Vec<PathBuf>,
    /// Where its id stands.
    pub(crate) place: Place,
    /// What it depends on, as written, with the place of each.
    pub(crate) edges: Vec<(Dependency, Place)>,
    /// Where its sockets are, with the place of each.
    pub(crate) sockets: Vec<(Listen, Place)>,
    /// Whether its restart policy was readable.
    pub(crate) restart_is_sure: bool,
    /// Whether its check was readable.
    pub(crate) health_is_sure: bool,
}

impl Whole {
    /// The user of a process that names none; None: the caller. A default is resolved here, before
    /// files are compared, so that another default is a change of each process that inherits it.
    fn default_user(&self) -> Option<Arc<str>> {
        let other = self.mode == Mode::System && nix::unistd::geteuid().is_root();
        other.then(|| self.settings.daemon.default_user.clone())
    }

    pub(crate) fn new(
        mode: Mode,
        environment: Arc<BTreeMap<String, String>>,
        files: FileSet,
    ) -> Whole {
        Whole {
            report: Report::default(),
            files,
            mode,
            environment,
            settings: Settings::default(),
            processes: BTreeMap::new(),
            depends_on_links: false,
            taken_over: 0,
            env_files: HashMap::new(),
            text: 0,
            last: None,
        }
    }

    /// Counts text that comes out of the files; false when it is too much.
    fn charge(&mut self, bytes: usize) -> bool {
        self.charge_all(bytes as u64)
    }

    /// The same, of a whole file.
    pub(crate) fn charge_all(&mut self, bytes: u64) -> bool {
        self.text = self.text.saturating_add(bytes);
        self.text <= MOST_TEXT
    }
}

/// One file on its way.
pub(crate) struct File<'w, 's> {
    /// What all files add up to.
    whole: &'w mut Whole,
    /// Its text.
    source: &'s SourceText<'s>,
    /// Relative paths are relative to this directory.
    base: PathBuf,
    /// Lists and environments behind an alias, made once. By the address of the value, which lives
    /// as long as the tree, and the tree as long as this.
    texts: HashMap<*const Value<'s>, Arc<[Text]>>,
    environments: HashMap<*const Value<'s>, Arc<BTreeMap<String, Secret>>>,
}

impl<'w, 's> File<'w, 's> {
    pub(crate) fn new(whole: &'w mut Whole, source: &'s SourceText<'s>) -> File<'w, 's> {
        let base = source.path.parent().unwrap_or(Path::new("/")).to_owned();
        File { whole, source, base, texts: HashMap::new(), environments: HashMap::new() }
    }

    fn add(&mut self, diagnostic: Diagnostic) {
        self.whole.report.add(diagnostic);
    }

    /// An error at a value, with the aliases that use it.
    fn problem(
        &self,
        code: &'static str,
        at: &At<'_, 's>,
        message: impl Into<String>,
    ) -> Diagnostic {
        let mut diagnostic = Diagnostic::error(code, self.source.at(at.span()), message);
        for at in at.uses() {
            diagnostic = diagnostic.related(self.source.at(at), "used here");
        }
        diagnostic
    }

    fn place(&self, span: Span) -> Place {
        self.source.at(span)
    }

    /// See [`absolute`].
    fn below_base(&mut self, text: &str) -> String {
        let path = self.base.join(text);
        let leads_up = path.components().any(|component| component == Component::ParentDir);
        self.whole.depends_on_links |= leads_up;
        absolute(&self.base, text)
    }
}

/// A path as text: relative ones below `base`, without `./`, and without `..` where that cannot
/// lead elsewhere.
fn absolute(base: &Path, text: &str) -> String {
    let mut clean = PathBuf::new();
    // Components leave `.` and doubled slashes out.
    for component in base.join(text).components() {
        match component {
            // What is above a symlink's target is not what is above the symlink.
            Component::ParentDir if !clean.is_symlink() => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_are_below_the_base() {
        let base = Path::new("/etc/provost");
        assert_eq!(absolute(base, "./logs/a.log"), "/etc/provost/logs/a.log");
        assert_eq!(absolute(base, "../x/./y//z/"), "/etc/x/y/z");
        assert_eq!(absolute(base, "../../../.."), "/");
        assert_eq!(absolute(base, "/srv/app"), "/srv/app");
        assert_eq!(absolute(base, "."), "/etc/provost");
        // A symlink on every Linux.
        assert_eq!(absolute(base, "/proc/self/../x"), "/proc/self/../x");
    }
}

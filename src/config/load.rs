//! Reads all files of a configuration once, and makes a [`Config`] of them.

use super::diagnostic::{Diagnostic, Place, Severity};
use super::known::{Basis, Former, Known, Part};
use super::lower::{File, Found, Role, Whole};
use super::read::{FileSet, ReadError};
use super::text::{SourceText, invalid_utf8_at};
use super::yaml;
use crate::core::ids::ProcessId;
use crate::core::spec::{Config, Text};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Whose daemon it is: what differs between the system's, a user's and a project's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The system's: processes run as the unprivileged default user unless they name another, and
    /// nothing of the daemon's environment is visible.
    System,
    /// A user's, or `provost up`: processes run as the caller and see its PATH; `${NAME}` is looked
    /// up in the daemon's environment last.
    User,
}

/// Where a configuration is.
#[derive(Clone)]
pub struct Location {
    /// The main file, absolute: it has `processManagement:`, `processes:`, or both.
    pub main: PathBuf,
    /// Whose daemon it is.
    pub mode: Mode,
    /// The daemon's own environment, for [`Mode::User`].
    pub environment: Arc<BTreeMap<String, String>>,
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nobody is shown a value of an environment.
        let mut shown = f.debug_struct("Location");
        shown.field("main", &self.main).field("mode", &self.mode).finish_non_exhaustive()
    }
}

/// What runs the processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// systemd where it is the running manager and we may start units, else the daemon itself.
    #[default]
    Auto,
    /// systemd.
    Systemd,
    /// The daemon itself.
    Native,
}

impl BackendChoice {
    /// The choice that a word of the file stands for.
    #[must_use]
    pub fn of(word: &str) -> Option<BackendChoice> {
        match word {
            "auto" => Some(BackendChoice::Auto),
            "systemd" => Some(BackendChoice::Systemd),
            "native" => Some(BackendChoice::Native),
            _ => None,
        }
    }

    /// The backend that it names; None where it leaves that open.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        match self {
            BackendChoice::Auto => None,
            BackendChoice::Systemd => Some("systemd"),
            BackendChoice::Native => Some("native"),
        }
    }
}

/// Settings that concern the daemon and not the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonSettings {
    /// Whether changes of the files are noticed by themselves.
    pub watch: bool,
    /// How long a finished write settles.
    pub debounce: Duration,
    /// Whether a new configuration is checked against the machine.
    pub validate: bool,
    /// The user of processes that name none, in [`Mode::System`].
    pub default_user: Arc<str>,
    /// What runs the processes.
    pub backend: BackendChoice,
    /// How many generations are kept.
    pub history: usize,
    /// Who is told how reloads end.
    pub hooks: Hooks,
}

/// Commands that are told how reloads end; a program and its arguments each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// After a change that came up.
    pub applied: Option<Arc<[Text]>>,
    /// After a change that is not valid.
    pub rejected: Option<Arc<[Text]>>,
    /// After a change that did not come up.
    pub rolled_back: Option<Arc<[Text]>>,
}

impl Default for DaemonSettings {
    fn default() -> Self {
        DaemonSettings {
            watch: true,
            debounce: Duration::from_millis(100),
            validate: true,
            default_user: Arc::from("provost"),
            backend: BackendChoice::Auto,
            history: 50,
            hooks: Hooks::default(),
        }
    }
}

/// One file that was read, with its content, so that diagnostics can show excerpts and a later
/// generation can keep it.
#[derive(Clone)]
pub struct Source {
    /// Absolute.
    pub path: Arc<PathBuf>,
    /// Its content; None when it is missing or could not be read.
    pub content: Option<Arc<[u8]>>,
    /// When it was last modified.
    pub modified: Option<SystemTime>,
    /// What it is.
    pub kind: SourceKind,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // There are values of environments in the content.
        let mut shown = f.debug_struct("Source");
        shown.field("path", &self.path).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKind {
    /// The file named on the command line, or the standard one.
    Main,
    /// The file named by `processConfigFile`.
    Processes,
    /// A file of the drop-in directory.
    DropIn,
    /// An environment file.
    Env,
}

impl SourceKind {
    /// The word, as it is kept and shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            SourceKind::Main => "main",
            SourceKind::Processes => "processes",
            SourceKind::DropIn => "drop-in",
            SourceKind::Env => "env",
        }
    }
}

/// All that was read, whatever came of it.
#[derive(Clone, Debug)]
pub struct Sources {
    /// In the order read.
    pub files: Vec<Source>,
    /// The drop-in directory, whether or not it exists.
    pub drop_ins: PathBuf,
    /// Whether it exists.
    pub has_drop_ins: bool,
    /// SHA-256 over paths and contents, in hex.
    pub digest: String,
}

impl Sources {
    /// Files of some time, in the order they were read, with the digest they have together.
    #[must_use]
    pub fn new(files: Vec<Source>, drop_ins: PathBuf, has_drop_ins: bool) -> Sources {
        let digest = digest(&files);
        Sources { files, drop_ins, has_drop_ins, digest }
    }

    /// What was read from a directory as drop-ins; None where there was no such directory.
    pub(crate) fn drop_ins_in(&self, directory: &Path) -> Option<Vec<PathBuf>> {
        if !self.has_drop_ins || self.drop_ins != directory {
            return None;
        }
        let drop_ins = self.files.iter().filter(|file| file.kind == SourceKind::DropIn);
        Some(drop_ins.map(|file| file.path.to_path_buf()).collect())
    }
}

/// What came of reading a configuration.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// All that was read. Also complete when there are errors, so that the right files are watched.
    pub sources: Sources,
    /// The configuration, when there is no error.
    pub config: Option<Arc<Config>>,
    /// The daemon's settings, when there is no error.
    pub daemon: DaemonSettings,
    /// Whether the file with the processes is missing.
    pub missing: bool,
    /// All errors and warnings, in the order of the files and places.
    pub diagnostics: Vec<Diagnostic>,
    /// Where each process is defined, for messages about it later.
    pub places: BTreeMap<ProcessId, Place>,
    /// How many processes were taken over from what was known, and not read again.
    pub taken_over: usize,
    /// A file that somebody was writing while it was read: what is read of it may be the half of it.
    pub unfinished: Option<PathBuf>,
    /// What the next one can be read upon.
    pub(crate) basis: Option<Arc<Basis>>,
}

/// Whether somebody is still writing a file that is [`Loaded::unfinished`]: it is not closed, and was
/// written to within the last two seconds. Blocks.
#[must_use]
pub fn is_being_written(path: &Path) -> bool {
    super::read::is_being_written(path)
}

/// What the main file says of the things a daemon has to know before it reads its configuration:
/// what runs the processes. Whatever is wrong with the file is said when it is read as a whole.
#[must_use]
pub fn backend_choice(main: &Path) -> BackendChoice {
    let content = super::read::peek(main).unwrap_or_default();
    let Ok(text) = std::str::from_utf8(&content) else { return BackendChoice::default() };
    let root = yaml::parse(text).root;
    let word = root.as_ref().and_then(|root| root.get("processManagement")?.get("backend")?.text());
    word.and_then(BackendChoice::of).unwrap_or_default()
}

/// How often reading begins anew because files changed meanwhile.
const TRIES: u32 = 5;

/// Reads and validates a configuration. Every file is read once, and what comes of it was in all of
/// them at one moment: when another version of some takes their place meanwhile, as a whole directory
/// of files that is swapped, reading begins anew.
///
/// Where the file with the processes is missing, there is a warning, and the configuration is what
/// the other files say: usually no process at all.
#[must_use]
pub fn load(location: &Location) -> Loaded {
    load_with(location, None)
}

/// The same, with a content that stands in for the file with the processes: what a change of that
/// file would mean. The main file is that file unless it has `processManagement` alone.
#[must_use]
pub fn load_with(location: &Location, content: Option<Vec<u8>>) -> Loaded {
    load_over(None, location, content)
}

/// The same, and what comes of it is the same; of what is known from before only what differs is read
/// again as YAML.
#[must_use]
pub fn load_over(known: Option<&Known>, location: &Location, content: Option<Vec<u8>>) -> Loaded {
    let mut former = known.and_then(|known| known.basis(location));
    let mut tries = 0;
    loop {
        let mut loading = Loading::new(location, FileSet::default(), content.clone());
        loading.former = former;
        let drop_ins = loading.all();
        if former.is_some() && (loading.is_spoilt || !loading.whole.report.is_empty()) {
            former = None;
            continue;
        }
        tries += 1;
        let unfinished = loading.whole.files.being_written();
        if !loading.whole.files.is_current() {
            if tries < TRIES {
                continue;
            }
            let place = Place::whole(Arc::new(location.main.clone()));
            let message = "the files changed while they were read, time and again";
            loading.whole.report.add(Diagnostic::error("changing", place, message));
        }
        return Loaded { unfinished, ..loading.finish(drop_ins) };
    }
}

/// The same, of files as they were kept; what is on disk is not looked at. The daemon's own
/// environment, where it is visible to processes, is that of now.
///
/// A configuration that then was good can be refused now, by a newer version, or because the ways to
/// its files have become others.
#[must_use]
pub fn load_kept(location: &Location, kept: &Sources) -> Loaded {
    let mut loading = Loading::new(location, FileSet::of(kept.clone()), None);
    let drop_ins = loading.all();
    loading.finish(drop_ins)
}

struct Loading<'k> {
    whole: Whole,
    /// What was known before.
    former: Option<Former<'k>>,
    /// What was taken over from it does not fit.
    is_spoilt: bool,
    /// What the next one can be read upon.
    parts: Vec<Part>,
    missing: bool,
    main: PathBuf,
    stand_in: Option<Vec<u8>>,
}

impl<'k> Loading<'k> {
    fn new(location: &Location, files: FileSet, stand_in: Option<Vec<u8>>) -> Loading<'k> {
        Loading {
            whole: Whole::new(location.mode, Arc::clone(&location.environment), files),
            former: None,
            is_spoilt: false,
            parts: Vec::new(),
            missing: false,
            main: location.main.clone(),
            stand_in,
        }
    }

    /// Reads the main file, the file with the processes and the drop-ins; returns where the last
    /// ones are.
    fn all(&mut self) -> PathBuf {
        let main = self.main.clone();
        let beside = main.with_file_name("processes.yaml");
        let mut processes_in = main.clone();
        let content = match self.stand_in_is_main() {
            true => self.stand_in.take(),
            false => None,
        };
        let main_found = self.file(&main, SourceKind::Main, content);
        let named = self.whole.settings.process_file.clone();
        match (named, main_found) {
            (Some((path, _)), _) if path == main => {}
            (Some((path, place)), found) => {
                processes_in = path.clone();
                let content = self.stand_in.take();
                if self.file(&path, SourceKind::Processes, content).is_none() {
                    self.missing = !found.is_some_and(|found| found.processes);
                    self.warn_of_missing(&path, Some(place));
                }
            }
            (None, Some(Found { processes: true, .. })) => {}
            (None, Some(Found { management: false, .. })) => {}
            (None, found) if beside != main => {
                processes_in = beside.clone();
                let content = self.stand_in.take();
                let is_there = self.file(&beside, SourceKind::Processes, content).is_some();
                self.missing = !is_there;
                match found {
                    Some(_) if !is_there => self.warn_of_missing(&beside, None),
                    None if !is_there => self.warn_of_missing(&main, None),
                    // A name with a typo must not run another file without a word.
                    None if !main.ends_with("provost.yaml") => {
                        self.warn_of_substitute(&main, &beside);
                    }
                    _ => {}
                }
            }
            (None, Some(_)) => {
                let message = "the file has no `processes:` and names no `processConfigFile`";
                let place = Place::whole(Arc::new(main.clone()));
                self.whole.report.add(Diagnostic::error("no-processes", place, message));
            }
            (None, None) => {
                self.missing = true;
                self.warn_of_missing(&main, None);
            }
        }
        let directory = processes_in.with_file_name("processes.d");
        self.drop_ins(&directory);
        self.whole.check_graph();
        self.whole.check_sockets();
        directory
    }

    /// Whether the content that stands in is that of the main file. A look at the file on disk
    /// tells: one that has `processManagement` alone is not the file with the processes.
    fn stand_in_is_main(&self) -> bool {
        if self.stand_in.is_none() {
            return false;
        }
        let Ok(content) = super::read::peek(&self.main) else {
            return self.main.file_name() == Some("processes.yaml".as_ref())
                || !self.main.with_file_name("processes.yaml").exists();
        };
        if self.former.is_some_and(|former| former.has_processes(&self.main, &content)) {
            return true;
        }
        let parsed = std::str::from_utf8(&content).map(yaml::parse);
        let root = parsed.ok().and_then(|parsed| parsed.root);
        root.is_none_or(|root| {
            root.get("processes").is_some() || root.get("processManagement").is_none()
        })
    }

    /// Reads one file; None when it is missing. What else is wrong with it is reported.
    fn file(&mut self, path: &Path, kind: SourceKind, content: Option<Vec<u8>>) -> Option<Found> {
        let (path, outcome) = match content {
            Some(content) => self.whole.files.stand_in(path, kind, content),
            None => self.whole.files.read(path, kind),
        };
        let unreadable = Found { processes: true, management: true };
        let content = match outcome {
            Ok(content) => content,
            Err(ReadError::Missing) => return None,
            Err(error) => {
                let message = format!("cannot read {}: {error}", path.display());
                let problem = Diagnostic::error("unreadable", Place::whole(path), message);
                self.whole.report.add(problem);
                return Some(unreadable);
            }
        };
        let text = match std::str::from_utf8(&content) {
            Ok(text) => text,
            Err(error) => {
                self.not_utf8(path, &content, error.valid_up_to());
                return Some(unreadable);
            }
        };
        let role = if kind == SourceKind::Main { Role::Main } else { Role::Processes };
        let whole = &mut self.whole;
        let former = self.former;
        let divided = former.and_then(|former| former.divide(&path, kind, &whole.settings, text));
        if let Some(divided) = divided {
            let Some((found, part)) = divided.lower(whole, (path, content.clone(), text), role)
            else {
                self.is_spoilt = true;
                return Some(unreadable);
            };
            self.parts.push(part);
            return Some(found);
        }
        let source = SourceText::new(Arc::clone(&path), text);
        let before = whole.text;
        let (found, blocks) = File::new(whole, &source).lower(role);
        let text = whole.text - before;
        self.parts
            .extend(blocks.map(|blocks| Part::new((path, kind), content.clone(), blocks, text)));
        Some(found)
    }

    fn not_utf8(&mut self, file: Arc<PathBuf>, content: &[u8], start: usize) {
        let (line, column) = invalid_utf8_at(content, start);
        let place = Place { file, line, column, bytes: start..start + 1 };
        let mut problem = Diagnostic::error("not-utf8", place, "the file is not UTF-8");
        if content.starts_with(&[0xff, 0xfe]) || content.starts_with(&[0xfe, 0xff]) {
            problem = problem.help("it looks like UTF-16; save it as UTF-8");
        }
        self.whole.report.add(problem);
    }

    fn warn_of_missing(&mut self, path: &Path, named: Option<Place>) {
        let message = format!("{} does not exist; it is picked up when it appears", path.display());
        let help = named.as_ref().and_then(|_| self.elsewhere(path));
        let place = named.unwrap_or_else(|| Place::whole(Arc::new(path.to_owned())));
        let mut problem = Diagnostic::warning("missing-file", place, message);
        problem.help = help;
        self.whole.report.add(problem);
    }

    fn warn_of_substitute(&mut self, main: &Path, beside: &Path) {
        let message = format!("{} does not exist; {} is used", main.display(), beside.display());
        let place = Place::whole(Arc::new(main.to_owned()));
        self.whole.report.add(Diagnostic::warning("missing-file", place, message));
    }

    /// `config/proxy.yaml` that names `config/processes.yaml` means the directory above.
    fn elsewhere(&self, path: &Path) -> Option<String> {
        if self.whole.files.is_kept() {
            return None;
        }
        let directory = self.main.parent()?;
        let relative = path.strip_prefix(directory).ok()?;
        let above = directory.parent()?.join(relative);
        above.exists().then(|| {
            format!(
                "{} exists; `baseDir: ..` at the top of {} makes its paths relative to the \
                 directory above",
                above.display(),
                self.main.display()
            )
        })
    }

    /// Files of the drop-in directory in the order of their names. Those that editors leave behind
    /// do not end in `.yaml` or begin with a dot.
    fn drop_ins(&mut self, directory: &Path) {
        let paths = match self.whole.files.list(directory) {
            Ok(paths) => paths.unwrap_or_default(),
            Err(error) => {
                let place = Place::whole(Arc::new(directory.to_owned()));
                let error = ReadError::from(error);
                let message = format!("cannot read {}: {error}", directory.display());
                self.whole.report.add(Diagnostic::error("unreadable", place, message));
                return;
            }
        };
        for path in paths {
            if is_drop_in(&path) {
                // One that vanished since is as if it had never been there.
                self.file(&path, SourceKind::DropIn, None);
            } else if path.extension().is_some_and(|extension| extension == "yml") {
                let place = Place::whole(Arc::new(path));
                let message = "only files that end in `.yaml` are read here";
                self.whole.report.add(Diagnostic::warning("ignored-file", place, message));
            }
        }
    }

    fn finish(self, drop_ins: PathBuf) -> Loaded {
        let is_clean = self.whole.report.is_empty();
        let parts = self.parts;
        let basis = is_clean.then(|| Basis::of(&self.whole, parts)).flatten().map(Arc::new);
        let Whole { report, files, processes, settings, taken_over, .. } = self.whole;
        let good = !report.has_errors();
        let mut diagnostics = report.into_vec();
        let order: HashMap<&Path, usize> =
            files.sources.iter().rev().enumerate().map(|(n, s)| (s.path.as_path(), n)).collect();
        diagnostics.sort_by_key(|problem| {
            let place = &problem.place;
            let file = order.get(place.file.as_path()).copied();
            (file.is_none(), std::cmp::Reverse(file), place.line, place.column)
        });
        debug_assert!(good || diagnostics.iter().any(|d| d.severity == Severity::Error));
        let places =
            processes.iter().map(|(id, lowered)| (id.clone(), lowered.place.clone())).collect();
        let config = good.then(|| {
            let specs = processes.into_iter().map(|(id, lowered)| (id, lowered.spec));
            Arc::new(Config { settings: settings.core.clone(), processes: specs.collect() })
        });
        let daemon = if good { settings.daemon } else { DaemonSettings::default() };
        let has_drop_ins = !files.lacks_directory();
        let sources = Sources::new(files.sources, drop_ins, has_drop_ins);
        let missing = self.missing;
        let unfinished = None;
        Loaded {
            sources,
            config,
            daemon,
            missing,
            diagnostics,
            places,
            taken_over,
            unfinished,
            basis,
        }
    }
}

/// Whether a file in the drop-in directory is meant.
pub(crate) fn is_drop_in(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.as_encoded_bytes()).unwrap_or_default();
    name.ends_with(b".yaml") && !name.starts_with(b".") && !name.starts_with(b"#")
}

/// SHA-256 over paths and contents. Lengths keep neighbours apart; a missing file differs from an
/// empty one.
pub(crate) fn digest(sources: &[Source]) -> String {
    let mut hash = Sha256::new();
    for source in sources {
        let path = source.path.as_os_str().as_encoded_bytes();
        hash.update((path.len() as u64).to_le_bytes());
        hash.update(path);
        match &source.content {
            Some(content) => {
                hash.update((content.len() as u64).to_le_bytes());
                hash.update(content);
            }
            None => hash.update(u64::MAX.to_le_bytes()),
        }
    }
    hash.finalize().iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

//! What can be told of the machine before a process is started.
//!
//! A later start can fail all the same, and one that looks bad here can come good until then; so
//! these are found at a reload, where a person waits for the answer, and not at boot.

use super::diagnostic::{Diagnostic, Place, shown};
use super::environment::SYSTEM_PATH;
use super::load::Mode;
use crate::core::ids::ProcessId;
use crate::core::spec::{Check, Command, Config, ExecSpec, ProcessSpec, Rendered, Text};
use nix::unistd::{Gid, Group, Uid, User};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Checks some processes against the machine.
///
/// `default_user` is who runs a process that names no user in [`Mode::System`]; `places` is where
/// each process is defined. Disabled processes are not checked: they are not started.
#[must_use]
pub fn check_machine(
    config: &Config,
    which: &BTreeSet<ProcessId>,
    mode: Mode,
    default_user: &str,
    places: &BTreeMap<ProcessId, Place>,
) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let processes = which.iter().filter_map(|id| config.processes.get(id));
    for spec in processes.filter(|spec| spec.enabled) {
        let whole = || Place::whole(Arc::default());
        let place = places.get(&spec.id).cloned().unwrap_or_else(whole);
        let mut looker = Looker { spec, mode, place, found: &mut found };
        looker.all(default_user);
    }
    found
}

/// The files of programs, and when they became what they are. Each is looked for once, however many
/// processes run it.
pub struct Programs {
    mode: Mode,
    /// By program, working directory and PATH.
    found: HashMap<[String; 3], Option<SystemTime>>,
}

impl Programs {
    /// Nothing was looked for yet.
    #[must_use]
    pub fn new(mode: Mode) -> Programs {
        Programs { mode, found: HashMap::new() }
    }

    /// Whether the file of its program became another after `started`, when a run of it was: as by an
    /// upgrade. Not known of a shell line.
    pub fn is_changed(&mut self, spec: &ProcessSpec, index: u32, started: SystemTime) -> bool {
        let Command::Program { program, .. } = &spec.exec.command else { return false };
        let program = program.render(index).into_owned();
        let path = match program.contains('/') {
            true => String::new(),
            false => path_of(&spec.exec, self.mode, index).0,
        };
        let key = [program, spec.exec.cwd.render(index).into_owned(), path];
        let changed = match self.found.get(&key) {
            Some(found) => *found,
            None => {
                let [program, cwd, path] = &key;
                let changed = became(program, Path::new(cwd), path);
                self.found.insert(key, changed);
                changed
            }
        };
        changed.is_some_and(|changed| changed > started)
    }
}

/// By the time of the last change of the inode, which also a file gets that was made elsewhere and takes
/// the place of another.
fn became(program: &str, cwd: &Path, path: &str) -> Option<SystemTime> {
    let file = match program.contains('/') {
        true => cwd.join(program),
        false => {
            let mut candidates = std::env::split_paths(path).map(|dir| cwd.join(dir).join(program));
            candidates.find(|path| executable(path, None).is_ok())?
        }
    };
    let found = std::fs::metadata(file).ok()?;
    let seconds = u64::try_from(found.ctime()).ok()?;
    let nanos = u32::try_from(found.ctime_nsec()).ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos))
}

struct Looker<'a> {
    spec: &'a ProcessSpec,
    mode: Mode,
    place: Place,
    found: &'a mut Vec<Diagnostic>,
}

impl Looker<'_> {
    fn error(&mut self, code: &'static str, message: String, help: Option<&str>) {
        let message = format!("{}: {message}", self.spec.id);
        let mut problem = Diagnostic::error(code, self.place.clone(), message);
        problem.help = help.map(str::to_owned);
        if !self.found.contains(&problem) {
            self.found.push(problem);
        }
    }

    fn all(&mut self, default_user: &str) {
        let exec = &self.spec.exec;
        let user = self.user(default_user);
        if let Some(name) = &exec.group
            && !known_group(name)
        {
            self.error("unknown-group", format!("there is no group `{}`", shown(name)), None);
        }
        // Instances differ at most in their number; the first and the last tell enough.
        for index in [0, self.spec.instances - 1] {
            let cwd = exec.cwd.rendered(index);
            let cwd_is_good = self.cwd(&cwd, user);
            let cwd = Path::new(cwd.value());
            let (program, what) = match &exec.command {
                Command::Program { program, .. } => (program.clone(), "the command"),
                Command::Shell(_) => (Text::new("/bin/sh"), "the shell"),
            };
            let looked = Looked { program: &program.rendered(index), what, cwd, cwd_is_good };
            self.program(&looked, index, user);
            if let Some(Check::Exec(command)) = self.spec.health.as_ref().map(|h| &h.check)
                && let Some(program) = command.first()
            {
                let program = &program.rendered(index);
                let what = "the health check";
                self.program(&Looked { program, what, cwd, cwd_is_good }, index, user);
            }
        }
    }

    /// Who runs it, as far as that is another than the daemon. None: the daemon's own user, or
    /// unknown.
    fn user(&mut self, default_user: &str) -> Option<Uid> {
        let name = match (&self.spec.exec.user, self.mode) {
            (Some(name), _) => &**name,
            (None, Mode::System) if nix::unistd::geteuid().is_root() => default_user,
            (None, _) => return None,
        };
        let Some(uid) = uid_of(name) else {
            let help = match self.spec.exec.user {
                None => Some("it is the default user; name another with `user:`"),
                Some(_) => None,
            };
            self.error("unknown-user", format!("there is no user `{}`", shown(name)), help);
            return None;
        };
        let own = nix::unistd::geteuid();
        if uid != own && !own.is_root() {
            let message = format!("only root can run it as user `{}`", shown(name));
            self.error("cannot-switch-user", message, Some("remove `user:`"));
            return None;
        }
        (uid != own).then_some(uid)
    }

    fn cwd(&mut self, cwd: &Rendered, user: Option<Uid>) -> bool {
        match std::fs::metadata(cwd.value()) {
            Ok(found) if found.is_dir() => true,
            Ok(_) => {
                let message = format!("`cwd` {cwd} is no directory");
                self.error("bad-cwd", message, None);
                false
            }
            Err(error) if unknowable(&error, user) => true,
            Err(error) => {
                let reason = reason(&error);
                let message = format!("`cwd` {cwd}: {reason}");
                self.error("bad-cwd", message, None);
                false
            }
        }
    }

    fn program(&mut self, looked: &Looked<'_>, index: u32, user: Option<Uid>) {
        let Looked { program, what, cwd, cwd_is_good } = *looked;
        if program.value().contains('/') {
            // A relative one is below the working directory, whose own error is enough.
            if program.value().starts_with('/') || cwd_is_good {
                self.file(looked, user);
            }
            return;
        }
        let (path, own) = path_of(&self.spec.exec, self.mode, index);
        let mut refused = None;
        for directory in std::env::split_paths(&path) {
            // An empty entry means the working directory.
            let candidate = cwd.join(&directory).join(program.value());
            match executable(&candidate, user) {
                Ok(()) => return,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => refused = refused.or(Some((directory, error))),
            }
        }
        let shown = shown(program.shown());
        // Values of the environment are not shown, and PATH is one where the file sets it.
        match refused {
            Some((directory, error)) => {
                let at = match own {
                    true => format!("{what} `{shown}`, found in PATH"),
                    false => format!("{what} {}/{shown}", directory.display()),
                };
                self.error("not-executable", format!("{at}: {}", reason(&error)), None);
            }
            None => {
                let message = match own {
                    true => format!("{what} `{shown}` is not in the PATH of its environment"),
                    false => format!("{what} `{shown}` is not in PATH ({path})"),
                };
                let help = "install it, name it with its directory, or set PATH in `env`";
                self.error("command-not-found", message, Some(help));
            }
        }
    }

    fn file(&mut self, looked: &Looked<'_>, user: Option<Uid>) {
        let Looked { program, what, cwd, .. } = *looked;
        let Err(error) = executable(&cwd.join(program.value()), user) else { return };
        let absolute = program.value().starts_with('/');
        let shown = shown(program.shown());
        let hides = program.hides() || self.spec.exec.cwd.hides();
        let at = match absolute || hides {
            true => format!("{what} {shown}"),
            false => format!("{what} {shown} ({})", cwd.join(program.value()).display()),
        };
        let message = format!("{at}: {}", reason(&error));
        match error.kind() {
            io::ErrorKind::NotFound => {
                let relative = "a command with a slash is relative to `cwd`";
                let help = (!absolute).then_some(relative);
                self.error("command-not-found", message, help);
            }
            _ => self.error("not-executable", message, Some("`chmod +x` makes it executable")),
        }
    }
}

/// A program that is to be there.
struct Looked<'a> {
    program: &'a Rendered,
    /// What it is, for people.
    what: &'static str,
    cwd: &'a Path,
    /// Whether nothing was wrong with the directory itself.
    cwd_is_good: bool,
}

/// The PATH a command is looked up in, and whether it is from the process's own environment.
fn path_of(exec: &ExecSpec, mode: Mode, index: u32) -> (String, bool) {
    if let Some(path) = exec.env.get("PATH") {
        return (path.0.render(index).into_owned(), true);
    }
    let path = match mode {
        Mode::System => SYSTEM_PATH.to_owned(),
        Mode::User => std::env::var("PATH").unwrap_or_else(|_| SYSTEM_PATH.to_owned()),
    };
    (path, false)
}

/// Whether the file can be executed, as far as can be told without being the one who does it.
fn executable(path: &Path, user: Option<Uid>) -> io::Result<()> {
    let found = match std::fs::metadata(path) {
        Err(error) if unknowable(&error, user) => return Ok(()),
        found => found?,
    };
    if found.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let mode = found.mode();
    let good = match user {
        // Which groups it will have is not known here.
        Some(uid) if found.uid() == uid.as_raw() => mode & 0o100 != 0,
        Some(_) => mode & 0o011 != 0,
        None => rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok(),
    };
    if good { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

/// What we may not see, another user may.
fn unknowable(error: &io::Error, user: Option<Uid>) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied && user.is_some()
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        io::ErrorKind::IsADirectory => "it is a directory".into(),
        _ => error.to_string(),
    }
}

/// By name, or by number even where nobody has it.
fn uid_of(name: &str) -> Option<Uid> {
    match User::from_name(name) {
        Ok(Some(user)) => Some(user.uid),
        _ => name.parse().ok().map(Uid::from_raw),
    }
}

fn known_group(name: &str) -> bool {
    matches!(Group::from_name(name), Ok(Some(_))) || name.parse().map(Gid::from_raw).is_ok()
}

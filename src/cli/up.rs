//! `up`: the daemon itself, in the foreground, for the files of a project.

use super::args::{Global, Up as Args};
use super::{CliError, exit::Exit, target, usage};
use crate::config::load::Mode;
use crate::daemon::{self, DaemonOptions, upgrade};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Runs until Ctrl-C, or until nothing can run again.
#[must_use]
pub fn run(args: &Args, global: &Global) -> ExitCode {
    if let Some(formats) = &args.can_take_over {
        return match formats.parse() {
            Ok(formats) => upgrade::answer(formats),
            Err(why) => usage(&why),
        };
    }
    if args.detach {
        return usage(
            "`up` runs in the foreground; what shall run by itself is the service's: \
             systemctl enable --now provostd",
        );
    }
    if global.system || global.user {
        return usage(
            "`up` runs a daemon of its own, for this directory; the others are services: \
             systemctl start provostd",
        );
    }
    match options(args, global) {
        Ok(options) => daemon::run(options),
        Err(error) => {
            let exit = usage(&format!("error: {error}"));
            if matches!(error, CliError::Usage(_)) { exit } else { Exit::Failed.into() }
        }
    }
}

fn options(args: &Args, global: &Global) -> Result<DaemonOptions, CliError> {
    let here = std::env::current_dir()
        .map_err(|error| CliError::Failed(format!("cannot tell the directory: {error}")))?;
    let config = match &args.config {
        // What runs goes on where its file is gone, and goes on as another program too.
        Some(config) if daemon::is_to_go_on() => here.join(config),
        Some(config) => named(&here, config)?,
        None if daemon::is_to_go_on() => {
            in_directory(&here).unwrap_or_else(|| here.join("processes.yaml"))
        }
        None => in_directory(&here).ok_or_else(|| {
            CliError::Failed(format!(
                "there is no provost.yaml and no processes.yaml in {}\n  name the file: \
                 provost up -c FILE",
                here.display()
            ))
        })?,
    };
    let mut sockets = sockets(&here, &config, global.socket.as_deref());
    let is_own = |socket: &PathBuf| Some(socket) != global.socket.as_ref();
    let made = sockets.iter().filter(|socket| is_own(socket));
    // Where nothing can be written, processes are kept running all the same.
    if let Err(error) = made.clone().try_for_each(|socket| target::make_directories(socket)) {
        let told = "this supervisor is not found by its directory, and keeps no state there";
        let _ = writeln!(io::stderr(), "warning: {error}: {told}");
        sockets.retain(|socket| !is_own(socket));
    } else {
        made.into_iter().try_for_each(|socket| target::check_directories(socket))?;
    }
    let runtime = sockets.first().and_then(|socket| Some(socket.parent()?.join("state")));
    Ok(DaemonOptions {
        config,
        mode: Mode::User,
        bus: None,
        sockets,
        foreground: true,
        runtime,
        // The project's own directory is not ours to write to, and a reboot ends a foreground.
        state: None,
    })
}

/// The file that somebody names. A daemon that begins with the machine waits for a file that is not there;
/// who writes its name means one that is, and not another one beside it.
pub fn named(here: &Path, file: &Path) -> Result<PathBuf, CliError> {
    let path = here.join(file);
    match std::fs::metadata(&path) {
        Err(error) if is_gone(&error) => {
            Err(CliError::Failed(format!("{} does not exist", path.display())))
        }
        // What else is wrong with it is said where it is read.
        _ => Ok(path),
    }
}

fn is_gone(error: &io::Error) -> bool {
    [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind())
}

/// The file that stands for a project when none is named.
#[must_use]
pub fn in_directory(dir: &Path) -> Option<PathBuf> {
    ["provost.yaml", "processes.yaml"].iter().map(|name| dir.join(name)).find(|path| path.is_file())
}

/// Where to listen: for whoever is in this directory, for whoever is in that of the file, and where
/// the options say.
fn sockets(here: &Path, config: &Path, named: Option<&Path>) -> Vec<PathBuf> {
    let mut sockets = vec![target::project_socket(here)];
    if let Some(dir) = config.parent() {
        sockets.push(target::project_socket(dir));
    }
    sockets.extend(named.map(Path::to_owned));
    sockets.dedup();
    sockets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemon_is_found_from_its_directory_and_from_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("conf");
        std::fs::create_dir(&inner).unwrap();
        let both = sockets(dir.path(), &inner.join("processes.yaml"), None);
        assert_eq!(both, [target::project_socket(dir.path()), target::project_socket(&inner)]);
        let one = sockets(&inner, &inner.join("processes.yaml"), Some(Path::new("/x/s")));
        assert_eq!(one, [target::project_socket(&inner), PathBuf::from("/x/s")]);
    }

    #[test]
    fn the_file_with_the_settings_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(in_directory(dir.path()), None);
        std::fs::write(dir.path().join("processes.yaml"), "").unwrap();
        assert_eq!(in_directory(dir.path()), Some(dir.path().join("processes.yaml")));
        std::fs::write(dir.path().join("provost.yaml"), "").unwrap();
        assert_eq!(in_directory(dir.path()), Some(dir.path().join("provost.yaml")));
    }
}

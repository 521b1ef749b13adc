//! Which daemon a command talks to.

use super::CliError;
use super::args::Global;
use crate::client::{Client, ClientError, Target};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A daemon that answers.
#[derive(Debug)]
pub struct Found {
    /// The connection.
    pub client: Client,
    /// Where it is.
    pub target: Target,
    /// Whose it is, for people.
    pub whose: String,
    /// Whether nobody said which: then it is worth telling.
    pub guessed: bool,
}

/// Connects to the daemon that the options name, or to the nearest one that runs.
///
/// # Errors
/// When none answers, or the options name two.
pub async fn connect(global: &Global) -> Result<Found, CliError> {
    if let Some((target, whose)) = named(global)? {
        let client = Client::connect(&target).await?;
        return Ok(Found { client, target, whose, guessed: false });
    }
    for (target, whose) in nearest() {
        match Client::connect(&target).await {
            Ok(client) => return Ok(Found { client, target, whose, guessed: true }),
            Err(ClientError::NotRunning(_)) => {}
            Err(other) => return Err(other.into()),
        }
    }
    Err(CliError::Failed(
        "no daemon is running: none of `provost up` in this directory, no user's, no system's\n  \
         to run the processes of a file in the foreground: provost up -c FILE\n  \
         to start the system's daemon: systemctl start provostd"
            .to_owned(),
    ))
}

/// The one the options name.
fn named(global: &Global) -> Result<Option<(Target, String)>, CliError> {
    match (&global.socket, global.user, global.system) {
        (None, false, false) => Ok(None),
        (Some(path), false, false) => {
            Ok(Some((Target::Socket(path.clone()), format!("the daemon at {}", path.display()))))
        }
        (None, true, false) => Ok(Some((Target::User, "the user's daemon".to_owned()))),
        (None, false, true) => Ok(Some((Target::System, "the system's daemon".to_owned()))),
        _ => Err(CliError::Usage("give one of --system, --user and --socket".to_owned())),
    }
}

/// The ones to try, nearest first.
fn nearest() -> Vec<(Target, String)> {
    let mut all = Vec::new();
    if let Ok(dir) = std::env::current_dir() {
        let socket = project_socket(&dir);
        if socket.exists() && check_directories(&socket).is_ok() {
            all.push((Target::Socket(socket), format!("`provost up` in {}", dir.display())));
        }
    }
    all.push((Target::User, "the user's daemon".to_owned()));
    all.push((Target::System, "the system's daemon".to_owned()));
    all
}

/// The private socket of the daemon that `provost up` runs for a directory: one for each directory,
/// found from the directory alone, and in no place where another user could put one.
#[must_use]
pub fn project_socket(dir: &Path) -> PathBuf {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let mut name = String::with_capacity(16);
    for byte in &Sha256::digest(dir.as_os_str().as_bytes())[..8] {
        // Writing to a String cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    base(std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from))
        .join("project")
        .join(name)
        .join("private")
}

/// Where this user's sockets are.
fn base(runtime: Option<PathBuf>) -> PathBuf {
    let uid = rustix::process::geteuid().as_raw();
    if let Some(runtime) = runtime.filter(|dir| dir.is_absolute()) {
        return runtime.join("provost");
    }
    let standard = PathBuf::from(format!("/run/user/{uid}"));
    if is_private(&standard, uid) {
        return standard.join("provost");
    }
    PathBuf::from(format!("/tmp/provost-{uid}"))
}

/// Makes the directories of a project's socket, for this user alone.
///
/// # Errors
/// When they cannot be made.
pub fn make_directories(socket: &Path) -> Result<(), CliError> {
    let Some(parent) = socket.parent() else { return Ok(()) };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(|error| {
        CliError::Failed(format!("cannot make the directory {}: {error}", parent.display()))
    })
}

/// Makes sure that the directories a project's socket is in, up to that of all our sockets, are this
/// user's alone: in /tmp somebody else could have made them.
///
/// # Errors
/// When one belongs to somebody else, or is not there.
pub fn check_directories(socket: &Path) -> Result<(), CliError> {
    let uid = rustix::process::geteuid().as_raw();
    match socket.ancestors().skip(1).take(3).find(|dir| !is_private(dir, uid)) {
        None => Ok(()),
        Some(dir) => Err(CliError::Failed(format!(
            "{} is not a directory of this user alone; remove it, or set XDG_RUNTIME_DIR",
            dir.display()
        ))),
    }
}

/// Whether it is a directory (not a link to one) that this user owns and nobody else may write to.
fn is_private(dir: &Path, uid: u32) -> bool {
    dir.symlink_metadata()
        .is_ok_and(|meta| meta.is_dir() && meta.uid() == uid && meta.mode() & 0o022 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_socket_however_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a");
        std::fs::create_dir(&inner).unwrap();
        let link = dir.path().join("b");
        std::os::unix::fs::symlink(&inner, &link).unwrap();
        assert_eq!(project_socket(&inner), project_socket(&link));
        assert_eq!(project_socket(&inner), project_socket(&inner.join("../a")));
        assert_ne!(project_socket(&inner), project_socket(dir.path()));
        let socket = project_socket(&inner);
        assert_eq!(socket.file_name().unwrap(), "private");
        let name = socket.parent().unwrap().file_name().unwrap().to_str().unwrap();
        assert!(name.len() == 16 && name.bytes().all(|b| b.is_ascii_hexdigit()), "{name}");
    }

    #[test]
    fn a_relative_runtime_directory_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(base(Some(dir.path().to_owned())), dir.path().join("provost"));
        assert!(base(Some(PathBuf::from("run"))).is_absolute());
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("provost/project/0123456789abcdef/private");
        make_directories(&socket).unwrap();
        check_directories(&socket).unwrap();
        let project = dir.path().join("provost/project");
        std::fs::set_permissions(&project, std::fs::Permissions::from_mode(0o777)).unwrap();
        make_directories(&socket).unwrap();
        let error = check_directories(&socket).unwrap_err().to_string();
        assert!(error.contains("provost/project is not a directory of this user"), "{error}");
    }
}

//! The environment that a process starts with, before its own.

use super::load::Mode;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What the user database says about a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRecord {
    /// Name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Home directory.
    pub home: PathBuf,
    /// Shell.
    pub shell: PathBuf,
}

/// The base set for one instance.
pub fn base_environment(
    mode: Mode,
    daemon: &BTreeMap<String, String>,
    user: &UserRecord,
    index: u32,
) -> BTreeMap<String, String> {
    let path = match mode {
        Mode::System => None,
        Mode::User => daemon.get("PATH").cloned(),
    };
    let path = path.unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    BTreeMap::from([
        ("HOME".into(), user.home.display().to_string()),
        ("INSTANCE".into(), index.to_string()),
        ("LOGNAME".into(), user.name.clone()),
        ("PATH".into(), path),
        ("SHELL".into(), user.shell.display().to_string()),
        ("USER".into(), user.name.clone()),
    ])
}

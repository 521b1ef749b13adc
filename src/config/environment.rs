//! What every process has in its environment before its own `envFile` and `env`.

use super::load::Mode;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The PATH of processes of the system's daemon.
pub const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the user database says of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRecord {
    /// Login name; the number as text where there is no entry.
    pub name: String,
    /// User number.
    pub uid: u32,
    /// Number of the primary group.
    pub gid: u32,
    /// Home directory.
    pub home: PathBuf,
    /// Login shell.
    pub shell: PathBuf,
}

/// The base environment of one instance: PATH, HOME, USER, LOGNAME, SHELL, LANG and INSTANCE, and
/// nothing else. `daemon` is the daemon's own environment; only PATH and LANG are taken from it, and
/// only in [`Mode::User`].
#[must_use]
pub fn base_environment(
    mode: Mode,
    daemon: &BTreeMap<String, String>,
    user: &UserRecord,
    index: u32,
) -> BTreeMap<String, String> {
    let inherited = |name: &str, default: &str| {
        let value = (mode == Mode::User).then(|| daemon.get(name)).flatten();
        value.map_or_else(|| default.to_owned(), Clone::clone)
    };
    let text = |path: &PathBuf| path.to_string_lossy().into_owned();
    BTreeMap::from([
        ("PATH".to_owned(), inherited("PATH", SYSTEM_PATH)),
        ("HOME".to_owned(), text(&user.home)),
        ("USER".to_owned(), user.name.clone()),
        ("LOGNAME".to_owned(), user.name.clone()),
        ("SHELL".to_owned(), text(&user.shell)),
        ("LANG".to_owned(), inherited("LANG", "C.UTF-8")),
        ("INSTANCE".to_owned(), index.to_string()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> UserRecord {
        UserRecord {
            name: "api".into(),
            uid: 7,
            gid: 8,
            home: "/srv/api".into(),
            shell: "/bin/sh".into(),
        }
    }

    #[test]
    fn the_system_inherits_nothing() {
        let daemon = [("PATH", "/x"), ("LANG", "de_DE.UTF-8"), ("TOKEN", "t")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()));
        let daemon = BTreeMap::from(daemon);
        let system = base_environment(Mode::System, &daemon, &user(), 3);
        assert_eq!(system["PATH"], SYSTEM_PATH);
        assert_eq!(system["LANG"], "C.UTF-8");
        assert_eq!(system["INSTANCE"], "3");
        assert_eq!(system["HOME"], "/srv/api");
        let mine = base_environment(Mode::User, &daemon, &user(), 0);
        assert_eq!(mine["PATH"], "/x");
        assert_eq!(mine["LANG"], "de_DE.UTF-8");
        let names = ["HOME", "INSTANCE", "LANG", "LOGNAME", "PATH", "SHELL", "USER"];
        assert!(mine.keys().eq(names) && system.keys().eq(names));
    }
}

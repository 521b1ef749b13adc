//! Finding out who a process shall be.

use super::launch::reason;
use super::local::is_local;
use crate::config::environment::{UserRecord, base_environment};
use crate::config::load::Mode;
use crate::core::event::{SpawnError, SpawnStage};
use crate::core::spec::ExecSpec;
use crate::sys::user::{Credentials, Groups, as_user};
use nix::unistd::{Gid, Group, Uid, User};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Who a process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// For its environment.
    pub record: UserRecord,
    /// What it has to become; None: it stays what the daemon is.
    pub credentials: Option<Credentials>,
}

impl Identity {
    /// Runs `work` with this identity's rights on files. Blocks.
    ///
    /// # Errors
    /// When the identity cannot be taken on; else what `work` returns.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        match &self.credentials {
            None => work(),
            Some(credentials) => as_user(credentials, work),
        }
    }
}

/// What has to be known of a user before a process is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Who it is. Its groups are found by whoever starts the process.
    User,
    /// Its groups too.
    All,
}

/// Finds out who processes shall be, for one daemon.
pub struct Identities {
    mode: Mode,
    default_user: Arc<str>,
    caller: UserRecord,
    /// The user database may be slow: it shall not get all threads.
    lookups: Semaphore,
}

impl Identities {
    /// For a daemon with this environment of its own.
    #[must_use]
    pub fn new(
        mode: Mode,
        default_user: Arc<str>,
        environment: &BTreeMap<String, String>,
    ) -> Identities {
        const LOOKUPS: usize = 8;
        let lookups = Semaphore::new(LOOKUPS);
        Identities { mode, default_user, caller: caller(environment), lookups }
    }

    /// Who a process shall be. Does not block the caller's thread.
    ///
    /// # Errors
    /// As [`find`].
    pub async fn find(&self, exec: &ExecSpec, need: Need) -> Result<Identity, SpawnError> {
        if !needs_lookup(self.mode, exec) {
            return Ok(Identity { record: self.caller.clone(), credentials: None });
        }
        if need == Need::User && self.is_known_at_once(exec) {
            return find(self.mode, exec, &self.default_user, &self.caller, need);
        }
        let broken = |text: String| failure("", text);
        let _permit = self.lookups.acquire().await.map_err(|error| broken(error.to_string()))?;
        let (mode, exec) = (self.mode, exec.clone());
        let (default_user, caller) = (self.default_user.clone(), self.caller.clone());
        let find = move || find(mode, &exec, &default_user, &caller, need);
        tokio::task::spawn_blocking(find).await.map_err(|error| broken(error.to_string()))?
    }

    /// Whether nobody but this machine's own files has to be asked.
    fn is_known_at_once(&self, exec: &ExecSpec) -> bool {
        let is_number = |group: &Arc<str>| group.parse::<u32>().is_ok();
        exec.group.as_ref().is_none_or(is_number)
            && named(self.mode, exec, &self.default_user).is_none_or(is_local)
    }

    /// The same, in the caller's thread. May block.
    ///
    /// # Errors
    /// As [`find`].
    pub fn find_now(&self, exec: &ExecSpec) -> Result<Identity, SpawnError> {
        find(self.mode, exec, &self.default_user, &self.caller, Need::All)
    }

    /// All of the environment of one instance that runs as this user: the base set, then its own.
    #[must_use]
    pub fn environment(
        &self,
        daemon: &BTreeMap<String, String>,
        exec: &ExecSpec,
        user: &UserRecord,
        index: u32,
    ) -> BTreeMap<String, String> {
        let mut env = base_environment(self.mode, daemon, user, index);
        let own = exec.env.iter();
        env.extend(own.map(|(name, value)| (name.clone(), value.0.render(index).into_owned())));
        env
    }
}

/// Whether [`find`] has to ask the user database, which may take long (it may be on a server).
#[must_use]
pub fn needs_lookup(mode: Mode, exec: &ExecSpec) -> bool {
    mode == Mode::System || exec.user.is_some() || exec.group.is_some()
}

/// The user this daemon runs as, with what the environment says where the database has nothing.
#[must_use]
pub fn caller(environment: &BTreeMap<String, String>) -> UserRecord {
    let uid = Uid::effective();
    if let Ok(Some(user)) = User::from_uid(uid) {
        return record(user);
    }
    let from_environment = |name: &str, or: &str| {
        environment.get(name).filter(|value| !value.is_empty()).map_or(or, |v| v).to_owned()
    };
    UserRecord {
        name: from_environment("USER", &uid.to_string()),
        uid: uid.as_raw(),
        gid: Gid::effective().as_raw(),
        home: PathBuf::from(from_environment("HOME", "/")),
        shell: PathBuf::from(from_environment("SHELL", "/bin/sh")),
    }
}

/// Finds user and group of a process. May block.
///
/// # Errors
/// At stage `Identity`: there is no such user or group, or the database does not answer.
pub fn find(
    mode: Mode,
    exec: &ExecSpec,
    default_user: &str,
    caller: &UserRecord,
    need: Need,
) -> Result<Identity, SpawnError> {
    let name = named(mode, exec, default_user);
    let group = exec.group.as_deref().map(find_group).transpose()?;
    if name.is_none() && group.is_none() {
        return Ok(Identity { record: caller.clone(), credentials: None });
    }
    let mut record = match name {
        Some(name) => find_user(name, group)?,
        None => caller.clone(),
    };
    record.gid = group.unwrap_or(record.gid);
    let is_ours =
        record.uid == Uid::effective().as_raw() && record.gid == Gid::effective().as_raw();
    if is_ours && !Uid::effective().is_root() {
        // Without root nothing can be changed, and nothing needs to be.
        return Ok(Identity { record, credentials: None });
    }
    let no_name = |_| failure(&record.name, "it has a NUL byte".into());
    let groups = CString::new(record.name.as_str()).map_err(no_name)?;
    let groups = Groups::of(groups, record.gid);
    if need == Need::All {
        groups.ids().map_err(|error| failure(&record.name, reason(&error)))?;
    }
    let credentials = Credentials { uid: record.uid, gid: record.gid, groups };
    Ok(Identity { record, credentials: Some(credentials) })
}

/// The user that a process shall be, where one is named.
fn named<'a>(mode: Mode, exec: &'a ExecSpec, default_user: &'a str) -> Option<&'a str> {
    match (&exec.user, mode) {
        (Some(name), _) => Some(name),
        (None, Mode::System) => Some(default_user),
        (None, Mode::User) => None,
    }
}

fn find_user(name: &str, group: Option<u32>) -> Result<UserRecord, SpawnError> {
    let error = |reason: String| failure(name, reason);
    let number = name.parse::<u32>().ok();
    let user = match number {
        Some(uid) => User::from_uid(Uid::from_raw(uid)),
        None => User::from_name(name),
    };
    match (user.map_err(|errno| error(reason(&errno.into())))?, number, group) {
        (Some(user), ..) => Ok(record(user)),
        // Images of containers often have a number and no entry for it.
        (None, Some(uid), Some(gid)) => Ok(UserRecord {
            name: name.to_owned(),
            uid,
            gid,
            home: PathBuf::from("/"),
            shell: PathBuf::from("/bin/sh"),
        }),
        (None, Some(_), None) => {
            Err(error("the number has no entry in the user database; name a group too".into()))
        }
        (None, None, _) => Err(error("there is no such user".into())),
    }
}

fn find_group(name: &str) -> Result<u32, SpawnError> {
    let error = |reason: String| failure(name, reason);
    if let Ok(gid) = name.parse::<u32>() {
        return Ok(gid);
    }
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err(error("there is no such group".into())),
        Err(errno) => Err(error(reason(&errno.into()))),
    }
}

fn record(user: User) -> UserRecord {
    UserRecord {
        name: user.name,
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        home: user.dir,
        shell: user.shell,
    }
}

fn failure(subject: &str, reason: String) -> SpawnError {
    SpawnError { stage: SpawnStage::Identity, subject: subject.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ids::ProcessId;
    use crate::core::spec::{Command, ProcessSpec};

    fn exec(user: Option<&str>, group: Option<&str>) -> ExecSpec {
        let id = ProcessId::new("a").unwrap();
        let mut exec = ProcessSpec::new(id, Command::Shell("true".into())).exec;
        exec.user = user.map(Into::into);
        exec.group = group.map(Into::into);
        exec
    }

    fn look_up(
        mode: Mode,
        user: Option<&str>,
        group: Option<&str>,
    ) -> Result<Identity, SpawnError> {
        find(mode, &exec(user, group), "nobody", &caller(&BTreeMap::new()), Need::User)
    }

    #[test]
    fn the_system_has_a_default_user_and_others_have_the_caller() {
        assert_eq!(look_up(Mode::System, None, None).unwrap().record.name, "nobody");
        let own = look_up(Mode::User, None, None).unwrap();
        assert_eq!(own.record.uid, Uid::effective().as_raw());
        assert_eq!(own.credentials, None);
    }

    #[test]
    fn a_user_that_does_not_exist_is_named() {
        let error = look_up(Mode::User, Some("no-such-user"), None).unwrap_err();
        assert_eq!(error.to_string(), "looking up the user no-such-user: there is no such user");
    }

    #[test]
    fn a_number_without_entry_needs_a_group() {
        assert!(look_up(Mode::User, Some("3999999999"), None).is_err());
        let identity = look_up(Mode::User, Some("3999999999"), Some("12")).unwrap();
        let credentials = identity.credentials.unwrap();
        assert_eq!((credentials.uid, credentials.gid), (3_999_999_999, 12));
        assert_eq!(credentials.groups.ids().unwrap(), [12]);
    }
}

//! What one program hands to the next in the same process: descriptors, each with a name.
//!
//! A list of them is in memory that cannot be written any more (memfd_create(2), `F_SEAL_WRITE`), and
//! `PROVOST_HANDOVER=PID:NUMBER` names that. The variable is taken out of the environment by the one
//! that it is for, and means nothing to any other process. A list in the variable itself would be cut
//! off: the kernel takes no variable that is longer than 128 KiB.

use crate::store;
use crate::sys::exec::{take_descriptor, take_variable};
use crate::sys::memory::sealed;
use rustix::fs::{SealFlags, SeekFrom};
use rustix::io::FdFlags;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::str::FromStr;

/// Where the list is.
const VARIABLE: &str = "PROVOST_HANDOVER";

/// The version of the list.
const VERSION: u32 = 1;

/// What a program must be able to read to follow this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Formats {
    /// The version of the list.
    list: u32,
    /// The version of what is kept in files.
    store: u32,
}

impl Formats {
    /// Those that this program writes.
    pub const OURS: Formats = Formats { list: VERSION, store: store::VERSION };

    /// Whether this program can follow one that writes these.
    #[must_use]
    pub fn can_be_followed(self) -> bool {
        self.list == VERSION && self.store <= store::VERSION
    }
}

impl fmt::Display for Formats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.list, self.store)
    }
}

impl FromStr for Formats {
    type Err = String;

    fn from_str(text: &str) -> Result<Formats, String> {
        let numbers = text.split_once('.').and_then(|(list, store)| {
            Some(Formats { list: list.parse().ok()?, store: store.parse().ok()? })
        });
        numbers.ok_or_else(|| format!("{text:?} names no formats"))
    }
}

#[derive(Serialize, Deserialize)]
struct List {
    version: u32,
    from: String,
    descriptors: Vec<(RawFd, String)>,
}

/// What was handed over by the program before.
#[derive(Debug)]
pub struct Handed {
    /// Its version, for people.
    pub from: String,
    /// By name.
    pub descriptors: Vec<(String, OwnedFd)>,
}

/// Whether something may have been handed to this process.
pub fn is_expected() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

impl Handed {
    /// What was handed to this process; None where nothing was. To be called before there is another
    /// thread, and once.
    ///
    /// # Errors
    /// When there is something that no program of ours has written.
    pub fn take() -> Result<Option<Handed>, String> {
        let Some(value) = take_variable(VARIABLE) else { return Ok(None) };
        let named = value.to_str().and_then(|value| {
            let (pid, number) = value.split_once(':')?;
            Some((pid.parse::<u32>().ok()?, number.parse::<RawFd>().ok()?))
        });
        match named {
            // It is for somebody else, who has let his environment go on.
            Some((pid, _)) if pid != std::process::id() => Ok(None),
            Some((_, number)) => {
                Handed::of(number).map(Some).map_err(|why| format!("{VARIABLE}: {why}"))
            }
            None => Err(format!("{VARIABLE} is not PID:NUMBER")),
        }
    }

    fn of(number: RawFd) -> Result<Handed, String> {
        let list = take_descriptor(number).ok_or("there is no such descriptor")?;
        let seals = rustix::fs::fcntl_get_seals(&list).unwrap_or(SealFlags::empty());
        if !seals.contains(SealFlags::WRITE) {
            return Err("it could have been changed by somebody else".into());
        }
        let mut text = Vec::new();
        rustix::fs::seek(&list, SeekFrom::Start(0)).map_err(|error| error.to_string())?;
        File::from(list).read_to_end(&mut text).map_err(|error| error.to_string())?;
        let list: List = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        if list.version != VERSION {
            return Err(format!("it is of version {}", list.version));
        }
        let mut seen = BTreeSet::from([number]);
        let mut descriptors = Vec::new();
        for (number, name) in list.descriptors {
            if !seen.insert(number) {
                return Err(format!("descriptor {number} is named twice"));
            }
            let taken = take_descriptor(number);
            descriptors.push((name, taken.ok_or(format!("descriptor {number} is not there"))?));
        }
        Ok(Handed { from: list.from, descriptors })
    }

    /// Takes the one of this name.
    pub fn remove(&mut self, name: &str) -> Option<OwnedFd> {
        let at = self.descriptors.iter().position(|(known, _)| known == name)?;
        Some(self.descriptors.swap_remove(at).1)
    }
}

/// Leaves descriptors open for the next program. Returns its environment, and what must be held until
/// it is there.
///
/// # Errors
/// What the system says.
pub fn leave(descriptors: Vec<(String, OwnedFd)>) -> io::Result<(Vec<CString>, Vec<OwnedFd>)> {
    let list = List {
        version: VERSION,
        from: env!("CARGO_PKG_VERSION").to_owned(),
        descriptors: descriptors.iter().map(|(name, fd)| (fd.as_raw_fd(), name.clone())).collect(),
    };
    let memory = sealed("handover", &serde_json::to_vec(&list)?)?;
    let value = format!("{VARIABLE}={}:{}", std::process::id(), memory.as_raw_fd());
    let held: Vec<OwnedFd> = descriptors.into_iter().map(|(_, fd)| fd).chain([memory]).collect();
    for fd in &held {
        rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
    }
    let mut environment = own_environment();
    environment.push(CString::new(value)?);
    Ok((environment, held))
}

/// The environment that this program was started with, but for what was meant for it alone.
#[must_use]
pub fn own_environment() -> Vec<CString> {
    use std::os::unix::ffi::OsStrExt;
    let all = std::env::vars_os().filter(|(name, _)| {
        // Those descriptors were taken (sd_listen_fds(3)).
        let name = name.as_bytes();
        !name.starts_with(b"LISTEN_") && name != VARIABLE.as_bytes()
    });
    // A variable has no NUL byte.
    all.filter_map(|(name, value)| {
        CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::IntoRawFd;

    fn number_of(environment: &[CString]) -> RawFd {
        let value = environment.last().unwrap().to_str().unwrap();
        value.rsplit_once(':').unwrap().1.parse().unwrap()
    }

    /// Leaves it open, as execve(2) does.
    fn forget(descriptor: OwnedFd) {
        let _ = descriptor.into_raw_fd();
    }

    fn two() -> Vec<(String, OwnedFd)> {
        let open = || OwnedFd::from(File::open("/dev/null").unwrap());
        vec![("run-a@0-1".to_owned(), open()), ("lock".to_owned(), open())]
    }

    #[test]
    fn what_is_left_is_found_by_its_names() {
        let (environment, held) = leave(two()).unwrap();
        held.into_iter().for_each(forget);
        let mut handed = Handed::of(number_of(&environment)).unwrap();
        assert_eq!(handed.from, env!("CARGO_PKG_VERSION"));
        assert!(handed.remove("lock").is_some() && handed.remove("lock").is_none());
        assert_eq!(handed.descriptors.len(), 1);
    }

    #[test]
    fn what_is_not_whole_is_refused() {
        assert!(Handed::of(1_000_000).unwrap_err().contains("no such descriptor"));
        // A file that somebody else may have written.
        let file = tempfile::tempfile().unwrap();
        rustix::io::fcntl_setfd(&file, FdFlags::empty()).unwrap();
        assert!(Handed::of(file.into_raw_fd()).unwrap_err().contains("changed"));
        let refused = |list: &str| {
            let memory = sealed("list", list.as_bytes()).unwrap();
            rustix::io::fcntl_setfd(&memory, FdFlags::empty()).unwrap();
            Handed::of(memory.into_raw_fd()).unwrap_err()
        };
        let list = |version, descriptors: &str| {
            format!(r#"{{"version":{version},"from":"0","descriptors":[{descriptors}]}}"#)
        };
        assert!(refused("nothing").contains("expected"));
        assert!(refused(&list(2, "")).contains("version 2"));
        assert!(refused(&list(1, r#"[2,"lock"]"#)).contains("not there"));
        assert!(refused(&list(1, r#"[999999,"lock"]"#)).contains("not there"));
        let (environment, held) = leave(two()).unwrap();
        let number = held[0].as_raw_fd();
        held.into_iter().for_each(forget);
        let _ = take_descriptor(number_of(&environment));
        let twice = format!(r#"[{number},"a"],[{number},"b"]"#);
        assert!(refused(&list(1, &twice)).contains("twice"));
    }

    #[test]
    fn formats_are_written_and_read() {
        let text = Formats::OURS.to_string();
        assert_eq!(text.parse::<Formats>(), Ok(Formats::OURS));
        assert!(Formats::OURS.can_be_followed());
        assert!(!Formats { list: VERSION + 1, ..Formats::OURS }.can_be_followed());
        assert!(!Formats { store: store::VERSION + 1, ..Formats::OURS }.can_be_followed());
        assert!("1".parse::<Formats>().is_err() && "a.b".parse::<Formats>().is_err());
    }
}

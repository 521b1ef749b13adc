//! Why a start failed. systemd tells the step by a number and the reason only to the journal; here
//! the step is looked at once more, as the user whose process it is.

use super::manager::MainChange;
use super::status::failed_step;
use crate::backend::native::identity::Identity;
use crate::backend::native::launch::{failure, reason};
use crate::core::event::{SpawnError, SpawnStage};
use crate::core::spec::Rendered;
use rustix::fs::{Access, AtFlags, CWD, accessat};
use std::io;

/// What was tried.
pub(super) struct Attempt {
    /// The unit, for whom the journal is to be asked.
    pub unit: String,
    pub program: Rendered,
    /// As systemd got it: absolute, or a name without a slash.
    pub executable: String,
    /// Where a name without a slash was looked up.
    pub search: Vec<String>,
    /// Whether the file sets PATH. Its value is not shown then, as that of no variable is.
    pub path_is_own: bool,
    pub cwd: Rendered,
    pub identity: Identity,
    pub nice: Option<i8>,
    pub max_files: Option<u64>,
}

impl Attempt {
    /// What to say of a job that failed. Blocks.
    pub(super) fn explain(&self, main: &MainChange) -> SpawnError {
        let step = main.status.filter(|_| main.code.is_some_and(|code| code != 0));
        let Some((stage, word)) = step.and_then(failed_step) else {
            let result = main.result.as_deref().unwrap_or("failed");
            let journal = format!("journalctl -u {} says more", self.unit);
            let text = format!("systemd could not start it ({result}; {journal})");
            return failure(SpawnStage::Fork, "", text);
        };
        match stage {
            SpawnStage::Cwd => failure(stage, self.cwd.shown(), self.cwd_reason()),
            SpawnStage::Exec => {
                let (subject, reason) = self.exec_reason();
                failure(stage, &subject, reason)
            }
            SpawnStage::Credentials => {
                let text = format!("systemd was refused it (step {word})");
                failure(stage, &self.identity.record.name, text)
            }
            SpawnStage::Limits => {
                let subject = self.max_files.map(|files| format!("files: {files}"));
                failure(stage, &subject.unwrap_or_default(), self.refused(word))
            }
            SpawnStage::Nice => {
                let subject = self.nice.map(|nice| nice.to_string());
                failure(stage, &subject.unwrap_or_default(), self.refused(word))
            }
            stage => failure(stage, "", self.refused(word)),
        }
    }

    fn refused(&self, word: &str) -> String {
        format!("systemd was refused it (step {word}; journalctl -u {} says more)", self.unit)
    }

    fn cwd_reason(&self) -> String {
        let looked = self.identity.run(|| {
            let found = std::fs::metadata(self.cwd.value())?;
            if !found.is_dir() {
                return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
            }
            accessible(self.cwd.value())
        });
        match looked {
            Err(error) => reason(&error),
            Ok(()) => "systemd could not enter it".to_owned(),
        }
    }

    fn exec_reason(&self) -> (String, String) {
        let is_path = self.executable.contains('/');
        let candidates: Vec<String> = match is_path {
            true => vec![self.executable.clone()],
            false => {
                let directories = self.search.iter();
                let full = |directory: &String| {
                    format!("{}/{}", directory.trim_end_matches('/'), self.executable)
                };
                directories.map(full).collect()
            }
        };
        let shown = self.program.shown().to_owned();
        let mut worst = io::Error::from_raw_os_error(libc::ENOENT);
        for path in candidates {
            let looked = self.identity.run(|| {
                if std::fs::metadata(&path)?.is_dir() {
                    return Err(io::Error::from_raw_os_error(libc::EACCES));
                }
                accessible(&path)
            });
            let hides = self.program.hides() || (!is_path && self.path_is_own);
            let subject = if hides { shown.clone() } else { path };
            match looked {
                Ok(()) => {
                    let text = "the file is there and may be executed, but it is no program, or \
                                the interpreter or loader it names is missing";
                    return (subject, text.to_owned());
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return (subject, reason(&error));
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => worst = error,
                Err(_) => {}
            }
        }
        let subject = match (is_path, self.path_is_own) {
            (true, _) => shown,
            (false, true) => format!("{shown} (searched in the PATH of its env)"),
            (false, false) => format!("{shown} (searched in {})", self.search.join(":")),
        };
        (subject, reason(&worst))
    }
}

/// Whether a file may be executed, or a directory entered, by this thread.
fn accessible(path: &str) -> io::Result<()> {
    Ok(accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::environment::UserRecord;

    fn attempt(executable: &str) -> Attempt {
        let (home, shell) = ("/".into(), "/bin/sh".into());
        let record = UserRecord { name: "me".into(), uid: 1, gid: 1, home, shell };
        Attempt {
            unit: "provost-a@0.service".into(),
            program: executable.into(),
            executable: executable.into(),
            search: vec!["/usr/bin".into(), "/bin".into()],
            path_is_own: false,
            cwd: "/nowhere".into(),
            identity: Identity { record, credentials: None },
            nice: None,
            max_files: Some(5),
        }
    }

    fn exited(status: i32) -> MainChange {
        MainChange { code: Some(1), status: Some(status), ..MainChange::default() }
    }

    #[test]
    fn the_step_and_the_reason_are_told() {
        let text =
            |executable: &str, status| attempt(executable).explain(&exited(status)).to_string();
        assert_eq!(text("sh", 200), "changing directory to /nowhere: No such file or directory");
        let missing = "executing no-such (searched in /usr/bin:/bin): No such file or directory";
        assert_eq!(text("no-such", 203), missing);
        assert_eq!(text("/no/such", 203), "executing /no/such: No such file or directory");
        assert_eq!(text("/etc/passwd", 203), "executing /etc/passwd: Permission denied");
        assert!(text("sh", 205).starts_with("setting resource limits files: 5: "));
        assert!(text("sh", 217).starts_with("changing to the user me: "));
    }

    #[test]
    fn without_a_step_the_journal_is_named() {
        let main = MainChange { result: Some("resources".into()), ..MainChange::default() };
        let error = attempt("sh").explain(&main);
        assert_eq!(error.stage, SpawnStage::Fork);
        assert!(error.reason.contains("resources") && error.reason.contains("journalctl -u"));
    }
}

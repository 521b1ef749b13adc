//! The command line of `provost-log`: written by the daemon, read by the program.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// What the program is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Write standard input to a log file.
    Write {
        /// The log file.
        path: PathBuf,
        /// When it is rotated; None: never.
        rotation: Option<Rotation>,
        /// Copy it to standard output too.
        copy: bool,
    },
    /// Show a log file on standard output.
    Show {
        /// The log file.
        path: PathBuf,
        /// Only the so many last lines, of rotated files too; None: all of the file, and no other.
        lines: Option<u64>,
        /// And what is added to it, through rotations.
        follow: bool,
    },
}

/// When a log file is rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// No file is larger, in bytes.
    pub max_size: u64,
    /// So many rotated files are kept, besides the one that is written.
    pub max_files: u32,
}

impl Job {
    /// The arguments, without the name of the program.
    #[allow(dead_code, reason = "the daemon's side")]
    pub fn arguments(&self) -> Vec<String> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        match self {
            Job::Write { path, rotation, copy } => {
                let rotation = rotation.map(|rotation| {
                    [
                        format!("--max-size={}", rotation.max_size),
                        format!("--max-files={}", rotation.max_files),
                    ]
                });
                let copy = copy.then(|| "--copy".to_owned());
                let options = rotation.into_iter().flatten().chain(copy);
                ["write".to_owned()].into_iter().chain(options).chain([text(path)]).collect()
            }
            Job::Show { path, lines, follow } => {
                let lines = lines.map(|lines| format!("--lines={lines}"));
                let follow = follow.then(|| "--follow".to_owned());
                let options = lines.into_iter().chain(follow);
                ["show".to_owned()].into_iter().chain(options).chain([text(path)]).collect()
            }
        }
    }

    /// Reads the arguments; None when they are no job.
    #[allow(dead_code, reason = "the program's side")]
    pub fn parse(arguments: impl Iterator<Item = OsString>) -> Option<Job> {
        let mut all: Vec<OsString> = arguments.collect();
        let path = PathBuf::from(all.pop()?);
        let (verb, options) = all.split_first()?;
        let shows = verb == OsStr::new("show");
        if !shows && verb != OsStr::new("write") {
            return None;
        }
        let (mut max_size, mut max_files, mut copy) = (None, None, false);
        let (mut lines, mut follow) = (None, false);
        for option in options {
            let option = option.to_str()?;
            match option.split_once('=') {
                Some(("--lines", count)) if shows => lines = Some(count.parse().ok()?),
                None if shows && option == "--follow" => follow = true,
                Some(("--max-size", size)) if !shows => max_size = Some(size.parse().ok()?),
                Some(("--max-files", files)) if !shows => max_files = Some(files.parse().ok()?),
                None if !shows && option == "--copy" => copy = true,
                _ => return None,
            }
        }
        if shows {
            return Some(Job::Show { path, lines, follow });
        }
        let rotation = match (max_size, max_files) {
            (Some(max_size @ 1..), Some(max_files @ 1..)) => Some(Rotation { max_size, max_files }),
            (None, None) => None,
            _ => return None,
        };
        Some(Job::Write { path, rotation, copy })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_read_as_it_was_written() {
        let path = PathBuf::from("/var/log/--copy");
        let rotation = Some(Rotation { max_size: 5, max_files: 2 });
        for job in [
            Job::Write { path: path.clone(), rotation, copy: true },
            Job::Write { path: path.clone(), rotation: None, copy: false },
            Job::Show { path: path.clone(), lines: None, follow: true },
            Job::Show { path, lines: Some(7), follow: false },
        ] {
            let arguments = job.arguments().into_iter().map(OsString::from);
            assert_eq!(Job::parse(arguments), Some(job));
        }
    }

    #[test]
    fn anything_else_is_no_job() {
        for text in [
            "",
            "write",
            "read /a",
            "show --copy /a",
            "show --lines=-1 /a",
            "write --follow /a",
            "write --max-size=1 /a",
            "write --max-size=0 --max-files=1 /a",
            "write --max-size=1 --max-files=x /a",
            "write --what /a",
        ] {
            let words = text.split_whitespace().map(OsString::from);
            assert_eq!(Job::parse(words), None, "{text}");
        }
    }
}

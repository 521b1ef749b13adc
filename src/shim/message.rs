//! What the daemon tells the shim, and what the shim reports when it cannot do it.
//!
//! One instruction goes down the socket, at most one report comes back. Both sides come out of one
//! build, so there is no version in it. Numbers are little-endian. A text is its length with its
//! final NUL, then its bytes with it, so that the shim can hand it to the kernel where it lies; an
//! absent text has length 0.
//!
//! This file is compiled twice, into the daemon and into the shim, which has neither `std` nor
//! `alloc`.

use core::ffi::CStr;

/// Where the shim finds its socket.
pub const SOCKET_FD: i32 = 3;

/// The longest instruction, in bytes.
pub const MAX_INSTRUCTION: usize = 256 * 1024;

/// Where the command finds the sockets that are held for it (sd_listen_fds(3)).
pub const FIRST_SOCKET: i32 = 3;

/// The most sockets that one command is given.
pub const MAX_SOCKETS: usize = 64;

/// The variable that says whom the sockets are for. The daemon leaves room for the number, which
/// nobody knows before there is a process.
pub const LISTEN_PID: &str = "LISTEN_PID=";

/// The size of a report, in bytes.
pub const REPORT_LEN: usize = 12;

/// The index of a report that has none.
pub const NO_INDEX: u32 = u32::MAX;

/// The step at which the shim failed, in the order of the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// The instruction cannot be read.
    Instruction = 1,
    /// Starting a session of its own.
    Session = 2,
    /// Resource limits; the index is the number of the limit.
    Limits = 3,
    /// Scheduling priority.
    Nice = 4,
    /// Becoming user and group.
    Credentials = 5,
    /// The working directory.
    Cwd = 6,
    /// The log file; the index is the length of the directory that could not be made.
    LogFile = 7,
    /// The pid file; the index is the length of the directory that could not be made.
    PidFile = 8,
    /// Executing; the index is that of a candidate that exists and could not be executed.
    Exec = 9,
    /// Taking the sockets.
    Sockets = 10,
}

impl Stage {
    fn from_byte(byte: u8) -> Option<Stage> {
        Some(match byte {
            1 => Stage::Instruction,
            2 => Stage::Session,
            3 => Stage::Limits,
            4 => Stage::Nice,
            5 => Stage::Credentials,
            6 => Stage::Cwd,
            7 => Stage::LogFile,
            8 => Stage::PidFile,
            9 => Stage::Exec,
            10 => Stage::Sockets,
            _ => return None,
        })
    }
}

/// Why the command was not executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The step.
    pub stage: Stage,
    /// What the kernel said.
    pub errno: i32,
    /// See [`Stage`]; [`NO_INDEX`] where there is none.
    pub index: u32,
}

impl Report {
    /// The bytes on the socket.
    pub fn encode(&self) -> [u8; REPORT_LEN] {
        let [a, b, c, d] = self.errno.to_le_bytes();
        let [e, f, g, h] = self.index.to_le_bytes();
        [self.stage as u8, 0, 0, 0, a, b, c, d, e, f, g, h]
    }

    /// Reads what [`Report::encode`] wrote; None when it is something else.
    #[allow(dead_code, reason = "the daemon's side")]
    pub fn decode(bytes: &[u8]) -> Option<Report> {
        let [stage, _, _, _, a, b, c, d, e, f, g, h] = *bytes else { return None };
        Some(Report {
            stage: Stage::from_byte(stage)?,
            errno: i32::from_le_bytes([a, b, c, d]),
            index: u32::from_le_bytes([e, f, g, h]),
        })
    }
}

/// Whom the command shall run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary group ids, four bytes each.
    pub groups: &'a [u8],
}

/// One resource limit, see setrlimit(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// `RLIMIT_...`.
    pub resource: u32,
    /// The soft limit.
    pub soft: u64,
    /// The hard limit.
    pub hard: u64,
}

const LIMIT_LEN: usize = 20;

/// The limits of an instruction, as they lie in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits<'a>(&'a [u8]);

impl Limits<'_> {
    /// One after the other.
    #[allow(dead_code, reason = "the shim's side")]
    pub fn iter(&self) -> impl Iterator<Item = Limit> {
        let mut reader = Reader(self.0);
        core::iter::from_fn(move || {
            Some(Limit { resource: reader.u32()?, soft: reader.u64()?, hard: reader.u64()? })
        })
    }
}

/// The candidates of an instruction, as they lie in it: texts one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paths<'a>(&'a [u8]);

impl<'a> Paths<'a> {
    /// One after the other.
    #[allow(dead_code, reason = "the shim's side")]
    pub fn iter(&self) -> impl Iterator<Item = &'a CStr> {
        let mut reader = Reader(self.0);
        core::iter::from_fn(move || reader.text()?)
    }
}

/// What the shim shall do before it becomes the command. The argument vector and the environment
/// are not in it: the shim was executed with those of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction<'a> {
    /// The signals that are ignored and shall not be: bit 0 is signal 1.
    pub ignored: u64,
    /// It has inherited a wish how likely it is to be killed for want of memory, and shall not have
    /// it.
    pub oom_adjusted: bool,
    /// File mode creation mask.
    pub umask: u32,
    /// Scheduling priority; None leaves it.
    pub nice: Option<i32>,
    /// Whom to become; None leaves it.
    pub credentials: Option<Credentials<'a>>,
    /// Resource limits.
    pub limits: Limits<'a>,
    /// The working directory.
    pub cwd: &'a CStr,
    /// The file for standard output and standard error; None leaves what was inherited.
    pub log_file: Option<&'a CStr>,
    /// The file to write the pid to.
    pub pid_file: Option<&'a CStr>,
    /// What to execute: the first that can be.
    pub candidates: Paths<'a>,
    /// So many sockets follow, with one byte.
    pub sockets: u32,
}

impl<'a> Instruction<'a> {
    /// Reads one instruction without its leading length; None when it is something else.
    #[allow(dead_code, reason = "the shim's side")]
    pub fn decode(bytes: &'a [u8]) -> Option<Instruction<'a>> {
        let mut reader = Reader(bytes);
        Some(Instruction {
            ignored: reader.u64()?,
            oom_adjusted: reader.u32()? != 0,
            umask: reader.u32()?,
            nice: match reader.u32()? {
                0 => None,
                _ => Some(reader.u32()?.cast_signed()),
            },
            credentials: match reader.u32()? {
                0 => None,
                _ => Some(Credentials {
                    uid: reader.u32()?,
                    gid: reader.u32()?,
                    groups: reader.bytes()?,
                }),
            },
            limits: Limits(reader.bytes()?),
            cwd: reader.text()??,
            log_file: reader.text()?,
            pid_file: reader.text()?,
            candidates: Paths(reader.bytes()?),
            sockets: reader.u32()?,
        })
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()? as usize;
        self.take(len)
    }

    /// The outer None: malformed. The inner: absent.
    fn text(&mut self) -> Option<Option<&'a CStr>> {
        match self.bytes()? {
            [] => Some(None),
            bytes => CStr::from_bytes_with_nul(bytes).ok().map(Some),
        }
    }
}

/// The daemon's side: what an instruction is made of, borrowed from wherever it lies.
#[allow(dead_code, reason = "the daemon's side")]
pub struct Draft<'a> {
    /// See [`Instruction`].
    pub ignored: u64,
    /// See [`Instruction`].
    pub oom_adjusted: bool,
    /// See [`Instruction`].
    pub umask: u32,
    /// See [`Instruction`].
    pub nice: Option<i32>,
    /// User id, group id, supplementary group ids.
    pub credentials: Option<(u32, u32, &'a [u32])>,
    /// See [`Instruction`].
    pub limits: &'a [Limit],
    /// See [`Instruction`].
    pub cwd: &'a CStr,
    /// See [`Instruction`].
    pub log_file: Option<&'a CStr>,
    /// See [`Instruction`].
    pub pid_file: Option<&'a CStr>,
    /// See [`Instruction`].
    pub candidates: &'a [&'a CStr],
    /// See [`Instruction`].
    pub sockets: u32,
}

#[allow(dead_code, reason = "the daemon's side")]
impl Draft<'_> {
    /// Appends the instruction without its leading length to `out`.
    pub fn encode(&self, out: &mut impl Extend<u8>) {
        out.extend(self.ignored.to_le_bytes());
        put_u32(out, u32::from(self.oom_adjusted));
        put_u32(out, self.umask);
        match self.nice {
            None => put_u32(out, 0),
            Some(nice) => {
                put_u32(out, 1);
                put_u32(out, nice.cast_unsigned());
            }
        }
        match self.credentials {
            None => put_u32(out, 0),
            Some((uid, gid, groups)) => {
                put_u32(out, 1);
                put_u32(out, uid);
                put_u32(out, gid);
                put_len(out, groups.len() * 4);
                groups.iter().for_each(|group| put_u32(out, *group));
            }
        }
        put_len(out, self.limits.len() * LIMIT_LEN);
        for limit in self.limits {
            put_u32(out, limit.resource);
            out.extend(limit.soft.to_le_bytes());
            out.extend(limit.hard.to_le_bytes());
        }
        put_text(out, Some(self.cwd));
        put_text(out, self.log_file);
        put_text(out, self.pid_file);
        put_len(out, self.candidates.iter().map(|path| 4 + path.to_bytes_with_nul().len()).sum());
        self.candidates.iter().for_each(|path| put_text(out, Some(path)));
        put_u32(out, self.sockets);
    }
}

fn put_u32(out: &mut impl Extend<u8>, number: u32) {
    out.extend(number.to_le_bytes());
}

/// A length that does not fit makes an instruction that is too long anyway.
fn put_len(out: &mut impl Extend<u8>, len: usize) {
    put_u32(out, u32::try_from(len).unwrap_or(u32::MAX));
}

fn put_text(out: &mut impl Extend<u8>, text: Option<&CStr>) {
    let bytes = text.map_or(&[][..], CStr::to_bytes_with_nul);
    put_len(out, bytes.len());
    out.extend(bytes.iter().copied());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Vec<u8> {
        let mut bytes = Vec::new();
        Draft {
            ignored: 1 << 63 | 1 << 12,
            oom_adjusted: true,
            umask: 0o027,
            nice: Some(-5),
            credentials: Some((1000, 100, &[4, 27])),
            limits: &[Limit { resource: 7, soft: 1024, hard: u64::MAX }],
            cwd: c"/srv",
            log_file: Some(c"/var/log/a"),
            pid_file: None,
            candidates: &[c"/bin/a", c"a"],
            sockets: 2,
        }
        .encode(&mut bytes);
        bytes
    }

    #[test]
    fn an_instruction_is_read_as_it_was_written() {
        let bytes = full();
        let read = Instruction::decode(&bytes).unwrap();
        assert_eq!((read.ignored, read.umask), (1 << 63 | 1 << 12, 0o027));
        assert!(read.oom_adjusted);
        assert_eq!(read.nice, Some(-5));
        let credentials = read.credentials.unwrap();
        assert_eq!((credentials.uid, credentials.gid), (1000, 100));
        assert_eq!(credentials.groups, [4, 0, 0, 0, 27, 0, 0, 0]);
        let limits: Vec<_> = read.limits.iter().collect();
        assert_eq!(limits, [Limit { resource: 7, soft: 1024, hard: u64::MAX }]);
        assert_eq!(read.cwd, c"/srv");
        assert_eq!(read.log_file, Some(c"/var/log/a"));
        assert_eq!(read.pid_file, None);
        assert_eq!(read.candidates.iter().collect::<Vec<_>>(), [c"/bin/a", c"a"]);
        assert_eq!(read.sockets, 2);
    }

    #[test]
    fn a_cut_instruction_is_refused_and_never_read_beyond() {
        let bytes = full();
        for len in 0..bytes.len() {
            assert_eq!(Instruction::decode(&bytes[..len]), None, "{len}");
        }
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let report = Report { stage: Stage::LogFile, errno: 13, index: 5 };
        assert_eq!(Report::decode(&report.encode()), Some(report));
        assert_eq!(Report::decode(&[0; REPORT_LEN]), None);
        assert_eq!(Report::decode(&report.encode()[1..]), None);
    }
}

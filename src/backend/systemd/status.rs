//! What systemd says of a main process, in our words.
//!
//! Exit codes from 200 on are those of systemd itself, for a step before the command was executed
//! (systemd.exec(5), "Process Exit Codes"). A command may exit with the same numbers; only the
//! result of the job of the start tells the two apart.

use crate::core::event::{ExitStatus, SpawnStage};
use crate::core::spec::Signal;
use std::ops::RangeInclusive;

/// The exit codes with which systemd says that a step of a start failed.
pub const OF_SYSTEMD: RangeInclusive<i32> = 200..=245;

/// How a main process ended, by `ExecMainCode` and `ExecMainStatus`; None while it runs. The codes
/// are those of `si_code` in waitid(2).
#[must_use]
pub fn exit_status(code: i32, status: i32) -> Option<ExitStatus> {
    const EXITED: i32 = 1;
    const KILLED: i32 = 2;
    const DUMPED: i32 = 3;
    let signal = |core| match u8::try_from(status) {
        Ok(number) => ExitStatus::Signal { signal: Signal(number), core },
        Err(_) => ExitStatus::Unknown,
    };
    match code {
        0 => None,
        EXITED => Some(u8::try_from(status).map_or(ExitStatus::Unknown, ExitStatus::Code)),
        KILLED => Some(signal(false)),
        DUMPED => Some(signal(true)),
        _ => Some(ExitStatus::Unknown),
    }
}

/// The step of a start that an exit code of systemd stands for, and its name there; None for a code
/// that is none of those.
#[must_use]
pub fn failed_step(status: i32) -> Option<(SpawnStage, &'static str)> {
    use SpawnStage::{Cgroup, Credentials, Cwd, Exec, Fork, Limits, Nice, Output};
    Some(match status {
        200 => (Cwd, "CHDIR"),
        201 => (Nice, "NICE"),
        202 => (Output, "FDS"),
        203 => (Exec, "EXEC"),
        204 => (Fork, "MEMORY"),
        205 => (Limits, "LIMITS"),
        206 => (Limits, "OOM_ADJUST"),
        207 => (Fork, "SIGNAL_MASK"),
        208 => (Output, "STDIN"),
        209 => (Output, "STDOUT"),
        210 => (Cwd, "CHROOT"),
        211 => (Nice, "IOPRIO"),
        212 => (Nice, "TIMERSLACK"),
        213 => (Credentials, "SECUREBITS"),
        214 => (Nice, "SETSCHEDULER"),
        215 => (Nice, "CPUAFFINITY"),
        216 => (Credentials, "GROUP"),
        217 => (Credentials, "USER"),
        218 => (Credentials, "CAPABILITIES"),
        219 => (Cgroup, "CGROUP"),
        220 => (Fork, "SETSID"),
        221 => (Fork, "CONFIRM"),
        222 => (Output, "STDERR"),
        224 => (Credentials, "PAM"),
        225 => (Fork, "NETWORK"),
        226 => (Fork, "NAMESPACE"),
        227 => (Credentials, "NO_NEW_PRIVILEGES"),
        228 => (Fork, "SECCOMP"),
        229 => (Credentials, "SELINUX_CONTEXT"),
        230 => (Fork, "PERSONALITY"),
        231 => (Credentials, "APPARMOR_PROFILE"),
        232 => (Fork, "ADDRESS_FAMILIES"),
        233 => (Fork, "RUNTIME_DIRECTORY"),
        235 => (Fork, "CHOWN"),
        236 => (Credentials, "SMACK_PROCESS_LABEL"),
        237 => (Credentials, "KEYRING"),
        238 => (Fork, "STATE_DIRECTORY"),
        239 => (Fork, "CACHE_DIRECTORY"),
        240 => (Fork, "LOGS_DIRECTORY"),
        241 => (Fork, "CONFIGURATION_DIRECTORY"),
        242 => (Fork, "NUMA_POLICY"),
        243 => (Fork, "CREDENTIALS"),
        245 => (Fork, "BPF"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_as_the_kernel_tells_it() {
        assert_eq!(exit_status(0, 0), None);
        assert_eq!(exit_status(1, 42), Some(ExitStatus::Code(42)));
        let killed = ExitStatus::Signal { signal: Signal::KILL, core: false };
        assert_eq!(exit_status(2, 9), Some(killed));
        let dumped = ExitStatus::Signal { signal: Signal(11), core: true };
        assert_eq!(exit_status(3, 11), Some(dumped));
        assert_eq!(exit_status(1, 4711), Some(ExitStatus::Unknown));
        assert_eq!(exit_status(9, 0), Some(ExitStatus::Unknown));
    }

    #[test]
    fn a_code_of_systemd_names_the_step() {
        assert_eq!(failed_step(200), Some((SpawnStage::Cwd, "CHDIR")));
        assert_eq!(failed_step(203), Some((SpawnStage::Exec, "EXEC")));
        assert_eq!(failed_step(217), Some((SpawnStage::Credentials, "USER")));
        assert_eq!((failed_step(1), failed_step(199), failed_step(255)), (None, None, None));
        for code in 0..=255 {
            assert!(failed_step(code).is_none() || OF_SYSTEMD.contains(&code), "{code}");
        }
    }
}

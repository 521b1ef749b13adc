//! What all processes of a run may use together. The kernel holds them to it, by control groups
//! (version 2, cgroups(7)), where it has the controllers and whoever runs the processes may use them.

use serde::{Deserialize, Serialize};

/// The limits of a process. A change of any of them is in force at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Bytes of memory. What needs more is ended.
    pub memory: Option<u64>,
    /// Bytes of memory above which it is slowed down, and memory is taken back from it.
    pub memory_high: Option<u64>,
    /// Processor time, in thousandths of one processor.
    pub cpu: Option<u32>,
    /// Processes and threads.
    pub tasks: Option<u64>,
    /// Bytes of memory above which it gets a new run. The key is `maxMemoryRestart`, beside `limits`.
    pub max_memory_restart: Option<u64>,
}

/// One of the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Limit {
    /// [`Limits::memory`].
    Memory,
    /// [`Limits::memory_high`].
    MemoryHigh,
    /// [`Limits::cpu`].
    Cpu,
    /// [`Limits::tasks`].
    Tasks,
    /// [`Limits::max_memory_restart`].
    MaxMemoryRestart,
}

impl Limit {
    /// All of them.
    pub const ALL: [Limit; 5] =
        [Limit::Memory, Limit::MemoryHigh, Limit::Cpu, Limit::Tasks, Limit::MaxMemoryRestart];

    /// Its key, as the section that it is in has it.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Limit::Memory => "memory",
            Limit::MemoryHigh => "memoryHigh",
            Limit::Cpu => "cpu",
            Limit::Tasks => "tasks",
            Limit::MaxMemoryRestart => "maxMemoryRestart",
        }
    }

    /// Its key, as a process has it.
    #[must_use]
    pub fn full_key(self) -> String {
        match self {
            Limit::MaxMemoryRestart => self.key().to_owned(),
            _ => format!("limits.{}", self.key()),
        }
    }

    /// The controller of control groups that enforces it.
    #[must_use]
    pub fn controller(self) -> &'static str {
        match self {
            Limit::Memory | Limit::MemoryHigh | Limit::MaxMemoryRestart => "memory",
            Limit::Cpu => "cpu",
            Limit::Tasks => "pids",
        }
    }
}

impl Limits {
    /// Its value as the file has it; None where it is not set.
    #[must_use]
    pub fn text(&self, limit: Limit) -> Option<String> {
        match limit {
            Limit::Memory => self.memory.map(crate::text::size),
            Limit::MemoryHigh => self.memory_high.map(crate::text::size),
            Limit::Cpu => self.cpu.map(|thousandths| processors(thousandths).to_string()),
            Limit::Tasks => self.tasks.map(|tasks| tasks.to_string()),
            Limit::MaxMemoryRestart => self.max_memory_restart.map(crate::text::size),
        }
    }

    /// Those that are set.
    pub fn given(&self) -> impl Iterator<Item = Limit> + '_ {
        Limit::ALL.into_iter().filter(|limit| match limit {
            Limit::Memory => self.memory.is_some(),
            Limit::MemoryHigh => self.memory_high.is_some(),
            Limit::Cpu => self.cpu.is_some(),
            Limit::Tasks => self.tasks.is_some(),
            Limit::MaxMemoryRestart => self.max_memory_restart.is_some(),
        })
    }

    /// Bytes of memory above which the kernel is to do something about it: to slow it down, and to
    /// tell of it.
    #[must_use]
    pub fn high(&self) -> Option<u64> {
        let both = [self.memory_high, self.max_memory_restart];
        both.into_iter().flatten().min()
    }
}

/// A number of processors.
#[must_use]
pub fn processors(thousandths: u32) -> f64 {
    f64::from(thousandths) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_told_as_the_file_has_it() {
        let limits = Limits { memory: Some(512 << 20), cpu: Some(1500), ..Limits::default() };
        let texts = Limit::ALL.map(|limit| limits.text(limit));
        assert_eq!(texts, [Some("512M".into()), None, Some("1.5".into()), None, None]);
        let keys: Vec<&str> = limits.given().map(Limit::key).collect();
        assert_eq!(keys, ["memory", "cpu"]);
        let whole = Limits { cpu: Some(2000), ..Limits::default() };
        assert_eq!(whole.text(Limit::Cpu).as_deref(), Some("2"));
    }
}

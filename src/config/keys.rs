//! The one table of keys. It drives what is unknown and what is suggested instead, what is refused
//! by name because this version cannot do it, the bounds of numbers, and the JSON schema.

/// The keys that may stand together in one mapping.
#[derive(Debug)]
pub struct Section {
    /// What messages call it: `restartPolicy`; empty for the file and for a process.
    pub path: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

/// One key.
#[derive(Debug)]
pub struct Key {
    /// As it is written.
    pub name: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// The default, for people; empty where there is none.
    pub default: &'static str,
    /// What it means, one line.
    pub doc: &'static str,
}

/// What a value is.
#[derive(Debug)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// Any single value, as it stands in the file.
    Text,
    /// A list of them.
    Texts,
    /// One of them or a list.
    TextOrTexts,
    /// Milliseconds, or a text such as `2m30s`. The bounds are in milliseconds.
    Duration {
        /// At least.
        min: u64,
        /// At most.
        max: u64,
    },
    /// Bytes, or a text such as `50M`. The bounds are in bytes.
    Size {
        /// At least.
        min: u64,
        /// At most.
        max: u64,
    },
    /// A whole number.
    Integer {
        /// At least.
        min: i64,
        /// At most.
        max: i64,
    },
    /// A list of whole numbers.
    Integers {
        /// At least.
        min: i64,
        /// At most.
        max: i64,
    },
    /// A decimal number.
    Number {
        /// At least.
        min: f64,
        /// At most.
        max: f64,
    },
    /// Octal digits, as in `0022`.
    Octal,
    /// One of some words.
    Words {
        /// Those that are understood.
        words: &'static [&'static str],
        /// Those that a later version will understand.
        later: &'static [&'static str],
    },
    /// The name or number of a signal.
    Signal,
    /// Names and values of variables.
    Variables,
    /// Names and values of properties of units.
    Properties,
    /// A list of processes, or processes with a condition each.
    Dependencies,
    /// Names of sockets, each with an address or a mapping.
    Sockets,
    /// A mapping with keys of its own.
    Section(&'static Section),
    /// Processes by id.
    Processes,
    /// Not available in this version: refused by name, unless null.
    Later,
}

impl Section {
    /// The key of that name.
    #[must_use]
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        let keys: &'static [Key] = self.keys;
        keys.iter().find(|key| key.name == name)
    }

    /// What messages call a key of it: `restartPolicy.delay`.
    #[must_use]
    pub fn full_name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

const fn key(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { name, kind, default, doc }
}

/// A key of a feature that is not here yet.
const fn later(name: &'static str, doc: &'static str) -> Key {
    Key { name, kind: Kind::Later, default: "", doc }
}

const DAY: u64 = 24 * 60 * 60 * 1_000;
/// Longer than anybody waits; keeps sums of durations far from overflow.
const LONGEST: u64 = 3_650 * DAY;
const MOST: i64 = u32::MAX as i64;

/// The main file, and a file with processes.
pub static FILE: Section = Section {
    path: "",
    keys: &[
        key("processes", Kind::Processes, "", "The processes, by id."),
        key(
            "processManagement",
            Kind::Section(&MANAGEMENT),
            "",
            "Settings of the daemon. In the main file only.",
        ),
        key(
            "baseDir",
            Kind::Text,
            "the directory of the file",
            "Relative paths of this file are relative to this directory.",
        ),
    ],
};

/// `processManagement`.
pub static MANAGEMENT: Section = Section {
    path: "processManagement",
    keys: &[
        key("enabled", Kind::Bool, "true", "false: the daemon runs, and no process is wanted."),
        key(
            "processConfigFile",
            Kind::Text,
            "processes.yaml beside it",
            "The file with the processes.",
        ),
        key(
            "autoStart",
            Kind::Bool,
            "true",
            "false: processes are wanted only once started by hand.",
        ),
        key(
            "healthCheckInterval",
            Kind::Duration { min: 100, max: LONGEST },
            "30s",
            "The default of healthCheck.interval.",
        ),
        key(
            "restartAttempts",
            Kind::Integer { min: 0, max: MOST },
            "unlimited",
            "The default of restartPolicy.maxAttempts.",
        ),
        key("watchConfig", Kind::Bool, "true", "Reload by itself when a file changes."),
        key(
            "reloadDebounceMs",
            Kind::Duration { min: 0, max: 60_000 },
            "100",
            "A finished write settles this long before it is read.",
        ),
        key(
            "validateOnReload",
            Kind::Bool,
            "true",
            "false skips the checks against the machine. A file with errors is never applied.",
        ),
        key(
            "backend",
            Kind::Words { words: &["auto", "systemd", "native"], later: &[] },
            "auto",
            "What runs the processes: each in a unit of systemd, or as children of the daemon. A \
             change needs a restart of the daemon.",
        ),
        key("defaultUser", Kind::Text, "provost", "Runs the processes that name no user."),
        key(
            "rollback",
            Kind::Words { words: &["auto", "manual", "off"], later: &[] },
            "auto",
            "What becomes of a change that does not come up: it is undone; it stays until somebody \
             decides; it is not judged.",
        ),
        key(
            "verdictTimeout",
            Kind::Duration { min: 0, max: LONGEST },
            "the longest startTimeout, and settle",
            "How long each process that a change touches may take to be good.",
        ),
        key(
            "settle",
            Kind::Duration { min: 0, max: LONGEST },
            "5s",
            "How long what a change touches must stay up, without a break, to be good.",
        ),
        key(
            "history",
            Kind::Integer { min: 1, max: 1000 },
            "50",
            "How many generations are kept; what runs and what is returned to always are.",
        ),
        key("hooks", Kind::Section(&NOTICES), "", "Commands that are told how reloads end."),
        later("gateway", "The web gateway."),
    ],
};

/// `processManagement.hooks`.
pub static NOTICES: Section = Section {
    path: "processManagement.hooks",
    keys: &[
        key("onApplied", Kind::Texts, "", "After a change that came up."),
        key("onRejected", Kind::Texts, "", "After a change that is not valid."),
        key(
            "onRolledBack",
            Kind::Texts,
            "",
            "After a change that did not come up, whether it was undone or stays.",
        ),
    ],
};

/// One process.
pub static PROCESS: Section = Section {
    path: "",
    keys: &[
        key("enabled", Kind::Bool, "true", "Whether it may run at all."),
        key("name", Kind::Text, "", "For people; the key is the id."),
        key("description", Kind::Text, "", "For people."),
        key(
            "command",
            Kind::TextOrTexts,
            "",
            "The program, looked up in PATH, or the program with its arguments as a list.",
        ),
        key("shell", Kind::Text, "", "A line for /bin/sh, instead of command."),
        key("args", Kind::Texts, "[]", "Arguments of command."),
        key("cwd", Kind::Text, "the directory of the file", "The working directory."),
        key("user", Kind::Text, "", "Runs as this user, by name or number."),
        key("group", Kind::Text, "the user's", "Runs as this group, by name or number."),
        key("umask", Kind::Octal, "0022", "Permissions that new files do not get."),
        key("nice", Kind::Integer { min: -20, max: 19 }, "0", "Scheduling priority."),
        key("env", Kind::Variables, "{}", "Environment variables."),
        key("envFile", Kind::TextOrTexts, "[]", "Files with environment variables, NAME=VALUE."),
        key("instances", Kind::Integer { min: 1, max: 10_000 }, "1", "How many of it run."),
        key(
            "maxUnavailable",
            Kind::Integer { min: 1, max: 10_000 },
            "1",
            "So many of its instances at most are down for a new run at the same time.",
        ),
        key(
            "overlap",
            Kind::Bool,
            "false",
            "A new run starts beside the old one, which ends when the new one is ready.",
        ),
        key(
            "dependsOn",
            Kind::Dependencies,
            "[]",
            "What it waits for: ids, or ids with started, ready, healthy or completed.",
        ),
        key(
            "readiness",
            Kind::Words { words: &["health", "started", "notify"], later: &["log"] },
            "health where there is a check, else started",
            "When it counts as ready.",
        ),
        key(
            "startTimeout",
            Kind::Duration { min: 1, max: LONGEST },
            "60s",
            "A run that is not ready by then has failed.",
        ),
        key("restartPolicy", Kind::Section(&RESTART), "", "What follows the end of a run."),
        key("healthCheck", Kind::Section(&HEALTH), "", "How its health is told."),
        key("stop", Kind::Section(&STOP), "", "How it is stopped."),
        key("reload", Kind::Section(&RELOAD), "", "How it takes new settings without a restart."),
        key("watch", Kind::Section(&WATCH), "", "What is done when files change."),
        key("limits", Kind::Section(&LIMITS), "", "What it may use."),
        key(
            "maxMemoryRestart",
            Kind::Size { min: 64 << 10, max: 1 << 50 },
            "",
            "Above so much memory it is stopped, and started again by its restartPolicy.",
        ),
        key("logFile", Kind::Text, "", "Its output goes to this file."),
        key("log", Kind::Section(&LOG), "", "Where its output goes."),
        key("pidFile", Kind::Text, "", "Holds its pid while it runs."),
        key(
            "essential",
            Kind::Bool,
            "false",
            "Its final end ends the supervisor, with its exit code.",
        ),
        key("sockets", Kind::Sockets, "{}", "Sockets that are held for it, by name."),
        key(
            "sandbox",
            Kind::Words { words: &["none", "default", "strict"], later: &[] },
            "none",
            "What it may see and do of what its user may. On the systemd backend.",
        ),
        key("systemd", Kind::Properties, "{}", "Properties of its unit. On the systemd backend."),
        key("tags", Kind::Texts, "[]", "For people and for `tag:NAME` on the command line."),
        later("schedule", "Runs it at times of the calendar."),
        later("hooks", "Commands around its start and stop."),
    ],
};

/// `restartPolicy`.
pub static RESTART: Section = Section {
    path: "restartPolicy",
    keys: &[
        key(
            "condition",
            Kind::Words { words: &["always", "on-failure", "unless-stopped", "no"], later: &[] },
            "always",
            "Which ends of a run are followed by another.",
        ),
        key("delay", Kind::Duration { min: 0, max: LONGEST }, "1s", "The first delay."),
        key(
            "maxDelay",
            Kind::Duration { min: 0, max: LONGEST },
            "5m",
            "The delay grows up to here.",
        ),
        key(
            "factor",
            Kind::Number { min: 1.0, max: 1_000.0 },
            "2",
            "The delay is multiplied with it each time.",
        ),
        key(
            "jitter",
            Kind::Number { min: 0.0, max: 1.0 },
            "0.2",
            "The delay varies by up to this fraction.",
        ),
        key(
            "minUptime",
            Kind::Duration { min: 0, max: LONGEST },
            "10s",
            "This long ready and healthy resets the delay and the attempts.",
        ),
        key(
            "maxAttempts",
            Kind::Integer { min: 0, max: MOST },
            "null",
            "Gives up after so many restarts; null: never.",
        ),
        key(
            "successExitCodes",
            Kind::Integers { min: 0, max: 255 },
            "[0]",
            "Exit codes that count as success.",
        ),
    ],
};

/// `healthCheck`.
pub static HEALTH: Section = Section {
    path: "healthCheck",
    keys: &[
        key("enabled", Kind::Bool, "true", "false: as if there were no check."),
        key("url", Kind::Text, "", "Healthy when a GET of this http: URL answers 200 to 299."),
        key("tcp", Kind::Text, "", "Healthy when host:port accepts a connection."),
        key("exec", Kind::Texts, "", "Healthy when this command exits with 0."),
        key(
            "notify",
            Kind::Bool,
            "false",
            "true: nobody asks; healthy as long as it says WATCHDOG=1 within each interval.",
        ),
        key(
            "interval",
            Kind::Duration { min: 100, max: LONGEST },
            "30s",
            "From the end of one check to the next; with notify, the longest silence.",
        ),
        key(
            "timeout",
            Kind::Duration { min: 1, max: LONGEST },
            "5s",
            "One deadline for all of one check.",
        ),
        key(
            "startPeriod",
            Kind::Duration { min: 0, max: LONGEST },
            "10s",
            "Failures in the first so much of a run do not count.",
        ),
        key(
            "failureThreshold",
            Kind::Integer { min: 1, max: MOST },
            "3, or 1 with notify",
            "So many failures in a row make it unhealthy.",
        ),
        key(
            "successThreshold",
            Kind::Integer { min: 1, max: MOST },
            "1",
            "So many successes in a row make it healthy again.",
        ),
        key(
            "onFailure",
            Kind::Words { words: &["restart", "none", "stop"], later: &[] },
            "restart",
            "What becoming unhealthy leads to.",
        ),
    ],
};

/// `stop`.
pub static STOP: Section = Section {
    path: "stop",
    keys: &[
        key("signal", Kind::Signal, "SIGTERM", "Asks the process to end."),
        key(
            "timeout",
            Kind::Duration { min: 0, max: LONGEST },
            "30s",
            "After this all of it is killed.",
        ),
        later("command", "Run instead of sending the signal."),
    ],
};

/// `reload`.
pub static RELOAD: Section = Section {
    path: "reload",
    keys: &[
        key("signal", Kind::Signal, "", "Tells its main process to take its settings anew."),
        key(
            "command",
            Kind::Texts,
            "",
            "Has it take its settings anew; exit 0 is success. MAINPID is its main process.",
        ),
        key(
            "timeout",
            Kind::Duration { min: 1, max: LONGEST },
            "30s",
            "The command is killed after this, and has failed.",
        ),
    ],
};

/// `watch`.
pub static WATCH: Section = Section {
    path: "watch",
    keys: &[
        key("paths", Kind::Texts, "", "Files, and directories with all that is in them."),
        key(
            "action",
            Kind::Words { words: &["restart", "reload"], later: &[] },
            "restart",
            "What a change causes: a new run, or that it takes its settings as its reload says.",
        ),
        key(
            "ignore",
            Kind::Texts,
            "[node_modules, __pycache__]",
            "Names in a directory that do not matter, with * and ?.",
        ),
        key(
            "debounce",
            Kind::Duration { min: 0, max: 60_000 },
            "200ms",
            "A finished write settles this long before something is done.",
        ),
    ],
};

/// `limits`.
pub static LIMITS: Section = Section {
    path: "limits",
    keys: &[
        key(
            "memory",
            Kind::Size { min: 64 << 10, max: 1 << 50 },
            "",
            "How much memory it may have. What needs more is killed by the kernel.",
        ),
        key(
            "memoryHigh",
            Kind::Size { min: 64 << 10, max: 1 << 50 },
            "",
            "Above so much memory it is slowed down.",
        ),
        key("cpu", Kind::Number { min: 0.01, max: 8_192.0 }, "", "How many processors it may use."),
        key(
            "tasks",
            Kind::Integer { min: 1, max: 1 << 22 },
            "",
            "How many processes and threads it may have.",
        ),
        key(
            "files",
            Kind::Integer { min: 3, max: 1 << 30 },
            "as at a login",
            "How many files it may have open.",
        ),
    ],
};

/// `log`.
pub static LOG: Section = Section {
    path: "log",
    keys: &[
        key(
            "target",
            Kind::Words { words: &["auto", "journal", "none"], later: &[] },
            "auto",
            "Where its output goes besides logFile; auto: the journal, unless there is a logFile.",
        ),
        key(
            "maxSize",
            Kind::Size { min: 4 << 10, max: 1 << 50 },
            "",
            "The logFile is rotated before it gets larger.",
        ),
        key(
            "maxFiles",
            Kind::Integer { min: 1, max: 10_000 },
            "5",
            "So many rotated files are kept, besides the one that is written.",
        ),
    ],
};

/// A dependency that is more than a word.
pub static DEPENDENCY: Section = Section {
    path: "dependsOn",
    keys: &[
        key(
            "condition",
            Kind::Words { words: &["started", "ready", "healthy", "completed"], later: &[] },
            "ready",
            "When it counts as met.",
        ),
        key("restart", Kind::Bool, "false", "Restart with it when its run ends."),
    ],
};

/// A socket that is more than an address.
pub static SOCKET: Section = Section {
    path: "sockets",
    keys: &[
        key("listen", Kind::Text, "", "An address with a port, or an absolute path."),
        key("mode", Kind::Octal, "0660", "Permissions of the file of a unix socket."),
    ],
};

/// Every section with the name the manual gives it.
pub static SECTIONS: &[(&str, &Section)] = &[
    ("file", &FILE),
    ("processManagement", &MANAGEMENT),
    ("processManagement.hooks", &NOTICES),
    ("process", &PROCESS),
    ("restartPolicy", &RESTART),
    ("healthCheck", &HEALTH),
    ("stop", &STOP),
    ("reload", &RELOAD),
    ("watch", &WATCH),
    ("limits", &LIMITS),
    ("log", &LOG),
    ("dependsOn", &DEPENDENCY),
    ("sockets", &SOCKET),
];

//! The table of properties.

use super::Form::{
    Addresses, Below, Binds, Bool, Capabilities, Credentials, Devices, ErrorNumber, Filter,
    Integer, Mode, Mounts, Names, Namespaces, Numbers, Path, Paths, Processors, ResourceLimit,
    Size, Weight, Words,
};
use super::Part::{Own, Sandbox};
use super::{Form, Part, Property};

const fn of(
    name: &'static str,
    part: Part,
    form: Form,
    example: &'static [&'static str],
) -> Property {
    Property { name, form, part, example }
}

const SCHEDULING: Form =
    Numbers(&[("other", 0), ("batch", 3), ("idle", 5), ("fifo", 1), ("rr", 2)]);
const IO_SCHEDULING: Form = Numbers(&[("realtime", 1), ("best-effort", 2), ("idle", 3)]);

/// All properties that the file may set, sorted. The sandbox, the limits of single processes, what of
/// the machine it gets a share of, directories and credentials.
pub static PROPERTIES: &[Property] = &[
    of("AllowedCPUs", Own, Processors, &["0-1"]),
    of("AmbientCapabilities", Sandbox, Capabilities, &["CAP_NET_BIND_SERVICE"]),
    of("BindPaths", Sandbox, Binds, &["/tmp:/mnt"]),
    of("BindReadOnlyPaths", Sandbox, Binds, &["/tmp:/mnt"]),
    of("CPUAffinity", Own, Processors, &["0"]),
    of("CPUSchedulingPolicy", Own, SCHEDULING, &["batch"]),
    of("CPUSchedulingPriority", Own, Integer { min: 1, max: 99 }, &["1"]),
    of("CPUSchedulingResetOnFork", Own, Bool, &["yes"]),
    of("CPUWeight", Own, Weight, &["50"]),
    of("CacheDirectory", Own, Below, &["app"]),
    of("CacheDirectoryMode", Own, Mode, &["0750"]),
    of("CapabilityBoundingSet", Sandbox, Capabilities, &["CAP_NET_BIND_SERVICE"]),
    of("ConfigurationDirectory", Own, Below, &["app"]),
    of("ConfigurationDirectoryMode", Own, Mode, &["0750"]),
    of("DeviceAllow", Own, Devices, &["/dev/null rw"]),
    of("DevicePolicy", Own, Words(&["auto", "closed", "strict"]), &["closed"]),
    of("ExecPaths", Sandbox, Paths, &["/usr"]),
    of("IOSchedulingClass", Own, IO_SCHEDULING, &["best-effort"]),
    of("IOSchedulingPriority", Own, Integer { min: 0, max: 7 }, &["6"]),
    of("IOWeight", Own, Weight, &["50"]),
    of("IPAddressAllow", Own, Addresses, &["localhost"]),
    of("IPAddressDeny", Own, Addresses, &["any"]),
    of("InaccessiblePaths", Sandbox, Paths, &["-/mnt"]),
    of("KeyringMode", Sandbox, Words(&["inherit", "private", "shared"]), &["private"]),
    of("LimitAS", Own, ResourceLimit("LimitASSoft"), &["infinity"]),
    of("LimitCORE", Own, ResourceLimit("LimitCORESoft"), &["0:infinity"]),
    of("LimitCPU", Own, ResourceLimit("LimitCPUSoft"), &["infinity"]),
    of("LimitDATA", Own, ResourceLimit("LimitDATASoft"), &["infinity"]),
    of("LimitFSIZE", Own, ResourceLimit("LimitFSIZESoft"), &["1G"]),
    of("LimitLOCKS", Own, ResourceLimit("LimitLOCKSSoft"), &["infinity"]),
    of("LimitMEMLOCK", Own, ResourceLimit("LimitMEMLOCKSoft"), &["8M"]),
    of("LimitMSGQUEUE", Own, ResourceLimit("LimitMSGQUEUESoft"), &["800K"]),
    of("LimitNICE", Own, ResourceLimit("LimitNICESoft"), &["0"]),
    of("LimitNPROC", Own, ResourceLimit("LimitNPROCSoft"), &["1000"]),
    of("LimitRTPRIO", Own, ResourceLimit("LimitRTPRIOSoft"), &["0"]),
    of("LimitRTTIME", Own, ResourceLimit("LimitRTTIMESoft"), &["infinity"]),
    of("LimitSIGPENDING", Own, ResourceLimit("LimitSIGPENDINGSoft"), &["1000"]),
    of("LimitSTACK", Own, ResourceLimit("LimitSTACKSoft"), &["8M:infinity"]),
    of("LoadCredential", Own, Credentials, &["host:/etc/hostname"]),
    of("LockPersonality", Sandbox, Bool, &["yes"]),
    of("LogsDirectory", Own, Below, &["app"]),
    of("LogsDirectoryMode", Own, Mode, &["0750"]),
    of("MemoryDenyWriteExecute", Sandbox, Bool, &["yes"]),
    of("MemoryLow", Own, Size, &["64M"]),
    of("MemoryMin", Own, Size, &["16M"]),
    of("MemorySwapMax", Own, Size, &["0"]),
    of("MountAPIVFS", Sandbox, Bool, &["yes"]),
    of("NetworkNamespacePath", Sandbox, Path, &["/proc/self/ns/net"]),
    of("NoExecPaths", Sandbox, Paths, &["/mnt"]),
    of("NoNewPrivileges", Sandbox, Bool, &["yes"]),
    of("OOMScoreAdjust", Own, Integer { min: -1000, max: 1000 }, &["500"]),
    of("PrivateDevices", Sandbox, Bool, &["yes"]),
    of("PrivateIPC", Sandbox, Bool, &["yes"]),
    of("PrivateMounts", Sandbox, Bool, &["yes"]),
    of("PrivateNetwork", Sandbox, Bool, &["yes"]),
    of("PrivateTmp", Sandbox, Bool, &["yes"]),
    of("PrivateUsers", Sandbox, Bool, &["yes"]),
    of("ProcSubset", Sandbox, Words(&["all", "pid"]), &["pid"]),
    of("ProtectClock", Sandbox, Bool, &["yes"]),
    of("ProtectControlGroups", Sandbox, Bool, &["yes"]),
    of("ProtectHome", Sandbox, Words(&["no", "yes", "read-only", "tmpfs"]), &["tmpfs"]),
    of("ProtectHostname", Sandbox, Bool, &["yes"]),
    of("ProtectKernelLogs", Sandbox, Bool, &["yes"]),
    of("ProtectKernelModules", Sandbox, Bool, &["yes"]),
    of("ProtectKernelTunables", Sandbox, Bool, &["yes"]),
    of(
        "ProtectProc",
        Sandbox,
        Words(&["default", "noaccess", "invisible", "ptraceable"]),
        &["invisible"],
    ),
    of("ProtectSystem", Sandbox, Words(&["no", "yes", "full", "strict"]), &["strict"]),
    of("ReadOnlyPaths", Sandbox, Paths, &["/mnt"]),
    of("ReadWritePaths", Sandbox, Paths, &["-/mnt"]),
    of("RemoveIPC", Own, Bool, &["yes"]),
    of("RestrictAddressFamilies", Sandbox, Filter, &["AF_UNIX", "AF_INET"]),
    of("RestrictNamespaces", Sandbox, Namespaces, &["yes"]),
    of("RestrictRealtime", Sandbox, Bool, &["yes"]),
    of("RestrictSUIDSGID", Sandbox, Bool, &["yes"]),
    of("RuntimeDirectory", Own, Below, &["app"]),
    of("RuntimeDirectoryMode", Own, Mode, &["0750"]),
    of("RuntimeDirectoryPreserve", Own, Words(&["no", "yes", "restart"]), &["yes"]),
    of("StateDirectory", Own, Below, &["app"]),
    of("StateDirectoryMode", Own, Mode, &["0750"]),
    of("SupplementaryGroups", Sandbox, Names, &["adm"]),
    of("SystemCallArchitectures", Sandbox, Names, &["native"]),
    of("SystemCallErrorNumber", Sandbox, ErrorNumber, &["EPERM"]),
    of("SystemCallFilter", Sandbox, Filter, &["@system-service"]),
    of("TemporaryFileSystem", Sandbox, Mounts, &["/mnt:ro"]),
];

/// Properties that are not for the file: what to do instead.
pub static OWNED: &[(&[&str], &str)] = &[
    (&["ExecStart", "ExecStartEx", "ExecSearchPath"], "use `command`, `args` or `shell`"),
    (
        &["ExecCondition", "ExecStartPre", "ExecStartPost", "ExecStop", "ExecStopPost"],
        "commands around a start or a stop are not available in this version",
    ),
    (&["ExecReload"], "how it takes new settings by itself is not available in this version"),
    (&["Type", "NotifyAccess", "BusName", "PIDFile"], "use `readiness`"),
    (
        &["Restart", "RestartSec", "RestartUSec", "RestartSteps", "RestartMaxDelaySec"],
        "use `restartPolicy`",
    ),
    (
        &[
            "StartLimitIntervalSec",
            "StartLimitBurst",
            "SuccessExitStatus",
            "RestartForceExitStatus",
        ],
        "use `restartPolicy`",
    ),
    (&["RestartPreventExitStatus", "StartLimitIntervalUSec"], "use `restartPolicy`"),
    (&["Environment", "PassEnvironment", "UnsetEnvironment"], "use `env`"),
    (&["EnvironmentFile", "EnvironmentFiles", "SetCredential"], "use `envFile`"),
    (&["User", "DynamicUser"], "use `user`"),
    (&["Group"], "use `group`"),
    (&["WorkingDirectory"], "use `cwd`"),
    (&["UMask"], "use `umask`"),
    (&["Nice"], "use `nice`"),
    (&["LimitNOFILE"], "use `limits.files`"),
    (&["MemoryMax", "MemoryLimit"], "use `limits.memory`"),
    (&["MemoryHigh"], "use `limits.memoryHigh`"),
    (&["CPUQuota", "CPUQuotaPerSecUSec", "CPUQuotaPeriodSec"], "use `limits.cpu`"),
    (&["TasksMax"], "use `limits.tasks`"),
    (&["TimeoutStartSec", "TimeoutStartUSec", "TimeoutSec"], "use `startTimeout`"),
    (&["TimeoutStopSec", "TimeoutStopUSec", "TimeoutAbortSec"], "use `stop.timeout`"),
    (&["KillSignal", "RestartKillSignal", "FinalKillSignal"], "use `stop.signal`"),
    (&["WatchdogSec", "WatchdogUSec", "WatchdogSignal"], "use `healthCheck`"),
    (
        &["StandardInput", "StandardOutput", "StandardError", "LogNamespace", "LogLevelMax"],
        "use `log` and `logFile`",
    ),
    (
        &["SyslogIdentifier", "LogExtraFields", "LogRateLimitIntervalSec", "LogRateLimitBurst"],
        "by these its lines are found again in the journal: they are set by the supervisor",
    ),
    (&["Description", "Documentation"], "use `description`"),
    (&["Sockets", "ListenStream", "FileDescriptorStoreMax"], "use `sockets`"),
    (
        &["After", "Before", "Wants", "Requires", "Requisite", "BindsTo", "PartOf", "Upholds"],
        "use `dependsOn`",
    ),
    (
        &["KillMode", "SendSIGKILL", "SendSIGHUP", "RemainAfterExit", "CollectMode", "OOMPolicy"],
        "it is part of how units are run here: it is set by the supervisor",
    ),
    (
        &["Slice", "RuntimeMaxSec", "GuessMainPID", "ExitType", "Delegate", "IgnoreSIGPIPE"],
        "it is part of how units are run here: it is set by the supervisor",
    ),
    (
        &["RootDirectory", "RootImage", "RootHash", "MountImages", "ExtensionImages"],
        "what the file names is looked for in the root of the machine: there is no other one",
    ),
];

/// The sandbox `default`: what takes from a service that is not made for administering the machine
/// nothing that it uses. It sees and writes all that its user may see and write, but for `/usr`,
/// `/boot` and `/etc`, which are not written.
pub(super) static DEFAULT: &[(&str, &str)] = &[
    ("KeyringMode", "private"),
    ("LockPersonality", "yes"),
    ("NoNewPrivileges", "yes"),
    ("ProtectClock", "yes"),
    ("ProtectControlGroups", "yes"),
    ("ProtectHostname", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelTunables", "yes"),
    ("ProtectSystem", "full"),
    ("RestrictRealtime", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("SystemCallArchitectures", "native"),
];

/// What takes nothing from somebody who is not root, but takes systemd rights that a user's manager
/// does not have.
pub(super) static OF_ROOT: &[&str] = &[
    "CapabilityBoundingSet",
    "PrivateDevices",
    "ProtectClock",
    "ProtectControlGroups",
    "ProtectHostname",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
];

/// What `strict` has besides. Code that is made at run time stays possible (no
/// `MemoryDenyWriteExecute`): most languages of servers need it.
pub(super) static STRICT: &[(&str, &str)] = &[
    ("CapabilityBoundingSet", "CAP_NET_BIND_SERVICE"),
    ("PrivateDevices", "yes"),
    ("PrivateTmp", "yes"),
    ("ProtectHome", "read-only"),
    ("ProtectProc", "invisible"),
    ("ProtectSystem", "strict"),
    ("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6 AF_NETLINK"),
    ("RestrictNamespaces", "yes"),
    ("SystemCallErrorNumber", "EPERM"),
    ("SystemCallFilter", "@system-service"),
];

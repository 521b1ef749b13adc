//! Limits, sandboxes and properties of units that are no good.

use crate::diagnostics::{Case, case, run};

const RESOURCES: &[Case] = &[
    case(
        "limits out of their bounds",
        "processes:\n  a:\n    command: x\n    limits: {memory: 1K, cpu: 0, tasks: 0}\n  b: {command: x, limits: {memory: 512M, memoryHigh: 1G}}\n",
        &["4:22 out-of-range", "4:31 out-of-range", "4:41 out-of-range", "5:54 out-of-range"],
        &["`limits.memory` must be between 64K"],
    ),
    case(
        "limits of another kind",
        "processes:\n  a:\n    command: x\n    limits: {memory: 1.5G, cpu: 150%, tasks: many, swap: 1G}\n",
        &["4:22 bad-size", "4:33 bad-number", "4:46 bad-number", "4:52 unknown-key"],
        &["a number is bytes; with units of 1024"],
    ),
    case(
        "a sandbox that there is not",
        "processes:\n  a: {command: x, sandbox: strikt}\n  b: {command: x, sandbox: yes}\n",
        &["2:28 unknown-word", "3:28 unknown-word"],
        &["did you mean `strict`?"],
    ),
    case(
        "a property that there is not",
        "processes:\n  a: {command: x, systemd: {ProtectHoem: yes, Colour: green}}\n",
        &["2:29 unknown-property", "2:47 unknown-property"],
        &["did you mean `ProtectHome`?"],
    ),
    case(
        "a property that another key is for",
        "processes:\n  a:\n    command: x\n    systemd: {MemoryMax: 1G, ExecStart: /bin/true, Restart: always, User: x, KillMode: none}\n",
        &[
            "4:15 owned-property",
            "4:30 owned-property",
            "4:52 owned-property",
            "4:69 owned-property",
            "4:78 owned-property",
        ],
        &["`systemd.MemoryMax` is not set here", "use `limits.memory`"],
    ),
    case(
        "a value that a property cannot have",
        "processes:\n  a:\n    command: x\n    systemd: {ProtectHome: tmfs, CPUWeight: 0, ReadOnlyPaths: [etc], PrivateTmp: [yes, no], BindPaths: {a: b}}\n",
        &[
            "4:28 bad-property",
            "4:45 bad-property",
            "4:63 bad-property",
            "4:82 bad-property",
            "4:104 wrong-type",
        ],
        &["`systemd.ProtectHome` cannot be `tmfs`", "did you mean `tmpfs`?"],
    ),
    case(
        "no mapping",
        "processes:\n  a: {command: x, systemd: strict}\n",
        &["2:28 wrong-type"],
        &[],
    ),
];

#[test]
fn limits_and_sandboxes() {
    run(RESOURCES);
}

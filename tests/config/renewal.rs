//! `reload` and `watch` of a process: what is understood, and what is no good.

use crate::diagnostics::{Case, case, run};
use crate::{Files, process};
use provost::core::spec::{ReloadSpec, Signal, Text, WatchAction};
use std::time::Duration;

#[test]
fn how_a_process_takes_new_settings() {
    let files = Files::new().with(
        "processes.yaml",
        "processes:\n  a: {command: x, reload: {signal: SIGHUP}}\n  b:\n    command: x\n    env: {CONF: /etc/b}\n    reload: {command: [nginx, -s, reload, '${INSTANCE}'], timeout: 5s}\n  c: {command: x, reload: {command: [y]}}\n  d: {command: x, reload: null}\n",
    );
    let loaded = files.load("processes.yaml");
    assert_eq!(process(&loaded, "a").reload, Some(ReloadSpec::Signal(Signal(1))));
    let Some(ReloadSpec::Command { command, timeout }) = process(&loaded, "b").reload.clone()
    else {
        panic!()
    };
    let words: Vec<String> = command.iter().map(|word| word.render(2).to_string()).collect();
    assert_eq!(words, ["nginx", "-s", "reload", "2"]);
    assert_eq!(timeout, Duration::from_secs(5));
    let Some(ReloadSpec::Command { timeout, .. }) = process(&loaded, "c").reload.clone() else {
        panic!()
    };
    assert_eq!(timeout, Duration::from_secs(30));
    assert_eq!(process(&loaded, "d").reload, None);
}

#[test]
fn what_a_process_has_watched() {
    let files = Files::new().with(
        "processes.yaml",
        "processes:\n  a: {command: x, watch: {paths: [dist, /etc/a.conf, '${INSTANCE}.yaml']}}\n  b:\n    command: x\n    reload: {signal: USR1}\n    watch: {paths: [.], action: reload, debounce: 2s, ignore: ['*.log']}\n    logFile: b.log\n    pidFile: .b.pid\n",
    );
    let loaded = files.load("processes.yaml");
    let a = process(&loaded, "a").watch.clone().unwrap();
    let paths: Vec<String> = a.paths.iter().map(|path| path.render(1).to_string()).collect();
    let dist = files.path("dist").display().to_string();
    let own = files.path("1.yaml").display().to_string();
    assert_eq!(paths, [dist.as_str(), "/etc/a.conf", own.as_str()]);
    assert_eq!((a.action, a.debounce), (WatchAction::Restart, Duration::from_millis(200)));
    assert_eq!(
        a.ignore.iter().map(|name| &**name).collect::<Vec<_>>(),
        ["node_modules", "__pycache__"]
    );
    let b = process(&loaded, "b").watch.clone().unwrap();
    assert_eq!(b.paths[0], Text::new(&files.root().display().to_string()));
    assert_eq!((b.action, b.debounce), (WatchAction::Reload, Duration::from_secs(2)));
    assert_eq!(b.ignore.iter().map(|name| &**name).collect::<Vec<_>>(), ["*.log"]);
}

const RENEWAL: &[Case] = &[
    case(
        "no way to reload",
        "processes:\n  a: {command: x, reload: {}}\n  b: {command: x, reload: {timeout: 5s}}\n",
        &["2:19 no-reload", "3:19 no-reload", "3:28 timeout-without-command"],
        &["`reload` does not say how", "{ signal: SIGHUP }"],
    ),
    case(
        "two ways to reload",
        "processes:\n  a: {command: x, reload: {signal: HUP, command: [y]}}\n",
        &["2:41 two-reloads"],
        &["cannot stand together", "remove one of them"],
    ),
    case(
        "a word instead of a mapping",
        "processes:\n  a: {command: x, reload: SIGHUP}\n  b: {command: x, watch: dist}\n",
        &["2:27 wrong-type", "3:26 wrong-type"],
        &["`reload` must be a mapping"],
    ),
    case(
        "a signal that nobody can take",
        "processes:\n  a: {command: x, reload: {signal: KILL}}\n  b: {command: x, reload: {signal: SIGSTOP}}\n  c: {command: x, reload: {signal: SIGHUB}}\n",
        &["2:36 bad-signal", "3:36 bad-signal", "4:36 bad-signal"],
        &["no process can take its settings on SIGKILL"],
    ),
    case(
        "a command that is none",
        "processes:\n  a: {command: x, reload: {command: nginx -s reload}}\n  b: {command: x, reload: {command: []}}\n  c: {command: x, reload: {command: ['']}}\n",
        &["2:37 wrong-type", "3:37 empty-value", "4:37 empty-value"],
        &["`reload.command` must be a list"],
    ),
    case(
        "a timeout of a signal",
        "processes:\n  a: {command: x, reload: {signal: HUP, timeout: 5s}}\n",
        &["2:41 timeout-without-command"],
        &["a signal is sent and not waited for"],
    ),
    case(
        "nothing is watched",
        "processes:\n  a: {command: x, watch: {}}\n  b: {command: x, watch: {paths: []}}\n  c: {command: x, watch: {action: restart}}\n",
        &["2:19 watches-nothing", "3:34 watches-nothing", "4:19 watches-nothing"],
        &["add `paths:`"],
    ),
    case(
        "watched for a reload that there is not",
        "processes:\n  a: {command: x, watch: {paths: [d], action: reload}}\n  b: {command: x, watch: {paths: [d], action: relaod}}\n",
        &["2:47 watch-without-reload", "3:47 unknown-word"],
        &["`a` does not say how it reloads", "reload: { signal: SIGHUP }"],
    ),
    case(
        "what it writes itself",
        "processes:\n  a: {command: x, logFile: d/logs/a.log, watch: {paths: [d]}}\n  b: {command: x, pidFile: b.pid, watch: {paths: [.]}}\n",
        &["2:42 watches-itself", "3:35 watches-itself"],
        &["`logFile` of `a` is among what it watches", "`ignore`"],
    ),
    case(
        "names to be ignored",
        "processes:\n  a: {command: x, watch: {paths: [d], ignore: [a/b, '', '*.log']}}\n  b: {command: x, watch: {paths: [~/d], ignore: x}}\n",
        &["2:48 bad-name", "2:53 bad-name", "3:35 tilde", "3:49 wrong-type"],
        &["names, not paths: `a/b`"],
    ),
    case(
        "times out of their bounds",
        "processes:\n  a: {command: x, watch: {paths: [d], debounce: 2m}, reload: {command: [x], timeout: 0}}\n",
        &["2:49 out-of-range", "2:86 out-of-range"],
        &["`watch.debounce` must be between"],
    ),
];

#[test]
fn settings_and_files_that_are_watched() {
    run(RENEWAL);
}

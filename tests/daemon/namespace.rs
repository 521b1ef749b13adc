//! Tests that run in namespaces of their own.

use std::process::Command;

/// Whether this is the test itself, in namespaces of its own, which `unshare` makes with these
/// options and where `setup`, a shell line, was run. False in whoever asked for it, when it has
/// passed there, or where it cannot be had; under CI that is a failure.
pub fn entered(test: &str, options: &[&str], setup: &str) -> bool {
    const INSIDE: &str = "PROVOST_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let can = Command::new("unshare").args(options).arg("true").output();
    if !can.is_ok_and(|output| output.status.success()) {
        assert!(std::env::var_os("CI").is_none(), "CI can have namespaces");
        eprintln!("skipped: `unshare {}` is not allowed here", options.join(" "));
        return false;
    }
    let output = Command::new("unshare")
        .args(options)
        .args(["sh", "-ec", &format!("{setup}\nexec \"$@\""), "sh"])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
    false
}

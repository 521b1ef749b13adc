//! Builds the shim, which the daemon carries inside itself: see `src/shim/main.rs`.

use std::env;
use std::path::PathBuf;
use std::process::{Command, exit};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/shim");
    let variable = |name| env::var(name).unwrap_or_default();
    let out = PathBuf::from(variable("OUT_DIR")).join("shim");
    let target = variable("TARGET");

    // A cross build names its linker for cargo; the shim is linked by the same one.
    let linker_variable =
        format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace(['-', '.'], "_"));
    println!("cargo::rerun-if-env-changed={linker_variable}");
    let linker = env::var(linker_variable).unwrap_or_else(|_| "cc".into());

    let status = Command::new(variable("RUSTC"))
        .args(["--crate-name", "shim", "--crate-type", "bin", "--edition", "2024"])
        .args(["--target", &target])
        .args(["-C", "panic=abort", "-C", "opt-level=s", "-C", "codegen-units=1"])
        .args(["-C", "relocation-model=static", "-C", "strip=symbols"])
        .args(["-C", &format!("linker={linker}")])
        .args(["-C", "link-args=-nostartfiles -nostdlib -static -no-pie"])
        .args(["-C", "link-args=-Wl,--gc-sections,--build-id=none,-z,noexecstack"])
        .arg("-o")
        .arg(&out)
        .arg("src/shim/main.rs")
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => {
            eprintln!("the shim was not built: rustc ended with {status}");
            exit(1);
        }
        Err(error) => {
            eprintln!("the shim was not built: running rustc: {error}");
            exit(1);
        }
    }
}

//! Writes the output of a process to a log file that is rotated: see `src/logsink`.

#[path = "../logsink/mod.rs"]
mod logsink;

fn main() -> std::process::ExitCode {
    logsink::main()
}

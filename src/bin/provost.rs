//! The command line of Provost.

fn main() -> std::process::ExitCode {
    provost::cli::main()
}

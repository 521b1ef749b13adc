//! Is on the network for a daemon whose service is not: see `src/net`.

fn main() -> std::process::ExitCode {
    provost::net::serving::main()
}

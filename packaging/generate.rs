//! Writes the man pages and completions of `provost` into a directory, from the same definitions the
//! program itself parses with: `cargo run --example packaging -- DIR`. Packages run it when they are
//! built; nothing it writes is kept in the tree.

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(dir) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("name the directory to write into");
        return ExitCode::from(64);
    };
    match generate(&dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write into {}: {error}", dir.display());
            ExitCode::FAILURE
        }
    }
}

fn generate(dir: &Path) -> io::Result<()> {
    let pages = dir.join("man1");
    let completions = dir.join("completions");
    std::fs::create_dir_all(&pages)?;
    std::fs::create_dir_all(&completions)?;
    let mut command = provost::cli::args::Cli::command();
    command.build();
    man(&command, "provost", &pages)?;
    for subcommand in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        man(subcommand, &format!("provost-{}", subcommand.get_name()), &pages)?;
    }
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(
            shell,
            &mut provost::cli::args::Cli::command(),
            "provost",
            &completions,
        )?;
    }
    Ok(())
}

fn man(command: &Command, name: &str, pages: &Path) -> io::Result<()> {
    let mut page = Vec::new();
    // Only names known when the program is built are leaked, once each: clap wants them so.
    let title: &'static str = Box::leak(name.to_owned().into_boxed_str());
    clap_mangen::Man::new(command.clone().name(title)).section("1").render(&mut page)?;
    std::fs::write(pages.join(format!("{name}.1")), page)
}

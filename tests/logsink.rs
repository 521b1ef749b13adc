//! The program `provost-log` by itself.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "common/mod.rs"]
mod common;
use common::log_files::whole;
use common::waiting::{DEADLINE, until};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

struct Program {
    child: Child,
    input: Option<ChildStdin>,
    /// What it tells, line by line.
    told: Receiver<String>,
}

impl Program {
    fn start(mut command: Command) -> Program {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, told) = channel();
        let errors = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Program { input: child.stdin.take(), child, told }
    }

    fn writing(path: &Path, max_size: u64) -> Program {
        let mut command = program();
        command.args(["write", &format!("--max-size={max_size}"), "--max-files=5000"]).arg(path);
        let program = Program::start(command);
        assert_eq!(program.tells(), "ready");
        program
    }

    fn following(path: &Path) -> Program {
        let mut command = program();
        command.args(["show", "--follow"]).arg(path);
        Program::start(command)
    }

    fn tells(&self) -> String {
        self.told.recv_timeout(DEADLINE).unwrap()
    }

    fn write(&mut self, bytes: &[u8]) {
        self.input.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// Ends what it reads, and waits for it.
    fn end(&mut self) {
        drop(self.input.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_provost-log"))
}

/// `name 1`, `name 2`, … in pieces that end anywhere.
fn write_numbers(program: &mut Program, name: &str, last: usize) {
    let text: String = (1..=last).map(|n| format!("{name} {n}\n")).collect();
    for piece in text.as_bytes().chunks(1009) {
        program.write(piece);
    }
}

#[test]
fn two_that_share_a_file_at_full_speed_lose_no_line_and_mix_none() {
    const LINES: usize = 50_000;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let writers = ["old", "new"].map(|name| {
        let mut program = Program::writing(&path, 16 << 10);
        std::thread::spawn(move || {
            // Whole lines: the rest of one may come too late on a busy machine.
            let lines: Vec<String> = (1..=LINES).map(|n| format!("{name} {n}\n")).collect();
            for piece in lines.chunks(100) {
                program.write(piece.concat().as_bytes());
            }
            program.end();
        })
    });
    for writer in writers {
        writer.join().unwrap();
    }
    let text = whole(&path).0;
    for name in ["old", "new"] {
        let found = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let expected = (1..=LINES).map(|n| n.to_string());
        assert!(found.eq(expected), "{name}");
    }
    assert_eq!(text.lines().count(), 2 * LINES);
    for entry in fs::read_dir(directory.path()).unwrap() {
        assert!(entry.unwrap().metadata().unwrap().len() <= 16 << 10);
    }
}

#[test]
fn a_writer_that_is_killed_anywhere_leaves_every_line_it_took() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut last = 0;
    for round in 0..20 {
        let mut program = Program::writing(&path, 4 << 10);
        let (mut input, begin) = (program.input.take().unwrap(), last);
        let writer = std::thread::spawn(move || {
            let mut number = begin;
            while input.write_all(format!("{}\n", number + 1).as_bytes()).is_ok() {
                number += 1;
            }
            number
        });
        // In the middle of the renaming, as often as not.
        until("a rotation", || whole(&path).0.len() > (round + 1) * 20_000);
        program.child.kill().unwrap();
        program.child.wait().unwrap();
        last = writer.join().unwrap();
    }
    // What was in the pipe and in its hands is gone; nothing else is, and nothing is twice.
    let text = whole(&path).0;
    let numbers: Vec<usize> = text.lines().filter_map(|line| line.parse().ok()).collect();
    let gaps: Vec<_> = numbers.windows(2).filter(|pair| pair[1] != pair[0] + 1).collect();
    assert!(gaps.len() <= 20, "{gaps:?}");
    assert!(gaps.iter().all(|pair| pair[1] > pair[0]), "{gaps:?}");
}

#[test]
fn lines_in_pieces_are_followed_each_once() {
    const LINES: usize = 60_000;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut writer = Program::writing(&path, 8 << 10);
    let mut follower = Program::following(&path);
    let mut output = follower.child.stdout.take().unwrap();
    let writing = std::thread::spawn(move || {
        write_numbers(&mut writer, "line", LINES);
        writer.end();
    });
    let expected: String = (1..=LINES).map(|n| format!("line {n}\n")).collect();
    let mut seen = vec![0; expected.len()];
    output.read_exact(&mut seen).unwrap();
    assert!(seen == expected.as_bytes());
    writing.join().unwrap();
    assert!(whole(&path).0 == expected);
    assert!(fs::read_dir(directory.path()).unwrap().count() > 20);
    // The daemon ends.
    follower.end();
    assert_eq!(output.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_follower_that_stops_reading_slows_nobody_and_misses_nothing_that_is_kept() {
    const LINES: usize = 100_000;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut writer = Program::writing(&path, 64 << 10);
    let mut follower = Program::following(&path);
    // All is written while nobody reads what is followed.
    write_numbers(&mut writer, "line", LINES);
    writer.end();
    let expected: String = (1..=LINES).map(|n| format!("line {n}\n")).collect();
    let mut seen = vec![0; expected.len()];
    follower.child.stdout.take().unwrap().read_exact(&mut seen).unwrap();
    assert!(seen == expected.as_bytes());
}

#[test]
fn a_follower_says_what_it_missed_and_does_not_begin_again_after_a_removal() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    fs::write(directory.path().join("log.1"), "old\n").unwrap();
    fs::write(&path, "one\n").unwrap();
    let mut follower = Program::following(&path);
    let mut output = BufReader::new(follower.child.stdout.take().unwrap());
    let mut line = || {
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        line
    };
    assert_eq!(line(), "one\n");
    // Removed by hand: what comes next is the new one, and not the old one.
    fs::remove_file(&path).unwrap();
    fs::write(&path, "two\n").unwrap();
    assert_eq!(line(), "two\n");
    // Emptied, as copytruncate does it.
    File::create(&path).unwrap().write_all(b"x\n").unwrap();
    assert_eq!(line(), "x\n");
    // Rotated away altogether.
    fs::write(directory.path().join("later"), "five\n").unwrap();
    fs::write(directory.path().join("sooner"), "four\n").unwrap();
    fs::rename(directory.path().join("sooner"), directory.path().join("log.1")).unwrap();
    fs::rename(directory.path().join("later"), &path).unwrap();
    assert!(line().contains("rotated faster than it was read"));
    assert_eq!((line().as_str(), line().as_str()), ("four\n", "five\n"));
}

#[test]
fn a_follower_that_is_outrun_comes_to_the_end_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut command = program();
    command.args(["write", "--max-size=4096", "--max-files=2"]).arg(&path);
    let mut writer = Program::start(command);
    assert_eq!(writer.tells(), "ready");
    let mut follower = Program::following(&path);
    let output = BufReader::new(follower.child.stdout.take().unwrap());
    // The few files there are have the numbers of those that were removed, over and over.
    let writing = std::thread::spawn(move || {
        write_numbers(&mut writer, "line", 300_000);
        writer.write(b"end\n");
        writer.end();
    });
    let mut last = 0;
    for line in output.lines().map_while(Result::ok) {
        if line == "end" {
            break;
        }
        if let Some(number) = line.strip_prefix("line ").and_then(|n| n.parse::<usize>().ok()) {
            assert!(number > last, "{number} after {last}");
            last = number;
        }
    }
    assert_eq!(last, 300_000);
    writing.join().unwrap();
}

/// A file system of its own, seen by one program alone.
fn small_disk(directory: &Path, size: &str) -> Option<Command> {
    if !nix::unistd::geteuid().is_root() {
        println!("not run: it needs root");
        return None;
    }
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c"])
        .arg(
            "mount -t tmpfs -o \"size=$1\" tmpfs \"$2\" && head -c 40K /dev/zero >\"$2/fill\" && \
             exec \"$3\" write --max-size=8192 --max-files=1000 \"$2/log\"",
        )
        .args(["sh", size])
        .arg(directory)
        .arg(env!("CARGO_BIN_EXE_provost-log"));
    Some(command)
}

#[test]
fn on_a_full_disk_nobody_waits_and_what_is_lost_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let Some(command) = small_disk(directory.path(), "100k") else { return };
    let mut program = Program::start(command);
    assert_eq!(program.tells(), "ready");
    // Far more than there is room for, and a line that is not ended.
    const LINES: usize = 50_000;
    write_numbers(&mut program, "line", LINES);
    program.write(b"begun ");
    let told = program.tells();
    assert!(told.contains("No space left on device"), "{told}");
    // There is room again, and nothing more is written.
    let seen = PathBuf::from(format!("/proc/{}/root", program.child.id()));
    let seen = seen.join(directory.path().strip_prefix("/").unwrap());
    fs::remove_file(seen.join("fill")).unwrap();
    program.write(b"and ended\n");
    let told = program.tells();
    assert!(told.starts_with("the log is written again"), "{told}");
    program.write(b"last\n");
    until("the last line", || whole(&seen.join("log")).0.ends_with("last\n"));
    let text = whole(&seen.join("log")).0;
    program.end();

    let (before, after) = text.split_once("[provost: here ").unwrap();
    assert!(!after.contains("[provost"), "{after}");
    let numbers = || before.lines().filter_map(|line| line.strip_prefix("line "));
    let whole_lines = before.matches('\n').count();
    assert!(numbers().take(whole_lines - 1).eq((1..whole_lines).map(|n| n.to_string())));
    let (marker, after) = after.split_once('\n').unwrap();
    assert!(marker.ends_with("could not be written and are lost: No space left on device]"));
    let words: Vec<&str> = marker.split(['(', ' ']).collect();
    let bytes: usize = words[0].parse().unwrap();
    let lines: usize = words.iter().filter_map(|word| word.parse().ok()).nth(1).unwrap();
    let all: usize = (1..=LINES).map(|n| format!("line {n}\n").len()).sum();
    // The end that was put to a torn line is not part of what was written.
    let torn =
        usize::from(!before.trim_end_matches('\n').is_empty() && lines + whole_lines > LINES);
    assert_eq!(before.len() - torn + bytes, all + "begun and ended\n".len(), "{marker}");
    assert_eq!(whole_lines - torn + lines, LINES + 1, "{marker}");
    assert_eq!(after, "last\n");
}

#[test]
fn what_cannot_be_told_in_the_log_is_told_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let Some(command) = small_disk(directory.path(), "60k") else { return };
    let mut program = Program::start(command);
    assert_eq!(program.tells(), "ready");
    write_numbers(&mut program, "line", 20_000);
    program.end();
    assert!(program.tells().contains("No space left on device"));
    let told = program.tells();
    assert!(told.ends_with("bytes were lost: No space left on device"), "{told}");
}

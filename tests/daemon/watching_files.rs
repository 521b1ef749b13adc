//! Several files that make one configuration, half written ones and ones that are gone.

use crate::survival::noticed;
use crate::watched::{Watched, runs, version};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A drop-in whose process is `sleep NUMBER`.
fn drop_in(name: &str, number: u32) -> String {
    format!("processes: {{ {name}: {{ command: [sleep, \"{number}\"] }} }}\n")
}

async fn until_runs(watched: &Watched, name: &str, line: &str) {
    watched.daemon.until(line, |status| runs(status, name, line)).await;
    watched.is_untouched().await;
}

async fn until_gone(watched: &Watched, name: &str) {
    watched.daemon.until("it is gone", |status| !status.contains_key(name)).await;
    watched.is_untouched().await;
}

#[tokio::test]
async fn drop_ins_come_change_and_go() {
    let watched = Watched::plain().await;
    fs::create_dir(watched.path("processes.d")).unwrap();
    watched.write("processes.d/b.yaml", &drop_in("b", 2001));
    until_runs(&watched, "b@0", "sleep 2001").await;
    watched.shell("sed -i s/2001/2002/ processes.d/b.yaml");
    until_runs(&watched, "b@0", "sleep 2002").await;
    watched.write("processes.d/c.yaml", &drop_in("c", 2003));
    until_runs(&watched, "c@0", "sleep 2003").await;
    fs::remove_file(watched.path("processes.d/b.yaml")).unwrap();
    until_gone(&watched, "b@0").await;
    // To another name that is none of a drop-in.
    watched.shell("mv processes.d/c.yaml processes.d/c.yaml.off");
    until_gone(&watched, "c@0").await;
    watched.shell("ln -s c.yaml.off processes.d/c.yaml");
    until_runs(&watched, "c@0", "sleep 2003").await;
    watched.shell("sed -i s/2003/2004/ processes.d/c.yaml.off");
    until_runs(&watched, "c@0", "sleep 2004").await;
}

#[tokio::test]
async fn the_drop_in_directory_gone_keeps_what_its_files_said() {
    let watched = Watched::plain().await;
    watched.shell("mkdir processes.d");
    watched.write("processes.d/b.yaml", &drop_in("b", 2001));
    until_runs(&watched, "b@0", "sleep 2001").await;
    let generation = watched.generation().await;
    watched.shell("mv processes.d away");
    watched.daemon.logged("processes.d is gone");
    until_runs(&watched, "b@0", "sleep 2001").await;
    assert_eq!(watched.generation().await, generation);
    // Back again, and another one.
    watched.shell("sed -i s/2001/2002/ away/b.yaml; mv away processes.d");
    until_runs(&watched, "b@0", "sleep 2002").await;
    watched.shell("rm -r processes.d; mkdir processes.d");
    until_gone(&watched, "b@0").await;
}

#[tokio::test]
async fn environment_files() {
    let text = version(1001).replace(
        "processes:",
        "processes:\n  b: { command: [sleep, \"3${N}\"], envFile: env/b.env }",
    );
    let watched = Watched::filled(|dir| {
        fs::create_dir(dir.join("env")).unwrap();
        fs::write(dir.join("env/b.env"), "N=001\n").unwrap();
        fs::write(dir.join("processes.yaml"), &text).unwrap();
    })
    .await;
    until_runs(&watched, "b@0", "sleep 3001").await;
    watched.write("env/b.env", "N=002\n");
    until_runs(&watched, "b@0", "sleep 3002").await;
    watched.shell("sed -i s/002/003/ env/b.env");
    until_runs(&watched, "b@0", "sleep 3003").await;
    fs::remove_dir_all(watched.path("env")).unwrap();
    watched.daemon.logged("b.env: no such file");
    until_runs(&watched, "b@0", "sleep 3003").await;
    watched.shell("mkdir new; echo N=004 >new/b.env; mv new env");
    until_runs(&watched, "b@0", "sleep 3004").await;
}

/// A file that is cut at any place of it and written on later, slower than the debounce time, is one
/// change: what comes between is not applied, though half of it is valid.
#[tokio::test]
async fn half_a_file_is_not_applied() {
    let mut watched = Watched::plain().await;
    let text = version(1002);
    let valid = text.find("  keep:").unwrap();
    let second = text.replace("1002", "1003");
    let mut to_do = vec![(1003, second, 0), (1002, text.clone(), valid)];
    let mut rejections = 0;
    while let Some((number, text, cut)) = to_do.pop() {
        let before = watched.generation().await;
        watched.write("new", &text);
        let begun = std::time::Instant::now();
        // A writer who takes ten debounce times for it.
        watched.shell(&format!(
            "(head -c {cut} new; sleep 1; tail -c +{} new) >processes.yaml",
            cut + 1
        ));
        let took = begun.elapsed();
        watched.becomes(number).await;
        let rejected = watched.daemon.log().matches("nothing was changed").count();
        if took >= std::time::Duration::from_millis(1900) {
            // On a machine this busy the writer was not waited for any more, and rightly.
            let other = if text.contains("1002") { "1004" } else { "1002" };
            let text = text.replace(&number.to_string(), other);
            to_do.push((other.parse().unwrap(), text, cut));
        } else {
            assert_eq!(watched.generation().await, before + 1);
            assert_eq!(rejected, rejections, "{}", watched.daemon.log());
        }
        rejections = rejected;
    }
}

/// A new file is written like any other: from when it is there until it is closed. The first one is begun
/// before its directory is watched, or just after, and is waited for as well.
#[tokio::test]
async fn half_a_new_file_is_not_applied() {
    let watched = Watched::plain().await;
    let mut to_do = vec![("d", 2003), ("c", 2002), ("b", 2001)];
    let mut seen = 0;
    while let Some((name, number)) = to_do.pop() {
        let before = watched.generation().await;
        let begun = std::time::Instant::now();
        let one = format!("processes:\n  {name}: {{ command: [sleep, \"1\"] }}\n");
        let other = format!("  {name}2: {{ command: [sleep, \"{number}\"] }}\n");
        watched.shell(&format!(
            "mkdir -p processes.d; \
             (printf '{one}'; sleep 1; printf '{other}') >processes.d/{name}.yaml"
        ));
        let took = begun.elapsed();
        until_runs(&watched, &format!("{name}2@0"), &format!("sleep {number}")).await;
        if took < std::time::Duration::from_millis(1900) {
            assert_eq!(watched.generation().await, before + 1);
            seen += 1;
        }
        // Else the machine is so busy that the writer was not waited for any more, and rightly.
    }
    eprintln!("{seen} of 3 were written in time");
}

/// Nothing told that it began: nobody had named it.
#[tokio::test]
async fn half_a_file_that_is_named_first_is_not_applied() {
    let mut watched = Watched::plain().await;
    let (mut file, rest) = begun(&watched.path("other.yaml"), 1002);
    watched.write("processes.yaml", "processManagement: { processConfigFile: other.yaml }\n");
    let begun = noticed(&watched.daemon, &mut file);
    assert!(watched.daemon.log().contains("other.yaml is just being written"));
    finish(&mut watched, &mut file, &rest, begun, 1002).await;
}

/// An operator who is quicker than who writes.
#[tokio::test]
async fn half_a_file_is_not_applied_by_a_reload_either() {
    let mut watched = Watched::plain().await;
    let (mut file, rest) = begun(&watched.path("processes.yaml"), 1002);
    let mut reload = Command::new(env!("CARGO_BIN_EXE_provost"));
    reload.arg("--socket").arg(watched.path("private")).arg("reload").stdout(Stdio::piped());
    let reload = reload.spawn().unwrap();
    let begun = noticed(&watched.daemon, &mut file);
    finish(&mut watched, &mut file, &rest, begun, 1002).await;
    let output = reload.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// As long as who writes is certainly waited for, on however slow a machine.
const PATIENCE: Duration = Duration::from_millis(1900);

/// Begins to write a version: all but its last process.
fn begun(path: &Path, number: u32) -> (fs::File, String) {
    let text = version(number);
    let (half, rest) = text.split_at(text.find("  keep").unwrap());
    let mut file = fs::File::create(path).unwrap();
    file.write_all(half.as_bytes()).unwrap();
    (file, rest.to_owned())
}

/// The rest of it; nothing else has moved meanwhile.
async fn finish(
    watched: &mut Watched,
    file: &mut fs::File,
    rest: &str,
    begun: Instant,
    number: u32,
) {
    file.write_all(rest.as_bytes()).unwrap();
    *file = fs::File::open("/dev/null").unwrap();
    if begun.elapsed() < PATIENCE {
        watched.becomes(number).await;
        assert_eq!(watched.generation().await, 2);
    }
    // Else the machine is so busy that the writer was not waited for any more, and rightly.
}

#[tokio::test]
async fn an_empty_file_is_refused_unless_it_says_so() {
    let mut watched = Watched::plain().await;
    for (text, said) in [
        ("", "the file has no `processes:`"),
        ("\n# nothing\n", "the file has no `processes:`"),
        ("processes:\n", "has nothing below it"),
        ("processes:\n  a:\n", "process `a` has nothing below it"),
        ("processManagement: {}\n", "has no `processes:` and names no `processConfigFile`"),
    ] {
        let count = watched.daemon.log().matches(said).count();
        watched.write("processes.yaml", text);
        watched.logged_more(said, count);
        watched.is_untouched().await;
    }
    watched.write("processes.yaml", &version(1002));
    watched.becomes(1002).await;
    watched.write("processes.yaml", "processes: {}\n");
    watched.daemon.until("all gone", |status| status.is_empty()).await;
}

#[tokio::test]
async fn what_is_no_file_is_refused() {
    let mut watched = Watched::plain().await;
    watched.shell("rm processes.yaml; mkdir processes.yaml");
    watched.daemon.logged("a directory, not a file");
    watched.is_untouched().await;
    watched.shell("rmdir processes.yaml; mkfifo processes.yaml");
    watched.daemon.logged("a FIFO, not a file");
    watched.is_untouched().await;
    watched.shell("rm processes.yaml; printf 'processes: \\377' >processes.yaml");
    watched.daemon.logged("not UTF-8");
    watched.is_untouched().await;
    watched.write("processes.yaml", &version(1002));
    watched.becomes(1002).await;
}

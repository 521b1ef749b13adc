//! What processes have watched: each change is told once it has settled, and nothing else is.

use crate::Files;
use crate::common::rng::Rng;
use crate::common::waiting::DEADLINE;
use provost::config::watch::trees::{Told, Trees, Wanted};
use provost::core::ids::InstanceId;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

struct Watching {
    files: Files,
    trees: Trees,
}

fn id(name: &str) -> InstanceId {
    InstanceId::parse(name).unwrap()
}

fn wanted(paths: &[PathBuf]) -> Wanted {
    let ignore: Arc<[Arc<str>]> = Arc::from([Arc::from("*.log")]);
    Wanted { paths: paths.to_vec(), ignore, debounce: Duration::from_millis(30) }
}

impl Watching {
    fn new() -> Watching {
        Watching { files: Files::new(), trees: Trees::new() }
    }

    /// Has `names` watched, and returns when they are.
    async fn watch(&mut self, who: &str, names: &[&str]) {
        let mut paths: Vec<PathBuf> = names.iter().map(|name| self.files.path(name)).collect();
        let probe = self.files.path(&format!("probe-{who}"));
        paths.push(probe.clone());
        self.trees.set(&id(who), Some(wanted(&paths)));
        // A file that is there only once all is watched would be there at the first look, too.
        for n in 0.. {
            fs::write(&probe, vec![b'x'; n]).unwrap();
            let told = tokio::time::timeout(Duration::from_millis(500), self.trees.changed()).await;
            if told.is_ok() {
                return;
            }
        }
    }

    async fn told(&mut self) -> (Vec<InstanceId>, String) {
        match tokio::time::timeout(DEADLINE, self.trees.changed()).await.expect("nothing was told")
        {
            Told::Changed { who, path } => {
                let name = path.strip_prefix(self.files.root()).unwrap_or(&path);
                (who, name.display().to_string())
            }
            told @ Told::Unwatched { .. } => panic!("{told:?}"),
        }
    }

    /// The next that is told is a change of this file.
    async fn tells(&mut self, name: &str) {
        assert_eq!(self.told().await.1, name);
    }

    /// Nothing that happened before this is told.
    async fn is_quiet(&mut self, name: &str) {
        let path = self.files.path(name);
        let text = fs::read_to_string(&path).unwrap_or_default() + "+";
        fs::write(path, text).unwrap();
        self.tells(name).await;
    }
}

#[tokio::test]
async fn writes_of_all_kinds_are_told_once() {
    let mut w = Watching::new();
    w.files.write("dist/a", "1");
    w.files.write("dist/b/c", "1");
    w.watch("web", &["dist"]).await;
    let path = |name: &str| w.files.path(name);
    let (a, c, new) = (path("dist/a"), path("dist/b/c"), path("new"));
    fs::write(&a, "22").unwrap();
    w.tells("dist/a").await;
    // As vim does: another file takes the place of the one.
    fs::write(&new, "333").unwrap();
    fs::rename(&new, &c).unwrap();
    w.tells("dist/b/c").await;
    fs::copy(&a, &c).unwrap();
    w.tells("dist/b/c").await;
    let mut open = OpenOptions::new().append(true).open(&a).unwrap();
    open.write_all(b"more").unwrap();
    w.tells("dist/a").await;
    drop(open);
    fs::remove_file(&a).unwrap();
    w.tells("dist/a").await;
    symlink("b/c", &a).unwrap();
    w.tells("dist/a").await;
    fs::create_dir_all(w.files.path("dist/x/y")).unwrap();
    fs::write(w.files.path("dist/x/y/z"), "1").unwrap();
    w.tells("dist/x/y/z").await;
    fs::write(w.files.path("dist/x/y/z"), "22").unwrap();
    w.tells("dist/x/y/z").await;
    fs::rename(w.files.path("dist/x"), w.files.path("away")).unwrap();
    w.tells("dist/x/y/z").await;
    fs::write(w.files.path("away/y/z"), "333").unwrap();
    w.is_quiet("dist/b/c").await;
}

#[tokio::test]
async fn what_is_no_change_is_not_told() {
    let mut w = Watching::new();
    w.files.write("dist/a", "1");
    w.files.write("beside", "1");
    w.watch("web", &["dist"]).await;
    let a = w.files.path("dist/a");
    fs::set_permissions(&a, fs::Permissions::from_mode(0o600)).unwrap();
    fs::read(&a).unwrap();
    drop(OpenOptions::new().append(true).open(&a).unwrap());
    w.files.write("beside", "2");
    for name in ["dist/.hidden", "dist/a~", "dist/x.log", "dist/.git/index", "dist/#a#"] {
        w.files.write(name, "1");
    }
    fs::create_dir(w.files.path("dist/empty")).unwrap();
    w.is_quiet("dist/a").await;
}

#[tokio::test]
async fn a_storm_is_told_once() {
    let mut w = Watching::new();
    w.files.write("dist/a", "1");
    w.watch("web", &["dist"]).await;
    for n in 0..2_000 {
        w.files.write(&format!("dist/d{}/f{n}", n % 20), "1");
    }
    let (_, first) = w.told().await;
    assert!(first.starts_with("dist/d"), "{first}");
    // However long that took: what is told last is told after all was written.
    let mut told = 1;
    w.files.write("last", "1");
    w.files.write("dist/zz", "1");
    while w.told().await.1 != "dist/zz" {
        told += 1;
        assert!(told < 20, "told again and again");
    }
    w.is_quiet("dist/a").await;
}

#[tokio::test]
async fn a_path_that_is_not_there_is_told_once_it_appears() {
    let mut w = Watching::new();
    w.watch("web", &["no/such/dist"]).await;
    w.files.write("no/such/dist/a", "1");
    w.tells("no/such/dist/a").await;
    w.files.write("no/such/dist/a", "22");
    w.tells("no/such/dist/a").await;
}

/// A build that begins by removing what it made before is not over until that is back.
#[tokio::test]
async fn a_path_that_is_gone_is_told_once_it_is_back() {
    let mut w = Watching::new();
    w.files.write("dist/a", "1");
    w.files.write("conf", "1");
    w.watch("web", &["dist", "conf"]).await;
    fs::remove_dir_all(w.files.path("dist")).unwrap();
    w.is_quiet("conf").await;
    w.files.write("dist/a", "1");
    w.tells("dist/a").await;
    w.is_quiet("dist/a").await;
    fs::rename(w.files.path("conf"), w.files.path("kept")).unwrap();
    fs::rename(w.files.path("kept"), w.files.path("conf")).unwrap();
    w.is_quiet("dist/a").await;
}

#[tokio::test]
async fn another_release_behind_a_symlink_is_told() {
    let mut w = Watching::new();
    for release in ["r1", "r2"] {
        w.files.write(&format!("{release}/dist/a"), release);
    }
    symlink("r1", w.files.path("current")).unwrap();
    w.watch("web", &["current/dist"]).await;
    symlink("r2", w.files.path("next")).unwrap();
    fs::rename(w.files.path("next"), w.files.path("current")).unwrap();
    w.told().await;
    w.files.write("r1/dist/a", "of before");
    w.is_quiet("r2/dist/a").await;
}

/// As Kubernetes changes a ConfigMap.
#[tokio::test]
async fn a_config_map_is_told() {
    let mut w = Watching::new();
    w.files.write("conf/..1/app.yaml", "1");
    symlink("..1", w.files.path("conf/..data")).unwrap();
    symlink("..data/app.yaml", w.files.path("conf/app.yaml")).unwrap();
    w.watch("dir", &["conf"]).await;
    w.watch("file", &["conf/app.yaml"]).await;
    w.files.write("conf/..2/app.yaml", "2");
    symlink("..2", w.files.path("conf/..data_tmp")).unwrap();
    fs::rename(w.files.path("conf/..data_tmp"), w.files.path("conf/..data")).unwrap();
    fs::remove_dir_all(w.files.path("conf/..1")).unwrap();
    let mut who = Vec::new();
    while !(who.contains(&id("dir")) && who.contains(&id("file"))) {
        who.extend(w.told().await.0);
    }
}

#[tokio::test]
async fn those_that_watch_the_same_are_told_together_and_others_for_themselves() {
    let mut w = Watching::new();
    w.files.write("a/x", "1");
    w.files.write("b/x", "1");
    let paths =
        |names: &[&str]| -> Vec<PathBuf> { names.iter().map(|name| w.files.path(name)).collect() };
    let (a, both) = (wanted(&paths(&["a"])), wanted(&paths(&["a", "b"])));
    w.watch("other", &["b"]).await;
    w.trees.set(&id("web@0"), Some(a.clone()));
    w.trees.set(&id("web@1"), Some(a.clone()));
    w.trees.set(&id("all"), Some(both));
    // When all is looked at: the last comes last.
    w.watch("last", &["b"]).await;
    w.files.write("b/x", "22");
    let mut who: Vec<InstanceId> = Vec::new();
    for _ in 0..3 {
        let (those, path) = w.told().await;
        assert_eq!(path, "b/x");
        who.extend(those);
    }
    who.sort();
    assert_eq!(who, [id("all"), id("last"), id("other")]);
    w.trees.set(&id("last"), None);
    w.files.write("a/x", "22");
    let mut who: Vec<InstanceId> = w.told().await.0;
    who.extend(w.told().await.0);
    who.sort();
    assert_eq!(who, [id("all"), id("web@0"), id("web@1")]);
    // From now on, one of them.
    w.trees.set(&id("web@0"), None);
    w.trees.set(&id("all"), None);
    w.files.write("a/x", "333");
    assert_eq!(w.told().await, (vec![id("web@1")], "a/x".to_owned()));
    w.trees.set(&id("web@1"), None);
    w.files.write("a/x", "4444");
    w.is_quiet("b/x").await;
}

#[tokio::test]
async fn what_cannot_be_watched_is_said() {
    let mut w = Watching::new();
    for n in 0..20_001 {
        w.files.write(&format!("dist/{n}"), "");
    }
    w.trees.set(&id("web"), Some(wanted(&[w.files.path("dist")])));
    let told = tokio::time::timeout(DEADLINE, w.trees.changed()).await.unwrap();
    let Told::Unwatched { who, why } = told else { panic!("{told:?}") };
    assert_eq!(who, [id("web")]);
    assert!(why.starts_with("there are more than 20000 files"), "{why}");
}

/// Whatever is done, one thing after the other: each is told.
#[tokio::test]
async fn everything_at_random_is_told() {
    let mut w = Watching::new();
    let mut random = Rng::new(7);
    for release in ["r0", "r1"] {
        w.files.write(&format!("{release}/d/f"), release);
    }
    symlink("r0", w.files.path("current")).unwrap();
    w.watch("web", &["current/d"]).await;
    for n in 0..150 {
        let (content, path) =
            (format!("{n:>width$}", width = n + 1), |name: &str| w.files.path(name));
        let name = random.word(&["current/d/f", "current/d/g", "current/d/s/t/u"]).to_owned();
        let target = fs::read_link(path("current")).unwrap();
        let other = if target.ends_with("r0") { "r1" } else { "r0" };
        let done = match random.below(6) {
            0 => {
                w.files.write(&name, &content);
                format!("write {name}")
            }
            1 => {
                fs::create_dir_all(path(&name).parent().unwrap()).unwrap();
                fs::write(path("new"), &content).unwrap();
                fs::rename(path("new"), path(&name)).unwrap();
                format!("rename to {name}")
            }
            2 => {
                w.files.write(&format!("{other}/d/f"), &content);
                symlink(other, path("new")).unwrap();
                fs::rename(path("new"), path("current")).unwrap();
                format!("link to {other}")
            }
            3 => {
                fs::remove_dir_all(path("current/d")).unwrap();
                w.files.write(&name, &content);
                format!("remove and write {name}")
            }
            4 => {
                let _ = fs::remove_dir_all(path("made"));
                w.files.write("made/s/t/u", &content);
                fs::rename(path("current/d"), path("old")).unwrap();
                fs::rename(path("made"), path("current/d")).unwrap();
                fs::remove_dir_all(path("old")).unwrap();
                "exchange".to_owned()
            }
            _ => {
                fs::remove_dir_all(path(&format!("{other}/d"))).unwrap();
                fs::remove_dir_all(path("current/d")).unwrap();
                w.files.write(&format!("{}/d/f", target.display()), &content);
                w.files.write(&format!("{other}/d/f"), &content);
                "all anew".to_owned()
            }
        };
        let told = tokio::time::timeout(DEADLINE, w.trees.changed()).await;
        assert!(matches!(told, Ok(Told::Changed { .. })), "{n} {done}: {told:?}");
        // Another half of the same may be told by itself.
        while tokio::time::timeout(Duration::from_millis(60), w.trees.changed()).await.is_ok() {}
    }
}

//! Places that give less than a daemon is used to.

use crate::container::{BOTH, Image, Which, children, field};
use nix::sys::signal::Signal;
use std::fs;

const ONE: &str = "processes:\n  one: { shell: exec sleep 1000 }\n";

/// All that is mounted is only for reading, but the places in `$KEEP`; no journal, no bus.
const READ_ONLY: &str = "
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
test -z \"$KEEP\" || mount --bind \"$DIR/$KEEP\" \"$DIR/$KEEP\"
while read -r _ _ _ _ place rest; do
    case \"$place\" in
        /proc*|/dev*|/sys*) ;;
        \"$DIR/$KEEP\") test -z \"$KEEP\" || continue ;;
    esac
    case \"$place\" in /proc*|/dev*|/sys*) ;; *) mount -o remount,bind,ro \"$place\" ;; esac
done </proc/self/mountinfo
! touch \"$DIR/written\" 2>/dev/null
! touch /tmp/written 2>/dev/null
";

fn read_only(keep: &str) -> String {
    format!("KEEP={keep}\n{READ_ONLY}")
}

/// The number of the one child of the daemon, outside and inside.
fn child(first: u32) -> (u32, u32) {
    let all = children(first);
    let [only] = all.as_slice() else { panic!("{all:?}") };
    let inside = field(*only, "NSpid").unwrap();
    (*only, inside.split_whitespace().last().unwrap().parse().unwrap())
}

#[tokio::test]
async fn one_that_is_not_root() {
    let through = "setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs";
    for which in BOTH {
        let setup = "chown -R 65534:65534 \"$DIR\"; \
                     install -m 755 \"$PROVOST\" \"$PROVOSTD\" \"$DIR\"; \
                     PROVOST=\"$DIR/provost\"; PROVOSTD=\"$DIR/provostd\"";
        let image = Image { setup, through, ..Image::of(which, ONE) };
        let Some(mut container) = image.started() else { return };
        let status = container.until_running(&["one@0"]).await;
        let (outside, inside) = child(container.first());
        assert_eq!(status["one@0"].pid, Some(inside));
        for pid in [container.first(), outside] {
            assert_eq!(field(pid, "Uid").unwrap(), "65534\t65534\t65534\t65534");
        }
        // What runs is replaced by what the file says, and what crashes is started again.
        container
            .save("processes:\n  two: { shell: exec sleep 1000, restartPolicy: { delay: 0 } }\n");
        container.until("the other", |all| !all.contains_key("one@0")).await;
        container.until_running(&["two@0"]).await;
        let (outside, inside) = child(container.first());
        let pid = nix::unistd::Pid::from_raw(i32::try_from(outside).unwrap());
        nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
        container
            .until("two is back", |all| all["two@0"].pid.is_some_and(|pid| pid != inside))
            .await;
        container.signal(Signal::SIGTERM);
        assert_eq!(container.ended().code(), Some(0));
    }
}

#[tokio::test]
async fn one_writable_directory_is_enough() {
    for which in BOTH {
        let setup = read_only("run");
        let image = Image { options: &["--mount"], setup: &setup, ..Image::of(which, ONE) };
        let Some(mut container) = image.started() else { return };
        container.until_running(&["one@0"]).await;
        let client = container.client().await;
        assert!(client.stop(&["one".into()], |_| {}).await.unwrap()[0].is_success());
        if which == Which::Provostd {
            // What operators wanted is kept in the state directory, which is not writable here.
            container.logged("what operators stop is not kept", 1);
            assert!(container.log().contains("Read-only file system"), "{}", container.log());
        }
        // The file is written outside, where it can be, and seen inside.
        container.save(
            "processes:\n  one: { shell: exec sleep 1000 }\n  two: { shell: exec sleep 1000 }\n",
        );
        container.until_running(&["two@0"]).await;
        assert!(client.start(&["one".into()], false, |_| {}).await.unwrap()[0].is_success());
        let kept = fs::read_dir(container.path().join("run")).unwrap().count();
        assert!(kept > 1, "{which:?} keeps nothing in the one place it has");
        container.signal(Signal::SIGTERM);
        assert_eq!(container.ended().code(), Some(0));
    }
}

#[tokio::test]
async fn nothing_writable_at_all_is_enough_to_supervise() {
    let yaml = "processes:
  one: { shell: 'echo alive; exit 1', restartPolicy: { delay: 1ms, maxDelay: 1ms } }
";
    for which in BOTH {
        let setup = read_only("");
        let image = Image { options: &["--mount"], setup: &setup, ..Image::of(which, yaml) };
        let Some(mut container) = image.started() else { return };
        container.logged("alive", 3);
        container.logged("Read-only file system", 1);
        assert!(!container.path().join("run/private").exists());
        // Nobody can ask it, and it follows the file and ends all the same.
        container.save("processes:\n  two: { shell: 'echo changed; exec sleep 1000' }\n");
        container.logged("changed", 1);
        container.signal(Signal::SIGTERM);
        assert_eq!(container.ended().code(), Some(0), "{which:?}\n{}", container.log());
    }
}

/// A container that was killed leaves its notes in a directory that outlives it. The numbers in them
/// are of another namespace: here, one of them is somebody else's.
#[tokio::test]
async fn a_container_in_the_place_of_another_begins_anew() {
    for which in BOTH {
        let Some(mut container) = Image::of(which, ONE).started() else { return };
        let old = container.until_running(&["one@0"]).await["one@0"].pid.unwrap();
        let client = container.client().await;
        client.restart(&["one".into()], |_| {}).await.unwrap();
        let now = container.until_running(&["one@0"]).await["one@0"].pid.unwrap();
        assert_ne!(old, now);
        drop(client);
        let dir = container.killed();
        let notes = fs::read_dir(dir.path().join("run")).unwrap().count();
        assert!(notes > 0, "it left nothing, so that this tells nothing");
        // Not of the daemon: it is there before, and has the number that is in the notes.
        let setup = format!(
            "echo {} >/proc/sys/kernel/ns_last_pid; sleep 1000 & test $! = {now}; \
             mkdir -p \"$DIR/seen\"; echo $! >\"$DIR/seen/decoy\"",
            now - 1
        );
        let image = Image { setup: &setup, ..Image::of(which, ONE) };
        let Some(mut container) = image.started_in(dir) else { return };
        let status = container.until_running(&["one@0"]).await;
        let one = &status["one@0"];
        let words: Vec<_> = one.history.iter().map(|line| line.kind.as_str()).collect();
        assert!(!words.contains(&"took-over"), "{words:?}");
        assert_eq!(one.restarts, 0);
        let all = children(container.first());
        assert_eq!(all.len(), 2, "the decoy and its own: {all:?}");
        let inside = |pid: &u32| -> u32 {
            field(*pid, "NSpid").unwrap().split_whitespace().last().unwrap().parse().unwrap()
        };
        let numbers: Vec<u32> = all.iter().map(inside).collect();
        assert!(numbers.contains(&now) && one.pid != Some(now), "{numbers:?} {one:?}");
        assert!(!container.log().contains("set aside"), "{}", container.log());
        // Nor is it touched at the end of what is the daemon's.
        let client = container.client().await;
        assert!(client.stop(&["one".into()], |_| {}).await.unwrap()[0].is_success());
        let left: Vec<u32> = children(container.first()).iter().map(inside).collect();
        assert_eq!(left, [now], "only the decoy is left");
        container.signal(Signal::SIGTERM);
        assert_eq!(container.ended().code(), Some(0));
    }
}

//! What starting costs. Not a test: `cargo nextest run --run-ignored only measure --no-capture`.

use crate::world::*;
use provost::core::event::Event;
use std::time::{Duration, Instant};

const MANY: usize = 500;

fn report(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |part: usize| times[times.len() * part / 100].as_micros();
    println!("{name}: p50 {} µs, p90 {} µs, p99 {} µs", at(50), at(90), at(99));
}

#[tokio::test]
#[ignore = "a measurement"]
async fn measure_starting_one_after_the_other() {
    // The library spawns with posix_spawn; it waits for its own children, so it goes first.
    let bare = (0..MANY).map(|_| {
        let begin = Instant::now();
        std::process::Command::new("/bin/true").spawn().unwrap().wait().unwrap();
        begin.elapsed()
    });
    report("posix_spawn, to the end", bare.collect());

    let mut worlds = vec![("marked", World::new())];
    worlds.extend(World::with_cgroup().map(|world| ("in a group", world)));
    for (name, mut world) in worlds {
        let (mut started, mut exited, mut emptied) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..MANY {
            let mut spec = program("/bin/true", &[]);
            spec.exec.log_target = provost::core::spec::LogTarget::None;
            let begin = Instant::now();
            world.start(spec);
            for _ in 0..3 {
                match world.event().await {
                    Event::Spawned { .. } => started.push(begin.elapsed()),
                    Event::Exited { .. } => exited.push(begin.elapsed()),
                    Event::Emptied { .. } => emptied.push(begin.elapsed()),
                    other => panic!("{other:?}"),
                }
            }
        }
        report(&format!("{name}, to Spawned"), started);
        report(&format!("{name}, to Exited"), exited);
        report(&format!("{name}, to Emptied"), emptied);
    }
}

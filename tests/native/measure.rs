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

/// What all the usages of `status` cost, where the census tells what belongs to whom.
#[tokio::test]
#[ignore = "a measurement"]
async fn measure_the_usage_of_all() {
    use provost::backend::Backend;
    for count in [100, 500, 1000] {
        let mut world = World::new();
        let mut runs = Vec::new();
        for _ in 0..count {
            let mut spec = program("/bin/sleep", &["1000"]);
            spec.exec.log_target = provost::core::spec::LogTarget::None;
            runs.push(world.start(spec));
            world.spawned().await;
        }
        let begin = Instant::now();
        for run in &runs {
            assert!(world.backend.usage(&instance(), *run).unwrap().tasks.is_some());
        }
        println!("usage of {count}: {} ms", begin.elapsed().as_millis());
        for run in &runs {
            world.kill(*run);
        }
        let begin = Instant::now();
        for _ in 0..2 * count {
            world.event().await;
        }
        println!("end of {count}: {} ms", begin.elapsed().as_millis());
    }
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

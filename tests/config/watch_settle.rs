//! When what happened to files is over, with simulated time.

use provost::config::watch::settle::Settle;
use std::time::{Duration, Instant};

const DEBOUNCE: Duration = Duration::from_millis(100);
const CLOSE: Duration = Duration::from_secs(2);
const CEILING: Duration = Duration::from_secs(5);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn nothing_happened_nothing_is_due() {
    let mut settle: Settle<&str> = Settle::new(DEBOUNCE);
    assert_eq!((settle.deadline(), settle.ceiling()), (None, None));
    settle.give_up(|_| true, Instant::now());
    assert_eq!(settle.deadline(), None);
    settle.finished("a", Instant::now());
    settle.clear();
    assert_eq!((settle.deadline(), settle.ceiling()), (None, None));
}

#[test]
fn a_finished_write_settles_in_the_debounce_time() {
    let start = Instant::now();
    let mut settle = Settle::new(DEBOUNCE);
    settle.finished("a", start);
    assert_eq!(settle.deadline(), Some(start + DEBOUNCE));
    settle.finished("b", start + ms(60));
    assert_eq!(settle.deadline(), Some(start + ms(60) + DEBOUNCE));
    settle.set_debounce(ms(500));
    settle.finished("a", start + ms(70));
    assert_eq!(settle.deadline(), Some(start + ms(570)));
}

#[test]
fn a_bare_modification_waits_for_its_close() {
    let start = Instant::now();
    let mut settle = Settle::new(DEBOUNCE);
    settle.began("a", start);
    assert_eq!(settle.deadline(), Some(start + CLOSE));
    // Another file that is finished does not hurry it, nor does a change of its mode.
    settle.finished("b", start + ms(10));
    settle.touched("a", start + ms(20));
    assert_eq!(settle.deadline(), Some(start + CLOSE));
    settle.finished("a", start + ms(30));
    assert_eq!(settle.deadline(), Some(start + ms(30) + DEBOUNCE));
    settle.touched("a", start + ms(90));
    assert_eq!(settle.deadline(), Some(start + ms(90) + DEBOUNCE));
}

#[test]
fn a_longer_debounce_time_is_also_waited_for_without_a_close() {
    let start = Instant::now();
    let mut settle = Settle::new(ms(3_000));
    settle.began("a", start);
    assert_eq!(settle.deadline(), Some(start + ms(3_000)));
}

#[test]
fn a_close_that_cannot_come_is_not_waited_for() {
    let start = Instant::now();
    let mut settle = Settle::new(DEBOUNCE);
    settle.began("a", start);
    settle.began("b", start);
    settle.give_up(|what| *what == "a", start);
    assert_eq!(settle.deadline(), Some(start + CLOSE), "b's is");
    settle.give_up(|what| *what == "b", start + ms(10));
    assert_eq!(settle.deadline(), Some(start + ms(10) + DEBOUNCE));
    // It is no new event: what is nearly over does not begin again.
    settle.give_up(|_| true, start + ms(90));
    assert_eq!(settle.deadline(), Some(start + ms(10) + DEBOUNCE));
}

/// A writer that never rests: however fast, a decision falls by the ceiling, and not before it.
#[test]
fn however_busy_a_decision_falls_at_the_ceiling() {
    for (debounce, ceiling) in [
        (DEBOUNCE, CEILING),
        (ms(0), CEILING),
        (ms(499), CEILING),
        (ms(501), ms(5_010)),
        (ms(3_000), ms(30_000)),
    ] {
        for pace in [ms(1), ms(50), ms(99), ms(1_999)] {
            for closes in [true, false] {
                if closes && pace >= debounce {
                    continue;
                }
                let start = Instant::now();
                let mut settle = Settle::new(debounce);
                let mut now = start;
                loop {
                    if settle.deadline().is_some_and(|deadline| deadline <= now) {
                        break;
                    }
                    match closes {
                        true => settle.finished("a", now),
                        false => settle.began("a", now),
                    }
                    now += pace;
                }
                let case = format!("{debounce:?} {pace:?} {closes}");
                assert_eq!(settle.deadline(), Some(start + ceiling), "{case}");
                assert_eq!(settle.ceiling(), Some(start + ceiling), "{case}");
            }
        }
    }
}

/// The next decision has its own time.
#[test]
fn after_a_decision_all_begins_again() {
    let start = Instant::now();
    let mut settle = Settle::new(DEBOUNCE);
    settle.began("a", start);
    settle.clear();
    settle.finished("b", start + CEILING);
    assert_eq!(settle.deadline(), Some(start + CEILING + DEBOUNCE));
    assert_eq!(settle.ceiling(), Some(start + CEILING * 2));
}

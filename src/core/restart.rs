//! Whether and when a run is followed by another. Pure functions of the policy, of how the run
//! ended, and of a number that says how often it was tried.

use crate::event::{ExitStatus, FailReason, RunEnd};
use crate::spec::{RestartCondition, RestartPolicy};
use std::time::Duration;

/// Where `delay: 0` goes on from, after the one immediate retry.
const FLOOR: Duration = Duration::from_millis(100);

/// What follows a run that ended by itself or by its check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another run, after a delay.
    Restart,
    /// Nothing: it did what it was for.
    Complete,
    /// Nothing: it failed for good.
    Fail(FailReason),
}

/// Whether an end counts as success.
#[must_use]
pub fn is_success(policy: &RestartPolicy, end: &RunEnd) -> bool {
    matches!(end, RunEnd::Exited(ExitStatus::Code(code)) if policy.success_exit_codes.contains(code))
}

/// What follows a run that ended with `end` after `attempts` restarts without a stable run.
#[must_use]
pub fn next(policy: &RestartPolicy, end: &RunEnd, attempts: u32) -> Next {
    let success = is_success(policy, end);
    let wanted = match policy.condition {
        RestartCondition::Always | RestartCondition::UnlessStopped => true,
        RestartCondition::OnFailure => !success,
        RestartCondition::No => false,
    };
    match policy.max_attempts {
        _ if !wanted && success => Next::Complete,
        _ if !wanted => Next::Fail(FailReason::Policy(end.clone())),
        Some(limit) if attempts >= limit => Next::Fail(FailReason::Attempts(limit, end.clone())),
        _ => Next::Restart,
    }
}

/// How long to wait before restart number `attempt` (counted from 0) since the last stable run.
///
/// `delay · factor^attempt` up to `maxDelay`, varied by `jitter`, never above `maxDelay`. With
/// `delay: 0` the first is immediate and the others are 100 ms, doubling. `chance` is in [0, 1).
#[must_use]
pub fn delay(policy: &RestartPolicy, attempt: u32, chance: f64) -> Duration {
    let (first, factor, exponent, floor) = if policy.delay.is_zero() {
        if attempt == 0 {
            return Duration::ZERO;
        }
        (FLOOR, 2.0, attempt - 1, FLOOR)
    } else {
        (policy.delay, policy.factor, attempt, Duration::ZERO)
    };
    let max = policy.max_delay.as_secs_f64();
    let exponent = i32::try_from(exponent).unwrap_or(i32::MAX);
    let grown = (first.as_secs_f64() * factor.powi(exponent)).min(max);
    let varied = grown * (1.0 + policy.jitter * (2.0 * chance - 1.0));
    // A ceiling below the floor is the file's own wish and wins.
    Duration::try_from_secs_f64(varied.max(floor.as_secs_f64()).min(max))
        .unwrap_or(policy.max_delay)
}

/// Chance from a seed: SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number
/// generators", 2014). It only spreads restarts; nothing secret depends on it.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// All that follows is a function of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    /// The next number in [0, 1).
    pub fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        // 53 bits: all that a double can hold.
        #[allow(clippy::cast_precision_loss)]
        let fraction = (z >> 11) as f64 / (1u64 << 53) as f64;
        fraction
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Signal;

    fn policy() -> RestartPolicy {
        RestartPolicy::default()
    }

    fn exit(code: u8) -> RunEnd {
        RunEnd::Exited(ExitStatus::Code(code))
    }

    #[test]
    fn the_condition_decides() {
        use RestartCondition::{Always, No, OnFailure, UnlessStopped};
        let killed = RunEnd::Exited(ExitStatus::Signal { signal: Signal::KILL, core: false });
        for (condition, end, expected) in [
            (Always, exit(0), "restart"),
            (Always, exit(1), "restart"),
            (UnlessStopped, exit(0), "restart"),
            (UnlessStopped, killed.clone(), "restart"),
            (OnFailure, exit(0), "complete"),
            (OnFailure, exit(1), "restart"),
            (OnFailure, killed.clone(), "restart"),
            (OnFailure, RunEnd::StartTimedOut, "restart"),
            (OnFailure, RunEnd::Exited(ExitStatus::Unknown), "restart"),
            (No, exit(0), "complete"),
            (No, exit(1), "fail"),
            (No, killed, "fail"),
            (No, RunEnd::Exited(ExitStatus::Unknown), "fail"),
            (No, RunEnd::Unhealthy("HTTP 500".into()), "fail"),
        ] {
            let got = match next(&RestartPolicy { condition, ..policy() }, &end, 0) {
                Next::Restart => "restart",
                Next::Complete => "complete",
                Next::Fail(_) => "fail",
            };
            assert_eq!(got, expected, "{condition:?} {end:?}");
        }
    }

    #[test]
    fn success_codes_are_the_files() {
        let policy = RestartPolicy {
            condition: RestartCondition::OnFailure,
            success_exit_codes: [0, 3].into(),
            ..policy()
        };
        assert_eq!(next(&policy, &exit(3), 0), Next::Complete);
        assert_eq!(next(&policy, &exit(4), 0), Next::Restart);
    }

    #[test]
    fn attempts_are_limited_only_where_the_file_says_so() {
        let limited = RestartPolicy { max_attempts: Some(3), ..policy() };
        assert_eq!(next(&limited, &exit(1), 2), Next::Restart);
        assert_eq!(next(&limited, &exit(1), 3), Next::Fail(FailReason::Attempts(3, exit(1))));
        assert_eq!(next(&policy(), &exit(1), u32::MAX), Next::Restart);
        let never = RestartPolicy { max_attempts: Some(0), ..policy() };
        assert_eq!(next(&never, &exit(1), 0), Next::Fail(FailReason::Attempts(0, exit(1))));
    }

    #[test]
    fn the_delay_grows_to_the_ceiling() {
        let policy = RestartPolicy { jitter: 0.0, ..policy() };
        let seconds: Vec<u64> = (0..11).map(|n| delay(&policy, n, 0.7).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(delay(&policy, u32::MAX, 0.0), policy.max_delay);
    }

    #[test]
    fn jitter_goes_both_ways_but_not_over_the_ceiling() {
        let policy = RestartPolicy { jitter: 0.2, ..policy() };
        assert_eq!(delay(&policy, 0, 0.0), Duration::from_millis(800));
        assert_eq!(delay(&policy, 0, 0.5), Duration::from_millis(1000));
        assert!(delay(&policy, 0, 0.999) > Duration::from_millis(1190));
        assert_eq!(delay(&policy, 20, 0.999), policy.max_delay);
        assert_eq!(delay(&policy, 20, 0.0), Duration::from_secs(240));
    }

    #[test]
    fn zero_delay_is_immediate_once() {
        let policy = RestartPolicy { delay: Duration::ZERO, jitter: 0.2, ..policy() };
        assert_eq!(delay(&policy, 0, 0.9), Duration::ZERO);
        for chance in [0.0, 0.5, 0.99] {
            let delays: Vec<_> = (1..5).map(|n| delay(&policy, n, chance)).collect();
            assert!(delays[0] >= FLOOR && delays[0] <= FLOOR.mul_f64(1.2), "{delays:?}");
            assert!(delays.windows(2).all(|w| w[1] > w[0].mul_f64(1.3)), "{delays:?}");
        }
    }

    #[test]
    fn factor_one_is_a_constant() {
        let policy = RestartPolicy { factor: 1.0, jitter: 0.0, ..policy() };
        assert_eq!(delay(&policy, 50, 0.3), policy.delay);
    }

    #[test]
    fn a_ceiling_below_the_first_delay_wins() {
        let policy = RestartPolicy { max_delay: Duration::from_millis(50), ..policy() };
        assert!(delay(&policy, 0, 0.99) <= Duration::from_millis(50));
        let zero = RestartPolicy { delay: Duration::ZERO, ..policy };
        assert_eq!(delay(&zero, 3, 0.5), Duration::from_millis(50));
    }

    #[test]
    fn chance_is_splitmix64() {
        // The reference numbers of the generator for this seed.
        let reference: [u64; 5] = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        let mut chance = Chance::new(1_234_567);
        for number in reference {
            #[allow(clippy::cast_precision_loss)]
            let expected = (number >> 11) as f64 / (1u64 << 53) as f64;
            assert!((chance.fraction() - expected).abs() < f64::EPSILON);
        }
    }

    #[test]
    fn chance_is_a_function_of_the_seed() {
        let (mut a, mut b, mut c) = (Chance::new(7), Chance::new(7), Chance::new(8));
        let (a, b, c): (Vec<_>, Vec<_>, Vec<_>) = (
            (0..100).map(|_| a.fraction()).collect(),
            (0..100).map(|_| b.fraction()).collect(),
            (0..100).map(|_| c.fraction()).collect(),
        );
        assert_eq!(a, b);
        assert_ne!(a, c);
        assert!(a.iter().all(|x| (0.0..1.0).contains(x)));
        let mean = a.iter().sum::<f64>() / 100.0;
        assert!((0.4..0.6).contains(&mean), "{mean}");
    }
}

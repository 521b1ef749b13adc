//! What was measured, as a table.

/// Median and quartiles of what was measured, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    pub low: u64,
    pub median: u64,
    pub high: u64,
}

impl Spread {
    pub fn of(mut all: Vec<u64>) -> Spread {
        all.sort_unstable();
        let at = |part: usize| all[(all.len() - 1) * part / 4];
        Spread { low: at(1), median: at(2), high: at(3) }
    }
}

/// Nanoseconds, for a person.
pub fn span(ns: u64) -> String {
    match ns {
        0..10_000 => format!("{:.2} µs", ns as f64 / 1e3),
        10_000..1_000_000 => format!("{:.0} µs", ns as f64 / 1e3),
        1_000_000..100_000_000 => format!("{:.2} ms", ns as f64 / 1e6),
        100_000_000..1_000_000_000 => format!("{:.0} ms", ns as f64 / 1e6),
        _ => format!("{:.2} s", ns as f64 / 1e9),
    }
}

/// Rows in the order they come, printed as they come.
pub struct Table;

impl Table {
    pub fn begin() -> Table {
        println!("| what | median | quartiles | limit, or beside | ratio | to reach |");
        println!("|---|---|---|---|---|---|");
        Table
    }

    /// A time beside a limit.
    pub fn time(&self, what: &str, measured: Spread, limit: Option<(&str, u64)>, goal: &str) {
        let quartiles = format!("{} – {}", span(measured.low), span(measured.high));
        let (beside, ratio) = match limit {
            Some((name, limit)) => (
                format!("{name}: {}", span(limit)),
                format!("{:.2}", measured.median as f64 / limit as f64),
            ),
            None => (String::new(), String::new()),
        };
        self.row(what, &span(measured.median), &quartiles, &beside, &ratio, goal);
    }

    /// Anything else.
    pub fn row(&self, what: &str, is: &str, spread: &str, beside: &str, ratio: &str, goal: &str) {
        println!("| {what} | {is} | {spread} | {beside} | {ratio} | {goal} |");
    }
}

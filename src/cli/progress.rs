//! What is awaited, for how long: on a terminal one line that is drawn again and again, elsewhere a
//! line for each change.

use super::screen::{Screen, Tone, visible};
use super::{CliError, human, names::Names, state, table};
use crate::client::{Client, ClientError, JobOutcome, ProcessStatus};
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc::UnboundedReceiver;

/// What ends sooner needs no progress.
const PATIENCE: Duration = Duration::from_millis(500);
/// Time between two pictures of the line on a terminal.
const FRAME: Duration = Duration::from_millis(120);
/// Time between two looks at what is awaited, and how many times longer than a look it is at least:
/// who watches a thousand processes must not keep the supervisor from starting them.
const REST: Duration = Duration::from_millis(100);
const SHARE: u32 = 20;

/// What came of work that was waited for.
#[derive(Debug)]
pub enum Waited<T> {
    /// It ended.
    Ended(T),
    /// It did not in time, and goes on without us; and what was awaited last.
    OutOfTime(Vec<ProcessStatus>),
}

/// The end of jobs as they end; for work that has none, [`no_jobs`].
pub type Ends = UnboundedReceiver<JobOutcome>;

/// For work that reports no jobs.
#[must_use]
pub fn no_jobs() -> Ends {
    tokio::sync::mpsc::unbounded_channel().1
}

/// What to look at while waiting.
pub struct View<'a> {
    /// To ask what is going on.
    pub client: &'a Client,
    /// How processes are called.
    pub names: &'a Names,
    /// Which of them are of interest: an instance, and those whose jobs have ended.
    pub concerns: &'a dyn Fn(&ProcessStatus, &BTreeSet<String>) -> bool,
}

/// Waits for `work`. Tells of jobs that end with `told`, and of what is awaited once that takes
/// noticeably long.
///
/// # Errors
/// When the work fails or the output is closed.
pub async fn watch<T>(
    work: impl Future<Output = Result<T, ClientError>>,
    mut ends: Ends,
    view: View<'_>,
    timeout: Option<Duration>,
    screen: &mut Screen,
    mut told: impl FnMut(&JobOutcome, &mut Screen) -> io::Result<()>,
) -> Result<Waited<T>, CliError> {
    let begun = Instant::now();
    let mut ended = BTreeSet::new();
    let mut line = Line::default();
    let mut awaited: Vec<ProcessStatus> = Vec::new();
    let mut watch = None;
    let (mut stale, mut next_look) = (true, tokio::time::Instant::now());
    let mut open = true;
    tokio::pin!(work);
    let deadline = tokio::time::sleep(timeout.unwrap_or(Duration::MAX));
    tokio::pin!(deadline);
    let mut frame = tokio::time::interval_at(tokio::time::Instant::now() + PATIENCE, FRAME);
    frame.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            outcome = ends.recv(), if open => match outcome {
                Some(outcome) => {
                    line.clear(screen);
                    told(&outcome, screen)?;
                    screen.flush()?;
                    awaited.retain(|status| status.id != outcome.name);
                    ended.insert(outcome.name);
                }
                None => open = false,
            },
            result = &mut work => {
                line.clear(screen);
                while let Ok(outcome) = ends.try_recv() {
                    told(&outcome, screen)?;
                }
                return Ok(Waited::Ended(result?));
            }
            () = &mut deadline => {
                line.clear(screen);
                let all = view.client.status(&[]).await?;
                let left = all.into_iter().filter(|status| (view.concerns)(status, &ended));
                return Ok(Waited::OutOfTime(left.collect()));
            }
            changed = changed(&mut watch), if watch.is_some() && !stale => {
                changed?;
                stale = true;
            }
            () = tokio::time::sleep_until(next_look), if watch.is_some() && stale => {
                let before = tokio::time::Instant::now();
                awaited = look(&view, &ended).await?;
                stale = false;
                next_look = before + REST.max(before.elapsed() * SHARE);
                line.say(&awaited, view.names, screen);
            }
            // Without a terminal one tick is enough: what comes later comes with a change.
            _ = frame.tick(), if watch.is_none() || screen.err_style.terminal => {
                if watch.is_none() {
                    watch = Some(view.client.watch().await?);
                }
                line.draw(&awaited, view.names, begun, screen);
            }
        }
    }
}

async fn changed(watch: &mut Option<crate::client::Watch>) -> Result<(), ClientError> {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

async fn look(
    view: &View<'_>,
    ended: &BTreeSet<String>,
) -> Result<Vec<ProcessStatus>, ClientError> {
    let mut all = view.client.status(&[]).await?;
    all.retain(|status| (view.concerns)(status, ended));
    Ok(all)
}

/// The line on standard error.
#[derive(Debug, Default)]
struct Line {
    drawn: bool,
    frame: usize,
    said: String,
}

impl Line {
    /// One picture, on a terminal.
    fn draw(
        &mut self,
        awaited: &[ProcessStatus],
        names: &Names,
        begun: Instant,
        screen: &mut Screen,
    ) {
        let Some(width) = screen.err_width().filter(|_| !screen.quiet) else { return };
        let unicode = screen.err_style.unicode;
        let frames: &[&str] = if unicode {
            &["⠋", "⠙", "⠸", "⠴", "⠦", "⠇"]
        } else {
            &["|", "/", "-", "\\"]
        };
        self.frame = (self.frame + 1) % frames.len();
        let text = match describe(awaited, names, true) {
            text if text.is_empty() => human::seconds(begun.elapsed()),
            text => text,
        };
        let text = table::cut(&text, width.saturating_sub(3), unicode);
        let text = screen.err_style.paint(Tone::Quiet, text);
        // Progress that cannot be shown is no reason to end.
        let mut err = io::stderr();
        let _ = write!(err, "\r\x1b[K{} {text}", frames[self.frame]);
        let _ = err.flush();
        self.drawn = true;
    }

    /// A line of its own when something else is awaited, where there is no terminal.
    fn say(&mut self, awaited: &[ProcessStatus], names: &Names, screen: &mut Screen) {
        if screen.err_style.terminal {
            return;
        }
        let text = describe(awaited, names, false);
        if !text.is_empty() && text != self.said {
            screen.note(format_args!("waiting: {text}"));
            self.said = text;
        }
    }

    fn clear(&mut self, screen: &mut Screen) {
        if self.drawn && screen.err_style.terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
            self.drawn = false;
        }
    }
}

/// What is awaited, in one line.
fn describe(awaited: &[ProcessStatus], names: &Names, timed: bool) -> String {
    const SHOWN: usize = 5;
    let now = SystemTime::now();
    let mut parts: Vec<String> = awaited
        .iter()
        .take(SHOWN)
        .map(|status| {
            let doing = format!("{} {}", names.show(&status.id), visible(&state::doing(status)));
            match status.since.and_then(|since| now.duration_since(since).ok()) {
                Some(span) if timed => format!("{doing}, {}", human::seconds(span)),
                _ => doing,
            }
        })
        .collect();
    if awaited.len() > SHOWN {
        parts.push(format!("{} more", awaited.len() - SHOWN));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_awaited_fits_one_line() {
        let of = |n: u32| ProcessStatus {
            id: format!("w@{n}"),
            process: "w".into(),
            state: "starting".into(),
            ..Default::default()
        };
        let all: Vec<_> = (0..7).map(of).collect();
        let names = Names::new(all.iter().map(|status| status.id.as_str()));
        assert_eq!(describe(&all[..2], &names, false), "w@0 is starting; w@1 is starting");
        assert!(describe(&all, &names, false).ends_with("w@4 is starting; 2 more"));
        assert_eq!(describe(&[], &names, true), "");
    }
}

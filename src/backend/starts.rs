//! Runs that are to begin, one after the other.
//!
//! To start a process takes longer than to answer somebody, and where ten thousand begin at once
//! nobody shall wait for them all: everything else comes in between. But one that is alone begins
//! before anything is told of it ([`Starts::begin_first`]): somebody waits for it, and nobody for
//! what is told. And while it is written down that it shall begin, its process can set itself up
//! ([`Starts::prepare_first`]).

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use tokio::sync::Notify;

/// For so many the room is kept.
const FEW: usize = 64;

/// The whole life of a run.
type Life = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Those that have not begun.
pub struct Starts {
    waiting: Mutex<VecDeque<Life>>,
    more: Notify,
    /// The first, which was prepared.
    prepared: Mutex<Option<Life>>,
    is_preparing: AtomicBool,
}

impl Starts {
    /// Needs a tokio runtime, for as long as anything is to begin.
    #[must_use]
    pub fn new() -> Arc<Starts> {
        let starts = Arc::new(Starts {
            waiting: Mutex::default(),
            more: Notify::new(),
            prepared: Mutex::default(),
            is_preparing: AtomicBool::new(false),
        });
        tokio::spawn(in_turn(Arc::clone(&starts)));
        starts
    }

    /// The last that is to begin.
    pub fn push(&self, life: impl Future<Output = ()> + Send + 'static) {
        lock(&self.waiting).push_back(Box::pin(life));
        self.more.notify_one();
    }

    /// Gets the first as far as it may come before anything is written down: to where it waits for
    /// [`Starts::written`], or for something else.
    pub fn prepare_first(&self) {
        let mut prepared = lock(&self.prepared);
        if prepared.is_some() {
            return;
        }
        let Some(mut life) = lock(&self.waiting).pop_front() else { return };
        self.is_preparing.store(true, Ordering::Relaxed);
        let is_pending = poll(&mut life);
        self.is_preparing.store(false, Ordering::Relaxed);
        if is_pending {
            *prepared = Some(life);
        }
    }

    /// Whoever is being prepared waits here until what made it is written down. The others begin when
    /// it is.
    pub async fn written(&self) {
        if self.is_preparing.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
    }

    /// Has the first begin now.
    pub fn begin_first(&self) {
        let prepared = lock(&self.prepared).take();
        let first = prepared.or_else(|| lock(&self.waiting).pop_front());
        if let Some(life) = first {
            begin(life);
        }
    }
}

async fn in_turn(starts: Arc<Starts>) {
    loop {
        starts.more.notified().await;
        loop {
            let next = lock(&starts.waiting).pop_front();
            let Some(life) = next else { break };
            begin(life);
            tokio::task::yield_now().await;
        }
        // There may have been a whole configuration of them.
        lock(&starts.waiting).shrink_to(FEW);
    }
}

/// As far as it gets at once, which is to a process that becomes the command, or to a request for
/// one: a task of its own would begin after all others that are ready. That task polls it once more,
/// and is who is woken from then on.
fn begin(mut life: Life) {
    if poll(&mut life) {
        tokio::spawn(life);
    }
}

/// Whether there is more of it. Nobody is woken for it.
fn poll(life: &mut Life) -> bool {
    life.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

/// Each change is one insertion or removal.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    /// Says its number, waits for nothing, and says it again.
    async fn life(number: u32, said: mpsc::UnboundedSender<u32>) {
        let _ = said.send(number);
        tokio::task::yield_now().await;
        let _ = said.send(number + 10);
    }

    #[tokio::test]
    async fn the_first_begins_at_once_and_the_others_in_turn() {
        let (said, mut heard) = mpsc::unbounded_channel();
        let starts = Starts::new();
        for number in 0..3 {
            starts.push(life(number, said.clone()));
        }
        assert!(heard.try_recv().is_err(), "somebody may still be stopped before it begins");
        starts.begin_first();
        assert_eq!(heard.try_recv(), Ok(0));
        assert!(heard.try_recv().is_err(), "only the first");
        drop(said);
        let mut rest = Vec::new();
        while rest.len() < 5 {
            rest.push(heard.recv().await.unwrap());
        }
        let begun: Vec<u32> = rest.iter().copied().filter(|number| *number < 10).collect();
        assert_eq!(begun, [1, 2]);
        rest.sort_unstable();
        assert_eq!(rest, [1, 2, 10, 11, 12]);
    }

    /// Says its number when it is made, and again when it is written down.
    async fn written_down(number: u32, starts: Arc<Starts>, said: mpsc::UnboundedSender<u32>) {
        let _ = said.send(number);
        starts.written().await;
        let _ = said.send(number + 10);
        tokio::task::yield_now().await;
        let _ = said.send(number + 20);
    }

    #[tokio::test]
    async fn what_is_prepared_goes_on_when_it_is_written_down() {
        let (said, mut heard) = mpsc::unbounded_channel();
        let starts = Starts::new();
        starts.prepare_first();
        for number in 0..2 {
            starts.push(written_down(number, Arc::clone(&starts), said.clone()));
        }
        starts.prepare_first();
        assert_eq!(heard.try_recv(), Ok(0));
        starts.prepare_first();
        assert!(heard.try_recv().is_err(), "only one, and only so far");
        starts.begin_first();
        assert_eq!(heard.try_recv(), Ok(10));
        // The other one begins when all of it is written.
        let mut rest = Vec::new();
        while rest.len() < 4 {
            rest.push(heard.recv().await.unwrap());
        }
        rest.retain(|number| *number != 20);
        assert_eq!(rest, [1, 11, 21]);
    }

    #[tokio::test]
    async fn what_comes_later_begins_too() {
        let (said, mut heard) = mpsc::unbounded_channel();
        let starts = Starts::new();
        starts.begin_first();
        for number in 0..3 {
            starts.push(life(number, said.clone()));
            while heard.recv().await != Some(number + 10) {}
        }
    }
}

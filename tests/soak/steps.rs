//! What is done in one step, and what must come of it: `step` draws.
//!
//! | module | owns |
//! |---|---|
//! | `files` | the files say something else, or nothing that can be used |
//! | `commands` | operators say something |
//! | `deaths` | a run dies or falls ill, or the daemon does |
//! | `trials` | what does not come up is gone back from |

mod commands;
mod deaths;
mod files;
mod trials;

use crate::file::{Files, Instance};
use crate::model::State;
use crate::soak::{Judged, Soak};

impl Soak {
    /// One step, drawn.
    pub async fn step(&mut self) -> Judged {
        match self.draw.rng.below(100) {
            0..=37 => self.edit().await,
            38..=42 => self.mistake().await,
            43..=46 => self.burst().await,
            47..=60 => self.command().await,
            61..=63 => self.once().await,
            64..=66 => self.signal().await,
            67..=74 => self.kill().await,
            75..=77 => self.kill_child().await,
            78..=81 => self.sick().await,
            82..=85 => self.enable().await,
            86 => self.nothing().await,
            87..=88 => self.ruin().await,
            89..=92 => self.storm().await,
            93 => {
                self.judge_cost()?;
                self.search_all()
            }
            94..=95 => self.restart_daemon().await,
            _ => self.kill_daemon().await,
        }
    }

    fn some_up(&mut self, keep: impl Fn(&Files, &Instance) -> bool) -> Option<Instance> {
        let ups: Vec<Instance> = self
            .world
            .iter()
            .filter(|(instance, known)| known.state == State::Up && keep(&self.files, instance))
            .map(|(instance, _)| instance.clone())
            .collect();
        if ups.is_empty() { None } else { Some(self.draw.rng.pick(&ups).clone()) }
    }
}

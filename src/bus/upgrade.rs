//! Asking for another program in the place of this one.

use super::errors::{Named, Result};
use tokio::sync::{mpsc, oneshot};

/// Who carries it out gets these.
pub type UpgradeRequests = mpsc::Receiver<UpgradeRequest>;

/// Somebody who may ask wants the program on disk to follow this one.
#[derive(Debug)]
pub struct UpgradeRequest {
    /// What is in the way, or that nothing is.
    pub reply: oneshot::Sender<std::result::Result<Prepared, String>>,
}

/// Everything is ready.
#[derive(Debug)]
pub struct Prepared {
    /// The version of what comes.
    pub version: String,
    /// Tells that whoever asked has the answer; dropped, that it cannot be had.
    pub answered: oneshot::Sender<()>,
}

/// A way to ask. Clones ask the same.
#[derive(Clone, Debug)]
pub struct Upgrades(mpsc::Sender<UpgradeRequest>);

impl Upgrades {
    /// A way to ask, and where it is asked.
    #[must_use]
    pub fn new() -> (Upgrades, UpgradeRequests) {
        let (sender, requests) = mpsc::channel(1);
        (Upgrades(sender), requests)
    }

    pub(super) async fn ask(&self) -> Result<Prepared> {
        let (reply, answer) = oneshot::channel();
        let gone = || Named::ShuttingDown("the supervisor is shutting down".into());
        self.0.send(UpgradeRequest { reply }).await.map_err(|_| gone())?;
        let answer = answer.await.map_err(|_| gone())?;
        Ok(answer.map_err(Named::NotSupportedByBackend)?)
    }
}

//! What waits to be confirmed.

use super::proxies::{CheckpointProxy, Options};
use super::signals::{Select, Signals};
use super::{CheckpointStatus, Client, ClientError, ReloadSummary, decode};
use zbus::proxy::CacheProperties;

const CHECKPOINTS: &str = "/org/provost/Provost1/checkpoint/";

impl Client {
    /// What waits to be confirmed.
    ///
    /// # Errors
    /// When the daemon cannot be asked.
    pub async fn checkpoint(&self) -> Result<Option<CheckpointStatus>, ClientError> {
        let path = self.0.manager.pending_checkpoint().await?;
        let Some(generation) = path.as_str().strip_prefix(CHECKPOINTS) else { return Ok(None) };
        let Ok(generation) = generation.parse() else { return Ok(None) };
        let proxy = self.checkpoint_proxy(generation).await?;
        let (state, deadline) = match (proxy.state().await, proxy.deadline_usec().await) {
            (Ok(state), Ok(deadline)) => (state, deadline),
            // It may be over by now.
            (Err(error), _) | (_, Err(error)) => {
                let again = self.0.manager.pending_checkpoint().await?;
                return if again == path { Err(error.into()) } else { Ok(None) };
            }
        };
        let deadline = (deadline != 0).then(|| decode::wall(deadline));
        Ok(Some(CheckpointStatus { generation, state, deadline }))
    }

    /// Keeps a generation that waits to be confirmed.
    ///
    /// # Errors
    /// When it does not wait.
    pub async fn confirm(&self, generation: u64) -> Result<(), ClientError> {
        Ok(self.checkpoint_proxy(generation).await?.commit().await?)
    }

    /// Undoes a generation that waits to be confirmed, and returns when that has ended.
    ///
    /// # Errors
    /// When it does not wait.
    pub async fn take_back(&self, generation: u64) -> Result<ReloadSummary, ClientError> {
        let signals = Signals::of(&self.0.link, Select::Manager).await?;
        let proxy = self.checkpoint_proxy(generation).await?;
        let job = proxy.rollback(Options::new()).await?;
        self.reloaded(signals, job).await
    }

    async fn checkpoint_proxy(
        &self,
        generation: u64,
    ) -> Result<CheckpointProxy<'static>, ClientError> {
        let mut proxy = CheckpointProxy::builder(&self.0.link.connection)
            .path(format!("{CHECKPOINTS}{generation}"))
            .cache_properties(CacheProperties::No);
        if let Some(daemon) = &self.0.link.daemon {
            proxy = proxy.destination(daemon.clone());
        }
        Ok(proxy.build().await?)
    }
}

//! What the daemon keeps of configurations.

use super::proxies::Options;
use super::{Client, ClientError, Difference, Generation, GenerationPage, decode};

impl Client {
    /// The configurations that were accepted, the newest first, as far as they are kept.
    ///
    /// # Errors
    /// When the daemon cannot be asked.
    pub async fn history(&self, limit: Option<u64>) -> Result<Vec<Generation>, ClientError> {
        let mut options = Options::new();
        if let Some(limit) = limit {
            options.insert("limit", limit.into());
        }
        let found = self.0.manager.get_history(options).await?;
        Ok(found.into_iter().map(|mut dict| decode::generation(&mut dict)).collect())
    }

    /// One of them with its files; values of variables are masked.
    ///
    /// # Errors
    /// When it is not kept.
    pub async fn generation(&self, number: u64) -> Result<GenerationPage, ClientError> {
        Ok(decode::generation_page(self.0.manager.show_generation(number).await?))
    }

    /// What differs between two of them; None: what is on disk.
    ///
    /// # Errors
    /// When one of them is not kept.
    pub async fn difference(
        &self,
        old: Option<u64>,
        new: Option<u64>,
    ) -> Result<Difference, ClientError> {
        let (old, new) = (old.unwrap_or(0), new.unwrap_or(0));
        Ok(decode::difference(self.0.manager.diff_generations(old, new).await?))
    }
}

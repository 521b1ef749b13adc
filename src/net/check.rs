//! One check.

use super::{connect, http};
use crate::core::spec::Rendered;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Check {
    /// Whether this URL is answered with success: [`http::get`].
    Http(Rendered),
    /// Whether `host:port` takes a connection.
    Tcp(Rendered),
}

impl Check {
    /// Asks once. One deadline covers all of it, from the name to the last byte, so nothing that
    /// trickles can hold it up.
    ///
    /// # Errors
    /// Says in a few words what was wrong: `HTTP 500`, `connection refused (127.0.0.1:3001)`,
    /// `no answer within 5s`.
    pub async fn ask(&self, timeout: Duration) -> Result<(), String> {
        let deadline = Instant::now() + timeout;
        let answer = async {
            match self {
                Check::Http(url) => http::get(url, deadline).await,
                Check::Tcp(address) => connect::to(address, deadline).await.map(drop),
            }
        };
        timeout_at(deadline, answer).await.unwrap_or_else(|_| Err(no_answer(timeout)))
    }
}

/// What there is to say where nothing came.
#[must_use]
pub fn no_answer(timeout: Duration) -> String {
    format!("no answer within {timeout:?}")
}

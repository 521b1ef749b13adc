//! Connecting to a name that may stand for several addresses.

use crate::core::spec::Rendered;
use std::io;
use std::net::SocketAddr;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};

/// Connects to `host:port` by the first of its addresses that answers. Each gets an equal part of
/// the time that is left, so that one that says nothing cannot use it up: `localhost` is often both
/// `::1` and `127.0.0.1`, and a server listens on one of them.
///
/// # Errors
/// Says what was wrong with the name, or with each address.
pub async fn to(address: &Rendered, deadline: Instant) -> Result<TcpStream, String> {
    let found = lookup_host(address.value()).await;
    let found = found.map_err(|error| format!("{address}: {}", describe(&error)))?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for one in found {
        if !addresses.contains(&one) {
            addresses.push(one);
        }
    }
    let mut failures: Vec<(String, Vec<String>)> = Vec::new();
    for (at, one) in addresses.iter().enumerate() {
        let now = Instant::now();
        let left = u32::try_from(addresses.len() - at).unwrap_or(1);
        let until = now + deadline.saturating_duration_since(now) / left;
        let text = match timeout_at(until, TcpStream::connect(one)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => describe(&error),
            Err(_) => "no answer".to_owned(),
        };
        match failures.iter_mut().find(|(known, _)| *known == text) {
            Some((_, addresses)) => addresses.push(one.to_string()),
            None => failures.push((text, vec![one.to_string()])),
        }
    }
    if failures.is_empty() {
        return Err(format!("{address}: the name has no address"));
    }
    let texts = failures.iter().map(|(text, addresses)| match address.hides() {
        true => format!("{text} ({address})"),
        false => format!("{text} ({})", addresses.join(", ")),
    });
    Err(texts.collect::<Vec<_>>().join(", "))
}

/// An error of the network in the usual words.
pub(super) fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::ConnectionReset => "connection reset".into(),
        io::ErrorKind::HostUnreachable => "host unreachable".into(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".into(),
        _ => {
            let text = error.to_string();
            text.split(" (os error").next().unwrap_or_default().to_owned()
        }
    }
}

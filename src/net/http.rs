//! The HTTP check.

use super::connect;
use crate::core::spec::Rendered;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use hyper::http::uri::Scheme;
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use std::error::Error;
use tokio::time::Instant;

/// So much of a body is read, in bytes; then the connection is closed.
const BODY: usize = 10 * 1024;

/// Asks `url` once. A status of 200 to 299 is a success once the body, or the first
/// 10 KiB of it, is there: a server that begins an answer and hangs is not healthy. Redirects
/// are not followed, because what they lead to need not be the process.
///
/// # Errors
/// Says what was wrong.
pub async fn get(url: &Rendered, deadline: Instant) -> Result<(), String> {
    let uri: Uri = url.value().parse().map_err(|error| format!("{url}: {error}"))?;
    let (host, port) = target(&uri).ok_or_else(|| format!("{url}: not an http URL"))?;
    let stream = connect::to(&url.part(format!("{host}:{port}")), deadline).await?;
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(64 * 1024)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| describe(&error))?;
    // The connection does its work when it is polled, and ends when this ends.
    tokio::select! {
        biased;
        result = exchange(sender, &uri, host, port) => result,
        // It ends first only without having delivered an answer; the exchange says why.
        result = drive(connection) => Err(result),
    }
}

async fn drive(
    connection: http1::Connection<TokioIo<tokio::net::TcpStream>, Empty<Bytes>>,
) -> String {
    match connection.await {
        Err(error) => describe(&error),
        // Then the answer is complete, or the exchange sees that it is not.
        Ok(()) => std::future::pending().await,
    }
}

async fn exchange(
    mut sender: http1::SendRequest<Empty<Bytes>>,
    uri: &Uri,
    host: &str,
    port: u16,
) -> Result<(), String> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(HOST, if port == 80 { host.to_owned() } else { format!("{host}:{port}") })
        .header(USER_AGENT, concat!("provost/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close")
        .body(Empty::new())
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| describe(&error))?;
    if !answer.status().is_success() {
        return Err(format!("HTTP {}", answer.status().as_u16()));
    }
    read_beginning(answer).await
}

async fn read_beginning(answer: Response<Incoming>) -> Result<(), String> {
    let mut body = answer.into_body();
    let mut len = 0;
    while len < BODY {
        match body.frame().await {
            None => break,
            Some(Ok(frame)) => len += frame.data_ref().map_or(0, Bytes::len),
            Some(Err(error)) => return Err(describe(&error)),
        }
    }
    Ok(())
}

fn target(uri: &Uri) -> Option<(&str, u16)> {
    if uri.scheme() != Some(&Scheme::HTTP) {
        return None;
    }
    Some((uri.host()?, uri.port_u16().unwrap_or(80)))
}

fn describe(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        return "the connection was closed without an answer".into();
    }
    match error.source().and_then(|source| source.downcast_ref::<std::io::Error>()) {
        Some(error) => connect::describe(error),
        None => format!("no valid HTTP: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_http_has_a_target() {
        let target = |url: &str| {
            let uri: Uri = url.parse().unwrap();
            target(&uri).map(|(host, port)| (host.to_owned(), port))
        };
        assert_eq!(target("http://localhost:3000/health"), Some(("localhost".into(), 3000)));
        assert_eq!(target("http://[::1]/"), Some(("[::1]".into(), 80)));
        assert_eq!(target("https://localhost/"), None);
        assert_eq!(target("/health"), None);
    }
}

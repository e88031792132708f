//! A keep-alive HTTP/1.1 client for one place: a service, or the outbound side of its caller's own sidecar.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Longest answer that is read, in bytes.
const MAX_BODY: usize = 1 << 20;
/// Most idle connections that are kept.
const MAX_IDLE: usize = 64;

/// The client. Requests run at the same time, each on a connection of its own.
pub(crate) struct Client {
    /// `HOST:PORT`.
    place: String,
    timeout: Duration,
    idle: Mutex<Vec<SendRequest<Empty<Bytes>>>>,
}

/// An answer, read to its end.
pub(crate) struct Answer {
    /// Status.
    pub(crate) status: StatusCode,
    /// Headers.
    pub(crate) headers: HeaderMap,
    /// Body.
    pub(crate) body: Bytes,
}

impl Client {
    /// A client whose requests all go to `place` (`HOST:PORT`) and take at most `timeout`.
    pub(crate) fn new(place: String, timeout: Duration) -> Self {
        Self { place, timeout, idle: Mutex::default() }
    }

    /// Sends `GET path` with `Host: host`: it is the host that tells the sidecar where to go.
    ///
    /// # Errors
    /// When no whole answer came in time.
    pub(crate) async fn get(&self, host: &str, path: &str) -> anyhow::Result<Answer> {
        tokio::time::timeout(self.timeout, self.exchange(host, path))
            .await
            .map_err(|_| anyhow!("no answer within {:?} through {}", self.timeout, self.place))?
    }

    async fn exchange(&self, host: &str, path: &str) -> anyhow::Result<Answer> {
        let mut request = Request::get(path).header(header::HOST, host).body(Empty::new())?;
        loop {
            let (mut connection, reused) = self.connection().await?;
            let response = match connection.try_send_request(request).await {
                Ok(response) => response,
                // A kept connection may have been closed meanwhile; what was never sent can be sent again.
                Err(mut error) => match error.take_message() {
                    Some(unsent) if reused => {
                        request = unsent;
                        continue;
                    }
                    _ => return Err(error.into_error()).context("the connection broke"),
                },
            };
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_BODY).collect().await.map_err(|e| anyhow!(e))?.to_bytes();
            self.keep(connection);
            return Ok(Answer { status: head.status, headers: head.headers, body });
        }
    }

    async fn connection(&self) -> anyhow::Result<(SendRequest<Empty<Bytes>>, bool)> {
        while let Some(connection) = self.with_idle(Vec::pop) {
            if connection.is_ready() {
                return Ok((connection, true));
            }
        }
        let stream = TcpStream::connect(&self.place)
            .await
            .with_context(|| format!("cannot connect to {}", self.place))?;
        stream.set_nodelay(true)?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(driver);
        Ok((sender, false))
    }

    fn keep(&self, connection: SendRequest<Empty<Bytes>>) {
        if !connection.is_closed() {
            self.with_idle(|idle| {
                if idle.len() < MAX_IDLE {
                    idle.push(connection);
                }
            });
        }
    }

    fn with_idle<T>(&self, change: impl FnOnce(&mut Vec<SendRequest<Empty<Bytes>>>) -> T) -> T {
        change(&mut self.idle.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

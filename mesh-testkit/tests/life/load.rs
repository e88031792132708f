//! Clients that never stop, as well behaved as real ones: they reconnect when they are told to, and retry nothing that
//! may have been sent.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::CONNECTION};
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, task::JoinSet};

/// Pause between two requests of a connection.
const PAUSE: Duration = Duration::from_millis(2);

/// Load until it is stopped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    requests: Arc<AtomicU64>,
    tasks: JoinSet<Result<(), String>>,
}

impl Load {
    /// `connections` of each kind, to the outbound listener at `to`.
    pub(crate) fn start(to: SocketAddr, connections: usize) -> Self {
        let (stop, requests) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let mut tasks = JoinSet::new();
        for _ in 0..connections {
            let going = Going { to, stop: Arc::clone(&stop), requests: Arc::clone(&requests) };
            tasks.spawn(going.clone().http1());
            tasks.spawn(going.http2());
        }
        Self { stop, requests, tasks }
    }

    /// Requests that were answered.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Stops; all that failed.
    pub(crate) async fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let outcomes = self.tasks.join_all().await;
        outcomes.into_iter().filter_map(Result::err).collect()
    }
}

#[derive(Clone)]
struct Going {
    to: SocketAddr,
    stop: Arc<AtomicBool>,
    requests: Arc<AtomicU64>,
}

impl Going {
    fn on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    async fn http1(self) -> Result<(), String> {
        while self.on() {
            let stream = self.connect().await?;
            let (mut sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
            tokio::spawn(connection);
            while self.on() {
                let response =
                    sender.send_request(request("/")).await.map_err(|e| format!("HTTP/1: {e:?}"))?;
                let close = response.headers().get(CONNECTION).is_some_and(|value| value == "close");
                self.take(response).await?;
                if close {
                    break;
                }
            }
        }
        Ok(())
    }

    async fn http2(self) -> Result<(), String> {
        while self.on() {
            let stream = self.connect().await?;
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .map_err(|e| e.to_string())?;
            tokio::spawn(connection);
            while self.on() && sender.ready().await.is_ok() {
                match sender.try_send_request(request("http://catalog/")).await {
                    Ok(response) => self.take(response).await?,
                    // It was told to go before it sent anything.
                    Err(mut failed) => match failed.take_message() {
                        Some(_unsent) => break,
                        None => return Err(format!("HTTP/2: {:?}", failed.into_error())),
                    },
                }
            }
        }
        Ok(())
    }

    async fn connect(&self) -> Result<TcpStream, String> {
        TcpStream::connect(self.to).await.map_err(|error| format!("connecting: {error}"))
    }

    async fn take(&self, response: Response<Incoming>) -> Result<(), String> {
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| format!("body: {error:?}"))?;
        if head.status != StatusCode::OK || body.to_bytes().is_empty() {
            return Err(format!("{head:?}"));
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }
}

fn request(uri: &str) -> Request<Empty<Bytes>> {
    Request::get(uri).header("host", "catalog").body(Empty::new()).expect("a request")
}

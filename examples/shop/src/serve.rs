//! What every service of the shop needs to run: HTTP/1.1 serving, `/stats`, and an orderly end.

use std::{convert::Infallible, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::{Semaphore, oneshot, watch},
    task::JoinSet,
};

use crate::{ProcessArgs, stats::Stats};

/// Most connections at a time of one listener.
const MAX_CONNECTIONS: usize = 1024;
/// How long connections may take to end after SIGTERM.
const DRAIN: Duration = Duration::from_secs(3);

/// Becomes true when the process is to end.
#[derive(Clone)]
pub(crate) struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// Waits for SIGTERM or SIGINT, and with `--exit-with-parent` for the end of standard input.
    ///
    /// # Errors
    /// When no signal handler can be installed.
    pub(crate) fn on_signal(process: &ProcessArgs) -> anyhow::Result<Self> {
        let (sender, receiver) = watch::channel(false);
        let mut term = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let mut int = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
        let parent = process.exit_with_parent;
        tokio::spawn(async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
                () = end_of_stdin(), if parent => {}
            }
            sender.send_replace(true);
        });
        Ok(Self(receiver))
    }

    /// Returns when the process is to end.
    pub(crate) async fn wait(&mut self) {
        // An error means that the sender is gone, and with it whoever could ask us to go on.
        let _ended = self.0.wait_for(|&stop| stop).await;
    }
}

/// Standard input is read on a thread of its own, which does not hold up the end of the process.
async fn end_of_stdin() {
    let (ended, end) = oneshot::channel();
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let _read = std::io::copy(&mut stdin, &mut std::io::sink());
        let _process_may_be_ending = ended.send(());
    });
    // Without a thread there is no end to be told of.
    if end.await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Binds `address`.
///
/// # Errors
/// When the address is taken or not this machine's.
pub(crate) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

/// Serves `GET /stats` beside the service, if it was asked for.
///
/// # Errors
/// When its address cannot be bound.
pub(crate) async fn stats(
    process: &ProcessArgs,
    stats: Arc<Stats>,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let Some(address) = process.stats else { return Ok(()) };
    let listener = bind(address).await?;
    tokio::spawn(http(listener, shutdown, move |request| {
        let stats = Arc::clone(&stats);
        async move {
            match request.uri().path() {
                "/stats" => json(StatusCode::OK, &stats.snapshot()),
                _ => json(StatusCode::NOT_FOUND, &"see /stats"),
            }
        }
    }));
    Ok(())
}

/// Serves HTTP/1.1 until `shutdown`, then lets connections end.
pub(crate) async fn http<H, F>(listener: TcpListener, shutdown: Shutdown, handler: H)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let connection = move |stream: TcpStream, mut shutdown: Shutdown| {
        let handler = handler.clone();
        async move {
            let service = service_fn(move |request| {
                let answer = handler(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new());
            let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
            tokio::select! {
                // What goes wrong with one connection is its peer's affair: it sees the connection end.
                _ended = connection.as_mut() => return,
                () = shutdown.wait() => connection.as_mut().graceful_shutdown(),
            }
            let _ended = connection.await;
        }
    };
    accept(listener, shutdown, connection).await;
}

/// Accepts connections until `shutdown` and gives each to `connection`, then waits for all of them to end.
pub(crate) async fn accept<C, F>(listener: TcpListener, mut shutdown: Shutdown, connection: C)
where
    C: Fn(TcpStream, Shutdown) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut running = JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = running.join_next() => continue,
            () = shutdown.wait() => break,
        };
        let Ok((stream, _)) = stream else {
            // Out of descriptors, mostly: give others time to close theirs.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let _best_effort = stream.set_nodelay(true);
        let work = connection(stream, shutdown.clone());
        running.spawn(async move {
            work.await;
            drop(permit);
        });
    }
    drop(listener);
    let _late = tokio::time::timeout(DRAIN, async { while running.join_next().await.is_some() {} }).await;
}

/// A JSON response.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(body).unwrap_or_default();
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

//! Liveness, readiness and metrics over HTTP/1.1.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};

use crate::{app::stopped, gate::Gate, grpc::Shared};

/// Most connections at a time.
const MAX_CONNECTIONS: usize = 256;
/// Most of these of one address.
const MAX_OF_ONE: usize = 16;
/// Time for the head of a request.
const HEAD: Duration = Duration::from_secs(10);
/// Life of a connection, which serves one request.
const LIFE: Duration = Duration::from_secs(30);

/// What is to come of it.
pub(crate) struct Signals {
    /// True: nobody new is to be led here.
    pub(crate) leaving: watch::Receiver<bool>,
    /// True: it ends.
    pub(crate) stop: watch::Receiver<bool>,
}

/// Serves until it is to stop. It is started when all else stands, so to answer is to be ready.
pub(crate) async fn run(listener: TcpListener, shared: Arc<Shared>, mut signals: Signals) {
    let gate = Gate::new(("health", "too_many"), MAX_CONNECTIONS, MAX_OF_ONE, &shared.metrics);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut signals.stop) => return,
        };
        while connections.try_join_next().is_some() {}
        let Ok((stream, peer)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Some(place) = gate.enter(peer) else { continue };
        let (shared, leaving) = (Arc::clone(&shared), signals.leaving.clone());
        connections.spawn(async move {
            connection(stream, &shared, &leaving).await;
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, shared: &Shared, leaving: &watch::Receiver<bool>) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer(request.method(), request.uri().path(), shared, *leaving.borrow());
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .keep_alive(false)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(LIFE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "health connection ended"),
        Err(_) => tracing::debug!("health connection ended: its time is over"),
    }
}

fn answer(method: &Method, path: &str, shared: &Shared, is_leaving: bool) -> Response<Full<Bytes>> {
    if method != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here\n".into());
    }
    match path {
        "/live" => text(StatusCode::OK, "live\n".into()),
        "/ready" if is_leaving => text(StatusCode::SERVICE_UNAVAILABLE, "leaving\n".into()),
        "/ready" => text(StatusCode::OK, "ready\n".into()),
        "/metrics" => {
            shared.measure();
            let mut response = text(StatusCode::OK, shared.metrics.render());
            let kind = header::HeaderValue::from_static(
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            );
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        _ => text(StatusCode::NOT_FOUND, "there are /live, /ready and /metrics\n".into()),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

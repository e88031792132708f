//! A small HTTP/1 server for admin and health: GET only, bounded in every way.

use std::{
    future::{Future, ready},
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header, request::Parts};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::yield_now,
    time::sleep,
};

use super::{State, room::Room};
use crate::{drain::Drain, telemetry::METRICS_CONTENT_TYPE};

/// Time for a request's head to arrive, also the next one on an idle connection. Who asks does so at once.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest head, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// Wait after a failed accept (no file descriptors left).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Head of a request.
pub(crate) type Head = Parts;
/// An answer that may take its time. None: the connection ends, unanswered.
pub(crate) type Answering<'a> = Pin<Box<dyn Future<Output = Option<Answer>> + Send + 'a>>;
/// Makes the answer to a GET.
pub(crate) type Handler = for<'a> fn(&'a State, &'a Head) -> Answering<'a>;

/// An answer that is there at once.
pub(crate) fn now<'a>(answer: Answer) -> Answering<'a> {
    Box::pin(ready(Some(answer)))
}

/// An answer.
pub(crate) struct Answer {
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
}

impl Answer {
    /// One line of text.
    pub(crate) fn text(status: u16, text: &str) -> Self {
        Self {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            content_type: "text/plain; charset=utf-8",
            body: Bytes::from(format!("{text}\n")),
        }
    }

    /// JSON, for people and tools.
    pub(crate) fn json(value: &Value) -> Self {
        let body = Bytes::from(format!("{value:#}\n"));
        Self { status: StatusCode::OK, content_type: "application/json", body }
    }

    /// The text of a scrape.
    pub(crate) fn metrics(text: String) -> Self {
        Self { status: StatusCode::OK, content_type: METRICS_CONTENT_TYPE, body: Bytes::from(text) }
    }

    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }
}

/// True when the Host is an IP address or localhost: a web page that rebinds its DNS name cannot say so.
pub(super) fn host_is_local(request: &Head) -> bool {
    let host = request.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let Some(host) = host.or_else(|| request.uri.authority().map(http::uri::Authority::as_str)) else {
        return true;
    };
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// Serves GET requests. Runs for ever.
pub(crate) async fn serve_tcp(listener: TcpListener, state: Arc<State>, handler: Handler) {
    let mut room = Room::default();
    loop {
        let Ok((stream, peer)) = accepted(listener.accept().await).await else { continue };
        let peer = SocketAddr::ip(&peer).to_canonical();
        let activity = room.make(peer).await;
        let (state, own) = (Arc::clone(&state), activity.clone());
        let task = tokio::spawn(async move {
            let _ending = own.ending();
            let answer = |head| {
                let (state, answering) = (Arc::clone(&state), own.answering());
                async move {
                    let _answering = answering;
                    answer(&state, &head, handler).await
                }
            };
            serve_one(stream, answer).await;
        });
        room.take(peer, activity, task.abort_handle());
        // What it asks is read before another one may take its place.
        yield_now().await;
    }
}

/// Waits a little after a failure, so that a lack of file descriptors does not become a busy loop.
pub(super) async fn accepted<T>(result: io::Result<T>) -> io::Result<T> {
    if result.is_err() {
        sleep(ACCEPT_RETRY).await;
    }
    result
}

async fn answer(state: &State, head: &Head, handler: Handler) -> Option<Response<Full<Bytes>>> {
    let mut response = allowed(state, head, handler).await?;
    if *state.drain.borrow() != Drain::Running {
        // The next one may be another process's to answer.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Some(response)
}

async fn allowed(state: &State, head: &Head, handler: Handler) -> Option<Response<Full<Bytes>>> {
    if head.method != http::Method::GET {
        let mut response = Answer::text(405, "only GET is answered here").into_response();
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
        return Some(response);
    }
    Some(handler(state, head).await?.into_response())
}

/// Serves one connection; one without an answer ends.
pub(super) async fn serve_one<F>(stream: impl AsyncRead + AsyncWrite + Unpin, answer: impl Fn(Head) -> F)
where
    F: Future<Output = Option<Response<Full<Bytes>>>>,
{
    let service = service_fn(|request: Request<Incoming>| {
        // Bodies are not read: what comes after the head ends the connection.
        let (head, _body) = request.into_parts();
        let response = answer(head);
        async move { response.await.ok_or_else(|| io::Error::other("nothing is answered")) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "admin or health connection");
    }
}

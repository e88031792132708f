//! A gRPC server that answers as a test says, and a caller of it.

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_testkit::{net::fresh_addr, serve::Served};

type Body = BoxBody<Bytes, hyper::Error>;

/// How one call is answered.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// The caller's own messages, and status 0.
    Echo,
    /// This message, and then this status in trailers.
    Message(Bytes, &'static str),
    /// No message: this status in trailers of a response of its own.
    Late(&'static str),
    /// No message: this status in the head, which is all (Trailers-Only).
    Only(&'static str),
    /// When the caller's messages have come: as they make it.
    Read(fn(&[u8]) -> Self),
    /// Never.
    Hangs,
}

/// The server.
pub(crate) struct GrpcApp {
    served: Served,
    calls: Arc<AtomicU64>,
}

/// One message in its frame.
pub(crate) fn message(text: &[u8]) -> Bytes {
    let length = u32::try_from(text.len()).unwrap().to_be_bytes();
    [&[0], &length[..], text].concat().into()
}

/// A unary call of `/t.T/METHOD` of `catalog`.
pub(crate) fn call(method: &str, body: Bytes) -> Request<Full<Bytes>> {
    Request::post(format!("http://catalog/t.T/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(body))
        .unwrap()
}

/// What a status comes with.
fn status(status: &'static str) -> HeaderMap {
    let fields = [("grpc-status", status), ("grpc-message", "says%20the%20app"), ("x-cost-bin", "AAEC")];
    HeaderMap::from_iter(fields.map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))))
}

impl GrpcApp {
    /// Answers each call as `answer` says of its path.
    pub(crate) async fn start(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let calls = Arc::<AtomicU64>::default();
        let state = Arc::new((Arc::clone(&calls), answer));
        let served = Served::start(fresh_addr(0), move |stream, _| {
            let state = Arc::clone(&state);
            async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    state.0.fetch_add(1, SeqCst);
                    respond(state.1(request.uri().path()), request.into_body().boxed())
                });
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            }
        })
        .await;
        Self { served, calls }
    }

    /// Answers calls in this order, and all others with what they said.
    pub(crate) async fn in_order(answers: impl IntoIterator<Item = Answer>) -> Self {
        let answers = std::sync::Mutex::new(answers.into_iter().collect::<VecDeque<_>>());
        Self::start(move |_| answers.lock().unwrap().pop_front().unwrap_or(Answer::Echo)).await
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.served.address()
    }

    /// Calls whose head has come.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(SeqCst)
    }

    /// Connections that are open.
    pub(crate) fn open(&self) -> u64 {
        self.served.open()
    }
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed()
}

async fn respond(answer: Answer, body: Body) -> Result<Response<Body>, hyper::Error> {
    let ends = |with| std::future::ready(Some(Ok(status(with))));
    let none = HeaderMap::new;
    let (body, head) = match answer {
        Answer::Echo => (body.with_trailers(ends("0")).boxed(), none()),
        Answer::Message(text, with) => (full(message(&text)).with_trailers(ends(with)).boxed(), none()),
        Answer::Late(with) => (full(Bytes::new()).with_trailers(ends(with)).boxed(), none()),
        Answer::Only(with) => (full(Bytes::new()), status(with)),
        Answer::Read(judge) => {
            let all = body.collect().await?.to_bytes();
            return Box::pin(respond(judge(&all), full(all))).await;
        }
        Answer::Hangs => std::future::pending().await,
    };
    let mut response = Response::new(body);
    *response.headers_mut() = head;
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(response)
}

//! Serving one connection, until it ends or is told to end.

use std::{
    cell::Cell, convert::Infallible, future::Future, pin::pin, rc::Rc, sync::atomic::Ordering::Relaxed,
    time::Duration,
};

use http::{HeaderValue, Request, Response, StatusCode, Version, header::CONNECTION};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_core::{edge::Direction, reason::Reason};
use tokio::time::sleep;

use super::{
    body::{Incoming, ResponseBody},
    front::{Front, answer},
    heard::Heard,
};
use crate::{net::Stream, tls::Credentials, worker::Worker};

/// Largest head of a request, in bytes, and largest buffer for one.
const MAX_HEAD: usize = 64 * 1024;
/// How long the first bytes of a connection may take.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(90);
/// How long an HTTP/1 connection that is to end may still begin a request: one may be on its way already, and would be
/// lost if the connection closed under it. It is answered with `Connection: close`.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

/// Serves HTTP/1. `caller` is what the peer authenticated with; None for plaintext.
pub(crate) async fn http1<H, F>(
    worker: &Rc<Worker>,
    direction: Direction,
    io: Stream,
    caller: Option<Rc<Credentials>>,
    handle: Rc<H>,
) where
    H: Fn(Request<Incoming>) -> F + 'static,
    F: Future<Output = Response<ResponseBody>>,
{
    // In a box: rarely polled, and small without it.
    let ending = Box::pin(worker.ending(direction, caller));
    let told = Rc::new(Cell::new(false));
    let tell = Rc::clone(&told);
    let front = Front::new(worker, direction, &io);
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let response = front.admit(request.map(Incoming::Hyper)).map(|request| handle(request));
        let told = Rc::clone(&told);
        async move {
            let mut response = answer(response).await;
            // Whatever the next connection spoke: this one is kept or closed by its own rules.
            *response.version_mut() = Version::HTTP_11;
            if told.get() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let (io, heard) = Heard::new(io);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(worker.config.head_timeout).max_buf_size(MAX_HEAD);
    builder.auto_date_header(false).half_close(false);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service).with_upgrades());
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        ending = ending => {
            tell.set(true);
            tokio::select! {
                outcome = connection.as_mut() => outcome,
                () = sleep(LINGER) => {
                    connection.as_mut().graceful_shutdown();
                    tokio::select! {
                        outcome = connection => outcome,
                        () = ending.overdue() => Ok(()),
                    }
                }
            }
        }
    };
    if heard.load(Relaxed) && outcome.as_ref().is_err_and(hyper::Error::is_timeout) {
        worker.refused(direction, Reason::RequestStalled);
    }
    note(worker, direction, outcome);
}

/// What broke a connection is counted when the mesh refused it.
fn note(worker: &Worker, direction: Direction, outcome: Result<(), hyper::Error>) {
    let Err(error) = outcome else { return };
    tracing::debug!(direction = direction.as_str(), %error, "HTTP connection ended");
    if error.is_parse_too_large() {
        worker.refused(direction, Reason::LimitExceeded);
    } else if error.is_parse() {
        worker.refused(direction, Reason::BadRequest);
    }
}

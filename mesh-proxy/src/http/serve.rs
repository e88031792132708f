//! Serving one connection, until it ends or is told to end.

use std::{future::Future, pin::pin, rc::Rc, time::Duration};

use http::{Request, Response};
use mesh_core::edge::Direction;
use tokio::time::sleep;

use super::{
    body::{RequestBody, ResponseBody},
    front::Front,
    h1::{self, Life},
};
use crate::{
    net::Stream,
    tls::Credentials,
    worker::{Seldom, Worker},
};

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
    H: Fn(Request<RequestBody>) -> F + 'static,
    F: Future<Output = Response<ResponseBody>>,
{
    let mut ending = pin!(worker.ending(direction, caller));
    let mut ending = Seldom::new(ending.as_mut());
    let front = Front::new(worker, direction, &io);
    let life = Life::default();
    let mut serving = pin!(h1::serve(io, &front, &life, worker.config.head_timeout, &*handle));
    let outcome = tokio::select! {
        biased;
        outcome = serving.as_mut() => outcome,
        ending = &mut ending => {
            life.told.set(true);
            tokio::select! {
                outcome = serving.as_mut() => outcome,
                () = sleep(LINGER) => {
                    life.over.set(true);
                    tokio::select! {
                        outcome = serving => outcome,
                        () = ending.overdue() => Ok(()),
                    }
                }
            }
        }
    };
    if let Err(fault) = outcome {
        tracing::debug!(direction = direction.as_str(), %fault, "HTTP connection ended");
    }
}

//! Before a request is handled: a head that can be read in more than one way goes no further.

use std::{future::Future, rc::Rc};

use http::{HeaderValue, Request, Response, Version, header::CONNECTION};
use mesh_core::{edge::Direction, protocol::Protocol};

use super::{
    body::{Incoming, ResponseBody},
    check,
    exchange::Exchange,
    headers,
    reply::{Audience, refuse},
};
use crate::{net::Stream, worker::Worker};

/// Where requests come in, and what is said about those that go no further.
pub(super) struct Front {
    worker: Rc<Worker>,
    direction: Direction,
    /// The proxy's own application or a peer.
    trusted: bool,
}

impl Front {
    /// The way in of one connection.
    pub(super) fn new(worker: &Rc<Worker>, direction: Direction, io: &Stream) -> Self {
        let trusted = direction == Direction::Outbound || matches!(io, Stream::Accepted(..));
        Self { worker: Rc::clone(worker), direction, trusted }
    }

    /// The request, or the answer to one whose head can be read in more than one way. Its connection ends with it when
    /// others could hide behind it.
    pub(super) fn admit(
        &self,
        request: Request<Incoming>,
    ) -> Result<Request<Incoming>, Box<Response<ResponseBody>>> {
        let Err(reason) = check::head(&request) else { return Ok(request) };
        let shared = request.version() == Version::HTTP_2;
        let protocol = if shared { Protocol::Http2 } else { Protocol::Http1 };
        let edge = self.worker.bare_edge(self.direction, protocol);
        let mut exchange = Exchange::begin(edge, request.method());
        exchange.log_request(&self.worker.access_log, self.direction, None, &request);
        let to = Audience { trusted: self.trusted, grpc: headers::is_grpc(request.headers()) };
        let mut response = refuse(exchange, reason, "", to);
        if !shared {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Err(Box::new(response))
    }
}

/// What a request is answered that was admitted, or was not.
pub(super) async fn answer(
    response: Result<impl Future<Output = Response<ResponseBody>>, Box<Response<ResponseBody>>>,
) -> Response<ResponseBody> {
    match response {
        Ok(response) => response.await,
        Err(refused) => *refused,
    }
}

//! Before a request is handled: a head that can be read in more than one way goes no further.

use std::{rc::Rc, time::Duration};

use http::{HeaderValue, Request, Response, StatusCode, Version, header::CONNECTION};
use mesh_core::{
    edge::Direction,
    protocol::Protocol,
    reason::{REASON_HEADER, Reason},
};

use super::{
    body::{RequestBody, ResponseBody},
    check,
    exchange::Exchange,
    h1::{Fault, Malformed},
    headers,
    reply::{Audience, refuse},
};
use crate::{net::Stream, worker::Worker};

/// Where requests come in, and what is said about those that go no further.
pub(crate) struct Front {
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

    /// How long a body may be silent.
    pub(super) fn body_idle(&self) -> Duration {
        self.worker.config.body_idle
    }

    /// The request, or the answer to one whose head can be read in more than one way. Its connection ends with it when
    /// others could hide behind it.
    pub(super) fn admit(
        &self,
        request: Request<RequestBody>,
    ) -> Result<Request<RequestBody>, Box<Response<ResponseBody>>> {
        let Err(reason) = check::head(&request) else { return Ok(request) };
        let shared = request.version() == Version::HTTP_2;
        let protocol = if shared { Protocol::Http2 } else { Protocol::Http1 };
        let edge = self.worker.bare_edge(self.direction, protocol);
        let mut exchange = Exchange::begin(edge, request.method());
        exchange.log_request(&self.worker.access_log, self.direction, None, &request);
        let to = Audience { trusted: self.trusted, grpc: headers::wants_grpc(&request) };
        let mut response = refuse(exchange, reason, "", to);
        if !shared {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Err(Box::new(response))
    }

    /// The answer to what is no request, in the bytes of HTTP/1; it is counted.
    pub(super) fn explain(&self, fault: Fault) -> Vec<u8> {
        let (status, reason) = match fault {
            Fault::Malformed(Malformed::TooLarge) => {
                (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, Reason::LimitExceeded)
            }
            Fault::Malformed(_) => (StatusCode::BAD_REQUEST, Reason::BadRequest),
            Fault::Stalled => (StatusCode::REQUEST_TIMEOUT, Reason::RequestStalled),
        };
        self.worker.refused(self.direction, reason);
        let (field, text) = match self.trusted {
            true => {
                (format!("{REASON_HEADER}: {}\r\n", reason.code()), format!("{}: {fault}\n", reason.code()))
            }
            false => (String::new(), format!("{}\n", status.canonical_reason().unwrap_or_default())),
        };
        let length = text.len();
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\n{field}content-length: {length}\r\n\
             connection: close\r\n\r\n{text}"
        )
        .into_bytes()
    }
}

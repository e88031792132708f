//! One request in a stream of its own, and the head of its response.

use std::{
    future::{Future as _, poll_fn},
    pin::Pin,
    task::Poll,
};

use ::h2::client::SendRequest;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as _;
use mesh_core::reason::Reason;

use crate::{
    http::{
        body::{Incoming, RequestBody},
        h2::{Pump, Received, Stopped},
    },
    pool::Failure,
};

/// Sends a request and waits for its response. What is not sent of the body by then goes on being sent.
pub(super) async fn exchange(
    mut sender: SendRequest<Bytes>,
    (head, body): (Request<()>, RequestBody),
) -> Result<Response<Incoming>, Failure> {
    let ended = body.is_end_stream();
    let sent = sender.send_request(head, ended);
    drop(sender);
    let (mut responding, stream) = sent.map_err(|error| failure(&error))?;
    // Without a body nothing is left to send.
    let mut upload = (!ended).then(|| Pump::new(stream, body));
    let response = poll_fn(|cx| {
        if let Some(pump) = &mut upload
            && let Poll::Ready(outcome) = pump.poll_send(cx)
        {
            upload = None;
            if outcome == Err(Stopped::Source) {
                return Poll::Ready(Err(Failure::broken(Reason::ClientDisconnected)));
            }
        }
        Pin::new(&mut responding).poll(cx).map_err(|error| failure(&error))
    });
    let (head, stream) = response.await?.into_parts();
    let mut body = Received::response(stream, head.status, &head.headers);
    if let Some(upload) = upload {
        body.sending(tokio::task::spawn_local(upload).abort_handle());
    }
    Ok(Response::from_parts(head, Incoming::H2(body)))
}

/// Why there is no response. The peer did not process a request when it says so: it refused the stream, or goes away and
/// the stream is above those that it still serves (RFC 9113 sections 6.8 and 8.7). A stream below that ends in other
/// ways.
fn failure(error: &::h2::Error) -> Failure {
    let refused =
        error.is_remote() && (error.is_go_away() || error.reason() == Some(::h2::Reason::REFUSED_STREAM));
    Failure { refused, ..Failure::broken(Reason::UpstreamReset) }
}

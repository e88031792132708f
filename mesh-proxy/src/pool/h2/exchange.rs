//! One request in a stream of its own, and the head of its response.

use std::{
    cell::Cell,
    future::{Future as _, poll_fn},
    mem,
    pin::Pin,
    task::{Poll, ready},
};

use ::h2::client::SendRequest;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use mesh_core::reason::Reason;

use crate::{
    http::{
        body::{Incoming, RequestBody},
        expect::Opener,
        h2::{Pump, Received, Stopped},
        interim::{Interims, is_interim, passed_on},
    },
    pool::Failure,
};

/// Sends a request and waits for its response; what is said before it goes to the caller. What is not sent of the body by
/// then goes on being sent, unless the upstream was to ask for it. A body of which there is nothing to send stays. `opened` is
/// the newest stream of whose head the peer may have got something.
pub(super) async fn exchange(
    mut sender: SendRequest<Bytes>,
    head: Request<()>,
    body: &mut RequestBody,
    opener: Option<&Opener>,
    opened: &Cell<u32>,
) -> Result<Response<Incoming>, Failure> {
    let ended = body.is_end_stream();
    let sent = sender.send_request(head, ended);
    drop(sender);
    let (mut responding, stream) = sent.map_err(|error| failure(&error))?;
    let mut upload = (!ended).then(|| Pump::new(stream, mem::replace(body, RequestBody::none())));
    let id = u32::from(responding.stream_id());
    // It may have waited for its turn, or for the connection's task, until that broke.
    let failed = |error| {
        let failure = failure(&error);
        Failure { refused: failure.refused || id > opened.get(), ..failure }
    };
    let (mut sending, mut interims) = (!ended, Interims::default());
    let response = poll_fn(|cx| {
        loop {
            if let Some(pump) = &mut upload
                && sending
                && let Poll::Ready(outcome) = pump.poll_send(cx)
            {
                sending = false;
                if outcome == Err(Stopped::Source) {
                    return Poll::Ready(Err(Failure::broken(Reason::ClientDisconnected)));
                }
            }
            // Asking for the response would pass over what is said before it.
            let Some(Ok(said)) = ready!(responding.poll_informational(cx)) else {
                return Pin::new(&mut responding).poll(cx).map_err(failed);
            };
            if !is_interim(said.status()) || !interims.came() {
                return Poll::Ready(Err(Failure::broken(Reason::UpstreamProtocolError)));
            }
            match opener {
                // The body may be sent now.
                Some(opener) if said.status() == StatusCode::CONTINUE => opener.open(),
                _ => {
                    let (said, ()) = said.into_parts();
                    let body = upload.as_ref().map_or(&*body, Pump::body);
                    body.interim(passed_on(said.status, said.headers));
                }
            }
        }
    });
    let (head, stream) = response.await?.into_parts();
    let mut received = Received::response(stream, head.status, &head.headers);
    if let Some(upload) = upload.filter(|upload| sending && !upload.body().is_held()) {
        received.sending(tokio::task::spawn_local(upload).abort_handle());
    }
    Ok(Response::from_parts(head, Incoming::H2(received)))
}

/// Why there is no response. The peer did not process a request when it says so: it refused the stream, or goes away and
/// the stream is above those that it still serves (RFC 9113 sections 6.8 and 8.7). A stream below that ends in other
/// ways.
fn failure(error: &::h2::Error) -> Failure {
    let refused =
        error.is_remote() && (error.is_go_away() || error.reason() == Some(::h2::Reason::REFUSED_STREAM));
    Failure { refused, ..Failure::broken(Reason::UpstreamReset) }
}

//! One request of a caller, in a task of its own, from its head to the last byte of its response.

use std::{future::Future, pin::pin, rc::Rc, task::Poll};

use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use http::{Request, Response};
use http_body::Body as _;

use super::{Pump, Received, caller::Caller};
use crate::http::{
    body::{Incoming, RequestBody, ResponseBody},
    headers,
};

/// Answers a request. A caller that resets its stream is not worked for any more.
pub(super) async fn answer<H, F>(
    caller: Rc<Caller>,
    handle: Rc<H>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) where
    H: Fn(Request<RequestBody>) -> F,
    F: Future<Output = Response<ResponseBody>>,
{
    let (head, stream) = request.into_parts();
    let body = Received::request(stream, &head.headers, Rc::clone(&caller));
    let response = match caller.front.admit(Request::from_parts(head, RequestBody::from(Incoming::H2(body))))
    {
        Ok(request) => {
            let mut work = pin!(handle(request));
            let response = std::future::poll_fn(|cx| {
                let polled = work.as_mut().poll(cx);
                if caller.has_said() {
                    caller.tell(&mut respond);
                }
                match polled {
                    Poll::Ready(response) => Poll::Ready(Some(response)),
                    Poll::Pending => respond.poll_reset(cx).map(|_| None),
                }
            });
            match response.await {
                Some(response) => response,
                None => return,
            }
        }
        Err(refused) => *refused,
    };
    let (mut head, body) = response.into_parts();
    headers::strip_upgrade(&mut head.headers);
    let ended = body.is_end_stream();
    match respond.send_response(Response::from_parts(head, ()), ended) {
        Ok(stream) if !ended => {
            // The peer's reset ends it too; whoever counts knows by what was sent.
            let _ = Pump::new(stream, body).await;
        }
        Ok(_) => {}
        Err(error) => {
            tracing::debug!(%error, "response cannot be sent");
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }
}

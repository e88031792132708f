//! Serving HTTP/1 in one task for each connection: head, answer, next head. What a connection keeps while it is idle is
//! little more than itself.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use http::{
    Method, Request, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH},
};
use http_body::Body as _;
use tokio::time::{Sleep, sleep_until, timeout};

use super::{
    asked::Connection,
    head::{Malformed, one_length, switches, write_response},
    request::{RequestHead, request},
    sending::{Sending, Stopped},
};
use crate::{
    http::{
        body::{Incoming, RequestBody, ResponseBody},
        front::Front,
    },
    net::Stream,
};

/// Largest head of a request, in bytes.
pub(super) const MAX_HEAD: usize = 64 * 1024;
/// How long a caller may take to close its half of a connection that ends before all it said was read. Closed at once,
/// it could lose the answer (RFC 9112 section 9.6).
const PARTING: Duration = Duration::from_secs(1);

/// How a connection fares, told by who watches over it.
#[derive(Debug, Default)]
pub(crate) struct Life {
    /// It is to end: answers say so.
    pub told: Cell<bool>,
    /// No request is begun any more.
    pub over: Cell<bool>,
}

/// Why a connection ends that its caller did not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// A head is none.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A head was begun and did not come to its end in time.
    #[error("a request's head did not come to its end in time")]
    Stalled,
}

/// What follows an answer.
enum Next {
    Head,
    Close,
    /// Something is unread, or will be.
    CloseUnread,
    /// The caller has left, or speaks something else.
    Gone,
}

/// What of a request decides how it is answered.
struct Terms {
    version: Version,
    bare: bool,
    /// It asks for a tunnel. What comes behind it is no request, whatever the answer is.
    connect: bool,
    keep_alive: bool,
    /// How long what is left of it may be silent once it is answered.
    silence: Duration,
}

/// Serves a connection to its end. `patience` limits how long a request's head may take, and how long the connection may
/// be idle.
///
/// # Errors
/// [`Fault`]; the caller was told, and it is counted.
pub(crate) async fn serve<H, F>(
    stream: Stream,
    front: &Front,
    life: &Life,
    patience: Duration,
    handle: &H,
) -> Result<(), Fault>
where
    H: Fn(Request<RequestBody>) -> F,
    F: Future<Output = Response<ResponseBody>>,
{
    let connection = Connection::new(stream);
    let mut waiting = Waiting { searched: 0, patience, until: Instant::now(), timer: None };
    loop {
        waiting.begin(&connection);
        let next = match poll_fn(|cx| waiting.poll(cx, &connection, life)).await {
            // In a box: most connections are idle, and need no room for it.
            Ok(Some(head)) => Box::pin(connection.exchange(head, front, life, handle)).await,
            Ok(None) => Next::Close,
            Err(fault) => {
                connection.say(&front.explain(fault));
                Box::pin(connection.part(true)).await;
                return Err(fault);
            }
        };
        match next {
            Next::Head => continue,
            Next::Close => Box::pin(connection.part(false)).await,
            Next::CloseUnread => Box::pin(connection.part(true)).await,
            Next::Gone => {}
        }
        return Ok(());
    }
}

/// Waiting for a request's head.
struct Waiting {
    /// How much of what was read holds no end of a head.
    searched: usize,
    patience: Duration,
    until: Instant,
    /// Set anew only when it has run out: with requests coming it is behind [`until`](Self::until).
    timer: Option<Pin<Box<Sleep>>>,
}

impl Waiting {
    fn begin(&mut self, connection: &Connection) {
        self.searched = 0;
        self.until = Instant::now() + self.patience;
        if let Some(io) = &mut connection.state.borrow_mut().io {
            io.rest();
        }
    }

    /// The next head. None: there is none, and that is as it should be.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        connection: &Connection,
        life: &Life,
    ) -> Poll<Result<Option<RequestHead>, Fault>> {
        let mut state = connection.state.borrow_mut();
        let Some(io) = &mut state.io else { return Poll::Ready(Ok(None)) };
        loop {
            if !io.read.is_empty() {
                if let Some(head) = request(&mut io.read, self.searched)? {
                    return Poll::Ready(Ok(Some(head)));
                }
                self.searched = io.read.len();
            }
            if io.read.len() >= MAX_HEAD {
                return Poll::Ready(Err(Malformed::TooLarge.into()));
            }
            if io.read.is_empty() && life.over.get() {
                return Poll::Ready(Ok(None));
            }
            match io.poll_fill(cx) {
                Poll::Ready(Ok(count)) if count > 0 => {}
                // What was begun is not missed by who left.
                Poll::Ready(_) => return Poll::Ready(Ok(None)),
                Poll::Pending => {
                    ready!(self.poll_timer(cx));
                    return Poll::Ready(if io.read.is_empty() { Ok(None) } else { Err(Fault::Stalled) });
                }
            }
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.timer {
            // It wakes this task, of which it knows since it was set.
            Some(timer) if !timer.is_elapsed() => return Poll::Pending,
            Some(_) if Instant::now() >= self.until => return Poll::Ready(()),
            Some(timer) => timer.as_mut().reset(self.until.into()),
            None => self.timer = Some(Box::pin(sleep_until(self.until.into()))),
        }
        match &mut self.timer {
            Some(timer) => timer.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

impl Connection {
    /// Has a request answered.
    async fn exchange<H, F>(
        self: &Rc<Self>,
        head: RequestHead,
        front: &Front,
        life: &Life,
        handle: &H,
    ) -> Next
    where
        H: Fn(Request<RequestBody>) -> F,
        F: Future<Output = Response<ResponseBody>>,
    {
        let RequestHead { request, framing, keep_alive, expects } = head;
        let (version, bare) = (request.version(), request.method() == Method::HEAD);
        let connect = request.method() == Method::CONNECT;
        let body = self.begin(framing, expects, version);
        let response = match front.admit(request.map(|()| RequestBody::from(Incoming::Asked(body)))) {
            Err(refused) => *refused,
            Ok(request) => {
                let mut answering = pin!(handle(request));
                let answer = poll_fn(|cx| match answering.as_mut().poll(cx) {
                    Poll::Ready(answer) => Poll::Ready(Some(answer)),
                    Poll::Pending => self.poll_gone(cx).map(|()| None),
                });
                match answer.await {
                    Some(response) => response,
                    None => return Next::Gone,
                }
            }
        };
        let keep_alive = keep_alive && !connect && !life.told.get();
        let silence = front.body_idle();
        self.answer(response, Terms { version, bare, connect, keep_alive, silence }).await
    }

    /// Writes an answer, and says what becomes of the connection.
    async fn answer(self: &Rc<Self>, response: Response<ResponseBody>, terms: Terms) -> Next {
        let switched = switches(terms.connect, response.status());
        let (mut sending, mut body, upgrade, closes) = {
            let mut state = self.state.borrow_mut();
            let upgrade = state.upgrade.take();
            // What was not asked for by now is not asked for any more.
            let unasked = std::mem::take(&mut state.expects);
            let Some(io) = &mut state.io else { return Next::Close };
            let closes = !switched && (unasked || !terms.keep_alive);
            let (sending, body, closes) = begin(io.front(), response, &terms, closes);
            (sending, body, upgrade, closes)
        };
        let sent = poll_fn(|cx| {
            let polled = match &mut self.state.borrow_mut().io {
                Some(io) => sending.poll(cx, io, &mut body),
                None => Poll::Ready(Err(Stopped::Connection)),
            };
            match polled {
                Poll::Pending => self.poll_gone(cx).map(|()| Err(Stopped::Connection)),
                ready => ready,
            }
        });
        let sent = sent.await;
        drop(body);
        match (sent, upgrade) {
            (Err(Stopped::Connection | Stopped::Source), _) => return Next::Close,
            (Ok(()), Some(upgrade)) if switched => {
                if let Some(io) = self.state.borrow_mut().io.take() {
                    // Whoever does not want it any more lets it close.
                    let _ = upgrade.send(io.into_stream());
                }
                return Next::Gone;
            }
            (Ok(()), _) if switched => return Next::Close,
            (Ok(()), _) => {}
        }
        match (closes, self.body_over(terms.silence).await) {
            (false, true) => Next::Head,
            (true, true) if !terms.connect => Next::Close,
            (true, true) | (_, false) => Next::CloseUnread,
        }
    }

    /// Waits for the rest of the request that was answered, while it comes. False: nobody knows what comes behind it.
    async fn body_over(self: &Rc<Self>, silence: Duration) -> bool {
        let mut over = poll_fn(|cx| self.poll_body_over(cx));
        // Nearly always it is known, and no clock is read.
        if let Poll::Ready(over) = poll_fn(|cx| Poll::Ready(Pin::new(&mut over).poll(cx))).await {
            return over;
        }
        Box::pin(async {
            loop {
                self.state.borrow_mut().came = false;
                match timeout(silence, &mut over).await {
                    Ok(over) => return over,
                    Err(_) if self.state.borrow().came => {}
                    Err(_) => return false,
                }
            }
        })
        .await
    }

    /// Queues bytes of the proxy's own.
    fn say(&self, bytes: &[u8]) {
        if let Some(io) = &mut self.state.borrow_mut().io {
            io.front().extend_from_slice(bytes);
        }
    }

    /// Closes it, once the caller has what was said to it.
    async fn part(&self, unread: bool) {
        let Some(mut io) = self.state.borrow_mut().io.take() else { return };
        // Who does not read in time is not waited for.
        let _ = timeout(PARTING, io.end(unread)).await;
    }
}

/// Writes an answer's head. Returns what is to be sent behind it, and whether the connection ends with it.
fn begin(
    out: &mut Vec<u8>,
    mut response: Response<ResponseBody>,
    terms: &Terms,
    mut closes: bool,
) -> (Sending, ResponseBody, bool) {
    let status = response.status();
    if status.is_client_error() && response.headers_mut().remove(CONNECTION).is_some() {
        closes = true;
    }
    let old = terms.version == Version::HTTP_10;
    let switched = switches(terms.connect, status);
    let empty = status.is_informational() || status == StatusCode::NO_CONTENT || switched;
    let fields = response.headers_mut();
    if empty {
        fields.remove(CONTENT_LENGTH);
    } else {
        // HTTP/2 does not forbid several. The first is what is kept to.
        one_length(fields);
    }
    let nothing = empty || terms.bare || status == StatusCode::NOT_MODIFIED;
    let (fields, body) = (response.headers(), response.body());
    closes |= old
        && !nothing
        && !fields.contains_key(CONTENT_LENGTH)
        && body.size_hint().exact().is_none()
        && !body.is_end_stream();
    write_response(out, &response, terms.version);
    if closes {
        out.extend_from_slice(b"connection: close\r\n");
    } else if old && !switched {
        out.extend_from_slice(b"connection: keep-alive\r\n");
    }
    if !nothing && !response.headers().contains_key(CONTENT_LENGTH) && response.body().is_end_stream() {
        // On a connection that goes on, nothing else says that this was all.
        out.extend_from_slice(b"content-length: 0\r\n");
    }
    let sending = match nothing {
        true => Sending::nothing(out),
        false => Sending::begin(out, response.headers(), response.body(), !old),
    };
    (sending, response.into_body(), closes)
}

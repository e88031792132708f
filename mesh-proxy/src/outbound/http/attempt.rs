//! Sending a request: to the chosen endpoint, and to others while that is safe.

use std::{net::IpAddr, rc::Rc, time::Instant};

use http::{Method, Request, Response, header::SET_COOKIE};
use mesh_core::{
    protocol::Protocol,
    reason::Reason,
    resilience::{
        breaker::Kind,
        retry::{self, Failed},
    },
    settings::Retry,
};
use tokio::time::sleep;

use crate::{
    balance::{EndpointState, Flight},
    config::Http1Transport,
    http::{
        authority,
        body::{Incoming, RequestBody},
        clock::{Clock, Expired, within},
        exchange::{Exchange, Held},
        headers,
        replay::Spare,
    },
    outbound::{
        plan::Plan,
        table::{Choice, Table},
    },
    pool::{Failure, Lease, Terms, Wire},
    worker::Worker,
};

/// One call on its way.
pub(super) struct Call<'a> {
    /// The worker.
    pub worker: &'a Rc<Worker>,
    /// Where calls of its kind go.
    pub table: &'a Table,
    /// The rule that it follows, by index.
    pub rule: usize,
    /// What is configured for it.
    pub plan: Option<&'a Plan>,
    /// Where the caller is.
    pub source: IpAddr,
    /// What it speaks.
    pub seen: Protocol,
    /// It asks for an upgrade, after which it cannot be sent again.
    pub upgrade: bool,
    /// It is gRPC's.
    pub grpc: bool,
}

/// What came back.
pub(super) struct Answer {
    /// The response.
    pub response: Response<Incoming>,
    /// The connection that it comes on.
    pub lease: Lease,
    /// The reason that the peer's proxy gave.
    pub reason: Option<Reason>,
    /// Which backend of the rule gave it, by index.
    pub backend: usize,
}

/// The end of one try.
struct Tried {
    /// What the caller gets if it was the last.
    outcome: Result<Answer, Reason>,
    /// How it failed, and how it is sent again; None: it is the last.
    again: Option<(Failed, Again)>,
}

/// How a request can be sent again; its head is there.
enum Again {
    /// Nothing of it was sent.
    Unsent,
    /// Its body can be had again.
    Spare(Spare),
}

/// Sends until there is a response to pass on.
///
/// # Errors
/// Why there is none.
pub(super) async fn send(
    call: &Call<'_>,
    mut choice: Choice,
    request: &mut Request<RequestBody>,
    exchange: &mut Exchange,
    mut clock: Option<&mut Clock>,
) -> Result<Answer, Reason> {
    let mut seen: Vec<Rc<EndpointState>> = Vec::new();
    loop {
        let done = seen.len() as u32;
        let tried = call.attempt(&choice, request, exchange, clock.as_deref_mut(), done);
        let Tried { outcome, again } = tried.await;
        let Some((failed, again)) = again else { return outcome };
        if !again.is_usable() || !retry::again(call.retry(), failed, request.method(), done) {
            return outcome;
        }
        seen.push(Rc::clone(&choice.endpoint));
        let wait = retry::backoff(call.retry(), failed, done, fastrand::u64(..));
        let in_time = clock.as_ref().is_none_or(|clock| clock.allows(wait));
        let Some(next) = call.elsewhere(&choice, &seen).filter(|_| in_time) else { return outcome };
        if !call.table.may_retry(call.worker) {
            return outcome;
        }
        if !again.restore(request) {
            return outcome;
        }
        drop(outcome);
        if !wait.is_zero() {
            sleep(wait).await;
        }
        exchange.retried();
        choice = next;
    }
}

impl Again {
    fn is_usable(&self) -> bool {
        match self {
            Self::Unsent => true,
            Self::Spare(spare) => spare.is_usable(),
        }
    }

    /// Makes the request whole. False: part of it is gone.
    fn restore(self, request: &mut Request<RequestBody>) -> bool {
        match self {
            Self::Unsent => true,
            Self::Spare(spare) => spare.restore(request.body_mut()),
        }
    }
}

impl Call<'_> {
    fn retry(&self) -> Option<&Retry> {
        self.plan.and_then(|plan| plan.retry.as_ref())
    }

    /// The next endpoint: one that was not tried yet; the same once more only where retries are configured.
    fn elsewhere(&self, failed: &Choice, seen: &[Rc<EndpointState>]) -> Option<Choice> {
        self.table.another(self.rule, failed, seen, self.source, self.seen, self.retry().is_some())
    }

    async fn attempt(
        &self,
        choice: &Choice,
        request: &mut Request<RequestBody>,
        exchange: &mut Exchange,
        mut clock: Option<&mut Clock>,
        retries: u32,
    ) -> Tried {
        let secured = choice.endpoint.endpoint.identity.is_some();
        let epoch = match secured {
            true => match self.worker.wait_for_tls().await {
                Ok(epoch) => Some(epoch),
                Err(reason) => return Tried::last(Err(reason)),
            },
            false => None,
        };
        let declared = choice.endpoint.endpoint.protocol;
        let wire = wire(self.worker, declared, self.seen, secured, self.upgrade);
        if let Err(reason) = authority::write_for(request, wire) {
            return Tried::last(Err(reason));
        }
        exchange.hold(Held::Nothing);
        if let Some(circuit) = &choice.circuit {
            match circuit.take(Kind::Requests) {
                Ok(None) => {}
                Ok(Some(counted)) => exchange.hold(Held::Circuit { _counted: counted }),
                Err(reason) => return Tried::last(Err(reason)),
            }
        }
        // What could go nowhere else is not kept.
        let repeatable = !self.upgrade && (self.retry().is_some() || !choice.alone);
        let spare = if repeatable { Spare::of(request.body_mut()) } else { None };
        exchange.on_edge(&choice.edge);
        exchange.sent_to(choice.endpoint.upstream.address());
        if let Some(clock) = &mut clock {
            clock.tell(request.headers_mut(), self.grpc, secured);
        }
        let timeouts = self.plan.map(|plan| plan.timeouts).unwrap_or_default();
        let trial = timeouts.per_try.map(|time| Instant::now() + time);
        let terms = Terms {
            epoch: epoch.as_deref(),
            connect: timeouts.connect,
            circuit: choice.circuit.as_deref(),
            keep_head: spare.is_some(),
        };
        let mut flight = Flight::start(&choice.endpoint);
        let sent = within(clock, trial, choice.endpoint.upstream.send(wire, &terms, request)).await;
        let (mut response, mut lease) = match sent {
            Ok(Ok(answered)) => answered,
            Ok(Err(failure)) => {
                flight.failed();
                return Tried::broken(&failure, spare);
            }
            Err(expired) => {
                flight.failed();
                return Tried::expired(expired, spare);
            }
        };
        // Only a proxy of the mesh can have said it: it strips what its application says in the mesh's name.
        let reason = if secured { headers::take_reason(response.headers()) } else { None };
        // An error is quickly made; it must not look like a quick answer.
        if reason.is_some_and(|reason| reason.http_status().is_server_error()) {
            flight.failed();
        } else if response.status().is_server_error() {
            flight.answered_badly();
        } else {
            flight.answered();
        }
        if let Some(cookie) = &choice.cookie {
            response.headers_mut().append(SET_COOKIE, cookie.clone());
        }
        lease.flight = Some(flight);
        if lease.fresh {
            choice.edge.connection();
        }
        let unprocessed = secured && headers::is_unprocessed(response.headers());
        let failed =
            spare.is_some().then(|| self.dislikes(&response, reason, unprocessed, request.method(), retries));
        let again = failed.flatten().and_then(|failed| Some((failed, Again::Spare(spare?))));
        Tried { outcome: Ok(Answer { response, lease, reason, backend: choice.backend }), again }
    }

    /// What of a response makes it one to try again after.
    fn dislikes(
        &self,
        response: &Response<Incoming>,
        reason: Option<Reason>,
        unprocessed: bool,
        method: &Method,
        retries: u32,
    ) -> Option<Failed> {
        let retry = self.retry();
        let broken = match reason {
            Some(Reason::UpstreamReset) => Some(Failed::Reset),
            Some(Reason::RequestTimeout) => Some(Failed::Timeout),
            _ => None,
        };
        let status = || match headers::is_grpc(response.headers()) {
            true => headers::grpc_status(response.headers()).filter(|status| *status > 0).map(Failed::Grpc),
            false => Some(Failed::Status(response.status().as_u16())),
        };
        let all =
            [unprocessed.then_some(Failed::Unprocessed), retry.and(broken), retry.and_then(|_| status())];
        all.into_iter().flatten().find(|failed| retry::again(retry, *failed, method, retries))
    }
}

/// How a request travels: what the application speaks there decides; where that is not declared, what the caller
/// speaks. What becomes a connection of its own (`bare`) needs one.
pub(super) fn wire(worker: &Worker, declared: Protocol, seen: Protocol, secured: bool, bare: bool) -> Wire {
    let http1 = match declared {
        Protocol::Http1 => true,
        Protocol::Http2 | Protocol::Grpc => false,
        Protocol::Undeclared | Protocol::Opaque => seen == Protocol::Http1,
    };
    match http1 {
        false => Wire::H2,
        true if bare || !secured => Wire::H1,
        // Frames of HTTP/2 stay frames; the peer's proxy writes them to HTTP/1.
        true if seen == Protocol::Http2 => Wire::H1OverH2,
        true => match worker.config.http1_transport {
            Http1Transport::H1 => Wire::H1,
            Http1Transport::H1OverH2 => Wire::H1OverH2,
        },
    }
}

impl Tried {
    fn last(outcome: Result<Answer, Reason>) -> Self {
        Self { outcome, again: None }
    }

    /// The endpoint gave no response.
    fn broken(failure: &Failure, spare: Option<Spare>) -> Self {
        let Failure { reason, unsent, refused } = *failure;
        let failed = match reason {
            // That it is full is no reason to fill others.
            Reason::CircuitOpen => None,
            _ if unsent => Some(Failed::Unconnected),
            _ if refused => Some(Failed::Unprocessed),
            Reason::UpstreamReset | Reason::UpstreamProtocolError | Reason::PeerNotTrusted => {
                Some(Failed::Reset)
            }
            _ => None,
        };
        let how = if unsent { Some(Again::Unsent) } else { spare.map(Again::Spare) };
        let again = failed.zip(how);
        Self { outcome: Err(reason), again }
    }

    /// A limit of time was reached. After that of the whole there is no time for another try.
    fn expired(expired: Expired, spare: Option<Spare>) -> Self {
        let again = match expired {
            Expired::Whole => None,
            Expired::Try => spare.map(|spare| (Failed::Timeout, Again::Spare(spare))),
        };
        Self { outcome: Err(Reason::RequestTimeout), again }
    }
}

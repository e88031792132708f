//! One request, from the choice of its rule to its response.

use std::{rc::Rc, sync::Arc, time::Instant};

use http::{HeaderValue, Method, Request, Response, StatusCode};
use mesh_core::{
    edge::Direction,
    protocol::Protocol,
    reason::Reason,
    route::RouteRule,
    settings::{Abort, Fault, Timeouts},
};
use tokio::time::sleep;

use super::{
    Caller,
    attempt::{Answer, Call, send},
    filters::{self, Filtered},
    mirror,
};
use crate::{
    balance::Affinity,
    http::{
        authority,
        body::{RequestBody, ResponseBody},
        clock::{self, Clock, within},
        exchange::Exchange,
        h1::{OnUpgrade, switches},
        headers::{self, MESH_REASON},
        reply::{Audience, Refusal, refuse},
        upgrade,
    },
    outbound::{
        plan::Plan,
        table::{Choice, Kind, Nowhere, Table},
    },
    worker::{Open, Worker},
};

pub(super) async fn forward(
    caller: &Caller,
    table: &Table,
    request: &mut Request<RequestBody>,
    seen: Protocol,
    to: Audience,
) -> Response<ResponseBody> {
    let worker = &caller.worker;
    if let Kind::Unknown(text) = table.kind() {
        let exchange = caller.begin(table.edge(seen), request);
        // Names of objects are for logs and meshctl; the response has the code and what to do.
        tracing::info!(detail = text, "unknown destination");
        return refuse(exchange, Reason::UnknownDestination, "", to);
    }
    let version = request.version();
    let connect = request.method() == Method::CONNECT;
    // Before anything is decided: what is decided on is what is sent.
    let stripped = headers::strip_any(request.headers_mut(), version, connect);
    let rule = match route(table, request, seen) {
        Ok(rule) => rule,
        Err(nowhere) => {
            let exchange = caller.begin(nowhere.edge, request);
            return refuse(exchange, nowhere.reason, "", to);
        }
    };
    let choice = {
        let source = Some(caller.peer.ip());
        let call = Affinity { headers: Some(request.headers()), source, hash: None };
        table.pick(rule, call, seen, &[])
    };
    let edge = match &choice {
        Ok(choice) => Arc::clone(&choice.edge),
        Err(nowhere) => Arc::clone(&nowhere.edge),
    };
    let mut exchange = caller.begin(edge, request);
    let plan = table.plan(rule);
    let mut shaped = Shaped::default();
    if plan.is_some() || to.grpc {
        let shaping = Shaping { plan, rule: table.route(rule), choice: choice.as_ref().ok(), to };
        if let Err(answer) = shaping.shape(request, &mut exchange, &mut shaped).await {
            return answer.into_response(exchange, to);
        }
    }
    let choice = match choice {
        Ok(choice) => choice,
        Err(nowhere) => return refuse(exchange, nowhere.reason, "", to),
    };
    let asked = stripped.upgrade.then(|| upgrade::requested(request));
    request.body_mut().count_for(&mut exchange);
    if let Some(rule) = plan.filter(|plan| plan.mirrors && asked.is_none()).and_then(|_| table.route(rule)) {
        for filters in rule.filters_towards(Some(choice.backend)) {
            mirror::copy(worker, table, filters, request, caller.peer.ip(), seen);
        }
    }
    table.count(exchange.started());
    let source = caller.peer.ip();
    let call = Call { worker, table, rule, plan, source, seen, upgrade: asked.is_some(), grpc: to.grpc };
    match send(&call, choice, request, &mut exchange, shaped.clock.as_deref_mut()).await {
        Ok(answer) => {
            let timeouts = || plan.map(|plan| plan.timeouts).unwrap_or_default();
            let asked = asked.map(|caller| Asked { caller, connect, worker, timeouts: timeouts() });
            let rule = plan.filter(|plan| plan.filters).and_then(|_| table.route(rule));
            respond(answer, asked, exchange, shaped, rule)
        }
        Err(reason) => refuse(exchange, reason, "", to),
    }
}

/// Finds the rule of a request, in the one reading of its path when a route looks at paths.
fn route(table: &Table, request: &mut Request<RequestBody>, seen: Protocol) -> Result<usize, Box<Nowhere>> {
    // CONNECT has no path: it follows rules that want none, or every one.
    if table.looks_at_paths() && request.method() != Method::CONNECT {
        let ambiguous = |reason| Box::new(Nowhere { reason, edge: table.edge(seen) });
        authority::normalise_path(request.uri_mut()).map_err(ambiguous)?;
    }
    let parts = authority::parts(request.method(), request.uri(), request.headers());
    table.rule(Some(&parts), seen)
}

/// What is configured for a request, as far as it matters later.
#[derive(Default)]
struct Shaped {
    clock: Option<Box<Clock>>,
    filtered: Filtered,
}

/// An answer that comes without a backend.
enum Early {
    Given(Box<filters::Given>),
    Refused(Refusal<'static>),
}

impl Early {
    fn into_response(self, exchange: Exchange, to: Audience) -> Response<ResponseBody> {
        match self {
            Self::Given(given) => given.into_response(exchange, to),
            Self::Refused(refusal) => refusal.respond(exchange, to),
        }
    }
}

impl From<Reason> for Early {
    fn from(reason: Reason) -> Self {
        Self::Refused(Refusal::of(reason))
    }
}

/// What is done to a request before it is sent.
struct Shaping<'a> {
    plan: Option<&'a Plan>,
    rule: Option<&'a RouteRule>,
    choice: Option<&'a Choice>,
    to: Audience,
}

impl Shaping<'_> {
    async fn shape(
        &self,
        request: &mut Request<RequestBody>,
        exchange: &mut Exchange,
        shaped: &mut Shaped,
    ) -> Result<(), Early> {
        self.limit(request, exchange, shaped);
        let Some(plan) = self.plan else { return Ok(()) };
        if plan.filters {
            self.filter(request, shaped)?;
        }
        match &plan.fault {
            Some(fault) => Box::pin(inject(fault, shaped.clock.as_deref_mut())).await,
            None => Ok(()),
        }
    }

    /// Starts a clock where there is a limit.
    fn limit(&self, request: &Request<RequestBody>, exchange: &mut Exchange, shaped: &mut Shaped) {
        let timeouts = self.plan.map(|plan| plan.timeouts).unwrap_or_default();
        let given = if self.to.grpc { clock::of_grpc(request.headers()) } else { None };
        let whole = [timeouts.request, timeouts.stream, given].into_iter().flatten().min();
        if whole.is_none() && timeouts.idle.is_none() && timeouts.per_try.is_none() {
            return;
        }
        let now = Instant::now();
        let mut clock = Clock::until(whole.map(|time| exchange.started() + time), now);
        if let Some(idle) = timeouts.idle {
            clock.idle(idle, exchange.request_progress(), now);
        }
        shaped.clock = Some(Box::new(clock));
    }

    fn filter(&self, request: &mut Request<RequestBody>, shaped: &mut Shaped) -> Result<(), Early> {
        let Some(rule) = self.rule else { return Ok(()) };
        for filters in rule.filters_towards(self.choice.map(|choice| choice.backend)) {
            if let Some(given) = filters::request(rule, filters, request, &mut shaped.filtered)? {
                return Err(Early::Given(Box::new(given)));
            }
        }
        Ok(())
    }
}

/// Delays or aborts a call, where chance wants it.
async fn inject(fault: &Fault, clock: Option<&mut Clock>) -> Result<(), Early> {
    if let Some((share, delay)) = fault.delay
        && share.takes(fastrand::u64(..))
        && within(clock, None, sleep(delay)).await.is_err()
    {
        return Err(Reason::RequestTimeout.into());
    }
    let Some((share, abort)) = fault.abort else { return Ok(()) };
    if !share.takes(fastrand::u64(..)) {
        return Ok(());
    }
    let injected = Refusal::of(Reason::FaultInjected);
    Err(Early::Refused(match abort {
        Abort::Http(status) => Refusal { status: StatusCode::from_u16(status).ok(), ..injected },
        Abort::Grpc(status) => Refusal { grpc: Some(u16::from(status)), ..injected },
    }))
}

/// A request for an upgrade, or for a tunnel through the application.
struct Asked<'a> {
    caller: OnUpgrade,
    connect: bool,
    worker: &'a Rc<Worker>,
    timeouts: Timeouts,
}

fn respond(
    answer: Answer,
    asked: Option<Asked<'_>>,
    mut exchange: Exchange,
    shaped: Shaped,
    filtered_by: Option<&RouteRule>,
) -> Response<ResponseBody> {
    let Answer { mut response, lease, reason, backend } = answer;
    let version = response.version();
    let connect = asked.as_ref().is_some_and(|asked| asked.connect);
    let stripped = headers::strip_any(response.headers_mut(), version, connect);
    exchange.head(response.status(), response.headers());
    if let Some(reason) = reason {
        exchange.because(reason);
        response.headers_mut().insert(MESH_REASON, HeaderValue::from_static(reason.code()));
    }
    if let Some(rule) = filtered_by {
        for filters in rule.filters_towards(Some(backend)) {
            filters::response(filters, &shaped.filtered, response.headers_mut());
        }
    }
    match asked {
        Some(Asked { caller, worker, timeouts, .. })
            if switches(connect, response.status()) && stripped.upgrade =>
        {
            let open = Open::count(worker, Direction::Outbound);
            // Policy is the other side's.
            upgrade::join(caller, response, lease, exchange, open, timeouts, std::future::pending())
        }
        _ => response.map(|body| ResponseBody::upstream(body, lease, exchange, shaped.clock)),
    }
}

//! CONNECT of an application that knows its proxy (RFC 9110 section 9.3.6): a connection for bytes to any host that requests
//! could go to, as to a declared upstream.

use std::rc::Rc;

use http::{Request, Response};
use mesh_core::{addr::PeerAddr, edge::Direction, protocol::Protocol, reason::Reason};

use super::{Caller, Refusal};
use crate::{
    http::{
        body::{RequestBody, ResponseBody},
        exchange::Exchange,
        reply::{Audience, refuse},
        upgrade::{self, Tunnel},
    },
    outbound::tcp::{self, Connected},
    worker::Open,
};

/// Answers 200 once the connection stands, and carries what the caller sent behind the head, and all that follows.
pub(super) async fn open(caller: Rc<Caller>, request: Request<RequestBody>) -> Response<ResponseBody> {
    let worker = &caller.worker;
    let asked = upgrade::requested(&request);
    let mut exchange = caller.begin(worker.bare_edge(Direction::Outbound, Protocol::Opaque), &request);
    let connected = match connect(&caller, &request, &mut exchange).await {
        Ok(connected) => connected,
        Err(refusal) => {
            // Never as gRPC: that would look like success.
            let to = Audience { trusted: true, grpc: false };
            return refuse(exchange, refusal.reason, &refusal.detail, to);
        }
    };
    let Connected { stream, edge, address, timeouts, held } = connected;
    edge.connection();
    exchange.on_edge(&edge);
    exchange.sent_to(address);
    let response = Response::new(ResponseBody::none());
    exchange.head(response.status(), response.headers());
    let held = (held, Open::count(worker, Direction::Outbound));
    // Policy is the other side's.
    let revoked = std::future::pending();
    Tunnel::new(exchange, Some(Reason::UpstreamReset), held).spawn(asked, Some(stream), timeouts, revoked);
    response
}

async fn connect(
    caller: &Caller,
    request: &Request<RequestBody>,
    exchange: &mut Exchange,
) -> Result<Connected, Refusal> {
    let destination = caller.destination(request)?;
    let table = destination.table(&caller.worker).await?;
    tcp::connect(&caller.worker, &table, PeerAddr(caller.peer)).await.map_err(|refused| {
        let (reason, edge, address) = *refused;
        exchange.on_edge(&edge);
        if let Some(address) = address {
            exchange.sent_to(address);
        }
        reason.into()
    })
}

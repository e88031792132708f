//! Active health checks: each worker asks the endpoints that it uses, in the mesh's own way, with mesh TLS where they have
//! an identity. A check makes its own connection, so that it sees what a new call would see.

use std::{
    future::poll_fn,
    rc::{Rc, Weak},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::TokioIo;
use mesh_core::{
    balance::health::Checked,
    protocol::{MeshAlpn, Protocol},
    settings::{HealthCheck, HealthKind},
};
use tokio::{
    io::AsyncReadExt as _,
    task::AbortHandle,
    time::{sleep, timeout},
};

use super::EndpointState;
use crate::{
    http::{
        LocalExecutor,
        grpc_health::{is_serving, question},
    },
    net::Stream,
    pool::Terms,
    telemetry::LeftOut,
    worker::Worker,
};

/// Longest answer of a gRPC health check that is read, in bytes.
const MAX_ANSWER: usize = 4096;
/// How long an accepted TCP connection must stand where the peer's proxy does not say that it has reached the application.
/// Half the time for an answer, where that is less.
const STAND: Duration = Duration::from_millis(200);

/// A task that checks one endpoint; dropped, it ends.
pub(super) struct Running {
    settings: HealthCheck,
    task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Has an endpoint checked as `settings` say. Of several Services that lead to it the last that said so counts.
pub(super) fn follow(worker: &Rc<Worker>, endpoint: &Rc<EndpointState>, settings: Option<&HealthCheck>) {
    let Some(settings) = settings else { return };
    let mut running = endpoint.check.borrow_mut();
    if running.as_ref().is_some_and(|running| running.settings == *settings) {
        return;
    }
    if !endpoint.healthy.replace(true) {
        endpoint.changed(None);
    }
    let (worker, weak) = (Rc::downgrade(worker), Rc::downgrade(endpoint));
    let task = tokio::task::spawn_local(check(worker, weak, settings.clone())).abort_handle();
    *running = Some(Running { settings: settings.clone(), task });
}

async fn check(worker: Weak<Worker>, endpoint: Weak<EndpointState>, settings: HealthCheck) {
    let mut checked = Checked::default();
    // Not all at once: many endpoints may have become known together.
    sleep(settings.interval.mul_f64(fastrand::f64() * 0.5)).await;
    loop {
        let (Some(worker), Some(state)) = (worker.upgrade(), endpoint.upgrade()) else { return };
        let good = timeout(settings.timeout, ask(&worker, &state, &settings)).await.unwrap_or(false);
        if checked.count(good, &settings) {
            let (workload, address) = (&state.endpoint.workload, &state.endpoint.address);
            tracing::info!(%workload, %address, healthy = good, "endpoint changed by its health checks");
            state.healthy.set(good);
            if good {
                state.since.set(state.now());
            }
            state.changed((!good).then_some(LeftOut::Checks));
        }
        drop((worker, state));
        sleep(settings.interval.mul_f64(0.9 + fastrand::f64() * 0.2)).await;
    }
}

async fn ask(worker: &Worker, endpoint: &EndpointState, settings: &HealthCheck) -> bool {
    let good = match &settings.kind {
        HealthKind::Tcp => match connect(worker, endpoint, MeshAlpn::TcpTold).await {
            Some(Stream::Told(mut told)) => poll_fn(|cx| told.poll_taken(cx)).await.ok().map(|()| true),
            Some(stream) => Some(stands(stream, STAND.min(settings.timeout / 2)).await),
            None => None,
        },
        HealthKind::Http(path) => get(worker, endpoint, path).await,
        HealthKind::Grpc(service) => grpc(worker, endpoint, service).await,
    };
    good.unwrap_or(false)
}

async fn connect(worker: &Worker, endpoint: &EndpointState, alpn: MeshAlpn) -> Option<Stream> {
    let epoch = match endpoint.endpoint.identity {
        Some(_) => Some(worker.tls()?),
        None => None,
    };
    endpoint.upstream.connect(alpn, &Terms::usual(epoch.as_deref())).await.ok()
}

/// True when the other side does not close within this time.
async fn stands(mut stream: Stream, within: Duration) -> bool {
    let mut byte = [0];
    !matches!(timeout(within, stream.read(&mut byte)).await, Ok(Ok(0) | Err(_)))
}

async fn get(worker: &Worker, endpoint: &EndpointState, path: &str) -> Option<bool> {
    let http2 = match endpoint.endpoint.protocol {
        Protocol::Http2 | Protocol::Grpc => true,
        Protocol::Http1 | Protocol::Undeclared | Protocol::Opaque => false,
    };
    let authority = endpoint.endpoint.address.to_string();
    let uri = if http2 { format!("http://{authority}{path}") } else { path.to_owned() };
    let mut request = Request::get(uri).header("user-agent", "mesh-health-check");
    if !http2 {
        request = request.header("host", authority).header("connection", "close");
    }
    let response = send(worker, endpoint, request.body(Full::default()).ok()?, http2).await?;
    Some(matches!(response.status().as_u16(), 200..400))
}

/// `grpc.health.v1.Health/Check` (grpc/doc/health-checking.md).
async fn grpc(worker: &Worker, endpoint: &EndpointState, service: &str) -> Option<bool> {
    let uri = format!("http://{}/grpc.health.v1.Health/Check", endpoint.endpoint.address);
    let request = Request::post(uri).header(CONTENT_TYPE, "application/grpc").header("te", "trailers");
    let response = send(worker, endpoint, request.body(Full::new(question(service)?)).ok()?, true).await?;
    let answer = Limited::new(response.into_body(), MAX_ANSWER).collect().await.ok()?.to_bytes();
    Some(is_serving(&answer))
}

async fn send(
    worker: &Worker,
    endpoint: &EndpointState,
    request: Request<Full<Bytes>>,
    http2: bool,
) -> Option<Response<Incoming>> {
    let stream = connect(worker, endpoint, if http2 { MeshAlpn::H2 } else { MeshAlpn::H1 }).await?;
    let io = TokioIo::new(stream);
    // The connection ends with this future: the answer's head (or its short body) is all that is waited for.
    if http2 {
        let (mut sender, connection) = http2::handshake(LocalExecutor, io).await.ok()?;
        tokio::task::spawn_local(async move { drop(connection.await) });
        sender.send_request(request).await.ok()
    } else {
        let (mut sender, connection) = http1::handshake(io).await.ok()?;
        tokio::task::spawn_local(async move { drop(connection.await) });
        sender.send_request(request).await.ok()
    }
}

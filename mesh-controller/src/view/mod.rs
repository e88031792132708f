//! The view API: what people's tools read, plaintext HTTP/2 on loopback, behind a token.

mod guard;
mod service;

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use mesh_proto::view::v1::view_server::ViewServer;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::timeout,
};
use tonic::{Status, body::Body};
use tower::Service;

use self::{guard::Guard, service::ViewService};
use crate::{
    app::stopped,
    grpc::{Shared, http2_server},
};

/// Most connections at a time.
const MAX_CONNECTIONS: usize = 64;
/// Most calls at a time on one connection.
const MAX_STREAMS: u32 = 16;
/// Time for one call.
const CALL: Duration = Duration::from_secs(30);
/// Time that connections get to end when the controller stops.
const DRAIN: Duration = Duration::from_secs(1);

/// Serves until `stop` turns true.
pub(crate) async fn run(
    listener: TcpListener,
    shared: Arc<Shared>,
    token: String,
    mut stop: watch::Receiver<bool>,
) {
    let guard = Arc::new(Guard::new(&token));
    let view = ViewServer::new(ViewService::new(Arc::clone(&shared))).max_decoding_message_size(64 * 1024);
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut stop) => break,
        };
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
        let (guard, view, shared, stop) =
            (Arc::clone(&guard), view.clone(), Arc::clone(&shared), stop.clone());
        connections.spawn(async move {
            connection(stream, &guard, &view, &shared, stop).await;
            drop(slot);
        });
    }
    let _ = timeout(DRAIN, async { while connections.join_next().await.is_some() {} }).await;
}

async fn connection(
    stream: TcpStream,
    guard: &Arc<Guard>,
    view: &ViewServer<ViewService>,
    shared: &Arc<Shared>,
    mut stop: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request: Request<Incoming>| {
        let (guard, mut view, shared) = (Arc::clone(guard), view.clone(), Arc::clone(shared));
        async move {
            let answer: Response<Body> = match guard.check(request.uri(), request.headers()) {
                Err(status) => status.into_http(),
                Ok(()) => match timeout(CALL, view.call(request)).await {
                    Ok(answer) => answer?,
                    Err(_) => Status::deadline_exceeded("the answer took too long").into_http(),
                },
            };
            if let Some(status) = answer.extensions().get::<Status>() {
                shared.metrics.refusal("View", status.code());
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http2_server(MAX_STREAMS).serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            timeout(DRAIN, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "view connection ended");
    }
}

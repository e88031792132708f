//! `discovery.v1`: one stream per proxy; full state for what it subscribes to, then what changes.

mod closure;
mod session;

use std::{sync::Arc, time::Duration};

use mesh_proto::discovery::v1::{
    Hello, WatchRequest, WatchResponse, discovery_server::Discovery, watch_request::Kind,
};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use self::session::Session;
use super::{Shared, peer::Peer};

/// Most responses that a proxy has not answered yet.
const MAX_IN_FLIGHT: usize = 4;
/// Time for the first message.
const HELLO: Duration = Duration::from_secs(10);

/// The service.
pub(super) struct DiscoveryService {
    shared: Arc<Shared>,
    stop: watch::Receiver<bool>,
}

impl DiscoveryService {
    pub(super) fn new(shared: Arc<Shared>, stop: watch::Receiver<bool>) -> Self {
        Self { shared, stop }
    }
}

#[tonic::async_trait]
impl Discovery for DiscoveryService {
    type WatchStream = ReceiverStream<Result<WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let peer = request.extensions().get::<Peer>().and_then(|peer| peer.identity.clone());
        let peer = peer.ok_or_else(|| Status::unauthenticated("this call needs a client certificate"))?;
        let mut requests = request.into_inner();
        // Room for all that is in flight and the status at the end, so that sending never waits.
        let (out, responses) = mpsc::channel(MAX_IN_FLIGHT + 1);
        let (shared, stop) = (Arc::clone(&self.shared), self.stop.clone());
        // The answer begins at once: a client may wait for it before it says Hello.
        tokio::spawn(async move {
            let ended = async {
                let hello = first_message(&mut requests).await?;
                let session = Session::open(Arc::clone(&shared), &peer, hello, out.clone())?;
                session.run(requests, stop).await
            };
            if let Err(status) = ended.await {
                shared.metrics.refusal("Watch", status.code());
                tracing::debug!(identity = %peer.id, code = ?status.code(), message = status.message(), "stream ended");
                let _ = out.try_send(Err(status));
            }
        });
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

async fn first_message(requests: &mut Streaming<WatchRequest>) -> Result<Hello, Status> {
    let first = timeout(HELLO, requests.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no Hello came in time"))??;
    match first.and_then(|message| message.kind) {
        Some(Kind::Hello(hello)) => Ok(hello),
        _ => Err(Status::invalid_argument("the first message of a stream is Hello")),
    }
}

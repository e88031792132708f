//! What the API server asks before it takes an object: HTTPS, AdmissionReview (admission.k8s.io/v1).
//!
//! ```text
//! accept ─▶ tls (the mesh's own certificate) ─▶ /inject   ─▶ inject   (pods: a patch, a warning, or a refusal)
//!                                               /validate ─▶ validate (our own kinds: as the source would read them)
//! ```
//! *Invariants:* nobody is trusted: what asks gets an opinion on what it sent, and nothing of the mesh; a pod is never let
//! in half changed; garbage is answered, and never more than it costs to read it.

mod events;
mod inject;
mod review;
#[cfg(test)]
mod tests;
mod tls;
mod validate;

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use mesh_core::ports;
use mesh_k8s::names::CONTROLLER;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use self::{
    inject::{Defaults, Injector},
    review::Review,
    tls::Serving,
};
use crate::{
    app::stopped,
    ca::Ca,
    config::Config,
    gate::{Gate, Requests},
    kubernetes::{Bundles, Cluster},
    metrics::Metrics,
};

/// Most connections at a time.
const MAX_CONNECTIONS: usize = 256;
/// Most of these of one address; the API server has few, and many requests on each.
const MAX_OF_ONE: usize = 16;
/// Most requests at a time on one connection.
const MAX_STREAMS: u32 = 64;
/// Largest request: an object of Kubernetes has at most 1.5 MB, and an update comes with the old one.
const MAX_BODY: usize = 3 << 20;
/// Time for TLS to stand.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Time for the head of a request, and life of a connection that has none.
const IDLE: Duration = Duration::from_secs(60);
/// Time for a request's body to arrive.
const BODY: Duration = Duration::from_secs(5);
/// Time for an answer: less than the API server waits.
const ANSWER: Duration = Duration::from_secs(8);
/// Time that connections get to end when the controller stops.
const DRAIN: Duration = Duration::from_secs(2);

/// Why there is no webhook.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The file with the defaults cannot be read.
    #[error("--inject-config {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It does not say what it should.
    #[error("--inject-config {}: {why}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// There is no certificate to serve with.
    #[error("the webhook's certificate cannot be made: {0}")]
    Certificate(String),
    /// TLS refused.
    #[error("the webhook's TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Answers the API server.
pub(crate) struct Webhook {
    serving: Serving,
    injector: Injector,
    gate: Arc<Gate>,
    idle: Duration,
    metrics: Metrics,
}

/// Which of them is asked.
#[derive(Clone, Copy, Debug)]
enum Which {
    Inject,
    Validate,
}

impl Which {
    fn of_path(path: &str) -> Option<Self> {
        match path {
            "/inject" => Some(Self::Inject),
            "/validate" => Some(Self::Validate),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Inject => "inject",
            Self::Validate => "validate",
        }
    }
}

impl Webhook {
    /// A webhook for the cluster that the controller is in.
    ///
    /// # Errors
    /// [`WebhookError`].
    pub(crate) fn open(
        config: &Config,
        cluster: &Cluster,
        ca: Arc<Ca>,
        bundles: Arc<Bundles>,
        metrics: &Metrics,
    ) -> Result<Self, WebhookError> {
        let service = format!("{CONTROLLER}.{}.svc", cluster.namespace);
        let full = format!("{service}.{}", config.cluster_domain);
        let otherwise = mesh_k8s::inject::Config {
            controller: format!("{full}:{}", ports::CONTROL),
            trust_domain: config.trust_domain.as_str().to_owned(),
            cluster_domain: config.cluster_domain.clone(),
            ..mesh_k8s::inject::Config::default()
        };
        let defaults = Defaults::open(config.inject_config.clone(), otherwise)?;
        let serving = Serving::new(ca, vec![service, full])?;
        Ok(Self::new(serving, Injector::new(defaults, cluster.client.clone(), bundles), metrics))
    }

    /// A webhook that serves with what `serving` has and injects as `injector` says.
    pub(crate) fn new(serving: Serving, injector: Injector, metrics: &Metrics) -> Self {
        let gate = Gate::new(("webhook", "too_many"), MAX_CONNECTIONS, MAX_OF_ONE, metrics);
        Self { serving, injector, gate, idle: IDLE, metrics: metrics.clone() }
    }

    /// Serves until `stop` turns true.
    pub(crate) async fn run(self: Arc<Self>, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        let renewing = Arc::clone(&self);
        let mut renewal = JoinSet::new();
        renewal.spawn(async move { renewing.serving.keep_fresh().await });
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stopped(&mut stop) => break,
                // Without it the certificate expires. That this ends is noticed.
                ended = renewal.join_next() => {
                    tracing::error!(?ended, "the webhook's certificate is not renewed any more");
                    break;
                }
            };
            while connections.try_join_next().is_some() {}
            let Ok((stream, peer)) = accepted else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let Some(place) = self.gate.enter(peer) else { continue };
            let (webhook, stop) = (Arc::clone(&self), stop.clone());
            connections.spawn(async move {
                webhook.connection(stream, peer, stop).await;
                drop(place);
            });
        }
        let _ended = timeout(DRAIN, async { while connections.join_next().await.is_some() {} }).await;
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        mut stop: watch::Receiver<bool>,
    ) {
        let _ = stream.set_nodelay(true);
        let acceptor = TlsAcceptor::from(self.serving.current());
        let stream = match timeout(HANDSHAKE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "webhook: no TLS"),
            Err(_) => return tracing::debug!("webhook: no TLS in time"),
        };
        let requests = Requests::default();
        let service = service_fn(|request: Request<Incoming>| {
            let (webhook, under_way) = (Arc::clone(&self), requests.begin());
            async move {
                let answer = webhook.answer(request, peer.ip()).await;
                drop(under_way);
                Ok::<_, Infallible>(answer)
            }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(self.idle).max_buf_size(32 * 1024);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .keep_alive_interval(self.idle)
            .max_header_list_size(32 * 1024);
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = async { tokio::select! { () = requests.idle(self.idle) => {} () = stopped(&mut stop) => {} } } => {
                connection.as_mut().graceful_shutdown();
                timeout(DRAIN, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "webhook connection ended");
        }
    }

    async fn answer(&self, request: Request<Incoming>, peer: IpAddr) -> Response<Full<Bytes>> {
        let Some(which) = Which::of_path(request.uri().path()) else {
            return refused(StatusCode::NOT_FOUND, "there are /inject and /validate");
        };
        let begun = Instant::now();
        let (result, response) = self.judge(which, request, peer).await;
        self.metrics.admission(which.name(), result, begun.elapsed());
        response
    }

    /// The answer, and what it comes to.
    async fn judge(
        &self,
        which: Which,
        request: Request<Incoming>,
        peer: IpAddr,
    ) -> (&'static str, Response<Full<Bytes>>) {
        let malformed = |status, why: &str| ("malformed", refused(status, why));
        let (head, body) = request.into_parts();
        if head.method != Method::POST {
            return malformed(StatusCode::METHOD_NOT_ALLOWED, "only POST is answered here");
        }
        let body = match timeout(BODY, Limited::new(body, MAX_BODY).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                return malformed(StatusCode::PAYLOAD_TOO_LARGE, "the request has more than 3 MB");
            }
            Ok(Err(_)) => return malformed(StatusCode::BAD_REQUEST, "the request broke off"),
            Err(_) => return malformed(StatusCode::REQUEST_TIMEOUT, "the request did not arrive in time"),
        };
        let request = match Review::read(&body) {
            Ok(request) => request,
            Err(why) => return malformed(StatusCode::BAD_REQUEST, &why),
        };
        let verdict = match which {
            Which::Inject => timeout(ANSWER, self.injector.judge(&request, peer)).await,
            Which::Validate => Ok(validate::judge(&request)),
        };
        match verdict {
            Ok(verdict) => (verdict.result(), json(&verdict.into_review(&request.uid))),
            Err(_) => {
                let why = "the API server did not answer in time";
                (review::NOT_NOW, refused(StatusCode::SERVICE_UNAVAILABLE, why))
            }
        }
    }
}

fn json(value: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    let kind = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn refused(status: StatusCode, why: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{why}\n"))));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

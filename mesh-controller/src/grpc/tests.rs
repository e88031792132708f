//! The control port in a cluster, whose API server is one of our own: who gets how much.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use hyper_util::rt::TokioIo;
use mesh_core::config::TrustBundle;
use mesh_proto::identity::v1::{CertifyRequest, certify_request::Proof, identity_client::IdentityClient};
use mesh_testkit::{
    net::{PATIENCE, eventually, fresh_ip},
    tls,
};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{Code, transport::Endpoint};

use super::*;
use crate::{
    kubernetes::{Cluster, Reviews, Secrets, fake::Fake},
    source::Source,
};

/// A control port that runs.
struct Rig {
    fake: Arc<Fake>,
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Dropped, it ends.
    _stop: watch::Sender<bool>,
}

fn pod(name: &str, address: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "shop", "uid": format!("u-{name}")},
        "spec": {"serviceAccountName": "cart", "containers": [{"name": "mesh-proxy"}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}})
}

/// What the API server says of a token of a pod.
fn of_pod(name: &str) -> Value {
    let extra = json!({"authentication.kubernetes.io/pod-name": [name],
        "authentication.kubernetes.io/pod-uid": [format!("u-{name}")]});
    let user = json!({"username": "system:serviceaccount:shop:cart", "extra": extra});
    json!({"authenticated": true, "audiences": ["meshctl.dev"], "user": user})
}

impl Rig {
    async fn start() -> Self {
        let fake = Fake::new();
        fake.put("namespaces", json!({"metadata": {"name": "shop"}}));
        fake.put("serviceaccounts", json!({"metadata": {"name": "cart", "namespace": "shop"}}));
        fake.put("pods", pod("cart-1", "192.0.2.1"));
        fake.put("pods", pod("cart-2", "192.0.2.2"));
        let cluster = Cluster {
            client: fake.client(),
            url: "fake".into(),
            namespace: "mesh-system".into(),
            replica: "a".into(),
            noted: Arc::default(),
        };
        let metrics = Metrics::new();
        let trust_domain: TrustDomain = "cluster.local".parse().unwrap();
        let ca = Ca::open_in(Secrets::new(&cluster), "cluster.local", Duration::from_secs(3600));
        let ca = ca.await.unwrap();
        let settings =
            mesh_k8s::Settings { trust_domain: trust_domain.clone(), cluster_domain: "cluster.local".into() };
        let (_, outcome) = Source::of_cluster(&cluster, settings, &metrics).await.unwrap();
        let bundle = TrustBundle { trust_domain: trust_domain.clone(), roots: vec![ca.root().to_vec()] };
        let shared = Arc::new(Shared {
            trust_domain,
            ca: Arc::new(ca),
            proofs: Proofs::Kubernetes(Box::new(Reviews::new(&cluster.client, &metrics))),
            bundles: None,
            publisher: Publisher::new(bundle, outcome),
            proxies: Arc::default(),
            edges: Edges::default(),
            metrics,
            started: Instant::now(),
            source: "fake".into(),
        });
        let stop = watch::Sender::new(false);
        let server = Arc::new(Server::new(Arc::clone(&shared), stop.subscribe()).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(server.run(listener, stop.subscribe()));
        Self { fake, address, shared, _stop: stop }
    }

    /// A connection without certificate. None: it is refused.
    async fn stranger(&self, from: IpAddr) -> Option<TlsStream<TcpStream>> {
        let mut stream = connect(self.address, from).await?;
        // TLS 1.3 stands for the client before it does for the server, which speaks first over HTTP/2.
        let mut byte = [0];
        let heard = timeout(PATIENCE, stream.read(&mut byte)).await.ok()?;
        heard.is_ok_and(|bytes| bytes > 0).then_some(stream)
    }

    fn metric(&self, line: &str) -> bool {
        self.shared.metrics.render().lines().any(|other| other == format!("mesh_controller_{line}"))
    }
}

async fn connect(to: SocketAddr, from: IpAddr) -> Option<TlsStream<TcpStream>> {
    let stream = tcp(to, from).await.ok()?;
    let name = "mesh-controller".try_into().unwrap();
    TlsConnector::from(tls::credulous_client(None, &[b"h2"])).connect(name, stream).await.ok()
}

async fn tcp(to: SocketAddr, from: IpAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect(to).await
}

/// A caller of Certify, and how often each code was answered.
struct Caller(IdentityClient<tonic::transport::Channel>);

impl Caller {
    async fn new(rig: &Rig, from: IpAddr) -> Self {
        let to = rig.address;
        let connect = tower::service_fn(move |_: http::Uri| async move {
            connect(to, from).await.map(TokioIo::new).ok_or_else(|| std::io::Error::other("no TLS"))
        });
        let channel = Endpoint::from_static("http://x").connect_with_connector(connect).await.unwrap();
        Self(IdentityClient::new(channel))
    }

    async fn ask(&mut self, workload: &str) -> Code {
        let key = KeyPair::generate().unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap();
        let token = format!("h.{}.s", BASE64_URL_SAFE_NO_PAD.encode("{\"aud\":[\"meshctl.dev\"]}"));
        let request = CertifyRequest {
            workload: Some(common::WorkloadRef { namespace: "shop".into(), name: workload.into() }),
            csr_der: csr.der().to_vec(),
            proof: Some(Proof::Token(token)),
        };
        self.0.certify(request).await.map_or_else(|status| status.code(), |_| Code::Ok)
    }

    /// How many are answered with this code before another one comes, of so many at most.
    async fn count(&mut self, workload: &str, code: Code, most: usize) -> (usize, Code) {
        for count in 0..most {
            match self.ask(workload).await {
                same if same == code => {}
                other => return (count, other),
            }
        }
        (most, code)
    }
}

#[tokio::test]
async fn one_address_neither_takes_the_places_of_strangers_nor_of_handshakes() {
    let rig = Rig::start().await;
    let (greedy, other) = (fresh_ip(), fresh_ip());
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(rig.stranger(greedy).await.unwrap());
    }
    assert!(rig.stranger(greedy).await.is_none(), "one too many");
    assert!(
        rig.metric("connections_refused_total{port=\"control\",reason=\"too_many_without_certificate\"} 1")
    );
    rig.stranger(other).await.expect("others have their places");
    drop(held);

    let greedy = fresh_ip();
    let mut silent = Vec::new();
    for _ in 0..32 {
        silent.push(tcp(rig.address, greedy).await.unwrap());
    }
    let mut one_more = tcp(rig.address, greedy).await.unwrap();
    let ended = timeout(Duration::from_secs(3), one_more.read(&mut [0])).await;
    assert!(matches!(ended, Ok(Ok(0) | Err(_))), "it stays until its time is over");
    assert!(rig.metric("connections_refused_total{port=\"control\",reason=\"too_many_handshakes\"} 1"));
    rig.stranger(other).await.expect("others go on");
    drop(silent);
    let again = || async { rig.stranger(greedy).await };
    eventually(PATIENCE, "its places are free again", again).await;
}

#[tokio::test]
async fn noise_keeps_the_api_server_busy_only_so_much() {
    let rig = Rig::start().await;
    rig.fake.review(json!({"authenticated": false}));
    let before = rig.fake.writes();
    let mut noisy = Caller::new(&rig, fresh_ip()).await;
    let (asked, then) = noisy.count("cart-1", Code::Unauthenticated, 1000).await;
    assert_eq!(then, Code::ResourceExhausted);
    assert!((120..400).contains(&asked), "{asked}");
    assert_eq!(rig.fake.writes() - before, asked, "the API server is asked about no more");

    rig.fake.review(of_pod("cart-1"));
    let mut honest = Caller::new(&rig, fresh_ip()).await;
    assert_eq!(honest.ask("cart-1").await, Code::Ok);
}

#[tokio::test]
async fn pods_of_one_account_do_not_wait_for_each_other() {
    let rig = Rig::start().await;
    rig.fake.review(of_pod("cart-1"));
    let mut first = Caller::new(&rig, fresh_ip()).await;
    let (got, then) = first.count("cart-1", Code::Ok, 100).await;
    assert_eq!(then, Code::ResourceExhausted, "a pod that asks without end");
    assert!((10..40).contains(&got), "{got}");
    rig.fake.review(of_pod("cart-2"));
    assert_eq!(Caller::new(&rig, fresh_ip()).await.ask("cart-2").await, Code::Ok);
}

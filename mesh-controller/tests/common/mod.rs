//! A controller in this process, and clients that talk to it over real sockets.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use mesh_controller::{Config, Controller, Origin, StartError};
use mesh_proto::{
    common::v1::WorkloadRef,
    discovery::v1::{
        Ack, Hello, KnownResource, Rejected, Subscribe, Unsubscribe, WatchRequest, WatchResponse,
        discovery_client::DiscoveryClient, watch_request::Kind,
    },
    identity::v1::{
        CertifyRequest, CertifyResponse, certify_request::Proof, identity_client::IdentityClient,
    },
};
use mesh_testkit::{ca::Svid, tls};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};

/// A Service, two workloads, two service accounts.
pub const SHOP: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Service
metadata: {name: catalog, namespace: shop}
spec:
  selector: {app: catalog}
  ports: [{name: http, port: 80, targetPort: http, appProtocol: http}]
---
apiVersion: meshctl.dev/v1alpha1
kind: Workload
metadata: {name: catalog-1, namespace: shop, labels: {app: catalog}}
spec:
  serviceAccount: catalog
  address: 127.77.0.1
  ports: [{name: http, port: 8080, appProtocol: http, appAddress: "127.77.0.1:9080"}]
---
apiVersion: meshctl.dev/v1alpha1
kind: Workload
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {serviceAccount: web, address: 127.77.0.2}
"#;

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A Workload behind the Service `catalog`.
pub fn catalog(name: &str, address: &str) -> String {
    format!(
        "apiVersion: meshctl.dev/v1alpha1\nkind: Workload\n\
         metadata: {{name: {name}, namespace: shop, labels: {{app: catalog}}}}\n\
         spec:\n  serviceAccount: catalog\n  address: {address}\n\
         \x20 ports: [{{name: http, port: 8080, appProtocol: http, appAddress: \"{address}:9080\"}}]\n"
    )
}

/// A running controller and its directories.
pub struct Mesh {
    pub dir: TempDir,
    pub controller: Option<Controller>,
}

pub fn config(dir: &Path) -> Config {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    Config {
        source: Origin::Directory(dir.join("source")),
        data_dir: dir.join("data"),
        listen: any,
        view: any,
        health: any,
        trust_domain: "cluster.local".parse().unwrap(),
        cluster_domain: "cluster.local".into(),
        leaf_lifetime: Duration::from_secs(24 * 3600),
        webhook: None,
        inject_config: None,
    }
}

impl Mesh {
    pub async fn start(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("source")).unwrap();
        for (name, text) in files {
            fs::write(dir.path().join("source").join(name), text).unwrap();
        }
        let controller = Controller::start(config(dir.path())).await.unwrap();
        Self { dir, controller: Some(controller) }
    }

    pub async fn restart(&mut self) {
        self.stop().await;
        self.controller = Some(Controller::start(config(self.dir.path())).await.unwrap());
    }

    pub async fn stop(&mut self) {
        if let Some(controller) = self.controller.take() {
            controller.shutdown().await;
        }
    }

    pub async fn second(&self) -> StartError {
        Controller::start(config(self.dir.path())).await.err().expect("a second controller started")
    }

    pub fn addresses(&self) -> mesh_controller::Addresses {
        self.controller.as_ref().unwrap().addresses()
    }

    pub fn data(&self, name: &str) -> PathBuf {
        self.dir.path().join("data").join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join("source").join(name), text).unwrap();
    }

    pub fn token(&self, account: &str) -> String {
        fs::read_to_string(self.data("tokens").join(account)).unwrap()
    }

    /// A channel that presents `svid`. Verification of the server has its own test.
    pub async fn channel(&self, svid: Option<&Svid>) -> Result<Channel, tonic::transport::Error> {
        let (address, config) = (self.addresses().control, tls::credulous_client(svid, &[b"h2"]));
        let connect = tower::service_fn(move |_: http::Uri| {
            let config = config.clone();
            async move { tls::connect(address, "mesh-controller", config).await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://mesh-controller").connect_with_connector(connect).await
    }

    pub async fn certify(
        &self,
        svid: Option<&Svid>,
        request: CertifyRequest,
    ) -> Result<CertifyResponse, Status> {
        let channel = self.channel(svid).await.map_err(|e| Status::unavailable(e.to_string()))?;
        Ok(IdentityClient::new(channel).certify(request).await?.into_inner())
    }

    /// A certificate for a workload, by the token of its service account.
    pub async fn enroll(&self, workload: &str, account: &str) -> Svid {
        let (key, csr) = csr(|_| {});
        let response = self.certify(None, by_token(workload, &self.token(account), csr)).await.unwrap();
        svid(&response, &key)
    }

    /// A certificate that the controller's own issuer signed behind its back.
    pub fn forge(&self, change: impl FnOnce(&mut CertificateParams)) -> Svid {
        let read = |name: &str| fs::read_to_string(self.data("ca").join(name)).unwrap();
        let issuer_key = KeyPair::from_pem(&read("issuer.key")).unwrap();
        let issuer = rcgen::Issuer::from_ca_cert_pem(&read("issuer.pem"), issuer_key).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let leaf = params.signed_by(&key, &issuer).unwrap();
        let issuer_der =
            rustls::pki_types::pem::PemObject::from_pem_slice(read("issuer.pem").as_bytes()).unwrap();
        Svid {
            chain: vec![leaf.der().clone(), issuer_der],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        }
    }
}

pub fn workload(text: &str) -> Option<WorkloadRef> {
    let (namespace, name) = text.split_once('/').unwrap();
    Some(WorkloadRef { namespace: namespace.into(), name: name.into() })
}

pub fn csr(change: impl FnOnce(&mut CertificateParams)) -> (KeyPair, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    change(&mut params);
    let der = params.serialize_request(&key).unwrap().der().to_vec();
    (key, der)
}

pub fn by_token(named: &str, token: &str, csr_der: Vec<u8>) -> CertifyRequest {
    CertifyRequest { workload: workload(named), csr_der, proof: Some(Proof::Token(token.into())) }
}

pub fn svid(response: &CertifyResponse, key: &KeyPair) -> Svid {
    Svid {
        chain: response.chain_der.iter().cloned().map(CertificateDer::from).collect(),
        key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
    }
}

/// A discovery stream, as a proxy holds it.
pub struct Stream {
    out: mpsc::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
}

impl Stream {
    /// Opens a stream as `named`.
    pub async fn open(mesh: &Mesh, svid: &Svid, named: &str, known: &[(String, String)]) -> Self {
        let hello = Hello {
            workload: workload(named),
            proxy_version: "0.1.0".into(),
            instance: "test".into(),
            known: known
                .iter()
                .map(|(name, version)| KnownResource { name: name.clone(), version: version.clone() })
                .collect(),
        };
        let stream = Self::raw(mesh, svid).await;
        stream.say(Kind::Hello(hello)).await;
        stream
    }

    /// A stream on which nothing was said yet.
    pub async fn raw(mesh: &Mesh, svid: &Svid) -> Self {
        let (out, requests) = mpsc::channel(64);
        let mut client = DiscoveryClient::new(mesh.channel(Some(svid)).await.unwrap());
        let responses = client.watch(ReceiverStream::new(requests)).await.unwrap().into_inner();
        Self { out, responses }
    }

    pub async fn say(&self, kind: Kind) {
        self.out.send(WatchRequest { kind: Some(kind) }).await.unwrap();
    }

    pub async fn subscribe(&self, names: &[&str]) {
        let names = names.iter().map(|name| (*name).into()).collect();
        self.say(Kind::Subscribe(Subscribe { names })).await;
    }

    pub async fn unsubscribe(&self, names: &[&str]) {
        let names = names.iter().map(|name| (*name).into()).collect();
        self.say(Kind::Unsubscribe(Unsubscribe { names })).await;
    }

    pub async fn ack(&self, nonce: u64, rejected: &[&str]) {
        let rejected =
            rejected.iter().map(|name| Rejected { name: (*name).into(), error: "no".into() }).collect();
        self.say(Kind::Ack(Ack { nonce, rejected })).await;
    }

    /// The next response, or the status that ends the stream.
    pub async fn next(&mut self) -> Result<WatchResponse, Status> {
        timeout(PATIENCE, self.next_unbounded()).await.expect("no response in time")
    }

    /// As [`Self::next`], for as long as it takes.
    pub async fn next_unbounded(&mut self) -> Result<WatchResponse, Status> {
        match self.responses.message().await {
            Ok(Some(response)) => Ok(response),
            Ok(None) => Err(Status::ok("the stream ended")),
            Err(status) => Err(status),
        }
    }

    /// The next response, acknowledged.
    pub async fn applied(&mut self) -> WatchResponse {
        let response = self.next().await.unwrap();
        self.ack(response.nonce, &[]).await;
        response
    }

    /// True when nothing comes for a while.
    pub async fn quiet(&mut self) -> bool {
        timeout(Duration::from_millis(300), self.responses.message()).await.is_err()
    }
}

pub fn names(response: &WatchResponse) -> Vec<&str> {
    response.upserts.iter().map(|resource| resource.name.as_str()).collect()
}

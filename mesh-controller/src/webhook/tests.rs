//! The webhook on real sockets, asked as an API server asks.

mod limits;

use std::{collections::BTreeSet, net::Ipv4Addr, path::Path, sync::Mutex};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hyper::client::conn::{http1, http2};
use kube::{Client, client::Body};
use mesh_k8s::inject::{Config, Nonce, Outcome, Server};
use mesh_testkit::net::{PATIENCE, eventually};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::*;

const NAME: &str = "mesh-controller.mesh-system.svc";

/// A webhook that runs, in a cluster that notes what it is told.
struct Rig {
    address: SocketAddr,
    ca: Arc<Ca>,
    told: Arc<Mutex<Vec<(String, Value)>>>,
    metrics: Metrics,
    stop: watch::Sender<bool>,
    _dir: tempfile::TempDir,
}

/// What a cluster of this minor version answers; `broken`: to what is written, nothing good.
fn client(minor: &'static str, broken: bool, told: Arc<Mutex<Vec<(String, Value)>>>) -> Client {
    let answer = move |request: Request<Body>| {
        let told = Arc::clone(&told);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            let (status, answer) = match (head.method.as_str(), head.uri.path()) {
                ("GET", "/version") => (
                    200,
                    json!({ "major": "1", "minor": minor, "gitVersion": "", "gitCommit": "", "gitTreeState": "",
                        "buildDate": "", "goVersion": "", "compiler": "", "platform": "" }),
                ),
                ("GET", _) => {
                    (404, json!({ "kind": "Status", "code": 404, "reason": "NotFound", "message": "no" }))
                }
                _ if broken => {
                    (403, json!({ "kind": "Status", "code": 403, "reason": "Forbidden", "message": "no" }))
                }
                (_, path) => {
                    told.lock().unwrap().push((path.to_owned(), body.clone()));
                    (201, body)
                }
            };
            let body = Full::new(Bytes::from(answer.to_string()));
            Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap())
        }
    };
    Client::new(tower::service_fn(answer), "default")
}

impl Rig {
    async fn start(minor: &'static str, broken: bool, lifetime: Duration) -> Self {
        Self::start_with(minor, broken, lifetime, IDLE).await
    }

    async fn start_with(minor: &'static str, broken: bool, lifetime: Duration, idle: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = Arc::new(Ca::open(&dir.path().join("ca"), "cluster.local", lifetime).unwrap());
        let told = Arc::<Mutex<Vec<_>>>::default();
        let client = client(minor, broken, Arc::clone(&told));
        let cluster = Cluster {
            noted: Arc::default(),
            client: client.clone(),
            url: String::new(),
            namespace: "mesh-system".to_owned(),
            replica: "one".to_owned(),
        };
        let bundles = Arc::new(Bundles::new(&cluster, ca.root_pem()));
        let defaults = Defaults::open(None, Config::default()).unwrap();
        let serving = Serving::new(Arc::clone(&ca), vec![NAME.to_owned()]).unwrap();
        let metrics = Metrics::new();
        let mut webhook = Webhook::new(serving, Injector::new(defaults, client, bundles), &metrics);
        webhook.idle = idle;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = watch::Sender::new(false);
        tokio::spawn(Arc::new(webhook).run(listener, stop.subscribe()));
        Self { address, ca, told, metrics, stop, _dir: dir }
    }

    async fn recent() -> Self {
        Self::start("34", false, Duration::from_secs(3600)).await
    }

    async fn connect(&self, name: &str, alpn: &[u8]) -> io::Result<TlsStream<TcpStream>> {
        self.connect_from(Ipv4Addr::LOCALHOST.into(), name, alpn).await
    }

    async fn connect_from(&self, from: IpAddr, name: &str, alpn: &[u8]) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.root().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        let stream = socket.connect(self.address).await?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    async fn send(&self, request: Request<Full<Bytes>>, is_h2: bool) -> (u16, String) {
        let io = TokioIo::new(self.connect(NAME, if is_h2 { b"h2" } else { b"http/1.1" }).await.unwrap());
        let response = if is_h2 {
            let (mut sender, running) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(running);
            sender.send_request(request).await.unwrap()
        } else {
            let (mut sender, running) = http1::handshake(io).await.unwrap();
            tokio::spawn(running);
            sender.send_request(request).await.unwrap()
        };
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn post(&self, path: &str, body: impl Into<Bytes>) -> (u16, String) {
        let uri = format!("https://{NAME}{path}?timeout=10s");
        self.send(Request::post(uri).body(Full::new(body.into())).unwrap(), true).await
    }

    /// The response to a review.
    async fn review(&self, path: &str, request: &Value) -> Value {
        let review =
            json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request });
        let (status, text) = self.post(path, review.to_string()).await;
        assert_eq!(status, 200, "{text}");
        let mut answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&answer["kind"], &answer["response"]["uid"]),
            (&json!("AdmissionReview"), &request["uid"])
        );
        answer["response"].take()
    }

    async fn inject(&self, pod: &Value, dry_run: bool) -> Value {
        let request = json!({ "uid": "u-1", "namespace": "shop", "operation": "CREATE", "dryRun": dry_run, "object": pod });
        self.review("/inject", &request).await
    }

    /// How often a webhook has answered so.
    #[track_caller]
    fn check_counted(&self, webhook: &str, counts: &[(&str, u64)]) {
        let text = self.metrics.render();
        let name = format!("mesh_controller_admissions_total{{webhook=\"{webhook}\",");
        let found: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix(&*name)).collect();
        let expected: Vec<String> =
            counts.iter().map(|(result, count)| format!("result=\"{result}\"}} {count}")).collect();
        assert_eq!(found, expected.iter().map(String::as_str).collect());
        let all: u64 = counts.iter().map(|(_, count)| count).sum();
        let timed = format!("mesh_controller_admission_seconds_count{{webhook=\"{webhook}\"}} {all}\n");
        assert!(text.contains(&timed), "{timed}{text}");
    }

    fn told(&self) -> Vec<(String, Value)> {
        self.told.lock().unwrap().clone()
    }
}

fn pod(spec: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "generateName": "cart-" }, "spec": spec })
}

fn plain() -> Value {
    pod(&json!({ "containers": [{ "name": "app", "readinessProbe": { "httpGet": { "port": 80 } } }] }))
}

/// The pod that an answer makes of another one.
fn patched(pod: &Value, response: &Value) -> Value {
    assert_eq!((&response["allowed"], &response["patchType"]), (&json!(true), &json!("JSONPatch")));
    let patch = BASE64_STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &serde_json::from_slice::<json_patch::Patch>(&patch).unwrap()).unwrap();
    pod
}

/// What stands in the path of its application's probe.
fn nonce(pod: &Value) -> Nonce {
    let containers = pod["spec"]["containers"].as_array().unwrap();
    let app = containers.iter().find(|container| container["name"] == "app").unwrap();
    let path = app["readinessProbe"]["httpGet"]["path"].as_str().unwrap();
    let digits = path.strip_prefix("/probe/").unwrap().strip_suffix("/app/readiness").unwrap();
    assert_eq!(digits.len(), 2 * Nonce::LEN);
    Nonce::new(u128::from_str_radix(digits, 16).unwrap().to_be_bytes())
}

/// As the webhook is to do it to `pod`, with the nonce that it chose for `new`.
fn injected(pod: &Value, minor: u32, new: &Value) -> Value {
    let server = Some(Server { major: 1, minor });
    match mesh_k8s::inject::inject(pod, &Config::default(), server, &nonce(new)) {
        Outcome::Injected(new) => new,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn pods_get_a_proxy_and_their_namespace_gets_trust() {
    let rig = Rig::recent().await;
    let response = rig.inject(&plain(), true).await;
    let tried = patched(&plain(), &response);
    assert_eq!(tried, injected(&plain(), 34, &tried));
    assert_eq!(rig.told(), [], "what is only tried changes nothing");
    let response = rig.inject(&plain(), false).await;
    let new = patched(&plain(), &response);
    assert_eq!(new, injected(&plain(), 34, &new));
    assert_ne!(nonce(&new), nonce(&tried), "nobody can know it");
    let told = rig.told();
    assert_eq!(told.len(), 1);
    assert!(told[0].0.starts_with("/api/v1/namespaces/shop/configmaps"), "{}", told[0].0);
    assert_eq!(told[0].1["data"]["trust-bundle.pem"], rig.ca.root_pem());
    // Again it stays as it is.
    assert_eq!(rig.inject(&new, false).await, json!({ "uid": "u-1", "allowed": true }));
    // Nothing else is touched.
    let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "a" } });
    assert_eq!(rig.inject(&service, false).await, json!({ "uid": "u-1", "allowed": true }));
    rig.check_counted("inject", &[("injected", 2), ("allowed", 2)]);
}

#[tokio::test]
async fn old_clusters_get_classic_proxies() {
    let rig = Rig::start("28+", false, Duration::from_secs(3600)).await;
    let new = patched(&plain(), &rig.inject(&plain(), true).await);
    assert_eq!(new, injected(&plain(), 28, &new));
    assert_eq!(new["spec"]["containers"][0]["name"], "mesh-proxy");
}

#[tokio::test]
async fn without_trust_there_is_no_pod() {
    let rig = Rig::start("34", true, Duration::from_secs(3600)).await;
    let response = rig.inject(&plain(), false).await;
    assert_eq!((&response["allowed"], &response["status"]["code"]), (&json!(false), &json!(503)));
    assert!(response["status"]["message"].as_str().unwrap().contains("trust-bundle"), "{response}");
    rig.check_counted("inject", &[("not_now", 1)]);
}

#[tokio::test]
async fn what_cannot_have_a_proxy_is_refused_with_all_that_is_wrong() {
    let rig = Rig::recent().await;
    let bad = pod(&json!({ "securityContext": { "runAsUser": 1337 },
        "containers": [{ "name": "app", "ports": [{ "containerPort": 15001 }] }] }));
    let response = rig.inject(&bad, false).await;
    assert_eq!((&response["allowed"], &response["status"]["code"]), (&json!(false), &json!(422)));
    let message = response["status"]["message"].as_str().unwrap();
    assert!(message.contains("pod shop/cart-…"), "{message}");
    assert!(message.contains("spec.securityContext.runAsUser: 1337"), "{message}");
    assert!(message.contains("spec.containers[0].ports[0].containerPort: "), "{message}");
    assert_eq!(rig.told(), []);
}

#[tokio::test]
async fn pods_on_a_hosts_network_are_let_in_with_a_warning_and_an_event() {
    let rig = Rig::recent().await;
    let mut agent = pod(&json!({ "hostNetwork": true, "containers": [{ "name": "agent" }] }));
    agent["metadata"]["ownerReferences"] = json!([{ "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "agent", "uid": "d", "controller": true }]);
    let response = rig.inject(&agent, true).await;
    assert_eq!(response["allowed"], true);
    assert!(response["warnings"][0].as_str().unwrap().contains("hostNetwork"), "{response}");
    assert!(response.get("patch").is_none());
    assert_eq!(rig.told(), []);
    assert_eq!(rig.inject(&agent, false).await, response);
    let told = rig.told();
    assert_eq!((told.len(), told[0].0.as_str()), (1, "/api/v1/namespaces/shop/events"));
    let event = &told[0].1;
    assert_eq!((&event["reason"], &event["type"]), (&json!("MeshNotInjected"), &json!("Warning")));
    assert_eq!(event["involvedObject"]["kind"], "DaemonSet");
}

#[tokio::test]
async fn our_own_objects_are_read_as_the_source_reads_them() {
    let rig = Rig::recent().await;
    let workload = |spec: &Value| {
        let object = json!({ "apiVersion": "meshctl.dev/v1alpha1", "kind": "Workload",
            "metadata": { "name": "vm", "namespace": "shop" }, "spec": spec });
        json!({ "uid": "u", "namespace": "shop", "operation": "UPDATE", "object": object })
    };
    let good =
        json!({ "serviceAccount": "vm", "address": "10.0.0.1", "ports": [{ "name": "web", "port": 80 }] });
    assert_eq!(rig.review("/validate", &workload(&good)).await, json!({ "uid": "u", "allowed": true }));
    let bad = json!({ "serviceAccount": "vm", "address": "nowhere", "ports": [{ "port": 0 }], "more": 1 });
    let response = rig.review("/validate", &workload(&bad)).await;
    assert_eq!((&response["allowed"], &response["status"]["code"]), (&json!(false), &json!(422)));
    let message = response["status"]["message"].as_str().unwrap();
    for field in ["spec.address", "spec.ports[0].port", "spec.more"] {
        assert!(message.contains(field), "{field}: {message}");
    }
    let mut going = workload(&bad);
    going["object"]["metadata"]["deletionTimestamp"] = json!("2026-01-31T12:00:00Z");
    assert_eq!(rig.review("/validate", &going).await["allowed"], true);
    let split = json!({ "uid": "u", "namespace": "shop", "operation": "UPDATE", "object": {
        "apiVersion": "split.smi-spec.io/v1alpha4", "kind": "TrafficSplit", "metadata": { "name": "catalog", "namespace": "shop" },
        "spec": { "service": "catalog", "backends": [{ "service": "v1", "weight": 0 }] } } });
    let response = rig.review("/validate", &split).await;
    assert!(response["status"]["message"].as_str().unwrap().contains("spec.backends"), "{response}");
    let gone = json!({ "uid": "u", "namespace": "shop", "operation": "DELETE", "object": null });
    assert_eq!(rig.review("/validate", &gone).await["allowed"], true);
    let other = json!({ "uid": "u", "operation": "CREATE", "object": { "kind": "Other", "apiVersion": "other.test/v1" } });
    assert_eq!(rig.review("/validate", &other).await["allowed"], true);
    rig.check_counted("validate", &[("allowed", 4), ("refused", 2)]);
}

#[tokio::test]
async fn garbage_is_answered() {
    let rig = Rig::recent().await;
    let review = |request: Value| {
        json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request })
            .to_string()
    };
    for body in [
        "",
        "[]",
        "null",
        "{\"kind\": 1}",
        "\u{0}\u{1}",
        &review(Value::Null),
        &review(json!({})),
        "{\"apiVersion\": \"admission.k8s.io/v1beta1\", \"kind\": \"AdmissionReview\"}",
        &"[".repeat(100_000),
    ] {
        for path in ["/inject", "/validate"] {
            assert_eq!(
                rig.post(path, body.to_owned()).await.0,
                400,
                "{path} {}",
                body.get(..40).unwrap_or(body)
            );
        }
    }
    for object in
        [json!(null), json!([]), json!("x"), json!({ "kind": "Pod" }), json!({ "kind": "Pod", "spec": 1 })]
    {
        let request = json!({ "uid": "u", "namespace": "shop", "operation": "CREATE", "object": object });
        for path in ["/inject", "/validate"] {
            let _answered = rig.review(path, &request).await;
        }
    }
    let nowhere =
        json!({ "uid": "u", "namespace": "../kube-system", "operation": "CREATE", "object": plain() });
    assert_eq!(rig.review("/inject", &nowhere).await["allowed"], false);
    assert_eq!(rig.post("/inject", vec![b' '; MAX_BODY + 1]).await.0, 413);
    assert_eq!(rig.post("/other", "").await.0, 404);
    rig.check_counted("inject", &[("malformed", 10), ("allowed", 3), ("refused", 3)]);
    let get = Request::get("/inject").header("host", NAME).body(Full::default()).unwrap();
    assert_eq!(rig.send(get, false).await.0, 405);
    let mut raw = TcpStream::connect(rig.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut raw, b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(rig.inject(&plain(), true).await["allowed"], true);
    assert_eq!(rig.told(), []);
}

#[tokio::test]
async fn it_serves_by_its_name_and_renews_its_certificate() {
    let rig = Rig::start("34", false, Duration::from_secs(4)).await;
    assert!(rig.connect("mesh-controller.other.svc", b"h2").await.is_err());
    let leaf = || async {
        let stream = rig.connect(NAME, b"h2").await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let first = leaf().await;
    let renewed = || async { (leaf().await != first).then_some(()) };
    eventually(PATIENCE, "another certificate", renewed).await;
    rig.stop.send_replace(true);
    let closed = || async { TcpStream::connect(rig.address).await.err().map(drop) };
    eventually(PATIENCE, "it listens no more", closed).await;
}

#[test]
fn defaults_that_become_bad_stay_as_they_were() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let write = |text: &str| std::fs::write(file.path(), text).unwrap();
    let open = |path: &Path| Defaults::open(Some(path.to_owned()), Config::default());
    write("logLevel: loud\n");
    assert!(open(file.path()).unwrap_err().to_string().contains("logLevel"));
    assert!(open(Path::new("/nonexistent")).is_err());
    write("logLevel: debug\n");
    let defaults = open(file.path()).unwrap();
    assert_eq!(defaults.current().log_level, "debug");
    write("logLevel: warn\n");
    assert_eq!(defaults.current().log_level, "warn");
    write("logLevel: [\n");
    assert_eq!(defaults.current().log_level, "warn");
}

//! How a proxy comes to its identity, and how nobody else does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]

mod common;

use common::{Mesh, SHOP, by_token, csr, svid, workload};
use mesh_proto::{
    identity::v1::{CertifyRequest, CurrentCertificate, certify_request::Proof},
    telemetry::v1::{ReportRequest, telemetry_client::TelemetryClient},
};
use mesh_testkit::{
    ca::{Flaw, TestCa},
    tls,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SanType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;

const CATALOG: &str = "spiffe://cluster.local/ns/shop/sa/catalog";
const CONTROLLER: &str = "spiffe://cluster.local/ns/mesh-system/sa/mesh-controller";

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn sha256(der: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_proxy_that_knows_only_the_pin_gets_its_certificate() {
    let mesh = Mesh::start(&[("shop.yaml", SHOP)]).await;
    let status: serde_json::Value =
        serde_json::from_slice(&std::fs::read(mesh.data("controller.json")).unwrap()).unwrap();
    assert_eq!(status["control"], mesh.addresses().control.to_string());
    assert_eq!(status["trust_domain"], "cluster.local");
    let pin = status["root_sha256"].as_str().unwrap();

    // The chain that the server sends ends with the root, so that the pin can be compared and the chain verified.
    let config = tls::credulous_client(None, &[b"h2"]);
    let stream = tls::connect(mesh.addresses().control, "anything", config).await.unwrap();
    let session = stream.get_ref().1;
    let chain = session.peer_certificates().unwrap();
    let parsed: Vec<_> = chain.iter().map(|c| x509_parser::parse_x509_certificate(c).unwrap().1).collect();
    assert_eq!(parsed.len(), 3);
    assert_eq!(sha256(&chain[2]), pin);
    for (below, above) in [(0, 1), (1, 2), (2, 2)] {
        parsed[below].verify_signature(Some(parsed[above].public_key())).unwrap();
    }
    assert_eq!(mesh_testkit::ca::identity_of(&chain[0]).unwrap().as_str(), CONTROLLER);
    assert_eq!(session.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    let group = session.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);

    let (key, request) = csr(|_| {});
    let response =
        mesh.certify(None, by_token("shop/catalog-1", &mesh.token("shop/catalog"), request)).await.unwrap();
    assert_eq!(response.identity, CATALOG);
    assert_eq!(sha256(&response.roots_der[0]), pin);
    assert_eq!(response.chain_der.len(), 2, "leaf and issuer");
    assert!(
        (10 * 3600..14 * 3600).contains(&response.renew_after_seconds),
        "{}",
        response.renew_after_seconds
    );
    let pem = std::fs::read(mesh.data("trust-bundle.pem")).unwrap();
    let (_, bundle) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
    assert_eq!(bundle.contents, response.roots_der[0]);

    // With it, it renews, and reports.
    let held = svid(&response, &key);
    let (_, request) = csr(|params| params.subject_alt_names = vec![uri(CATALOG)]);
    let renewal = CertifyRequest {
        workload: workload("shop/catalog-1"),
        csr_der: request,
        proof: Some(Proof::CurrentCertificate(CurrentCertificate {})),
    };
    assert_eq!(mesh.certify(Some(&held), renewal).await.unwrap().identity, CATALOG);
    let mut telemetry = TelemetryClient::new(mesh.channel(Some(&held)).await.unwrap());
    let report = |name: &str| ReportRequest {
        workload: workload(name),
        instance: "a".into(),
        edges: Vec::new(),
        uptime_millis: 5,
    };
    telemetry.report(report("shop/catalog-1")).await.unwrap();
    let other = telemetry.report(report("shop/web-1")).await.unwrap_err();
    assert_eq!(other.code(), Code::PermissionDenied, "{other}");
}

#[tokio::test]
async fn every_call_but_certify_needs_a_certificate() {
    let mesh = Mesh::start(&[("shop.yaml", SHOP)]).await;
    let raw = |path: &'static str| {
        let mesh = &mesh;
        async move {
            let config = tls::credulous_client(None, &[b"h2"]);
            let stream = tls::connect(mesh.addresses().control, "x", config).await.unwrap();
            let mut client = mesh_testkit::client::Connection::http2(stream).await;
            let request = http::Request::post(format!("https://mesh{path}"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(http_body_util::Full::new(bytes::Bytes::from_static(&[0, 0, 0, 0, 0])))
                .unwrap();
            let response = client.send(request).await.unwrap();
            response.headers().get("grpc-status").map(|v| v.to_str().unwrap().to_owned())
        }
    };
    const UNAUTHENTICATED: Option<&str> = Some("16");
    const INVALID_ARGUMENT: Option<&str> = Some("3");
    let table = [
        // It is looked at, and found to be empty.
        ("/mesh.identity.v1.Identity/Certify", INVALID_ARGUMENT),
        ("/mesh.identity.v1.Identity/Other", UNAUTHENTICATED),
        ("/mesh.discovery.v1.Discovery/Watch", UNAUTHENTICATED),
        ("/mesh.telemetry.v1.Telemetry/Report", UNAUTHENTICATED),
        ("/mesh.view.v1.View/GetStatus", UNAUTHENTICATED),
        ("/mesh.view.v1.View/ListProblems", UNAUTHENTICATED),
        ("/mesh.view.v1.View/ListWorkloads", UNAUTHENTICATED),
        ("/mesh.view.v1.View/ListServices", UNAUTHENTICATED),
        ("/mesh.view.v1.View/ListEdges", UNAUTHENTICATED),
        ("/", UNAUTHENTICATED),
        ("/mesh.discovery.v1.Discovery/watch", UNAUTHENTICATED),
        ("//mesh.discovery.v1.Discovery/Watch", UNAUTHENTICATED),
    ];
    for (path, expected) in table {
        assert_eq!(raw(path).await.as_deref(), expected, "{path}");
    }
    // The table is complete: every call of every service that is defined is in it.
    let protos = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../mesh-proto/proto/mesh");
    for package in ["identity", "discovery", "telemetry", "view"] {
        let text = std::fs::read_to_string(protos.join(format!("{package}/v1/{package}.proto"))).unwrap();
        for rpc in text.lines().filter_map(|line| line.trim().strip_prefix("rpc ")) {
            let name = format!("/{}", rpc.split('(').next().unwrap());
            assert!(table.iter().any(|(path, _)| path.ends_with(&name)), "{name} is not in the table");
        }
    }
}

/// Sends a request that must be refused with `code` and a message that holds `hint`.
async fn refused(mesh: &Mesh, what: &str, request: CertifyRequest, code: Code, hint: &str) {
    let error = mesh.certify(None, request).await.err().unwrap_or_else(|| panic!("{what} was certified"));
    assert_eq!(error.code(), code, "{what}: {error}");
    assert!(error.message().contains(hint), "{what}: {error}");
}

#[tokio::test]
async fn requests_that_prove_too_little_get_nothing() {
    let mesh = Mesh::start(&[("shop.yaml", SHOP)]).await;
    let (catalog, web) = (mesh.token("shop/catalog"), mesh.token("shop/web"));
    assert!(!mesh.data("tokens/mesh-system").exists(), "the reserved name has no token");
    let good = || csr(|_| {}).1;
    let name = "shop/catalog-1";
    let nothing = CertifyRequest { proof: None, ..by_token(name, "", good()) };
    let certificate = Some(Proof::CurrentCertificate(CurrentCertificate {}));
    let certificate = CertifyRequest { proof: certificate, ..by_token(name, "", good()) };
    let nameless = CertifyRequest { workload: None, ..by_token(name, &catalog, good()) };
    let (unknown, denied, invalid) = (Code::Unauthenticated, Code::PermissionDenied, Code::InvalidArgument);

    refused(&mesh, "no proof", nothing, unknown, "--token-file").await;
    refused(&mesh, "wrong token", by_token(name, "wrong", good()), unknown, "tokens/").await;
    refused(&mesh, "cut token", by_token(name, &catalog[1..], good()), unknown, "tokens/").await;
    refused(&mesh, "no certificate", certificate, unknown, "token").await;
    refused(&mesh, "other account", by_token(name, &web, good()), denied, "shop/catalog").await;
    refused(&mesh, "no workload", by_token("shop/no", &catalog, good()), denied, "--workload").await;
    refused(&mesh, "bad name", by_token("shop/../x", &catalog, good()), invalid, "workload").await;
    refused(&mesh, "no name", nameless, invalid, "workload").await;
}

#[tokio::test]
async fn requests_that_ask_too_much_get_nothing() {
    let mesh = Mesh::start(&[("shop.yaml", SHOP)]).await;
    let (name, token) = ("shop/catalog-1", mesh.token("shop/catalog"));
    let asks = |change: fn(&mut CertificateParams)| by_token(name, &token, csr(change).1);
    let (denied, invalid) = (Code::PermissionDenied, Code::InvalidArgument);

    let ca = asks(|p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    refused(&mesh, "CA", ca, denied, "CA rights").await;
    let signer = asks(|p| p.key_usages = vec![KeyUsagePurpose::KeyCertSign]);
    refused(&mesh, "keyCertSign", signer, denied, "CA rights").await;
    let other = asks(|p| p.subject_alt_names = vec![uri("spiffe://cluster.local/ns/shop/sa/web")]);
    refused(&mesh, "another's name", other, denied, "sa/web").await;
    let reserved = asks(|p| p.subject_alt_names = vec![uri(CONTROLLER)]);
    refused(&mesh, "controller's name", reserved, denied, "mesh-controller").await;

    let sends = |der: Vec<u8>| by_token(name, &token, der);
    let good = csr(|_| {}).1;
    refused(&mesh, "garbage", sends(vec![0x30; 100]), invalid, "malformed").await;
    refused(&mesh, "half", sends(good[..100].to_vec()), invalid, "malformed").await;
    refused(&mesh, "huge", sends(vec![0x30; 9000]), invalid, "9000 bytes").await;
    let p521 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    let request = CertificateParams::default().serialize_request(&p521).unwrap().der().to_vec();
    refused(&mesh, "P-521", sends(request), invalid, "P-256").await;
    mesh.certify(None, sends(good)).await.unwrap();
}

#[tokio::test]
async fn a_workload_of_the_reserved_account_gets_nothing() {
    let rogue = "apiVersion: meshctl.dev/v1alpha1\nkind: Workload\n\
        metadata: {name: rogue, namespace: mesh-system}\n\
        spec: {serviceAccount: mesh-controller, address: 127.77.0.9}\n";
    let mesh = Mesh::start(&[("shop.yaml", SHOP), ("rogue.yaml", rogue)]).await;
    assert!(!mesh.data("tokens/mesh-system/mesh-controller").exists());
    let request = by_token("mesh-system/rogue", &mesh.token("shop/catalog"), csr(|_| {}).1);
    let error = mesh.certify(None, request).await.unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied, "{error}");
}

/// What happens to a client with this certificate: refused while connecting, or with a code.
async fn outcome(mesh: &Mesh, svid: &mesh_testkit::ca::Svid) -> Option<Code> {
    let channel = mesh.channel(Some(svid)).await.ok()?;
    let report = ReportRequest {
        workload: workload("shop/catalog-1"),
        instance: "a".into(),
        edges: Vec::new(),
        uptime_millis: 0,
    };
    match TelemetryClient::new(channel).report(report).await {
        Ok(_) => Some(Code::Ok),
        // The connection broke: TLS 1.3 tells the client only then.
        Err(status) if std::error::Error::source(&status).is_some() => None,
        Err(status) => Some(status.code()),
    }
}

#[tokio::test]
async fn foreign_and_forged_certificates_are_refused() {
    let mesh = Mesh::start(&[("shop.yaml", SHOP)]).await;
    assert_eq!(outcome(&mesh, &mesh.enroll("shop/catalog-1", "shop/catalog").await).await, Some(Code::Ok));

    let foreign = TestCa::new("cluster.local");
    assert_eq!(outcome(&mesh, &foreign.svid("shop", "catalog")).await, None, "foreign root");
    for flaw in Flaw::ALL {
        let svid = foreign.flawed(&foreign.id("shop", "catalog"), flaw);
        assert_eq!(outcome(&mesh, &svid).await, None, "{flaw:?}");
    }
    let forged = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|name| uri(name)).collect();
        mesh.forge(|params| params.subject_alt_names = names)
    };
    assert_eq!(outcome(&mesh, &forged(&[CATALOG])).await, Some(Code::Ok), "the forge works");
    assert_eq!(outcome(&mesh, &forged(&[CATALOG, "spiffe://cluster.local/ns/shop/sa/web"])).await, None);
    assert_eq!(outcome(&mesh, &forged(&[])).await, None);
    assert_eq!(outcome(&mesh, &forged(&["spiffe://other.example/ns/shop/sa/catalog"])).await, None);
    assert_eq!(outcome(&mesh, &forged(&["https://cluster.local/"])).await, None);
    // A real certificate, by the real authority, with the controller's name: no client either.
    assert_eq!(outcome(&mesh, &forged(&[CONTROLLER])).await, Some(Code::PermissionDenied));
    let expired = mesh.forge(|params| {
        params.subject_alt_names = vec![uri(CATALOG)];
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    assert_eq!(outcome(&mesh, &expired).await, None, "expired");
    let server_only = mesh.forge(|params| {
        params.subject_alt_names = vec![uri(CATALOG)];
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    });
    assert_eq!(outcome(&mesh, &server_only).await, None, "not for clients");
}

#[tokio::test]
async fn noise_at_the_control_port_is_survived_and_counted() {
    let mesh = Mesh::start(&[("shop.yaml", SHOP)]).await;
    let plaintext = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for noise in
        [&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], plaintext, &[0x16, 0x03, 0x01], &[0xff; 4096], b""]
    {
        let mut stream = tokio::net::TcpStream::connect(mesh.addresses().control).await.unwrap();
        let _ = stream.write_all(noise).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.windows(4).any(|w| w == b"HTTP"), "{answer:?}");
    }
    // TLS without the right protocol.
    let stream = tls::connect(mesh.addresses().control, "x", tls::credulous_client(None, &[])).await.unwrap();
    let mut client = mesh_testkit::client::Connection::http2(stream).await;
    assert!(client.get("https://x/", "x").await.is_err());

    mesh.enroll("shop/catalog-1", "shop/catalog").await;
    let health = async |path: &str| {
        let stream = tokio::net::TcpStream::connect(mesh.addresses().health).await.unwrap();
        mesh_testkit::client::Connection::http1(stream).await.get(path, "x").await.unwrap()
    };
    let metrics = health("/metrics").await;
    let metrics = String::from_utf8(metrics.into_body().to_vec()).unwrap();
    for wanted in [
        "mesh_controller_connections_refused_total{port=\"control\",reason=\"handshake\"} 5",
        "mesh_controller_connections_refused_total{port=\"control\",reason=\"alpn\"} 1",
        "mesh_controller_certificates_total{result=\"issued\"} 1",
        "mesh_controller_objects ",
        "mesh_controller_root_not_after_seconds ",
    ] {
        assert!(metrics.contains(wanted), "{wanted} is not in\n{metrics}");
    }
    for (path, status) in [("/live", 200), ("/ready", 200), ("/x", 404)] {
        assert_eq!(health(path).await.status(), status);
    }
}

#[tokio::test]
async fn a_restart_keeps_authority_and_tokens_and_a_second_controller_is_refused() {
    let mut mesh = Mesh::start(&[("shop.yaml", SHOP)]).await;
    let before = (mesh.token("shop/catalog"), std::fs::read(mesh.data("trust-bundle.pem")).unwrap());
    let held = mesh.enroll("shop/catalog-1", "shop/catalog").await;
    let second = mesh.second().await.to_string();
    assert!(second.contains("another mesh-controller") && second.contains("--data-dir"), "{second}");

    mesh.stop().await;
    assert!(!mesh.data("controller.json").exists(), "removed at a clean stop");
    mesh.restart().await;
    let after = (mesh.token("shop/catalog"), std::fs::read(mesh.data("trust-bundle.pem")).unwrap());
    assert_eq!(before, after);
    assert_eq!(outcome(&mesh, &held).await, Some(Code::Ok), "a certificate from before is still good");
    mesh.enroll("shop/catalog-1", "shop/catalog").await;
}

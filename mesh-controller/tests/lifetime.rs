//! What happens as time goes by: short-lived certificates, silent connections, files replaced in editors' ways.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]

mod common;

use std::{
    fs,
    os::unix::fs::symlink,
    time::{Duration, Instant, SystemTime},
};

use common::{Mesh, SHOP, Stream, catalog, config};
use mesh_controller::Controller;
use mesh_proto::discovery::v1::{WatchResponse, resource::Body};
use mesh_testkit::tls;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;
use tonic::Code;

#[tokio::test]
async fn leafs_expire_streams_end_with_them_and_the_controller_renews_its_own() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("source")).unwrap();
    fs::write(dir.path().join("source/shop.yaml"), SHOP).unwrap();
    let mut short = config(dir.path());
    short.leaf_lifetime = Duration::from_secs(10);
    let controller = Controller::start(short).await.unwrap();
    let mesh = Mesh { dir, controller: Some(controller) };

    let svid = mesh.enroll("shop/web-1", "shop/web").await;
    let mut stream = Stream::open(&mesh, &svid, "shop/web-1", &[]).await;
    stream.applied().await;
    let begin = Instant::now();
    let error = loop {
        match tokio::time::timeout(Duration::from_secs(15), stream.next_unbounded()).await.unwrap() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), Code::Unauthenticated, "{error}");
    assert!((8..=12).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    assert!(mesh.channel(Some(&svid)).await.is_err() || reported(&mesh, &svid).await.is_err());

    let connection =
        tls::connect(mesh.addresses().control, "x", tls::credulous_client(None, &[b"h2"])).await.unwrap();
    let leaf = connection.get_ref().1.peer_certificates().unwrap()[0].clone();
    let (_, leaf) = x509_parser::parse_x509_certificate(&leaf).unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    assert!(leaf.validity().not_after.timestamp() > now as i64, "the controller's own leaf was renewed");
    mesh.enroll("shop/web-1", "shop/web").await;
}

/// Whether a call with this certificate succeeds.
async fn reported(mesh: &Mesh, svid: &mesh_testkit::ca::Svid) -> Result<(), tonic::Status> {
    use mesh_proto::telemetry::v1::{ReportRequest, telemetry_client::TelemetryClient};
    let channel = mesh.channel(Some(svid)).await.map_err(|e| tonic::Status::unavailable(e.to_string()))?;
    let request = ReportRequest {
        workload: common::workload("shop/web-1"),
        instance: "a".into(),
        edges: Vec::new(),
        uptime_millis: 0,
    };
    TelemetryClient::new(channel).report(request).await.map(|_| ())
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let mesh = Mesh::start(&[("shop.yaml", SHOP)]).await;
    let mut stream = TcpStream::connect(mesh.addresses().control).await.unwrap();
    let mut byte = [0];
    let closed = tokio::time::timeout(Duration::from_secs(8), stream.read(&mut byte)).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
}

#[tokio::test]
async fn whoever_holds_health_connections_does_not_fail_the_probes_of_others() {
    let mesh = Mesh::start(&[("shop.yaml", SHOP)]).await;
    let address = mesh.addresses().health;
    let mut held = Vec::new();
    for _ in 0..300 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // It asks, and would ask again.
        let _ = stream.write_all(b"GET /live HTTP/1.1\r\nhost: x\r\n").await;
        held.push(stream);
    }
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((mesh_testkit::net::fresh_ip(), 0).into()).unwrap();
    let mut probe = socket.connect(address).await.unwrap();
    probe.write_all(b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    // To its end: a connection serves one request.
    probe.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
}

/// Begins to ask for a certificate, and never ends.
async fn half_asked(mut stream: TlsStream<TcpStream>) -> TlsStream<TcpStream> {
    let mut block = vec![0x83, 0x87];
    let literal = |block: &mut Vec<u8>, name: &[u8], value: &str| {
        block.extend_from_slice(name);
        block.push(u8::try_from(value.len()).unwrap());
        block.extend_from_slice(value.as_bytes());
    };
    literal(&mut block, &[0x04], "/mesh.identity.v1.Identity/Certify");
    literal(&mut block, &[0x01], "mesh");
    literal(&mut block, &[0x0f, 0x10], "application/grpc");
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    sent.extend([0, 0, u8::try_from(block.len()).unwrap(), 0x01, 0x04, 0, 0, 0, 1]);
    sent.extend(block);
    stream.write_all(&sent).await.unwrap();
    stream
}

#[tokio::test]
async fn strangers_neither_stay_nor_lock_proxies_out() {
    let mesh = Mesh::start(&[("shop.yaml", SHOP)]).await;
    let svid = mesh.enroll("shop/web-1", "shop/web").await;
    let begin = Instant::now();
    let stranger = async || {
        tls::connect(mesh.addresses().control, "x", tls::credulous_client(None, &[b"h2"])).await.unwrap()
    };
    // The end, after whatever the server says at first.
    async fn end(mut connection: impl tokio::io::AsyncRead + Unpin) {
        let mut said = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(20), connection.read_to_end(&mut said)).await;
        ended.expect("the connection stays open").ok();
    }
    let mut strangers = vec![half_asked(stranger().await).await];
    for _ in 0..255 {
        strangers.push(stranger().await);
    }
    let filled = begin.elapsed();
    assert!(filled < Duration::from_secs(8), "{filled:?} is too slow for what follows");
    end(stranger().await).await;
    assert!(begin.elapsed() < Duration::from_secs(9), "one too many is closed at once");
    reported(&mesh, &svid).await.expect("proxies have places of their own");
    end(strangers.remove(0)).await;
    assert!((9..15).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    drop(strangers);
    mesh.enroll("shop/web-1", "shop/web").await;
}

fn last_port(response: &WatchResponse) -> Vec<String> {
    let Some(Body::Endpoints(set)) = &response.upserts[0].body else { panic!("{response:?}") };
    set.endpoints.iter().map(|endpoint| endpoint.address.clone()).filter(|a| !a.contains(".0.1:")).collect()
}

#[tokio::test]
async fn files_may_be_replaced_renamed_and_swapped_by_links() {
    let mesh = Mesh::start(&[("shop.yaml", SHOP)]).await;
    let source = mesh.dir.path().join("source");
    let svid = mesh.enroll("shop/web-1", "shop/web").await;
    let mut stream = Stream::open(&mesh, &svid, "shop/web-1", &[]).await;
    stream.applied().await;
    stream.subscribe(&["destination/host/catalog"]).await;
    stream.applied().await;
    let mut expect = async |what: &str, begin: Instant, addresses: &[&str]| {
        let got = last_port(&stream.applied().await);
        assert_eq!(got, addresses, "{what}");
        assert!(begin.elapsed() < Duration::from_secs(1), "{what}: {:?}", begin.elapsed());
        tokio::time::sleep(Duration::from_millis(150)).await;
    };

    let begin = Instant::now();
    fs::write(source.join(".more.yaml.swp"), catalog("c2", "127.77.2.1")).unwrap();
    fs::rename(source.join(".more.yaml.swp"), source.join("more.yaml")).unwrap();
    expect("a temporary file renamed", begin, &["127.77.2.1:8080"]).await;
    let begin = Instant::now();
    fs::rename(source.join("more.yaml"), source.join("more.yaml~")).unwrap();
    fs::write(source.join("more.yaml"), catalog("c2", "127.77.2.2")).unwrap();
    expect("a backup made first", begin, &["127.77.2.2:8080"]).await;
    let begin = Instant::now();
    fs::create_dir(source.join("deep")).unwrap();
    fs::write(source.join("deep/c3.yml"), catalog("c3", "127.77.2.3")).unwrap();
    expect("a new directory", begin, &["127.77.2.2:8080", "127.77.2.3:8080"]).await;
    let begin = Instant::now();
    fs::remove_dir_all(source.join("deep")).unwrap();
    expect("a directory removed", begin, &["127.77.2.2:8080"]).await;

    // As a ConfigMap is mounted: hidden directories, and a link that is swapped.
    for (version, address) in [("..1", "127.77.2.4"), ("..2", "127.77.2.5")] {
        fs::create_dir(source.join(version)).unwrap();
        fs::write(source.join(version).join("c4.yaml"), catalog("c4", address)).unwrap();
    }
    let begin = Instant::now();
    symlink("..1", source.join("..data")).unwrap();
    symlink("..data/c4.yaml", source.join("c4.yaml")).unwrap();
    expect("a link", begin, &["127.77.2.2:8080", "127.77.2.4:8080"]).await;
    let begin = Instant::now();
    symlink("..2", source.join("..next")).unwrap();
    fs::rename(source.join("..next"), source.join("..data")).unwrap();
    expect("a swapped link", begin, &["127.77.2.2:8080", "127.77.2.5:8080"]).await;

    // The whole directory is replaced by another: what is there then counts.
    let next = mesh.dir.path().join("next");
    fs::create_dir(&next).unwrap();
    fs::write(next.join("shop.yaml"), SHOP).unwrap();
    fs::write(next.join("more.yaml"), catalog("c2", "127.77.2.6")).unwrap();
    fs::rename(&source, mesh.dir.path().join("old")).unwrap();
    fs::rename(&next, &source).unwrap();
    let got = last_port(&stream.applied().await);
    assert_eq!(got, ["127.77.2.6:8080"]);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let begin = Instant::now();
    mesh.write("more.yaml", &catalog("c2", "127.77.2.7"));
    assert_eq!(last_port(&stream.applied().await), ["127.77.2.7:8080"]);
    assert!(begin.elapsed() < Duration::from_millis(500), "notifications work again: {:?}", begin.elapsed());
}

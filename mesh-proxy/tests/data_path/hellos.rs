//! ClientHellos: a peer's are terminated, however they come; an application's own pass, and their name is noted.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use mesh_core::{name::ServicePort, protocol::Protocol};
use mesh_testkit::{
    app::{HttpApp, TcpApp},
    client::Connection,
    net::{PATIENCE, eventually, fresh_addr},
    tls,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::mesh::{Mesh, Pair, endpoint, serves, upstream};

/// Writes one byte at a time.
struct Drops(TcpStream);

impl AsyncWrite for Drops {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, &buf[..buf.len().min(1)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl AsyncRead for Drops {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

#[tokio::test]
async fn a_peers_hello_may_come_in_pieces() {
    let app = TcpApp::start(fresh_addr(0)).await;
    for protocol in [Protocol::Undeclared, Protocol::Opaque] {
        let pair = Pair::start(protocol, app.address(), |_| ()).await;
        let svid = pair.mesh.ca.svid("shop", "client");
        let expected = &pair.server.config.identity;
        let config = tls::mesh_client(&pair.mesh.ca, Some(&svid), Some(expected), &[b"mesh1-tcp"]);
        let stream = TcpStream::connect((pair.server.ip(), 8080)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let name = "peer.test".try_into().unwrap();
        let connected = TlsConnector::from(config).connect(name, Drops(stream));
        let mut stream = timeout(PATIENCE, connected).await.expect("a handshake").unwrap();
        stream.write_all(b"hello").await.unwrap();
        let mut echoed = [0; 5];
        timeout(PATIENCE, stream.read_exact(&mut echoed)).await.expect("an echo").unwrap();
        drop(stream);
        pair.server.counted(&["protocol=\"tcp\"", "secured=\"true\""], 1).await;
    }
}

/// What only begins like TLS is the application's own, byte for byte.
#[tokio::test]
async fn garbage_is_no_hello() {
    let app = TcpApp::start(fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Opaque, app.address(), |_| ()).await;
    let cases: [&[u8]; 5] = [
        b"\x16",
        b"\x16\x03\x01\xff\xff\x01",
        b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00",
        b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
        &[0x16; 20_000],
    ];
    for case in cases {
        let mut stream = TcpStream::connect((pair.server.ip(), 8080)).await.unwrap();
        stream.write_all(case).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut echoed = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut echoed)).await.expect("it ends").unwrap();
        assert_eq!(echoed, case);
    }
    pair.server.counted(&["protocol=\"tcp\"", "secured=\"false\"", "reason=\"\""], cases.len() as u64).await;
}

#[tokio::test]
async fn the_name_that_a_client_asks_for_is_logged() {
    let mesh = Mesh::start().await;
    let app = HttpApp::start_tls("shop", fresh_addr(0), &mesh.ca.web("shop.example")).await;
    let service = ServicePort::new("shop", "web", 8443);
    let (mut near, mut far) = (mesh.workload("client"), mesh.workload("server"));
    serves(&mut far, 8443, Protocol::Opaque, app.address(), &service);
    upstream(&mut near, 17_000, "web:8443");
    mesh.service(&service, Protocol::Opaque, &[endpoint(&far, 8443, Protocol::Opaque)]);
    let _server = mesh.proxy(far, |_| ()).await;
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("access.log");
    let client = mesh.proxy(near, |o| o.access_log = log.to_str().unwrap().to_owned()).await;
    let config = tls::web_client(&mesh.ca, &[b"http/1.1"]);
    let stream = tls::connect((client.ip(), 17_000).into(), "shop.example", config).await.unwrap();
    let response = Connection::http1(stream).await.get("/", "shop.example").await.unwrap();
    assert_eq!(response.status(), 200);
    let logged = || async {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.contains("\"server_name\":\"shop.example\"").then_some(())
    };
    eventually(PATIENCE, "the name is in the log", logged).await;
}

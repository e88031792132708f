//! Which handshakes succeed.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::{ca::Flaw, net::fresh_addr, serve::Served};

const ALPN: &[u8] = b"mesh1-tcp";

/// A server that says one byte to whom it accepts.
async fn server(config: Arc<ServerConfig>) -> Served {
    let acceptor = TlsAcceptor::from(config);
    Served::start(fresh_addr(0), move |stream, _| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let _ = stream.write_u8(7).await;
                let _ = stream.shutdown().await;
            }
        }
    })
    .await
}

async fn reaches(server: &Served, config: Arc<ClientConfig>, name: &str) -> bool {
    match connect(server.address(), name, config).await {
        Ok(mut stream) => stream.read_u8().await.is_ok_and(|byte| byte == 7),
        Err(_) => false,
    }
}

#[tokio::test]
async fn servers_tell_clients_apart() {
    let ca = TestCa::new("cluster.local");
    let id = ca.id("shop", "cart");
    let required =
        server(mesh_server(&ca, &ca.svid("shop", "inventory"), ClientAuth::Required, &[ALPN])).await;
    let with = |svid: &Svid| mesh_client(&ca, Some(svid), None, &[ALPN]);
    assert!(reaches(&required, with(&ca.svid("shop", "cart")), "x").await);
    for flaw in [Flaw::Expired, Flaw::NotYetValid] {
        assert!(!reaches(&required, with(&ca.flawed(&id, flaw)), "x").await, "{flaw:?}");
    }
    let foreign = TestCa::new("cluster.local").svid("shop", "cart");
    assert!(!reaches(&required, with(&foreign), "x").await);
    assert!(!reaches(&required, mesh_client(&ca, None, None, &[ALPN]), "x").await);
    let optional =
        server(mesh_server(&ca, &ca.svid("shop", "inventory"), ClientAuth::Optional, &[ALPN])).await;
    assert!(reaches(&optional, mesh_client(&ca, None, None, &[ALPN]), "x").await);
    assert!(!reaches(&optional, with(&foreign), "x").await);
    assert!(!reaches(&optional, mesh_client(&ca, None, None, &[b"other"]), "x").await, "no common ALPN");
}

#[tokio::test]
async fn clients_tell_servers_apart() {
    let ca = TestCa::new("cluster.local");
    let id = ca.id("shop", "cart");
    let good = server(mesh_server(&ca, &ca.svid("shop", "cart"), ClientAuth::None, &[ALPN])).await;
    assert!(reaches(&good, mesh_client(&ca, None, Some(&id), &[ALPN]), "x").await);
    assert!(!reaches(&good, mesh_client(&ca, None, Some(&ca.id("shop", "job")), &[ALPN]), "x").await);
    let foreign = TestCa::new("cluster.local");
    assert!(!reaches(&good, mesh_client(&foreign, None, None, &[ALPN]), "x").await);
    assert!(reaches(&good, credulous_client(None, &[ALPN]), "x").await);
    for flaw in [Flaw::Expired, Flaw::NotYetValid, Flaw::TwoUris, Flaw::NoSan, Flaw::DnsOnly] {
        let bad = server(mesh_server(&ca, &ca.flawed(&id, flaw), ClientAuth::None, &[ALPN])).await;
        assert!(!reaches(&bad, mesh_client(&ca, None, Some(&id), &[ALPN]), "x").await, "{flaw:?}");
    }
}

#[tokio::test]
async fn the_web_goes_by_dns_names() {
    let ca = TestCa::new("cluster.local");
    let web = server(web_server(&ca.web("app.example"), &[b"http/1.1"])).await;
    assert!(reaches(&web, web_client(&ca, &[b"http/1.1"]), "app.example").await);
    assert!(!reaches(&web, web_client(&ca, &[b"http/1.1"]), "other.example").await);
}

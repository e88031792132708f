//! A caller's proxy knows why its peer refuses an opaque connection, whatever their versions are, and nobody waits for that.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use mesh_core::{
    config::{Endpoint, WorkloadConfig},
    name::ServicePort,
    policy::DefaultAction,
    protocol::Protocol,
};
use mesh_testkit::{
    app::TcpApp,
    ca::TestCa,
    net::{PATIENCE, eventually, fresh_addr},
    serve::Served,
    tls::{self, ClientAuth},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::mesh::{Mesh, Pair, Side, endpoint, upstream};

const TELLS: &[u8] = b"mesh1-tcp-r";
const SILENT: &[u8] = b"mesh1-tcp";

/// What comes back on a connection to the Service until it ends, when this is sent.
async fn exchange(client: &Side, send: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect((client.ip(), 17_000)).await.unwrap();
    // It may be refused before all of it is sent.
    let _ = stream.write_all(send).await;
    let _ = stream.shutdown().await;
    let mut got = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut got)).await.unwrap();
    got
}

#[tokio::test]
async fn both_sides_count_the_reason() {
    for (denied, reason) in [(true, "AUTHZ_DENIED"), (false, "APP_UNAVAILABLE")] {
        let app = TcpApp::start(fresh_addr(0)).await;
        let to = app.address();
        if !denied {
            app.stop().await;
        }
        let change = |client: &mut WorkloadConfig, server: &mut WorkloadConfig| {
            upstream(client, 17_000, "catalog:8080");
            if denied {
                server.policy.default_action = DefaultAction::Deny;
            }
        };
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("access.log");
        let logs = |o: &mut mesh_proxy::config::Options| o.access_log = log.to_str().unwrap().to_owned();
        let pair = Pair::with(Protocol::Opaque, to, logs, change).await;
        // Who waits for the server; who speaks first; who has much to say.
        for send in [0, 5, 3_000_000] {
            assert_eq!(exchange(&pair.client, &vec![b'x'; send]).await, b"");
        }
        let label = format!("reason=\"{reason}\"");
        for side in [&pair.client, &pair.server] {
            side.counted(&[&label, "secured=\"true\""], 3).await;
            assert_eq!(side.requests(&[]).await, 3, "nothing else");
        }
        let logged = || async {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            (text.matches(reason).count() == 3).then_some(())
        };
        eventually(PATIENCE, "the reasons are logged", logged).await;
    }
}

/// A caller's proxy of before gets bytes and nothing else.
#[tokio::test]
async fn a_caller_that_does_not_ask_is_not_told() {
    let app = TcpApp::speaking_first(fresh_addr(0), b"220 hi\r\n").await;
    let pair = Pair::start(Protocol::Opaque, app.address(), |_| ()).await;
    let svid = pair.mesh.ca.svid("shop", "client");
    let expected = &pair.server.config.identity;
    for (alpn, before) in [(&[SILENT][..], &b""[..]), (&[SILENT, TELLS], b"\0"), (&[TELLS], b"\0")] {
        let config = tls::mesh_client(&pair.mesh.ca, Some(&svid), Some(expected), alpn);
        let mut stream = tls::connect((pair.server.ip(), 8080).into(), "peer.test", config).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut got = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut got)).await.expect("it ends").unwrap();
        assert_eq!(got, [before, b"220 hi\r\nhello"].concat());
    }
}

/// A server's proxy that a test plays.
async fn peer<F, Fut>(ca: &TestCa, alpn: &'static [u8], play: F) -> Served
where
    F: Fn(TlsStream<TcpStream>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let config = tls::mesh_server(ca, &ca.svid("shop", "server"), ClientAuth::Required, &[alpn]);
    let acceptor = TlsAcceptor::from(config);
    Served::start(fresh_addr(0), move |stream, _| {
        let (acceptor, play) = (acceptor.clone(), play.clone());
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                play(stream).await;
            }
        }
    })
    .await
}

/// A client whose Service is what stands at this address.
async fn client(mesh: &Mesh, address: SocketAddr) -> Side {
    let service = ServicePort::new("shop", "catalog", 8080);
    let of = endpoint(&mesh.workload("server"), 8080, Protocol::Opaque);
    let address = mesh_core::addr::EndpointAddr(address);
    mesh.service(&service, Protocol::Opaque, &[Endpoint { address, ..of }]);
    let mut near = mesh.workload("client");
    upstream(&mut near, 17_000, "catalog:8080");
    mesh.proxy(near, |_| ()).await
}

/// A peer of before does not tell: its first byte is the application's.
#[tokio::test]
async fn a_peer_that_does_not_tell_is_understood() {
    let mesh = Mesh::start().await;
    let peer = peer(&mesh.ca, SILENT, |mut stream| async move {
        let mut question = [0; 8];
        stream.read_exact(&mut question).await.unwrap();
        stream.write_all(b"\0\x05hello").await.unwrap();
        let _ = stream.shutdown().await;
    })
    .await;
    let client = client(&mesh, peer.address()).await;
    assert_eq!(exchange(&client, b"question").await, b"\0\x05hello");
    client.counted(&["reason=\"\"", "secured=\"true\""], 1).await;
}

/// The caller's bytes go out before the peer has said anything, and the peer's come in whatever they come with.
#[tokio::test]
async fn nobody_waits_for_the_word() {
    let mesh = Mesh::start().await;
    let peer = peer(&mesh.ca, TELLS, |mut stream| async move {
        let mut question = [0; 8];
        stream.read_exact(&mut question).await.unwrap();
        // In one record with the answer, or before it.
        match question[0] {
            b'1' => stream.write_all(b"\0answer").await.unwrap(),
            _ => {
                stream.write_all(b"\0").await.unwrap();
                stream.read_exact(&mut question).await.unwrap();
                stream.write_all(b"answer").await.unwrap();
            }
        }
        let _ = stream.shutdown().await;
    })
    .await;
    let client = client(&mesh, peer.address()).await;
    assert_eq!(exchange(&client, b"1uestion").await, b"answer");
    assert_eq!(exchange(&client, b"2uestionquestion").await, b"answer");
    client.counted(&["reason=\"\""], 2).await;
    assert_eq!(client.metric("mesh_response_bytes_total", &[]).await, 12);
}

/// Reasons that come in pieces, that are not known here, that end before they are whole, and none at all.
#[tokio::test]
async fn whatever_a_peer_says_ends_the_connection() {
    for (said, reason) in [
        (&b"\x0cAUTHZ_DENIED"[..], "AUTHZ_DENIED"),
        (b"\x0aOVERLOADED and more", "OVERLOADED"),
        (b"\x0aFROM_LATER", "UPSTREAM_RESET"),
        (b"\x02\xff\xfe", "UPSTREAM_RESET"),
        (b"\xffshort", "UPSTREAM_RESET"),
        (b"\x0cAUTHZ_", "UPSTREAM_RESET"),
        (b"", "UPSTREAM_RESET"),
    ] {
        let mesh = Mesh::start().await;
        let peer = peer(&mesh.ca, TELLS, move |mut stream| async move {
            for byte in said {
                let _ = stream.write_all(&[*byte]).await;
                let _ = stream.flush().await;
            }
            let _ = stream.shutdown().await;
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        })
        .await;
        let client = client(&mesh, peer.address()).await;
        assert_eq!(exchange(&client, b"question").await, b"", "{reason}");
        client.counted(&[&format!("reason=\"{reason}\"")], 1).await;
    }
}

/// A peer that takes a caller whose ClientHello is late for one without a proxy, and lets its application greet it, is called
/// again; but not for ever.
#[tokio::test]
async fn a_greeting_in_plaintext_is_no_end() {
    for (greetings, reason, connections) in [(2, "", 3), (9, "TLS_HANDSHAKE_FAILED", 3)] {
        let mesh = Mesh::start().await;
        let config =
            tls::mesh_server(&mesh.ca, &mesh.ca.svid("shop", "server"), ClientAuth::Required, &[TELLS]);
        let (acceptor, count) = (TlsAcceptor::from(config), Arc::<AtomicU64>::default());
        let peer = Served::start(fresh_addr(0), move |mut stream, _| {
            let (acceptor, greets) = (acceptor.clone(), count.fetch_add(1, SeqCst) < greetings);
            async move {
                if greets {
                    let _ = stream.write_all(b"220 hi\r\n").await;
                    let _ = stream.read_to_end(&mut Vec::new()).await;
                } else if let Ok(mut stream) = acceptor.accept(stream).await {
                    let _ = stream.write_all(b"\x00220 hi\r\n").await;
                    let _ = stream.shutdown().await;
                }
            }
        })
        .await;
        let client = client(&mesh, peer.address()).await;
        let got = exchange(&client, b"").await;
        assert_eq!(got, if reason.is_empty() { &b"220 hi\r\n"[..] } else { b"" });
        client.counted(&[&format!("reason=\"{reason}\"")], 1).await;
        assert_eq!(peer.accepted(), connections);
    }
}

//! Requests that are carried as bytes reach no application that is declared to speak HTTP: they could say what only
//! proxies may say.

use mesh_core::protocol::Protocol;
use mesh_testkit::{
    app::TcpApp,
    net::{PATIENCE, fresh_addr},
    tls,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use crate::mesh::Pair;

const FORGED: &[u8] =
    b"GET / HTTP/1.1\r\nhost: catalog\r\nmesh-client-id: spiffe://cluster.local/ns/shop/sa/admin\r\n\r\n";
/// As TLS of the application's own begins.
const HELLO: &[u8] = &[22, 3, 1, 0, 5, 1, 0, 0, 1, 3];

/// What comes back from the port when this is sent as bytes over mesh TLS, as its caller's proxy would.
async fn exchange(pair: &Pair, alpn: &[u8], pieces: &[&[u8]]) -> Vec<u8> {
    let svid = pair.mesh.ca.svid("shop", "client");
    let config = tls::mesh_client(&pair.mesh.ca, Some(&svid), Some(&pair.server.config.identity), &[alpn]);
    let mut stream = tls::connect((pair.server.ip(), 8080).into(), "peer.test", config).await.unwrap();
    for piece in pieces {
        // It may be refused before all of it is sent.
        let _ = stream.write_all(piece).await;
        let _ = stream.flush().await;
        tokio::task::yield_now().await;
    }
    let _ = stream.shutdown().await;
    let mut got = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut got)).await.unwrap();
    got
}

#[tokio::test]
async fn nothing_but_tls_goes_as_bytes_to_applications_of_http() {
    for declared in [Protocol::Http1, Protocol::Http2, Protocol::Grpc, Protocol::Opaque] {
        // It sends back what comes.
        let app = TcpApp::start(fresh_addr(0)).await;
        let pair = Pair::start(declared, app.address(), |_| ()).await;
        let open = declared == Protocol::Opaque;
        let (mut sent, mut refused) = (0, 0);
        for (alpn, word) in [(&b"mesh1-tcp"[..], &b""[..]), (b"mesh1-tcp-r", b"\0")] {
            for pieces in [&[FORGED][..], &[b"\r\n\r\n", FORGED], &[b"G", &FORGED[1..]], &[HELLO], &[]] {
                let passes = open || pieces.concat().starts_with(HELLO);
                let expected = if passes { [word, &pieces.concat()].concat() } else { word.to_vec() };
                let got = exchange(&pair, alpn, pieces).await;
                assert_eq!(got, expected, "{declared:?} {alpn:?} {pieces:?}");
                sent += 1;
                refused += u64::from(!passes && !pieces.is_empty());
            }
        }
        pair.server.counted(&["reason=\"BAD_REQUEST\""], refused).await;
        pair.server.counted(&[], sent).await;
    }
}

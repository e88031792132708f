//! Applications that speak HTTP/2 in unusual ways: they are understood, or cut off without harm to others.

use ::h2::server;
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use mesh_core::{protocol::Protocol, reason::Reason};
use mesh_testkit::{
    net::{PATIENCE, eventually, fresh_addr, until},
    serve::Served,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use crate::{
    frames::{DATA, END_HEADERS, HEADERS, RST_STREAM, Raw, SETTINGS, block, frame},
    mesh::{Pair, reason},
    servers::{Two, Way},
};

const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// Answers 304 with the length of what it does not send, and ends each stream in a frame of its own.
async fn not_modified() -> Served {
    Served::start(fresh_addr(0), |stream, _| async move {
        let Ok(mut connection) = server::handshake(stream).await else { return };
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let head = Response::builder().status(304).header("content-length", "1000").body(()).unwrap();
            let mut stream = respond.send_response(head, false).unwrap();
            stream.send_data(Bytes::new(), true).unwrap();
        }
    })
    .await
}

#[tokio::test]
async fn a_304_with_a_length_may_end_in_a_frame_of_its_own() {
    let app = not_modified().await;
    let pair = Pair::start(Protocol::Http2, app.address(), |_| ()).await;
    let mut connection = pair.client.http2().await;
    for _ in 0..5 {
        let response = connection.get("/", "catalog").await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
        assert!(response.body().is_empty());
    }
}

/// On a connection that goes on, a caller of HTTP/1 would wait for the end of what has none.
#[tokio::test]
async fn a_response_that_ends_with_its_head_has_a_length_over_http1() {
    let app = Served::start(fresh_addr(0), |stream, _| async move {
        let Ok(mut connection) = server::handshake(stream).await else { return };
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            respond.send_response(Response::new(()), true).unwrap();
        }
    })
    .await;
    let pair = Pair::start(Protocol::Http2, app.address(), |_| ()).await;
    let mut connection = pair.client.http1().await;
    for _ in 0..2 {
        let response = timeout(PATIENCE, connection.get("/", "catalog")).await.unwrap().unwrap();
        assert_eq!((response.status(), response.body().len()), (StatusCode::OK, 0));
        assert_eq!(response.headers()["content-length"], "0");
    }
}

/// What a server floods a request's connection with: what it says first, and what it repeats.
type Flood = (&'static str, fn(u32) -> Vec<u8>, fn(u32) -> Vec<u8>);

const OK: u8 = 0x88;

const FLOODS: &[Flood] = &[
    ("PING", |_| Vec::new(), |_| frame(PING, 0, 0, &[0; 8])),
    ("SETTINGS", |_| Vec::new(), |_| frame(SETTINGS, 0, 0, &[])),
    ("unknown frames", |_| Vec::new(), |_| frame(200, 0, 0, b"x")),
    ("WINDOW_UPDATE", |_| Vec::new(), |stream| frame(WINDOW_UPDATE, 0, stream, &[0, 0, 0, 1])),
    ("empty DATA", |stream| frame(HEADERS, END_HEADERS, stream, &[OK]), |stream| frame(DATA, 0, stream, &[])),
    ("RST_STREAM", |_| Vec::new(), |stream| frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])),
    (
        "CONTINUATION",
        |stream| frame(HEADERS, 0, stream, &[OK]),
        |stream| frame(CONTINUATION, 0, stream, &block(&[(b"x-more", b"1")])),
    ),
];

/// A server that floods the connection of its first request until that is cut.
async fn floods((_, first, then): Flood) -> Served {
    Served::start(fresh_addr(0), move |stream, _| async move {
        let Some(mut raw) = Raw::accepted(stream, &[]).await else { return };
        let Some(stream) = raw.request().await else { return };
        let many = then(stream).repeat(1000);
        let (mut read, mut write) = raw.stream.split();
        let mut buffer = vec![0; 65_536];
        let reading = async { while !matches!(read.read(&mut buffer).await, Ok(0) | Err(_)) {} };
        let writing = async {
            let _ = write.write_all(&first(stream)).await;
            while write.write_all(&many).await.is_ok() {}
        };
        tokio::select! {
            () = reading => {}
            () = writing => {}
        }
    })
    .await
}

/// Cut off, counted where it was called from, and others are served meanwhile.
#[tokio::test]
async fn a_server_that_floods_is_cut_off_and_counted() {
    for flood in FLOODS {
        for (way, direction) in [(Way::Sidecar, "inbound"), (Way::Unsecured, "outbound")] {
            let (what, app) = (format!("{} {direction}", flood.0), floods(*flood).await);
            let two = Two::start(Protocol::Http2, app.address(), way, |_| ()).await;
            let mut connection = two.connect().await;
            // In turn, the good one and the bad one. Of that no response comes, or no end of it.
            for _ in 0..4 {
                let sent = connection.send(two.request(&Method::GET));
                match timeout(PATIENCE, sent).await.expect("it is cut off") {
                    Ok(response) if response.status() == StatusCode::OK => {}
                    Ok(response) => assert_eq!(reason(&response), Some(Reason::UpstreamReset), "{what}"),
                    Err(error) => {
                        assert!(error.is_body_write_aborted() || !error.is_closed(), "{what}: {error:?}")
                    }
                }
            }
            assert!(two.good.requests() >= 1, "{what}: nobody else is harmed");
            until(&what, || app.accepted() >= 1 && app.open() == 0).await;
            let side = two.sides.first().unwrap_or(&two.client);
            let labels = [&*format!("direction=\"{direction}\""), "reason=\"LIMIT_EXCEEDED\""];
            let counted = || async { (side.metric("mesh_refused_total", &labels).await >= 1).then_some(()) };
            eventually(PATIENCE, &what, counted).await;
        }
    }
}

/// Frames that break HTTP/2 end the connection, and are counted as the server's.
#[tokio::test]
async fn a_server_that_does_not_keep_to_http2_is_counted() {
    for (what, broken) in [
        ("DATA without a stream", frame(DATA, 0, 0, b"x")),
        ("fields that nobody can read", frame(HEADERS, END_HEADERS, 1, &[0xff; 20])),
        ("a long PING", frame(PING, 0, 0, &[0; 9])),
    ] {
        let app = Served::start(fresh_addr(0), move |stream, _| {
            let broken = broken.clone();
            async move {
                let Some(mut raw) = Raw::accepted(stream, &[]).await else { return };
                if raw.request().await.is_some() && raw.stream.write_all(&broken).await.is_ok() {
                    while raw.next().await.is_some() {}
                }
            }
        })
        .await;
        let pair = Pair::start(Protocol::Http2, app.address(), |_| ()).await;
        let response = pair.client.http2().await.get("/", "catalog").await.unwrap();
        let told = (response.status(), reason(&response));
        assert_eq!(told, (StatusCode::BAD_GATEWAY, Some(Reason::UpstreamReset)), "{what}");
        let labels = ["direction=\"inbound\"", "reason=\"UPSTREAM_PROTOCOL_ERROR\""];
        let side = &pair.server;
        let counted = || async { (side.metric("mesh_refused_total", &labels).await == 1).then_some(()) };
        eventually(PATIENCE, what, counted).await;
    }
}

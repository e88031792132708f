//! Applications that speak HTTP/2 in unusual ways: they are understood, or cut off without harm to others.

use std::time::Duration;

use ::h2::server;
use bytes::Bytes;
use http::{Response, StatusCode};
use mesh_core::{protocol::Protocol, reason::Reason};
use mesh_testkit::{
    net::{PATIENCE, fresh_addr},
    serve::Served,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use crate::{
    frames::{SETTINGS, frame},
    mesh::{Pair, reason},
};

const PING: u8 = 6;

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

#[tokio::test]
async fn an_application_that_floods_is_cut_off() {
    let app = Served::start(fresh_addr(0), |mut stream, _| async move {
        let pings = frame(PING, 0, 0, &[0; 8]).repeat(1000);
        let mut buffer = vec![0; 65_536];
        if stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.is_err() {
            return;
        }
        let (mut read, mut write) = stream.split();
        let reading = async { while !matches!(read.read(&mut buffer).await, Ok(0) | Err(_)) {} };
        let writing = async { while write.write_all(&pings).await.is_ok() {} };
        tokio::select! {
            () = reading => {}
            () = writing => {}
        }
    })
    .await;
    let pair = Pair::start(Protocol::Http2, app.address(), |_| ()).await;
    let mut connection = pair.client.http2().await;
    let response = timeout(PATIENCE * 2, connection.get("/", "catalog")).await.expect("it is cut off");
    let response = response.unwrap();
    assert_eq!(
        (response.status(), reason(&response)),
        (StatusCode::BAD_GATEWAY, Some(Reason::UpstreamReset))
    );
    let ended = async {
        while app.open() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE * 2, ended).await.expect("its connection is closed");
}

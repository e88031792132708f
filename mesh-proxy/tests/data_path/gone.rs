//! Servers that are gone when what was sent to them is to be sent again.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::SeqCst},
};

use http::{Method, StatusCode};
use mesh_core::{protocol::Protocol, reason::Reason};
use mesh_testkit::{
    net::{PATIENCE, fresh_addr, until},
    serve::Served,
};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::{
    frames::{ACK, END_HEADERS, END_STREAM, Field, GOAWAY, HEADERS, Raw, SETTINGS, frame, headers},
    mesh::reason,
    servers::{Two, Way},
};

async fn read_head(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(())
}

/// A server that takes one connection, answers the first request, and breaks off within the second.
async fn one_answer() -> std::net::SocketAddr {
    let listener = TcpListener::bind(fresh_addr(0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        drop(listener);
        read_head(&mut stream).await?;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
        read_head(&mut stream).await?;
        SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO))
    });
    address
}

/// It may have been processed before the connection broke: that the next one cannot be made changes nothing about it.
#[tokio::test]
async fn what_was_sent_once_is_not_called_unsent() {
    for way in [Way::Sidecar, Way::Unsecured] {
        let two = Two::start(Protocol::Http1, one_answer().await, way, |_| ()).await;
        let (mut connection, mut failed) = (two.connect().await, 0);
        for _ in 0..4 {
            let response = connection.send(two.request(&Method::DELETE)).await.unwrap();
            if response.status() != StatusCode::OK {
                let told = (response.status(), reason(&response));
                assert_eq!(told, (StatusCode::BAD_GATEWAY, Some(Reason::UpstreamReset)), "{way:?}");
                failed += 1;
            }
        }
        assert_eq!((failed, two.good.requests()), (1, 2), "{way:?}: it went nowhere else");
    }
}

/// A server of HTTP/2 that counts requests and answers none, until it is told to: then it says on all its connections that
/// they end, and answers what comes on others.
async fn holds(seen: &Arc<AtomicU64>, told: watch::Receiver<bool>) -> Served {
    let seen = Arc::clone(seen);
    Served::start(fresh_addr(0), move |stream, _| {
        let (seen, mut told) = (Arc::clone(&seen), told.clone());
        async move {
            let answers = *told.borrow_and_update();
            let Some(mut raw) = Raw::accepted(stream, &[]).await else { return };
            loop {
                let out = tokio::select! {
                    next = raw.next() => match next {
                        Some((SETTINGS, 0, ..)) => frame(SETTINGS, ACK, 0, &[]),
                        // `:status: 200` in the static table.
                        Some((HEADERS, _, id, _)) if answers => {
                            frame(HEADERS, END_HEADERS | END_STREAM, id, &[0x88])
                        }
                        Some((HEADERS, ..)) => {
                            seen.fetch_add(1, SeqCst);
                            continue;
                        }
                        Some(_) => continue,
                        None => return,
                    },
                    _ = told.changed() => {
                        frame(GOAWAY, 0, 0, &[i32::MAX.to_be_bytes(), [0; 4]].concat())
                    }
                };
                if raw.stream.write_all(&out).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

/// A connection takes no more streams than its window has room for; when all that there are end, another one is made.
#[tokio::test]
async fn connections_are_as_many_as_are_needed() {
    let seen = Arc::<AtomicU64>::default();
    let (tell, told) = watch::channel(false);
    let app = holds(&seen, told).await;
    let two = Two::start(Protocol::Http2, app.address(), Way::Unsecured, |_| ()).await;
    two.mesh.endpoints(&two.service, std::slice::from_ref(&two.bad));
    let get: [Field<'_>; 4] =
        [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"catalog"), (b":path", b"/")];
    let mut callers = Vec::new();
    for count in 1..=9 {
        let mut raw = Raw::connect(two.client.proxy.addresses().outbound).await;
        let calls: Vec<_> = (0..50).map(|n| headers(2 * n + 1, true, &get)).collect();
        assert!(raw.send(&calls.concat(), PATIENCE).await);
        callers.push(raw);
        until("all have arrived", || seen.load(SeqCst) == 50 * count).await;
    }
    assert_eq!(app.accepted(), 5, "with 450 streams");
    tell.send_replace(true);
    // Whichever connection it would have been for, and whether the end was heard already.
    for _ in 0..3 {
        let response = two.connect().await.send(two.request(&Method::GET)).await.unwrap();
        assert_eq!((response.status(), reason(&response)), (StatusCode::OK, None));
    }
    assert_eq!((app.accepted(), app.open()), (6, 6), "none has ended");
}

//! Peers that want to keep a proxy busy or make it grow: they are cut off or held, counted, and nobody else notices.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use http::StatusCode;
use mesh_core::protocol::Protocol;
use mesh_proxy::config::Http1Transport;
use mesh_testkit::{
    app::HttpApp,
    net::{PATIENCE, eventually, fresh_addr},
    serve::Served,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    frames::{DATA, Field, HEADERS, RST_STREAM, Raw, SETTINGS, block, frame, headers},
    mesh::{Pair, Side},
};

const PRIORITY: u8 = 2;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const REQUEST: [Field<'_>; 4] = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":authority", b"catalog"),
    (b":path", b"/?delay_ms=2000"),
];

/// What one flood repeats: bytes by the number of the turn.
type Turn = fn(u32) -> Vec<u8>;

const FLOODS: &[(&str, Turn)] = &[
    ("PING", |_| frame(PING, 0, 0, &[0; 8])),
    ("SETTINGS", |_| frame(SETTINGS, 0, 0, &[])),
    ("full SETTINGS", |n| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, n as u8])),
    ("PRIORITY", |n| frame(PRIORITY, 0, n * 2 + 1, &[0, 0, 0, 0, 1])),
    ("WINDOW_UPDATE", |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
    ("unknown frames", |_| frame(200, 0, 0, b"x")),
    ("rapid reset", |n| {
        [headers(n * 2 + 1, true, &REQUEST), frame(RST_STREAM, 0, n * 2 + 1, &[0, 0, 0, 8])].concat()
    }),
    ("empty DATA", |n| match n {
        0 => headers(1, false, &REQUEST),
        _ => frame(DATA, 0, 1, &[]),
    }),
    ("padded empty DATA", |n| match n {
        0 => headers(1, false, &REQUEST),
        _ => frame(DATA, 8, 1, &[0]),
    }),
    ("CONTINUATION", |n| match n {
        0 => frame(HEADERS, 1, 1, &block(&REQUEST)),
        _ => frame(CONTINUATION, 0, 1, &block(&[(b"x-more", b"1")])),
    }),
    ("empty CONTINUATION", |n| match n {
        0 => frame(HEADERS, 1, 1, &block(&REQUEST)),
        _ => frame(CONTINUATION, 0, 1, &[]),
    }),
    // A field of 4,000 bytes is put into the table once, and named by one byte from then on.
    ("HPACK bomb", |n| match n {
        0 => {
            let mut fields = block(&REQUEST);
            fields.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
            fields.extend([b'y'; 4000]);
            frame(HEADERS, 5, 1, &fields)
        }
        _ => frame(HEADERS, 5, n * 2 + 1, &[block(&REQUEST), vec![0xbe; 16_000]].concat()),
    }),
    // Every field is one more than the list may have.
    ("many streams with too large heads", |n| {
        let fields: Vec<Field<'_>> = (0..400).map(|_| (&b"x-some-field"[..], &[b'y'; 20][..])).collect();
        [frame(HEADERS, 1, n * 2 + 1, &block(&REQUEST)), {
            let more = block(&fields);
            let parts: Vec<Vec<u8>> = (0..9).map(|_| frame(CONTINUATION, 0, n * 2 + 1, &more)).collect();
            [parts.concat(), frame(CONTINUATION, 4, n * 2 + 1, &[])].concat()
        }]
        .concat()
    }),
];

/// Sends turn after turn and reads what comes; true when the peer ends the connection.
async fn is_cut(to: SocketAddr, turn: Turn) -> bool {
    let raw = Raw::connect(to).await;
    let (mut read, mut write) = raw.stream.into_split();
    let reading = tokio::spawn(async move {
        let mut buffer = vec![0; 65_536];
        while !matches!(read.read(&mut buffer).await, Ok(0) | Err(_)) {}
    });
    for batch in 0..400_u32 {
        let bytes: Vec<u8> = (0..50).flat_map(|n| turn(batch * 50 + n)).collect();
        match timeout(PATIENCE, write.write_all(&bytes)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return timeout(PATIENCE, reading).await.is_ok(),
            // Held: it takes nothing more.
            Err(_) => return false,
        }
    }
    timeout(Duration::from_secs(2), reading).await.is_ok()
}

async fn limited(side: &Side) -> u64 {
    side.metric("mesh_refused_total", &["reason=\"LIMIT_EXCEEDED\""]).await
}

#[tokio::test]
async fn floods_are_cut_off_and_counted() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http2, app.address(), |_| ()).await;
    let mut failures = Vec::new();
    let inbound = (pair.server.ip(), 8080).into();
    for (to, side) in [(inbound, &pair.server), (pair.client.proxy.addresses().outbound, &pair.client)] {
        let mut other = pair.client.http1().await;
        for (name, turn) in FLOODS {
            let before = limited(side).await;
            if !is_cut(to, *turn).await {
                failures.push(format!("{name}: not cut off by {}", side.config.workload));
            }
            let counted = || async { (limited(side).await > before).then_some(()) };
            if timeout(Duration::from_secs(2), eventually(PATIENCE, name, counted)).await.is_err() {
                failures.push(format!("{name}: not counted by {}", side.config.workload));
            }
            let response = other.get("/", "catalog").await.unwrap();
            assert_eq!(response.status(), StatusCode::OK, "after {name}");
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// An application that sends without end, or takes nothing but heads. It counts what it could send.
async fn endless(sends: bool, sent: Arc<AtomicU64>) -> Served {
    Served::start(fresh_addr(0), move |mut stream, _| {
        let sent = Arc::clone(&sent);
        async move {
            let mut head = Vec::new();
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            if !sends {
                return sleep(Duration::from_secs(600)).await;
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            let chunk = [b"4000\r\n".as_slice(), &[b'x'; 0x4000], b"\r\n"].concat();
            while stream.write_all(&chunk).await.is_ok() {
                sent.fetch_add(0x4000, SeqCst);
            }
        }
    })
    .await
}

/// Waits until a count stands still.
async fn settled(count: &AtomicU64) -> u64 {
    let mut before = u64::MAX;
    for _ in 0..100 {
        sleep(Duration::from_millis(300)).await;
        let now = count.load(SeqCst);
        if now == before {
            return now;
        }
        before = now;
    }
    u64::MAX
}

/// What windows, socket buffers of the kernel on six sockets, and the proxies' own buffers hold.
const HELD: u64 = 40 * 1024 * 1024;

/// A caller that never reads makes the application wait, not the proxies grow.
#[tokio::test]
async fn a_caller_that_never_reads_holds_the_application_back() {
    for transport in [Http1Transport::H1, Http1Transport::H1OverH2] {
        let sent = Arc::<AtomicU64>::default();
        let app = endless(true, Arc::clone(&sent)).await;
        let pair = Pair::start(Protocol::Http1, app.address(), |o| o.http1_transport = transport).await;
        let outbound = pair.client.proxy.addresses().outbound;
        let mut old = TcpStream::connect(outbound).await.unwrap();
        old.write_all(b"GET / HTTP/1.1\r\nHost: catalog\r\n\r\n").await.unwrap();
        let mut new = Raw::connect(outbound).await;
        let get = [(&b":method"[..], &b"GET"[..]), REQUEST[1], REQUEST[2], (b":path", b"/")];
        // The stream's window is as large as can be; it is the reading that lacks.
        new.send(&frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]), PATIENCE).await;
        new.send(&frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0]), PATIENCE).await;
        new.send(&headers(1, true, &get), PATIENCE).await;
        let held = settled(&sent).await;
        assert!((1..HELD).contains(&held), "{transport:?}: {held}");
        // Nobody else is held.
        drop((old, new));
    }
}

/// An application that never reads makes the caller wait.
#[tokio::test]
async fn an_application_that_never_reads_holds_the_caller_back() {
    for transport in [Http1Transport::H1, Http1Transport::H1OverH2] {
        let app = endless(false, Arc::default()).await;
        let pair = Pair::start(Protocol::Http1, app.address(), |o| o.http1_transport = transport).await;
        let mut stream = TcpStream::connect(pair.client.proxy.addresses().outbound).await.unwrap();
        let head = b"POST / HTTP/1.1\r\nHost: catalog\r\nContent-Length: 10000000000\r\n\r\n";
        stream.write_all(head).await.unwrap();
        let piece = vec![b'x'; 65_536];
        let mut taken = 0;
        while let Ok(Ok(count)) = timeout(Duration::from_secs(1), stream.write(&piece)).await {
            taken += count as u64;
            assert!(taken < HELD, "{transport:?}");
        }
        assert!(taken > 0);
        let body = pair.client.metric("mesh_connections_active", &["direction=\"outbound\""]).await;
        assert_eq!(body, 1, "it is held, not cut");
    }
}

/// Many heads that never end take nothing from others, and connections whose peer is gone do not stay.
#[tokio::test]
async fn half_heads_harm_nobody() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http1, app.address(), |_| ()).await;
    let inbound: SocketAddr = (pair.server.ip(), 8080).into();
    let mut slow = Vec::new();
    for _ in 0..300 {
        let mut stream = TcpStream::connect(inbound).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: catalog\r\nx-slow: ").await.unwrap();
        slow.push(stream);
    }
    for stream in &mut slow {
        stream.write_all(b"y").await.unwrap();
    }
    assert_eq!(pair.client.http1().await.get("/", "catalog").await.unwrap().status(), StatusCode::OK);
    assert_eq!(app.requests(), 1);
    drop(slow);
    let active = ["direction=\"inbound\""];
    let few = || async { (pair.server.metric("mesh_connections_active", &active).await <= 1).then_some(()) };
    eventually(PATIENCE, "half heads are forgotten", few).await;
}

/// A head that never ends does in time, and is counted; a connection that was idle is just closed.
#[tokio::test]
async fn half_heads_end() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let mesh = crate::mesh::Mesh::start().await;
    let service = mesh_core::name::ServicePort::new("shop", "catalog", 8080);
    let mut config = mesh.workload("server");
    crate::mesh::serves(&mut config, 8080, Protocol::Http1, app.address(), &service);
    let server = mesh.proxy(config, |o| o.head_timeout = "1s".to_owned()).await;
    let inbound: SocketAddr = (server.ip(), 8080).into();
    let mut idle = TcpStream::connect(inbound).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nHost: catalog\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    timeout(PATIENCE, idle.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert!(rest.starts_with(b"HTTP/1.1 200 "));
    let stalled = ["reason=\"REQUEST_STALLED\""];
    assert_eq!(server.metric("mesh_refused_total", &stalled).await, 0);

    let mut slow = TcpStream::connect(inbound).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: catalog\r\n").await.unwrap();
    let trickling = async {
        while slow.write_all(b"x: y\r\n").await.is_ok() {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, trickling).await.unwrap();
    assert_eq!((server.metric("mesh_refused_total", &stalled).await, app.requests()), (1, 1));
}

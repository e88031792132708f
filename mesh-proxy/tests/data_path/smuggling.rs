//! A request that two readers could read differently is refused, or the next one gets exactly one message, framed
//! anew. Every case runs through the inbound proxy alone and through both proxies, against a backend that records.

use std::{net::SocketAddr, time::Duration};

use mesh_core::protocol::Protocol;
use mesh_proxy::config::Http1Transport;
use mesh_testkit::net::PATIENCE;

use crate::{
    corpus::{
        smuggling::{Bytes, CHUNKS, Case, Expect, FIELDS, FRAMING, LENGTHS, SMUGGLED, TARGETS},
        smuggling_h2,
    },
    frames::{DATA, END_STREAM, End, Raw, frame, headers},
    mesh::{Pair, Side},
    raw::{Arrived, Backend, send},
};

const ALL: [&[Case]; 5] = [FRAMING, LENGTHS, CHUNKS, TARGETS, FIELDS];

/// Refusals that a proxy has counted.
pub(crate) async fn refusals(side: &Side) -> u64 {
    let all = side.requests(&[]).await;
    side.metric("mesh_refused_total", &[]).await + all - side.requests(&["reason=\"\""]).await
}

fn bytes_of(sent: Bytes) -> Vec<u8> {
    match sent {
        Bytes::Whole(bytes) => bytes.to_vec(),
        Bytes::Head(rest) => [b"POST /case HTTP/1.1\r\n", rest].concat(),
        Bytes::After(rest) => [b"POST /case HTTP/1.1\r\nHost: catalog\r\n", rest].concat(),
    }
}

/// Says what is wrong with what became of a case.
pub(crate) fn verdict(expect: Expect, arrived: &[Arrived], answer: &str) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{what}\n  answer: {answer:?}\n  arrived: {arrived:?}"));
    if arrived.iter().any(Result::is_err) {
        return wrong("malformed bytes arrived");
    }
    let messages: Vec<_> = arrived.iter().flatten().collect();
    if messages.iter().any(|message| message.target.contains(SMUGGLED)) {
        return wrong("a request was smuggled");
    }
    match (expect, &messages[..]) {
        (Expect::Refused, []) if answer.is_empty() || answer.starts_with("HTTP/1.1 4") => Ok(()),
        (Expect::Once(body), [message]) if message.body == body => {
            let hop = ["connection", "upgrade", "http2-settings", "te"];
            match hop.iter().any(|name| message.field(name).is_some()) {
                true => wrong("a field for one hop arrived"),
                false => Ok(()),
            }
        }
        _ => wrong(&format!("not {expect:?}")),
    }
}

async fn is_counted(side: &Side, before: u64) -> bool {
    for _ in 0..100 {
        if refusals(side).await > before {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

/// Runs all cases on `to`; `first` is the proxy that must count what is refused.
async fn run(to: SocketAddr, first: &Side, backend: &Backend) {
    let mut failures = Vec::new();
    for (name, sent, expect) in ALL.into_iter().flatten() {
        let before = refusals(first).await;
        let answer = send(to, &bytes_of(*sent)).await;
        if let Err(wrong) = verdict(*expect, &backend.take(), &answer) {
            failures.push(format!("{name}: {wrong}"));
        }
        if *expect == Expect::Refused && !is_counted(first, before).await {
            failures.push(format!("{name}: not counted: {answer}"));
        }
        // Nothing is left on the connections to the backend.
        let probe = send(to, b"GET /probe HTTP/1.1\r\nHost: catalog\r\n\r\n").await;
        match &backend.take()[..] {
            [Ok(message)] if message.target == "/probe" && probe.starts_with("HTTP/1.1 200") => {}
            arrived => failures.push(format!("after {name}: {probe} {arrived:?}")),
        }
    }
    assert!(failures.is_empty(), "{} of them\n{}", failures.len(), failures.join("\n"));
}

#[tokio::test]
async fn inbound_alone_forwards_nothing_ambiguous() {
    let backend = Backend::start().await;
    let pair = Pair::start(Protocol::Http1, backend.address(), |_| ()).await;
    run((pair.server.ip(), 8080).into(), &pair.server, &backend).await;
}

#[tokio::test]
async fn both_sides_forward_nothing_ambiguous() {
    for transport in [Http1Transport::H1, Http1Transport::H1OverH2] {
        let backend = Backend::start().await;
        let pair = Pair::start(Protocol::Http1, backend.address(), |o| o.http1_transport = transport).await;
        run(pair.client.proxy.addresses().outbound, &pair.client, &backend).await;
    }
}

/// One case of HTTP/2, on a connection of its own.
async fn send_h2(to: SocketAddr, (_, fields, body, trailers, _): smuggling_h2::Case) -> End {
    let mut raw = Raw::connect(to).await;
    let last = if trailers.is_empty() { END_STREAM } else { 0 };
    let mut bytes = headers(1, body.is_empty(), fields);
    if !body.is_empty() {
        bytes.extend(frame(DATA, last, 1, body));
    }
    if !trailers.is_empty() {
        bytes.extend(headers(1, true, trailers));
    }
    raw.send(&bytes, PATIENCE).await;
    raw.end_of(1).await
}

async fn run_h2(to: SocketAddr, first: &Side, backend: &Backend) {
    let mut failures = Vec::new();
    for case in smuggling_h2::CASES {
        let (name, .., expect) = *case;
        let before = refusals(first).await;
        let end = send_h2(to, *case).await;
        if let Err(wrong) = verdict(expect, &backend.take(), "") {
            failures.push(format!("{name}: {end:?}: {wrong}"));
        }
        if expect == Expect::Refused && !is_counted(first, before).await {
            failures.push(format!("{name}: not counted: {end:?}"));
        }
    }
    assert!(failures.is_empty(), "{} of them\n{}", failures.len(), failures.join("\n"));
}

#[tokio::test]
async fn nothing_ambiguous_comes_from_http2() {
    let backend = Backend::start().await;
    let pair = Pair::start(Protocol::Http1, backend.address(), |_| ()).await;
    run_h2((pair.server.ip(), 8080).into(), &pair.server, &backend).await;
    run_h2(pair.client.proxy.addresses().outbound, &pair.client, &backend).await;
}

#[test]
fn the_corpus_is_large() {
    let cases = ALL.iter().map(|part| part.len()).sum::<usize>();
    assert!(cases >= 60, "{cases}");
}

//! Counting.

use mesh_core::protocol::Protocol;

use super::*;

fn key(service: u16) -> EdgeKey {
    let service = mesh_core::name::ServicePort::new("shop", "cart", service);
    EdgeKey { service: Some(service), protocol: Protocol::Http1, ..EdgeKey::unknown(Direction::Outbound) }
}

fn outcome(status: Option<u16>, reason: Option<Reason>) -> Outcome {
    let failed = reason.is_some();
    Outcome { status, failed, reason, micros: 100, request_bytes: 10, response_bytes: 20, retries: 0 }
}

#[test]
fn shards_add_up() {
    let shards = [Arc::new(Shard::new()), Arc::new(Shard::new())];
    for shard in &shards {
        let edge = shard.edge(&key(80));
        edge.connection();
        edge.finished(&outcome(Some(200), None));
        edge.finished(&outcome(Some(403), Some(Reason::AuthzDenied)));
        edge.finished(&outcome(None, Some(Reason::ClientDisconnected)));
    }
    let sums = sum(&shards);
    let counts = &sums[&key(80)];
    assert_eq!((counts.totals.requests, counts.totals.failures, counts.totals.connections), (6, 4, 2));
    assert_eq!((counts.totals.request_bytes, counts.totals.response_bytes), (60, 120));
    assert_eq!(counts.totals.status_classes, [0, 2, 0, 2, 0]);
    assert_eq!((counts.totals.latency.count(), counts.totals.latency.sum_micros()), (6, 600));
    assert_eq!(counts.by_reason[&(4, Reason::AuthzDenied)], 2);
    assert_eq!(counts.by_reason[&(0, Reason::ClientDisconnected)], 2);
}

#[test]
fn beyond_the_limit_edges_overflow() {
    let shard = Shard::new();
    for port in 0..3000 {
        shard.edge(&key(port)).connection();
    }
    let sums = sum(&[Arc::new(shard)]);
    assert_eq!(sums.len(), MAX_EDGES + 1);
    assert_eq!(sums[&EdgeKey::unknown(Direction::Outbound)].totals.connections, 1000);
}

#[test]
fn idle_edges_expire_unless_held() {
    let shards = [Arc::new(Shard::new())];
    let held = shards[0].edge(&key(1));
    shards[0].edge(&key(2)).connection();
    for _ in 0..3 {
        assert_eq!(sum(&shards).len(), 2);
        expire(&shards, 3);
    }
    expire(&shards, 3);
    assert_eq!(sum(&shards).keys().collect::<Vec<_>>(), [&key(1)]);
    held.connection();
}

#[test]
fn active_and_refused_are_counted_by_direction() {
    let shard = Shard::new();
    shard.connection_opened(Direction::Inbound);
    shard.connection_opened(Direction::Inbound);
    shard.connection_closed(Direction::Inbound);
    shard.refused(Direction::Inbound, Reason::TlsRequired);
    assert_eq!((shard.active(Direction::Inbound), shard.active(Direction::Outbound)), (1, 0));
    assert_eq!(shard.refusals(Direction::Inbound).collect::<Vec<_>>(), [(Reason::TlsRequired, 1)]);
    assert_eq!(shard.refusals(Direction::Outbound).count(), 0);
}

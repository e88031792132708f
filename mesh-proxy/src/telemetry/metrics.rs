//! Metrics as Prometheus reads them (OpenMetrics text format 1.0).

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, SystemTime},
};

use mesh_core::{
    edge::{Direction, EdgeKey},
    histogram::{Histogram, upper_bound},
    reason::Reason,
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabel as _, EncodeLabelSet, LabelSetEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use super::{EdgeCounts, LeftOut, Telemetry, access_log::AccessLog};
use crate::control::Control;

/// Content type of the text.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of the exported buckets, in seconds.
const BOUNDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The registry.
pub(crate) struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// Reads from these at every scrape.
    pub(crate) fn new(telemetry: Telemetry, control: Control, access_log: AccessLog) -> Self {
        let mut registry = Registry::with_prefix("mesh");
        registry.register_collector(Box::new(Source { telemetry, control, access_log }));
        Self { registry }
    }

    /// The text of one scrape.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String fails only when a collector does, and ours does not.
        let _written = text::encode(&mut text, &self.registry);
        text
    }
}

struct Source {
    telemetry: Telemetry,
    control: Control,
    access_log: AccessLog,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

impl Collector for Source {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let edges = self.telemetry.edges();
        encode_requests(&mut encoder, &edges)?;
        encode_durations(&mut encoder, &edges)?;
        let help = "Bytes from caller to callee";
        encode_counts(&mut encoder, &edges, ("request", help, Some(Unit::Bytes)), |c| {
            c.totals.request_bytes
        })?;
        let help = "Bytes from callee to caller";
        encode_counts(&mut encoder, &edges, ("response", help, Some(Unit::Bytes)), |c| {
            c.totals.response_bytes
        })?;
        encode_counts(&mut encoder, &edges, ("connections", "Connections opened", None), |c| {
            c.totals.connections
        })?;
        let help = "Requests that were sent again after a try on this edge failed";
        encode_counts(&mut encoder, &edges, ("retries", help, None), |c| c.retries)?;
        self.encode_connections(&mut encoder)?;
        self.encode_state(&mut encoder)
    }
}

impl Source {
    fn encode_connections(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let directions = [Direction::Outbound, Direction::Inbound];
        let shards = self.telemetry.shards();
        let help = "Accepted connections that are open";
        let mut family = encoder.encode_descriptor("connections_active", help, None, MetricType::Gauge)?;
        for direction in directions {
            let active: u64 = shards.iter().map(|shard| shard.active(direction)).sum();
            family.encode_family(&[("direction", direction.as_str())])?.encode_gauge(&active)?;
        }
        let help = "Copies of requests that routes ask for";
        let mut family = encoder.encode_descriptor("mirrored", help, None, MetricType::Counter)?;
        for (at, result) in ["dropped", "sent"].into_iter().enumerate() {
            let count: u64 = shards.iter().filter_map(|shard| shard.copies().get(at).copied()).sum();
            family
                .encode_family(&[("result", result)])?
                .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        let help = "Connections refused before their edge was known";
        let mut family = encoder.encode_descriptor("refused", help, None, MetricType::Counter)?;
        for direction in directions {
            let mut sums: BTreeMap<Reason, u64> = BTreeMap::new();
            for (reason, count) in shards.iter().flat_map(|shard| shard.refusals(direction)) {
                *sums.entry(reason).or_default() += count;
            }
            for (reason, count) in sums {
                let labels = [("direction", direction.as_str()), ("reason", reason.code())];
                family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        let help = "Times that an endpoint was left out, because its calls or its health checks failed";
        let mut family = encoder.encode_descriptor("endpoints_left_out", help, None, MetricType::Counter)?;
        for cause in LeftOut::ALL {
            let count: u64 = shards.iter().map(|shard| shard.times_left_out(cause)).sum();
            let labels = [("cause", cause.as_str())];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }

    fn encode_state(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(epoch) = self.control.tls().borrow().clone() {
            let not_after = epoch.svid.not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let help = "When the proxy's certificate expires, in Unix time";
            gauge(encoder, ("certificate_not_after", help, Some(Unit::Seconds)), not_after.as_secs_f64())?;
        }
        let connected = if self.control.is_connected() { 1.0 } else { 0.0 };
        gauge(encoder, ("discovery_connected", "1 while the discovery stream stands", None), connected)?;
        let help = "Time since the discovery stream was lost; 0 while it stands";
        let age = self.control.age().as_secs_f64();
        gauge(encoder, ("discovery_age", help, Some(Unit::Seconds)), age)?;
        let help = "Lines of the access log that were dropped because the writer was too slow";
        encoder
            .encode_descriptor("access_log_dropped", help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&self.access_log.dropped(), None)?;
        encoder
            .encode_descriptor("build_info", "Version of the proxy; always 1", None, MetricType::Gauge)?
            .encode_family(&[("version", env!("CARGO_PKG_VERSION"))])?
            .encode_gauge(&1_u64)
    }
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, unit): (&str, &str, Option<Unit>),
    value: f64,
) -> fmt::Result {
    encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?.encode_gauge(&value)
}

type Edges = BTreeMap<EdgeKey, EdgeCounts>;

fn encode_requests(encoder: &mut DescriptorEncoder<'_>, edges: &Edges) -> fmt::Result {
    const CLASSES: [&str; 6] = ["", "1xx", "2xx", "3xx", "4xx", "5xx"];
    let help = "Requests that ended (TCP: connections), by status class and by what the mesh did";
    let mut family = encoder.encode_descriptor("requests", help, None, MetricType::Counter)?;
    for (key, counts) in edges {
        for (class, status) in CLASSES.into_iter().enumerate() {
            let classes = &counts.totals.status_classes;
            let all = match class.checked_sub(1) {
                Some(index) => classes.get(index).copied().unwrap_or_default(),
                None => counts.totals.requests.saturating_sub(classes.iter().sum()),
            };
            let own = counts.by_reason.iter().filter(|((c, _), _)| usize::from(*c) == class);
            let with_reason: u64 = own.clone().map(|(_, count)| count).sum();
            let plain = std::iter::once(("", all.saturating_sub(with_reason)));
            let own = own.map(|((_, reason), count)| (reason.code(), *count));
            for (reason, count) in plain.chain(own).filter(|(_, count)| *count > 0) {
                let labels = EdgeLabels { key, more: &[("status", status), ("reason", reason)] };
                family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
    }
    Ok(())
}

fn encode_durations(encoder: &mut DescriptorEncoder<'_>, edges: &Edges) -> fmt::Result {
    let help = "Time from a request's head to its response's end (TCP: connection time)";
    let kind = MetricType::Histogram;
    let mut family = encoder.encode_descriptor("request_duration", help, Some(&Unit::Seconds), kind)?;
    for (key, counts) in edges {
        let latency = &counts.totals.latency;
        let sum = Duration::from_micros(latency.sum_micros()).as_secs_f64();
        let labels = EdgeLabels { key, more: &[] };
        let buckets = coarse(latency);
        family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
            sum,
            latency.count(),
            &buckets,
            None,
        )?;
    }
    Ok(())
}

/// Puts each fine bucket into the first exported one that holds all of it; not cumulative.
fn coarse(latency: &Histogram) -> Vec<(f64, u64)> {
    let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
    let mut buckets: Vec<(f64, u64)> = bounds.map(|bound| (bound, 0)).collect();
    for (bucket, count) in latency.iter() {
        let bound = upper_bound(bucket);
        let seconds =
            if bound == u64::MAX { f64::INFINITY } else { Duration::from_micros(bound).as_secs_f64() };
        if let Some((_, slot)) = buckets.iter_mut().find(|(bound, _)| seconds <= *bound) {
            *slot += count;
        }
    }
    buckets
}

fn encode_counts(
    encoder: &mut DescriptorEncoder<'_>,
    edges: &Edges,
    (name, help, unit): (&str, &str, Option<Unit>),
    count: impl Fn(&EdgeCounts) -> u64,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
    for (key, counts) in edges {
        let labels = EdgeLabels { key, more: &[] };
        family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count(counts), None)?;
    }
    Ok(())
}

/// Labels of an edge; what is absent is empty.
struct EdgeLabels<'a> {
    key: &'a EdgeKey,
    more: &'a [(&'a str, &'a str)],
}

impl EncodeLabelSet for EdgeLabels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        fn text(value: Option<&impl ToString>) -> String {
            value.map(ToString::to_string).unwrap_or_default()
        }
        let key = self.key;
        // What is unknown of an overflow edge is empty, its protocol included.
        let protocol = match key.protocol {
            mesh_core::protocol::Protocol::Undeclared => "",
            known => known.as_str(),
        };
        ("direction", key.direction.as_str()).encode(encoder.encode_label())?;
        ("source", text(key.source.as_ref())).encode(encoder.encode_label())?;
        ("destination", text(key.destination.as_ref())).encode(encoder.encode_label())?;
        ("service", text(key.service.as_ref())).encode(encoder.encode_label())?;
        ("backend", text(key.backend.as_ref())).encode(encoder.encode_label())?;
        ("workload", text(key.destination_workload.as_ref())).encode(encoder.encode_label())?;
        ("rule", text(key.rule.as_ref())).encode(encoder.encode_label())?;
        ("protocol", protocol).encode(encoder.encode_label())?;
        ("secured", key.secured).encode(encoder.encode_label())?;
        self.more.iter().try_for_each(|label| label.encode(encoder.encode_label()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fine_buckets_go_to_the_first_that_holds_them() {
        let mut latency = Histogram::default();
        for micros in [10, 400, 700, 3_000, 9_000_000, 200_000_000] {
            latency.record(micros);
        }
        let counts: Vec<u64> = coarse(&latency).into_iter().map(|(_, count)| count).collect();
        assert_eq!(counts, [2, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
    }

    #[test]
    fn the_text_names_every_metric_once_and_ends() {
        let telemetry = Telemetry::new(2, "test");
        let key = EdgeKey {
            direction: Direction::Outbound,
            source: Some("spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap()),
            destination: None,
            service: Some("shop/catalog:80".parse().unwrap()),
            backend: None,
            destination_workload: None,
            rule: None,
            protocol: mesh_core::protocol::Protocol::Http1,
            secured: true,
        };
        let reason = Some(Reason::AuthzDenied);
        for (shard, reason) in telemetry.shards().iter().zip([None, reason]) {
            let (request_bytes, response_bytes) = (5, 7);
            shard.edge(&key).finished(&super::super::Outcome {
                status: Some(403),
                failed: true,
                reason,
                micros: 700,
                request_bytes,
                response_bytes,
                retries: 0,
            });
        }
        telemetry.shards()[0].refused(Direction::Inbound, Reason::TlsRequired);
        let text = crate::app::tests::metrics(telemetry);
        let edge = r#"direction="outbound",source="spiffe://cluster.local/ns/shop/sa/cart",destination="",service="shop/catalog:80",backend="",workload="",rule="",protocol="http",secured="true""#;
        for line in [
            format!(r#"mesh_requests_total{{{edge},status="4xx",reason=""}} 1"#),
            format!(r#"mesh_requests_total{{{edge},status="4xx",reason="AUTHZ_DENIED"}} 1"#),
            format!(r#"mesh_request_duration_seconds_bucket{{le="0.0005",{edge}}} 0"#),
            format!(r#"mesh_request_duration_seconds_bucket{{le="+Inf",{edge}}} 2"#),
            format!(r#"mesh_request_duration_seconds_count{{{edge}}} 2"#),
            format!(r#"mesh_request_bytes_total{{{edge}}} 10"#),
            format!(r#"mesh_response_bytes_total{{{edge}}} 14"#),
            format!(r#"mesh_connections_total{{{edge}}} 0"#),
            r#"mesh_connections_active{direction="inbound"} 0"#.to_owned(),
            r#"mesh_refused_total{direction="inbound",reason="TLS_REQUIRED"} 1"#.to_owned(),
            "mesh_discovery_connected 0.0".to_owned(),
            format!(r#"mesh_build_info{{version="{}"}} 1"#, env!("CARGO_PKG_VERSION")),
            "# EOF".to_owned(),
        ] {
            assert_eq!(text.lines().filter(|l| *l == line).count(), 1, "{line}\n in\n{text}");
        }
    }
}

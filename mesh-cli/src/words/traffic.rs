//! How calls are carried, in words.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use mesh_core::{
    filter::{Filter, HeaderChanges, PathChange},
    settings::{
        Abort, BackendSettings, Balance, CallSettings, HashKey, HealthKind, InboundLimits, Locality,
        MAX_DURATION, RateKey, Retry, RetryOn, Share, Timeouts,
    },
};

/// A duration as it is written (GEP-2257): `1m30s`.
pub(crate) fn duration(duration: Duration) -> String {
    if duration >= MAX_DURATION {
        return "without limit".into();
    }
    let millis = duration.as_millis();
    let parts = [
        (millis / 3_600_000, "h"),
        (millis / 60_000 % 60, "m"),
        (millis / 1000 % 60, "s"),
        (millis % 1000, "ms"),
    ];
    let text: String = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if text.is_empty() { "0s".into() } else { text }
}

/// A share in percent: `12.5%`.
fn percent(share: Share) -> String {
    format!("{}%", f64::from(share.parts_per_million()) / 10_000.0)
}

/// What a filter does.
pub(crate) fn filter(filter: &Filter) -> String {
    match filter {
        Filter::RequestHeaders(changes) => format!("request headers: {}", headers(changes)),
        Filter::ResponseHeaders(changes) => format!("response headers: {}", headers(changes)),
        Filter::Rewrite { host, path } => {
            let host = host.as_ref().map(|host| format!("host {host}"));
            let path = path.as_ref().map(path_change);
            format!("rewrite {}", host.into_iter().chain(path).collect::<Vec<_>>().join(", "))
        }
        Filter::Redirect(redirect) => {
            let parts = [
                redirect.scheme.as_ref().map(|scheme| format!("scheme {scheme}")),
                redirect.host.as_ref().map(|host| format!("host {host}")),
                redirect.port.map(|port| format!("port {port}")),
                redirect.path.as_ref().map(path_change),
            ];
            let parts: Vec<String> = parts.into_iter().flatten().collect();
            format!("redirect {} {}", redirect.status.as_u16(), parts.join(", "))
        }
        Filter::Mirror(mirror) => format!("copy {} to {}", percent(mirror.share), mirror.service),
        Filter::Cors(cors) => format!("CORS for {}", cors.origins.join(", ")),
        Filter::Respond(respond) => format!("answer {}", respond.status.as_u16()),
    }
}

fn path_change(change: &PathChange) -> String {
    match change {
        PathChange::Full(path) => format!("path {path}"),
        PathChange::Prefix(path) => format!("prefix {}", if path.is_empty() { "/" } else { path }),
    }
}

fn headers(changes: &HeaderChanges) -> String {
    let field = |verb: &str, (name, value): &(HeaderName, HeaderValue)| {
        format!("{verb} {name}: {}", String::from_utf8_lossy(value.as_bytes()))
    };
    let set = changes.set.iter().map(|one| field("set", one));
    let add = changes.add.iter().map(|one| field("add", one));
    let remove = changes.remove.iter().map(|name| format!("remove {name}"));
    set.chain(add).chain(remove).collect::<Vec<_>>().join(", ")
}

/// Time limits: `timeout 10s, per try 2s`; None: none.
pub(crate) fn timeouts(timeouts: &Timeouts) -> Option<String> {
    let parts = [
        ("timeout", timeouts.request),
        ("per try", timeouts.per_try),
        ("connect", timeouts.connect),
        ("idle", timeouts.idle),
        ("stream", timeouts.stream),
    ];
    let said =
        |(name, limit): (&str, Option<Duration>)| limit.map(|limit| format!("{name} {}", duration(limit)));
    let parts: Vec<String> = parts.into_iter().filter_map(said).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Retries: `2 retries on reset, 503`.
pub(crate) fn retry(retry: &Retry) -> String {
    let on: Vec<String> = retry.on.iter().map(condition).collect();
    let times = match retry.retries {
        0 => return "no retries".into(),
        1 => "1 retry".to_owned(),
        n => format!("{n} retries"),
    };
    let all = if retry.non_idempotent { ", also of methods that are not idempotent" } else { "" };
    format!("{times} on {}{all}", on.join(", "))
}

fn condition(on: &RetryOn) -> String {
    match on {
        RetryOn::ConnectFailure => "connect failure".into(),
        RetryOn::Reset => "reset".into(),
        RetryOn::Timeout => "timeout".into(),
        RetryOn::Status(status) => status.to_string(),
        RetryOn::ServerError => "5xx".into(),
        RetryOn::Grpc(status) => format!("gRPC status {status}"),
    }
}

/// What holds for every call, one thing a line; the last says who says so.
pub(crate) fn calls(calls: &CallSettings) -> Vec<String> {
    let mut lines: Vec<String> = timeouts(&calls.timeouts).into_iter().collect();
    lines.extend(calls.retry.as_ref().map(retry));
    if let Some(fault) = &calls.fault {
        let delay =
            fault.delay.map(|(share, delay)| format!("fault: {} wait {}", percent(share), duration(delay)));
        let abort = fault.abort.map(|(share, abort)| match abort {
            Abort::Http(status) => format!("fault: {} get {status}", percent(share)),
            Abort::Grpc(status) => format!("fault: {} get gRPC status {status}", percent(share)),
        });
        lines.extend(delay.into_iter().chain(abort));
    }
    if let (false, Some(object)) = (lines.is_empty(), &calls.object) {
        lines.push(format!("({object})"));
    }
    lines
}

/// How calls are spread: `by ring hash of cookie shop, zone first, at most 100 requests`; None: as by default.
pub(crate) fn spread(settings: &BackendSettings) -> Option<String> {
    let mut parts = Vec::new();
    match &settings.balance {
        Balance::PeakEwma => {}
        Balance::LeastRequest => parts.push("by least requests".to_owned()),
        Balance::RoundRobin => parts.push("in turns".to_owned()),
        Balance::Random => parts.push("at random".to_owned()),
        Balance::RingHash(key) => parts.push(format!("by ring hash of {}", hash_key(key))),
        Balance::Maglev(key) => parts.push(format!("by Maglev hash of {}", hash_key(key))),
    }
    parts.extend(settings.slow_start.map(|time| format!("slow start {}", duration(time))));
    match settings.locality {
        Locality::Ignore => {}
        Locality::PreferZone => parts.push("same zone first".to_owned()),
    }
    let breaker = &settings.breaker;
    let limits =
        [("connections", breaker.connections), ("pending", breaker.pending), ("requests", breaker.requests)];
    let limit = |(what, limit): (&str, Option<u32>)| limit.map(|limit| format!("at most {limit} {what}"));
    parts.extend(limits.into_iter().filter_map(limit));
    if let Some(outlier) = &settings.outlier {
        parts.push(format!("failing endpoints left out for {}", duration(outlier.ejection)));
    }
    if let Some(health) = &settings.health {
        let what = match &health.kind {
            HealthKind::Tcp => "connection".to_owned(),
            HealthKind::Http(path) => format!("GET {path}"),
            HealthKind::Grpc(service) if service.is_empty() => "gRPC health".to_owned(),
            HealthKind::Grpc(service) => format!("gRPC health of {service}"),
        };
        parts.push(format!("health by {what} every {}", duration(health.interval)));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn hash_key(key: &HashKey) -> String {
    match key {
        HashKey::Header(name) => format!("header {name}"),
        HashKey::Cookie { name, .. } => format!("cookie {name}"),
        HashKey::SourceIp => "source IP".into(),
    }
}

/// What a workload lets in: `at most 100 requests per 1s of each caller`; empty: no limit.
pub(crate) fn limits(limits: &InboundLimits) -> Vec<String> {
    let rate = |rate: &mesh_core::settings::RateLimit| {
        let per = match &rate.per {
            RateKey::Total => "in all".to_owned(),
            RateKey::Identity => "of each caller".to_owned(),
            RateKey::Header(name) => format!("of each {name}"),
        };
        format!("at most {} requests per {} {per} ({})", rate.requests, duration(rate.interval), rate.object)
    };
    let mut lines: Vec<String> = limits.rates.iter().map(rate).collect();
    if let Some(adaptive) = &limits.concurrency {
        let (min, max, object) = (adaptive.min, adaptive.max, &adaptive.object);
        lines.push(format!("adaptive limit of {min} to {max} requests at a time ({object})"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use mesh_core::{name::ObjectRef, settings::RateLimit};

    use super::*;

    #[test]
    fn durations_are_written_as_they_are_read() {
        let check = |millis, expected: &str| assert_eq!(duration(Duration::from_millis(millis)), expected);
        check(0, "0s");
        check(90_000, "1m30s");
        check(3_600_005, "1h5ms");
        assert_eq!(duration(MAX_DURATION), "without limit");
    }

    #[test]
    fn settings_in_words() {
        assert_eq!(timeouts(&Timeouts::default()), None);
        assert_eq!(spread(&BackendSettings::default()), None);
        let seconds = |n| Some(Duration::from_secs(n));
        let mut said = CallSettings {
            object: Some(ObjectRef::new("TrafficPolicy", "shop", "p")),
            timeouts: Timeouts { request: seconds(10), per_try: seconds(2), ..Timeouts::default() },
            ..CallSettings::default()
        };
        said.retry =
            Some(Retry { retries: 2, on: vec![RetryOn::Reset, RetryOn::Status(503)], ..Retry::default() });
        let lines = ["timeout 10s, per try 2s", "2 retries on reset, 503", "(TrafficPolicy shop/p)"];
        assert_eq!(calls(&said), lines);
        let spreading = BackendSettings {
            balance: Balance::RingHash(HashKey::SourceIp),
            locality: Locality::PreferZone,
            ..BackendSettings::default()
        };
        assert_eq!(spread(&spreading).as_deref(), Some("by ring hash of source IP, same zone first"));
        let rate = RateLimit {
            object: ObjectRef::new("TrafficPolicy", "shop", "p"),
            per: RateKey::Identity,
            requests: 5,
            interval: Duration::from_secs(1),
            burst: 5,
        };
        let told = limits(&InboundLimits { rates: vec![rate], concurrency: None });
        assert_eq!(told, ["at most 5 requests per 1s of each caller (TrafficPolicy shop/p)"]);
    }

    #[test]
    fn filters_in_words() {
        let changes = HeaderChanges {
            set: vec![(HeaderName::from_static("x-a"), HeaderValue::from_static("b"))],
            add: Vec::new(),
            remove: vec![HeaderName::from_static("x-c")],
        };
        assert_eq!(filter(&Filter::RequestHeaders(changes)), "request headers: set x-a: b, remove x-c");
        let rewrite = Filter::Rewrite { host: Some("a".into()), path: Some(PathChange::Prefix("".into())) };
        assert_eq!(filter(&rewrite), "rewrite host a, prefix /");
    }
}

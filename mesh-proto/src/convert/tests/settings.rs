//! What is refused of settings and filters.

use mesh_core::{
    filter::{Filter, Respond},
    settings::{BackendSettings, CallSettings, InboundLimits, MAX_DURATION},
};

use super::{accepted, object, port, refused};
use crate::discovery::v1::{
    self as pb, balance, fault_abort, filter, hash_key, health_check, path_change, rate_limit, retry_on,
};

#[test]
fn calls_are_bounded() {
    let longest = u64::try_from(MAX_DURATION.as_millis()).expect("fits");
    let timeouts = |connect_millis| pb::CallSettings {
        timeouts: Some(pb::Timeouts { connect_millis, ..Default::default() }),
        ..Default::default()
    };
    accepted::<CallSettings>(&timeouts(longest));
    refused::<CallSettings>(&timeouts(longest + 1), "timeouts.connect_millis", "359996400000");
    let retry = |retry: pb::Retry| pb::CallSettings { retry: Some(retry), ..Default::default() };
    refused::<CallSettings>(
        &retry(pb::Retry { retries: 11, ..Default::default() }),
        "retry.retries",
        "from 0 to 10",
    );
    let on = |kind| retry(pb::Retry { on: vec![pb::RetryOn { kind }], ..Default::default() });
    refused::<CallSettings>(&on(None), "retry.on[0]", "nothing");
    refused::<CallSettings>(&on(Some(retry_on::Kind::Status(399))), "retry.on[0].status", "400 to 599");
    refused::<CallSettings>(&on(Some(retry_on::Kind::Grpc(17))), "retry.on[0].grpc", "1 to 16");
    refused::<CallSettings>(&on(Some(retry_on::Kind::Reset(false))), "retry.on[0].reset", "true");
    let budget = |share_ppm, interval_millis| pb::CallSettings {
        budget: Some(pb::RetryBudget { share_ppm, min_per_second: 1, interval_millis }),
        ..Default::default()
    };
    refused::<CallSettings>(&budget(1_000_001, 1), "budget.share_ppm", "1000000");
    refused::<CallSettings>(&budget(1, 0), "budget.interval_millis", "from 1");
    let fault =
        |delay, abort| pb::CallSettings { fault: Some(pb::Fault { delay, abort }), ..Default::default() };
    let delay = pb::FaultDelay { share_ppm: 1, delay_millis: 0 };
    refused::<CallSettings>(&fault(Some(delay), None), "fault.delay.delay_millis", "from 1");
    let abort = |kind| pb::FaultAbort { share_ppm: 1, kind };
    refused::<CallSettings>(&fault(None, Some(abort(None))), "fault.abort", "nothing");
    let ok = Some(fault_abort::Kind::Http(200));
    refused::<CallSettings>(&fault(None, Some(abort(ok))), "fault.abort.http", "400 to 599");
}

#[test]
fn backends_are_bounded() {
    let settings = pb::BackendSettings::default;
    let balance = |key| pb::BackendSettings {
        balance: Some(pb::Balance { kind: Some(balance::Kind::Maglev(pb::HashKey { kind: key })) }),
        ..settings()
    };
    refused::<BackendSettings>(&balance(None), "balance.maglev", "nothing");
    let header = hash_key::Kind::Header("a b".into());
    refused::<BackendSettings>(&balance(Some(header)), "balance.maglev.header", "a header name");
    let cookie = |name: &str, path: &str, ttl_millis| {
        let cookie = pb::HashCookie { name: name.into(), path: path.into(), ttl_millis };
        balance(Some(hash_key::Kind::Cookie(cookie)))
    };
    refused::<BackendSettings>(&cookie("", "", None), "balance.maglev.cookie.name", "a token");
    refused::<BackendSettings>(&cookie("a", "/;Domain=x", None), "balance.maglev.cookie.path", "';'");
    refused::<BackendSettings>(
        &cookie("a", "/", Some(u64::MAX)),
        "balance.maglev.cookie.ttl_millis",
        "at most",
    );
    let breaker = pb::Breaker { connections: Some(0), ..Default::default() };
    refused::<BackendSettings>(
        &pb::BackendSettings { breaker: Some(breaker), ..settings() },
        "breaker.connections",
        "from 1",
    );
    let outlier = |change: fn(&mut pb::Outlier)| {
        let mut outlier = pb::Outlier {
            interval_millis: 1,
            ejection_millis: 5,
            max_ejection_millis: 5,
            ..Default::default()
        };
        change(&mut outlier);
        pb::BackendSettings { outlier: Some(outlier), ..settings() }
    };
    accepted::<BackendSettings>(&outlier(|_| {}));
    let path = "outlier.max_ejection_millis";
    refused::<BackendSettings>(&outlier(|o| o.max_ejection_millis = 4), path, "at least");
    refused::<BackendSettings>(&outlier(|o| o.consecutive = Some(0)), "outlier.consecutive", "from 1");
    refused::<BackendSettings>(
        &outlier(|o| o.max_ejected_ppm = 2_000_000),
        "outlier.max_ejected_ppm",
        "from 0",
    );
    let health = |kind, unhealthy| pb::BackendSettings {
        health: Some(pb::HealthCheck { kind, interval_millis: 1, timeout_millis: 1, unhealthy, healthy: 1 }),
        ..settings()
    };
    refused::<BackendSettings>(&health(None, 1), "health", "nothing");
    refused::<BackendSettings>(&health(Some(health_check::Kind::Tcp(true)), 0), "health.unhealthy", "from 1");
    let relative = Some(health_check::Kind::HttpPath("healthz".into()));
    refused::<BackendSettings>(&health(relative, 1), "health.http_path", "begins with '/'");
}

#[test]
fn limits_are_bounded() {
    let rate = |per, requests| pb::InboundLimits {
        rates: vec![pb::RateLimit { object: object(), per, requests, interval_millis: 1, burst: 1 }],
        concurrency: None,
    };
    let total = || Some(rate_limit::Per::Total(true));
    accepted::<InboundLimits>(&rate(total(), 1));
    refused::<InboundLimits>(&rate(None, 1), "rates[0].per", "nothing");
    refused::<InboundLimits>(&rate(total(), 0), "rates[0].requests", "from 1");
    let mut many = rate(total(), 1);
    many.rates = vec![many.rates[0].clone(); 65];
    refused::<InboundLimits>(&many, "rates", "at most 64");
    let concurrency = pb::AdaptiveConcurrency { object: object(), min: 9, max: 8 };
    let limits = pb::InboundLimits { rates: vec![], concurrency: Some(concurrency) };
    refused::<InboundLimits>(&limits, "concurrency.max", "from 9");
}

#[test]
fn filters_are_checked() {
    let filter = |kind| pb::Filter { kind: Some(kind) };
    refused::<Filter>(&pb::Filter { kind: None }, "message", "nothing");
    for name in ["host", "Content-Length", "transfer-encoding", "mesh-client-id", "te"] {
        let changes = pb::HeaderChanges { remove: vec![name.into()], ..Default::default() };
        refused::<Filter>(
            &filter(filter::Kind::RequestHeaders(changes)),
            "request_headers.remove[0]",
            "neither Host",
        );
    }
    let set = vec![pb::HeaderField { name: "a".into(), value: b"x\r\ny: z".to_vec() }];
    let changes = pb::HeaderChanges { set, ..Default::default() };
    refused::<Filter>(
        &filter(filter::Kind::ResponseHeaders(changes)),
        "response_headers.set[0].value",
        "a header value",
    );
    for path in ["x", "/a?b", "/a#b", "/ü", "/%2", "/%zz", ""] {
        let path = pb::PathChange { kind: Some(path_change::Kind::Full(path.into())) };
        let rewrite = pb::Rewrite { host: String::new(), path: Some(path) };
        refused::<Filter>(&filter(filter::Kind::Rewrite(rewrite)), "rewrite.path.full", "begins with '/'");
    }
    let redirect = |scheme: &str, host: &str, status| {
        filter(filter::Kind::Redirect(pb::Redirect {
            scheme: scheme.into(),
            host: host.into(),
            status,
            ..Default::default()
        }))
    };
    refused::<Filter>(&redirect("ftp", "", 302), "redirect.scheme", "https");
    refused::<Filter>(&redirect("", "a b", 302), "redirect.host", "DNS name");
    refused::<Filter>(&redirect("", "", 200), "redirect.status", "301");
    let mirror = pb::Mirror { service: port(80), share_ppm: 1_000_001, settings: None };
    refused::<Filter>(&filter(filter::Kind::Mirror(mirror)), "mirror.share_ppm", "1000000");
    for origin in
        ["", "a.example", "https://", "https://a b", "https://*", "https://A.example", "**", "https://a/"]
    {
        let cors = pb::Cors { origins: vec![origin.into()], ..Default::default() };
        refused::<Filter>(&filter(filter::Kind::Cors(cors)), "cors.origins[0]", "scheme://");
    }
    let respond = |status, length| {
        filter(filter::Kind::Respond(pb::Respond { status, body: "a".repeat(length), ..Default::default() }))
    };
    refused::<Filter>(&respond(199, 0), "respond.status", "from 200");
    refused::<Filter>(&respond(200, Respond::MAX_BODY + 1), "respond.body", "at most 16384");
}

//! TrafficPolicy.

use std::time::Duration;

use mesh_core::settings::{
    Abort, Balance, HashKey, HealthKind, Locality, MAX_DURATION, Outlier, RateKey, RetryBudget, RetryOn,
    Share,
};

use super::{check, check_refused, parse};
use crate::object::{Object, TrafficPolicy};

const POLICY: &str = "apiVersion: meshctl.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: p, namespace: shop}
spec:
  targetRef: {kind: Service, name: catalog, port: 80}
  timeouts: {connect: 1s, request: 30s, backendRequest: 5s, idle: 5m, stream: 0s}
  retry: {attempts: 2, conditions: [Reset], codes: [503], grpcCodes: [UNAVAILABLE], nonIdempotent: true, backoff: 25ms, maxBackoff: 1s}
  retryBudget: {percent: 12.5}
  faults: {delay: {percent: 1, duration: 100ms}, abort: {percent: 100, status: 503}}
  loadBalancing: {algorithm: Maglev, hashOn: {cookie: {name: shop, ttl: 0s}}, slowStart: 30s, locality: PreferSameZone}
  circuitBreaker: {maxConnections: 100, maxPendingRequests: 0}
  outlierDetection: {consecutiveFailures: 0, minSuccessPercent: 80, ejectionTime: 10m}
  healthCheck: {grpc: {}, timeout: 1s}
  rateLimits: [{per: Header, header: x-tenant, requests: 100, interval: 1s}, {requests: 5, interval: 1m, burst: 9}]
  adaptiveConcurrency: {}
";

fn policy(text: &str) -> TrafficPolicy {
    let (found, problems, _) = parse("f", text);
    assert!(problems.is_empty(), "{problems:?}");
    match found.into_iter().next().map(|located| located.object) {
        Some(Object::TrafficPolicy(policy)) => *policy,
        other => panic!("{other:?}"),
    }
}

#[test]
fn all_fields_are_read() {
    let TrafficPolicy { target, calls, backends, limits, respond, .. } = policy(POLICY);
    assert_eq!(target.map(|t| (t.service.name.to_string(), t.port)), Some(("catalog".into(), Some(80))));
    assert_eq!(calls.timeouts.idle, Some(Duration::from_secs(300)));
    assert_eq!(calls.timeouts.stream, Some(MAX_DURATION));
    let retry = calls.retry.unwrap();
    assert_eq!(retry.on, [RetryOn::Reset, RetryOn::Status(503), RetryOn::Grpc(14)]);
    assert!(retry.non_idempotent);
    assert_eq!(calls.budget, RetryBudget { share: Share::of(125, 1000), ..RetryBudget::default() });
    let fault = calls.fault.unwrap();
    assert_eq!(fault.delay, Some((Share::of(1, 100), Duration::from_millis(100))));
    assert_eq!(fault.abort, Some((Share::ALL, Abort::Http(503))));
    let cookie = HashKey::Cookie { name: "shop".into(), ttl: Some(Duration::ZERO), path: "".into() };
    assert_eq!((backends.balance, backends.locality), (Balance::Maglev(cookie), Locality::PreferZone));
    assert_eq!((backends.breaker.connections, backends.breaker.pending), (Some(100), Some(0)));
    let outlier = backends.outlier.unwrap();
    let longest = Duration::from_secs(600);
    let expected = Outlier {
        consecutive: None,
        success_rate: Some(Share::of(80, 100)),
        ejection: longest,
        max_ejection: longest,
        ..Outlier::default()
    };
    assert_eq!(outlier, expected);
    let health = backends.health.unwrap();
    assert_eq!((health.kind, health.interval), (HealthKind::Grpc("".into()), Duration::from_secs(10)));
    let [header, total] = limits.rates.as_slice() else { panic!("{limits:?}") };
    assert_eq!((&header.per, header.burst), (&RateKey::Header("x-tenant".parse().unwrap()), 100));
    assert_eq!(
        (&total.per, total.burst, total.object.to_string()),
        (&RateKey::Total, 9, "TrafficPolicy shop/p".into())
    );
    assert!(limits.concurrency.is_some() && respond.is_none());
}

#[test]
fn mistakes_in_a_policy() {
    let bad =
        |part: &str, replacement: &str, problem: &str| check_refused(POLICY, part, replacement, problem);
    bad("kind: Service,", "kind: Gateway,", "!5 spec.targetRef: no Service");
    bad("  timeouts", "  timeout", "!6 spec.timeout: did you mean \"timeouts\"?");
    bad("connect: 1s", "connect: 0s", "!6 spec.timeouts.connect: above 0");
    bad("backendRequest: 5s", "backendRequest: 1h", "!6 spec.timeouts: longer than request");
    bad("[Reset]", "[Resets]", "!7 spec.retry.conditions[0]: did you mean \"Reset\"?");
    bad("conditions: [Reset]", "on: [Resets]", "!7 spec.retry.on[0]: did you mean \"Reset\"?");
    bad("grpcCodes: [UNAVAILABLE]", "grpcCodes: [14]", "!7 spec.retry.grpcCodes[0]: put it in quotes");
    bad("nonIdempotent: true", "nonIdempotent: 'yes'", "!7 spec.retry.nonIdempotent: without quotes");
    bad("maxBackoff: 1s", "maxBackoff: 1ms", "!7 spec.retry.maxBackoff: shorter than backoff");
    bad("percent: 12.5", "percent: 101", "!8 spec.retryBudget.percent: (0 to 100)");
    bad("percent: 12.5", "percent: .nan", "!8 spec.retryBudget.percent: (0 to 100)");
    bad("status: 503", "status: 503, grpcStatus: UNKNOWN", "!9 spec.faults.abort: exactly one");
    bad("status: 503", "status: 200", "!9 spec.faults.abort.status: (400 to 599)");
    bad("duration: 100ms", "duration: 1x", "!9 spec.faults.delay.duration: GEP-2257");
    bad(
        "{delay: {percent: 1, duration: 100ms}, abort: {percent: 100, status: 503}}",
        "{}",
        "!9 spec.faults: no fault",
    );
    bad("algorithm: Maglev", "algorithm: Random", "!10 spec.loadBalancing.hashOn: does not hash");
    bad("hashOn: {cookie: {name: shop, ttl: 0s}}, ", "", "!10 spec.loadBalancing.hashOn: hashes");
    bad(
        "{cookie: {name: shop, ttl: 0s}}",
        "{sourceIP: false}",
        "!10 spec.loadBalancing.hashOn.sourceIP: is not true",
    );
    bad("{cookie: {name: shop, ttl: 0s}}", "{}", "!10 spec.loadBalancing.hashOn: exactly one");
    bad(
        "name: shop, ttl",
        "name: 'a b', ttl",
        "!10 spec.loadBalancing.hashOn.cookie.name: the name of a cookie",
    );
    bad("maxConnections: 100", "maxConnections: 0", "!11 spec.circuitBreaker.maxConnections: (1 to 1000000)");
    bad(
        "ejectionTime: 10m",
        "ejectionTime: 10m, maxEjectionTime: 1m",
        "!12 spec.outlierDetection.maxEjectionTime: at least",
    );
    bad("grpc: {}", "grpc: {}, tcp: {}", "!13 spec.healthCheck: exactly one");
    bad("grpc: {}", "http: {path: healthz}", "!13 spec.healthCheck.http.path: begin it with");
    bad("per: Header, ", "", "!14 spec.rateLimits[0].header: per is not Header");
    bad("header: x-tenant, ", "", "!14 spec.rateLimits[0].header: the field is missing");
    bad("requests: 100", "requests: 0", "!14 spec.rateLimits[0].requests: (1 to");
    bad(
        "adaptiveConcurrency: {}",
        "adaptiveConcurrency: {min: 9, max: 8}",
        "!15 spec.adaptiveConcurrency: more than max",
    );
    bad(
        "  adaptive",
        "  directResponse: {status: 200}\n  adaptive",
        "!15 spec.directResponse: without targetRef",
    );
    bad(
        "  targetRef: {kind: Service, name: catalog, port: 80}\n",
        "",
        "!5 spec.targetRef: the field is missing",
    );
}

#[test]
fn a_policy_can_say_nothing_or_answer() {
    let head = "apiVersion: meshctl.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: p}\nspec:\n";
    let nothing = format!("{head}  targetRef: {{name: a}}\n");
    check(&nothing, &["TrafficPolicy default/p"], &["5 spec: says nothing"]);
    let answer =
        format!("{head}  directResponse: {{status: 418, body: \"a\\nb\", contentType: text/plain}}\n");
    let respond = policy(&answer).respond.unwrap();
    assert_eq!((respond.status.as_u16(), &*respond.body), (418, "a\nb"));
    check_refused(&answer, "418", "199", "!5 spec.directResponse.status: (200 to 599)");
    check_refused(&answer, "text/plain", "plain", "!5 spec.directResponse.contentType: application/json");
    check_refused(&answer, "\"a\\nb\"", &"a".repeat(16_385), "!5 spec.directResponse.body: at most 16384");
}

#[test]
fn the_examples_of_the_documentation_are_good() {
    let text = include_str!("../../../../docs/traffic.md");
    let mut count = 0;
    for block in text.split("```yaml\n").skip(1) {
        let yaml = block.split("```").next().unwrap();
        let (objects, problems, recognised) = parse("docs/traffic.md", yaml);
        assert!(problems.is_empty() && recognised, "{problems:?}");
        count += objects.len();
    }
    assert!(count >= 3, "{count} objects");
}

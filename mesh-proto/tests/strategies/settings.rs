//! Everything that can be said about how calls are carried and what routes do to them.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, Method, StatusCode};
use mesh_core::{
    filter::{Cors, Filter, HeaderChanges, Mirror, PathChange, Redirect, Respond, may_change},
    settings::{
        Abort, AdaptiveConcurrency, BackendSettings, Balance, Breaker, CallSettings, Fault, HashKey,
        HealthCheck, HealthKind, InboundLimits, Locality, MAX_DURATION, Outlier, RateKey, RateLimit, Retry,
        RetryBudget, RetryOn, Share, Timeouts,
    },
};
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::{dns_name, object, port, service_port, text};

fn millis() -> impl Strategy<Value = Duration> {
    let longest = u64::try_from(MAX_DURATION.as_millis()).unwrap_or(u64::MAX);
    (1..=longest).prop_map(Duration::from_millis)
}

fn share() -> impl Strategy<Value = Share> {
    (0..=1_000_000_u32).prop_map(|parts| Share::of(parts, 1_000_000))
}

fn arc(text: impl Strategy<Value = String>) -> impl Strategy<Value = Arc<str>> {
    text.prop_map(Arc::from)
}

fn path() -> impl Strategy<Value = Arc<str>> {
    arc("(/[a-z0-9._~!$&'()*+,;=:@-]{0,6}){1,3}(%2[0-9a-fA-F])?")
}

pub(crate) fn header() -> impl Strategy<Value = HeaderName> {
    "[a-z0-9!#$%&'*+.^_`|~-]{1,9}".prop_filter_map("header", |h| HeaderName::from_bytes(h.as_bytes()).ok())
}

fn changeable() -> impl Strategy<Value = HeaderName> {
    header().prop_filter("changeable", may_change)
}

fn value() -> impl Strategy<Value = HeaderValue> {
    vec(prop_oneof![0x20..=0x7e_u8, 0x80..=0xff_u8, Just(b'\t')], 0..9)
        .prop_filter_map("value", |bytes| HeaderValue::from_bytes(&bytes).ok())
}

fn method() -> impl Strategy<Value = Method> {
    select(vec![Method::GET, Method::PUT, Method::OPTIONS])
}

pub(crate) fn timeouts() -> impl Strategy<Value = Timeouts> {
    let limit = || option::of(millis());
    (limit(), limit(), limit(), limit(), limit()).prop_map(|(connect, request, per_try, idle, stream)| {
        Timeouts { connect, request, per_try, idle, stream }
    })
}

pub(crate) fn retry() -> impl Strategy<Value = Retry> {
    let on = prop_oneof![
        select(vec![RetryOn::ConnectFailure, RetryOn::Reset, RetryOn::Timeout, RetryOn::ServerError]),
        (400..=599_u16).prop_map(RetryOn::Status),
        (1..=16_u8).prop_map(RetryOn::Grpc),
    ];
    (0..=Retry::MAX_RETRIES, vec(on, 0..4), any::<bool>(), option::of(millis()), option::of(millis()))
        .prop_map(|(retries, on, non_idempotent, backoff, max_backoff)| Retry {
            retries,
            on,
            non_idempotent,
            backoff,
            max_backoff,
        })
}

pub(crate) fn calls() -> impl Strategy<Value = CallSettings> {
    let budget = (share(), 0..1000_u32, millis()).prop_map(|(share, min_per_second, interval)| RetryBudget {
        share,
        min_per_second,
        interval,
    });
    let budget = prop_oneof![Just(RetryBudget::default()), budget];
    let abort = prop_oneof![(400..=599_u16).prop_map(Abort::Http), (1..=16_u8).prop_map(Abort::Grpc)];
    let fault = (option::of((share(), millis())), option::of((share(), abort)))
        .prop_map(|(delay, abort)| Fault { delay, abort });
    (option::of(object()), timeouts(), option::of(retry()), budget, option::of(fault)).prop_map(
        |(object, timeouts, retry, budget, fault)| CallSettings { object, timeouts, retry, budget, fault },
    )
}

fn balance() -> impl Strategy<Value = Balance> {
    let ttl = prop_oneof![Just(None), Just(Some(Duration::ZERO)), millis().prop_map(Some)];
    let cookie = (arc("[a-z]{1,5}"), ttl, arc("(/[a-z]{0,4})?"))
        .prop_map(|(name, ttl, path)| HashKey::Cookie { name, ttl, path });
    let key = || prop_oneof![header().prop_map(HashKey::Header), Just(HashKey::SourceIp)];
    let key = prop_oneof![key(), cookie];
    let plain = vec![Balance::PeakEwma, Balance::LeastRequest, Balance::RoundRobin, Balance::Random];
    let hashed = (key, any::<bool>())
        .prop_map(|(key, ring)| if ring { Balance::RingHash(key) } else { Balance::Maglev(key) });
    prop_oneof![select(plain), hashed]
}

fn outlier() -> impl Strategy<Value = Outlier> {
    (option::of(1..=1000_u32), option::of(share()), 0..1000_u32, millis(), millis(), millis(), share())
        .prop_map(|(consecutive, success_rate, min_requests, interval, one, other, max_ejected)| Outlier {
            consecutive,
            success_rate,
            min_requests,
            interval,
            ejection: one.min(other),
            max_ejection: one.max(other),
            max_ejected,
        })
}

fn health() -> impl Strategy<Value = HealthCheck> {
    let kind = prop_oneof![
        Just(HealthKind::Tcp),
        path().prop_map(HealthKind::Http),
        arc("[a-z.]{0,8}").prop_map(HealthKind::Grpc)
    ];
    let times = 1..=HealthCheck::MAX_IN_A_ROW;
    (kind, millis(), millis(), times.clone(), times).prop_map(
        |(kind, interval, timeout, unhealthy, healthy)| HealthCheck {
            kind,
            interval,
            timeout,
            unhealthy,
            healthy,
        },
    )
}

pub(crate) fn backend_settings() -> impl Strategy<Value = BackendSettings> {
    let limit = || option::of(1..=1_000_000_u32);
    let breaker = (limit(), option::of(0..=1_000_000_u32), limit())
        .prop_map(|(connections, pending, requests)| Breaker { connections, pending, requests });
    let locality = select(vec![Locality::Ignore, Locality::PreferZone]);
    let sane = (option::of(outlier()), option::of(health()));
    (option::of(object()), balance(), option::of(millis()), locality, breaker, sane).prop_map(
        |(object, balance, slow_start, locality, breaker, (outlier, health))| BackendSettings {
            object,
            balance,
            slow_start,
            locality,
            breaker,
            outlier,
            health,
        },
    )
}

pub(crate) fn limits() -> impl Strategy<Value = InboundLimits> {
    let per = prop_oneof![Just(RateKey::Total), Just(RateKey::Identity), header().prop_map(RateKey::Header)];
    let rate = (object(), per, 1..1_000_000_u32, millis(), 1..1_000_000_u32).prop_map(
        |(object, per, requests, interval, burst)| RateLimit { object, per, requests, interval, burst },
    );
    let concurrency = (object(), 1..1000_u32, 0..1000_u32)
        .prop_map(|(object, min, more)| AdaptiveConcurrency { object, min, max: min + more });
    (vec(rate, 0..3), option::of(concurrency))
        .prop_map(|(rates, concurrency)| InboundLimits { rates, concurrency })
}

fn changes() -> impl Strategy<Value = HeaderChanges> {
    let fields = || vec((changeable(), value()), 0..3);
    (fields(), fields(), vec(changeable(), 0..3)).prop_map(|(set, add, remove)| HeaderChanges {
        set,
        add,
        remove,
    })
}

fn path_change() -> impl Strategy<Value = PathChange> {
    let prefix = prop_oneof![path(), Just(Arc::from(""))];
    prop_oneof![path().prop_map(PathChange::Full), prefix.prop_map(PathChange::Prefix)]
}

fn redirect() -> impl Strategy<Value = Redirect> {
    let scheme = select(vec![None, Some("http"), Some("https")]).prop_map(|s| s.map(Arc::from));
    let status = select(Redirect::STATUSES.as_slice())
        .prop_filter_map("a status", |status| StatusCode::from_u16(status).ok());
    (scheme, option::of(arc(dns_name())), option::of(port()), option::of(path_change()), status)
        .prop_map(|(scheme, host, port, path, status)| Redirect { scheme, host, port, path, status })
}

fn cors() -> impl Strategy<Value = Cors> {
    let origin = (select(vec!["http://", "https://*."]), dns_name(), option::of(port())).prop_map(
        |(start, host, port)| match port {
            Some(port) => format!("{start}{host}:{port}"),
            None => format!("{start}{host}"),
        },
    );
    let origin = arc(prop_oneof![Just("*".to_owned()), origin]);
    let names = || vec(header(), 0..3);
    let lists = (vec(origin, 0..3), vec(method(), 0..3), names(), names());
    (lists, any::<[bool; 3]>(), any::<u32>()).prop_map(
        |((origins, methods, headers, expose), [credentials, any_method, any_header], max_age)| Cors {
            origins,
            credentials,
            methods,
            any_method,
            headers,
            any_header,
            expose,
            max_age,
        },
    )
}

fn respond() -> impl Strategy<Value = Respond> {
    let status = (200..=599_u16).prop_filter_map("a status", |status| StatusCode::from_u16(status).ok());
    let content_type = option::of(value().prop_filter("not empty", |value| !value.is_empty()));
    (status, arc(text()), content_type).prop_map(|(status, body, content_type)| Respond {
        status,
        body,
        content_type,
    })
}

pub(crate) fn filter() -> impl Strategy<Value = Filter> {
    prop_oneof![
        changes().prop_map(Filter::RequestHeaders),
        changes().prop_map(Filter::ResponseHeaders),
        (option::of(arc(dns_name())), option::of(path_change()))
            .prop_map(|(host, path)| Filter::Rewrite { host, path }),
        redirect().prop_map(Filter::Redirect),
        (service_port(), share(), option::of(backend_settings().prop_map(Arc::new)))
            .prop_map(|(service, share, settings)| Filter::Mirror(Mirror { service, share, settings })),
        cors().prop_map(Filter::Cors),
        respond().prop_map(Filter::Respond),
    ]
}

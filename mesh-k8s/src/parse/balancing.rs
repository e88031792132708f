//! What a TrafficPolicy says of endpoints: balancing, breaking, outliers, health checks.

use std::{sync::Arc, time::Duration};

use mesh_core::{
    filter::PathChange,
    name::ObjectRef,
    settings::{BackendSettings, Balance, Breaker, HashKey, HealthCheck, HealthKind, Locality, Outlier},
};

use crate::parse::{
    reader::{Field, Fields, Reader},
    requests::{bounded, header_name},
    values::{boolean, duration, percent, positive},
};

/// Largest count of connections or requests.
const MAX_COUNT: u32 = 1_000_000;

/// Time between two health checks, and longest time for an answer, where a policy names none.
const INTERVAL: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(2);

/// Algorithms, and whether they hash.
#[derive(Clone, Copy)]
enum Algorithm {
    PeakEwma,
    LeastRequest,
    RoundRobin,
    Random,
    RingHash,
    Maglev,
}

const ALGORITHMS: [(&str, Algorithm); 6] = [
    ("PeakEWMA", Algorithm::PeakEwma),
    ("LeastRequest", Algorithm::LeastRequest),
    ("RoundRobin", Algorithm::RoundRobin),
    ("Random", Algorithm::Random),
    ("RingHash", Algorithm::RingHash),
    ("Maglev", Algorithm::Maglev),
];

pub(crate) fn read(reader: &mut Reader, fields: &mut Fields<'_>, object: &ObjectRef) -> BackendSettings {
    let mut found = BackendSettings { object: Some(object.clone()), ..BackendSettings::default() };
    if let Some(field) = fields.optional("loadBalancing") {
        load_balancing(reader, &field, &mut found);
    }
    if let Some(field) = fields.optional("circuitBreaker") {
        found.breaker = breaker(reader, &field);
    }
    found.outlier = fields.optional("outlierDetection").map(|field| outlier(reader, &field));
    found.health = fields.optional("healthCheck").and_then(|field| health(reader, &field));
    found
}

fn load_balancing(reader: &mut Reader, field: &Field<'_>, found: &mut BackendSettings) {
    let mut fields = reader.fields(field);
    let algorithm =
        fields.optional("algorithm").map_or(Some(Algorithm::PeakEwma), |f| reader.choice(&f, &ALGORITHMS));
    let key_field = fields.optional("hashOn");
    let key = key_field.as_ref().and_then(|f| hash_key(reader, f));
    found.slow_start = fields.optional("slowStart").and_then(|f| positive(reader, &f));
    let zones = [("Ignore", Locality::Ignore), ("PreferSameZone", Locality::PreferZone)];
    found.locality = fields.optional("locality").and_then(|f| reader.choice(&f, &zones)).unwrap_or_default();
    fields.finish(reader);
    let plain = match algorithm {
        Some(Algorithm::PeakEwma) => Balance::PeakEwma,
        Some(Algorithm::LeastRequest) => Balance::LeastRequest,
        Some(Algorithm::RoundRobin) => Balance::RoundRobin,
        Some(Algorithm::Random) => Balance::Random,
        Some(hashing @ (Algorithm::RingHash | Algorithm::Maglev)) => {
            if key_field.is_none() {
                let path = format!("{}.hashOn", field.path);
                let remedy = "write header: NAME, cookie: {name: …} or sourceIP: true";
                reader.refuse(field.line(), &path, "the field is missing: the algorithm hashes", remedy);
            }
            if let Some(key) = key {
                found.balance = match hashing {
                    Algorithm::RingHash => Balance::RingHash(key),
                    Algorithm::Maglev
                    | Algorithm::PeakEwma
                    | Algorithm::LeastRequest
                    | Algorithm::RoundRobin
                    | Algorithm::Random => Balance::Maglev(key),
                };
            }
            return;
        }
        None => return,
    };
    if let Some(field) = key_field {
        let remedy = "write algorithm: RingHash or Maglev, or remove the field";
        reader.refuse(field.line(), &field.path, "the algorithm does not hash", remedy);
    }
    found.balance = plain;
}

fn hash_key(reader: &mut Reader, field: &Field<'_>) -> Option<HashKey> {
    let mut fields = reader.fields(field);
    let header = fields.optional("header");
    let cookie = fields.optional("cookie");
    let source = fields.optional("sourceIP");
    fields.finish(reader);
    match (header, cookie, source) {
        (Some(field), None, None) => {
            let text = reader.text(&field)?;
            header_name(reader, text, &field).map(HashKey::Header)
        }
        (None, Some(field), None) => hash_cookie(reader, &field),
        (None, None, Some(field)) => {
            if boolean(reader, &field)? {
                return Some(HashKey::SourceIp);
            }
            reader.expected(&field, "true", "write true, or remove the field");
            None
        }
        _ => {
            let message = "exactly one of header, cookie and sourceIP is needed";
            reader.refuse(field.line(), &field.path, message, "write one of them");
            None
        }
    }
}

fn hash_cookie(reader: &mut Reader, field: &Field<'_>) -> Option<HashKey> {
    let mut fields = reader.fields(field);
    let name = fields.required(reader, "name").and_then(|f| {
        let text = bounded(reader, &f)?;
        if HashKey::is_cookie_name(text) {
            return Some(text);
        }
        reader.expected(&f, "the name of a cookie", "use letters, digits and '-'");
        None
    });
    let ttl = fields.optional("ttl").and_then(|f| duration(reader, &f));
    let path = fields.optional("path").map_or(Some(""), |f| {
        let text = bounded(reader, &f)?;
        if HashKey::is_cookie_path(text) {
            return Some(text);
        }
        reader.expected(&f, "the path of a cookie", "begin it with \"/\", and leave out \";\"");
        None
    });
    fields.finish(reader);
    Some(HashKey::Cookie { name: Arc::from(name?), ttl, path: Arc::from(path?) })
}

fn breaker(reader: &mut Reader, field: &Field<'_>) -> Breaker {
    let mut fields = reader.fields(field);
    let mut limit =
        |name, least| fields.optional(name).and_then(|f| reader.integer(&f, "a limit", least, MAX_COUNT));
    let found = Breaker {
        connections: limit("maxConnections", 1),
        pending: limit("maxPendingRequests", 0),
        requests: limit("maxRequests", 1),
    };
    if fields.is_empty() {
        let remedy = "add maxConnections, maxPendingRequests or maxRequests";
        reader.refuse(field.line(), &field.path, "no limit is named", remedy);
    }
    fields.finish(reader);
    found
}

fn outlier(reader: &mut Reader, field: &Field<'_>) -> Outlier {
    let default = Outlier::default();
    let mut fields = reader.fields(field);
    let consecutive = fields
        .optional("consecutiveFailures")
        .map(|f| reader.integer(&f, "a number of failures (0: not counted)", 0, 1000).filter(|n| *n > 0));
    let success_rate = fields.optional("minSuccessPercent").and_then(|f| percent(reader, &f));
    let min_requests =
        fields.optional("minRequests").and_then(|f| reader.integer(&f, "a number of requests", 0, MAX_COUNT));
    let interval = fields.optional("interval").and_then(|f| positive(reader, &f));
    let ejection = fields.optional("ejectionTime").and_then(|f| positive(reader, &f));
    let max_field = fields.optional("maxEjectionTime");
    let max_ejection = max_field.as_ref().and_then(|f| positive(reader, f));
    let max_ejected = fields.optional("maxEjectedPercent").and_then(|f| percent(reader, &f));
    fields.finish(reader);
    let ejection = ejection.unwrap_or(default.ejection);
    if let (Some(field), Some(most)) = (max_field, max_ejection)
        && most < ejection
    {
        reader.expected(&field, "at least ejectionTime", "make it longer");
    }
    Outlier {
        consecutive: consecutive.unwrap_or(default.consecutive),
        success_rate,
        min_requests: min_requests.unwrap_or(default.min_requests),
        interval: interval.unwrap_or(default.interval),
        ejection,
        max_ejection: max_ejection.unwrap_or_else(|| default.max_ejection.max(ejection)),
        max_ejected: max_ejected.unwrap_or(default.max_ejected),
    }
}

fn health(reader: &mut Reader, field: &Field<'_>) -> Option<HealthCheck> {
    let mut fields = reader.fields(field);
    let tcp = fields.optional("tcp");
    let http = fields.optional("http");
    let grpc = fields.optional("grpc");
    let interval = fields.optional("interval").map_or(Some(INTERVAL), |f| positive(reader, &f));
    let timeout = fields.optional("timeout").map_or(Some(TIMEOUT), |f| positive(reader, &f));
    let mut times = |name, default| {
        let what = "a number of checks";
        fields
            .optional(name)
            .map_or(Some(default), |f| reader.integer(&f, what, 1, HealthCheck::MAX_IN_A_ROW))
    };
    let (unhealthy, healthy) = (times("unhealthyThreshold", 3), times("healthyThreshold", 2));
    fields.finish(reader);
    let kind = match (tcp, http, grpc) {
        (Some(field), None, None) => {
            reader.fields(&field).finish(reader);
            HealthKind::Tcp
        }
        (None, Some(field), None) => {
            let mut fields = reader.fields(&field);
            let path = fields.required(reader, "path").and_then(|f| {
                let text = bounded(reader, &f)?;
                if PathChange::is_path(text) {
                    return Some(text);
                }
                reader.expected(&f, "a path", "begin it with \"/\", and leave out query and fragment");
                None
            });
            fields.finish(reader);
            HealthKind::Http(path?.into())
        }
        (None, None, Some(field)) => {
            let mut fields = reader.fields(&field);
            let service = fields.optional("service").map_or(Some(""), |f| bounded(reader, &f));
            fields.finish(reader);
            HealthKind::Grpc(service?.into())
        }
        _ => {
            let message = "exactly one of tcp, http and grpc is needed";
            reader.refuse(field.line(), &field.path, message, "write one, as in http: {path: /healthz}");
            return None;
        }
    };
    Some(HealthCheck {
        kind,
        interval: interval?,
        timeout: timeout?,
        unhealthy: unhealthy?,
        healthy: healthy?,
    })
}

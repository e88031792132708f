//! TrafficPolicy: how calls to one Service are carried. What it says of endpoints is read by [`balancing`].

use std::sync::Arc;

use http::{HeaderValue, StatusCode};
use mesh_core::{
    filter::Respond,
    name::{ObjectRef, is_dns_label},
    settings::{
        Abort, AdaptiveConcurrency, CallSettings, Fault, InboundLimits, RateKey, RateLimit, Retry,
        RetryBudget, RetryOn, Timeouts,
    },
};

use crate::{
    object::{Name, TargetOfPolicy, TrafficPolicy},
    parse::{
        balancing,
        filters::at_most,
        gateway::is_service,
        metadata::Metadata,
        reader::{Field, Fields, Reader},
        requests::{bounded, header_name},
        values::{boolean, limit, percent, positive},
    },
};

/// Largest count of requests that a limit may name.
const MAX_COUNT: u32 = 1_000_000_000;
/// Statuses that are tried again where a retry names no conditions.
const RETRIED: [u16; 4] = [500, 502, 503, 504];

/// Names of gRPC statuses (grpc/doc/statuscodes.md), from 1.
const GRPC_CODES: [(&str, u8); 16] = [
    ("CANCELLED", 1),
    ("UNKNOWN", 2),
    ("INVALID_ARGUMENT", 3),
    ("DEADLINE_EXCEEDED", 4),
    ("NOT_FOUND", 5),
    ("ALREADY_EXISTS", 6),
    ("PERMISSION_DENIED", 7),
    ("RESOURCE_EXHAUSTED", 8),
    ("FAILED_PRECONDITION", 9),
    ("ABORTED", 10),
    ("OUT_OF_RANGE", 11),
    ("UNIMPLEMENTED", 12),
    ("INTERNAL", 13),
    ("UNAVAILABLE", 14),
    ("DATA_LOSS", 15),
    ("UNAUTHENTICATED", 16),
];

pub(crate) fn read(reader: &mut Reader, metadata: Metadata, spec: &Field<'_>) -> Option<TrafficPolicy> {
    let object = ObjectRef {
        kind: "TrafficPolicy".into(),
        namespace: Arc::clone(&metadata.name.namespace),
        name: Arc::clone(&metadata.name.name),
    };
    let mut fields = reader.fields(spec);
    let target_field = fields.optional("targetRef");
    let target = target_field.as_ref().map(|f| target(reader, f, &metadata));
    let respond_field = fields.optional("directResponse");
    let respond = respond_field.as_ref().and_then(|f| respond(reader, f));
    let calls = CallSettings {
        object: Some(object.clone()),
        timeouts: fields.optional("timeouts").map(|f| timeouts(reader, &f)).unwrap_or_default(),
        retry: fields.optional("retry").map(|f| retry(reader, &f)),
        budget: fields.optional("retryBudget").map(|f| budget(reader, &f)).unwrap_or_default(),
        fault: fields.optional("faults").map(|f| fault(reader, &f)),
    };
    let backends = balancing::read(reader, &mut fields, &object);
    let limits = limits(reader, &mut fields, &object);
    let says_nothing = fields.count() == usize::from(target_field.is_some());
    fields.finish(reader);
    match (&target_field, &respond_field) {
        (Some(_), Some(field)) => {
            let message = "directResponse answers for routes that name the policy, not for a Service";
            reader.refuse(
                field.line(),
                &field.path,
                message,
                "put it into a TrafficPolicy without targetRef",
            );
        }
        (None, None) if !reader.is_refused() => {
            let remedy = "write targetRef: {kind: Service, name: …}, or directResponse";
            reader.refuse(spec.line(), &format!("{}.targetRef", spec.path), "the field is missing", remedy);
        }
        (Some(field), None) if says_nothing => {
            let remedy = "add timeouts, retry, loadBalancing or another field";
            reader.warn(field.line(), &spec.path, "the policy says nothing", remedy);
        }
        (Some(_) | None, _) => {}
    }
    let target = match target {
        Some(target) => Some(target?),
        None => None,
    };
    Some(TrafficPolicy { name: metadata.name, target, calls, backends, limits, respond })
}

fn target(reader: &mut Reader, field: &Field<'_>, metadata: &Metadata) -> Option<TargetOfPolicy> {
    let mut fields = reader.fields(field);
    let is_service = is_service(reader, &mut fields, true);
    if !is_service {
        let message = "the target is no Service";
        reader.refuse(field.line(), &field.path, message, "write kind: Service, and its name");
    }
    let name = fields.required(reader, "name");
    let name = name.and_then(|f| reader.name(&f, is_dns_label, "the name of a Service"));
    let port = fields.optional("port").map(|f| reader.port(&f));
    fields.finish(reader);
    let service = Name { namespace: Arc::clone(&metadata.name.namespace), name: name?.into() };
    let port = port.map_or(Some(None), |port| port.map(Some))?;
    is_service.then(|| TargetOfPolicy { service, port, line: field.line() })
}

fn timeouts(reader: &mut Reader, field: &Field<'_>) -> Timeouts {
    let mut fields = reader.fields(field);
    let found = Timeouts {
        connect: fields.optional("connect").and_then(|f| positive(reader, &f)),
        request: fields.optional("request").and_then(|f| limit(reader, &f)),
        per_try: fields.optional("backendRequest").and_then(|f| limit(reader, &f)),
        idle: fields.optional("idle").and_then(|f| limit(reader, &f)),
        stream: fields.optional("stream").and_then(|f| limit(reader, &f)),
    };
    fields.finish(reader);
    if let (Some(per_try), Some(request)) = (found.per_try, found.request)
        && per_try > request
        && per_try < mesh_core::settings::MAX_DURATION
    {
        let message = "backendRequest is longer than request";
        reader.refuse(field.line(), &field.path, message, "make it shorter, or the request longer");
    }
    found
}

fn retry(reader: &mut Reader, field: &Field<'_>) -> Retry {
    const CONDITIONS: [(&str, RetryOn); 4] = [
        ("ConnectFailure", RetryOn::ConnectFailure),
        ("Reset", RetryOn::Reset),
        ("Timeout", RetryOn::Timeout),
        ("ServerError", RetryOn::ServerError),
    ];
    let mut fields = reader.fields(field);
    let attempts = fields
        .optional("attempts")
        .map_or(Some(1), |f| reader.integer(&f, "a number of retries", 0, Retry::MAX_RETRIES));
    let mut on = Vec::new();
    // "on" is its older name: kubectl takes that word for true, unless it is quoted.
    for name in ["conditions", "on"] {
        for item in items(reader, &mut fields, name, CONDITIONS.len()) {
            on.extend(reader.choice(&item, &CONDITIONS));
        }
    }
    for item in items(reader, &mut fields, "codes", 200) {
        let code = reader.integer(&item, "a status of an error", 400, 599);
        on.extend(code.and_then(|code| u16::try_from(code).ok()).map(RetryOn::Status));
    }
    for item in items(reader, &mut fields, "grpcCodes", GRPC_CODES.len()) {
        on.extend(reader.choice(&item, &GRPC_CODES).map(RetryOn::Grpc));
    }
    if on.is_empty() {
        on.extend([RetryOn::ConnectFailure, RetryOn::Reset, RetryOn::Timeout]);
        on.extend(RETRIED.map(RetryOn::Status));
        on.push(RetryOn::Grpc(14));
    }
    let non_idempotent = fields.optional("nonIdempotent").and_then(|f| boolean(reader, &f));
    let backoff = fields.optional("backoff").and_then(|f| positive(reader, &f));
    let max_backoff = fields.optional("maxBackoff").and_then(|f| positive(reader, &f));
    if let (Some(least), Some(most)) = (backoff, max_backoff)
        && most < least
    {
        let message = "maxBackoff is shorter than backoff";
        reader.refuse(field.line(), &format!("{}.maxBackoff", field.path), message, "make it longer");
    }
    fields.finish(reader);
    Retry {
        retries: attempts.unwrap_or_default(),
        on,
        non_idempotent: non_idempotent.unwrap_or_default(),
        backoff,
        max_backoff,
    }
}

fn items<'a>(reader: &mut Reader, fields: &mut Fields<'a>, name: &'static str, max: usize) -> Vec<Field<'a>> {
    fields.optional(name).map(|list| at_most(reader, &list, max)).unwrap_or_default()
}

fn budget(reader: &mut Reader, field: &Field<'_>) -> RetryBudget {
    let default = RetryBudget::default();
    let mut fields = reader.fields(field);
    let share = fields.optional("percent").and_then(|f| percent(reader, &f));
    let least = fields.optional("minPerSecond");
    let least = least.and_then(|f| reader.integer(&f, "retries per second", 0, 1_000_000));
    let interval = fields.optional("interval").and_then(|f| positive(reader, &f));
    fields.finish(reader);
    RetryBudget {
        share: share.unwrap_or(default.share),
        min_per_second: least.unwrap_or(default.min_per_second),
        interval: interval.unwrap_or(default.interval),
    }
}

fn fault(reader: &mut Reader, field: &Field<'_>) -> Fault {
    let mut fields = reader.fields(field);
    let mut fault = Fault::default();
    if let Some(field) = fields.optional("delay") {
        let mut fields = reader.fields(&field);
        let share = fields.required(reader, "percent").and_then(|f| percent(reader, &f));
        let delay = fields.required(reader, "duration").and_then(|f| positive(reader, &f));
        fields.finish(reader);
        fault.delay = share.zip(delay);
    }
    if let Some(field) = fields.optional("abort") {
        let mut fields = reader.fields(&field);
        let share = fields.required(reader, "percent").and_then(|f| percent(reader, &f));
        let status = fields.optional("status");
        let grpc = fields.optional("grpcStatus");
        fields.finish(reader);
        let abort = match (status, grpc) {
            (Some(f), None) => reader
                .integer(&f, "a status of an error", 400, 599)
                .and_then(|status| u16::try_from(status).ok())
                .map(Abort::Http),
            (None, Some(f)) => reader.choice(&f, &GRPC_CODES).map(Abort::Grpc),
            (Some(_), Some(_)) | (None, None) => {
                let message = "exactly one of status and grpcStatus is needed";
                reader.refuse(field.line(), &field.path, message, "write one of them");
                None
            }
        };
        fault.abort = share.zip(abort);
    }
    if fault == Fault::default() && !reader.is_refused() {
        reader.refuse(field.line(), &field.path, "no fault is named", "add delay or abort");
    }
    fields.finish(reader);
    fault
}

fn limits(reader: &mut Reader, fields: &mut Fields<'_>, object: &ObjectRef) -> InboundLimits {
    let mut found = InboundLimits::default();
    for item in items(reader, fields, "rateLimits", 16) {
        found.rates.extend(rate(reader, &item, object));
    }
    if let Some(field) = fields.optional("adaptiveConcurrency") {
        let mut fields = reader.fields(&field);
        let mut limit = |name, default| {
            fields
                .optional(name)
                .map_or(Some(default), |f| reader.integer(&f, "a number of requests", 1, MAX_COUNT))
        };
        let (min, max) = (limit("min", 4), limit("max", 1000));
        fields.finish(reader);
        if let (Some(min), Some(max)) = (min, max) {
            if min > max {
                let message = format!("min {min} is more than max {max}");
                reader.refuse(field.line(), &field.path, message, "write a smaller min, or a larger max");
            }
            found.concurrency = Some(AdaptiveConcurrency { object: object.clone(), min, max });
        }
    }
    found
}

fn rate(reader: &mut Reader, item: &Field<'_>, object: &ObjectRef) -> Option<RateLimit> {
    let mut fields = reader.fields(item);
    let per_field = fields.optional("per");
    let header = fields.optional("header");
    let requests = fields.required(reader, "requests");
    let requests = requests.and_then(|f| reader.integer(&f, "a number of requests", 1, MAX_COUNT));
    let interval = fields.required(reader, "interval").and_then(|f| positive(reader, &f));
    let burst = fields.optional("burst");
    let burst = burst.map(|f| reader.integer(&f, "a number of requests", 1, MAX_COUNT));
    fields.finish(reader);
    let choices = [("Total", 0), ("Identity", 1), ("Header", 2)];
    let kind = per_field.as_ref().map_or(Some(0), |f| reader.choice(f, &choices));
    let per = match (kind?, header) {
        (0, None) => RateKey::Total,
        (1, None) => RateKey::Identity,
        (2, Some(field)) => {
            let text = reader.text(&field)?;
            RateKey::Header(header_name(reader, text, &field)?)
        }
        (2, None) => {
            let path = format!("{}.header", item.path);
            reader.refuse(item.line(), &path, "the field is missing", "write the name of the header");
            return None;
        }
        (_, Some(field)) => {
            reader.refuse(field.line(), &field.path, "per is not Header", "write per: Header, or remove it");
            return None;
        }
        (_, None) => return None,
    };
    let requests = requests?;
    let burst = burst.map_or(Some(requests), |burst| burst)?;
    Some(RateLimit { object: object.clone(), per, requests, interval: interval?, burst })
}

fn respond(reader: &mut Reader, field: &Field<'_>) -> Option<Respond> {
    let mut fields = reader.fields(field);
    let status = fields.required(reader, "status").and_then(|f| reader.integer(&f, "a status", 200, 599));
    let body = fields.optional("body");
    let body = body.map_or(Some(""), |f| {
        let text = reader.text(&f)?;
        if text.len() > Respond::MAX_BODY {
            let what = format!("a text of at most {} bytes", Respond::MAX_BODY);
            reader.expected(&f, &what, "shorten it");
            return None;
        }
        Some(text)
    });
    let content_type = fields.optional("contentType").map(|f| {
        let text = bounded(reader, &f)?;
        let value = HeaderValue::from_str(text).ok().filter(|_| text.contains('/'));
        if value.is_none() {
            reader.expected(&f, "a media type", "write one, as in application/json");
        }
        value
    });
    fields.finish(reader);
    let status = u16::try_from(status?).ok().and_then(|status| StatusCode::from_u16(status).ok())?;
    let content_type = content_type.map_or(Some(None), |value| value.map(Some))?;
    Some(Respond { status, body: body?.into(), content_type })
}

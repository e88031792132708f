//! How calls are spread over the endpoints of one Service.

use std::time::Duration;

use mesh_core::{
    filter::PathChange,
    settings::{
        BackendSettings, Balance, Breaker, HashKey, HealthCheck, HealthKind, Locality, MAX_DURATION, Outlier,
    },
};

use super::{
    At as _, ConvertError, Wire,
    bounded::{duration, duration_or_none, flag, header_name, millis, millis_or_zero, share, within},
    calls::unless_default,
    optional, text,
};
use crate::discovery::v1::{self as pb, balance, hash_key, health_check};

/// Largest count that a breaker or an outlier rule may name.
const MAX_COUNT: u32 = 1_000_000;
/// Most failures or successes in a row.
const MAX_IN_A_ROW: u32 = 1000;

impl Wire for BackendSettings {
    type Message = pb::BackendSettings;

    fn to_wire(&self) -> pb::BackendSettings {
        pb::BackendSettings {
            object: self.object.as_ref().map(Wire::to_wire),
            balance: unless_default(&self.balance),
            slow_start_millis: millis_or_zero(self.slow_start),
            prefer_zone: match self.locality {
                Locality::Ignore => false,
                Locality::PreferZone => true,
            },
            breaker: unless_default(&self.breaker),
            outlier: self.outlier.as_ref().map(Wire::to_wire),
            health: self.health.as_ref().map(Wire::to_wire),
        }
    }

    fn from_wire(message: &pb::BackendSettings) -> Result<Self, ConvertError> {
        Ok(Self {
            object: optional(message.object.as_ref(), "object")?,
            balance: optional(message.balance.as_ref(), "balance")?.unwrap_or_default(),
            slow_start: duration_or_none(message.slow_start_millis, "slow_start_millis")?,
            locality: if message.prefer_zone { Locality::PreferZone } else { Locality::Ignore },
            breaker: optional(message.breaker.as_ref(), "breaker")?.unwrap_or_default(),
            outlier: optional(message.outlier.as_ref(), "outlier")?,
            health: optional(message.health.as_ref(), "health")?,
        })
    }
}

impl Wire for Balance {
    type Message = pb::Balance;

    fn to_wire(&self) -> pb::Balance {
        let kind = match self {
            Self::PeakEwma => balance::Kind::PeakEwma(true),
            Self::LeastRequest => balance::Kind::LeastRequest(true),
            Self::RoundRobin => balance::Kind::RoundRobin(true),
            Self::Random => balance::Kind::Random(true),
            Self::RingHash(key) => balance::Kind::RingHash(key.to_wire()),
            Self::Maglev(key) => balance::Kind::Maglev(key.to_wire()),
        };
        pb::Balance { kind: Some(kind) }
    }

    fn from_wire(message: &pb::Balance) -> Result<Self, ConvertError> {
        match message.kind.as_ref().ok_or_else(ConvertError::missing)? {
            balance::Kind::PeakEwma(set) => flag(*set, Self::PeakEwma, "peak_ewma"),
            balance::Kind::LeastRequest(set) => flag(*set, Self::LeastRequest, "least_request"),
            balance::Kind::RoundRobin(set) => flag(*set, Self::RoundRobin, "round_robin"),
            balance::Kind::Random(set) => flag(*set, Self::Random, "random"),
            balance::Kind::RingHash(key) => HashKey::from_wire(key).map(Self::RingHash).at("ring_hash"),
            balance::Kind::Maglev(key) => HashKey::from_wire(key).map(Self::Maglev).at("maglev"),
        }
    }
}

impl Wire for HashKey {
    type Message = pb::HashKey;

    fn to_wire(&self) -> pb::HashKey {
        let kind = match self {
            Self::Header(name) => hash_key::Kind::Header(name.as_str().into()),
            Self::Cookie { name, ttl, path } => hash_key::Kind::Cookie(pb::HashCookie {
                name: name.as_ref().into(),
                ttl_millis: ttl.map(millis),
                path: path.as_ref().into(),
            }),
            Self::SourceIp => hash_key::Kind::SourceIp(true),
        };
        pb::HashKey { kind: Some(kind) }
    }

    fn from_wire(message: &pb::HashKey) -> Result<Self, ConvertError> {
        match message.kind.as_ref().ok_or_else(ConvertError::missing)? {
            hash_key::Kind::Header(name) => header_name(name, "header").map(Self::Header),
            hash_key::Kind::Cookie(cookie) => cookie_from_wire(cookie).at("cookie"),
            hash_key::Kind::SourceIp(set) => flag(*set, Self::SourceIp, "source_ip"),
        }
    }
}

fn cookie_from_wire(message: &pb::HashCookie) -> Result<HashKey, ConvertError> {
    let name = text(&message.name, "name")?;
    if !HashKey::is_cookie_name(name) {
        return Err(ConvertError::new(name, "a token (RFC 9110 section 5.6.2)")).at("name");
    }
    let path = text(&message.path, "path")?;
    if !path.is_empty() && !HashKey::is_cookie_path(path) {
        return Err(ConvertError::new(path, "nothing, or a path that begins with '/', without ';'"))
            .at("path");
    }
    let ttl = message.ttl_millis.map(Duration::from_millis);
    if ttl.is_some_and(|ttl| ttl > MAX_DURATION) {
        let wanted = format!("at most {} milliseconds", MAX_DURATION.as_millis());
        return Err(ConvertError::new(message.ttl_millis, wanted)).at("ttl_millis");
    }
    Ok(HashKey::Cookie { name: name.into(), ttl, path: path.into() })
}

impl Wire for Breaker {
    type Message = pb::Breaker;

    fn to_wire(&self) -> pb::Breaker {
        pb::Breaker { connections: self.connections, pending: self.pending, requests: self.requests }
    }

    fn from_wire(message: &pb::Breaker) -> Result<Self, ConvertError> {
        let limit = |value: Option<u32>, least, field| {
            value.map(|value| within(value, least..=MAX_COUNT, field)).transpose()
        };
        Ok(Self {
            connections: limit(message.connections, 1, "connections")?,
            pending: limit(message.pending, 0, "pending")?,
            requests: limit(message.requests, 1, "requests")?,
        })
    }
}

impl Wire for Outlier {
    type Message = pb::Outlier;

    fn to_wire(&self) -> pb::Outlier {
        pb::Outlier {
            consecutive: self.consecutive,
            success_rate_ppm: self.success_rate.map(|share| share.parts_per_million()),
            min_requests: self.min_requests,
            interval_millis: millis(self.interval),
            ejection_millis: millis(self.ejection),
            max_ejection_millis: millis(self.max_ejection),
            max_ejected_ppm: self.max_ejected.parts_per_million(),
        }
    }

    fn from_wire(message: &pb::Outlier) -> Result<Self, ConvertError> {
        let ejection = duration(message.ejection_millis, "ejection_millis")?;
        let max_ejection = duration(message.max_ejection_millis, "max_ejection_millis")?;
        if max_ejection < ejection {
            let wanted = format!("at least ejection_millis ({})", message.ejection_millis);
            return Err(ConvertError::new(message.max_ejection_millis, wanted)).at("max_ejection_millis");
        }
        let consecutive = message.consecutive.map(|n| within(n, 1..=MAX_IN_A_ROW, "consecutive"));
        Ok(Self {
            consecutive: consecutive.transpose()?,
            success_rate: message.success_rate_ppm.map(|n| share(n, "success_rate_ppm")).transpose()?,
            min_requests: within(message.min_requests, 0..=MAX_COUNT, "min_requests")?,
            interval: duration(message.interval_millis, "interval_millis")?,
            ejection,
            max_ejection,
            max_ejected: share(message.max_ejected_ppm, "max_ejected_ppm")?,
        })
    }
}

impl Wire for HealthCheck {
    type Message = pb::HealthCheck;

    fn to_wire(&self) -> pb::HealthCheck {
        let kind = match &self.kind {
            HealthKind::Tcp => health_check::Kind::Tcp(true),
            HealthKind::Http(path) => health_check::Kind::HttpPath(path.as_ref().into()),
            HealthKind::Grpc(service) => health_check::Kind::GrpcService(service.as_ref().into()),
        };
        pb::HealthCheck {
            kind: Some(kind),
            interval_millis: millis(self.interval),
            timeout_millis: millis(self.timeout),
            unhealthy: self.unhealthy,
            healthy: self.healthy,
        }
    }

    fn from_wire(message: &pb::HealthCheck) -> Result<Self, ConvertError> {
        let kind = match message.kind.as_ref().ok_or_else(ConvertError::missing)? {
            health_check::Kind::Tcp(set) => flag(*set, HealthKind::Tcp, "tcp")?,
            health_check::Kind::HttpPath(path) if PathChange::is_path(text(path, "http_path")?) => {
                HealthKind::Http(path.as_str().into())
            }
            health_check::Kind::HttpPath(path) => {
                return Err(ConvertError::new(path, "a path that begins with '/'")).at("http_path");
            }
            health_check::Kind::GrpcService(service) => {
                HealthKind::Grpc(text(service, "grpc_service")?.into())
            }
        };
        Ok(Self {
            kind,
            interval: duration(message.interval_millis, "interval_millis")?,
            timeout: duration(message.timeout_millis, "timeout_millis")?,
            unhealthy: within(message.unhealthy, 1..=Self::MAX_IN_A_ROW, "unhealthy")?,
            healthy: within(message.healthy, 1..=Self::MAX_IN_A_ROW, "healthy")?,
        })
    }
}

//! What a workload's proxy lets in at a time, besides policy.

use mesh_core::settings::{AdaptiveConcurrency, InboundLimits, RateKey, RateLimit};

use super::{
    At as _, ConvertError, Wire,
    bounded::{duration, flag, header_name, millis, within},
    each, optional, required, to_list,
};
use crate::discovery::v1::{self as pb, rate_limit};

/// Largest count that a limit may name.
const MAX_COUNT: u32 = 1_000_000_000;

impl Wire for InboundLimits {
    type Message = pb::InboundLimits;

    fn to_wire(&self) -> pb::InboundLimits {
        pb::InboundLimits {
            rates: to_list(&self.rates),
            concurrency: self.concurrency.as_ref().map(Wire::to_wire),
        }
    }

    fn from_wire(message: &pb::InboundLimits) -> Result<Self, ConvertError> {
        Ok(Self {
            rates: each(&message.rates, "rates", Self::MAX_RATES, RateLimit::from_wire)?,
            concurrency: optional(message.concurrency.as_ref(), "concurrency")?,
        })
    }
}

impl Wire for RateLimit {
    type Message = pb::RateLimit;

    fn to_wire(&self) -> pb::RateLimit {
        let per = match &self.per {
            RateKey::Total => rate_limit::Per::Total(true),
            RateKey::Identity => rate_limit::Per::Identity(true),
            RateKey::Header(name) => rate_limit::Per::Header(name.as_str().into()),
        };
        pb::RateLimit {
            object: Some(self.object.to_wire()),
            per: Some(per),
            requests: self.requests,
            interval_millis: millis(self.interval),
            burst: self.burst,
        }
    }

    fn from_wire(message: &pb::RateLimit) -> Result<Self, ConvertError> {
        let per = match message.per.as_ref().ok_or_else(ConvertError::missing).at("per")? {
            rate_limit::Per::Total(set) => flag(*set, RateKey::Total, "total")?,
            rate_limit::Per::Identity(set) => flag(*set, RateKey::Identity, "identity")?,
            rate_limit::Per::Header(name) => RateKey::Header(header_name(name, "header")?),
        };
        Ok(Self {
            object: required(message.object.as_ref(), "object")?,
            per,
            requests: within(message.requests, 1..=MAX_COUNT, "requests")?,
            interval: duration(message.interval_millis, "interval_millis")?,
            burst: within(message.burst, 1..=MAX_COUNT, "burst")?,
        })
    }
}

impl Wire for AdaptiveConcurrency {
    type Message = pb::AdaptiveConcurrency;

    fn to_wire(&self) -> pb::AdaptiveConcurrency {
        pb::AdaptiveConcurrency { object: Some(self.object.to_wire()), min: self.min, max: self.max }
    }

    fn from_wire(message: &pb::AdaptiveConcurrency) -> Result<Self, ConvertError> {
        let min = within(message.min, 1..=MAX_COUNT, "min")?;
        Ok(Self {
            object: required(message.object.as_ref(), "object")?,
            min,
            max: within(message.max, min..=MAX_COUNT, "max")?,
        })
    }
}

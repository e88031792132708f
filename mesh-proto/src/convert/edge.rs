//! What proxies count.

use mesh_core::{
    edge::{Direction, EdgeKey, EdgeTotals},
    histogram::{BUCKETS, Histogram},
    reason::Reason,
};

use super::{At as _, ConvertError, Wire, each, optional, parsed_or_empty, required};
use crate::{common::v1 as common, telemetry::v1 as pb};

/// Most reason codes in one summary: room for those that a newer proxy knows.
const MAX_REASONS: usize = 256;

impl Wire for Direction {
    /// A `mesh.telemetry.v1.Direction`, as protobuf's open enums are held.
    type Message = i32;

    fn to_wire(&self) -> i32 {
        let direction = match self {
            Self::Outbound => pb::Direction::Outbound,
            Self::Inbound => pb::Direction::Inbound,
        };
        direction.into()
    }

    fn from_wire(message: &i32) -> Result<Self, ConvertError> {
        match pb::Direction::try_from(*message) {
            Ok(pb::Direction::Outbound) => Ok(Self::Outbound),
            Ok(pb::Direction::Inbound) => Ok(Self::Inbound),
            Ok(pb::Direction::Unspecified) | Err(_) => {
                Err(ConvertError::new(message, "a number of mesh.telemetry.v1.Direction that is not 0"))
            }
        }
    }
}

impl Wire for EdgeKey {
    type Message = pb::EdgeKey;

    fn to_wire(&self) -> pb::EdgeKey {
        pb::EdgeKey {
            direction: self.direction.to_wire(),
            source: self.source.as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default(),
            destination: self.destination.as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default(),
            service: self.service.as_ref().map(Wire::to_wire),
            backend: self.backend.as_ref().map(Wire::to_wire),
            destination_workload: self.destination_workload.as_ref().map(Wire::to_wire),
            rule: self.rule.as_ref().map(Wire::to_wire),
            protocol: self.protocol.to_wire(),
            secured: self.secured,
        }
    }

    fn from_wire(message: &pb::EdgeKey) -> Result<Self, ConvertError> {
        Ok(Self {
            direction: Wire::from_wire(&message.direction).at("direction")?,
            source: parsed_or_empty(&message.source, "source")?,
            destination: parsed_or_empty(&message.destination, "destination")?,
            service: optional(message.service.as_ref(), "service")?,
            backend: optional(message.backend.as_ref(), "backend")?,
            destination_workload: optional(message.destination_workload.as_ref(), "destination_workload")?,
            rule: optional(message.rule.as_ref(), "rule")?,
            protocol: Wire::from_wire(&message.protocol).at("protocol")?,
            secured: message.secured,
        })
    }
}

impl Wire for (EdgeKey, EdgeTotals) {
    type Message = pb::EdgeSummary;

    fn to_wire(&self) -> pb::EdgeSummary {
        let (key, totals) = self;
        let reason =
            |(reason, count): (&Reason, &u64)| pb::ReasonCount { code: reason.code().into(), count: *count };
        let no_status = totals.status_classes == [0; 5];
        pb::EdgeSummary {
            key: Some(key.to_wire()),
            requests: totals.requests,
            failures: totals.failures,
            reasons: totals.reasons.iter().map(reason).collect(),
            latency: Some(totals.latency.to_wire()),
            request_bytes: totals.request_bytes,
            response_bytes: totals.response_bytes,
            connections: totals.connections,
            status_classes: if no_status { Vec::new() } else { totals.status_classes.to_vec() },
        }
    }

    /// Reason codes that are not known are left out, for a newer proxy may know more; `failures` still counts them.
    fn from_wire(message: &pb::EdgeSummary) -> Result<Self, ConvertError> {
        let reasons = each(&message.reasons, "reasons", MAX_REASONS, |reason| {
            Ok(Reason::from_code(&reason.code).map(|known| (known, reason.count)))
        })?;
        let status_classes = match message.status_classes.as_slice() {
            [] => [0; 5],
            classes => classes
                .try_into()
                .map_err(|_| ConvertError::new(classes, "5 classes or none"))
                .at("status_classes")?,
        };
        let totals = EdgeTotals {
            requests: message.requests,
            failures: message.failures,
            reasons: reasons.into_iter().flatten().collect(),
            latency: optional(message.latency.as_ref(), "latency")?.unwrap_or_default(),
            request_bytes: message.request_bytes,
            response_bytes: message.response_bytes,
            connections: message.connections,
            status_classes,
        };
        Ok((required(message.key.as_ref(), "key")?, totals))
    }
}

impl Wire for Histogram {
    type Message = common::Histogram;

    fn to_wire(&self) -> common::Histogram {
        let (buckets, counts) = self.iter().map(|(bucket, count)| (bucket as u32, count)).unzip();
        common::Histogram { buckets, counts, sum_micros: self.sum_micros() }
    }

    fn from_wire(message: &common::Histogram) -> Result<Self, ConvertError> {
        if message.buckets.len() != message.counts.len() {
            let wanted = format!("{} counts, as many as buckets", message.buckets.len());
            return Err(ConvertError::new(message.counts.len(), wanted)).at("counts");
        }
        let mut next = 0;
        each(&message.buckets, "buckets", BUCKETS, |bucket| {
            let index = *bucket as usize;
            if index < next || index >= BUCKETS {
                let wanted = format!("an index below {BUCKETS}, greater than the one before");
                return Err(ConvertError::new(bucket, wanted));
            }
            next = index + 1;
            Ok(())
        })?;
        let mut histogram = Self::default();
        for (bucket, count) in message.buckets.iter().zip(&message.counts) {
            histogram.add(*bucket as usize, *count, 0);
        }
        histogram.add(0, 0, message.sum_micros);
        Ok(histogram)
    }
}

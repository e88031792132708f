//! Numbers within bounds: durations, shares, statuses.

use std::{fmt::Debug, ops::RangeInclusive, time::Duration};

use http::HeaderName;
use mesh_core::settings::{MAX_DURATION, Share};

use super::{At as _, ConvertError};

/// In whole milliseconds; parts of one are rounded up, so that no limit becomes none.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
}

/// As [`millis`]; 0 stands for None.
pub(super) fn millis_or_zero(duration: Option<Duration>) -> u64 {
    duration.map_or(0, millis)
}

/// A duration that is not 0 and at most [`MAX_DURATION`].
pub(super) fn duration(value: u64, field: &str) -> Result<Duration, ConvertError> {
    let duration = Duration::from_millis(value);
    if duration.is_zero() || duration > MAX_DURATION {
        let wanted = format!("milliseconds from 1 to {}", MAX_DURATION.as_millis());
        return Err(ConvertError::new(value, wanted)).at(field);
    }
    Ok(duration)
}

/// As [`duration`]; 0 stands for None.
pub(super) fn duration_or_none(value: u64, field: &str) -> Result<Option<Duration>, ConvertError> {
    if value == 0 { Ok(None) } else { duration(value, field).map(Some) }
}

/// A share in parts per million.
pub(super) fn share(value: u32, field: &str) -> Result<Share, ConvertError> {
    let all = Share::ALL.parts_per_million();
    within(value, 0..=all, field).map(|value| Share::of(value, all))
}

/// A number within bounds.
pub(super) fn within<T: Copy + Debug + PartialOrd>(
    value: T,
    bounds: RangeInclusive<T>,
    field: &str,
) -> Result<T, ConvertError> {
    if bounds.contains(&value) {
        return Ok(value);
    }
    let wanted = format!("a number from {:?} to {:?}", bounds.start(), bounds.end());
    Err(ConvertError::new(value, wanted)).at(field)
}

/// An HTTP status of an error, 400 to 599.
pub(super) fn error_status(value: u32, field: &str) -> Result<u16, ConvertError> {
    within(value, 400..=599, field).map(|status| u16::try_from(status).unwrap_or(500))
}

/// A gRPC status of an error, 1 to 16.
pub(super) fn grpc_status(value: u32, field: &str) -> Result<u8, ConvertError> {
    within(value, 1..=16, field).map(|status| u8::try_from(status).unwrap_or(2))
}

/// A flag that stands for one of several kinds: it is there, so it is true.
pub(super) fn flag<T>(value: bool, kind: T, field: &str) -> Result<T, ConvertError> {
    if value { Ok(kind) } else { Err(ConvertError::new(false, "true")).at(field) }
}

/// The name of a header field.
pub(super) fn header_name(value: &str, field: &str) -> Result<HeaderName, ConvertError> {
    HeaderName::from_bytes(value.as_bytes())
        .map_err(|_| ConvertError::new(value, "a header name (RFC 9110 section 5.1)"))
        .at(field)
}

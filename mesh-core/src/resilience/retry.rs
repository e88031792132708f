//! Whether a try that failed is followed by another, and when.

use std::time::Duration;

use http::Method;

use crate::settings::{Retry, RetryOn};

/// Tries of one request where nothing is configured.
pub const DEFAULT_RETRIES: u32 = 2;
/// Wait before the first retry where nothing is configured.
const DEFAULT_BACKOFF: Duration = Duration::from_millis(25);

/// How a try failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// No connection to the endpoint: nothing was sent.
    Unconnected,
    /// It provably never reached the application: the stream was refused, or the peer's proxy says so.
    Unprocessed,
    /// The connection or stream broke; nobody knows what the application did.
    Reset,
    /// The try took too long.
    Timeout,
    /// The response has this status.
    Status(u16),
    /// The response is gRPC's, without messages, and has this status.
    Grpc(u16),
}

/// True when a request that failed so is tried again, as the `done`-th retry (from 0).
///
/// Only what provably never reached the application is tried again unless `retry` says more; and what may have reached
/// it only with a method that is idempotent (RFC 9110 section 9.2.2), unless `retry` says otherwise. All of gRPC is
/// POST: who names a gRPC status says with it that these calls may be repeated.
#[must_use]
pub fn again(retry: Option<&Retry>, failed: Failed, method: &Method, done: u32) -> bool {
    if done >= retry.map_or(DEFAULT_RETRIES, |retry| retry.retries.min(Retry::MAX_RETRIES)) {
        return false;
    }
    if matches!(failed, Failed::Unconnected | Failed::Unprocessed) {
        return true;
    }
    let Some(retry) = retry else { return false };
    let repeatable = retry.non_idempotent || method.is_idempotent();
    retry.on.iter().any(|condition| match (condition, failed) {
        (RetryOn::Reset, Failed::Reset) | (RetryOn::Timeout, Failed::Timeout) => repeatable,
        (RetryOn::Status(status), Failed::Status(of)) => repeatable && *status == of,
        (RetryOn::ServerError, Failed::Status(of)) => repeatable && (500..600).contains(&of),
        (RetryOn::Grpc(status), Failed::Grpc(of)) => u16::from(*status) == of,
        (
            RetryOn::ConnectFailure
            | RetryOn::Reset
            | RetryOn::Timeout
            | RetryOn::Status(_)
            | RetryOn::ServerError
            | RetryOn::Grpc(_),
            _,
        ) => false,
    })
}

/// Wait before the `done`-th retry (from 0): doubled each time, up to a maximum, and between half and all of that at
/// random. What never reached anybody is first tried elsewhere at once. `random` is uniform over all of u64.
#[must_use]
pub fn backoff(retry: Option<&Retry>, failed: Failed, done: u32, random: u64) -> Duration {
    if done == 0 && matches!(failed, Failed::Unconnected | Failed::Unprocessed) {
        return Duration::ZERO;
    }
    let base = retry.and_then(|retry| retry.backoff).unwrap_or(DEFAULT_BACKOFF);
    let longest = retry.and_then(|retry| retry.max_backoff).unwrap_or(base * 10);
    let full = base.saturating_mul(1 << done.min(16)).min(longest);
    full / 2 + (full / 2).mul_f64((random >> 11) as f64 / (1_u64 << 53) as f64)
}

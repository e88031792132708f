//! What holds for every call to a Service: time limits, retries, faults.

use mesh_core::settings::{Abort, CallSettings, Fault, Retry, RetryBudget, RetryOn, Timeouts};

use super::{
    At as _, ConvertError, Wire,
    bounded::{
        duration, duration_or_none, error_status, flag, grpc_status, millis, millis_or_zero, share, within,
    },
    each, optional, to_list,
};
use crate::discovery::v1::{self as pb, fault_abort, retry_on};

/// Most conditions of a retry.
const MAX_CONDITIONS: usize = 256;
/// Most retries per second that a budget always allows.
const MAX_RETRIES_PER_SECOND: u32 = 1_000_000;

impl Wire for CallSettings {
    type Message = pb::CallSettings;

    fn to_wire(&self) -> pb::CallSettings {
        pb::CallSettings {
            object: self.object.as_ref().map(Wire::to_wire),
            timeouts: unless_default(&self.timeouts),
            retry: self.retry.as_ref().map(Wire::to_wire),
            budget: unless_default(&self.budget),
            fault: self.fault.as_ref().map(Wire::to_wire),
        }
    }

    fn from_wire(message: &pb::CallSettings) -> Result<Self, ConvertError> {
        Ok(Self {
            object: optional(message.object.as_ref(), "object")?,
            timeouts: optional(message.timeouts.as_ref(), "timeouts")?.unwrap_or_default(),
            retry: optional(message.retry.as_ref(), "retry")?,
            budget: optional(message.budget.as_ref(), "budget")?.unwrap_or_default(),
            fault: optional(message.fault.as_ref(), "fault")?,
        })
    }
}

/// What is as it is by default is not sent.
pub(super) fn unless_default<T: Wire + Default + PartialEq>(value: &T) -> Option<T::Message> {
    (*value != T::default()).then(|| value.to_wire())
}

impl Wire for Timeouts {
    type Message = pb::Timeouts;

    fn to_wire(&self) -> pb::Timeouts {
        pb::Timeouts {
            connect_millis: millis_or_zero(self.connect),
            request_millis: millis_or_zero(self.request),
            per_try_millis: millis_or_zero(self.per_try),
            idle_millis: millis_or_zero(self.idle),
            stream_millis: millis_or_zero(self.stream),
        }
    }

    fn from_wire(message: &pb::Timeouts) -> Result<Self, ConvertError> {
        Ok(Self {
            connect: duration_or_none(message.connect_millis, "connect_millis")?,
            request: duration_or_none(message.request_millis, "request_millis")?,
            per_try: duration_or_none(message.per_try_millis, "per_try_millis")?,
            idle: duration_or_none(message.idle_millis, "idle_millis")?,
            stream: duration_or_none(message.stream_millis, "stream_millis")?,
        })
    }
}

impl Wire for Retry {
    type Message = pb::Retry;

    fn to_wire(&self) -> pb::Retry {
        pb::Retry {
            retries: self.retries,
            on: to_list(&self.on),
            non_idempotent: self.non_idempotent,
            backoff_millis: millis_or_zero(self.backoff),
            max_backoff_millis: millis_or_zero(self.max_backoff),
        }
    }

    fn from_wire(message: &pb::Retry) -> Result<Self, ConvertError> {
        Ok(Self {
            retries: within(message.retries, 0..=Self::MAX_RETRIES, "retries")?,
            on: each(&message.on, "on", MAX_CONDITIONS, RetryOn::from_wire)?,
            non_idempotent: message.non_idempotent,
            backoff: duration_or_none(message.backoff_millis, "backoff_millis")?,
            max_backoff: duration_or_none(message.max_backoff_millis, "max_backoff_millis")?,
        })
    }
}

impl Wire for RetryOn {
    type Message = pb::RetryOn;

    fn to_wire(&self) -> pb::RetryOn {
        let kind = match self {
            Self::ConnectFailure => retry_on::Kind::ConnectFailure(true),
            Self::Reset => retry_on::Kind::Reset(true),
            Self::Timeout => retry_on::Kind::Timeout(true),
            Self::Status(status) => retry_on::Kind::Status((*status).into()),
            Self::ServerError => retry_on::Kind::ServerError(true),
            Self::Grpc(status) => retry_on::Kind::Grpc((*status).into()),
        };
        pb::RetryOn { kind: Some(kind) }
    }

    fn from_wire(message: &pb::RetryOn) -> Result<Self, ConvertError> {
        match *message.kind.as_ref().ok_or_else(ConvertError::missing)? {
            retry_on::Kind::ConnectFailure(set) => flag(set, Self::ConnectFailure, "connect_failure"),
            retry_on::Kind::Reset(set) => flag(set, Self::Reset, "reset"),
            retry_on::Kind::Timeout(set) => flag(set, Self::Timeout, "timeout"),
            retry_on::Kind::ServerError(set) => flag(set, Self::ServerError, "server_error"),
            retry_on::Kind::Status(status) => error_status(status, "status").map(Self::Status),
            retry_on::Kind::Grpc(status) => grpc_status(status, "grpc").map(Self::Grpc),
        }
    }
}

impl Wire for RetryBudget {
    type Message = pb::RetryBudget;

    fn to_wire(&self) -> pb::RetryBudget {
        pb::RetryBudget {
            share_ppm: self.share.parts_per_million(),
            min_per_second: self.min_per_second,
            interval_millis: millis(self.interval),
        }
    }

    fn from_wire(message: &pb::RetryBudget) -> Result<Self, ConvertError> {
        Ok(Self {
            share: share(message.share_ppm, "share_ppm")?,
            min_per_second: within(message.min_per_second, 0..=MAX_RETRIES_PER_SECOND, "min_per_second")?,
            interval: duration(message.interval_millis, "interval_millis")?,
        })
    }
}

impl Wire for Fault {
    type Message = pb::Fault;

    fn to_wire(&self) -> pb::Fault {
        let kind = |abort| match abort {
            Abort::Http(status) => fault_abort::Kind::Http(u32::from(status)),
            Abort::Grpc(status) => fault_abort::Kind::Grpc(u32::from(status)),
        };
        pb::Fault {
            delay: self.delay.map(|(share, delay)| pb::FaultDelay {
                share_ppm: share.parts_per_million(),
                delay_millis: millis(delay),
            }),
            abort: self.abort.map(|(share, abort)| pb::FaultAbort {
                share_ppm: share.parts_per_million(),
                kind: Some(kind(abort)),
            }),
        }
    }

    fn from_wire(message: &pb::Fault) -> Result<Self, ConvertError> {
        let delay = |delay: &pb::FaultDelay| {
            Ok((share(delay.share_ppm, "share_ppm")?, duration(delay.delay_millis, "delay_millis")?))
        };
        let abort = |abort: &pb::FaultAbort| {
            let kind = match abort.kind.ok_or_else(ConvertError::missing)? {
                fault_abort::Kind::Http(status) => Abort::Http(error_status(status, "http")?),
                fault_abort::Kind::Grpc(status) => Abort::Grpc(grpc_status(status, "grpc")?),
            };
            Ok((share(abort.share_ppm, "share_ppm")?, kind))
        };
        Ok(Self {
            delay: message.delay.as_ref().map(delay).transpose().at("delay")?,
            abort: message.abort.as_ref().map(abort).transpose().at("abort")?,
        })
    }
}

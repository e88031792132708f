//! Bodies as they come, whoever reads them off their connection.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use mesh_core::reason::Reason;

use super::{
    h1::{Asked, Malformed, OnUpgrade},
    h2,
};
use crate::pool::Received;

/// A body as it comes.
pub(crate) enum Incoming {
    /// In a stream of HTTP/2.
    H2(h2::Received),
    /// In a response of HTTP/1.
    H1(Received),
    /// In a request of HTTP/1.
    Asked(Asked),
}

impl Incoming {
    /// Passes on what an upstream says before its response, where the caller can be told.
    pub(super) fn interim(&self, response: Response<()>) {
        match self {
            Self::Asked(asked) => asked.interim(&response),
            Self::H2(received) => received.interim(response),
            Self::H1(_) => {}
        }
    }

    /// Asks for the body, where the caller waits for that. One of HTTP/1 is asked as its body is read.
    pub(super) fn ask(&self) {
        if let Self::H2(received) = self {
            received.ask();
        }
    }

    /// The caller's connection, should it be told to speak something else.
    pub(super) fn on_upgrade(&self) -> OnUpgrade {
        match self {
            Self::Asked(asked) => asked.on_upgrade(),
            Self::H2(_) | Self::H1(_) => OnUpgrade::never(),
        }
    }

    /// As [`on_upgrade`](Self::on_upgrade), for what is soon answered.
    pub(super) fn on_tunnel(&self) -> OnUpgrade {
        match self {
            Self::Asked(asked) => asked.on_tunnel(),
            Self::H2(_) | Self::H1(_) => OnUpgrade::never(),
        }
    }
}

/// Why a body does not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// HTTP/2.
    #[error(transparent)]
    H2(#[from] ::h2::Error),
    /// Reading failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not what it should be.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Nothing came for too long.
    #[error("nothing came of the request's body for too long")]
    Stalled,
    /// It is sent elsewhere.
    #[error("the request is sent elsewhere")]
    Superseded,
    /// Its time is over.
    #[error("the time for the exchange is over")]
    TimedOut,
}

impl BodyError {
    /// What the caller did wrong when its body breaks: chunks that are none are no body; others just end.
    pub(super) fn fault(&self) -> Reason {
        match self {
            Self::Malformed(Malformed::TooLarge) => Reason::LimitExceeded,
            Self::Malformed(Malformed::Ended) => Reason::ClientDisconnected,
            Self::Malformed(_) => Reason::BadRequest,
            Self::H2(_) | Self::Io(_) | Self::Stalled | Self::Superseded | Self::TimedOut => {
                Reason::ClientDisconnected
            }
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::H2(inner) => Pin::new(inner).poll_frame(cx),
            Self::H1(inner) => Pin::new(inner).poll_frame(cx),
            Self::Asked(inner) => Pin::new(inner).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::H2(inner) => inner.is_end_stream(),
            Self::H1(inner) => inner.is_end_stream(),
            Self::Asked(inner) => inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::H2(inner) => inner.size_hint(),
            Self::H1(inner) => inner.size_hint(),
            Self::Asked(inner) => inner.size_hint(),
        }
    }
}

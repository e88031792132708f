//! What an upstream says before its response (RFC 9110 section 15.2), on its way to the caller.

use http::{HeaderMap, Response, StatusCode, Version, header::CONTENT_LENGTH};

use super::headers;

/// Most interim responses (1xx) before the final one.
const MOST: usize = 16;

/// Counts the interim responses to one request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Interims(usize);

impl Interims {
    /// One more came. False: they are too many.
    pub(crate) fn came(&mut self) -> bool {
        self.0 += 1;
        self.0 <= MOST
    }
}

/// Whether another response follows one with this status.
pub(crate) fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// An interim response as callers get it: nothing of one hop, nothing in the mesh's name, and no length of a body that it
/// cannot have.
pub(crate) fn passed_on(status: StatusCode, mut fields: HeaderMap) -> Response<()> {
    // As of a version without upgrades: nobody is asked for one before the response.
    headers::strip(&mut fields, Version::HTTP_2);
    fields.remove(CONTENT_LENGTH);
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = fields;
    response
}

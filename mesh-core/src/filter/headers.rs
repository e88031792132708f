//! Changes of header fields: what a route may change, and how.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        CONNECTION, CONTENT_LENGTH, EXPECT, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
        TRANSFER_ENCODING, UPGRADE,
    },
};

use super::HeaderChanges;
use crate::reason::HEADER_PREFIX;

/// False for fields that frame a message, hold for one hop only (RFC 9110 section 7.6.1), say where a request goes, or
/// belong to the mesh: changes of these are left out.
#[must_use]
pub fn may_change(name: &HeaderName) -> bool {
    const NEVER: [HeaderName; 10] = [
        CONNECTION,
        CONTENT_LENGTH,
        EXPECT,
        HOST,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ];
    !NEVER.contains(name)
        && !name.as_str().starts_with(HEADER_PREFIX)
        && !matches!(name.as_str(), "keep-alive" | "proxy-connection" | "http2-settings")
}

impl HeaderChanges {
    /// Changes `headers`. A value that would be one too many for the map is left out.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in self.set.iter().filter(|(name, _)| may_change(name)) {
            // Full: the map can hold some ten thousand fields, which no message has.
            let _ = headers.try_insert(name.clone(), value.clone());
        }
        for (name, value) in self.add.iter().filter(|(name, _)| may_change(name)) {
            let _ = headers.try_append(name.clone(), value.clone());
        }
        for name in self.remove.iter().filter(|name| may_change(name)) {
            headers.remove(name);
        }
    }

    /// The new host, where `host` is set: it is rewritten, not just a field.
    #[must_use]
    pub fn host(&self) -> Option<&HeaderValue> {
        self.set.iter().rev().find(|(name, _)| *name == HOST).map(|(_, value)| value)
    }
}

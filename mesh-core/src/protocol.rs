//! What applications speak, and what proxies speak with each other.

use std::fmt;

/// What an application speaks on a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// Not declared.
    #[default]
    Undeclared,
    /// HTTP/1.0 or HTTP/1.1 in plaintext.
    Http1,
    /// HTTP/2 in plaintext with prior knowledge.
    Http2,
    /// gRPC over HTTP/2 in plaintext.
    Grpc,
    /// Bytes that the mesh does not look into; TLS of the application included.
    Opaque,
}

impl Protocol {
    /// Reads a Service port's `appProtocol` (Kubernetes standard names, IANA names and the mesh's own), in any case.
    /// None when the name is not known: the port then counts as [`Protocol::Undeclared`] and is reported.
    #[must_use]
    pub fn from_app_protocol(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "http" | "http1" | "http/1.1" | "kubernetes.io/ws" => Self::Http1,
            "http2" | "h2c" | "kubernetes.io/h2c" => Self::Http2,
            "grpc" => Self::Grpc,
            "tcp" | "https" | "tls" | "kubernetes.io/wss" | "meshctl.dev/opaque" => Self::Opaque,
            _ => return None,
        })
    }

    /// True when requests can be told apart and matched.
    #[must_use]
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http1 | Self::Http2 | Self::Grpc)
    }

    /// Name in metrics, logs and tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Undeclared => "undeclared",
            Self::Http1 => "http",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Opaque => "tcp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What two proxies speak inside mesh TLS (ALPN, RFC 7301). A ClientHello that offers none of these is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MeshAlpn {
    /// HTTP/1.1, one request at a time.
    H1,
    /// HTTP/2 end to end.
    H2,
    /// HTTP/1.1 requests multiplexed over HTTP/2; the inbound side speaks HTTP/1.1 to the application.
    H1OverH2,
    /// Bytes.
    Tcp,
}

impl MeshAlpn {
    /// All of them, in the server's order of preference.
    pub const ALL: [Self; 4] = [Self::H2, Self::H1OverH2, Self::H1, Self::Tcp];

    /// The protocol name on the wire.
    #[must_use]
    pub fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::H1 => b"mesh1-h1",
            Self::H2 => b"mesh1-h2",
            Self::H1OverH2 => b"mesh1-h1h2",
            Self::Tcp => b"mesh1-tcp",
        }
    }

    /// Reads a protocol name; None: not one of ours.
    #[must_use]
    pub fn from_bytes(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|alpn| alpn.as_bytes() == name)
    }
}

/// ALPN of proxies towards the controller (gRPC over HTTP/2).
pub const CONTROL_ALPN: &[u8] = b"h2";

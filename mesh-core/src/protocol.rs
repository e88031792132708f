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

/// Version of a PROXY protocol header (haproxy.org, "The PROXY protocol").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProxyVersion {
    /// One line of text.
    V1,
    /// Binary; has room for the caller's SPIFFE ID.
    V2,
}

/// Headers of the PROXY protocol on a port of a workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ProxyProtocol {
    /// Callers without mesh TLS begin with one, as a load balancer before the mesh does. What it says of the caller's
    /// address is believed.
    pub accept: bool,
    /// The application gets one before the caller's bytes, where these are not looked into.
    pub send: Option<ProxyVersion>,
}

impl ProxyProtocol {
    /// Reads words between commas: `accept`; `send` (version 2) or `send-v1`. None: another word, or a contradiction.
    #[must_use]
    pub fn from_words(text: &str) -> Option<Self> {
        let mut found = Self::default();
        for word in text.split(',').map(str::trim) {
            let send = match word {
                "accept" if !found.accept => {
                    found.accept = true;
                    continue;
                }
                "send" => ProxyVersion::V2,
                "send-v1" => ProxyVersion::V1,
                _ => return None,
            };
            if found.send.replace(send).is_some() {
                return None;
            }
        }
        Some(found)
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
    /// Bytes. Those of the callee follow one byte that says that its proxy takes the connection, or a reason why not
    /// (docs/adr/0010-refusals-of-opaque-connections-say-why.md).
    TcpTold,
    /// Bytes and nothing else.
    Tcp,
}

impl MeshAlpn {
    /// All of them, in the server's order of preference.
    pub const ALL: [Self; 5] = [Self::H2, Self::H1OverH2, Self::H1, Self::TcpTold, Self::Tcp];

    /// What a caller that wants this offers: proxies of before know only the last.
    #[must_use]
    pub fn offered(self) -> &'static [Self] {
        match self {
            Self::H1 => &[Self::H1],
            Self::H2 => &[Self::H2],
            Self::H1OverH2 => &[Self::H1OverH2],
            Self::TcpTold => &[Self::TcpTold, Self::Tcp],
            Self::Tcp => &[Self::Tcp],
        }
    }

    /// The protocol name on the wire.
    #[must_use]
    pub fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::H1 => b"mesh1-h1",
            Self::H2 => b"mesh1-h2",
            Self::H1OverH2 => b"mesh1-h1h2",
            Self::TcpTold => b"mesh1-tcp-r",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_proxy_protocol_are_read() {
        let both = ProxyProtocol { accept: true, send: Some(ProxyVersion::V2) };
        assert_eq!(ProxyProtocol::from_words("accept, send"), Some(both));
        let old = ProxyProtocol { accept: false, send: Some(ProxyVersion::V1) };
        assert_eq!(ProxyProtocol::from_words("send-v1"), Some(old));
        for wrong in ["", "Accept", "accept,accept", "send,send-v1", "accept,", "v2"] {
            assert_eq!(ProxyProtocol::from_words(wrong), None, "{wrong}");
        }
    }
}

//! What bytes say, without I/O.

use mesh_core::protocol::MeshAlpn;
use rustls::server::Acceptor;

/// Most bytes that are looked at: a ClientHello with post-quantum key shares has about 2 KiB.
pub(crate) const MAX_BYTES: usize = 16 * 1024;

/// Connection preface of HTTP/2 (RFC 9113 section 3.4).
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Longest method that is taken for HTTP.
const MAX_METHOD: usize = 24;

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detected {
    /// TLS that offers a protocol between proxies.
    MeshTls,
    /// TLS of the application.
    ForeignTls,
    /// HTTP/1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// None of these.
    Other,
}

/// Says what `bytes`, the first of a connection, are. None: more are needed.
pub(crate) fn classify(bytes: &[u8]) -> Option<Detected> {
    let first = *bytes.first()?;
    if first == 0x16 {
        return client_hello(bytes);
    }
    if bytes.starts_with(PREFACE) {
        return Some(Detected::Http2);
    }
    if PREFACE.starts_with(bytes) {
        return None;
    }
    request_line(bytes)
}

/// A TLS handshake record begins; what does its ClientHello offer?
fn client_hello(bytes: &[u8]) -> Option<Detected> {
    match bytes.get(1) {
        Some(3) => {}
        Some(_) => return Some(Detected::Other),
        None => return None,
    }
    let mut acceptor = Acceptor::default();
    let mut rest = bytes.get(..bytes.len().min(MAX_BYTES)).unwrap_or_default();
    while !rest.is_empty() {
        match acceptor.read_tls(&mut rest) {
            Ok(0) | Err(_) => return Some(Detected::ForeignTls),
            Ok(_) => {}
        }
        match acceptor.accept() {
            Ok(None) => {}
            // Not for us to refuse: whatever it is, it is not ours.
            Err(_) => return Some(Detected::ForeignTls),
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let ours = |name: &[u8]| MeshAlpn::from_bytes(name).is_some();
                return Some(match hello.alpn().is_some_and(|mut names| names.any(ours)) {
                    true => Detected::MeshTls,
                    false => Detected::ForeignTls,
                });
            }
        }
    }
    (bytes.len() >= MAX_BYTES).then_some(Detected::ForeignTls)
}

/// Begins the text a request line, `METHOD SP target SP HTTP/1.x`? A method and a space are enough, as long as the
/// line that follows, once it is there, names HTTP/1.
fn request_line(bytes: &[u8]) -> Option<Detected> {
    // Empty lines before a request line are allowed (RFC 9112 section 2.2).
    let text = bytes.trim_ascii_start();
    let Some(space) = text.iter().position(|&b| b == b' ') else {
        let method = text.iter().all(|&b| is_method(b)) && text.len() <= MAX_METHOD;
        return if method && bytes.len() <= 64 { None } else { Some(Detected::Other) };
    };
    let method = text.get(..space).unwrap_or_default();
    if method.is_empty() || method.len() > MAX_METHOD || !method.iter().all(|&b| is_method(b)) {
        return Some(Detected::Other);
    }
    match text.iter().position(|&b| b == b'\n') {
        None if bytes.len() >= MAX_BYTES => Some(Detected::Other),
        None => None,
        Some(end) => {
            let line = text.get(..end).unwrap_or_default().trim_ascii_end();
            let version = line.rsplit(|&b| b == b' ').next().unwrap_or_default();
            Some(if version.starts_with(b"HTTP/1.") { Detected::Http1 } else { Detected::Other })
        }
    }
}

/// Upper case letters and what extension methods are made of.
fn is_method(byte: u8) -> bool {
    byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_')
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    fn hello(alpn: &[&[u8]]) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let mut client = ClientConnection::new(Arc::new(config), "app.test".try_into().unwrap()).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// The verdict is the same however the bytes are cut, and none comes early.
    fn check(bytes: &[u8], expected: Detected) {
        let at = (1..=bytes.len()).find(|&n| classify(&bytes[..n]).is_some()).unwrap();
        assert_eq!(classify(&bytes[..at]), Some(expected), "after {at} bytes");
        assert_eq!(classify(bytes), Some(expected));
    }

    #[test]
    fn tells_protocols_apart() {
        check(&hello(&[b"mesh1-h2"]), Detected::MeshTls);
        check(&hello(&[b"h2", b"mesh1-tcp"]), Detected::MeshTls);
        check(&hello(&[b"h2", b"http/1.1"]), Detected::ForeignTls);
        check(&hello(&[]), Detected::ForeignTls);
        check(PREFACE, Detected::Http2);
        check(b"GET / HTTP/1.1\r\n", Detected::Http1);
        check(b"\r\nM-SEARCH * HTTP/1.1\r\n", Detected::Http1);
        check(b"PRIVMSG bob :HTTP/1.1\r\n", Detected::Other);
        check(b"get / HTTP/1.1\r\n", Detected::Other);
        check(b"SSH-2.0-OpenSSH_9.2\r\n", Detected::Other);
        check(b"\x16\x09garbage", Detected::Other);
        check(b"\x16\x03\x01\xff\xff\x01", Detected::ForeignTls);
        check(&[b'A'; 100], Detected::Other);
    }

    proptest! {
        #[test]
        fn any_bytes_are_decided_within_the_bound(start in proptest::collection::vec(any::<u8>(), 1..64)) {
            let mut bytes = start;
            bytes.resize(MAX_BYTES, b'A');
            prop_assert!(classify(&bytes).is_some());
        }
    }
}

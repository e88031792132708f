//! What bytes say, without I/O.

use super::hello::{self, HANDSHAKE, Parsed};

/// Most bytes that are looked at: a ClientHello with post-quantum key shares has about 2 KiB.
pub(crate) const MAX_BYTES: usize = 16 * 1024;

/// Connection preface of HTTP/2 (RFC 9113 section 3.4).
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Longest method that is taken for HTTP.
const MAX_METHOD: usize = 24;

/// Most bytes of empty lines before a request line.
const MAX_EMPTY: usize = 64;

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
    if first == HANDSHAKE {
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
    match hello::parse(bytes) {
        Parsed::More => None,
        Parsed::Hello(hello) if hello.mesh => Some(Detected::MeshTls),
        Parsed::Hello(_) => Some(Detected::ForeignTls),
        // Not for us to refuse: whatever it is, it is not ours.
        Parsed::Other if bytes.get(1) == Some(&3) => Some(Detected::ForeignTls),
        Parsed::Other => Some(Detected::Other),
    }
}

/// As [`classify`], where only mesh TLS is told from the rest: what does not begin a TLS record is clear at once.
pub(crate) fn classify_tls(bytes: &[u8]) -> Option<Detected> {
    match *bytes.first()? {
        HANDSHAKE => client_hello(bytes),
        _ => Some(Detected::Other),
    }
}

/// Do the first bytes of a server say that it speaks HTTP? Then it has nothing to say before it is asked: this is the
/// SETTINGS frame of an HTTP/2 server that does not wait for the preface (RFC 9113 section 3.4), or the complaint of
/// an HTTP/1 server that has waited for too long.
pub(crate) fn greets_as_http(bytes: &[u8]) -> bool {
    const STATUS_LINE: &[u8] = b"HTTP/1.";
    // Length (a multiple of 6), type 4, no flags, stream 0 (RFC 9113 section 6.5).
    let settings = match bytes {
        [0, 0, length, 4, rest @ ..] => length % 6 == 0 && rest.iter().take(5).all(|byte| *byte == 0),
        _ => false,
    };
    settings || bytes.starts_with(STATUS_LINE)
}

/// Begins the text a request line, `METHOD SP target SP HTTP/1.x`? A method and a space are enough, as long as the
/// line that follows, once it is there, names HTTP/1. However the bytes come, the verdict is the same.
fn request_line(bytes: &[u8]) -> Option<Detected> {
    // Empty lines before a request line are allowed (RFC 9112 section 2.2).
    let empty = bytes.iter().take_while(|&&b| matches!(b, b'\r' | b'\n')).count();
    let text = bytes.get(empty..).unwrap_or_default();
    let window = text.get(..text.len().min(MAX_METHOD + 1)).unwrap_or_default();
    let method = window.split(|&b| b == b' ').next().unwrap_or_default();
    let possible = empty <= MAX_EMPTY && method.len() <= MAX_METHOD && method.iter().all(|&b| is_method(b));
    if !possible {
        return Some(Detected::Other);
    }
    if method.len() == window.len() {
        return None;
    }
    if method.is_empty() {
        return Some(Detected::Other);
    }
    let looked_at = bytes.get(..bytes.len().min(MAX_BYTES)).unwrap_or_default();
    match looked_at.get(empty..).unwrap_or_default().split(|&b| b == b'\n').next() {
        Some(line) if empty + line.len() < looked_at.len() => {
            let version = line.trim_ascii_end().rsplit(|&b| b == b' ').next().unwrap_or_default();
            Some(if version.starts_with(b"HTTP/1.") { Detected::Http1 } else { Detected::Other })
        }
        _ if bytes.len() >= MAX_BYTES => Some(Detected::Other),
        _ => None,
    }
}

/// Upper case letters and what extension methods are made of.
fn is_method(byte: u8) -> bool {
    byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::hello::tests::hello, *};

    /// The verdict is the same however the bytes are cut, and none comes early.
    fn check(bytes: &[u8], expected: Detected) {
        let at = (1..=bytes.len()).find(|&n| classify(&bytes[..n]).is_some()).unwrap();
        assert_eq!(classify(&bytes[..at]), Some(expected), "after {at} bytes");
        assert_eq!(classify(bytes), Some(expected));
    }

    #[test]
    fn tells_protocols_apart() {
        check(&hello("app.test", &[b"mesh1-h2"]), Detected::MeshTls);
        check(&hello("app.test", &[b"h2", b"mesh1-tcp"]), Detected::MeshTls);
        check(&hello("app.test", &[b"h2", b"http/1.1"]), Detected::ForeignTls);
        check(&hello("app.test", &[]), Detected::ForeignTls);
        check(PREFACE, Detected::Http2);
        check(b"GET / HTTP/1.1\r\n", Detected::Http1);
        check(b"\r\nM-SEARCH * HTTP/1.1\r\n", Detected::Http1);
        check(b"PRIVMSG bob :HTTP/1.1\r\n", Detected::Other);
        check(b"get / HTTP/1.1\r\n", Detected::Other);
        check(b"SSH-2.0-OpenSSH_9.2\r\n", Detected::Other);
        check(b"\x16\x09garbage", Detected::Other);
        check(b"\x16\x03\x01\xff\xff\x01", Detected::ForeignTls);
        check(&[b'A'; 100], Detected::Other);
        check(b" GET / HTTP/1.1\r\n", Detected::Other);
        check(&[&[b'\n'; MAX_EMPTY][..], b"GET / HTTP/1.1\r\n"].concat(), Detected::Http1);
        check(&[&[b'\n'; MAX_EMPTY + 1][..], b"GET / HTTP/1.1\r\n"].concat(), Detected::Other);
        let long = [b"GET /", &[b'a'; MAX_BYTES][..], b" HTTP/1.1\r\n"].concat();
        check(&long, Detected::Other);
    }

    #[test]
    fn only_tls_is_waited_for_where_nothing_else_matters() {
        assert_eq!(classify_tls(b"G"), Some(Detected::Other));
        assert_eq!(classify_tls(b"\x16\x03"), None);
        assert_eq!(classify_tls(&hello("app.test", &[b"mesh1-tcp"])), Some(Detected::MeshTls));
    }

    #[test]
    fn a_server_of_http_is_known_by_what_it_says_first() {
        let http: [&[u8]; 3] =
            [b"\0\0\x12\x04\0\0\0\0\0\0\x03", b"\0\0\0\x04\0", b"HTTP/1.1 408 Request Timeout\r\n"];
        let others: [&[u8]; 4] = [
            b"220 mail.example ESMTP\r\n",
            b"\x4a\0\0\0\x0a8.4.0",
            b"SSH-2.0-x\r\n",
            b"\0\0\x05\x04\0\0\0\0\0",
        ];
        assert!(http.iter().all(|bytes| greets_as_http(bytes)));
        assert!(!others.iter().any(|bytes| greets_as_http(bytes)));
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

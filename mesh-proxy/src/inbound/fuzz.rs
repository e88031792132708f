//! Properties of PROXY protocol headers.

use std::net::{IpAddr, SocketAddr};

use mesh_core::protocol::ProxyVersion;

use super::proxy_header::{Ends, MAX_HEADER, Parsed, parse, write};

/// The verdict does not change when more bytes come, comes within the bound, and who was told of is written as the same.
pub(crate) fn proxy_header(bytes: &[u8]) {
    let whole = parse(bytes);
    for cut in (0..bytes.len()).step_by((bytes.len() / 64).max(1)) {
        let early = parse(bytes.get(..cut).unwrap_or_default());
        assert!(early == Parsed::More || early == whole, "{cut} bytes: {early:?}, then {whole:?}");
    }
    let (length, ends) = match whole {
        Parsed::More => return assert!(bytes.len() < MAX_HEADER, "no verdict within the bound"),
        Parsed::Invalid | Parsed::Header(_, None) => return,
        Parsed::Header(length, Some(ends)) => (length, ends),
    };
    assert!(length <= bytes.len() && length <= MAX_HEADER);
    assert_eq!(parse(bytes.get(..length).unwrap_or_default()), whole, "the header alone");
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let mut written = write(version, ends, Some("spiffe://cluster.local/ns/shop/sa/cart"));
        let header = written.len();
        assert!(header <= MAX_HEADER);
        written.extend_from_slice(b"rest");
        assert_eq!(parse(&written), Parsed::Header(header, Some(ends)), "{version:?}");
    }
}

/// Headers of both versions.
pub(crate) fn proxy_headers() -> Vec<Vec<u8>> {
    let lines: [&[u8]; 4] = [
        b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\nGET",
        b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n",
        b"PROXY UNKNOWN ffff::1 whatever\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x03\x04\0\0rest",
    ];
    let address = |ip: [u8; 4], port| SocketAddr::new(IpAddr::from(ip), port);
    let ends = Ends { source: address([192, 0, 2, 1], 5000), destination: address([10, 0, 0, 1], 80) };
    let six = Ends { source: SocketAddr::new(IpAddr::from([1_u16; 8]), 1), ..ends };
    let binary = [ends, six].map(|ends| write(ProxyVersion::V2, ends, Some("spiffe://a/ns/b/sa/c")));
    lines.iter().map(|line| line.to_vec()).chain(binary).collect()
}

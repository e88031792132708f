//! Good headers, malformed ones, and whatever chance makes.

use proptest::prelude::*;

use super::*;

fn ends(source: &str, destination: &str) -> Ends {
    Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

/// A header of version 2.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    header.extend([command, family]);
    header.extend((body.len() as u16).to_be_bytes());
    header.extend(body);
    header
}

const V4_BODY: [u8; 12] = [10, 0, 0, 1, 10, 0, 0, 2, 0x1f, 0x90, 0, 80];

#[test]
fn good_headers_are_read_whole_and_not_before() {
    let v4 = ends("10.0.0.1:8080", "10.0.0.2:80");
    let v6 = ends("[2001:db8::1]:65535", "[::1]:0");
    let with_extension = [&V4_BODY[..], &[0x04, 0, 2, 9, 9]].concat();
    let mut v6_body = Vec::new();
    for end in [v6.source, v6.destination] {
        let IpAddr::V6(ip) = end.ip() else { panic!() };
        v6_body.extend(ip.octets());
    }
    v6_body.extend([0xff, 0xff, 0, 0]);
    let cases: [(Vec<u8>, Option<Ends>); 9] = [
        (b"PROXY TCP4 10.0.0.1 10.0.0.2 8080 80\r\n".to_vec(), Some(v4)),
        (b"PROXY TCP6 2001:db8::1 ::1 65535 0\r\n".to_vec(), Some(v6)),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (b"PROXY UNKNOWN whatever 1 2 3\r\n".to_vec(), None),
        (v2(PROXY, TCP4, &V4_BODY), Some(v4)),
        (v2(PROXY, TCP4, &with_extension), Some(v4)),
        (v2(PROXY, TCP6, &v6_body), Some(v6)),
        (v2(PROXY, UNSPECIFIED, b"skipped"), None),
        (v2(LOCAL, 0x77, b""), None),
    ];
    for (header, expected) in cases {
        for at in 0..header.len() {
            assert_eq!(parse(&header[..at]), Parsed::More, "{at} of {header:02x?}");
        }
        let whole = Parsed::Header(header.len(), expected);
        assert_eq!(parse(&header), whole);
        assert_eq!(parse(&[&header[..], b"\r\nPROXY rest"].concat()), whole, "what follows is not looked at");
    }
}

#[test]
fn malformed_headers_are_refused() {
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
    let texts: [&[u8]; 24] = [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01",
        b"proxy TCP4 10.0.0.1 10.0.0.2 1 2\r\n",
        b"PROXY  TCP4 10.0.0.1 10.0.0.2 1 2\r\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r \n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2 \r\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2 3\r\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 1\r\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 1 65536\r\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 01 2\r\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 +1 2\r\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2  2\r\n",
        b"PROXY TCP4 10.0.0.01 10.0.0.2 1 2\r\n",
        b"PROXY TCP4 10.0.0 10.0.0.2 1 2\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP6 10.0.0.1 10.0.0.2 1 2\r\n",
        b"PROXY UDP4 10.0.0.1 10.0.0.2 1 2\r\n",
        b"PROXY UNKNOWNX\r\n",
        b"PROXY UNKNOWN a\nb\r\n",
        b"PROXY UNKNOWN a\rb\r\n",
        b"PROXY \r\n",
        b"PROXY TCP4 10.0.0.1\xff 10.0.0.2 1 2\r\n",
        long.as_bytes(),
    ];
    let binaries = [
        v2(0x11, TCP4, &V4_BODY),
        v2(0x22, TCP4, &V4_BODY),
        v2(PROXY, 0x12, &V4_BODY),
        v2(PROXY, 0x31, &[0; 216]),
        v2(PROXY, 0x10, &V4_BODY),
        v2(PROXY, TCP4, &V4_BODY[..11]),
        v2(PROXY, TCP6, &V4_BODY),
        v2(PROXY, TCP4, &[&V4_BODY[..], &[4]].concat()),
        v2(PROXY, TCP4, &[&V4_BODY[..], &[4, 0]].concat()),
        v2(PROXY, TCP4, &[&V4_BODY[..], &[4, 0, 3, 1, 2]].concat()),
        v2(LOCAL, 0, &[0; MAX_HEADER]),
        b"\r\n\r\n\0\r\nQUIT\r".to_vec(),
    ];
    for case in texts.into_iter().chain(binaries.iter().map(Vec::as_slice)) {
        assert_eq!(parse(case), Parsed::Invalid, "{}", case.escape_ascii());
    }
}

#[test]
fn a_made_header_names_the_caller() {
    let header = write(ProxyVersion::V2, ends("10.0.0.1:1", "10.0.0.2:2"), Some("spiffe://td/ns/a/sa/b"));
    assert!(header.ends_with(b"\xe0\x00\x15spiffe://td/ns/a/sa/b"), "{}", header.escape_ascii());
    let line = write(ProxyVersion::V1, ends("10.0.0.1:1", "10.0.0.2:2"), Some("spiffe://td/ns/a/sa/b"));
    assert_eq!(line, b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n");
    let mixed = write(ProxyVersion::V1, ends("10.0.0.1:1", "[2001:db8::1]:2"), None);
    assert_eq!(mixed, b"PROXY TCP6 ::ffff:10.0.0.1 2001:db8::1 1 2\r\n");
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        source in any::<SocketAddr>(), destination in any::<SocketAddr>(), v1 in any::<bool>(), name in "[a-z/]{0,300}",
    ) {
        // Flow and scope of an IPv6 address do not travel.
        let plain = |address: SocketAddr| SocketAddr::new(address.ip(), address.port());
        let ends = Ends { source: plain(source), destination: plain(destination) };
        let version = if v1 { ProxyVersion::V1 } else { ProxyVersion::V2 };
        let header = write(version, ends, Some(&name));
        prop_assert_eq!(parse(&header), Parsed::Header(header.len(), Some(same_family(ends))));
    }

    #[test]
    fn nothing_panics_and_all_is_decided_within_the_bound(
        bytes in proptest::collection::vec(any::<u8>(), 0..300), start in 0usize..3, command in 0x20u8..0x23,
    ) {
        let begin: &[u8] = [&b""[..], WORD, &SIGNATURE[..]][start];
        let mut all = begin.to_vec();
        if start == 2 {
            all.push(command);
        }
        all.extend(bytes);
        if let Parsed::Header(length, _) = parse(&all) {
            prop_assert!(length <= all.len());
        }
        all.resize(MAX_HEADER, b'x');
        prop_assert_ne!(parse(&all), Parsed::More);
    }
}

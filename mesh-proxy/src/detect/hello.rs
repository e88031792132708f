//! What a TLS ClientHello offers (RFC 8446 section 4.1.2): the server's name and the protocols. Bounded, without I/O.

use std::borrow::Cow;

use mesh_core::{name::is_dns_name, protocol::MeshAlpn};

use super::parse::MAX_BYTES;

/// First byte of a TLS record that carries handshake messages.
pub(crate) const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// Largest content of a record in plaintext (RFC 8446 section 5.1), in bytes.
const MAX_RECORD: usize = 1 << 14;
/// Extension `server_name` (RFC 6066 section 3) and its only kind of name.
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
/// Extension `application_layer_protocol_negotiation` (RFC 7301).
const ALPN: u16 = 16;

/// What is wanted of a ClientHello.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hello {
    /// The server's DNS name, in lower case; None: it names none, or something that is no DNS name.
    pub server_name: Option<Box<str>>,
    /// One of the protocols between proxies is on offer.
    pub mesh: bool,
}

/// How far the bytes got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// More are needed.
    More,
    /// A whole ClientHello.
    Hello(Hello),
    /// Something else, or more than is looked at.
    Other,
}

/// Reads the ClientHello with which `bytes` begin, however it is cut into records.
pub(crate) fn parse(bytes: &[u8]) -> Parsed {
    let message = match gather(bytes) {
        Gathered::Message(message) => message,
        Gathered::More if bytes.len() < MAX_BYTES => return Parsed::More,
        Gathered::More | Gathered::Other => return Parsed::Other,
    };
    match read(&message) {
        Some(hello) => Parsed::Hello(hello),
        None => Parsed::Other,
    }
}

enum Gathered<'a> {
    More,
    /// The body of the ClientHello.
    Message(Cow<'a, [u8]>),
    Other,
}

/// Puts the message together from its records.
fn gather(bytes: &[u8]) -> Gathered<'_> {
    let mut rest = Reader(bytes);
    let mut message: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    loop {
        // Each byte is checked as soon as it is there, so that nobody waits for the rest of what is not TLS.
        let head = rest.0;
        if head.first().is_some_and(|kind| *kind != HANDSHAKE) || head.get(1).is_some_and(|major| *major != 3)
        {
            return Gathered::Other;
        }
        let (Some(_kind), Some(_version), Some(length)) = (rest.u8(), rest.u16(), rest.u16()) else {
            return Gathered::More;
        };
        let length = usize::from(length);
        if length == 0 || length > MAX_RECORD {
            return Gathered::Other;
        }
        let complete = rest.0.len() >= length;
        let part = rest.take(length.min(rest.0.len())).unwrap_or_default();
        if message.is_empty() {
            message = Cow::Borrowed(part);
        } else {
            message.to_mut().extend_from_slice(part);
        }
        if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Gathered::Other;
        }
        let mut body = Reader(&message);
        if let (Some(_kind), Some(wanted)) = (body.u8(), body.u24()) {
            if wanted > MAX_BYTES {
                return Gathered::Other;
            }
            if body.0.len() >= wanted {
                let (start, end) = (4, 4 + wanted);
                return Gathered::Message(match message {
                    Cow::Borrowed(all) => Cow::Borrowed(all.get(start..end).unwrap_or_default()),
                    Cow::Owned(all) => Cow::Owned(all.get(start..end).unwrap_or_default().to_vec()),
                });
            }
        }
        if !complete {
            return Gathered::More;
        }
    }
}

/// Reads the body of a ClientHello. None: it is malformed.
fn read(body: &[u8]) -> Option<Hello> {
    let mut body = Reader(body);
    let (_version, _random) = (body.u16()?, body.take(32)?);
    let (_session, _suites, _compression) = (body.short()?, body.long()?, body.short()?);
    let mut hello = Hello::default();
    if body.0.is_empty() {
        return Some(hello);
    }
    let mut extensions = Reader(body.long()?);
    while !extensions.0.is_empty() {
        let (kind, content) = (extensions.u16()?, extensions.long()?);
        match kind {
            SERVER_NAME => hello.server_name = server_name(Reader(content)),
            ALPN => {
                let mut names = Reader(Reader(content).long()?);
                while !names.0.is_empty() {
                    hello.mesh |= MeshAlpn::from_bytes(names.short()?).is_some();
                }
            }
            _ => {}
        }
    }
    Some(hello)
}

fn server_name(mut content: Reader<'_>) -> Option<Box<str>> {
    let mut names = Reader(content.long()?);
    while !names.0.is_empty() {
        let (kind, name) = (names.u8()?, names.long()?);
        if kind == HOST_NAME {
            // Some send the root's dot, which does not belong there (RFC 6066 section 3).
            let name =
                std::str::from_utf8(name.strip_suffix(b".").unwrap_or(name)).ok()?.to_ascii_lowercase();
            return is_dns_name(&name).then(|| name.into());
        }
    }
    None
}

/// Takes fields from the front of bytes. None: there are too few.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, size: usize) -> Option<usize> {
        Some(self.take(size)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    fn u8(&mut self) -> Option<u8> {
        self.number(1)?.try_into().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.number(2)?.try_into().ok()
    }

    fn u24(&mut self) -> Option<usize> {
        self.number(3)
    }

    /// A field after its length in one byte.
    fn short(&mut self) -> Option<&'a [u8]> {
        let length = self.number(1)?;
        self.take(length)
    }

    /// A field after its length in two bytes.
    fn long(&mut self) -> Option<&'a [u8]> {
        let length = self.number(2)?;
        self.take(length)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;
    use crate::detect::fuzz::reference;

    /// A ClientHello as a real client makes it.
    pub(in crate::detect) fn hello(name: &str, alpn: &[&[u8]]) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let name = name.to_owned().try_into().unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// The same message in records of `size` bytes.
    pub(in crate::detect) fn fragmented(hello: &[u8], size: usize) -> Vec<u8> {
        let record = |part: &[u8]| {
            let mut record = vec![HANDSHAKE, 3, 1];
            record.extend((part.len() as u16).to_be_bytes());
            record.extend(part);
            record
        };
        hello[5..].chunks(size).flat_map(record).collect()
    }

    fn parsed(bytes: &[u8]) -> Hello {
        match parse(bytes) {
            Parsed::Hello(hello) => hello,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn names_and_protocols_are_found() {
        let web = parsed(&hello("Shop.Example", &[b"h2", b"http/1.1"]));
        assert_eq!(web, Hello { server_name: Some("shop.example".into()), mesh: false });
        assert!(parsed(&hello("shop.example", &[b"h2", b"mesh1-tcp"])).mesh);
        assert_eq!(parsed(&hello("10.0.0.1", &[])), Hello::default());
    }

    #[test]
    fn each_cut_waits_for_the_rest_and_fragments_are_put_together() {
        let whole = hello("shop.example", &[b"mesh1-h2"]);
        for size in [1, 2, 7, 100, whole.len()] {
            let bytes = fragmented(&whole, size);
            for at in 0..bytes.len() {
                assert_eq!(parse(&bytes[..at]), Parsed::More, "records of {size}, {at} bytes");
            }
            assert_eq!(parsed(&bytes), parsed(&whole), "records of {size}");
        }
    }

    #[test]
    fn garbage_is_told_as_soon_as_it_shows() {
        let cases: [&[u8]; 8] = [
            b"\x16\x02",
            b"\x15\x03",
            b"\x16\x03\x01\x00\x00",
            b"\x16\x03\x01\x40\x01",
            b"\x16\x03\x01\x00\x05\x02",
            b"\x16\x03\x01\x00\x05\x01\xff\xff\xff",
            b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
            b"\x16\x03\x01\x00\x01\x01\x17",
        ];
        for case in cases {
            assert_eq!(parse(case), Parsed::Other, "{case:02x?}");
        }
        // The root's dot is not part of the name.
        let mut dotted = hello("shop.example", &[]);
        let at = dotted.windows(12).position(|w| w == b"shop.example").unwrap();
        dotted[at + 11] = b'.';
        assert_eq!(parsed(&dotted).server_name.as_deref(), Some("shop.exampl"));
        // A name that no host has.
        let mut odd = hello("shop.example", &[]);
        let at = odd.windows(12).position(|w| w == b"shop.example").unwrap();
        odd[at] = 0;
        assert_eq!(parsed(&odd).server_name, None);
        // What never ends is given up.
        let mut endless = vec![HANDSHAKE, 3, 1, 0x40, 0, CLIENT_HELLO, 0, 0x3f, 0xff];
        endless.resize(MAX_BYTES - 1, 0);
        assert_eq!(parse(&endless), Parsed::More);
        endless.push(0);
        assert_eq!(parse(&endless), Parsed::Other);
    }

    proptest! {
        #[test]
        fn nothing_panics_and_all_is_decided_within_the_bound(mut bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = parse(&bytes);
            bytes.splice(0..0, [HANDSHAKE, 3, 1]);
            let _ = parse(&bytes);
            bytes.resize(MAX_BYTES, HANDSHAKE);
            prop_assert_ne!(parse(&bytes), Parsed::More);
        }

        /// What the TLS library takes for one of ours is one of ours here, whatever was broken on its way.
        #[test]
        fn agrees_with_the_tls_library(at in 0usize..400, flip in 1u8.., mesh in any::<bool>(), size in 1usize..600) {
            let alpn: &[u8] = if mesh { b"mesh1-h2" } else { b"h2" };
            let mut bytes = fragmented(&hello("shop.example", &[alpn]), size);
            prop_assert_eq!(Some(parsed(&bytes)), reference(&bytes));
            let at = at % bytes.len();
            bytes[at] ^= flip;
            if let Some(theirs) = reference(&bytes) {
                prop_assert_eq!(parsed(&bytes).mesh, theirs.mesh);
            }
        }
    }
}

//! Properties of what first bytes say.

use std::sync::Arc;

use mesh_core::{name::is_dns_name, protocol::MeshAlpn};
use rustls::{ClientConfig, ClientConnection, RootCertStore, server::Acceptor};

use super::{
    hello::{HANDSHAKE, Hello, Parsed, parse},
    parse::{Detected, MAX_BYTES, PREFACE, classify, classify_tls, greets_as_http},
};
use crate::fuzz::Choices;

/// A ClientHello is read alike however it is cut into records and reads, as the TLS library reads it.
pub(crate) fn client_hello(data: &[u8]) {
    let mut choices = Choices(data);
    let (size, cut) = (1 + choices.below(255), choices.below(256));
    let bytes = choices.0;
    let whole = parse(bytes);
    let early = parse(bytes.get(..bytes.len().min(cut)).unwrap_or_default());
    assert!(early == Parsed::More || early == whole, "{early:?} became {whole:?}");
    let Parsed::Hello(hello) = &whole else {
        assert!(whole == Parsed::Other || bytes.len() < MAX_BYTES, "no verdict within the bound");
        if let Some(theirs) = reference(bytes) {
            assert!(!theirs.mesh, "the TLS library sees a peer");
        }
        return;
    };
    assert!(hello.server_name.as_deref().is_none_or(is_dns_name), "{hello:?}");
    if let Some(theirs) = reference(bytes) {
        assert_eq!(hello.mesh, theirs.mesh);
        // That one takes names with an underscore, too, and addresses for none.
        let named = theirs.server_name.filter(|name| is_dns_name(name));
        assert!(named.is_none() || named == hello.server_name, "{named:?} {hello:?}");
    }
    // The first record alone, cut into smaller ones.
    let length = match bytes {
        [_, _, _, high, low, ..] => usize::from(u16::from_be_bytes([*high, *low])),
        _ => 0,
    };
    if let Some(record) = bytes.get(5..5 + length)
        && parse(bytes.get(..5 + length).unwrap_or_default()) == whole
        && record.len().div_ceil(size) * 5 + record.len() < MAX_BYTES
    {
        let records: Vec<u8> = record.chunks(size).flat_map(into_record).collect();
        assert_eq!(parse(&records), whole, "records of {size}");
    }
}

fn into_record(part: &[u8]) -> Vec<u8> {
    let mut record = vec![HANDSHAKE, 3, 1];
    record.extend((part.len() as u16).to_be_bytes());
    record.extend(part);
    record
}

/// What the TLS library makes of it: name, and whether a protocol of ours is offered.
pub(super) fn reference(bytes: &[u8]) -> Option<Hello> {
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        acceptor.read_tls(&mut rest).ok().filter(|read| *read > 0)?;
        if let Some(accepted) = acceptor.accept().ok()? {
            let hello = accepted.client_hello();
            let ours = |name: &[u8]| MeshAlpn::from_bytes(name).is_some();
            return Some(Hello {
                server_name: hello.server_name().map(|name| name.to_ascii_lowercase().into()),
                mesh: hello.alpn().is_some_and(|mut names| names.any(ours)),
            });
        }
    }
    None
}

/// A verdict comes within the bound and never changes when more bytes come.
pub(crate) fn first_bytes(bytes: &[u8]) {
    let (whole, tls) = (classify(bytes), classify_tls(bytes));
    for cut in (0..bytes.len()).step_by((bytes.len() / 64).max(1)) {
        let part = bytes.get(..cut).unwrap_or_default();
        assert!(classify(part).is_none() || classify(part) == whole, "{cut}");
        assert!(classify_tls(part).is_none() || classify_tls(part) == tls, "{cut}");
    }
    if whole == Some(Detected::MeshTls) {
        assert_eq!(tls, whole);
    }
    if bytes.len() >= MAX_BYTES {
        assert!(whole.is_some() && tls.is_some(), "no verdict within the bound");
    }
    // Who is asked does not answer: a client's HTTP is no server's greeting.
    assert!(!(greets_as_http(bytes) && whole == Some(Detected::Http1)), "{bytes:?}");
}

/// ClientHellos as a real client makes them.
pub(crate) fn hellos() -> Vec<Vec<u8>> {
    let hello = |name: &str, alpn: &[&[u8]]| -> Option<Vec<u8>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .ok()?
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let mut client = ClientConnection::new(Arc::new(config), name.to_owned().try_into().ok()?).ok()?;
        let mut bytes = vec![40, 0];
        client.write_tls(&mut bytes).ok()?;
        Some(bytes)
    };
    let all = [
        hello("shop.example", &[b"h2", b"http/1.1"]),
        hello("catalog", &[b"mesh1-h1", b"mesh1-h2"]),
        hello("10.0.0.1", &[]),
    ];
    all.into_iter().flatten().collect()
}

/// First bytes of several protocols.
pub(crate) fn openings() -> Vec<Vec<u8>> {
    let plain: [&[u8]; 7] = [
        PREFACE,
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        b"\r\nM-SEARCH * HTTP/1.0\r\n",
        b"PRIVMSG bob :hi\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\0\0\x12\x04\0\0\0\0\0\0\x03",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
    ];
    let hellos = hellos().into_iter().map(|hello| hello.get(2..).unwrap_or_default().to_vec());
    plain.iter().map(|bytes| bytes.to_vec()).chain(hellos).collect()
}

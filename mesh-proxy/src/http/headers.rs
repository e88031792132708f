//! Header hygiene: what is meant for one hop stays on it, and nobody but a proxy of the mesh speaks in its name.

use std::time::Duration;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
        TRANSFER_ENCODING, UPGRADE,
    },
};
use mesh_core::reason::{CLIENT_ID_HEADER, HEADER_PREFIX, REASON_HEADER, Reason, UNPROCESSED_HEADER};

use super::clock;

/// [`REASON_HEADER`] as a name.
pub(crate) const MESH_REASON: HeaderName = HeaderName::from_static(REASON_HEADER);
/// [`CLIENT_ID_HEADER`] as a name.
pub(crate) const MESH_CLIENT_ID: HeaderName = HeaderName::from_static(CLIENT_ID_HEADER);
/// [`UNPROCESSED_HEADER`] as a name.
pub(crate) const MESH_UNPROCESSED: HeaderName = HeaderName::from_static(UNPROCESSED_HEADER);
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// What was found and taken out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stripped {
    /// The message asks for, or agrees to, an upgrade (RFC 9110 section 7.8), and its `upgrade` field is still there; or it
    /// is of CONNECT.
    pub upgrade: bool,
    /// How much time a proxy gave for the request; worth something only when it came from a peer with an identity.
    pub timeout: Option<Duration>,
}

/// Takes out the fields that are meant for this hop only (RFC 9110 section 7.6.1) and all fields of the mesh.
/// `te: trailers` stays, for it holds for every hop that passes trailers on, as this one does. So does `upgrade` with
/// its `connection: upgrade`, when the message is HTTP/1.
pub(crate) fn strip(headers: &mut HeaderMap, version: Version) -> Stripped {
    let mut seen = Seen::default();
    for name in headers.keys() {
        seen.note(name);
    }
    let mut stripped = Stripped::default();
    if seen.connection {
        let upgrade = strip_named(headers);
        stripped.upgrade = upgrade && version == Version::HTTP_11;
        if upgrade && !stripped.upgrade {
            headers.remove(CONNECTION);
        }
    }
    if seen.framing && headers.remove(TRANSFER_ENCODING).is_some() {
        // It framed the message; a length beside it is wrong (RFC 9112 section 6.3).
        headers.remove(CONTENT_LENGTH);
    }
    if seen.other {
        for name in [KEEP_ALIVE, PROXY_CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, HTTP2_SETTINGS] {
            headers.remove(name);
        }
        if !stripped.upgrade {
            headers.remove(UPGRADE);
        }
    }
    if seen.te {
        let trailers = headers.get_all(TE).iter().any(wants_trailers);
        headers.remove(TE);
        if trailers {
            headers.insert(TE, TRAILERS);
        }
    }
    if seen.mesh {
        stripped.timeout = clock::of_peer(headers);
        strip_mesh(headers);
    }
    stripped
}

/// Takes out what [`strip`] leaves of an upgrade: HTTP/2 has none, and refuses these fields (RFC 9113 section 8.2.2).
pub(crate) fn strip_upgrade(headers: &mut HeaderMap) {
    if headers.remove(CONNECTION).is_some() {
        headers.remove(UPGRADE);
    }
}

/// As [`strip`], of CONNECT to an application that is a proxy itself, or of the response to it: that one is who authenticates
/// callers as proxies do, and nothing is upgraded.
pub(super) fn strip_of_tunnel(headers: &mut HeaderMap) -> Stripped {
    let own = |(name, _): &(&HeaderName, _)| [PROXY_AUTHENTICATE, PROXY_AUTHORIZATION].contains(name);
    let kept: Vec<_> =
        headers.iter().filter(own).map(|(name, value)| (name.clone(), value.clone())).collect();
    let stripped = strip(headers, Version::HTTP_2);
    for (name, value) in kept {
        headers.append(name, value);
    }
    Stripped { upgrade: true, ..stripped }
}

/// As [`strip`]; `connect`: of CONNECT, or of the response to it.
pub(crate) fn strip_any(headers: &mut HeaderMap, version: Version, connect: bool) -> Stripped {
    if connect { strip_of_tunnel(headers) } else { strip(headers, version) }
}

/// Which fields are there, by one pass that hashes nothing.
#[derive(Default)]
struct Seen {
    connection: bool,
    te: bool,
    framing: bool,
    other: bool,
    mesh: bool,
}

impl Seen {
    fn note(&mut self, name: &HeaderName) {
        match name.as_str().as_bytes() {
            b"connection" => self.connection = true,
            b"te" => self.te = true,
            b"transfer-encoding" => self.framing = true,
            b"keep-alive"
            | b"proxy-connection"
            | b"http2-settings"
            | b"upgrade"
            | b"proxy-authenticate"
            | b"proxy-authorization" => self.other = true,
            [b'm', b'e', b's', b'h', b'-', ..] => self.mesh = true,
            _ => {}
        }
    }
}

/// Takes out `connection` and the fields that it names. True: it names `upgrade`, and there is one.
fn strip_named(headers: &mut HeaderMap) -> bool {
    let mut upgrade = false;
    let values: Vec<HeaderValue> = headers.get_all(CONNECTION).iter().cloned().collect();
    headers.remove(CONNECTION);
    for token in values.iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')) {
        let token = token.trim();
        if token.eq_ignore_ascii_case("upgrade") {
            upgrade = headers.contains_key(UPGRADE) && !is_h2c(headers);
            continue;
        }
        // What the message itself needs cannot be taken from it by naming it.
        let needed = ["te", "host", "content-length", "transfer-encoding", "close", "keep-alive"];
        if !needed.iter().any(|name| token.eq_ignore_ascii_case(name)) {
            headers.remove(token);
        }
    }
    if upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    upgrade
}

/// An upgrade to HTTP/2 is for one hop, and no server need follow it (RFC 9113 section 3.1).
fn is_h2c(headers: &HeaderMap) -> bool {
    let protocols = headers.get_all(UPGRADE).iter().flat_map(|value| value.as_bytes().split(|b| *b == b','));
    protocols.map(<[u8]>::trim_ascii).any(|protocol| {
        let name = protocol.split(|b| *b == b'/').next().unwrap_or_default().trim_ascii();
        [b"h2c".as_slice(), b"h2", b"http"].iter().any(|http| name.eq_ignore_ascii_case(http))
    })
}

fn wants_trailers(value: &HeaderValue) -> bool {
    value
        .to_str()
        .is_ok_and(|text| text.split(',').any(|token| token.trim().eq_ignore_ascii_case("trailers")))
}

/// Takes out of trailers what has no place there: fields of the mesh, of one hop, and of what the message is and where it
/// goes (RFC 9110 section 6.5.1). HTTP/2 refuses some of them, and would end the message half-way.
pub(crate) fn strip_trailers(trailers: &mut HeaderMap) {
    strip_mesh(trailers);
    let misplaced = [
        CONNECTION,
        CONTENT_LENGTH,
        HOST,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        HTTP2_SETTINGS,
    ];
    for name in misplaced {
        trailers.remove(name);
    }
}

/// Takes out all fields of the mesh.
fn strip_mesh(headers: &mut HeaderMap) {
    let ours = |name: &&HeaderName| name.as_str().starts_with(HEADER_PREFIX);
    let names: Vec<HeaderName> = headers.keys().filter(ours).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Takes the reason that the peer's proxy gave, if it gave one.
pub(crate) fn take_reason(headers: &HeaderMap) -> Option<Reason> {
    headers.get(MESH_REASON).and_then(|value| value.to_str().ok()).and_then(Reason::from_code)
}

/// True when the peer's proxy says that its application never saw the request.
pub(crate) fn is_unprocessed(headers: &HeaderMap) -> bool {
    headers.contains_key(MESH_UNPROCESSED)
}

/// The status in a gRPC message's headers or trailers.
pub(crate) fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status").and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok())
}

/// True for `application/grpc` and its variants.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(http::header::CONTENT_TYPE).is_some_and(|value| {
        let rest = value.as_bytes().strip_prefix(b"application/grpc");
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    })
}

/// True when the caller wants answers in the form of gRPC. One that asks for a tunnel does not: those look like success.
pub(crate) fn wants_grpc<B>(request: &Request<B>) -> bool {
    is_grpc(request.headers()) && request.method() != Method::CONNECT
}

/// The only `host` field; Err when there are several (RFC 9112 section 3.2).
pub(crate) fn only_host(headers: &HeaderMap) -> Result<Option<&HeaderValue>, ()> {
    let mut all = headers.get_all(HOST).iter();
    let first = all.next();
    if all.next().is_some() { Err(()) } else { Ok(first) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(before: &[(&str, &str)], version: Version, after: &[(&str, &str)]) -> Stripped {
        let map = |fields: &[(&str, &str)]| -> HeaderMap {
            let field = |(n, v): &(&str, &str)| (n.parse::<HeaderName>().unwrap(), v.parse().unwrap());
            fields.iter().map(field).collect()
        };
        let mut headers = map(before);
        let stripped = strip(&mut headers, version);
        assert_eq!(headers, map(after));
        stripped
    }

    #[test]
    fn one_hop_fields_and_forgeries_are_stripped() {
        let before = [
            ("connection", "keep-alive, x-private"),
            ("keep-alive", "timeout=5"),
            ("x-private", "1"),
            ("x-public", "2"),
            ("te", "gzip, trailers"),
            ("transfer-encoding", "chunked"),
            ("mesh-client-id", "spiffe://evil"),
            ("mesh-anything", "x"),
            ("meshes", "kept"),
        ];
        let after = [("x-public", "2"), ("te", "trailers"), ("meshes", "kept")];
        assert!(!check(&before, Version::HTTP_11, &after).upgrade);
    }

    #[test]
    fn connection_cannot_name_what_the_message_needs() {
        check(
            &[("connection", "host, content-length, close"), ("host", "a"), ("content-length", "1")],
            Version::HTTP_11,
            &[("host", "a"), ("content-length", "1")],
        );
    }

    #[test]
    fn an_upgrade_survives_unless_it_is_to_http2() {
        let websocket = [("connection", "Upgrade"), ("upgrade", "websocket")];
        let kept = [("connection", "upgrade"), ("upgrade", "websocket")];
        assert!(check(&websocket, Version::HTTP_11, &kept).upgrade);
        assert!(!check(&websocket, Version::HTTP_10, &[]).upgrade);
        let h2c = [("connection", "upgrade, http2-settings"), ("upgrade", "h2c"), ("http2-settings", "AAA")];
        assert!(!check(&h2c, Version::HTTP_11, &[]).upgrade);
    }

    #[test]
    fn an_upgrade_to_http2_does_not_hide_behind_another() {
        for upgrades in [
            &["websocket", "h2c"][..],
            &["websocket, H2C"],
            &["websocket,h2"],
            &["h2c "],
            &["\t,h2c"],
            &["websocket", "HTTP/2.0"],
        ] {
            let mut fields = vec![("connection", "upgrade"), ("http2-settings", "AAA")];
            fields.extend(upgrades.iter().map(|value| ("upgrade", *value)));
            assert!(!check(&fields, Version::HTTP_11, &[]).upgrade, "{upgrades:?}");
        }
        let websocket = [("connection", "upgrade"), ("upgrade", "websocket"), ("http2-settings", "AAA")];
        check(&websocket, Version::HTTP_11, &websocket[..2]);
    }

    #[test]
    fn a_length_beside_chunks_is_wrong() {
        let both = [("content-length", "4"), ("transfer-encoding", "chunked"), ("x-kept", "1")];
        check(&both, Version::HTTP_11, &both[2..]);
    }

    #[test]
    fn grpc_is_recognised() {
        let headers =
            |value| HeaderMap::from_iter([(http::header::CONTENT_TYPE, HeaderValue::from_static(value))]);
        assert!(is_grpc(&headers("application/grpc")) && is_grpc(&headers("application/grpc+proto")));
        assert!(!is_grpc(&headers("application/grpc-web")) && !is_grpc(&headers("application/json")));
    }

    proptest! {
        /// Whatever comes: what is left is for the next one, and stripping it again changes nothing.
        #[test]
        fn nothing_of_one_hop_is_left(
            fields in proptest::collection::vec((
                "connection|te|transfer-encoding|keep-alive|proxy-connection|upgrade|http2-settings|mesh-client-id|mesh-x|host|content-length|x-a|x-b|trailer",
                "(upgrade|close|keep-alive|x-a|X-B|host|te|content-length|mesh-x|trailers|gzip|websocket|h2c|chunked|5|,| |\t|\u{e9}|;q=1){0,5}",
            ), 0..10),
            version in prop_oneof![Just(Version::HTTP_10), Just(Version::HTTP_11), Just(Version::HTTP_2)],
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in &fields {
                headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value.trim().as_bytes()).unwrap());
            }
            let before = headers.clone();
            let stripped = strip(&mut headers, version);
            for name in ["transfer-encoding", "keep-alive", "proxy-connection", "http2-settings", "mesh-client-id", "mesh-x"] {
                prop_assert!(!headers.contains_key(name), "{headers:?}");
            }
            prop_assert_eq!(headers.contains_key("connection"), stripped.upgrade);
            prop_assert_eq!(headers.contains_key("upgrade"), stripped.upgrade);
            prop_assert!(!stripped.upgrade || (version == Version::HTTP_11 && headers["connection"] == "upgrade"));
            prop_assert!(headers.get_all("te").iter().all(|te| te == "trailers"));
            prop_assert_eq!(headers.get_all("host").iter().count(), before.get_all("host").iter().count());
            if !before.contains_key("transfer-encoding") {
                let lengths = |map: &HeaderMap| map.get_all("content-length").iter().cloned().collect::<Vec<_>>();
                prop_assert_eq!(lengths(&headers), lengths(&before));
            }
            let mut again = headers.clone();
            prop_assert_eq!(strip(&mut again, version), stripped);
            prop_assert_eq!(again, headers);
        }
    }
}

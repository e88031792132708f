//! Properties of heads of requests, of their fields, and of the frames of HTTP/2.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header::HOST};

use mesh_core::reason::Reason;

use super::{authority, check, frames::Scanner, h1, headers};
use crate::{fuzz::Choices, pool::Wire};

/// Most fields of a head that is looked at; what is written on may have some more.
const MOST_FIELDS: usize = 32;

/// A head that is admitted names one host and one path, and the same ones however it is written on: who decides about it
/// sees what the next one gets.
pub(crate) fn request(data: &[u8]) {
    let mut choices = Choices(data);
    let (form, normalised) = (choices.below(3), choices.below(2) == 0);
    let Some(head) = parse(choices.0, form).filter(|head| head.headers().len() <= MOST_FIELDS) else {
        return;
    };
    let (Ok(()), Ok(host)) = (check::head(&head), authority::host(&head)) else { return };
    let host = host.to_ascii_lowercase();
    assert!(!host.is_empty() && !host.contains(['@', ',', '/', '\\', ' ', '?', '#']), "{host:?}");
    let mut head = authority::copy_head(&head);
    let version = head.version();
    if head.method() == Method::CONNECT {
        return tunnel(head, &host);
    }
    headers::strip(head.headers_mut(), version);
    if normalised {
        let query = head.uri().query().map(str::to_owned);
        if authority::normalise_path(head.uri_mut()).is_err() {
            return;
        }
        assert_eq!(head.uri().query(), query.as_deref());
        let once = head.uri().clone();
        assert_eq!(authority::normalise_path(head.uri_mut()), Ok(()));
        assert_eq!(head.uri(), &once, "what is normal stays");
    }
    let decided = authority::parts(head.method(), head.uri(), head.headers());
    let (path, query) = (decided.path.to_owned(), decided.query.map(str::to_owned));
    assert!(decided.authority.is_some_and(|named| named.eq_ignore_ascii_case(&host)));
    for wire in [Wire::H1, Wire::H2, Wire::H1OverH2] {
        let mut next = authority::copy_head(&head);
        if authority::write_for(&mut next, wire).is_err() {
            assert_ne!(wire, Wire::H1, "{next:?}");
            continue;
        }
        let next = match wire {
            Wire::H1 => {
                let written = h1::fuzz::written(next.method(), next.uri(), next.headers());
                let Some(read) = parse(&written, 0) else {
                    // Of a target without a path that is not to be normalised, only the form is the next one's to judge.
                    assert!(false_target(next.uri()), "{:?}", String::from_utf8_lossy(&written));
                    continue;
                };
                assert_eq!(read.headers().get_all(HOST).iter().count(), 1);
                read
            }
            Wire::H2 | Wire::H1OverH2 => next,
        };
        assert_eq!(authority::host(&next).map(str::to_ascii_lowercase), Ok(host.clone()), "{wire:?}");
        assert_eq!(next.method(), head.method());
        let same = next.uri().path() == path || (path.is_empty() && next.uri().path() == "/");
        assert!(same, "{wire:?}: {path:?} became {:?}", next.uri());
        assert_eq!(next.uri().query(), query.as_deref(), "{wire:?}");
    }
}

/// CONNECT names a host and a port, no path and no body, and is written as it is, to HTTP/1 only.
fn tunnel(mut head: Request<()>, host: &str) {
    headers::strip_of_tunnel(head.headers_mut());
    assert!(head.uri().path().is_empty() && head.uri().query().is_none(), "{head:?}");
    assert!(head.uri().port_u16().is_some_and(|port| port > 0), "{head:?}");
    for wire in [Wire::H2, Wire::H1OverH2] {
        assert_eq!(authority::write_for(&mut authority::copy_head(&head), wire), Err(Reason::Unsupported));
    }
    assert_eq!(authority::write_for(&mut head, Wire::H1), Ok(()));
    let written = h1::fuzz::written(head.method(), head.uri(), head.headers());
    let next = parse(&written, 0);
    let read = next.as_ref().map(|next| (next.method(), next.uri(), authority::host(next)));
    assert!(read.is_some_and(|(method, uri, named)| {
        method == Method::CONNECT
            && uri == head.uri()
            && named.is_ok_and(|named| named.eq_ignore_ascii_case(host))
    }));
    let next = next.unwrap_or_default();
    assert_eq!(check::head(&next), Ok(()), "{next:?}");
    assert_eq!(next.headers().get_all(HOST).iter().count(), 1);
}

fn false_target(uri: &Uri) -> bool {
    uri.path_and_query().is_none()
}

/// Reads a head as the libraries below do: HTTP/1.1 (0), or as HTTP/2 with the host as its authority (1) or both (2).
fn parse(bytes: &[u8], form: usize) -> Option<Request<()>> {
    let mut space = [httparse::EMPTY_HEADER; 2 * MOST_FIELDS];
    let mut parsed = httparse::Request::new(&mut space);
    if !parsed.parse(bytes).ok()?.is_complete() {
        return None;
    }
    let mut head = Request::new(());
    *head.method_mut() = Method::from_bytes(parsed.method?.as_bytes()).ok()?;
    *head.uri_mut() = parsed.path?.parse().ok()?;
    if parsed.version != Some(1) {
        *head.version_mut() = Version::HTTP_10;
    }
    append(head.headers_mut(), parsed.headers)?;
    if form > 0 {
        *head.version_mut() = Version::HTTP_2;
        for name in ["connection", "transfer-encoding", "keep-alive", "upgrade", "proxy-connection"] {
            head.headers_mut().remove(name);
        }
        let host = head.headers().get(HOST)?.clone();
        let mut parts = std::mem::take(head.uri_mut()).into_parts();
        (parts.scheme, parts.authority) =
            (Some("http".parse().ok()?), Some(host.as_bytes().try_into().ok()?));
        *head.uri_mut() = Uri::from_parts(parts).ok()?;
        if form == 1 {
            head.headers_mut().remove(HOST);
        }
    }
    Some(head)
}

fn append(fields: &mut HeaderMap, parsed: &[httparse::Header<'_>]) -> Option<()> {
    for field in parsed {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        fields.append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    Some(())
}

/// Heads of requests.
pub(crate) fn requests() -> Vec<Vec<u8>> {
    let heads = [
        "GET /a/%2e%2E/b?c=%2e HTTP/1.1\r\nhost: catalog:80\r\n\r\n",
        "GET http://Catalog.shop/a;b//c HTTP/1.1\r\nHost: catalog.shop\r\nconnection: x-a, te\r\nx-a: 1\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nhost: [::1]:8080\r\n\r\n",
        "POST /?a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n",
        "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n",
        "CONNECT [::1]:443 HTTP/1.0\r\nproxy-authorization: x\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
        "GET http://a?b HTTP/1.1\r\nhost: a\r\ncookie: a=1\r\ncookie: b=2\r\n\r\n",
    ];
    let forms = [b"\0\0", b"\0\x01", b"\x01\0", b"\x02\x01"];
    heads.iter().flat_map(|head| forms.map(|form| [form, head.as_bytes()].concat())).collect()
}

/// Nothing of one hop and of the mesh is left, all else is, and stripping again changes nothing.
pub(crate) fn fields(data: &[u8]) {
    let mut choices = Choices(data);
    let versions = [Version::HTTP_11, Version::HTTP_2, Version::HTTP_10];
    let version = versions.get(choices.below(3)).copied().unwrap_or_default();
    let mut space = [httparse::EMPTY_HEADER; 2 * MOST_FIELDS];
    let Ok(httparse::Status::Complete((_, parsed))) = httparse::parse_headers(choices.0, &mut space) else {
        return;
    };
    let mut before = HeaderMap::new();
    if append(&mut before, parsed).is_none() {
        return;
    }
    let mut after = before.clone();
    let stripped = headers::strip(&mut after, version);
    for name in
        ["transfer-encoding", "keep-alive", "proxy-connection", "http2-settings", "proxy-authorization"]
    {
        assert!(!after.contains_key(name), "{name}");
    }
    assert!(!after.keys().any(|name| name.as_str().starts_with("mesh-")), "{after:?}");
    assert_eq!(after.contains_key("connection"), stripped.upgrade);
    assert_eq!(after.contains_key("upgrade"), stripped.upgrade);
    assert!(after.get_all("te").iter().all(|te| te == "trailers"));
    let named: Vec<u8> = before.get_all("connection").iter().flat_map(|v| v.as_bytes().to_vec()).collect();
    let named = named.to_ascii_lowercase();
    for name in before.keys().filter(|name| name.as_str().starts_with("x-")) {
        let is_named = named.windows(name.as_str().len()).any(|part| part == name.as_str().as_bytes());
        let same = before.get_all(name).iter().eq(after.get_all(name).iter());
        assert!(is_named || same, "{name} is lost");
    }
    let mut again = after.clone();
    assert_eq!(headers::strip(&mut again, version), headers::Stripped { timeout: None, ..stripped });
    assert_eq!(again, after);
    let mut trailers = before;
    headers::strip_trailers(&mut trailers);
    assert!(!trailers.keys().any(|name| name.as_str().starts_with("mesh-")));
    assert!(!["host", "content-length", "connection", "te"].iter().any(|name| trailers.contains_key(*name)));
}

/// Fields of messages.
pub(crate) fn field_seeds() -> Vec<Vec<u8>> {
    let seeds = [
        "\0connection: upgrade, X-A\r\nupgrade: websocket\r\nx-a: 1\r\nx-b: 2\r\n\r\n",
        "\0te: gzip, trailers;q=1\r\nmesh-client-id: x\r\nmesh-timeout: 500\r\nkeep-alive: 5\r\n\r\n",
        "\x01connection: te, host, close\r\nhost: a\r\nupgrade: h2c, x\r\nproxy-connection: a\r\n\r\n",
        "\x02transfer-encoding: chunked\r\ncontent-length: 5\r\nhttp2-settings: AAA\r\n\r\n",
    ];
    seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect()
}

/// Frames are the same however the bytes are cut, and as a reader of whole frames sees them.
pub(crate) fn frames(data: &[u8]) {
    let mut choices = Choices(data);
    let (skip, step) = (choices.below(30), 1 + choices.below(40));
    let bytes = choices.0;
    let scan = |step: usize| {
        let (mut scanner, mut seen) = (Scanner::after(skip as u32), Vec::new());
        for part in bytes.chunks(step) {
            scanner.scan(part, |frame| seen.push(format!("{frame:?}")));
        }
        seen
    };
    let whole = scan(bytes.len().max(1));
    assert_eq!(scan(step), whole, "in parts of {step}");
    let mut rest = bytes.get(skip..).unwrap_or_default();
    let mut expected = Vec::new();
    while let [a, b, c, kind, flags, _, _, _, _, payload @ ..] = rest {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        // RST_STREAM and GOAWAY are told of with their error.
        let wanted = if matches!(kind, 3 | 7) { length.min(8) } else { 0 };
        if payload.len() < wanted {
            break;
        }
        expected.push(format!("kind: {kind}, flags: {flags}, length: {length}"));
        rest = payload.get(length..).unwrap_or_default();
    }
    assert!(
        whole.len() == expected.len() && whole.iter().zip(&expected).all(|(seen, all)| seen.contains(all))
    );
}

/// A connection's beginning and its end.
pub(crate) fn frame_seeds() -> Vec<Vec<u8>> {
    let mut bytes = b"\x18\x05PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64");
    bytes.extend(b"\0\0\x03\0\x01\0\0\0\x01abc\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08");
    bytes.extend(b"\0\0\x0a\x07\0\0\0\0\0\0\0\0\x01\0\0\0\x0bhi\0\0\x02\x07\0\0\0\0\0\0\0");
    vec![bytes]
}

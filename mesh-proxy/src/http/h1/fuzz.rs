//! Properties of HTTP/1 messages.

use bytes::BytesMut;
use http::{HeaderMap, Method, Uri, Version};

use super::{
    framing::{Decoder, Framing, Piece, write_chunk_size},
    head::{Malformed, ResponseHead, end, response as read_head, write_fields, write_request},
    request::{RequestHead, request as read_request},
};
use crate::fuzz::Choices;

/// Most bytes that may wait to be understood, in a body.
const MOST_WAITING: usize = 16 * 1024 + 2;

fn read(bytes: &[u8], method: &Method) -> (Result<Option<ResponseHead>, Malformed>, Vec<u8>) {
    let mut read = BytesMut::from(bytes);
    let head = read_head(&mut read, 0, method, HeaderMap::new());
    (head, read.to_vec())
}

/// A head is the same however it comes, and what is written from it is read as the same.
pub(crate) fn response(data: &[u8]) {
    let mut choices = Choices(data);
    let method = [Method::GET, Method::HEAD, Method::POST, Method::CONNECT]
        .get(choices.below(4))
        .cloned()
        .unwrap_or_default();
    let step = 1 + choices.below(40);
    let (whole, rest) = read(choices.0, &method);
    assert_eq!(describe(&in_parts(choices.0, &method, step)), describe(&whole), "in parts of {step}");
    let Ok(Some(head)) = whole else { return };
    assert!(choices.0.ends_with(&rest), "bytes behind the head are kept");
    let coded = head.fields.contains_key(http::header::TRANSFER_ENCODING);
    match head.framing {
        Framing::Length(0) => {}
        Framing::Length(length) => {
            let same = |value: &http::HeaderValue| value.as_bytes().iter().all(u8::is_ascii_digit);
            let lengths = head.fields.get_all(http::header::CONTENT_LENGTH);
            assert!(!coded && lengths.iter().count() > 0 && lengths.iter().all(same), "{length} {head:?}");
        }
        Framing::Chunked => assert!(coded && head.version == Version::HTTP_11, "{head:?}"),
        Framing::UntilClose => assert!(coded || !head.fields.contains_key("content-length"), "{head:?}"),
    }
    let minor = if head.version == Version::HTTP_11 { 1 } else { 0 };
    let mut written = format!("HTTP/1.{minor} {} \r\n", head.status.as_str()).into_bytes();
    write_fields(&mut written, &head.fields);
    written.extend_from_slice(b"\r\n");
    let (again, rest) = read(&written, &method);
    assert!(rest.is_empty(), "what is written ends where it is read to end");
    // The words behind the status are not part of it.
    assert_eq!(
        describe(&again.map(|head| head.map(without_reason))),
        describe(&Ok(Some(without_reason(head))))
    );
}

fn without_reason(head: ResponseHead) -> ResponseHead {
    ResponseHead { reason: None, ..head }
}

fn describe(outcome: &Result<Option<ResponseHead>, Malformed>) -> String {
    format!("{outcome:?}")
}

/// As a connection reads: what was searched is not searched again.
fn in_parts(bytes: &[u8], method: &Method, step: usize) -> Result<Option<ResponseHead>, Malformed> {
    let (mut read, mut searched) = (BytesMut::new(), 0);
    for part in bytes.chunks(step) {
        read.extend_from_slice(part);
        if let Some(head) = read_head(&mut read, searched, method, HeaderMap::new())? {
            return Ok(Some(head));
        }
        searched = read.len();
        assert_eq!(end(&read, 0), Ok(None), "an end was not seen");
    }
    Ok(None)
}

/// Heads of responses.
pub(crate) fn responses() -> Vec<Vec<u8>> {
    let heads: [&[u8]; 8] = [
        b"\0\x01HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello",
        b"\0\x02HTTP/1.1 200 Fine\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        b"\x01\x03HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\netag: \"a\"\r\n\r\n",
        b"\0\x04HTTP/1.0 200 OK\r\nconnection: x, keep-alive\r\n\r\n",
        b"\x02\x05HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"\0\x06HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        b"\0\x07HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"\0\x08HTTP/1.1 200 OK\r\nx: \t a\xffb \r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\r\n",
    ];
    heads.iter().map(|head| head.to_vec()).collect()
}

/// A body is the same however it comes; what waits is bounded; data that is written in chunks is read as the same.
pub(crate) fn body(data: &[u8]) {
    let mut choices = Choices(data);
    let framing = match choices.below(4) {
        0 => Framing::Length(choices.below(256) as u64),
        1 => Framing::UntilClose,
        _ => Framing::Chunked,
    };
    let step = 1 + choices.below(64);
    let whole = decode(framing, choices.0, choices.0.len().max(1));
    assert_eq!(decode(framing, choices.0, step), whole, "in parts of {step}");
    let Ok(decoded) = whole else { return };
    if framing == Framing::UntilClose {
        assert_eq!(decoded.data, choices.0);
    }
    let mut written = Vec::new();
    for part in decoded.data.chunks(step) {
        write_chunk_size(&mut written, part.len());
        written.extend_from_slice(part);
        written.extend_from_slice(b"\r\n");
    }
    written.extend_from_slice(b"0\r\n");
    write_fields(&mut written, &decoded.trailers);
    written.extend_from_slice(b"\r\nrest");
    let again = decode(Framing::Chunked, &written, step);
    assert_eq!(again, Ok(Decoded { rest: b"rest".to_vec(), ..decoded }), "written again");
}

#[derive(Debug, PartialEq, Eq)]
struct Decoded {
    data: Vec<u8>,
    trailers: HeaderMap,
    rest: Vec<u8>,
}

fn decode(framing: Framing, bytes: &[u8], step: usize) -> Result<Decoded, Malformed> {
    let (mut decoder, mut read) = (Decoder::new(framing), BytesMut::new());
    let mut parts = bytes.chunks(step);
    let (mut data, mut trailers) = (Vec::new(), HeaderMap::new());
    loop {
        let remaining = decoder.remaining();
        match decoder.next(&mut read)? {
            Piece::Data(piece) => {
                assert!(!piece.is_empty() && remaining.is_none_or(|left| left >= piece.len() as u64));
                data.extend_from_slice(&piece);
            }
            Piece::Trailers(fields) => trailers = fields,
            Piece::End => {
                assert!(decoder.is_ended());
                let mut rest = read.to_vec();
                rest.extend(parts.flatten());
                return Ok(Decoded { data, trailers, rest });
            }
            Piece::More => {
                assert!(read.len() <= MOST_WAITING, "{} bytes wait", read.len());
                match parts.next() {
                    Some(part) => read.extend_from_slice(part),
                    None => decoder.close()?,
                }
            }
        }
    }
}

/// Bodies in each framing.
pub(crate) fn bodies() -> Vec<Vec<u8>> {
    let bodies: [&[u8]; 7] = [
        b"\0\x05\x03helloGET / HTTP/1.1",
        b"\x01\x07until the end",
        b"\x02\x013\r\nabc\r\n0A;x=\"1\"\r\n0123456789\r\n00\r\n\r\nrest",
        b"\x02\x051 \r\na\r\n0\r\nx-a: 1\r\nx-b: 2\r\n\r\nGET",
        b"\x02\x0911111111111111111\r\n",
        b"\x02\x021\r\na\n0\r\n\r\n",
        b"\x03\x20fffffffffffffff\r\nabc",
    ];
    bodies.iter().map(|body| body.to_vec()).collect()
}

/// A request's head as it is sent.
pub(crate) fn written(method: &Method, uri: &Uri, fields: &HeaderMap) -> Vec<u8> {
    let mut out = Vec::new();
    write_request(&mut out, method, uri, fields);
    out.extend_from_slice(b"\r\n");
    out
}

/// A request's head is the same however it comes; where its body ends is beyond doubt; and what is written from it is
/// read as the same.
pub(crate) fn request(data: &[u8]) {
    let mut choices = Choices(data);
    let step = 1 + choices.below(40);
    let mut rest = BytesMut::from(choices.0);
    let whole = read_request(&mut rest, 0);
    assert_eq!(
        format!("{:?}", request_in_parts(choices.0, step)),
        format!("{whole:?}"),
        "in parts of {step}"
    );
    let Ok(Some(head)) = whole else { return };
    assert!(choices.0.ends_with(&rest), "bytes behind the head are kept");
    let fields = head.request.headers();
    let lengths = fields.get_all(http::header::CONTENT_LENGTH).iter().count();
    match head.framing {
        Framing::Length(length) => assert!(lengths <= 1 && (lengths == 1 || length == 0), "{head:?}"),
        Framing::Chunked => assert!(head.request.version() == Version::HTTP_11, "{head:?}"),
        Framing::UntilClose => assert_eq!(lengths, usize::MAX, "a request has no such end: {head:?}"),
    }
    assert!(!(head.framing == Framing::Chunked && lengths > 0 && head.keep_alive), "{head:?}");
    if head.request.version() != Version::HTTP_11 || super::super::check::head(&head.request).is_err() {
        return;
    }
    let again = written(head.request.method(), head.request.uri(), fields);
    let mut again = BytesMut::from(&*again);
    let said = |head: &RequestHead| {
        let request = &head.request;
        format!("{} {} {:?} {:?}", request.method(), request.uri(), request.headers(), head.framing)
    };
    let read = read_request(&mut again, 0);
    assert!(again.is_empty(), "what is written ends where it is read to end");
    assert_eq!(read.map(|head| head.as_ref().map(said)), Ok(Some(said(&head))));
}

fn request_in_parts(bytes: &[u8], step: usize) -> Result<Option<RequestHead>, Malformed> {
    let (mut read, mut searched) = (BytesMut::new(), 0);
    for part in bytes.chunks(step) {
        read.extend_from_slice(part);
        if let Some(head) = read_request(&mut read, searched)? {
            return Ok(Some(head));
        }
        searched = read.len();
    }
    Ok(None)
}

/// Heads of requests.
pub(crate) fn requests() -> Vec<Vec<u8>> {
    let heads: [&[u8]; 6] = [
        b"\x01\r\nPOST /a?b HTTP/1.1\r\nHost: a\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello",
        b"\x03GET http://a:80/ HTTP/1.1\r\nhost: a:80\r\nconnection: close\r\n\r\n",
        b"\x05PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\nexpect: 100-continue\r\n\r\n",
        b"\x07OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n",
        b"\x09GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
        b"\x0bCONNECT a:443 HTTP/1.1\r\nhost: a:443\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n",
    ];
    heads.iter().map(|head| head.to_vec()).collect()
}

//! Heads of messages (RFC 9112): read with no doubt about what they say, and written.

use std::{io::Write as _, mem::MaybeUninit};

use bytes::{Buf, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING},
};
use httparse::Header;
use hyper::ext::ReasonPhrase;

use super::framing::Framing;

/// Most fields of a head.
pub(super) const MAX_FIELDS: usize = 100;

/// Why a message is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    /// The first line.
    #[error("the first line of a message is malformed")]
    Line,
    /// A field.
    #[error("a field of a message is malformed")]
    Field,
    /// A line ends without a carriage return.
    #[error("a line of a message ends with a bare line feed")]
    BareLineFeed,
    /// `content-length` or `transfer-encoding`.
    #[error("it is not clear where a message ends")]
    Framing,
    /// A chunk.
    #[error("a chunk of a body is malformed")]
    Chunk,
    /// Too many bytes or fields.
    #[error("a message is larger than the limit")]
    TooLarge,
    /// The connection ended.
    #[error("the connection ended within a message")]
    Ended,
}

/// A response's head.
#[derive(Debug)]
pub(crate) struct ResponseHead {
    /// Its status.
    pub status: StatusCode,
    /// HTTP/1.1 or HTTP/1.0.
    pub version: Version,
    /// Its fields.
    pub fields: HeaderMap,
    /// Where its body ends.
    pub framing: Framing,
    /// The connection can be used again.
    pub keep_alive: bool,
    /// The words behind the status, when they are not the usual ones.
    pub reason: Option<ReasonPhrase>,
}

/// Length of a head with the empty line at its end; `from` bytes were looked at before. None: it is not there yet.
///
/// # Errors
/// [`Malformed::BareLineFeed`]: others would see lines where this proxy sees none, or the reverse.
pub(crate) fn end(read: &[u8], from: usize) -> Result<Option<usize>, Malformed> {
    let from = from.saturating_sub(3);
    for at in memchr::memchr_iter(b'\n', read.get(from..).unwrap_or_default()).map(|at| from + at) {
        if at == 0 || read.get(at - 1) != Some(&b'\r') {
            return Err(Malformed::BareLineFeed);
        }
        if at >= 3 && read.get(at - 3..at - 1) == Some(b"\r\n") {
            return Ok(Some(at + 1));
        }
    }
    Ok(None)
}

/// Takes a head of `end` bytes off what was read. It is copied: what it needs outlives the exchange, and a buffer that
/// others hold parts of could not be read into again.
pub(super) fn take(read: &mut BytesMut, end: usize) -> Bytes {
    let head = Bytes::copy_from_slice(read.get(..end).unwrap_or_default());
    read.advance(head.len());
    head
}

/// Takes the head of a response to a request of this method off what was read; `searched` is where the last attempt
/// stopped. `fields` is reused. None: it is not all there yet.
///
/// # Errors
/// [`Malformed`].
pub(crate) fn response(
    read: &mut BytesMut,
    searched: usize,
    method: &Method,
    mut fields: HeaderMap,
) -> Result<Option<ResponseHead>, Malformed> {
    let Some(end) = end(read, searched)? else { return Ok(None) };
    let head = take(read, end);
    let mut space = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let outcome = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut parsed, &head, &mut space)
        .map_err(malformed)?;
    if outcome.is_partial() {
        return Err(Malformed::Line);
    }
    let code = parsed.code.ok_or(Malformed::Line)?;
    let status = StatusCode::from_u16(code).map_err(|_| Malformed::Line)?;
    let version = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let words = parsed.reason.filter(|words| status.canonical_reason() != Some(words));
    let reason = words.and_then(|words| ReasonPhrase::try_from(words.as_bytes()).ok());
    take_fields(&head, parsed.headers, &mut fields)?;
    let keep_alive = keeps_alive(&fields, version);
    let framing = response_framing(method, status, version, &fields)?;
    Ok(Some(ResponseHead { status, version, fields, framing, keep_alive, reason }))
}

/// Where a response's body ends (RFC 9112 section 6.3).
fn response_framing(
    method: &Method,
    status: StatusCode,
    version: Version,
    fields: &HeaderMap,
) -> Result<Framing, Malformed> {
    let bare = status.is_informational()
        || switches(method == Method::CONNECT, status)
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || method == Method::HEAD;
    if bare {
        return Ok(Framing::Length(0));
    }
    let mut codings = fields.get_all(TRANSFER_ENCODING).iter();
    let chunked = codings.next().map(|only| only.as_bytes().eq_ignore_ascii_case(b"chunked"));
    match (chunked.map(|chunked| chunked && codings.next().is_none()), version) {
        (None, _) => Ok(content_length(fields)?.map_or(Framing::UntilClose, Framing::Length)),
        (Some(_), Version::HTTP_10) => Err(Malformed::Framing),
        (Some(true), _) => Ok(Framing::Chunked),
        // Another coding would be taken for the content's own by whoever gets it without the field.
        (Some(false), _) => Err(Malformed::Framing),
    }
}

/// Whether a connection speaks HTTP no more behind a response with this status (RFC 9110 sections 7.8 and 9.3.6); `connect`:
/// the request was CONNECT.
pub(crate) fn switches(connect: bool, status: StatusCode) -> bool {
    status == StatusCode::SWITCHING_PROTOCOLS || (connect && status.is_success())
}

/// Whether `chunked` is the last of the transfer codings; None: there are none.
pub(super) fn last_coding(fields: &HeaderMap) -> Option<bool> {
    let last = fields.get_all(TRANSFER_ENCODING).iter().next_back()?;
    let coding = last.as_bytes().rsplit(|byte| *byte == b',').next().unwrap_or_default();
    Some(coding.trim_ascii().eq_ignore_ascii_case(b"chunked"))
}

/// The one length that all fields of that name give.
pub(super) fn content_length(fields: &HeaderMap) -> Result<Option<u64>, Malformed> {
    let mut length = None;
    for value in fields.get_all(CONTENT_LENGTH) {
        let digits = value.as_bytes();
        let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        let text = value.to_str().ok().filter(|_| plain).ok_or(Malformed::Framing)?;
        // Many readers count with a sign.
        let this = text.parse().ok().filter(|this| *this <= i64::MAX as u64).ok_or(Malformed::Framing)?;
        if length.is_some_and(|before| before != this) {
            return Err(Malformed::Framing);
        }
        length = Some(this);
    }
    Ok(length)
}

/// Of several lengths that were found to be alike, one stays.
pub(super) fn one_length(fields: &mut HeaderMap) {
    if fields.get_all(CONTENT_LENGTH).iter().nth(1).is_some()
        && let Some(first) = fields.remove(CONTENT_LENGTH)
    {
        fields.insert(CONTENT_LENGTH, first);
    }
}

/// Whether the connection goes on after a message (RFC 9112 section 9.3).
pub(super) fn keeps_alive(fields: &HeaderMap, version: Version) -> bool {
    let mut keep = version == Version::HTTP_11;
    for value in fields.get_all(CONNECTION) {
        for token in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if token.eq_ignore_ascii_case(b"close") {
                return false;
            }
            keep |= token.eq_ignore_ascii_case(b"keep-alive");
        }
    }
    keep
}

/// Reads trailers, which end with an empty line.
///
/// # Errors
/// [`Malformed`].
pub(crate) fn trailers(bytes: &Bytes) -> Result<HeaderMap, Malformed> {
    let mut space = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut fields = HeaderMap::new();
    match httparse::parse_headers(bytes, &mut space).map_err(malformed)? {
        httparse::Status::Complete((_, parsed)) => take_fields(bytes, parsed, &mut fields)?,
        httparse::Status::Partial => return Err(Malformed::Field),
    }
    Ok(fields)
}

/// The fields without copies of their values: these are parts of `head`.
pub(super) fn take_fields(
    head: &Bytes,
    parsed: &[Header<'_>],
    fields: &mut HeaderMap,
) -> Result<(), Malformed> {
    fields.reserve(parsed.len());
    for Header { name, value } in parsed {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Malformed::Field)?;
        let value = HeaderValue::from_maybe_shared(head.slice_ref(value)).map_err(|_| Malformed::Field)?;
        fields.append(name, value);
    }
    Ok(())
}

pub(super) fn malformed(error: httparse::Error) -> Malformed {
    match error {
        httparse::Error::TooManyHeaders => Malformed::TooLarge,
        httparse::Error::HeaderName | httparse::Error::HeaderValue => Malformed::Field,
        httparse::Error::NewLine
        | httparse::Error::Status
        | httparse::Error::Token
        | httparse::Error::Version => Malformed::Line,
    }
}

/// Writes a request's head, without the empty line at its end.
pub(crate) fn write_request(out: &mut Vec<u8>, method: &Method, uri: &Uri, fields: &HeaderMap) {
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    match uri.path_and_query() {
        Some(target) if uri.authority().is_none() && !target.as_str().starts_with('?') => {
            out.extend_from_slice(target.as_str().as_bytes());
        }
        // Writing to a Vec does not fail.
        _ => drop(write!(out, "{uri}")),
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    write_fields(out, fields);
}

/// Writes a response's head, without the empty line at its end, in the version that its request had.
pub(super) fn write_response<B>(out: &mut Vec<u8>, response: &Response<B>, version: Version) {
    let status = response.status();
    out.extend_from_slice(if version == Version::HTTP_10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    let words = match response.extensions().get::<ReasonPhrase>() {
        Some(words) => words.as_bytes(),
        None => status.canonical_reason().unwrap_or_default().as_bytes(),
    };
    out.extend_from_slice(words);
    out.extend_from_slice(b"\r\n");
    write_fields(out, response.headers());
}

/// Writes fields, each with its line's end.
pub(crate) fn write_fields(out: &mut Vec<u8>, fields: &HeaderMap) {
    for (name, value) in fields {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &str, method: &Method) -> Result<Option<(u16, Framing, bool)>, Malformed> {
        let mut read = BytesMut::from(bytes);
        let head = response(&mut read, 0, method, HeaderMap::new())?;
        Ok(head.map(|head| (head.status.as_u16(), head.framing, head.keep_alive)))
    }

    #[test]
    fn responses_say_where_they_end() {
        let check = |fields: &str, framing, keep_alive| {
            let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
            assert_eq!(parse(&head, &Method::GET), Ok(Some((200, framing, keep_alive))), "{fields}");
            let (framing, keep_alive) = (Framing::Length(0), keep_alive);
            assert_eq!(parse(&head, &Method::HEAD), Ok(Some((200, framing, keep_alive))), "{fields}");
        };
        check("content-length: 5\r\n", Framing::Length(5), true);
        check("content-length: 5\r\nContent-Length: 5\r\nconnection: close\r\n", Framing::Length(5), false);
        check("transfer-encoding: Chunked\r\n", Framing::Chunked, true);
        check("transfer-encoding: chunked\r\ncontent-length: 5\r\n", Framing::Chunked, true);
        check("connection: x, CLOSE\r\n", Framing::UntilClose, false);
        let bare =
            |status: u16| parse(&format!("HTTP/1.1 {status} X\r\ncontent-length: 5\r\n\r\n"), &Method::GET);
        for status in [101, 103, 204, 304] {
            assert_eq!(bare(status), Ok(Some((status, Framing::Length(0), true))));
        }
        for fields in [
            "",
            "content-length: 5\r\n",
            "transfer-encoding: chunked\r\n",
            "content-length: 5\r\ncontent-length: 6\r\n",
        ] {
            let head = |status| format!("HTTP/1.1 {status} X\r\n{fields}\r\n");
            for status in [200, 201, 299] {
                assert_eq!(
                    parse(&head(status), &Method::CONNECT),
                    Ok(Some((status, Framing::Length(0), true)))
                );
            }
            assert_eq!(parse(&head(407), &Method::CONNECT), parse(&head(407), &Method::GET));
        }
        let old = "HTTP/1.0 200 OK\r\ncontent-length: 1\r\n";
        assert_eq!(parse(&format!("{old}\r\n"), &Method::GET), Ok(Some((200, Framing::Length(1), false))));
        let kept = parse(&format!("{old}connection: keep-alive\r\n\r\n"), &Method::GET);
        assert_eq!(kept, Ok(Some((200, Framing::Length(1), true))));
    }

    #[test]
    fn doubtful_responses_are_refused() {
        let check =
            |bytes: &str, expected| assert_eq!(parse(bytes, &Method::GET).err(), Some(expected), "{bytes:?}");
        check("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n", Malformed::Framing);
        check("HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\n", Malformed::Framing);
        check("HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\n", Malformed::Framing);
        check("HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\n", Malformed::Framing);
        check("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", Malformed::Framing);
        for coding in ["gzip", "gzip, chunked", "chunked, gzip", "chunked\r\ntransfer-encoding: chunked", ""]
        {
            check(&format!("HTTP/1.1 200 OK\r\ntransfer-encoding: {coding}\r\n\r\n"), Malformed::Framing);
        }
        check("HTTP/1.1 200 OK\r\nx: 1\n\r\n", Malformed::BareLineFeed);
        check("HTTP/1.1 200 OK\n\n", Malformed::BareLineFeed);
        check("HTTP/1.1 200 OK\r\nx: 1\r\n 2\r\n\r\n", Malformed::Field);
        check("HTTP/1.1 200 OK\r\nx : 1\r\n\r\n", Malformed::Field);
        check("HTTP/2.0 200 OK\r\n\r\n", Malformed::Line);
        check("HTTP/1.1 099 OK\r\n\r\n", Malformed::Line);
        check("SSH-2.0-x\r\n\r\n", Malformed::Line);
        check(&format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: 1\r\n".repeat(MAX_FIELDS + 1)), Malformed::TooLarge);
    }

    #[test]
    fn requests_have_a_path() {
        let check = |uri: &str, line: &str| {
            let mut out = Vec::new();
            write_request(&mut out, &Method::GET, &uri.parse().unwrap(), &HeaderMap::new());
            assert_eq!(String::from_utf8(out).unwrap(), format!("GET {line} HTTP/1.1\r\n"));
        };
        check("/a?b", "/a?b");
        check("/", "/");
        check("*", "*");
        let mut parts = Uri::default().into_parts();
        parts.path_and_query = Some("?b".parse().unwrap());
        check("http://host/a", "http://host/a");
        let mut out = Vec::new();
        write_request(&mut out, &Method::GET, &Uri::from_parts(parts).unwrap(), &HeaderMap::new());
        assert_eq!(out, b"GET /?b HTTP/1.1\r\n");
    }

    #[test]
    fn a_head_is_found_however_it_comes() {
        let head = b"HTTP/1.1 200 OK\r\nx: 1\r\n\r\nrest";
        for first in 0..head.len() - 4 {
            assert_eq!(end(&head[..first], 0), Ok(None), "{first}");
            assert_eq!(end(head, first), Ok(Some(head.len() - 4)), "{first}");
        }
    }
}

//! Heads of requests (RFC 9112 section 3), as callers send them.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::{Method, Request, Uri, Version, header::EXPECT};

use super::{
    framing::Framing,
    head::{self, MAX_FIELDS, Malformed},
};

/// A request's head, and what it says about the connection.
#[derive(Debug)]
pub(super) struct RequestHead {
    /// Method, target, version and fields.
    pub request: Request<()>,
    /// Where the body ends.
    pub framing: Framing,
    /// The caller wants to use the connection again.
    pub keep_alive: bool,
    /// The caller waits with the body until it is asked for (RFC 9110 section 10.1.1).
    pub expects: bool,
}

/// Takes a request's head off what was read; `searched` is where the last attempt stopped. None: it is not all there yet.
///
/// # Errors
/// [`Malformed`].
pub(super) fn request(read: &mut BytesMut, searched: usize) -> Result<Option<RequestHead>, Malformed> {
    let mut searched = searched;
    // An empty line before a request is what some say behind a body (RFC 9112 section 2.2). It may come in two halves.
    while read.starts_with(b"\r\n") {
        read.advance(2);
        searched = searched.saturating_sub(2);
    }
    let Some(end) = head::end(read, searched)? else { return Ok(None) };
    let head = head::take(read, end);
    let mut space = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    let outcome = httparse::ParserConfig::default()
        .parse_request_with_uninit_headers(&mut parsed, &head, &mut space)
        .map_err(head::malformed)?;
    let (httparse::Status::Complete(_), Some(method), Some(target), Some(version)) =
        (outcome, parsed.method, parsed.path, parsed.version)
    else {
        return Err(Malformed::Line);
    };
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(method.as_bytes()).map_err(|_| Malformed::Line)?;
    *request.uri_mut() = uri(head.slice_ref(target.as_bytes()))?;
    *request.version_mut() = if version == 1 { Version::HTTP_11 } else { Version::HTTP_10 };
    head::take_fields(&head, parsed.headers, request.headers_mut())?;
    let (fields, version) = (request.headers(), request.version());
    let length = head::content_length(fields)?;
    let framing = match head::last_coding(fields) {
        None => Framing::Length(length.unwrap_or(0)),
        Some(true) if version == Version::HTTP_11 => Framing::Chunked,
        // Nobody could tell where it ends.
        Some(_) => return Err(Malformed::Framing),
    };
    // Who says both may mean either: the connection ends with this request (RFC 9112 section 6.1).
    let doubtful = framing == Framing::Chunked && length.is_some();
    let keep_alive = head::keeps_alive(fields, version) && !doubtful;
    let expects = version == Version::HTTP_11
        && fields.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    head::one_length(request.headers_mut());
    Ok(Some(RequestHead { request, framing, keep_alive, expects }))
}

fn uri(target: Bytes) -> Result<Uri, Malformed> {
    let long = target.len() >= usize::from(u16::MAX);
    Uri::from_maybe_shared(target).map_err(|_| if long { Malformed::TooLarge } else { Malformed::Line })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &str) -> Result<Option<RequestHead>, Malformed> {
        request(&mut BytesMut::from(bytes), 0)
    }

    #[test]
    fn requests_say_where_they_end() {
        let check = |fields: &str, framing, keep_alive| {
            let head = parse(&format!("POST /a?b HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).unwrap().unwrap();
            let request = &head.request;
            assert_eq!((request.method(), request.uri().to_string().as_str()), (&Method::POST, "/a?b"));
            assert_eq!(
                (head.framing, head.keep_alive, head.expects),
                (framing, keep_alive, false),
                "{fields}"
            );
        };
        check("", Framing::Length(0), true);
        check("content-length: 5\r\n", Framing::Length(5), true);
        check("content-length: 5\r\ncontent-length: 5\r\nconnection: close\r\n", Framing::Length(5), false);
        check("transfer-encoding: Chunked\r\n", Framing::Chunked, true);
        check("transfer-encoding: chunked\r\ncontent-length: 5\r\n", Framing::Chunked, false);
        let old = |fields: &str| {
            let head = parse(&format!("GET / HTTP/1.0\r\n{fields}\r\n")).unwrap().unwrap();
            (head.framing, head.keep_alive)
        };
        assert_eq!(old(""), (Framing::Length(0), false));
        assert_eq!(old("connection: Keep-Alive\r\ncontent-length: 1\r\n"), (Framing::Length(1), true));
    }

    #[test]
    fn empty_lines_before_a_request_may_come_in_halves() {
        let all = b"\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n";
        for cut in 0..all.len() {
            let mut read = BytesMut::from(&all[..cut]);
            assert!(request(&mut read, 0).unwrap().is_none(), "{cut}");
            let searched = read.len();
            read.extend_from_slice(&all[cut..]);
            assert!(request(&mut read, searched).unwrap().is_some(), "{cut}");
        }
    }

    #[test]
    fn doubtful_requests_are_refused() {
        let check = |bytes: &str, expected| assert_eq!(parse(bytes).err(), Some(expected), "{bytes:?}");
        for fields in [
            "content-length: 5\r\ncontent-length: 6\r\n",
            "content-length: 5, 5\r\n",
            "content-length: +5\r\n",
            "content-length: 99999999999999999999\r\n",
            "content-length: 9223372036854775808\r\n",
            "transfer-encoding: chunked\r\ncontent-length: x\r\n",
            "transfer-encoding: gzip\r\n",
            "transfer-encoding: chunked, gzip\r\n",
        ] {
            check(&format!("POST / HTTP/1.1\r\n{fields}\r\n"), Malformed::Framing);
        }
        check("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n", Malformed::Framing);
        check("GET / HTTP/1.1\r\nx: 1\n\r\n", Malformed::BareLineFeed);
        check("GET / HTTP/1.1\r\nx: 1\r\n 2\r\n\r\n", Malformed::Field);
        check("GET / HTTP/1.1\r\nx : 1\r\n\r\n", Malformed::Field);
        check("GET / HTTP/1.2\r\n\r\n", Malformed::Line);
        check("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Malformed::Line);
        check("GET  / HTTP/1.1\r\n\r\n", Malformed::Line);
        check("GET /\r\n\r\n", Malformed::Line);
        check(&format!("GET / HTTP/1.1\r\n{}\r\n", "a: 1\r\n".repeat(MAX_FIELDS + 1)), Malformed::TooLarge);
        check(&format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(70_000)), Malformed::TooLarge);
    }

    #[test]
    fn targets_have_their_four_forms() {
        for target in ["/", "/a?b=c", "http://a:80/b?c", "*", "a:443"] {
            let method = if target.starts_with('a') { "CONNECT" } else { "OPTIONS" };
            let head = parse(&format!("{method} {target} HTTP/1.1\r\nhost: a\r\n\r\n")).unwrap().unwrap();
            assert_eq!(head.request.uri().to_string(), target);
        }
    }

    #[test]
    fn empty_lines_before_a_request_are_passed_over() {
        assert!(parse("\r\n\r\nGET / HTTP/1.1\r\n\r\n").unwrap().is_some());
        assert!(parse("\r\n").unwrap().is_none());
        let mut read = BytesMut::from("GET / HTTP/1.1\r\nexpect: 100-Continue\r\n\r\nrest");
        let head = request(&mut read, 0).unwrap().unwrap();
        assert!(head.expects && &read[..] == b"rest");
    }
}

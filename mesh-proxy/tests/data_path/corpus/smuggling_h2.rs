//! HTTP/2 requests that would be something else once they are HTTP/1.

use super::smuggling::Expect::{self, Once, Refused};
use crate::frames::Field;

/// Name, fields, body, fields of the trailers, what becomes of it.
pub(crate) type Case =
    (&'static str, &'static [Field<'static>], &'static [u8], &'static [Field<'static>], Expect);

const METHOD: Field<'_> = (b":method", b"POST");
const SCHEME: Field<'_> = (b":scheme", b"http");
const PATH: Field<'_> = (b":path", b"/case");
const HOST: Field<'_> = (b":authority", b"catalog");

/// A good head, and these.
macro_rules! and {
    ($($more:expr),*) => { &[METHOD, SCHEME, HOST, PATH, $($more),*] };
}

pub(crate) const CASES: &[Case] = &[
    ("a good request", and!(), b"hello", &[], Once(b"hello")),
    ("good trailers", and!(), b"hello", &[(b"x-sum", b"1")], Once(b"hello")),
    ("a length", and!((b"content-length", b"5")), b"hello", &[], Once(b"hello")),
    ("a length that is too short", and!((b"content-length", b"4")), b"hello", &[], Refused),
    ("a length that is too long", and!((b"content-length", b"6")), b"hello", &[], Refused),
    ("a length of nothing", and!((b"content-length", b"0")), b"GET /smuggled HTTP/1.1\r\n\r\n", &[], Refused),
    ("two lengths", and!((b"content-length", b"5"), (b"content-length", b"6")), b"hello", &[], Refused),
    ("two equal lengths", and!((b"content-length", b"5"), (b"content-length", b"5")), b"hello", &[], Refused),
    ("a list of lengths", and!((b"content-length", b"5, 5")), b"hello", &[], Refused),
    ("a plus", and!((b"content-length", b"+5")), b"hello", &[], Refused),
    ("an empty length", and!((b"content-length", b"")), b"hello", &[], Refused),
    ("transfer-encoding", and!((b"transfer-encoding", b"chunked")), b"0\r\n\r\n", &[], Refused),
    ("connection", and!((b"connection", b"close")), b"", &[], Refused),
    ("connection that names the length", and!((b"connection", b"content-length")), b"", &[], Refused),
    ("keep-alive", and!((b"keep-alive", b"timeout=5")), b"", &[], Refused),
    ("proxy-connection", and!((b"proxy-connection", b"keep-alive")), b"", &[], Refused),
    ("upgrade", and!((b"upgrade", b"websocket")), b"", &[], Refused),
    ("te other than trailers", and!((b"te", b"gzip")), b"", &[], Refused),
    ("an upper case name", and!((b"X-Upper", b"1")), b"", &[], Refused),
    ("a space in a name", and!((b"x y", b"1")), b"", &[], Refused),
    ("a colon in a name", and!((b"x: y", b"1")), b"", &[], Refused),
    ("a line in a name", and!((b"x: y\r\ntransfer-encoding", b"chunked")), b"", &[], Refused),
    ("an empty name", and!((b"", b"1")), b"", &[], Refused),
    ("a line in a value", and!((b"x", b"1\r\ntransfer-encoding: chunked")), b"", &[], Refused),
    ("a LF in a value", and!((b"x", b"1\ntransfer-encoding: chunked")), b"", &[], Refused),
    ("a CR in a value", and!((b"x", b"1\rtransfer-encoding: chunked")), b"", &[], Refused),
    ("a NUL in a value", and!((b"x", b"1\x002")), b"", &[], Refused),
    ("another host", and!((b"host", b"evil")), b"", &[], Refused),
    ("the same host", and!((b"host", b"catalog")), b"hello", &[], Once(b"hello")),
    ("two hosts", and!((b"host", b"catalog"), (b"host", b"catalog")), b"", &[], Refused),
    ("a list of hosts", &[METHOD, SCHEME, PATH, (b"host", b"catalog, evil")], b"", &[], Refused),
    ("no host", &[METHOD, SCHEME, PATH], b"", &[], Refused),
    ("an empty authority", &[METHOD, SCHEME, PATH, (b":authority", b"")], b"", &[], Refused),
    ("a user in the authority", &[METHOD, SCHEME, PATH, (b":authority", b"evil@catalog")], b"", &[], Refused),
    ("a path in the authority", &[METHOD, SCHEME, PATH, (b":authority", b"catalog/evil")], b"", &[], Refused),
    (
        "a line in the authority",
        &[METHOD, SCHEME, PATH, (b":authority", b"catalog\r\nx: 1")],
        b"",
        &[],
        Refused,
    ),
    (
        "a line in the path",
        &[METHOD, SCHEME, HOST, (b":path", b"/ HTTP/1.1\r\nhost: evil\r\n\r\n")],
        b"",
        &[],
        Refused,
    ),
    ("a space in the path", &[METHOD, SCHEME, HOST, (b":path", b"/case HTTP/1.1")], b"", &[], Refused),
    ("a NUL in the path", &[METHOD, SCHEME, HOST, (b":path", b"/case\0")], b"", &[], Refused),
    ("a path without a slash", &[METHOD, SCHEME, HOST, (b":path", b"case")], b"", &[], Refused),
    ("an absolute path", &[METHOD, SCHEME, HOST, (b":path", b"http://evil/case")], b"", &[], Refused),
    ("an empty path", &[METHOD, SCHEME, HOST, (b":path", b"")], b"", &[], Refused),
    ("an asterisk", &[METHOD, SCHEME, HOST, (b":path", b"*")], b"", &[], Refused),
    ("no path", &[METHOD, SCHEME, HOST], b"", &[], Refused),
    ("two paths", and!((b":path", b"/smuggled")), b"", &[], Refused),
    ("no method", &[SCHEME, HOST, PATH], b"", &[], Refused),
    ("two methods", and!((b":method", b"GET")), b"", &[], Refused),
    (
        "a line in the method",
        &[(b":method", b"GET /smuggled HTTP/1.1\r\nx: "), SCHEME, HOST, PATH],
        b"",
        &[],
        Refused,
    ),
    ("a space in the method", &[(b":method", b"GET /smuggled"), SCHEME, HOST, PATH], b"", &[], Refused),
    ("no scheme", &[METHOD, HOST, PATH], b"", &[], Refused),
    ("a strange scheme", &[METHOD, (b":scheme", b"ftp"), HOST, PATH], b"", &[], Refused),
    ("a path in the scheme", &[METHOD, (b":scheme", b"http://evil/?"), HOST, PATH], b"", &[], Refused),
    ("a pseudo field behind another", &[METHOD, SCHEME, HOST, (b"x", b"1"), PATH], b"", &[], Refused),
    ("an unknown pseudo field", and!((b":evil", b"1")), b"", &[], Refused),
    ("a status", and!((b":status", b"200")), b"", &[], Refused),
    ("a pseudo field in the trailers", and!(), b"hello", &[(b":path", b"/smuggled")], Once(b"hello")),
    ("framing in the trailers", and!(), b"hello", &[(b"transfer-encoding", b"chunked")], Refused),
    ("a line in the trailers", and!(), b"hello", &[(b"x", b"1\r\n\r\nGET /smuggled HTTP/1.1")], Refused),
    ("CONNECT", &[(b":method", b"CONNECT"), (b":authority", b"catalog:80")], b"GET /smuggled", &[], Refused),
    ("CONNECT with a path", &[(b":method", b"CONNECT"), SCHEME, HOST, PATH], b"", &[], Refused),
    (
        "CONNECT with a protocol",
        &[(b":method", b"CONNECT"), SCHEME, HOST, PATH, (b":protocol", b"websocket")],
        b"",
        &[],
        Refused,
    ),
    ("a protocol without CONNECT", and!((b":protocol", b"websocket")), b"", &[], Refused),
];

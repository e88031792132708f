//! HTTP/1 requests that two readers could read differently.

use Bytes::{After, Head, Whole};
use Expect::{Once, Refused};

/// What a case sends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bytes {
    /// Behind `POST /case HTTP/1.1` and a good host.
    After(&'static [u8]),
    /// Behind `POST /case HTTP/1.1` alone.
    Head(&'static [u8]),
    /// All of it.
    Whole(&'static [u8]),
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    /// Nothing complete arrives.
    Refused,
    /// One message arrives, with this body.
    Once(&'static [u8]),
}

pub(crate) type Case = (&'static str, Bytes, Expect);

/// Where a second request would hide, it is this one.
pub(crate) const SMUGGLED: &str = "/smuggled";

/// Length and chunks in one message.
pub(crate) const FRAMING: &[Case] = &[
    (
        "CL.TE",
        After(b"Content-Length: 44\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: catalog\r\n\r\n"),
        Once(b""),
    ),
    (
        "TE.CL",
        After(b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n2c\r\nGET /smuggled HTTP/1.1\r\nHost: catalog\r\nX: 12\r\n0\r\n\r\n"),
        Once(b"GET /smuggled HTTP/1.1\r\nHost: catalog\r\nX: 12"),
    ),
    (
        "CL.0 with chunks",
        After(b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        Once(b"hello"),
    ),
    ("TE and a bad CL", After(b"Content-Length: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), Refused),
    ("TE, then a bad CL", After(b"Transfer-Encoding: chunked\r\nContent-Length: x\r\n\r\n0\r\n\r\n"), Refused),
    ("chunked, identity", After(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"), Refused),
    ("identity, chunked", After(b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), Refused),
    ("chunked, identity in one field", After(b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"), Refused),
    ("gzip, chunked", After(b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), Refused),
    ("chunked, gzip", After(b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"), Refused),
    ("chunked twice", After(b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"), Refused),
    ("chunked in two fields", After(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), Refused),
    ("identity", After(b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello"), Refused),
    ("an empty TE", After(b"Transfer-Encoding: \r\nContent-Length: 5\r\n\r\nhello"), Refused),
    ("xchunked", After(b"Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n\r\nhello"), Refused),
    ("chunkedx", After(b"Transfer-Encoding: chunkedx\r\nContent-Length: 5\r\n\r\nhello"), Refused),
    ("quoted chunked", After(b"Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"), Refused),
    ("chunked with a parameter", After(b"Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n"), Refused),
    ("a comma before chunked", After(b"Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n"), Refused),
    ("CHUNKED", After(b"Transfer-Encoding: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), Once(b"hello")),
    ("a tab before chunked", After(b"Transfer-Encoding:\tchunked \r\n\r\n5\r\nhello\r\n0\r\n\r\n"), Once(b"hello")),
    ("a vertical tab before chunked", After(b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n"), Refused),
    ("a space before the colon", After(b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"), Refused),
    ("a tab before the colon", After(b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n"), Refused),
    ("a folded TE", After(b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"), Refused),
    ("a TE that is a fold", After(b"X: 1\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), Refused),
    ("a space before TE", Head(b" Transfer-Encoding: chunked\r\nHost: catalog\r\n\r\n0\r\n\r\n"), Refused),
    ("a TE after bare LF", After(b"X: 1\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), Refused),
    ("a TE after bare CR", After(b"X: 1\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), Refused),
    ("a NUL in TE", After(b"Transfer-Encoding: chunked\0\r\n\r\n0\r\n\r\n"), Refused),
    ("an underscore in TE", After(b"Transfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello"), Once(b"hello")),
    ("chunks in HTTP/1.0", Whole(b"POST /case HTTP/1.0\r\nHost: catalog\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), Refused),
    ("Connection names the length", After(b"Connection: content-length\r\nContent-Length: 5\r\n\r\nhello"), Once(b"hello")),
    ("Connection names TE", After(b"Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), Once(b"hello")),
];

/// Lengths.
pub(crate) const LENGTHS: &[Case] = &[
    ("two equal lengths", After(b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"), Once(b"hello")),
    ("two lengths", After(b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"), Refused),
    ("a list of lengths", After(b"Content-Length: 5, 5\r\n\r\nhello"), Refused),
    ("a list of two lengths", After(b"Content-Length: 5, 6\r\n\r\nhello!"), Refused),
    ("a plus", After(b"Content-Length: +5\r\n\r\nhello"), Refused),
    ("a minus", After(b"Content-Length: -5\r\n\r\nhello"), Refused),
    ("hexadecimal", After(b"Content-Length: 0x5\r\n\r\nhello"), Refused),
    ("an exponent", After(b"Content-Length: 5e0\r\n\r\nhello"), Refused),
    ("a fraction", After(b"Content-Length: 5.0\r\n\r\nhello"), Refused),
    ("an underscore", After(b"Content-Length: 0_5\r\n\r\nhello"), Refused),
    ("a space within", After(b"Content-Length: 0 5\r\n\r\nhello"), Refused),
    ("a parameter", After(b"Content-Length: 5;x=1\r\n\r\nhello"), Refused),
    ("quotes", After(b"Content-Length: \"5\"\r\n\r\nhello"), Refused),
    ("an empty length", After(b"Content-Length: \r\n\r\nhello"), Refused),
    ("more than 64 bits", After(b"Content-Length: 18446744073709551621\r\n\r\nhello"), Refused),
    ("nearly 64 bits", After(b"Content-Length: 18446744073709551615\r\n\r\nhello"), Refused),
    ("other digits", After(b"Content-Length: \xd9\xa5\r\n\r\nhello"), Refused),
    ("a space before the length's colon", After(b"Content-Length : 5\r\n\r\nhello"), Refused),
    ("a folded length", After(b"Content-Length:\r\n 5\r\n\r\nhello"), Refused),
    ("spaces around", After(b"Content-Length: \t5 \t\r\n\r\nhello"), Once(b"hello")),
    ("a zero in front", After(b"Content-Length: 05\r\n\r\nhello"), Once(b"hello")),
];

/// Chunks.
pub(crate) const CHUNKS: &[Case] = &[
    ("a chunk with a plus", After(b"Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n"), Refused),
    ("a chunk with a minus", After(b"Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n"), Refused),
    ("a chunk with 0x", After(b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n"), Refused),
    ("a chunk with an underscore", After(b"Transfer-Encoding: chunked\r\n\r\n0_5\r\nhello\r\n0\r\n\r\n"), Refused),
    ("a chunk without a size", After(b"Transfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n"), Refused),
    ("a chunk after a space", After(b"Transfer-Encoding: chunked\r\n\r\n 5\r\nhello\r\n0\r\n\r\n"), Refused),
    ("a chunk before a space", After(b"Transfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n"), Once(b"hello")),
    ("a size with a space within", After(b"Transfer-Encoding: chunked\r\n\r\n0 5\r\nhello\r\n0\r\n\r\n"), Refused),
    ("a size beyond 64 bits", After(b"Transfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n"), Refused),
    ("zeros before a size", After(b"Transfer-Encoding: chunked\r\n\r\n00005\r\nhello\r\n000\r\n\r\n"), Once(b"hello")),
    ("a size before bare LF", After(b"Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n"), Refused),
    ("a size before bare CR", After(b"Transfer-Encoding: chunked\r\n\r\n5\rhello\r\n0\r\n\r\n"), Refused),
    ("data before bare LF", After(b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n"), Refused),
    ("an extension", After(b"Transfer-Encoding: chunked\r\n\r\n5;a=b;c\r\nhello\r\n0;d\r\n\r\n"), Once(b"hello")),
    ("an extension with bare LF", After(b"Transfer-Encoding: chunked\r\n\r\n5;a\nb\r\nhello\r\n0\r\n\r\n"), Refused),
    ("an extension with bare CR", After(b"Transfer-Encoding: chunked\r\n\r\n5;a\rb\r\nhello\r\n0\r\n\r\n"), Refused),
    ("a longer chunk than said", After(b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n"), Refused),
    ("a shorter chunk than said", After(b"Transfer-Encoding: chunked\r\n\r\n5\r\nhell\r\n0\r\n\r\n"), Refused),
    ("the end with bare LF", After(b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\n\n"), Refused),
    ("a folded trailer", After(b"Transfer-Encoding: chunked\r\nTrailer: x\r\n\r\n5\r\nhello\r\n0\r\nX: 1\r\n 2\r\n\r\n"), Refused),
    ("a trailer without a colon", After(b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nGET /smuggled HTTP/1.1\r\n\r\n"), Refused),
    (
        "trailers that would frame",
        After(b"Transfer-Encoding: chunked\r\nTrailer: content-length, transfer-encoding, host\r\n\r\n5\r\nhello\r\n0\r\nContent-Length: 50\r\nTransfer-Encoding: chunked\r\nHost: evil\r\n\r\n"),
        Once(b"hello"),
    ),
];

/// Hosts and targets.
pub(crate) const TARGETS: &[Case] = &[
    ("two hosts", Head(b"Host: catalog\r\nHost: evil\r\n\r\n"), Refused),
    ("two equal hosts", Head(b"Host: catalog\r\nHost: catalog\r\n\r\n"), Refused),
    ("no host", Head(b"X: 1\r\n\r\n"), Refused),
    ("an empty host", Head(b"Host: \r\n\r\n"), Refused),
    ("a list of hosts", Head(b"Host: catalog, evil\r\n\r\n"), Refused),
    ("a host with a user", Head(b"Host: evil@catalog\r\n\r\n"), Refused),
    ("a host with a path", Head(b"Host: catalog/evil\r\n\r\n"), Refused),
    ("a host with a query", Head(b"Host: catalog?evil\r\n\r\n"), Refused),
    ("a host with a space", Head(b"Host: catalog evil\r\n\r\n"), Refused),
    ("a host with two ports", Head(b"Host: catalog:80:90\r\n\r\n"), Refused),
    ("a host whose port is none", Head(b"Host: catalog:x\r\n\r\n"), Refused),
    ("a host after a space", Head(b" Host: catalog\r\n\r\n"), Refused),
    (
        "absolute-form and another host",
        Whole(b"GET http://evil/case HTTP/1.1\r\nHost: catalog\r\n\r\n"),
        Refused,
    ),
    (
        "absolute-form and another port",
        Whole(b"GET http://catalog:1/case HTTP/1.1\r\nHost: catalog\r\n\r\n"),
        Refused,
    ),
    (
        "absolute-form with a user",
        Whole(b"GET http://evil@catalog/case HTTP/1.1\r\nHost: catalog\r\n\r\n"),
        Refused,
    ),
    (
        "absolute-form with the user in both",
        Whole(b"GET http://evil@catalog/case HTTP/1.1\r\nHost: evil@catalog\r\n\r\n"),
        Refused,
    ),
    (
        "absolute-form of another scheme",
        Whole(b"GET ftp://catalog/case HTTP/1.1\r\nHost: catalog\r\n\r\n"),
        Refused,
    ),
    ("absolute-form", Whole(b"GET http://catalog/case HTTP/1.1\r\nHost: catalog\r\n\r\n"), Once(b"")),
    ("authority-form with GET", Whole(b"GET catalog:80 HTTP/1.1\r\nHost: catalog:80\r\n\r\n"), Refused),
    ("origin-form with CONNECT", Whole(b"CONNECT /case HTTP/1.1\r\nHost: catalog\r\n\r\n"), Refused),
    ("absolute-form with CONNECT", Whole(b"CONNECT http://catalog:80/case HTTP/1.1\r\nHost: catalog:80\r\n\r\n"), Refused),
    ("asterisk-form with CONNECT", Whole(b"CONNECT * HTTP/1.1\r\nHost: catalog\r\n\r\n"), Refused),
    ("CONNECT without a port", Whole(b"CONNECT catalog HTTP/1.1\r\nHost: catalog\r\n\r\n"), Refused),
    ("CONNECT with a user", Whole(b"CONNECT evil@catalog:80 HTTP/1.1\r\nHost: catalog:80\r\n\r\n"), Refused),
    ("CONNECT with a path", Whole(b"CONNECT catalog:80/case HTTP/1.1\r\nHost: catalog:80\r\n\r\n"), Refused),
    ("CONNECT and another host", Whole(b"CONNECT catalog:80 HTTP/1.1\r\nHost: evil:80\r\n\r\n"), Refused),
    ("CONNECT and another port", Whole(b"CONNECT catalog:80 HTTP/1.1\r\nHost: catalog:8080\r\n\r\n"), Refused),
    (
        "CONNECT with a length",
        Whole(b"CONNECT catalog:80 HTTP/1.1\r\nHost: catalog:80\r\nContent-Length: 43\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: catalog\r\n\r\n\r\n"),
        Refused,
    ),
    (
        "CONNECT with a length of nothing",
        Whole(b"CONNECT catalog:80 HTTP/1.1\r\nHost: catalog:80\r\nContent-Length: 0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: catalog\r\n\r\n"),
        Refused,
    ),
    (
        "CONNECT with chunks",
        Whole(b"CONNECT catalog:80 HTTP/1.1\r\nHost: catalog:80\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: catalog\r\n\r\n"),
        Refused,
    ),
    ("asterisk-form with GET", Whole(b"GET * HTTP/1.1\r\nHost: catalog\r\n\r\n"), Refused),
    ("a target without a slash", Whole(b"GET case HTTP/1.1\r\nHost: catalog\r\n\r\n"), Refused),
    ("two spaces", Whole(b"GET  /case HTTP/1.1\r\nHost: catalog\r\n\r\n"), Refused),
    ("a tab for a space", Whole(b"GET\t/case HTTP/1.1\r\nHost: catalog\r\n\r\n"), Refused),
    ("a space within the target", Whole(b"GET /case /smuggled HTTP/1.1\r\nHost: catalog\r\n\r\n"), Refused),
    ("a NUL in the target", Whole(b"GET /case\0 HTTP/1.1\r\nHost: catalog\r\n\r\n"), Refused),
    ("bytes behind the version", Whole(b"GET /case HTTP/1.1 x\r\nHost: catalog\r\n\r\n"), Refused),
    ("HTTP/1.2", Whole(b"GET /case HTTP/1.2\r\nHost: catalog\r\n\r\n"), Refused),
    ("HTTP/2.0", Whole(b"GET /case HTTP/2.0\r\nHost: catalog\r\n\r\n"), Refused),
    ("HTTP/01.1", Whole(b"GET /case HTTP/01.1\r\nHost: catalog\r\n\r\n"), Refused),
    ("no version", Whole(b"GET /case\r\nHost: catalog\r\n\r\n"), Refused),
    ("a method with a parenthesis", Whole(b"GE(T /case HTTP/1.1\r\nHost: catalog\r\n\r\n"), Refused),
    ("a fragment", Whole(b"GET /case#/smuggled HTTP/1.1\r\nHost: catalog\r\n\r\n"), Once(b"")),
    ("empty lines in front", Whole(b"\r\n\r\nGET /case HTTP/1.1\r\nHost: catalog\r\n\r\n"), Once(b"")),
];

/// Fields.
pub(crate) const FIELDS: &[Case] = &[
    ("a folded field", After(b"X: a\r\n b\r\n\r\n"), Refused),
    ("a field folded by a tab", After(b"X: a\r\n\tContent-Length: 5\r\n\r\nhello"), Refused),
    ("a NUL in a value", After(b"X: a\0b\r\n\r\n"), Refused),
    ("a CR in a value", After(b"X: a\rb\r\n\r\n"), Refused),
    ("a DEL in a value", After(b"X: a\x7fb\r\n\r\n"), Refused),
    ("a NUL in a name", After(b"X\0: a\r\n\r\n"), Refused),
    ("a space in a name", After(b"X Y: a\r\n\r\n"), Refused),
    ("no colon", After(b"X\r\n\r\n"), Refused),
    ("no name", After(b": a\r\n\r\n"), Refused),
    ("a name with a parenthesis", After(b"X(: a\r\n\r\n"), Refused),
    ("Latin-1 in a name", After(b"X\xe9: a\r\n\r\n"), Refused),
    ("Latin-1 in a value", After(b"X: \xe9\r\n\r\n"), Once(b"")),
    (
        "all lines end with bare LF",
        Whole(b"POST /case HTTP/1.1\nHost: catalog\nContent-Length: 5\n\nhello"),
        Refused,
    ),
    (
        "an upgrade to h2c",
        After(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"),
        Once(b""),
    ),
    ("Connection names the host", After(b"Connection: host\r\n\r\n"), Once(b"")),
    ("an unknown expectation", After(b"Expect: evil\r\nContent-Length: 5\r\n\r\nhello"), Once(b"hello")),
    (
        "a body with HEAD",
        Whole(b"HEAD /case HTTP/1.1\r\nHost: catalog\r\nContent-Length: 5\r\n\r\nhello"),
        Once(b"hello"),
    ),
];

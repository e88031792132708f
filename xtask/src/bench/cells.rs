//! What is measured: not the full product of protocols, connections and sizes, but the cells that tell something.

use super::arrange::Protocol;

/// What a client does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Load {
    /// Requests of HTTP/1.1, one after the other on each connection; responses of that many bytes.
    Http { bytes: usize },
    /// The same at a fixed rate a second over all connections.
    Paced { bytes: usize, rate: f64 },
    /// gRPC calls with answers of that many bytes, so many at a time on each connection.
    Calls { bytes: usize, calls: usize },
    /// gRPC messages of that many bytes to and fro, on one stream for each connection.
    Streams { bytes: usize },
    /// Bytes from the application.
    Down,
    /// Bytes to the application.
    Up,
    /// A new connection for each exchange.
    Connect,
    /// Connections that are idle after one exchange; opaque ones carry bytes instead of HTTP/1.1.
    Hold { opaque: bool },
}

/// A load on so many connections.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Traffic {
    pub(crate) load: Load,
    pub(crate) connections: usize,
}

/// What a cell counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Request,
    Message,
    Connection,
    /// Billion bytes.
    Gigabyte,
}

impl Unit {
    /// Its name, as in "CPU for each NAME".
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Message => "message",
            Self::Connection => "connection",
            Self::Gigabyte => "GB",
        }
    }
}

/// One thing that is measured of each arrangement.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    /// Its name in JSON and on the command line.
    pub(crate) name: &'static str,
    /// What it is, in words.
    pub(crate) title: &'static str,
    pub(crate) protocol: Protocol,
    pub(crate) traffic: Traffic,
    pub(crate) unit: Unit,
    /// The bar: CPU of our pair over that of Envoy's; none if it is only reported. What has a bar is measured for
    /// longer, and in quick runs too.
    pub(crate) envoy_bar: Option<f64>,
}

/// Name of the cell whose rates say what the fixed rate is.
pub(crate) const MAIN: &str = "http1";

/// All cells.
pub(crate) fn all() -> Vec<Cell> {
    use Protocol::{Grpc, Http1, Http1OverHttp2, Tcp};
    use Unit::{Connection, Gigabyte, Message, Request};
    let http = |bytes| Load::Http { bytes };
    let calls = |calls| Load::Calls { bytes: 1024, calls };
    vec![
        cell(MAIN, "HTTP/1.1, 1 KiB, 32 connections", Http1, http(1024), 32, Request, Some(0.28)),
        cell(
            "http1-over-http2",
            "HTTP/1.1 over HTTP/2, 1 KiB, 32 connections",
            Http1OverHttp2,
            http(1024),
            32,
            Request,
            Some(0.33),
        ),
        cell("grpc-unary", "gRPC unary, 1 KiB, 32 connections", Grpc, calls(1), 32, Request, Some(0.5)),
        cell(
            "grpc-streaming",
            "gRPC streaming, 64 B messages, 32 connections",
            Grpc,
            Load::Streams { bytes: 64 },
            32,
            Message,
            Some(0.5),
        ),
        cell("tcp-down", "TCP bulk to the client, 4 connections", Tcp, Load::Down, 4, Gigabyte, Some(0.9)),
        cell("tcp-up", "TCP bulk to the server, 4 connections", Tcp, Load::Up, 4, Gigabyte, Some(0.9)),
        cell(
            "handshakes",
            "TLS handshakes: a connection per exchange, 32 at a time",
            Tcp,
            Load::Connect,
            32,
            Connection,
            None,
        ),
        cell("http1-1", "HTTP/1.1, 1 KiB, 1 connection", Http1, http(1024), 1, Request, None),
        cell("http1-512", "HTTP/1.1, 1 KiB, 512 connections", Http1, http(1024), 512, Request, None),
        cell("http1-64b", "HTTP/1.1, 64 B, 32 connections", Http1, http(64), 32, Request, None),
        cell("http1-64k", "HTTP/1.1, 64 KiB, 32 connections", Http1, http(64 * 1024), 32, Request, None),
        cell("http1-1m", "HTTP/1.1, 1 MiB, 32 connections", Http1, http(1024 * 1024), 32, Request, None),
        cell(
            "http1-over-http2-512",
            "HTTP/1.1 over HTTP/2, 1 KiB, 512 connections",
            Http1OverHttp2,
            http(1024),
            512,
            Request,
            None,
        ),
        cell(
            "grpc-unary-shared",
            "gRPC unary, 1 KiB, 1 connection with 32 calls",
            Grpc,
            calls(32),
            1,
            Request,
            None,
        ),
    ]
}

fn cell(
    name: &'static str,
    title: &'static str,
    protocol: Protocol,
    load: Load,
    connections: usize,
    unit: Unit,
    envoy_bar: Option<f64>,
) -> Cell {
    Cell { name, title, protocol, traffic: Traffic { load, connections }, unit, envoy_bar }
}

/// The load under which memory is measured at so many connections.
pub(crate) fn memory(connections: usize) -> Traffic {
    Traffic { load: Load::Http { bytes: 1024 }, connections }
}

/// The load under which latency is measured, so many requests a second.
pub(crate) fn paced(rate: f64) -> Traffic {
    Traffic { load: Load::Paced { bytes: 1024, rate }, connections: 32 }
}

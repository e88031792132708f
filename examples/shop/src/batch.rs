//! A job that reads a cart, which policy does not let it. It reports what it was told.

use std::{collections::BTreeMap, io::Write as _, process::ExitCode, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::reason::REASON_HEADER;
use serde::Serialize;
use tokio::net::TcpStream;

/// How long the job may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Flags of `shop batch`.
#[derive(Args)]
pub(crate) struct BatchArgs {
    /// Where the sidecar takes outbound HTTP and gRPC; without it, the host is connected to
    #[arg(long, value_name = "HOST:PORT")]
    proxy: Option<String>,
    /// Host of the cart
    #[arg(long, default_value = "cart:7070")]
    cart: String,
}

/// What the job was told; the call is plain HTTP/2, so that all of the answer is seen.
#[derive(Debug, Serialize)]
struct Report {
    /// The method called.
    call: &'static str,
    /// HTTP status.
    status: u16,
    /// gRPC status, from headers or trailers.
    grpc_status: Option<String>,
    /// gRPC message.
    grpc_message: Option<String>,
    /// Why the mesh refused, when it did.
    mesh_reason: Option<String>,
}

/// Runs the job once. It ends with 0 when the cart was read, with 3 when it was not.
///
/// # Errors
/// When no answer came.
pub(crate) async fn run(args: BatchArgs) -> anyhow::Result<ExitCode> {
    let report = tokio::time::timeout(TIMEOUT, call(&args)).await.context("no answer in time")??;
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, &report)?;
    writeln!(out)?;
    let read = report.grpc_status.as_deref() == Some("0");
    Ok(if read { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

async fn call(args: &BatchArgs) -> anyhow::Result<Report> {
    const METHOD: &str = "/shop.cart.v1.Cart/List";
    let place = args.proxy.as_ref().unwrap_or(&args.cart);
    let stream = TcpStream::connect(place).await.with_context(|| format!("cannot connect to {place}"))?;
    let (mut sender, driver) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let driver = tokio::spawn(driver);
    // One gRPC message: not compressed, no bytes (an empty ListRequest).
    let body = Full::new(Bytes::from_static(&[0; 5]));
    let request = Request::post(format!("http://{}{METHOD}", args.cart))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(body)?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let trailers = body.collect().await?.trailers().cloned().unwrap_or_default();
    driver.abort();
    let fields: BTreeMap<&str, Option<String>> = ["grpc-status", "grpc-message", REASON_HEADER]
        .map(|name| (name, text(&head.headers, name).or_else(|| text(&trailers, name))))
        .into();
    let field = |name| fields.get(name).cloned().flatten();
    Ok(Report {
        call: METHOD,
        status: head.status.as_u16(),
        grpc_status: field("grpc-status"),
        grpc_message: field("grpc-message"),
        mesh_reason: field(REASON_HEADER),
    })
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

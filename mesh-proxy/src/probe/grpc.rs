//! `grpc`: `grpc.health.v1.Health/Check` over HTTP/2 in plaintext.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinSet;

use super::{connect, http::chain};
use crate::http::grpc_health::{CHECK, is_serving, question};

/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 4096;

/// Asks whether a service serves.
pub(super) async fn ask(
    address: SocketAddr,
    service: &str,
    agent: Option<&HeaderValue>,
) -> Result<(), String> {
    let question = question(service).ok_or("the service's name is too long")?;
    let stream = connect(address).await?;
    let failed = |error: hyper::Error| format!("{address} does not answer gRPC: {}", chain(&error));
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, running) = handshake.map_err(failed)?;
    let mut connection = JoinSet::new();
    connection.spawn(async move { drop(running.await) });
    let mut request = Request::post(format!("http://{address}{CHECK}"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers");
    if let Some(agent) = agent {
        request = request.header(header::USER_AGENT, agent);
    }
    let request = request.body(Full::<Bytes>::new(question)).map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(failed)?;
    let status = response.status();
    if !status.is_success() {
        return Err(format!("{address} answered with status {status} of HTTP: does it speak gRPC"));
    }
    let in_head = grpc_status(response.headers());
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(|error| format!("the answer of {address} broke off: {error}"))?;
    let code = body.trailers().and_then(grpc_status).or(in_head);
    let answer = body.to_bytes();
    match code.as_deref() {
        None | Some("0") if is_serving(&answer) => Ok(()),
        None | Some("0") => Err(format!("{address} says that service {service:?} does not serve")),
        Some("5") => Err(format!("{address} does not know service {service:?} (grpc-status 5)")),
        Some("12") => Err(format!("{address} does not implement the gRPC health protocol (grpc-status 12)")),
        Some(code) => Err(format!("{address} answered with grpc-status {code}")),
    }
}

fn grpc_status(fields: &HeaderMap) -> Option<String> {
    Some(fields.get("grpc-status")?.to_str().ok()?.to_owned())
}

//! Reads one page by HTTP: readiness, metrics and the applications' own counts.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, anyhow};
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Largest page, in bytes.
const MAX_PAGE: usize = 16 << 20;
/// How long one page may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Status and text of `GET http://ADDRESS/PATH`.
///
/// # Errors
/// When no whole answer comes in time.
pub(crate) async fn get(address: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    let exchange = tokio::time::timeout(TIMEOUT, exchange(address, path)).await;
    exchange
        .map_err(|_| anyhow!("no answer within {TIMEOUT:?}"))
        .flatten()
        .with_context(|| format!("cannot read http://{address}{path}"))
}

async fn exchange(address: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(path)
        .header(header::HOST, address.to_string())
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, MAX_PAGE).collect().await.map_err(|error| anyhow!(error))?.to_bytes();
    Ok((head.status.as_u16(), String::from_utf8(body.into()).context("the answer is no text")?))
}

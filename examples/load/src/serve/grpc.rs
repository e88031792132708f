//! gRPC: each message is answered by one of the size that it asks for.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream, server};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::TcpStream;

use crate::grpc::{Messages, STREAM, UNARY, answer, wanted_bytes};

/// Bytes that a stream, and a connection, may send before they are read.
const WINDOW: u32 = 1 << 20;

/// Answers calls until the client closes.
pub(super) async fn serve(stream: TcpStream) -> Result<()> {
    let mut builder = server::Builder::new();
    builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
    let mut connection = builder.handshake(stream).await.context("no HTTP/2")?;
    while let Some(call) = connection.accept().await {
        let (request, respond) = call.context("the connection broke")?;
        // A call that breaks is the client's business: it counts the failure.
        tokio::spawn(call_of(request, respond));
    }
    Ok(())
}

async fn call_of(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Result<()> {
    let known = [UNARY, STREAM].contains(&request.uri().path());
    let response = Response::builder().header("content-type", "application/grpc");
    if !known {
        let refused = response.header("grpc-status", "12").body(())?;
        respond.send_response(refused, true)?;
        return Ok(());
    }
    let mut send = respond.send_response(response.body(())?, false)?;
    let mut body = request.into_body();
    let mut messages = Messages::default();
    while let Some(data) = body.data().await {
        let data = data?;
        messages.push(&data);
        body.flow_control().release_capacity(data.len())?;
        while let Some(message) = messages.next() {
            let wanted = wanted_bytes(&message).context("a message that asks for nothing")?;
            send_whole(&mut send, answer(wanted)).await?;
        }
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    send.send_trailers(trailers)?;
    Ok(())
}

/// Sends all of `data` as the peer makes room for it.
async fn send_whole(send: &mut SendStream<Bytes>, mut data: Bytes) -> Result<()> {
    while !data.is_empty() {
        send.reserve_capacity(data.len());
        let room = match send.capacity() {
            0 => std::future::poll_fn(|context| send.poll_capacity(context))
                .await
                .context("the call ended")??,
            room => room,
        };
        let part = data.split_to(room.min(data.len()));
        send.send_data(part, false)?;
    }
    Ok(())
}

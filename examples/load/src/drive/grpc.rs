//! A closed loop of gRPC: calls one after the other, or messages to and fro on a stream that stays open.

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Method, Request};

use super::{Exchange, Target, connect, keep_busy, make_all};
use crate::grpc::{Messages, STREAM, UNARY, UNKNOWN, question};

/// Bytes that a stream, and a connection, may send before they are read.
const WINDOW: u32 = 1 << 20;

/// Runs the loop and reports; `calls` at a time on each connection.
pub(crate) async fn run(target: &Target, streaming: bool, bytes: u32, calls: usize) -> Result<()> {
    let connections = make_all(target, async || {
        let mut clients = Vec::new();
        let send = open(target).await?;
        for _ in 0..calls {
            let mut client = Client::start(target.clone(), bytes, streaming, send.clone()).await?;
            client.exchange().await?;
            clients.push(client);
        }
        Ok(clients)
    });
    keep_busy(target, connections.await?.into_iter().flatten()).await
}

/// Makes one call that nobody may make, and fails unless it is refused: by gRPC's PERMISSION_DENIED, or by 403.
pub(crate) async fn run_refused(target: &Target) -> Result<()> {
    let mut send = open(target).await?;
    let (response, _body) = begin(&mut send, target, UNKNOWN).await?;
    let response = response.await?;
    let denied = response.headers().get("grpc-status").is_some_and(|status| status == "7");
    ensure!(denied || response.status() == 403, "not refused: {response:?}");
    Ok(())
}

/// Opens a connection, and lets it run beside.
async fn open(target: &Target) -> Result<SendRequest<Bytes>> {
    let mut builder = Builder::new();
    builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
    let (send, connection) = builder.handshake(connect(target.to).await?).await.context("no HTTP/2")?;
    // Its calls notice when it breaks.
    tokio::spawn(connection);
    Ok(send)
}

/// One that exchanges messages.
struct Client {
    target: Target,
    /// Bytes of each message of the server.
    bytes: u32,
    send: SendRequest<Bytes>,
    /// A stream that stays open; None: a call for each message.
    stream: Option<Stream>,
}

impl Client {
    async fn start(target: Target, bytes: u32, streaming: bool, send: SendRequest<Bytes>) -> Result<Self> {
        let stream = if streaming { Some(Stream::start(&target, send.clone()).await?) } else { None };
        Ok(Self { target, bytes, send, stream })
    }
}

impl Exchange for Client {
    /// One message each way.
    async fn exchange(&mut self) -> Result<()> {
        match &mut self.stream {
            None => {
                let (response, mut body) = begin(&mut self.send, &self.target, UNARY).await?;
                body.send_data(question(self.bytes), true)?;
                finish(response.await?, self.bytes).await
            }
            Some(stream) => stream.exchange(self.bytes).await,
        }
    }

    async fn renewed(&self) -> Result<Self> {
        let send = open(&self.target).await?;
        Self::start(self.target.clone(), self.bytes, self.stream.is_some(), send).await
    }
}

/// Sends the head of a call.
async fn begin(
    send: &mut SendRequest<Bytes>,
    target: &Target,
    path: &str,
) -> Result<(h2::client::ResponseFuture, SendStream<Bytes>)> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://{}{path}", target.host))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let mut ready = send.clone().ready().await?;
    Ok(ready.send_request(request, false)?)
}

/// Reads the answer of a call to its end: one message, and trailers that say that all is well.
async fn finish(response: http::Response<RecvStream>, bytes: u32) -> Result<()> {
    ensure!(response.status() == 200, "status {}", response.status());
    let mut body = response.into_body();
    let mut messages = Messages::default();
    while let Some(data) = body.data().await {
        let data = data?;
        messages.push(&data);
        body.flow_control().release_capacity(data.len())?;
    }
    let length = messages.next().map(|message| message.len());
    ensure!(length.is_some_and(|length| length == bytes as usize), "an answer without its message");
    let trailers: HeaderMap = body.trailers().await?.context("an answer without trailers")?;
    ensure!(trailers.get("grpc-status").is_some_and(|status| status == "0"), "a call that failed");
    Ok(())
}

/// A call that stays open.
struct Stream {
    send: SendStream<Bytes>,
    receive: RecvStream,
    messages: Messages,
}

impl Stream {
    async fn start(target: &Target, mut send: SendRequest<Bytes>) -> Result<Self> {
        let (response, send) = begin(&mut send, target, STREAM).await?;
        let response = response.await?;
        ensure!(response.status() == 200, "status {}", response.status());
        Ok(Self { send, receive: response.into_body(), messages: Messages::default() })
    }

    async fn exchange(&mut self, bytes: u32) -> Result<()> {
        self.send.send_data(question(bytes), false)?;
        loop {
            if let Some(message) = self.messages.next() {
                ensure!(message.len() == bytes as usize, "a message of a wrong size");
                return Ok(());
            }
            let data = self.receive.data().await.context("the stream ended")??;
            self.messages.push(&data);
            self.receive.flow_control().release_capacity(data.len())?;
        }
    }
}

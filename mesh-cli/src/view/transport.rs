//! One HTTP/2 connection in plaintext. It never connects again by itself, so that a failure is told at once and for what
//! it is.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::http2::{SendRequest, handshake},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::watch,
};
use tonic::{Status, body::Body};

/// The connection; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Transport {
    sender: SendRequest<Body>,
}

impl Transport {
    /// Connects to `HOST:PORT`.
    pub(super) async fn connect(address: &str) -> io::Result<(Self, Lifeline)> {
        Self::over(TcpStream::connect(address).await?).await
    }

    /// Speaks on a connection that is there.
    pub(super) async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> io::Result<(Self, Lifeline)> {
        let (sender, connection) =
            handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let (tell, lifeline) = watch::channel(None);
        tokio::spawn(async move {
            let reason = match connection.await {
                Ok(()) => "the connection was closed".to_owned(),
                Err(error) => super::innermost_of(&error),
            };
            tell.send_replace(Some(reason));
        });
        Ok((Self { sender }, Lifeline(lifeline)))
    }
}

/// Tells when the connection has ended: a request that is sent at that moment may otherwise wait for ever.
#[derive(Clone, Debug)]
pub(super) struct Lifeline(watch::Receiver<Option<String>>);

impl Lifeline {
    /// Waits for the answer to a call as long as the connection stands, and no longer than `limit`.
    pub(super) async fn limit<T>(
        &mut self,
        limit: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<tonic::Response<T>, Status> {
        tokio::select! {
            biased;
            answer = call => answer,
            ended = self.0.wait_for(Option::is_some) => {
                let reason = ended.ok().and_then(|reason| reason.clone()).unwrap_or_default();
                Err(Status::from_error(Box::new(io::Error::other(reason))))
            }
            () = tokio::time::sleep(limit) => Err(Status::deadline_exceeded("no answer in time")),
        }
    }
}

impl tower::Service<Request<Body>> for Transport {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    /// Always ready: a connection that is lost is told by the call, with its cause.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut sender = self.sender.clone();
        Box::pin(async move {
            sender.ready().await?;
            sender.send_request(request).await
        })
    }
}

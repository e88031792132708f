//! HTTP/2: serving connections, and one that all requests share.

use std::{cell::RefCell, future::Future, rc::Rc};

use anyhow::{Result, anyhow};
use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::sync::Mutex;

use crate::{Answer, Dial, Forward, tls::Stream};

/// Flow control window of a stream, in bytes.
const STREAM_WINDOW: u32 = 1024 * 1024;
/// Flow control window of a connection, in bytes.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Serves one connection.
pub(crate) async fn serve(stream: Stream, forward: Rc<dyn Forward>) -> Result<()> {
    let service = service_fn(move |request| Rc::clone(&forward).forward(request));
    hyper::server::conn::http2::Builder::new(Executor)
        .auto_date_header(false)
        .max_concurrent_streams(1024)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .serve_connection(TokioIo::new(stream), service)
        .await
        .map_err(|error| anyhow!(error))
}

/// The connection to the upstream.
pub(crate) struct Shared {
    dial: Rc<Dial>,
    sender: RefCell<Option<SendRequest<Incoming>>>,
    opening: Mutex<()>,
}

impl Shared {
    /// Not connected yet.
    pub(crate) fn new(dial: Rc<Dial>) -> Self {
        Self { dial, sender: RefCell::default(), opening: Mutex::default() }
    }

    fn sender(&self) -> Option<SendRequest<Incoming>> {
        self.sender.borrow().as_ref().filter(|sender| !sender.is_closed()).cloned()
    }

    async fn open(&self) -> Result<SendRequest<Incoming>> {
        let _opening = self.opening.lock().await;
        if let Some(sender) = self.sender() {
            return Ok(sender);
        }
        let stream = TokioIo::new(self.dial.connect().await?);
        let (sender, connection) = http2::Builder::new(Executor)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(stream)
            .await?;
        tokio::task::spawn_local(connection);
        *self.sender.borrow_mut() = Some(sender.clone());
        Ok(sender)
    }

    async fn send(self: Rc<Self>, request: Request<Incoming>) -> Result<Response<Incoming>> {
        let mut sender = match self.sender() {
            Some(sender) => sender,
            None => self.open().await?,
        };
        Ok(sender.send_request(request).await?)
    }
}

impl Forward for Shared {
    fn forward(self: Rc<Self>, request: Request<Incoming>) -> Answer {
        Box::pin(self.send(request))
    }
}

/// Runs hyper's tasks on the one thread.
#[derive(Clone, Copy)]
struct Executor;

impl<F: Future + 'static> hyper::rt::Executor<F> for Executor
where
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

//! HTTP/1: serving connections, and a pool of them to the upstream.

use std::{cell::RefCell, rc::Rc};

use anyhow::{Result, anyhow};
use http::{Request, Response, Version};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    service::service_fn,
};
use hyper_util::rt::TokioIo;

use crate::{Answer, Dial, Forward, tls::Stream};

/// Serves one connection.
pub(crate) async fn serve(stream: Stream, forward: Rc<dyn Forward>) -> Result<()> {
    let service = service_fn(move |request| Rc::clone(&forward).forward(request));
    hyper::server::conn::http1::Builder::new()
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
        .map_err(|error| anyhow!(error))
}

/// Connections to the upstream, the newest on top. One whose last exchange is not over yet is passed over.
pub(crate) struct Pool {
    dial: Rc<Dial>,
    connections: RefCell<Vec<SendRequest<Incoming>>>,
}

impl Pool {
    /// A pool without connections.
    pub(crate) fn new(dial: Rc<Dial>) -> Self {
        Self { dial, connections: RefCell::default() }
    }

    fn take(&self) -> Option<SendRequest<Incoming>> {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|connection| !connection.is_closed());
        let ready = connections.iter().rposition(SendRequest::is_ready)?;
        Some(connections.swap_remove(ready))
    }

    async fn send(self: Rc<Self>, mut request: Request<Incoming>) -> Result<Response<Incoming>> {
        *request.version_mut() = Version::HTTP_11;
        let mut sender = match self.take() {
            Some(sender) => sender,
            None => {
                let stream = TokioIo::new(self.dial.connect().await?);
                let (sender, connection) = http1::handshake(stream).await?;
                tokio::task::spawn_local(connection);
                sender
            }
        };
        let response = sender.send_request(request).await?;
        self.connections.borrow_mut().push(sender);
        Ok(response)
    }
}

impl Forward for Pool {
    fn forward(self: Rc<Self>, request: Request<Incoming>) -> Answer {
        Box::pin(self.send(request))
    }
}

//! Accepting connections until the handle is dropped.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

/// A listener with its connections. Dropping it closes them all.
#[derive(Debug)]
pub struct Served {
    address: SocketAddr,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicU64,
    ended: AtomicU64,
}

impl Served {
    /// Listens at `address` (port 0: any) and runs `handle` for each connection.
    ///
    /// # Panics
    /// When the address cannot be bound.
    pub async fn start<F, Fut>(address: SocketAddr, handle: F) -> Self
    where
        F: Fn(TcpStream, SocketAddr) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = match TcpListener::bind(address).await {
            Ok(listener) => listener,
            Err(error) => panic!("cannot listen at {address}: {error}"),
        };
        let address = listener.local_addr().expect("a bound listener has an address");
        let counts = Arc::new(Counts::default());
        let task = tokio::spawn(accept(listener, Arc::clone(&counts), handle));
        Self { address, counts, task }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.counts.accepted.load(Ordering::SeqCst)
    }

    /// Connections that are open now.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.accepted() - self.counts.ended.load(Ordering::SeqCst)
    }

    /// Closes the listener and all connections, and waits until that is done.
    pub async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept<F, Fut>(listener: TcpListener, counts: Arc<Counts>, handle: F)
where
    F: Fn(TcpStream, SocketAddr) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    // Dropped with this task, and all connections with it.
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, peer)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        counts.accepted.fetch_add(1, Ordering::SeqCst);
        let ended = End(Arc::clone(&counts));
        let connection = handle(stream, peer);
        connections.spawn(async move {
            let _ended = ended;
            connection.await;
        });
        while connections.try_join_next().is_some() {}
    }
}

struct End(Arc<Counts>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::net::{fresh_addr, until};

    #[tokio::test]
    async fn counts_and_closes() {
        let address = fresh_addr(0);
        let served = Served::start(address, |mut stream, _| async move {
            let _ = stream.write_all(b"x").await;
            let _ = stream.read_u8().await;
        })
        .await;
        let mut one = TcpStream::connect(served.address()).await.expect("connects");
        let two = TcpStream::connect(served.address()).await.expect("connects");
        until("both are open", || served.open() == 2).await;
        drop(two);
        until("one is closed", || served.open() == 1).await;
        assert_eq!((served.accepted(), one.read_u8().await.ok()), (2, Some(b'x')));
        let address = served.address();
        served.stop().await;
        assert!(one.read_u8().await.is_err());
        TcpStream::connect(address).await.expect_err("nobody listens");
        Served::start(address, |_, _| async {}).await;
    }
}

//! Applications with fixed answers.

mod grpc;
mod http;
mod tcp;

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

/// Serves until the process is ended.
pub(crate) async fn run(address: IpAddr) -> Result<()> {
    let (http, grpc, tcp) = (listen(address).await?, listen(address).await?, listen(address).await?);
    println!("{}", json!({"http": port(&http)?, "grpc": port(&grpc)?, "tcp": port(&tcp)?}));
    std::io::stdout().flush().context("cannot print the ports")?;
    let answers = http::Answers::default();
    tokio::join!(
        // A connection that breaks is the client's business: it counts the failure.
        accept(http, |stream| drop(tokio::spawn(http::serve(stream, answers.clone())))),
        accept(grpc, |stream| drop(tokio::spawn(grpc::serve(stream)))),
        accept(tcp, |stream| drop(tokio::spawn(tcp::serve(stream)))),
    );
    Ok(())
}

async fn listen(address: IpAddr) -> Result<TcpListener> {
    TcpListener::bind(SocketAddr::new(address, 0))
        .await
        .with_context(|| format!("cannot listen on {address}"))
}

fn port(listener: &TcpListener) -> Result<u16> {
    Ok(listener.local_addr().context("cannot tell where it listens")?.port())
}

async fn accept(listener: TcpListener, serve: impl Fn(TcpStream)) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) if stream.set_nodelay(true).is_ok() => serve(stream),
            Ok(_) => {}
            // Out of descriptors: the bench fails, but this must not spin.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
}

//! Servers that are gone when what was sent to them is to be sent again.

use http::{Method, StatusCode};
use mesh_core::{protocol::Protocol, reason::Reason};
use mesh_testkit::net::fresh_addr;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::{
    mesh::reason,
    servers::{Two, Way},
};

async fn read_head(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(())
}

/// A server that takes one connection, answers the first request, and breaks off within the second.
async fn one_answer() -> std::net::SocketAddr {
    let listener = TcpListener::bind(fresh_addr(0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        drop(listener);
        read_head(&mut stream).await?;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
        read_head(&mut stream).await?;
        SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO))
    });
    address
}

/// It may have been processed before the connection broke: that the next one cannot be made changes nothing about it.
#[tokio::test]
async fn what_was_sent_once_is_not_called_unsent() {
    for way in [Way::Sidecar, Way::Unsecured] {
        let two = Two::start(Protocol::Http1, one_answer().await, way, |_| ()).await;
        let (mut connection, mut failed) = (two.connect().await, 0);
        for _ in 0..4 {
            let response = connection.send(two.request(&Method::DELETE)).await.unwrap();
            if response.status() != StatusCode::OK {
                let told = (response.status(), reason(&response));
                assert_eq!(told, (StatusCode::BAD_GATEWAY, Some(Reason::UpstreamReset)), "{way:?}");
                failed += 1;
            }
        }
        assert_eq!((failed, two.good.requests()), (1, 2), "{way:?}: it went nowhere else");
    }
}

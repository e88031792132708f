//! Ports of pods, as the API server forwards them: a WebSocket of the protocol `v4.channel.k8s.io` that leads to a real
//! socket; and an admin of a proxy, with canned answers.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Bytes, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

/// Sockets by `NAMESPACE/POD:PORT`.
pub(crate) type Ports = Arc<Mutex<BTreeMap<String, SocketAddr>>>;

/// Answers a request for a forwarded port; None: it is no such request.
pub(crate) fn answer(ports: &Ports, request: &mut Request<Incoming>) -> Option<Response<Full<Bytes>>> {
    let pod = request.uri().path().strip_suffix("/portforward")?.strip_prefix("/api/v1/namespaces/")?;
    let (namespace, pod) = pod.split_once("/pods/")?;
    let port: u16 = request.uri().query()?.trim_start_matches('&').strip_prefix("ports=")?.parse().ok()?;
    let respond = Response::builder();
    let Some(target) = ports.lock().unwrap().get(&format!("{namespace}/{pod}:{port}")).copied() else {
        let text = serde_json::json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404,
            "reason": "NotFound", "message": format!("pods {pod:?} not found"), "metadata": {}, "details": {}});
        let refusal = respond.status(404).header("content-type", "application/json");
        return Some(refusal.body(Full::new(Bytes::from(text.to_string()))).unwrap());
    };
    let key = derive_accept_key(request.headers().get("sec-websocket-key")?.as_bytes());
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let upgraded = TokioIo::new(upgrade.await.unwrap());
        let socket = WebSocketStream::from_raw_socket(upgraded, Role::Server, None).await;
        carry(socket, target, port).await;
    });
    let switched = respond
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-accept", key)
        .header("sec-websocket-protocol", "v4.channel.k8s.io");
    Some(switched.body(Full::default()).unwrap())
}

/// Carries bytes both ways until one end closes. Channel 0 has the bytes, channel 1 errors; each begins with its port.
async fn carry<S>(mut socket: WebSocketStream<S>, target: SocketAddr, port: u16)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let [low, high] = port.to_le_bytes();
    for channel in [0, 1] {
        let begin = Message::binary(vec![channel, low, high]);
        if socket.send(begin).await.is_err() {
            return;
        }
    }
    let Ok(mut stream) = TcpStream::connect(target).await else {
        let _sent = socket.send(Message::binary([&[1u8][..], b"connection refused"].concat())).await;
        return;
    };
    let mut buffer = vec![0; 16 * 1024];
    loop {
        tokio::select! {
            read = stream.read(&mut buffer) => {
                let Ok(length @ 1..) = read else { return };
                let message = [&[0u8][..], &buffer[..length]].concat();
                if socket.send(Message::binary(message)).await.is_err() {
                    return;
                }
            }
            message = socket.next() => {
                match message {
                    Some(Ok(Message::Binary(bytes))) if bytes.first() == Some(&0) => {
                        if stream.write_all(&bytes[1..]).await.is_err() {
                            return;
                        }
                    }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => {}
                }
            }
        }
    }
}

/// Starts an admin that answers with JSON by path.
pub(crate) async fn admin(answers: &[(&str, Value)]) -> SocketAddr {
    let answers: BTreeMap<String, String> =
        answers.iter().map(|(path, value)| ((*path).to_owned(), value.to_string())).collect();
    let answers = Arc::new(answers);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answers = Arc::clone(&answers);
            let service = service_fn(move |request: Request<Incoming>| {
                let (code, text) = match answers.get(request.uri().path()) {
                    Some(text) => (200, text.clone()),
                    None => (404, "there is no such path".to_owned()),
                };
                let response = Response::builder().status(code).body(Full::new(Bytes::from(text)));
                async move { Ok::<_, Infallible>(response.unwrap()) }
            });
            let server = hyper::server::conn::http1::Builder::new();
            tokio::spawn(async move {
                let _ended = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

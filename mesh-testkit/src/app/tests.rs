//! The applications tell the truth.

use tokio::net::TcpStream;

use super::*;
use crate::{ca::TestCa, client::Connection, net::fresh_addr, tls};

fn request(method: &str, uri: &str, body: &str) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(uri).header("x-twice", "1").header("x-twice", "2");
    request.body(Full::new(Bytes::from(body.to_owned()))).expect("a request")
}

#[tokio::test]
async fn http_apps_tell_what_they_saw() {
    let app = HttpApp::start("one", fresh_addr(0)).await;
    let mut http1 = Connection::http1(TcpStream::connect(app.address()).await.expect("connects")).await;
    let answer = http1.send(request("PUT", "/a/b?c=d", "12345")).await.expect("answers");
    let told: Value = serde_json::from_slice(answer.body()).expect("JSON");
    assert_eq!(told["version"], "HTTP/1.1");
    let mut http2 = Connection::http2(TcpStream::connect(app.address()).await.expect("connects")).await;
    let answer = http2.send(request("PUT", "http://one/a/b?c=d", "12345")).await.expect("answers");
    let told: Value = serde_json::from_slice(answer.body()).expect("JSON");
    assert_eq!(told["version"], "HTTP/2.0");
    assert_eq!(
        (&told["app"], &told["method"], &told["path"]),
        (&json!("one"), &json!("PUT"), &json!("/a/b?c=d"))
    );
    assert_eq!((&told["headers"]["x-twice"], &told["body_bytes"]), (&json!(["1", "2"]), &json!(5)));
    assert_eq!((app.requests(), app.connections(), app.seen().len()), (2, 2, 2));
}

#[tokio::test]
async fn http_apps_do_as_asked() {
    let app = HttpApp::start("one", fresh_addr(0)).await;
    let mut client = Connection::http1(TcpStream::connect(app.address()).await.expect("connects")).await;
    let busy = client.send(request("GET", "/?status=503&bytes=3&delay_ms=1", "")).await.expect("answers");
    assert_eq!((busy.status().as_u16(), busy.body().as_ref()), (503, b"xxx".as_slice()));
    let echo = client.send(request("POST", "/?echo", "hello")).await.expect("answers");
    assert_eq!(echo.body().as_ref(), b"hello");
    client.send(request("GET", "/?reset", "")).await.expect_err("breaks");
}

#[tokio::test]
async fn grpc_gets_its_messages_and_a_status() {
    let app = HttpApp::start("one", fresh_addr(0)).await;
    let mut client = Connection::http2(TcpStream::connect(app.address()).await.expect("connects")).await;
    let mut call = request("POST", "http://one/shop.Cart/Get?grpc=13", "\0\0\0\0\x01x");
    call.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let answer = client.send(call).await.expect("answers");
    assert_eq!(answer.body().as_ref(), b"\0\0\0\0\x01x");
    assert_eq!(answer.headers()["grpc-status"], "13", "trailers are among the headers");
}

#[tokio::test]
async fn upgraded_connections_echo() {
    let app = HttpApp::start("one", fresh_addr(0)).await;
    let mut stream = TcpStream::connect(app.address()).await.expect("connects");
    let head = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    stream.write_all(head).await.expect("writes");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.expect("a head"));
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
    stream.write_all(b"ping").await.expect("writes");
    let mut back = [0; 4];
    stream.read_exact(&mut back).await.expect("reads");
    assert_eq!(&back, b"ping");
}

#[tokio::test]
async fn https_apps_are_ordinary() {
    let ca = TestCa::new("cluster.local");
    let app = HttpApp::start_tls("web", fresh_addr(0), &ca.web("app.example")).await;
    let config = tls::web_client(&ca, &[b"http/1.1"]);
    let stream = tls::connect(app.address(), "app.example", config).await.expect("shakes hands");
    let answer = Connection::http1(stream).await.send(request("GET", "/", "")).await.expect("answers");
    assert_eq!((answer.status().as_u16(), app.requests()), (200, 1));
}

#[tokio::test]
async fn tcp_apps_echo_and_greet() {
    for greeting in [b"".as_slice(), b"220 hello\r\n"] {
        let app = TcpApp::speaking_first(fresh_addr(0), greeting).await;
        let mut stream = TcpStream::connect(app.address()).await.expect("connects");
        let mut first = vec![0; greeting.len()];
        stream.read_exact(&mut first).await.expect("a greeting");
        assert_eq!(first, greeting);
        stream.write_all(b"abc").await.expect("writes");
        stream.shutdown().await.expect("half closes");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.expect("reads");
        assert_eq!((rest.as_slice(), app.connections()), (b"abc".as_slice(), 1));
    }
}

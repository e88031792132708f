//! The application's probes, performed by its proxy: asked through the health port, as kubelet asks.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use mesh_proxy::{Config, Options, Proxy, config::Mode};
use mesh_testkit::{
    app::{HttpApp, TcpApp},
    ca::TestCa,
    net::{PATIENCE, eventually, fresh_addr},
    serve::Served,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::grpc_app::{Answer, GrpcApp};

/// A proxy without a controller, whose application stands at `app`; its health port.
async fn proxy(app: SocketAddr, probes: Value) -> (Proxy, SocketAddr) {
    let any = || Some(fresh_addr(0).to_string());
    let options = Options {
        outbound: any(),
        admin: any(),
        health: any(),
        trust_pin: Some(format!("sha256:{}", "00".repeat(32))),
        workers: Some(1),
        probes: Some(probes.to_string()),
        pod_ip: Some(app.ip().to_string()),
        ..Options::new("shop/cart", "127.0.0.1:1", Mode::Explicit)
    };
    let proxy = Proxy::start(Config::new(&options).unwrap()).await.unwrap();
    let health = proxy.addresses().health;
    (proxy, health)
}

/// What kubelet is answered: status and text. None: nothing at all.
async fn ask(health: SocketAddr, key: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(health).await.unwrap();
    let request = format!(
        "GET /probe/{key} HTTP/1.1\r\nhost: {health}\r\nuser-agent: kube-probe/1.34\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.trim().to_owned()))
}

fn good() -> Option<(u16, String)> {
    Some((200, "ok".to_owned()))
}

/// One probe with a handler, of an application at `address`.
async fn check(address: SocketAddr, handler: Value) -> Option<(u16, String)> {
    let mut probe = handler;
    probe["port"] = address.port().into();
    if probe.get("hook").is_none() {
        probe["timeoutSeconds"] = 2.into();
    }
    let (_proxy, health) = proxy(address, json!({ "app/readiness": probe })).await;
    ask(health, "app/readiness").await
}

async fn refused(address: SocketAddr, handler: Value, why: &str) {
    let (status, text) = check(address, handler).await.unwrap();
    assert!(status == 503 && text.contains(why), "{status} {text:?}, expected {why:?}");
}

/// A server that answers each path with a head of its own.
async fn scripted(address: SocketAddr, answers: &[(&str, &str)]) -> Served {
    let owned = |(path, head): &(&str, &str)| ((*path).to_owned(), (*head).to_owned());
    let answers: HashMap<String, String> = answers.iter().map(owned).collect();
    Served::start(address, move |mut stream, _| {
        let answers = answers.clone();
        async move {
            let mut buffer = vec![0; 4096];
            let read = stream.read(&mut buffer).await.unwrap_or_default();
            let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
            let path = text.split(' ').nth(1).unwrap_or_default();
            let head = answers.get(path).map_or("404 Not Found", String::as_str);
            let answer = format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\n\r\n");
            let _gone = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await
}

#[tokio::test]
async fn http_is_asked_exactly_as_declared() {
    let app = HttpApp::start("app", fresh_addr(0)).await;
    let headers = json!([{ "name": "Host", "value": "shop.test" }, { "name": "X-A", "value": "1" },
        { "name": "X-A", "value": "2" }, { "name": "Accept", "value": "" }]);
    let get = json!({ "httpGet": { "path": "/health z?x=1#y", "port": "web", "httpHeaders": headers } });
    assert_eq!(check(app.address(), get).await, good());
    let seen = &app.seen()[0];
    assert_eq!((seen.method.as_str(), seen.uri.to_string()), ("GET", "/health%20z?x=1".to_owned()));
    let values = |name: &str| -> Vec<String> {
        seen.headers.get_all(name).iter().map(|v| v.to_str().unwrap().to_owned()).collect()
    };
    assert_eq!(values("host"), ["shop.test"]);
    assert_eq!(values("x-a"), ["1", "2"]);
    assert_eq!(values("user-agent"), ["kube-probe/1.34"]);
    assert_eq!(values("accept"), [""; 0]);

    assert_eq!(check(app.address(), json!({ "httpGet": {} })).await, good());
    let seen = &app.seen()[1];
    assert_eq!((seen.uri.path(), &seen.headers["accept"]), ("/", &"*/*".parse().unwrap()));
    assert_eq!(seen.headers["host"], app.address().to_string());
    let get = |path: &str| json!({ "httpGet": { "path": path } });
    assert_eq!(check(app.address(), get("/?status=399")).await, good());
    refused(app.address(), get("/?status=400"), "answered with status 400").await;
    refused(app.address(), get("/?status=503"), "answered with status 503").await;
    refused(app.address(), get("/?delay_ms=10000"), "did not answer within 2s").await;
    refused(app.address(), get("/?reset"), "no answer").await;
}

#[tokio::test]
async fn a_dead_application_behind_a_living_proxy_fails() {
    let dead = fresh_addr(1);
    for handler in [json!({ "httpGet": {} }), json!({ "tcpSocket": {} }), json!({ "grpc": {} })] {
        refused(dead, handler, "cannot connect to").await;
    }
    let (_proxy, health) = proxy(dead, json!({})).await;
    assert_eq!(ask(health, "app/liveness").await.unwrap().0, 404);
}

#[tokio::test]
async fn https_is_asked_without_looking_at_the_certificate() {
    let ca = TestCa::new("elsewhere.test");
    let app = HttpApp::start_tls("app", fresh_addr(0), &ca.web("another.test")).await;
    let get = json!({ "httpGet": { "path": "/z", "scheme": "HTTPS",
        "httpHeaders": [{ "name": "Host", "value": "shop.test" }] } });
    assert_eq!(check(app.address(), get).await, good());
    let seen = &app.seen()[0];
    assert_eq!(seen.version, http::Version::HTTP_2);
    assert_eq!(seen.uri.authority().unwrap(), "shop.test");
    refused(app.address(), json!({ "httpGet": { "scheme": "HTTP" } }), "no answer").await;
    let plain = HttpApp::start("plain", fresh_addr(0)).await;
    refused(plain.address(), json!({ "httpGet": { "scheme": "HTTPS" } }), "TLS with").await;
}

#[tokio::test]
async fn redirects_are_followed_on_the_same_host_alone() {
    let other = HttpApp::start("other", fresh_addr(0)).await;
    let elsewhere = format!("302 Found\r\nlocation: http://{}/", other.address());
    let address = fresh_addr(0);
    let own = format!("302 Found\r\nlocation: http://{}:15006/", address.ip());
    let answers = [
        ("/a/relative", "302 Found\r\nlocation: end"),
        ("/a/end", "500 Broken"),
        ("/elsewhere", elsewhere.as_str()),
        ("/circle", "307 Again\r\nlocation: /circle"),
        ("/own", own.as_str()),
        ("/nowhere", "302 Found"),
        ("/garbage", "302 Found\r\nlocation: http://[/"),
    ];
    let app = scripted(address, &answers).await;
    let get = |path: &str| json!({ "httpGet": { "path": path } });
    refused(app.address(), get("/a/relative"), "status 500").await;
    assert_eq!(check(app.address(), get("/elsewhere")).await, good());
    assert_eq!(other.requests(), 0);
    refused(app.address(), get("/circle"), "more than 10 redirects").await;
    refused(app.address(), get("/own"), "the proxy's own").await;
    assert_eq!(check(app.address(), get("/nowhere")).await, good());
    refused(app.address(), get("/garbage"), "it redirects to").await;
}

/// A server that sends an answer and falls silent, or ends.
async fn sends(answer: String, ends: bool) -> Served {
    Served::start(fresh_addr(0), move |mut stream, _| {
        let answer = answer.clone();
        async move {
            let _read = stream.read(&mut [0; 4096]).await;
            let _gone = stream.write_all(answer.as_bytes()).await;
            if !ends {
                std::future::pending::<()>().await;
            }
        }
    })
    .await
}

/// As kubelet, which reads up to 10 KiB of an answer's body, and takes one that breaks off for no answer.
#[tokio::test]
async fn the_body_of_an_answer_counts_too() {
    let ok = |rest: &str| format!("HTTP/1.1 200 OK\r\n{rest}");
    let get = || json!({ "httpGet": {} });
    let long = "x".repeat(10 * 1024);
    for (answer, ends, why) in [
        (ok("content-length: 9\r\n\r\nhalf"), true, "broke off"),
        (ok("transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"), true, "broke off"),
        (ok("content-length: 9\r\n\r\nhalf"), false, "did not answer within 2s"),
        (ok("\r\nno end"), false, "did not answer within 2s"),
        (ok(&format!("content-length: 20000\r\n\r\n{}", &long[1..])), false, "did not answer within 2s"),
    ] {
        refused(sends(answer, ends).await.address(), get(), why).await;
    }
    for (answer, ends) in [
        (ok("content-length: 4\r\n\r\nwhole"), false),
        (ok("\r\nuntil the end"), true),
        (ok(&format!("content-length: 20000\r\n\r\n{long}")), false),
    ] {
        assert_eq!(check(sends(answer, ends).await.address(), get()).await, good());
    }
    // A hook is heard with the head of its answer, and lasts until the end of it.
    let hook = || json!({ "hook": true, "httpGet": {} });
    let broken = sends(ok("content-length: 9\r\n\r\nhalf"), true).await;
    assert_eq!(check(broken.address(), hook()).await, good());
    let large = sends(ok("content-length: 20000\r\n\r\nhalf"), false).await;
    assert_eq!(check(large.address(), hook()).await, good());
    let stopping = sends(ok("content-length: 9\r\n\r\nhalf"), false).await;
    let waits = timeout(Duration::from_millis(300), check(stopping.address(), hook())).await;
    assert!(waits.is_err(), "{waits:?}");
}

#[tokio::test]
async fn a_probe_under_way_outlives_a_crowd_that_asks_nothing() {
    let app = HttpApp::start("app", fresh_addr(0)).await;
    let probe = json!({ "port": app.address().port(), "timeoutSeconds": 9, "httpGet": { "path": "/?delay_ms=1500" } });
    let (_proxy, health) = proxy(app.address(), json!({ "app/readiness": probe })).await;
    let asked = tokio::spawn(ask(health, "app/readiness"));
    let reached = || async { (app.requests() == 1).then_some(()) };
    eventually(PATIENCE, "the probe is under way", reached).await;
    let mut crowd = Vec::new();
    for _ in 0..300 {
        crowd.push(TcpStream::connect(health).await.unwrap());
    }
    assert_eq!(asked.await.unwrap(), good());
}

#[tokio::test]
async fn connections_count_for_tcp() {
    let app = TcpApp::start(fresh_addr(0)).await;
    assert_eq!(check(app.address(), json!({ "tcpSocket": { "port": 1 } })).await, good());
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn grpc_servers_say_whether_they_serve() {
    let app = GrpcApp::in_order([
        Answer::Message(b"\x08\x01".as_slice().into(), "0"),
        Answer::Message(b"\x08\x02".as_slice().into(), "0"),
        Answer::Only("5"),
        Answer::Only("12"),
        Answer::Hangs,
    ])
    .await;
    let grpc = || json!({ "grpc": { "port": 1, "service": "shop" } });
    assert_eq!(check(app.address(), grpc()).await, good());
    refused(app.address(), grpc(), "\"shop\" does not serve").await;
    refused(app.address(), grpc(), "does not know service \"shop\"").await;
    refused(app.address(), grpc(), "does not implement the gRPC health protocol").await;
    refused(app.address(), grpc(), "did not answer within 2s").await;
}

#[tokio::test]
async fn a_hook_is_run_only_for_who_knows_its_whole_path() {
    let app = HttpApp::start("app", fresh_addr(0)).await;
    let hook = json!({ "port": app.address().port(), "hook": true, "httpGet": { "path": "/stop" } });
    let (nonce, other) = ("0a".repeat(16), "0b".repeat(16));
    let key = format!("{nonce}/app/pre-stop");
    let (_proxy, health) = proxy(app.address(), json!({ key.as_str(): hook })).await;
    for guess in ["app/pre-stop", "", &nonce, &format!("{other}/app/pre-stop"), &format!("{nonce}/../{key}")]
    {
        let (status, text) = ask(health, guess).await.unwrap();
        assert!(status == 404 && !text.contains(&nonce), "{guess}: {status} {text}");
    }
    assert_eq!(app.requests(), 0);
    assert_eq!(ask(health, &key).await, good());
    assert_eq!(app.requests(), 1);
}

/// kubelet takes any status for a success of a hook: one that was not heard must not get one.
#[tokio::test]
async fn a_hook_that_is_not_heard_gets_no_answer() {
    let app = HttpApp::start("app", fresh_addr(0)).await;
    let hook = |path: &str| json!({ "hook": true, "httpGet": { "path": path } });
    assert_eq!(check(app.address(), hook("/stop")).await, good());
    assert_eq!(check(app.address(), hook("/?status=500")).await, good());
    assert_eq!(check(app.address(), hook("/?reset")).await, None);
    assert_eq!(check(fresh_addr(1), hook("/stop")).await, None);
    assert_eq!(check(fresh_addr(1), json!({ "hook": true, "tcpSocket": {} })).await, None);
}

#[tokio::test]
async fn what_cannot_be_asked_fails_and_says_why() {
    let app = HttpApp::start("app", fresh_addr(0)).await;
    let at = app.address();
    refused(at, json!({ "httpGet": { "scheme": "FTP" } }), "neither HTTP nor HTTPS").await;
    let bad = json!({ "httpGet": { "httpHeaders": [{ "name": "a b", "value": "" }] } });
    refused(at, bad, "header \"a b\"").await;
    refused(at, json!({ "exec": {} }), "none of httpGet, tcpSocket and grpc").await;
    refused(SocketAddr::new(at.ip(), 15_020), json!({ "tcpSocket": {} }), "the proxy's own").await;
    assert_eq!(app.requests(), 0);
    let wrong = |probes: &str, ip: Option<&str>| {
        let options = Options {
            trust_pin: Some(format!("sha256:{}", "00".repeat(32))),
            probes: Some(probes.to_owned()),
            pod_ip: ip.map(str::to_owned),
            ..Options::new("shop/cart", "127.0.0.1:1", Mode::Explicit)
        };
        Config::new(&options).unwrap_err().to_string()
    };
    assert!(wrong("{}", None).contains("--pod-ip"));
    assert!(wrong("{}", Some("here")).contains("--pod-ip"));
    assert!(wrong("[", Some("127.0.0.1")).contains("--probes"));
    assert!(wrong("{\"a\": {\"port\": 70000}}", Some("127.0.0.1")).contains("--probes"));
}

//! Routes and TrafficPolicies from files to what callers see: they take effect, edits follow, and what is broken changes
//! nothing.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test that cannot go on ends")]

mod common;

use std::{
    fs,
    time::{Duration, Instant},
};

use common::{Mesh, Reply, Sidecar, eventually};
use http::StatusCode;
use mesh_testkit::{app::HttpApp, net::fresh_ip};

/// How long an edit may take on a machine that does other things as well.
const LONG: Duration = Duration::from_secs(30);
/// The route, as it is at first.
const ROUTE: &str = include_str!("data/traffic-route.yaml");
/// A limit that allows five requests.
const LIMIT: &str = include_str!("data/traffic-limit.yaml");

struct Stage {
    mesh: Mesh,
    client: Sidecar,
    _server: Sidecar,
    app: HttpApp,
}

impl Stage {
    async fn start(route: &str) -> Self {
        let (client_ip, server_ip) = (fresh_ip(), fresh_ip());
        let app = HttpApp::start("catalog", (server_ip, 9080).into()).await;
        let yaml = include_str!("data/pair.yaml")
            .replace("CLIENT", &client_ip.to_string())
            .replace("SERVER", &server_ip.to_string());
        let mesh = Mesh::start(fresh_ip(), &yaml).await;
        mesh.write("route.yaml", route);
        let server = mesh.proxy("test/catalog", "catalog", server_ip).await;
        let client = mesh.proxy("test/client", "client", client_ip).await;
        Self { mesh, client, _server: server, app }
    }

    async fn get(&self, path: &str) -> Reply {
        self.client.get("catalog", path).await
    }

    /// Waits until a call is answered well, with this value of the route's header.
    async fn sees(&self, value: &str) {
        let seen = async || {
            let reply = self.get("/").await;
            reply.status == StatusCode::OK && answer_header(&reply) == value
        };
        let seen = eventually(LONG, seen).await;
        assert!(seen, "not {value}: {:?}\n{}", self.get("/").await, self.controller_log());
    }

    fn controller_log(&self) -> String {
        fs::read_to_string(self.mesh.path("controller.log")).expect("the controller's log")
    }

    /// Requests that reach the application for one call that it answers with 503.
    async fn tries(&self) -> u64 {
        let before = self.app.requests();
        let reply = self.get("/flaky?status=503").await;
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
        self.app.requests() - before
    }
}

fn answer_header(reply: &Reply) -> &str {
    reply.headers.get("x-answer").and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[tokio::test]
async fn routes_in_files_become_behaviour_and_edits_follow() {
    let stage = Stage::start(ROUTE).await;
    stage.sees("one").await;
    let reply = stage.get("/").await;
    assert_eq!(reply.status, StatusCode::OK);
    assert!(reply.text().contains(r#""x-asked":["one"]"#), "the application sees it: {}", reply.text());

    let began = Instant::now();
    let slow = stage.get("/slow?delay_ms=20000").await;
    assert_eq!((slow.status, slow.reason()), (StatusCode::GATEWAY_TIMEOUT, "REQUEST_TIMEOUT"));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(stage.tries().await, 3, "the first and two more");

    let edited = ROUTE
        .replace("one", "two")
        .replace("request: 300ms", "request: 20s")
        .replace("attempts: 2", "attempts: 0");
    stage.mesh.write("route.yaml", &edited);
    stage.sees("two").await;
    assert_eq!(stage.get("/slow?delay_ms=600").await.status, StatusCode::OK);
    assert_eq!(stage.tries().await, 1);

    fs::remove_file(stage.mesh.path("source").join("route.yaml")).expect("the route's file");
    stage.sees("").await;
    assert_eq!(stage.get("/").await.status, StatusCode::OK, "a Service needs no route");
}

#[tokio::test]
async fn a_rate_limit_in_a_file_holds_until_it_is_taken_away() {
    let stage = Stage::start(ROUTE).await;
    stage.sees("one").await;
    stage.mesh.write("limit.yaml", LIMIT);
    let limited = async || stage.get("/").await.status == StatusCode::TOO_MANY_REQUESTS;
    assert!(eventually(LONG, limited).await, "{}", stage.controller_log());
    let reply = stage.get("/").await;
    assert_eq!((reply.status, reply.reason()), (StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED"));
    assert!(reply.headers.contains_key("retry-after"), "{reply:?}");
    let before = stage.app.requests();
    stage.get("/").await;
    assert_eq!(stage.app.requests(), before, "what is limited does not reach the application");

    fs::remove_file(stage.mesh.path("source").join("limit.yaml")).expect("the limit's file");
    let free = async || stage.get("/").await.status == StatusCode::OK;
    assert!(eventually(LONG, free).await, "the limit stays");
}

#[tokio::test]
async fn a_broken_edit_keeps_the_last_good_route_and_the_rest_of_the_file_applies() {
    let stage = Stage::start(ROUTE).await;
    stage.sees("one").await;
    // One object is broken, the other one in the file is new and good: when it holds, the file was read.
    let broken = ROUTE.replace("one", "broken").replace("request: 300ms", "request: soon");
    stage.mesh.write("route.yaml", &format!("{broken}---\n{LIMIT}"));
    let limited = async || stage.get("/").await.status == StatusCode::TOO_MANY_REQUESTS;
    assert!(eventually(LONG, limited).await, "{}", stage.controller_log());
    let log = stage.controller_log();
    for told in ["route.yaml", "timeouts.request", "soon"] {
        assert!(log.contains(told), "`{told}` is not told:\n{log}");
    }
    // What is limited here was routed before: the last good route still answers slow calls.
    let again = ROUTE.replace("request: 300ms", "request: soon");
    stage.mesh.write("route.yaml", &again);
    stage.sees("one").await;
    assert_eq!(stage.get("/slow?delay_ms=20000").await.reason(), "REQUEST_TIMEOUT");
    assert_eq!(stage.tries().await, 3);

    // A file that is no YAML at all keeps all that it said.
    stage.mesh.write("route.yaml", "rules: [{");
    let told = async || stage.controller_log().contains("no YAML");
    assert!(eventually(LONG, told).await, "{}", stage.controller_log());
    assert_eq!(answer_header(&stage.get("/").await), "one");
    assert_eq!(stage.tries().await, 3);

    stage.mesh.write("route.yaml", &ROUTE.replace("one", "mended"));
    stage.sees("mended").await;
}

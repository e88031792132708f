//! Authorisation per request, balancing and routing as they show on the wire.

use http::{Method, StatusCode};
use mesh_core::{
    config::Destination,
    matching::{PathMatch, RequestMatch},
    name::{ObjectRef, ServicePort},
    policy::{Action, DefaultAction, Rule, Scope, Source, TlsMode},
    protocol::Protocol,
    reason::Reason,
};
use mesh_testkit::{
    app::HttpApp,
    client::Connection,
    net::{PATIENCE, eventually, fresh_addr},
};
use tokio::net::TcpStream;

use crate::mesh::{Mesh, Pair, endpoint, reason, route_to, serves};

/// Only `GET /public…` is allowed.
fn reads_of_public(source: Source) -> Rule {
    Rule {
        object: ObjectRef::new("TrafficTarget", "shop", "readers"),
        action: Action::Allow,
        sources: vec![source],
        ports: Vec::new(),
        scope: Scope::Http(vec![RequestMatch {
            path: Some(PathMatch::Prefix("/public".to_owned())),
            methods: vec![Method::GET],
            ..RequestMatch::default()
        }]),
    }
}

#[tokio::test]
async fn each_request_is_decided_and_a_change_holds_for_the_next() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::with(
        Protocol::Http1,
        app.address(),
        |_| (),
        |client, server| {
            server.policy.default_action = DefaultAction::Deny;
            server.policy.rules.push(reads_of_public(Source::Identity(client.identity.clone())));
        },
    )
    .await;
    let mut connection = pair.client.http1().await;
    assert_eq!(connection.get("/public/a", "catalog").await.unwrap().status(), StatusCode::OK);
    let denied = connection.get("/private", "catalog").await.unwrap();
    assert_eq!((denied.status(), reason(&denied)), (StatusCode::FORBIDDEN, Some(Reason::AuthzDenied)));
    // What policy sees is what is forwarded.
    let sneaky = connection.get("/public/../private", "catalog").await.unwrap();
    assert_eq!(reason(&sneaky), Some(Reason::AuthzDenied));
    let ambiguous = connection.get("/public/..%2fprivate", "catalog").await.unwrap();
    assert_eq!(
        (ambiguous.status(), reason(&ambiguous)),
        (StatusCode::BAD_REQUEST, Some(Reason::PathAmbiguous))
    );
    assert_eq!(connection.get("/x/../public//b?c=1", "catalog").await.unwrap().status(), StatusCode::OK);
    assert_eq!(app.seen()[1].uri, "/public/b?c=1");
    pair.server.counted(&["rule=\"TrafficTarget shop/readers\"", "status=\"2xx\""], 2).await;
    pair.server.counted(&["reason=\"AUTHZ_DENIED\""], 2).await;
    pair.client.counted(&["reason=\"AUTHZ_DENIED\""], 2).await;

    let mut config = pair.server.config.clone();
    config.policy.rules.clear();
    pair.mesh.publish(&config);
    let denied = || async {
        let response = pair.client.http1().await.get("/public/a", "catalog").await.unwrap();
        (reason(&response) == Some(Reason::AuthzDenied)).then_some(())
    };
    eventually(PATIENCE, "the new policy holds", denied).await;
    assert_eq!(reason(&connection.get("/public/a", "catalog").await.unwrap()), Some(Reason::AuthzDenied));
}

#[tokio::test]
async fn strangers_are_let_in_by_mode_and_told_nothing() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http1, app.address(), |_| ()).await;
    let plain = || async {
        let stream = TcpStream::connect((pair.server.ip(), 8080)).await.unwrap();
        let request = http::Request::builder()
            .uri("/")
            .header("mesh-client-id", "spiffe://cluster.local/ns/shop/sa/client")
            .body(http_body_util::Full::default())
            .unwrap();
        Connection::http1(stream).await.send(request).await.unwrap()
    };
    assert_eq!(plain().await.status(), StatusCode::OK);
    assert!(!app.seen()[0].headers.contains_key("mesh-client-id"), "a forgery");
    pair.server.counted(&["secured=\"false\"", "source=\"\""], 1).await;

    let mut config = pair.server.config.clone();
    config.policy.tls_mode = TlsMode::Strict;
    pair.mesh.publish(&config);
    let refused = || async {
        let response = plain().await;
        (response.status() == StatusCode::FORBIDDEN).then_some(response)
    };
    let response = eventually(PATIENCE, "strict mode holds", refused).await;
    assert_eq!((reason(&response), response.body().as_ref()), (None, &b"Forbidden\n"[..]));
    assert_eq!(pair.client.http1().await.get("/", "catalog").await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn weights_split_and_endpoints_share() {
    let mesh = Mesh::start().await;
    let root = ServicePort::new("shop", "catalog", 8080);
    let versions =
        [ServicePort::new("shop", "catalog-v1", 8080), ServicePort::new("shop", "catalog-v2", 8080)];
    let (mut apps, mut sides) = (Vec::new(), Vec::new());
    for (at, service) in [(0, &versions[0]), (1, &versions[1]), (2, &versions[1])] {
        let app = HttpApp::start(&service.name, fresh_addr(0)).await;
        let mut config = mesh.workload(&format!("catalog-{at}"));
        serves(&mut config, 8080, Protocol::Http1, app.address(), service);
        sides.push(mesh.proxy(config, |_| ()).await);
        apps.push(app);
    }
    let of = |at: usize| endpoint(&sides[at].config, 8080, Protocol::Http1);
    mesh.endpoints(&versions[0], &[of(0)]);
    mesh.endpoints(&versions[1], &[of(1), of(2)]);
    let split = |one, two| {
        let backends = [(&versions[0], one), (&versions[1], two)];
        mesh.controller
            .set_host("catalog", Destination::Service(route_to(&root, Protocol::Http1, &backends)));
    };
    split(90, 10);
    let client = mesh.proxy(mesh.workload("client"), |_| ()).await;
    let mut connection = client.http1().await;
    let total = 1000;
    for _ in 0..total {
        assert_eq!(connection.get("/", "catalog").await.unwrap().status(), StatusCode::OK);
    }
    let second = apps[1].requests() + apps[2].requests();
    // 5 standard deviations of a binomial distribution: sqrt(1000 * 0.1 * 0.9) = 9.5.
    assert!((53..=147).contains(&second), "{second} of {total} went to the second version");
    assert!(apps[1].requests() > 0 && apps[2].requests() > 0, "both endpoints of the second version serve");
    client.counted(&["backend=\"shop/catalog-v2:8080\""], second).await;
    split(0, 1);
    let moved = || async {
        let before = apps[0].requests();
        connection_get(&client).await;
        (apps[0].requests() == before).then_some(())
    };
    eventually(PATIENCE, "the new split holds", moved).await;
    let before = apps[0].requests();
    for _ in 0..50 {
        connection_get(&client).await;
    }
    assert_eq!(apps[0].requests(), before);
}

/// Errors are quickly made; they must not look like quick answers.
#[tokio::test]
async fn an_endpoint_that_fails_attracts_no_traffic() {
    let mesh = Mesh::start().await;
    let service = ServicePort::new("shop", "catalog", 8080);
    let (mut apps, mut endpoints, mut sides) = (Vec::new(), Vec::new(), Vec::new());
    for at in 0..2 {
        let app = HttpApp::start("catalog", fresh_addr(0)).await;
        let mut config = mesh.workload(&format!("catalog-{at}"));
        serves(&mut config, 8080, Protocol::Http1, app.address(), &service);
        endpoints.push(endpoint(&config, 8080, Protocol::Http1));
        sides.push(mesh.proxy(config, |_| ()).await);
        apps.push(app);
    }
    mesh.service(&service, Protocol::Http1, &endpoints);
    apps.remove(0).stop().await;
    let client = mesh.proxy(mesh.workload("client"), |_| ()).await;
    let mut connection = client.http1().await;
    let mut failed = 0;
    for _ in 0..50 {
        let response = connection.get("/?delay_ms=5", "catalog").await.unwrap();
        match reason(&response) {
            None => assert_eq!(response.status(), StatusCode::OK),
            other => {
                assert_eq!(other, Some(Reason::AppUnavailable));
                failed += 1;
            }
        }
    }
    assert!(failed <= 3, "{failed} of 50 went to the endpoint without an application");
}

async fn connection_get(client: &crate::mesh::Side) {
    assert_eq!(client.http1().await.get("/", "catalog").await.unwrap().status(), StatusCode::OK);
}

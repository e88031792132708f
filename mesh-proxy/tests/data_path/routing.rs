//! What routes do to requests and responses, through both proxies.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use mesh_core::{
    config::Destination,
    filter::{Cors, Filter, HeaderChanges, Mirror, PathChange, Redirect, Respond},
    matching::{PathMatch, RequestMatch, ValueMatch},
    name::{ObjectRef, ServicePort},
    protocol::Protocol,
    route::{Backend, RouteRule, ServiceRoutes},
    settings::Share,
};
use mesh_testkit::{
    app::{HttpApp, Seen},
    net::{PATIENCE, eventually, fresh_addr, until},
};

use crate::mesh::{Mesh, Pair, Side, endpoint, reason, serves};

fn name(text: &str) -> HeaderName {
    text.parse().unwrap()
}

fn fields(fields: &[(&str, &str)]) -> Vec<(HeaderName, HeaderValue)> {
    fields.iter().map(|(n, v)| (name(n), v.parse().unwrap())).collect()
}

fn under(prefix: &str) -> Vec<RequestMatch> {
    vec![RequestMatch { path: Some(PathMatch::Prefix(prefix.into())), ..RequestMatch::default() }]
}

fn rule(service: &ServicePort, matches: Vec<RequestMatch>, filters: Vec<Filter>) -> RouteRule {
    let object = ObjectRef::new("HTTPRoute", "shop", "test");
    let backends = vec![Backend::new(service.clone(), 1)];
    RouteRule { matches, filters, ..RouteRule::new(object, backends) }
}

fn get(host: &str, path: &str, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut request = Request::builder().uri(path).header("host", host).body(Full::default()).unwrap();
    request.headers_mut().extend(fields(headers));
    request
}

/// One case: a rule, a request, and what the application saw (None: nothing) and the caller got.
struct Case {
    what: &'static str,
    rule: RouteRule,
    request: Request<Full<Bytes>>,
    check: fn(Option<&Seen>, &Response<Bytes>),
}

fn header(seen: Option<&Seen>, field: &str) -> Vec<String> {
    let all = seen.unwrap().headers.get_all(field);
    all.iter().map(|value| value.to_str().unwrap().to_owned()).collect()
}

fn of<'a>(response: &'a Response<Bytes>, field: &str) -> Option<&'a str> {
    response.headers().get(field).map(|value| value.to_str().unwrap())
}

fn cases(service: &ServicePort) -> Vec<Case> {
    let one = |filter| vec![filter];
    let changes = |set: &[(&str, &str)], add: &[(&str, &str)], remove: &[&str]| HeaderChanges {
        set: fields(set),
        add: fields(add),
        remove: remove.iter().map(|field| name(field)).collect(),
    };
    let case = |what, matches, filters, request, check| Case {
        what,
        rule: rule(service, matches, filters),
        request,
        check,
    };
    let rewrite = |path| Filter::Rewrite { host: None, path: Some(path) };
    vec![
        case(
            "request fields",
            Vec::new(),
            one(Filter::RequestHeaders(changes(&[("x-set", "1")], &[("x-more", "2")], &["x-gone"]))),
            get("HOST", "/", &[("x-set", "0"), ("x-more", "1"), ("x-gone", "1")]),
            |seen, _| {
                assert_eq!(header(seen, "x-set"), ["1"]);
                assert_eq!(header(seen, "x-more"), ["1", "2"]);
                assert!(header(seen, "x-gone").is_empty());
            },
        ),
        case(
            "response fields",
            Vec::new(),
            one(Filter::ResponseHeaders(changes(&[("x-set", "1")], &[], &["content-type"]))),
            get("HOST", "/", &[]),
            |_, response| {
                assert_eq!((of(response, "x-set"), of(response, "content-type")), (Some("1"), None));
            },
        ),
        case(
            "a prefix is replaced, the query stays",
            under("/old"),
            one(rewrite(PathChange::Prefix("/new".into()))),
            get("HOST", "/old/item?a=1", &[]),
            |seen, _| assert_eq!(seen.unwrap().uri, "/new/item?a=1"),
        ),
        case(
            "the whole path is replaced",
            under("/old"),
            one(rewrite(PathChange::Full("/all".into()))),
            get("HOST", "/old/item?a=1", &[]),
            |seen, _| assert_eq!(seen.unwrap().uri, "/all?a=1"),
        ),
        case(
            "the host is replaced",
            Vec::new(),
            one(Filter::Rewrite { host: Some("other.example".into()), path: None }),
            get("HOST", "/", &[]),
            |seen, _| assert_eq!(header(seen, "host"), ["other.example"]),
        ),
    ]
}

fn answering_cases(service: &ServicePort) -> Vec<Case> {
    let one = |filter| vec![filter];
    let case = |what, matches, filters, request, check| Case {
        what,
        rule: rule(service, matches, filters),
        request,
        check,
    };
    let redirect = |path| Redirect { scheme: None, host: None, port: None, path, status: StatusCode::FOUND };
    vec![
        case(
            "a redirect",
            under("/old"),
            one(Filter::Redirect(redirect(Some(PathChange::Prefix("/new".into()))))),
            get("HOST", "/old/item?a=1", &[]),
            |seen, response| {
                assert!(seen.is_none() && reason(response).is_none());
                assert_eq!(response.status(), StatusCode::FOUND);
                let location = of(response, "location").unwrap();
                assert!(location.starts_with("http://case-") && location.ends_with("/new/item?a=1"));
            },
        ),
        case(
            "a redirect to another place",
            Vec::new(),
            one(Filter::Redirect(Redirect {
                scheme: Some("https".into()),
                host: Some("shop.example".into()),
                status: StatusCode::MOVED_PERMANENTLY,
                ..redirect(None)
            })),
            get("HOST", "/a", &[]),
            |_, response| {
                assert_eq!(response.status(), StatusCode::MOVED_PERMANENTLY);
                assert_eq!(of(response, "location"), Some("https://shop.example/a"));
            },
        ),
        case(
            "a direct response",
            Vec::new(),
            one(Filter::Respond(Respond {
                status: StatusCode::IM_A_TEAPOT,
                body: "short and stout".into(),
                content_type: None,
            })),
            get("HOST", "/", &[]),
            |seen, response| {
                assert!(seen.is_none() && reason(response).is_none());
                assert_eq!(
                    (response.status(), response.body().as_ref()),
                    (StatusCode::IM_A_TEAPOT, &b"short and stout"[..])
                );
            },
        ),
    ]
}

fn cors_cases(service: &ServicePort) -> Vec<Case> {
    let cors = Cors {
        origins: vec!["https://*.shop.example".into()],
        credentials: true,
        methods: vec![Method::PUT],
        expose: vec![name("x-total")],
        ..Cors::default()
    };
    let case = |what, request, check| Case {
        what,
        rule: rule(service, Vec::new(), vec![Filter::Cors(cors.clone())]),
        request,
        check,
    };
    let preflight = |origin: &str| {
        let asked = [("origin", origin), ("access-control-request-method", "PUT")];
        let mut request = get("HOST", "/", &asked);
        *request.method_mut() = Method::OPTIONS;
        request
    };
    vec![
        case("a preflight", preflight("https://a.shop.example"), |seen, response| {
            assert!(seen.is_none());
            assert!(response.status().is_success());
            assert_eq!(of(response, "access-control-allow-origin"), Some("https://a.shop.example"));
            assert_eq!(of(response, "access-control-allow-methods"), Some("PUT"));
        }),
        case("a preflight from elsewhere", preflight("https://evil.example"), |seen, response| {
            assert!(seen.is_none());
            assert_eq!(of(response, "access-control-allow-origin"), None);
        }),
        case(
            "the actual request",
            get("HOST", "/", &[("origin", "https://a.shop.example")]),
            |seen, response| {
                assert!(seen.is_some());
                assert_eq!(of(response, "access-control-allow-origin"), Some("https://a.shop.example"));
                assert_eq!(of(response, "access-control-allow-credentials"), Some("true"));
                assert_eq!(of(response, "access-control-expose-headers"), Some("x-total"));
            },
        ),
        case(
            "an actual request from elsewhere",
            get("HOST", "/", &[("origin", "https://evil.example")]),
            |seen, response| {
                assert!(seen.is_some());
                assert_eq!(of(response, "access-control-allow-origin"), None);
            },
        ),
    ]
}

#[tokio::test]
async fn filters_do_what_routes_say() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http1, app.address(), |_| ()).await;
    let mut all = cases(&pair.service);
    all.extend(answering_cases(&pair.service));
    all.extend(cors_cases(&pair.service));
    for (at, Case { what, rule, mut request, check }) in all.into_iter().enumerate() {
        let host = format!("case-{at}");
        let service = ServicePort::new("shop", &host, 8080);
        let routes = ServiceRoutes::new(service, Protocol::Http1, vec![rule]);
        pair.mesh.controller.set_host(&host, Destination::Service(routes));
        request.headers_mut().insert("host", host.parse().unwrap());
        let before = app.seen().len();
        let response = pair.client.http1().await.send(request).await.unwrap();
        println!("{what}: {response:?}");
        let seen = app.seen();
        check(seen.get(before), &response);
    }
}

#[tokio::test]
async fn filters_of_a_backend_are_for_its_calls_alone() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http2, app.address(), |_| ()).await;
    let mut split = rule(&pair.service, Vec::new(), Vec::new());
    let mark = |mark| HeaderChanges { set: fields(&[("x-backend", mark)]), ..HeaderChanges::default() };
    for side in ["a", "b"] {
        let mut backend = Backend::new(pair.service.clone(), 1);
        backend.filters = vec![Filter::RequestHeaders(mark(side)), Filter::ResponseHeaders(mark(side))];
        split.backends.push(backend);
    }
    split.backends.remove(0);
    let routes = ServiceRoutes::new(pair.service.clone(), Protocol::Http2, vec![split]);
    pair.mesh.controller.set_host("catalog", Destination::Service(routes));
    let mut connection = pair.client.http2().await;
    for _ in 0..30 {
        let response = connection.get("/", "catalog").await.unwrap();
        let seen = app.seen();
        assert_eq!(response.headers()["x-backend"], seen.last().unwrap().headers["x-backend"]);
    }
    let seen = app.seen();
    for side in ["a", "b"] {
        assert!(seen.iter().any(|seen| seen.headers["x-backend"] == side), "{side}");
    }
}

#[tokio::test]
async fn rules_match_hosts_queries_and_methods() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http1, app.address(), |_| ()).await;
    let exact = |text: &str| ValueMatch::Exact(text.into());
    let any = RequestMatch::default;
    let conditions = [
        ("host", RequestMatch { hosts: vec![exact("by-host")], ..any() }),
        ("query", RequestMatch { query: vec![("kind".into(), exact("big"))], ..any() }),
        ("method", RequestMatch { methods: vec![Method::DELETE], ..any() }),
        ("rest", any()),
    ];
    let rules = conditions.into_iter().map(|(mark, condition)| {
        let set = fields(&[("x-rule", mark)]);
        let filter = Filter::RequestHeaders(HeaderChanges { set, ..HeaderChanges::default() });
        rule(&pair.service, vec![condition], vec![filter])
    });
    let routes = ServiceRoutes::new(pair.service.clone(), Protocol::Http1, rules.collect());
    for host in ["catalog", "by-host"] {
        pair.mesh.controller.set_host(host, Destination::Service(routes.clone()));
    }
    for (method, host, path, expected) in [
        (Method::GET, "by-host", "/", "host"),
        (Method::GET, "BY-HOST", "/", "host"),
        (Method::GET, "catalog", "/?kind=big", "query"),
        (Method::GET, "catalog", "/?kind=small&kind=big", "rest"),
        (Method::DELETE, "catalog", "/", "method"),
        (Method::GET, "catalog", "/", "rest"),
    ] {
        let mut request = get(host, path, &[]);
        *request.method_mut() = method;
        pair.client.http1().await.send(request).await.unwrap();
        let seen = app.seen();
        assert_eq!(seen.last().unwrap().headers["x-rule"], expected, "{host} {path}");
    }
}

/// A second Service, for copies.
async fn shadow(mesh: &Mesh, app: &HttpApp) -> (Side, ServicePort) {
    let service = ServicePort::new("shop", "shadow", 8080);
    let mut config = mesh.workload("shadow");
    serves(&mut config, 8080, Protocol::Http1, app.address(), &service);
    mesh.endpoints(&service, &[endpoint(&config, 8080, Protocol::Http1)]);
    (mesh.proxy(config, |_| ()).await, service)
}

#[tokio::test]
async fn copies_go_elsewhere_and_nobody_waits_for_them() {
    let (app, copy) =
        (HttpApp::start("catalog", fresh_addr(0)).await, HttpApp::start("shadow", fresh_addr(0)).await);
    let pair = Pair::start(Protocol::Http1, app.address(), |_| ()).await;
    let (shadow, service) = shadow(&pair.mesh, &copy).await;
    let mirror = |share| vec![Filter::Mirror(Mirror { service: service.clone(), share, settings: None })];
    for (host, share) in [("all", Share::ALL), ("none", Share::default())] {
        let rule = rule(&pair.service, Vec::new(), mirror(share));
        let routes = ServiceRoutes::new(pair.service.clone(), Protocol::Http1, vec![rule]);
        pair.mesh.controller.set_host(host, Destination::Service(routes));
    }
    let send = async |host: &str, path: &str, size: usize| {
        let mut request = get(host, path, &[]).map(|_| Full::from(vec![b'x'; size]));
        *request.method_mut() = Method::POST;
        let response = pair.client.http1().await.send(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response
    };
    send("all", "/a?delay_ms=100", 0).await;
    send("all", "/b", 30_000).await;
    send("none", "/c", 10).await;
    until("two copies", || copy.requests() == 2).await;
    let seen = copy.seen();
    let b = seen.iter().find(|seen| seen.uri == "/b").unwrap();
    assert_eq!((b.method.clone(), b.headers["content-length"].as_bytes()), (Method::POST, &b"30000"[..]));
    assert!(!b.headers.contains_key("mesh-reason"));
    // Too large: the request goes on, the copy does not.
    let large = send("all", "/d?echo", 1 << 20).await;
    assert_eq!(large.body().len(), 1 << 20);
    let metric = async |result: &str| {
        pair.client.metric("mesh_mirrored_total", &[&format!("result=\"{result}\"")]).await
    };
    let counted = || async { (metric("sent").await == 2 && metric("dropped").await == 1).then_some(()) };
    eventually(PATIENCE, "two sent, one dropped", counted).await;
    // Where the copies go, nobody answers: callers do not notice.
    shadow.proxy.shutdown().await;
    send("all", "/e", 10).await;
    let counted = || async { (metric("dropped").await == 2).then_some(()) };
    eventually(PATIENCE, "another one dropped", counted).await;
    assert_eq!((app.requests(), copy.requests()), (5, 2));
}

#[tokio::test]
async fn grpc_callers_get_direct_answers_as_theirs() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Grpc, app.address(), |_| ()).await;
    let respond = Respond {
        status: StatusCode::SERVICE_UNAVAILABLE,
        body: Arc::from("closed today"),
        content_type: None,
    };
    let rule = rule(&pair.service, Vec::new(), vec![Filter::Respond(respond)]);
    let routes = ServiceRoutes::new(pair.service.clone(), Protocol::Grpc, vec![rule]);
    pair.mesh.controller.set_host("catalog", Destination::Service(routes));
    let request = Request::builder()
        .method(Method::POST)
        .uri("http://catalog/svc/Method")
        .header("content-type", "application/grpc");
    let response = pair.client.http2().await.send(request.body(Full::default()).unwrap()).await.unwrap();
    assert_eq!((response.status(), of(&response, "grpc-status")), (StatusCode::OK, Some("14")));
    assert_eq!(of(&response, "grpc-message"), Some("closed today"));
    assert_eq!(app.requests(), 0);
}

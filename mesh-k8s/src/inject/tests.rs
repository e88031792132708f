//! Pods that get a proxy, that stay as they are, and that are refused.

mod again;
mod properties;
mod quiet;
mod shapes;

use serde_json::{Value, json};

use super::*;

const SERVER: Option<Server> = Some(Server { major: 1, minor: 34 });
const OLD: Option<Server> = Some(Server { major: 1, minor: 28 });

fn nonce() -> Nonce {
    Nonce::new([0xa1; Nonce::LEN])
}

/// As [`super::inject`], with a nonce that is known.
fn inject(pod: &Value, config: &Config, server: Option<Server>) -> Outcome {
    super::inject(pod, config, server, &nonce())
}

/// A pod with this spec and these annotations.
fn pod(annotations: Value, spec: Value) -> Value {
    let mut pod = json!({ "metadata": { "name": "cart" } });
    (pod["metadata"]["annotations"], pod["spec"]) = (annotations, spec);
    pod
}

fn app() -> Value {
    json!({ "name": "app", "image": "app:1" })
}

fn plain() -> Value {
    pod(json!({ "a": "b" }), json!({ "containers": [app()] }))
}

#[track_caller]
fn injected(pod: &Value, config: &Config, server: Option<Server>) -> Value {
    match inject(pod, config, server) {
        Outcome::Injected(new) => new,
        other => panic!("{other:?}"),
    }
}

/// The mesh's defaults, changed.
fn config(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::default();
    change(&mut config);
    config
}

#[track_caller]
fn check_refused(pod: &Value, expected: &[&str]) {
    let Outcome::Refused(refusals) = inject(pod, &Config::default(), SERVER) else {
        panic!("not refused: {pod}");
    };
    let found: Vec<String> = refusals.iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found:?} does not begin with {expected:?}");
    }
}

#[test]
fn what_cannot_go_together_with_a_proxy_is_refused_all_at_once() {
    let spec = json!({
        "securityContext": { "runAsUser": 1337 },
        "initContainers": [{ "name": "mesh-init", "securityContext": { "runAsUser": 1337 } }],
        "containers": [
            { "name": "app", "ports": [{ "containerPort": 80 }, { "containerPort": 15006 }] },
            { "name": "mesh-proxy", "readinessProbe": { "httpGet": { "port": "web" } } },
            { "name": "b", "livenessProbe": { "tcpSocket": { "port": 15020 } } },
        ],
        "volumes": [{ "name": "mesh-token" }],
    });
    check_refused(
        &pod(json!({}), spec),
        &[
            "spec.securityContext.runAsUser: 1337 is the proxy's user",
            "spec.initContainers[0].name: the name mesh-init is the mesh's",
            "spec.initContainers[0].securityContext.runAsUser: 1337",
            "spec.containers[0].ports[1].containerPort: the proxy listens on port 15006",
            "spec.containers[1].name: the name mesh-proxy is the mesh's",
            "spec.volumes[0].name: the name mesh-token is the mesh's",
            "spec.containers[1].readinessProbe.httpGet.port: no port of this container is called \"web\"",
            "spec.containers[2].livenessProbe.tcpSocket.port: port 15020 is the proxy's own",
        ],
    );
}

#[test]
fn wrong_options_are_refused_with_the_annotation() {
    let check = |name: &str, value: &str, expected: &str| {
        let key = format!("meshctl.dev/{name}");
        let expected = format!("metadata.annotations[{key}]: {expected}");
        check_refused(&pod(json!({ key: value }), json!({ "containers": [app()] })), &[&expected]);
    };
    check("skip-outbound-ports", "80,http", "\"http\": expected a port");
    check("skip-inbound-ports", "0", "\"0\": expected a port");
    check("skip-outbound-cidrs", "10.0.0.1/8", "\"10.0.0.1/8\": 10.0.0.1 has bits behind");
    check("skip-uids", "1337", "\"1337\": it is the proxy's own user");
    check("skip-uids", "root", "\"root\": expected the number");
    check("opaque-ports", "1-1000", "more than 256 ports");
    check("log-level", "loud", "\"loud\" is not known; write error");
    check("proxy-cpu-request", "1 cpu", "\"1 cpu\" is not known; write an amount");
    check("native-sidecar", "yes", "\"yes\" is not known; write true or false");
    check("skip-inbound-port", "1", "the option is unknown; did you mean \"meshctl.dev/skip-inbound-ports\"");
    check("default-policy", "deny", "it has no effect on a pod");
    check("mtls", "stict", "\"stict\" is not known; did you mean \"strict\"?");
    check("mtls", "on", "\"on\" is not known; write permissive or strict");
    check("inject", "true", "\"true\" is not known; write enabled or disabled");
    check("injected", "0.1.0", "it says that there is a proxy");
    let many = vec!["1"; 101].join(",");
    check("skip-outbound-ports", &many, "it has 101 values");
    let both = json!({ "meshctl.dev/proxy-cpu-request": "2", "meshctl.dev/proxy-cpu-limit": "100m" });
    check_refused(
        &pod(both, json!({ "containers": [app()] })),
        &["metadata.annotations[meshctl.dev/proxy-cpu-request]: the proxy is to be given more CPU (2)"],
    );
    let label = json!({ "metadata": { "labels": { "meshctl.dev/log-level": "info" } }, "spec": { "containers": [app()] } });
    check_refused(&label, &["metadata.labels[meshctl.dev/log-level]: it is an annotation"]);
}

#[test]
fn label_and_annotation_must_agree_on_mtls() {
    let pod = |label: &str, annotation: &str| {
        let metadata = json!({ "labels": { "meshctl.dev/mtls": label }, "annotations": { "meshctl.dev/mtls": annotation } });
        json!({ "metadata": metadata, "spec": { "containers": [app()] } })
    };
    injected(&pod("strict", "strict"), &Config::default(), SERVER);
    let differ =
        "metadata.annotations[meshctl.dev/mtls]: it says \"permissive\", and the label says \"strict\"";
    check_refused(&pod("strict", "permissive"), &[differ]);
    // Told once, where it is wrong.
    check_refused(
        &pod(" strict", "strict"),
        &["metadata.labels[meshctl.dev/mtls]: \" strict\" is not known"],
    );
}

#[test]
fn what_is_no_pod_is_refused() {
    let check = |pod: Value, expected: &str| check_refused(&pod, &[expected]);
    check(json!(null), "spec: ");
    check(json!({ "spec": [] }), "spec: ");
    check(json!({ "spec": {} }), "spec.containers: expected a list");
    check(json!({ "spec": { "containers": [] } }), "spec.containers: ");
    check(json!({ "spec": { "containers": ["a"] } }), "spec.containers: ");
    check(json!({ "metadata": 1, "spec": { "containers": [app()] } }), "metadata: ");
    check(
        json!({ "metadata": { "labels": { "a": 1 } }, "spec": { "containers": [app()] } }),
        "metadata.labels: expected texts",
    );
    check(json!({ "spec": { "containers": [app()], "volumes": {} } }), "spec.volumes: ");
}

#[test]
fn some_pods_stay_as_they_are() {
    let check = |pod: &Value, expected: Skip| {
        assert_eq!(inject(pod, &Config::default(), SERVER), Outcome::Skipped(expected), "{pod}");
    };
    let spec = json!({ "containers": [app()] });
    check(&pod(json!({ "meshctl.dev/inject": "disabled" }), spec.clone()), Skip::Disabled);
    let label = json!({ "labels": { "meshctl.dev/inject": "disabled" } });
    check(&json!({ "metadata": label, "spec": spec }), Skip::Disabled);
    let of_host =
        json!({ "containers": [app()], "hostNetwork": true, "securityContext": { "runAsUser": 1337 } });
    check(&pod(json!({}), of_host), Skip::HostNetwork);
    check(&pod(json!({}), json!({ "containers": [app()], "os": { "name": "windows" } })), Skip::Windows);
    check(&injected(&plain(), &Config::default(), SERVER), Skip::AlreadyInjected);
    assert_eq!(uninject(&plain()), None);
}

#[test]
fn versions_of_servers() {
    let parse = |major, minor| Server::parse(major, minor);
    assert_eq!(parse("1", "29+"), Some(Server { major: 1, minor: 29 }));
    assert_eq!(parse("1", ""), None);
    assert!(parse("1", "29").is_some_and(Server::has_native_sidecars));
    assert!(parse("2", "0").is_some_and(Server::has_native_sidecars));
    assert!(!parse("1", "28").is_some_and(Server::has_native_sidecars));
}

#[test]
fn configurations() {
    let yaml = "proxyImage: a/b:1\nresources:\n  requests: {cpu: 1, memory: 32Mi}\nnativeSidecars: false\n\
                skipOutboundPorts: [22, 8000-8010]\nskipInboundPorts: \"1,2\"\nskipOutboundCidrs: [10.0.0.0/8]\ncni: true\n";
    let config = Config::from_yaml(yaml).unwrap();
    assert_eq!((config.proxy_image.as_str(), config.native_sidecars), ("a/b:1", Native::Never));
    assert_eq!(config.resources.requests.cpu.as_deref(), Some("1"));
    assert_eq!((config.skip_outbound_ports.len(), config.skip_inbound_ports.len()), (2, 2));
    assert_eq!(Config::from_yaml("").unwrap(), Config::default());
    let refused = |yaml: &str, expected: &str| {
        let error = Config::from_yaml(yaml).unwrap_err().to_string();
        assert!(error.contains(expected), "{yaml}: {error}");
    };
    refused("proxyImages: a", "proxyImages");
    refused("logLevel: loud", "logLevel: \"loud\" is not error");
    refused("nativeSidecars: maybe", "maybe");
    refused("skipOutboundPorts: [0]", "expected a port");
    refused("controller: nowhere", "controller: \"nowhere\" is not HOST:PORT");
    refused("resources: {limits: {cpu: much}}", "resources.limits.cpu: \"much\"");
    refused("imagePullPolicy: Sometimes", "imagePullPolicy");
    refused("- a", "");
}

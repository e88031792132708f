//! YAML in, what proxies are told out.

mod addresses;
mod closed;
mod destination;
mod external;
mod policy;
mod routes;
mod scale;
mod services;
mod slices;
mod traffic;

use std::fmt::Write;

use mesh_core::{
    name::ServicePort,
    route::{RouteRule, ServiceRoutes},
};

use super::{Compiled, Settings, compile};
use crate::parse::parse;

/// Services catalog, catalog-v1, catalog-v2 (port 80, HTTP) and inventory (port 7000, TCP), each with one Workload.
const SHOP: &str = "
apiVersion: v1
kind: Service
metadata: {name: catalog, namespace: shop}
spec: {selector: {app: catalog}, ports: [{name: http, port: 80, targetPort: http, appProtocol: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: catalog-v1, namespace: shop}
spec: {selector: {app: catalog, version: v1}, ports: [{port: 80, targetPort: 8080, appProtocol: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: catalog-v2, namespace: shop}
spec: {selector: {app: catalog, version: v2}, ports: [{port: 80, targetPort: 8080, appProtocol: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: inventory, namespace: shop}
spec: {selector: {app: inventory}, ports: [{port: 7000, appProtocol: tcp}], clusterIP: 10.0.0.7}
---
apiVersion: meshctl.dev/v1alpha1
kind: Workload
metadata: {name: catalog-v1-a, namespace: shop, labels: {app: catalog, version: v1}}
spec: {serviceAccount: catalog, address: 127.1.0.3, ports: [{name: http, port: 8080}]}
---
apiVersion: meshctl.dev/v1alpha1
kind: Workload
metadata: {name: catalog-v2-a, namespace: shop, labels: {app: catalog, version: v2}}
spec: {serviceAccount: catalog, address: 127.1.0.4, ports: [{name: http, port: 8080}]}
---
apiVersion: meshctl.dev/v1alpha1
kind: Workload
metadata: {name: inventory, namespace: shop, labels: {app: inventory, topology.kubernetes.io/zone: a}}
spec: {serviceAccount: inventory, address: 127.1.0.5, ports: [{port: 7000, appAddress: '127.1.0.5:9000'}]}
";

fn settings() -> Settings {
    Settings { trust_domain: "cluster.local".parse().unwrap(), cluster_domain: "cluster.local".to_owned() }
}

/// Compiles files, each of which must be read without problems. The first is `0.yaml`.
fn compiled(files: &[&str]) -> Compiled {
    let mut objects = Vec::new();
    for (number, text) in files.iter().enumerate() {
        let (found, problems, _) = parse(&format!("{number}.yaml"), text);
        assert!(problems.is_empty(), "{problems:?}");
        objects.extend(found);
    }
    let forwards = compile(&objects, &settings());
    objects.reverse();
    assert_eq!(forwards, compile(&objects, &settings()), "the order of objects must not matter");
    forwards
}

/// Expects the problems as `FILE:LINE FIELD: MESSAGE` (a `!` before it: refused, `!!`: for another object; MESSAGE is a part of what is told).
#[track_caller]
fn check_problems(compiled: &Compiled, expected: &[&str]) {
    let told: Vec<String> = compiled.problems.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (problem, expected) in compiled.problems.iter().zip(expected) {
        let (place, message) = expected.split_once(": ").unwrap();
        let refused = match (problem.refused, problem.is_conflict) {
            (true, true) => "!!",
            (true, false) => "!",
            (false, _) => "",
        };
        assert_eq!(format!("{refused}{} {}", problem.place, problem.field), place, "{problem}");
        assert!(problem.to_string().contains(message), "{problem} lacks {message:?}");
    }
}

fn port(text: &str) -> ServicePort {
    text.parse().unwrap()
}

/// `KIND NAME#INDEX [CONDITIONS] -> NAME:PORT=WEIGHT …`, one rule a line.
fn describe(routes: &ServiceRoutes) -> Vec<String> {
    routes.rules.iter().map(describe_rule).collect()
}

fn describe_rule(rule: &RouteRule) -> String {
    let mut line = format!("{} {}#{}", rule.object.kind, rule.object.name, rule.index);
    for condition in &rule.matches {
        let methods: Vec<&str> = condition.methods.iter().map(http::Method::as_str).collect();
        write!(line, " [{}{:?}", methods.join("|"), condition.path).unwrap();
        write!(line, " {} {}]", condition.headers.len(), condition.query.len()).unwrap();
    }
    line.push_str(" ->");
    for backend in &rule.backends {
        let invalid = if backend.invalid { "!" } else { "" };
        write!(line, " {invalid}{}:{}={}", backend.service.name, backend.service.port, backend.weight)
            .unwrap();
    }
    line
}

#[track_caller]
fn check_routes(compiled: &Compiled, service: &str, expected: &[&str]) {
    assert_eq!(describe(compiled.services.get(&port(service)).unwrap()), expected, "{service}");
}

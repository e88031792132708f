//! Large meshes.

use std::{fmt::Write, time::Instant};

use super::settings;
use crate::{compile::compile, parse::parse};

/// 1,000 Services with five Workloads each, in ten namespaces.
fn mesh() -> String {
    let mut text = String::new();
    for service in 0..1000 {
        let namespace = service % 10;
        write!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{service}, namespace: n{namespace}}}
spec: {{selector: {{app: s{service}, tier: all}}, ports: [{{port: 80, targetPort: http, appProtocol: http}}]}}\n"
        )
        .unwrap();
        for workload in 0..5 {
            write!(
                text,
                "---\napiVersion: meshctl.dev/v1alpha1\nkind: Workload
metadata: {{name: s{service}-{workload}, namespace: n{namespace}, labels: {{app: s{service}, tier: all}}}}
spec:\n  serviceAccount: s{service}\n  address: 10.{workload}.{}.{}\n  ports: [{{name: http, port: 8080}}]\n",
                service / 250,
                service % 250 + 1
            )
            .unwrap();
        }
    }
    text
}

#[test]
fn many_wrong_upstreams_are_told_quickly() {
    let mut text = mesh();
    for workload in 0..2000 {
        let address = format!("10.9.{}.{}", workload / 250, workload % 250 + 1);
        write!(
            text,
            "---\napiVersion: meshctl.dev/v1alpha1\nkind: Workload\nmetadata: {{name: u{workload}, namespace: n0}}
spec: {{address: {address}, upstreams: [{{listenPort: 9, host: s10-x{workload}, port: 80}}, {{listenPort: 10, host: s10, port: 80}}]}}\n"
        )
        .unwrap();
    }
    let objects = parse("mesh.yaml", &text).0;
    let started = Instant::now();
    let compiled = compile(&objects, &settings());
    let took = started.elapsed();
    assert_eq!(compiled.problems.len(), 2000);
    let told = |text: &str| compiled.problems.iter().filter(|p| p.message.contains(text)).count();
    assert_eq!((told("no Service \"s10-x"), told("leads to no Service")), (100, 1900));
    assert!(took.as_secs() < 10, "{took:?}");
}

#[test]
fn a_large_mesh_compiles_quickly() {
    let text = mesh();
    let started = Instant::now();
    let (objects, problems, _) = parse("mesh.yaml", &text);
    let parsed = started.elapsed();
    assert_eq!((objects.len(), problems.len()), (6000, 0));
    let started = Instant::now();
    let compiled = compile(&objects, &settings());
    let took = started.elapsed();
    eprintln!("parsed in {parsed:?}, compiled in {took:?}");
    assert_eq!((compiled.workloads.len(), compiled.services.len(), compiled.problems.len()), (5000, 1000, 0));
    assert!(compiled.services.keys().all(|port| compiled.endpoints[port].len() == 5));
    // Nested scans over services and workloads would take minutes; release builds need less than 100 ms.
    assert!(took.as_secs() < 5, "{took:?}");
}

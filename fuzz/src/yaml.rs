//! Properties of what people write: objects in YAML.

use mesh_core::{
    name::{Host, WorkloadRef},
    resource::{DestinationKey, ResourceName},
};
use mesh_k8s::{Compiled, Settings, compile, parse};
use mesh_proto::convert::{Resource, ResourceBody, Wire};

/// What is refused is refused with a place, what is taken has no order, and all that is made of it, proxies take.
pub(crate) fn objects(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(settings) = settings() else { return };
    let lines = text.lines().count() as u32 + 1;
    let (mut objects, problems, recognised) = parse("fuzz.yaml", text);
    for problem in &problems {
        assert!(!problem.message.is_empty() && (1..=lines).contains(&problem.place.line), "{problem}");
    }
    assert!(recognised || !problems.is_empty(), "a document is lost without a word");
    let compiled = compile(&objects, &settings);
    for resource in resources(&compiled) {
        let read = Resource::from_wire(&resource.to_wire());
        assert_eq!(read.as_ref(), Ok(&resource));
    }
    objects.reverse();
    assert_eq!(compile(&objects, &settings), compiled, "in another order");
}

/// All that is sent to proxies of these objects.
pub(crate) fn compiled(text: &[u8]) -> Vec<Resource> {
    let (objects, ..) = parse("seed.yaml", &String::from_utf8_lossy(text));
    settings().map(|settings| resources(&compile(&objects, &settings))).unwrap_or_default()
}

fn resources(compiled: &Compiled) -> Vec<Resource> {
    let mut all = Vec::new();
    for (WorkloadRef { namespace, .. }, config) in &compiled.workloads {
        all.push((ResourceName::Workload, ResourceBody::Workload(config.clone())));
        for port in compiled.services.keys() {
            let name = format!("{}.{}", port.name, port.namespace).into();
            let key = DestinationKey::Host(Host { name, port: Some(port.port) });
            let (destination, _) = compiled.destination(&key, namespace);
            all.push((ResourceName::Destination(key), ResourceBody::Destination(destination)));
        }
    }
    for (port, endpoints) in &compiled.endpoints {
        all.push((ResourceName::Endpoints(port.clone()), ResourceBody::Endpoints(endpoints.clone())));
    }
    all.into_iter().map(|(name, body)| Resource::new(name, body)).collect()
}

fn settings() -> Option<Settings> {
    Some(Settings { trust_domain: "cluster.local".parse().ok()?, cluster_domain: "cluster.local".to_owned() })
}

/// Objects of every kind, also one at a time.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let files = [
        include_str!("../../mesh-k8s/src/parse/tests/good.yaml"),
        include_str!("../../mesh-testkit/tests/data/edges.yaml"),
        include_str!("../../mesh-testkit/tests/data/pair-denied.yaml"),
    ];
    let documents = files.iter().take(1).flat_map(|file| file.split("\n---\n"));
    files.iter().copied().chain(documents).map(|text| text.as_bytes().to_vec()).collect()
}

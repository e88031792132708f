//! What only a Kubernetes cluster has: pods and EndpointSlices. Others write them, so that only what is needed is read,
//! and what is not known means nothing.

use std::{collections::HashSet, net::IpAddr, sync::Arc};

use mesh_core::{
    identity::CONTROLLER,
    name::{ObjectRef, is_dns_label},
    ports,
    protocol::{Protocol, ProxyProtocol},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value as Json;

use crate::{
    inject::opaque_ports,
    labels,
    names::PROXY_CONTAINER,
    object::{
        At, EndpointOfSlice, EndpointSlice, Located, Membership, Object, Pod, PortOfSlice, PortOfWorkload,
        Standing, Workload,
    },
    parse::{
        kinds::Kind,
        metadata::Metadata,
        reader::{Field, Reader},
        tree::Node,
    },
    problem::{Place, Problem},
};

/// Most ports of one pod that are read.
const MAX_PORTS: usize = 256;
/// Most endpoints of one slice that are read (Kubernetes allows 1,000).
const MAX_ENDPOINTS: usize = 1_000;

type Read = (Vec<Located>, Vec<Problem>, bool);

/// Reads a pod or EndpointSlice; None: it is something else.
pub(super) fn read(place: &str, object: &Json) -> Option<Read> {
    let field = |name: &str| object.get(name).and_then(Json::as_str);
    let read: fn(&mut Reader, Metadata, &Json) -> Option<Object> =
        match (field("apiVersion")?, field("kind")?) {
            ("v1", "Pod") => pod,
            ("discovery.k8s.io/v1", "EndpointSlice") => slice,
            _ => return None,
        };
    let kind = field("kind")?;
    let name = |key: &str| object.pointer(&format!("/metadata/{key}")).and_then(Json::as_str);
    let reference = name("name").map(|n| ObjectRef::new(kind, name("namespace").unwrap_or("default"), n));
    let recognised = reference.is_some();
    let mut reader = Reader::new(place.into(), reference);
    let metadata = object.get("metadata").unwrap_or(&Json::Null);
    let metadata = Node::from(&without_options(&mut reader, kind, metadata));
    // A pod has the options of a Workload.
    let metadata =
        Metadata::read(&mut reader, &Field { path: "metadata".into(), node: &metadata }, Kind::Workload);
    let found = metadata.and_then(|metadata| read(&mut reader, metadata, object));
    let place = Place { file: Arc::clone(&reader.file), line: 0 };
    let objects = match found.filter(|_| !reader.is_refused()) {
        Some(object) => vec![Located { object, place, standing: Standing::New }],
        None => Vec::new(),
    };
    Some((objects, reader.problems, recognised))
}

/// The metadata without names of the mesh that are not read here. They were looked at when the pod was admitted, by this
/// version or another one, and what that one knows must not take the pod out of the mesh: it is told and left out. A
/// slice has copies of its Service's labels, which were looked at there. What `mtls` says must be known, and is read.
fn without_options(reader: &mut Reader, kind: &str, metadata: &Json) -> Json {
    let mut metadata = metadata.clone();
    let is_pod = kind == "Pod";
    for field in ["labels", "annotations"] {
        let Some(entries) = metadata.get_mut(field).and_then(Json::as_object_mut) else { continue };
        entries.retain(|name, _| {
            if !name.starts_with(labels::PREFIX) || is_pod && matches!(&**name, labels::INJECT | labels::MTLS)
            {
                return true;
            }
            if is_pod && let Some((message, remedy)) = labels::stray_on_pod(field, name) {
                reader.warn(0, &format!("metadata.{field}[{name}]"), message, remedy);
            }
            false
        });
    }
    metadata
}

/// Takes what is known out of a part of the object; reports what has another shape.
fn part<T: DeserializeOwned + Default>(reader: &mut Reader, object: &Json, name: &str) -> Option<T> {
    let json = match name {
        "" => object,
        name => object.get(name).unwrap_or(&Json::Null),
    };
    if json.is_null() {
        return Some(T::default());
    }
    T::deserialize(json)
        .inspect_err(|error| {
            reader.refuse(0, name, format!("it has an unknown shape: {error}"), "correct what writes it");
        })
        .ok()
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodSpec {
    service_account_name: String,
    host_network: bool,
    containers: Vec<Container>,
    init_containers: Vec<Container>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Container {
    name: String,
    ports: Vec<ContainerPort>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ContainerPort {
    name: String,
    container_port: u16,
    protocol: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodStatus {
    phase: String,
    #[serde(rename = "podIP")]
    pod_ip: String,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<PodIp>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PodIp {
    ip: String,
}

fn pod(reader: &mut Reader, metadata: Metadata, object: &Json) -> Option<Object> {
    let spec: PodSpec = part(reader, object, "spec")?;
    let status: PodStatus = part(reader, object, "status")?;
    let has_ended = matches!(&*status.phase, "Succeeded" | "Failed");
    let mut addresses = Vec::new();
    if !has_ended {
        let all = std::iter::once(&status.pod_ip).chain(status.pod_ips.iter().map(|ip| &ip.ip));
        for text in all.filter(|text| !text.is_empty()) {
            let Ok(ip) = text.parse::<IpAddr>() else {
                reader.refuse(
                    0,
                    "status.podIPs",
                    format!("{text:?} is no IP address"),
                    "correct what writes it",
                );
                return None;
            };
            if !addresses.contains(&ip) {
                addresses.push(ip);
            }
        }
    }
    let opaque = opaque(reader, object);
    let inject = wish(object);
    let mut containers = spec.containers.iter().chain(&spec.init_containers);
    let has_proxy = containers.any(|container| container.name == PROXY_CONTAINER);
    let account = if spec.service_account_name.is_empty() { "default" } else { &spec.service_account_name };
    let is_controller = (&*metadata.name.namespace, account) == CONTROLLER;
    if has_proxy && (spec.host_network || is_controller) {
        let why = if is_controller {
            "runs under the controller's own ServiceAccount"
        } else {
            "is on the host's network"
        };
        let message = format!("a pod that {why} is not in the mesh: it is called in plaintext");
        reader.warn(0, "spec", message, format!("take the container {PROXY_CONTAINER} out of it"));
    }
    let mesh = match has_proxy && !spec.host_network && !is_controller {
        false => Membership::Outside,
        true if has_ended => Membership::Ended,
        // A proxy starts before the address of its pod is known, and wants to know what it is to do.
        true => Membership::Inside(Box::new(Workload {
            name: metadata.name.clone(),
            labels: metadata.labels,
            mtls: metadata.mtls,
            service_account: At { value: account.into(), line: 0 },
            address: At { value: addresses.first().copied(), line: 0 },
            ports: ports_of(&spec, &opaque),
            upstreams: Vec::new(),
        })),
    };
    let noted = |key: &str| object.pointer(key).and_then(Json::as_str).unwrap_or_default();
    Some(Object::Pod(Pod {
        name: metadata.name,
        uid: noted("/metadata/uid").into(),
        created: noted("/metadata/creationTimestamp").into(),
        addresses,
        mesh,
        on_host: spec.host_network && !has_ended && !has_proxy,
        inject,
    }))
}

/// Whether a pod says that it wants a proxy; no in either place is no.
fn wish(object: &Json) -> Option<bool> {
    let said = |field: &str| match object.pointer("/metadata")?.get(field)?.get(labels::INJECT)?.as_str()? {
        "enabled" => Some(true),
        "disabled" => Some(false),
        _ => None,
    };
    match (said("labels"), said("annotations")) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (label, annotation) => label.or(annotation),
    }
}

/// The ports that an annotation makes opaque; one that cannot be read makes none so.
fn opaque(reader: &mut Reader, object: &Json) -> Vec<u16> {
    let annotations = object.pointer("/metadata/annotations");
    let text = annotations.and_then(|all| all.get(labels::OPAQUE_PORTS)?.as_str()).unwrap_or_default();
    opaque_ports(text).unwrap_or_else(|message| {
        let field = format!("metadata.annotations[{}]", labels::OPAQUE_PORTS);
        reader.warn(0, &field, message, "write ports, as in 3306,5000-5010");
        Vec::new()
    })
}

/// The TCP ports that containers declare, but for the proxy's, and those that are opaque: each number and each name
/// once.
fn ports_of(spec: &PodSpec, opaque: &[u16]) -> Vec<PortOfWorkload> {
    const TAKEN: [u16; 5] = [0, ports::OUTBOUND, ports::INBOUND, ports::ADMIN, ports::HEALTH];
    let (mut numbers, mut names) = (HashSet::new(), HashSet::new());
    let all = spec.containers.iter().chain(&spec.init_containers);
    let declared = all.filter(|c| c.name != PROXY_CONTAINER).flat_map(|container| &container.ports);
    let declared = declared
        .filter(|port| matches!(&*port.protocol, "" | "TCP"))
        .map(|port| (port.container_port, port.name.as_str()));
    declared
        .chain(opaque.iter().map(|port| (*port, "")))
        .filter(|(port, _)| !TAKEN.contains(port))
        .filter(|(port, _)| numbers.insert(*port))
        .map(|(port, name)| PortOfWorkload {
            name: if is_dns_label(name) && names.insert(name) { name.to_owned() } else { String::new() },
            port,
            protocol: if opaque.contains(&port) { Protocol::Opaque } else { Protocol::Undeclared },
            app_address: None,
            proxy_protocol: ProxyProtocol::default(),
            line: 0,
        })
        .take(MAX_PORTS)
        .collect()
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Slice {
    address_type: String,
    endpoints: Option<Vec<SliceEndpoint>>,
    ports: Option<Vec<SlicePort>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SliceEndpoint {
    addresses: Vec<String>,
    conditions: Conditions,
    target_ref: Option<TargetRef>,
    zone: Option<String>,
}

/// Nothing said counts as yes (discovery.k8s.io/v1 EndpointConditions), and serving as ready.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TargetRef {
    kind: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SlicePort {
    name: Option<String>,
    port: Option<u16>,
    protocol: Option<String>,
    app_protocol: Option<String>,
}

fn slice(reader: &mut Reader, metadata: Metadata, object: &Json) -> Option<Object> {
    let service = metadata.labels.get(labels::SERVICE_OF_SLICE).map_or("", String::as_str).into();
    let slice: Slice = part(reader, object, "")?;
    // Names are for DNS, and never called by their slice.
    let endpoints =
        if slice.address_type == "FQDN" { Vec::new() } else { slice.endpoints.unwrap_or_default() };
    let mut found = Vec::with_capacity(endpoints.len());
    for (at, endpoint) in endpoints.iter().take(MAX_ENDPOINTS).enumerate() {
        // All addresses of an endpoint mean the same one: consumers take the first (discovery.k8s.io/v1).
        let Some(text) = endpoint.addresses.first() else { continue };
        let Ok(address) = text.parse::<IpAddr>() else {
            let message = format!("{text:?} is no IP address");
            reader.refuse(0, &format!("endpoints[{at}].addresses"), message, "correct what writes it");
            return None;
        };
        let ready = endpoint.conditions.ready.unwrap_or(true);
        let pod = endpoint.target_ref.as_ref().filter(|target| target.kind == "Pod");
        found.push(EndpointOfSlice {
            address,
            ready,
            serving: endpoint.conditions.serving.unwrap_or(ready),
            pod: pod.map(|target| Arc::from(&*target.name)),
            zone: endpoint.zone.as_deref().unwrap_or_default().into(),
        });
    }
    let is_tcp = |port: &&SlicePort| matches!(port.protocol.as_deref(), None | Some("TCP"));
    let port = |port: &SlicePort| {
        Some(PortOfSlice {
            name: port.name.as_deref().unwrap_or_default().into(),
            port: port.port.filter(|number| *number != 0)?,
            // What is not known has been reported of the Service.
            protocol: port.app_protocol.as_deref().and_then(Protocol::from_app_protocol).unwrap_or_default(),
        })
    };
    let ports = slice.ports.iter().flatten().filter(is_tcp).filter_map(port).take(MAX_PORTS).collect();
    Some(Object::EndpointSlice(EndpointSlice { name: metadata.name, service, ports, endpoints: found }))
}

//! Kubernetes' own kinds: Namespace and Service.

use std::collections::BTreeMap;

use mesh_core::{name::is_dns_label, protocol::Protocol};

use crate::{
    object::{At, Namespace, Object, PortName, PortOfService, Service},
    parse::{
        metadata::Metadata,
        reader::{Field, Reader},
        tree::Value,
    },
};

pub(crate) fn namespace(metadata: Option<Metadata>) -> Option<Object> {
    let metadata = metadata?;
    let inject = metadata.is_injected();
    let Metadata { name, default_policy, mtls, .. } = metadata;
    Some(Object::Namespace(Namespace { name: name.name, default_policy, mtls, inject }))
}

pub(crate) fn service(reader: &mut Reader, metadata: Metadata, spec: &Field<'_>) -> Option<Service> {
    let mut fields = reader.fields(spec);
    let selector = match fields.optional("selector") {
        Some(field) => At { value: reader.text_map(&field), line: field.line() },
        None => At { value: BTreeMap::new(), line: fields.line() },
    };
    let mut ports = Vec::new();
    let list = fields.required(reader, "ports").map(|field| reader.list(&field)).unwrap_or_default();
    for item in &list {
        ports.extend(port(reader, item, list.len() > 1).map(|found| (&item.path, found)));
    }
    unique(reader, "port", ports.iter().map(|(path, p)| (p.port.to_string(), path.to_string(), p.line)));
    let names = ports.iter().filter(|(_, p)| !p.name.is_empty());
    unique(reader, "name", names.map(|(path, p)| (p.name.clone(), path.to_string(), p.line)));
    let ports = ports.into_iter().map(|(_, p)| p).collect();

    let mut cluster_ips = Vec::new();
    let single = fields.optional("clusterIP").into_iter();
    let several = fields.optional("clusterIPs").map(|field| reader.list(&field)).unwrap_or_default();
    for field in single.chain(several) {
        if !matches!(field.node.text(), Some("" | "None")) {
            cluster_ips.extend(reader.ip(&field));
        }
    }
    cluster_ips.sort_unstable();
    cluster_ips.dedup();
    if let Some(field) = fields.optional("type")
        && field.node.text() == Some("ExternalName")
    {
        reader.refuse(field.line(), &field.path, "ExternalName is not supported yet", "remove the Service");
    }
    fields.ignore(&[
        "allocateLoadBalancerNodePorts",
        "externalIPs",
        "externalName",
        "externalTrafficPolicy",
        "healthCheckNodePort",
        "internalTrafficPolicy",
        "ipFamilies",
        "ipFamilyPolicy",
        "loadBalancerClass",
        "loadBalancerIP",
        "loadBalancerSourceRanges",
        "publishNotReadyAddresses",
        "sessionAffinity",
        "sessionAffinityConfig",
        "trafficDistribution",
    ]);
    fields.finish(reader);
    Some(Service { name: metadata.name, selector, ports, cluster_ips })
}

pub(crate) fn port(reader: &mut Reader, item: &Field<'_>, name_is_needed: bool) -> Option<PortOfService> {
    let mut fields = reader.fields(item);
    let name = fields.optional("name").and_then(|f| reader.name(&f, is_dns_label, "a port name"));
    if name_is_needed && name.is_none() {
        let path = format!("{}.name", fields.path());
        reader.refuse(fields.line(), &path, "a port without name beside others", "give every port a name");
    }
    let number = fields.required(reader, "port").and_then(|f| reader.port(&f));
    let target = match fields.optional("targetPort") {
        Some(f) => target(reader, &f),
        None => number.map(PortName::Number),
    };
    let protocol = fields.optional("appProtocol").map_or(Protocol::Undeclared, |f| app_protocol(reader, &f));
    let transport = fields.optional("protocol");
    let is_tcp = transport.as_ref().is_none_or(|f| transport_is_tcp(reader, f));
    fields.ignore(&["nodePort"]);
    fields.finish(reader);
    let found = PortOfService {
        name: name.unwrap_or_default().to_owned(),
        port: number?,
        target: target?,
        protocol,
        line: item.line(),
    };
    is_tcp.then_some(found)
}

fn target(reader: &mut Reader, field: &Field<'_>) -> Option<PortName> {
    match &field.node.value {
        Value::Text(text) if !text.bytes().all(|b| b.is_ascii_digit()) => reader
            .name(field, is_dns_label, "a port number or name")
            .map(|name| PortName::Name(name.to_owned())),
        _ => reader.port(field).map(PortName::Number),
    }
}

/// The mesh carries TCP; ports of other transports are left out. Of a cluster's objects, which have no lines, that is not
/// told: nobody wrote them for the mesh.
fn transport_is_tcp(reader: &mut Reader, field: &Field<'_>) -> bool {
    let is_tcp = reader.choice(field, &[("TCP", true), ("UDP", false), ("SCTP", false)]).unwrap_or(true);
    if !is_tcp && field.line() > 0 {
        let message = format!("the mesh carries TCP only: the {} port is left out", field.node.value);
        reader.warn(field.line(), &field.path, message, "nothing to do; its traffic stays outside the mesh");
    }
    is_tcp
}

/// `appProtocol` of a Service's or Workload's port; an unknown one counts as undeclared and is reported.
pub(crate) fn app_protocol(reader: &mut Reader, field: &Field<'_>) -> Protocol {
    let Some(text) = reader.text(field) else { return Protocol::Undeclared };
    Protocol::from_app_protocol(text).unwrap_or_else(|| {
        let message =
            format!("{} is no protocol that the mesh knows: it counts as undeclared", field.node.value);
        reader.warn(field.line(), &field.path, message, "known: http, http2, h2c, grpc, tcp, tls, https");
        Protocol::Undeclared
    })
}

/// Reports values of `name` that two items of a list share; items are given by value, path and line.
pub(crate) fn unique(reader: &mut Reader, name: &str, items: impl Iterator<Item = (String, String, u32)>) {
    let mut first: BTreeMap<String, u32> = BTreeMap::new();
    for (value, path, line) in items {
        if let Some(earlier) = first.get(&value) {
            let message = format!("{name} {value} is there twice, first in line {earlier}");
            reader.refuse(line, &format!("{path}.{name}"), message, "keep one of them");
        } else {
            first.insert(value, line);
        }
    }
}

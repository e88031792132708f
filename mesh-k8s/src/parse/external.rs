//! The mesh's own kind ExternalService: hosts outside of the mesh.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use mesh_core::name::is_dns_name;

use crate::{
    object::{At, ExternalService, PortName, PortOfService, Service},
    parse::{
        filters::at_most,
        kubernetes::{port, unique},
        metadata::Metadata,
        reader::{Field, Reader},
    },
};

/// Most host names of one object.
const MAX_HOSTS: usize = 64;
/// Most addresses of one object.
const MAX_ADDRESSES: usize = 256;

pub(crate) fn read(reader: &mut Reader, metadata: Metadata, spec: &Field<'_>) -> Option<ExternalService> {
    let mut fields = reader.fields(spec);
    let mut hosts: Vec<At<Arc<str>>> = Vec::new();
    if let Some(list) = fields.required(reader, "hosts") {
        for item in at_most(reader, &list, MAX_HOSTS) {
            hosts.extend(host(reader, &item).map(|value| At { value, line: item.line() }));
        }
        let named = |(at, host): (usize, &At<Arc<str>>)| {
            (host.value.to_string(), format!("{}[{at}]", list.path), host.line)
        };
        unique(reader, "host", hosts.iter().enumerate().map(named));
    }
    let list = fields.required(reader, "ports");
    let ports = ports(reader, list);
    let mut addresses: Vec<IpAddr> = Vec::new();
    if let Some(list) = fields.optional("addresses") {
        for item in at_most(reader, &list, MAX_ADDRESSES) {
            addresses.extend(reader.ip(&item));
        }
        addresses.sort_unstable();
        addresses.dedup();
    }
    fields.finish(reader);
    let service = Service {
        name: metadata.name,
        selector: At { value: BTreeMap::new(), line: spec.line() },
        ports,
        cluster_ips: Vec::new(),
    };
    Some(ExternalService { service, hosts, addresses })
}

fn host(reader: &mut Reader, field: &Field<'_>) -> Option<Arc<str>> {
    let text = reader.text(field)?;
    let lower = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if is_dns_name(&lower) && lower.contains('.') && lower.parse::<IpAddr>().is_err() {
        return Some(lower.into());
    }
    reader.expected(
        field,
        "the name of a host outside of the mesh",
        "write it in full, without port and wildcard, as in api.example.com; addresses go into addresses",
    );
    None
}

fn ports(reader: &mut Reader, list: Option<Field<'_>>) -> Vec<PortOfService> {
    let items = list.map(|list| at_most(reader, &list, 64)).unwrap_or_default();
    let mut found = Vec::new();
    for item in &items {
        let Some(port) = port(reader, item, items.len() > 1) else { continue };
        if let PortName::Name(name) = &port.target {
            let message = format!("{name:?} is the name of a port: hosts outside have none");
            let remedy = "write its number";
            reader.refuse(port.line, &format!("{}.targetPort", item.path), message, remedy);
        }
        found.push((item.path.clone(), port));
    }
    unique(reader, "port", found.iter().map(|(path, p)| (p.port.to_string(), path.clone(), p.line)));
    found.into_iter().map(|(_, port)| port).collect()
}

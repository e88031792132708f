//! The mesh's own kind Workload.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

use mesh_core::{
    addr::AppAddr,
    identity::CONTROLLER,
    name::{Host, is_dns_label, is_dns_name},
    ports,
    protocol::{Protocol, ProxyProtocol},
};

use crate::{
    object::{At, PortOfWorkload, UpstreamOfWorkload, Workload},
    parse::{
        kubernetes::{app_protocol, unique},
        metadata::{Metadata, RESERVED},
        reader::{Field, Fields, Reader},
    },
};

/// Ports on which the proxy itself stands at a Workload's address.
const TAKEN: [u16; 4] = [ports::OUTBOUND, ports::INBOUND, ports::ADMIN, ports::HEALTH];

pub(crate) fn read(reader: &mut Reader, metadata: Metadata, spec: &Field<'_>) -> Option<Workload> {
    let mut fields = reader.fields(spec);
    let service_account = match fields.optional("serviceAccount") {
        Some(field) => {
            let name = reader.name(&field, is_dns_name, "the name of a ServiceAccount");
            name.map(|name| At { value: Arc::from(name), line: field.line() })
        }
        None => Some(At { value: Arc::from("default"), line: fields.line() }),
    };
    if let Some(account) = &service_account
        && (&*metadata.name.namespace, &*account.value) == CONTROLLER
    {
        reader.refuse(
            account.line,
            "spec.serviceAccount",
            RESERVED,
            "run the workload under another ServiceAccount",
        );
    }
    let address = fields
        .required(reader, "address")
        .and_then(|field| reader.ip(&field).map(|ip| At { value: Some(ip), line: field.line() }));
    let list = fields.optional("ports").map(|field| reader.list(&field)).unwrap_or_default();
    let mut found = Vec::new();
    for item in &list {
        let port = port(reader, item, address.as_ref().and_then(|a| a.value));
        found.extend(port.map(|port| (&item.path, port)));
    }
    unique(reader, "port", found.iter().map(|(path, p)| (p.port.to_string(), path.to_string(), p.line)));
    let names = found.iter().filter(|(_, p)| !p.name.is_empty());
    unique(reader, "name", names.map(|(path, p)| (p.name.clone(), path.to_string(), p.line)));
    let found: Vec<PortOfWorkload> = found.into_iter().map(|(_, p)| p).collect();
    let upstreams = upstreams(reader, &mut fields, &found);
    fields.finish(reader);
    Some(Workload {
        name: metadata.name,
        labels: metadata.labels,
        mtls: metadata.mtls,
        service_account: service_account?,
        address: address?,
        ports: found,
        upstreams,
    })
}

fn upstreams(
    reader: &mut Reader,
    fields: &mut Fields<'_>,
    ports: &[PortOfWorkload],
) -> Vec<UpstreamOfWorkload> {
    let list = fields.optional("upstreams").map(|field| reader.list(&field)).unwrap_or_default();
    let mut found = Vec::new();
    for item in &list {
        let Some(upstream) = upstream(reader, item) else { continue };
        if let Some(inbound) = ports.iter().find(|p| p.port == upstream.listen_port) {
            let message =
                format!("port {} is served by the workload itself, in line {}", inbound.port, inbound.line);
            reader.refuse(
                upstream.line,
                &format!("{}.listenPort", item.path),
                message,
                "choose another port",
            );
        }
        found.push((&item.path, upstream));
    }
    let listened = found.iter().map(|(path, u)| (u.listen_port.to_string(), path.to_string(), u.line));
    unique(reader, "listenPort", listened);
    found.into_iter().map(|(_, u)| u).collect()
}

fn port(reader: &mut Reader, item: &Field<'_>, address: Option<IpAddr>) -> Option<PortOfWorkload> {
    let mut fields = reader.fields(item);
    let name = fields.optional("name").and_then(|f| reader.name(&f, is_dns_label, "a port name"));
    let number = fields.required(reader, "port").and_then(|f| free_port(reader, &f));
    let protocol = fields.optional("appProtocol").map_or(Protocol::Undeclared, |f| app_protocol(reader, &f));
    let app_address = fields.optional("appAddress");
    let app_address = match &app_address {
        Some(field) => Some(app_addr(reader, field, address, number)?),
        None => None,
    };
    let proxy_protocol = match fields.optional("proxyProtocol") {
        Some(field) => proxy(reader, &field, protocol),
        None => Some(ProxyProtocol::default()),
    };
    fields.finish(reader);
    Some(PortOfWorkload {
        name: name.unwrap_or_default().to_owned(),
        port: number?,
        protocol,
        app_address,
        proxy_protocol: proxy_protocol?,
        line: item.line(),
    })
}

/// Headers of the PROXY protocol. They precede bytes: requests of many callers share the application's connections.
fn proxy(reader: &mut Reader, field: &Field<'_>, protocol: Protocol) -> Option<ProxyProtocol> {
    let Some(headers) = ProxyProtocol::from_words(reader.text(field)?) else {
        reader.expected(
            field,
            "accept, send (version 2), send-v1, or accept and one of the others",
            "write accept, send, as in proxyProtocol: accept,send",
        );
        return None;
    };
    if headers.send.is_some() && protocol != Protocol::Opaque {
        reader.expected(
            field,
            "possible on this port: headers are sent only where bytes are not looked into",
            "declare appProtocol: tcp",
        );
        return None;
    }
    Some(headers)
}

/// A port that the proxy does not need for itself.
fn free_port(reader: &mut Reader, field: &Field<'_>) -> Option<u16> {
    let port = reader.port(field)?;
    if TAKEN.contains(&port) {
        reader.expected(
            field,
            "a port that the workload can have: the proxy stands there",
            "choose another port",
        );
        return None;
    }
    Some(port)
}

fn app_addr(
    reader: &mut Reader,
    field: &Field<'_>,
    address: Option<IpAddr>,
    port: Option<u16>,
) -> Option<AppAddr> {
    let text = reader.text(field)?;
    let parsed = text.parse::<SocketAddr>().ok();
    let Some(app) = parsed.filter(|a| a.port() != 0 && !a.ip().is_unspecified() && !a.ip().is_multicast())
    else {
        reader.expected(
            field,
            "the address where the application listens",
            "write IP:PORT, as in 127.1.0.3:9080",
        );
        return None;
    };
    if Some(app.ip()) == address && (Some(app.port()) == port || TAKEN.contains(&app.port())) {
        let what = "the application's own address: the proxy stands there";
        reader.expected(field, what, "let the application listen on another port");
        return None;
    }
    Some(AppAddr(app))
}

fn upstream(reader: &mut Reader, item: &Field<'_>) -> Option<UpstreamOfWorkload> {
    let mut fields = reader.fields(item);
    let listen_port = fields.required(reader, "listenPort").and_then(|f| free_port(reader, &f));
    let host_field = fields.required(reader, "host");
    let host = host_field.and_then(|f| {
        let text = reader.text(&f)?;
        let host = Host::from_str(text).ok().filter(|host| host.port.is_none());
        if host.is_none() {
            reader.expected(
                &f,
                "the host of a Service",
                "write svc, svc.ns or svc.ns.svc.cluster.local, without port",
            );
        }
        host
    });
    let port = fields.required(reader, "port").and_then(|f| reader.port(&f));
    fields.finish(reader);
    Some(UpstreamOfWorkload {
        listen_port: listen_port?,
        host: Host { name: host?.name, port: Some(port?) },
        line: item.line(),
    })
}

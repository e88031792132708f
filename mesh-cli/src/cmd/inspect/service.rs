//! One Service: what it speaks, where its calls go, and its endpoints.

use mesh_core::config::Endpoint;
use serde_json::{Value, json};

use super::{
    Mesh, Name,
    document::{Section, View, routes_value},
};
use crate::{
    out::table::{Cell, Column, Table},
    view::ServiceView,
    words,
};

pub(super) fn view(mesh: &Mesh, (namespace, name): &Name) -> View {
    let mut view = View::new("Service");
    let is = |found: &&ServiceView| {
        let port = &found.routes.service;
        *port.namespace == **namespace && *port.name == **name
    };
    let ports: Vec<&ServiceView> = mesh.services.iter().filter(is).collect();
    for port in &ports {
        one(&mut view, mesh, port);
    }
    view.fact("ports", ports.iter().map(|port| value(mesh, port)).collect::<Vec<_>>());
    view
}

fn one(view: &mut View, mesh: &Mesh, port: &ServiceView) {
    let rules: Vec<String> = port.routes.rules.iter().map(words::route).collect();
    let routes = if rules.is_empty() { "none: calls are refused".into() } else { rules.join("\n") };
    let mut fields = vec![("Protocol", port.routes.protocol.to_string()), ("Routes", routes)];
    let calls = words::traffic::calls(&port.routes.calls);
    if !calls.is_empty() {
        fields.push(("Calls", calls.join("\n")));
    }
    view.fields(format!("Service {}", port.routes.service), &fields);
    let mut table = Table::new(&[
        Column::text("ADDRESS"),
        Column::text("WORKLOAD"),
        Column::text("IDENTITY"),
        Column::text("PROTOCOL"),
        Column::text("PROXY"),
    ]);
    for endpoint in &port.endpoints {
        let identity = endpoint.identity.as_ref().map_or_else(|| words::OUTSIDE.into(), words::identity);
        table.row([
            endpoint.address.to_string().into(),
            endpoint.workload.to_string().into(),
            identity.into(),
            endpoint.protocol.as_str().into(),
            Cell::from(proxy(mesh, endpoint)),
        ]);
    }
    let body = if table.is_empty() {
        "  none: no Workload with that port matches the Service's selector\n".into()
    } else {
        table.render(None, false).lines().map(|line| format!("  {line}\n")).collect()
    };
    view.sections.push(Section { title: format!("Endpoints of {}", port.routes.service), body });
}

fn proxy(mesh: &Mesh, endpoint: &Endpoint) -> &'static str {
    let workload = mesh.workloads.iter().find(|view| view.config.workload == endpoint.workload);
    match workload.and_then(|view| view.proxy.as_ref()) {
        Some(proxy) if proxy.connected => "connected",
        Some(_) => "lost",
        None => "never connected",
    }
}

fn value(mesh: &Mesh, port: &ServiceView) -> Value {
    let endpoint = |endpoint: &Endpoint| {
        json!({
            "address": endpoint.address.to_string(),
            "workload": endpoint.workload.to_string(),
            "identity": endpoint.identity.as_ref().map(|id| id.as_str()),
            "protocol": endpoint.protocol.as_str(),
            "proxy": proxy(mesh, endpoint),
        })
    };
    json!({
        "port": port.routes.service.port,
        "protocol": port.routes.protocol.as_str(),
        "routes": routes_value(&port.routes),
        "calls": words::traffic::calls(&port.routes.calls),
        "endpoints": port.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
    })
}

//! Workload and ExternalService.

use super::schema::{Schema, choice, duration, integer, label, list, name, object, port, text};

/// `appProtocol` of a port.
fn app_protocol() -> Schema {
    text()
        .about("What is spoken there: http, http2, h2c, grpc, tcp, tls or https; empty: the proxy finds out.")
}

pub(super) fn workload() -> Schema {
    let inbound = object([
        ("name", label().about("Its name, for targetPort of Services.")),
        ("port", port().about("Where callers find it.")),
        ("appProtocol", app_protocol()),
        ("appAddress", text().about("Where the application listens (IP:PORT); empty: at the port itself.")),
        (
            "proxyProtocol",
            text().about(
                "Headers of the PROXY protocol: accept, send, send-v1, or accept and one of the others.",
            ),
        ),
    ]);
    let upstream = object([
        ("listenPort", port().about("Where the application calls its proxy.")),
        ("host", text().about("The Service that is called, as svc, svc.ns or svc.ns.svc.DOMAIN.")),
        ("port", port().about("The Service's port.")),
    ]);
    object([
        ("serviceAccount", name().about("Whose identity it has; default: default.")),
        ("address", text().about("Where it is: an IP address.")),
        ("ports", list(inbound.required(&["port"]), 4096).about("What it serves.")),
        (
            "upstreams",
            list(upstream.required(&["listenPort", "host", "port"]), 4096)
                .about("Services that it calls at ports of its own proxy (explicit mode)."),
        ),
    ])
    .required(&["address"])
    .about("Something outside of Kubernetes that runs a proxy of the mesh, such as a virtual machine.")
}

pub(super) fn external_service() -> Schema {
    let outbound = object([
        ("name", label()),
        ("port", port().about("Where callers call it.")),
        ("targetPort", port().about("Where it is called in truth; default: port.")),
        ("appProtocol", app_protocol()),
        ("protocol", choice(&["TCP", "UDP", "SCTP"])),
        ("nodePort", integer(0, 65_535).about("Without meaning.")),
    ]);
    object([
        ("hosts", list(text(), 64).about("Names of hosts outside of the mesh, in full.")),
        ("ports", list(outbound.required(&["port"]), 64)),
        ("addresses", list(text(), 256).about("IP addresses; empty: the hosts are looked up in DNS.")),
    ])
    .required(&["hosts", "ports"])
    .about("Hosts outside of the mesh, which are called by name like a Service.")
}

/// What the controller says of an object.
pub(super) fn status() -> Schema {
    let condition = object([
        ("type", text()),
        ("status", choice(&["True", "False", "Unknown"])),
        ("reason", text()),
        ("message", super::schema::long_text(32_768)),
        ("lastTransitionTime", text()),
        ("observedGeneration", integer(0, u32::MAX)),
    ]);
    object([
        ("observedGeneration", integer(0, u32::MAX)),
        ("conditions", list(condition.required(&["type", "status"]), 16).keyed_by("type")),
    ])
}

/// Durations that may be 0 say so.
pub(super) fn limit(what: &str) -> Schema {
    duration().about(&format!("{what} 0s: no limit."))
}

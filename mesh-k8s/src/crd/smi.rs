//! The kinds of SMI, as the mesh reads them.

use mesh_core::route::MAX_WEIGHT;

use super::schema::{Schema, anything, choice, integer, label, list, name, object, port, text};

pub(super) fn split() -> Schema {
    let backend = object([
        ("service", text().about("A Service of the same namespace.")),
        ("weight", integer(0, MAX_WEIGHT).about("Its share, relative to that of the others.")),
    ]);
    let condition = object([("apiGroup", text()), ("kind", choice(&["HTTPRouteGroup"])), ("name", name())]);
    object([
        ("service", text().about("The Service that is called.")),
        ("backends", list(backend.required(&["service", "weight"]), 4096)),
        (
            "matches",
            list(condition.required(&["kind", "name"]), 4096)
                .about("Which requests are split; default: all."),
        ),
    ])
    .required(&["service", "backends"])
    .about("Calls to one Service are spread over several.")
}

pub(super) fn target() -> Schema {
    let account = || {
        object([("kind", choice(&["ServiceAccount"])), ("name", name()), ("namespace", label())])
            .required(&["kind", "name"])
    };
    let rule = object([
        ("kind", choice(&["HTTPRouteGroup", "TCPRoute"])),
        ("name", name()),
        ("matches", list(text(), 4096).about("Names of matches of the HTTPRouteGroup; default: all.")),
    ]);
    object([
        ("destination", account().about("Who is called.")),
        ("sources", list(account(), 4096).about("Who may call.")),
        ("rules", list(rule.required(&["kind", "name"]), 4096).about("What they may.")),
    ])
    .required(&["destination", "sources", "rules"])
    .about("Who may call a ServiceAccount, and what.")
}

pub(super) fn route_group() -> Schema {
    let methods = ["*", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    let one = object([
        ("name", text()),
        ("pathRegex", text().about("An expression for the beginning of the path.")),
        ("methods", list(choice(&methods), 64)),
        (
            "headers",
            anything().about(
                "Names of headers with expressions for their values: a mapping, or a list of mappings.",
            ),
        ),
    ]);
    object([("matches", list(one.required(&["name"]), 4096))])
        .required(&["matches"])
        .about("Kinds of HTTP requests, for TrafficTarget and TrafficSplit.")
}

pub(super) fn tcp_route() -> Schema {
    let matches = object([("name", text()), ("ports", list(port(), 4096))]);
    object([("matches", matches)]).about("TCP connections to some ports; default: to all.")
}

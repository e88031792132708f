//! Requests are counted by everybody on their way, and the counts must be the same to the unit.

use super::{Check, Evidence};
use crate::demo::{
    counts::Counts,
    layout::{CART, CATALOG_V1, CATALOG_V2, INVENTORY, LOAD, Member, STOREFRONT},
    metrics::sum,
};

/// One edge with its counts, in the order of the way: who counted, how many.
pub(super) fn checks(evidence: &Evidence) -> [Check; 5] {
    let whole = &evidence.whole;
    let app = |member: Member| whole.app(member.name);
    let sent: u64 = evidence.phases.iter().map(|phase| phase.load.requests).sum();
    let page = |version: &str| -> u64 {
        evidence.phases.iter().filter_map(|phase| phase.load.versions.get(version)).sum()
    };
    [
        agree(
            "load -> storefront",
            &[
                ("load", sent),
                ("its sidecar", outbound(whole, LOAD, STOREFRONT)),
                ("storefront's sidecar", inbound(whole, LOAD, STOREFRONT)),
                ("storefront", app(STOREFRONT).total()),
            ],
        ),
        catalog(whole, "storefront -> catalog-v1", CATALOG_V1, page("v1")),
        catalog(whole, "storefront -> catalog-v2", CATALOG_V2, page("v2")),
        agree(
            "storefront -> cart",
            &[
                ("storefront", app(STOREFRONT).calls("cart")),
                ("its sidecar", outbound(whole, STOREFRONT, CART)),
                ("cart's sidecar", inbound(whole, STOREFRONT, CART)),
                ("cart", app(CART).by(STOREFRONT.account)),
            ],
        ),
        agree(
            "cart -> inventory (connections)",
            &[
                ("cart", app(CART).connections_opened),
                ("its sidecar", connections(whole, CART, "outbound")),
                ("inventory's sidecar", connections(whole, INVENTORY, "inbound")),
                ("inventory", app(INVENTORY).connections_accepted),
            ],
        ),
    ]
}

/// The storefront knows how often it called catalog, and the pages which version they show.
fn catalog(whole: &Counts, name: &'static str, version: Member, pages: u64) -> Check {
    let counts = [
        ("pages", pages),
        ("its sidecar", outbound(whole, STOREFRONT, version)),
        ("catalog's sidecar", inbound(whole, STOREFRONT, version)),
        ("catalog", whole.app(version.name).total()),
    ];
    let mut check = agree(name, &counts);
    let called = whole.app(STOREFRONT.name).calls("catalog");
    let served: u64 = [CATALOG_V1, CATALOG_V2].iter().map(|m| whole.app(m.name).total()).sum();
    if called != served {
        check.holds = false;
        check.detail =
            format!("{}; storefront made {called} calls, both versions served {served}", check.detail);
    }
    check
}

/// Holds when all counts are the same and not 0.
fn agree(name: &'static str, counts: &[(&str, u64)]) -> Check {
    let first = counts.first().map_or(0, |(_, n)| *n);
    let same = first > 0 && counts.iter().all(|(_, n)| *n == first);
    let parts: Vec<String> = counts.iter().map(|(who, n)| format!("{who} {n}")).collect();
    Check::new(name, same, parts.join(if same { " = " } else { ", " }))
}

/// Requests that the caller's sidecar sent to `to`.
fn outbound(whole: &Counts, from: Member, to: Member) -> u64 {
    sum(&whole.proxy(from.name).requests, |edge| edge.direction == "outbound" && edge.workload == to.name)
}

/// Requests from `from` that the callee's sidecar took.
fn inbound(whole: &Counts, from: Member, to: Member) -> u64 {
    sum(&whole.proxy(to.name).requests, |edge| edge.direction == "inbound" && edge.source == from.account)
}

/// TCP connections between cart and inventory, as the sidecar of `at` counted them.
fn connections(whole: &Counts, at: Member, direction: &str) -> u64 {
    sum(&whole.proxy(at.name).connections, |edge| {
        edge.direction == direction && edge.source == CART.account && edge.workload == INVENTORY.name
    })
}

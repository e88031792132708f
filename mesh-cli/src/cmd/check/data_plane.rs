//! Checks of the proxies: connected, up to date, certified, reporting.

use mesh_proto::view::v1 as pb;

use super::model::{Check, Outcome};
use crate::{
    cmd::{Skew, ago, skew, when},
    out::units,
    view::WorkloadView,
};

const PROXIES: &str = "Proxies";

/// A proxy that has not reported for so long is not reporting, in milliseconds.
const REPORTS_WITHIN: i64 = 30_000;

/// What a controller in a cluster says that it reads.
const KUBERNETES: &str = "Kubernetes";

/// One workload and its connected proxy.
struct Pair<'a> {
    name: String,
    proxy: &'a pb::Proxy,
}

/// What one proxy is told when it is not well.
type Finding = (Outcome, String, &'static str);

/// True when every connected proxy has applied the newest configuration.
pub(super) fn is_settled(status: &pb::GetStatusResponse, workloads: &[WorkloadView]) -> bool {
    pairs(workloads).iter().all(|pair| pair.proxy.generation >= status.generation)
}

fn pairs(workloads: &[WorkloadView]) -> Vec<Pair<'_>> {
    let connected = workloads.iter().filter_map(|view| {
        let proxy = view.proxy.as_ref().filter(|proxy| proxy.connected)?;
        Some(Pair { name: format!("Workload {}", view.config.workload), proxy })
    });
    connected.collect()
}

/// All checks of proxies. Times are judged by the controller's clock.
pub(super) fn checks(status: &pb::GetStatusResponse, workloads: &[WorkloadView]) -> Vec<Check> {
    let in_cluster = status.source == KUBERNETES;
    if workloads.is_empty() {
        let remedy = if in_cluster {
            "kubectl label namespace NAME meshctl.dev/inject=enabled; new pods there get a proxy"
        } else {
            "add Workloads to the source directory, or try `meshctl demo`"
        };
        return vec![Check::bad(PROXIES, "there are workloads", Outcome::Warn, "the mesh has none", remedy)];
    }
    let now = status.now_millis;
    let mut checks = connected(workloads, now, in_cluster);
    let pairs = pairs(workloads);
    let mut all = |check: &'static str, find: &dyn Fn(&pb::Proxy) -> Option<Finding>| {
        checks.extend(each(check, &pairs, find));
    };
    all("its proxy has applied the newest configuration", &|proxy| generation(proxy, status.generation));
    all("its proxy has refused no configuration", &rejected);
    all("its proxy's certificate is valid", &|proxy| certificate(proxy, now));
    all("its proxy reports what it counts", &|proxy| reporting(proxy, now));
    all("its proxy's version fits the controller's", &|proxy| version(proxy, &status.version));
    checks
}

/// One check for each proxy that is not well, or one for all.
fn each(check: &'static str, pairs: &[Pair<'_>], find: &dyn Fn(&pb::Proxy) -> Option<Finding>) -> Vec<Check> {
    let bad: Vec<Check> = pairs
        .iter()
        .filter_map(|pair| {
            let (result, reason, remedy) = find(pair.proxy)?;
            Some(Check::bad(PROXIES, check, result, reason, remedy).of(pair.name.clone()))
        })
        .collect();
    match (pairs.len(), bad.is_empty()) {
        (0, _) => Vec::new(),
        (all, true) => vec![Check::ok(PROXIES, check, format!("{all} of {all}")).of("every workload")],
        (_, false) => bad,
    }
}

fn connected(workloads: &[WorkloadView], now: i64, in_cluster: bool) -> Vec<Check> {
    let check = "its proxy is connected";
    let mut bad = Vec::new();
    for view in workloads {
        let workload = &view.config.workload;
        let reason = match &view.proxy {
            Some(proxy) if proxy.connected => continue,
            Some(proxy) => format!("its proxy was lost {}", ago(proxy.since_millis, now)),
            None => "no proxy ever connected for it".into(),
        };
        let remedy = if in_cluster {
            format!("see its log: meshctl logs {workload}")
        } else {
            format!("start it and see its log: mesh-proxy run --workload {workload}")
        };
        let check = Check::bad(PROXIES, check, Outcome::Fail, reason, remedy);
        bad.push(check.of(format!("Workload {workload}")));
    }
    if bad.is_empty() {
        let all = workloads.len();
        bad.push(Check::ok(PROXIES, check, format!("{all} of {all}")).of("every workload"));
    }
    bad
}

fn generation(proxy: &pb::Proxy, newest: u64) -> Option<Finding> {
    let behind = newest.saturating_sub(proxy.generation);
    let reason = || match proxy.pending {
        0 => format!("it is {behind} behind (has {}, newest is {newest})", proxy.generation),
        pending => {
            let answers = units::count(usize::try_from(pending).unwrap_or(usize::MAX), "change", "changes");
            format!(
                "it is {behind} behind (has {}, newest is {newest}) and has not answered {answers}",
                proxy.generation
            )
        }
    };
    (behind > 0).then(|| {
        (Outcome::Fail, reason(), "see the proxy's log; it keeps what it has, so restarting is a last resort")
    })
}

fn rejected(proxy: &pb::Proxy) -> Option<Finding> {
    if proxy.rejected.is_empty() {
        return None;
    }
    let all: Vec<String> = proxy.rejected.iter().map(|one| format!("{}: {}", one.name, one.error)).collect();
    Some((
        Outcome::Fail,
        all.join(", "),
        "mend the objects behind it, or use the same version of proxy and controller",
    ))
}

fn certificate(proxy: &pb::Proxy, now: i64) -> Option<Finding> {
    let remedy = "see the proxy's log: it renews at half of a certificate's life";
    match proxy.certificate_not_after {
        0 => Some((Outcome::Warn, "when it expires is not known".into(), remedy)),
        end if end <= now / 1000 => Some((Outcome::Fail, format!("it expired {}", when(end, now)), remedy)),
        _ => None,
    }
}

fn reporting(proxy: &pb::Proxy, now: i64) -> Option<Finding> {
    let remedy = "see the proxy's log; stat and edges lack what it counts";
    let last = proxy.reported_millis.max(proxy.since_millis);
    if now.saturating_sub(last) < REPORTS_WITHIN {
        return None;
    }
    let reason = match proxy.reported_millis {
        0 => "it never reported".into(),
        at => format!("it last reported {}", ago(at, now)),
    };
    Some((Outcome::Fail, reason, remedy))
}

fn version(proxy: &pb::Proxy, controller: &str) -> Option<Finding> {
    let reason = || format!("the proxy is {}, the controller is {controller}", proxy.version);
    match skew(&proxy.version, controller) {
        Skew::None => None,
        Skew::Supported => {
            Some((Outcome::Warn, reason(), "they work together; restart the proxy with the newer binary"))
        }
        Skew::Unsupported => {
            Some((Outcome::Fail, reason(), "use versions that are at most one minor version apart"))
        }
    }
}

//! Checks of pods: those that should have a proxy and have none, and proxies of another version.

use mesh_k8s::names::PROXY_CONTAINER;
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::model::{Check, Outcome};
use crate::{
    cluster::standing::{Standing, full_name, has_ended, meshed, owner, standing},
    cmd::{Skew, skew},
    out::units,
};

const PODS: &str = "Pods";

/// Checks of all pods. `version`: that of the controller, where it is known; `now`: in milliseconds.
pub(super) fn checks(namespaces: &[Value], pods: &[Value], version: Option<&str>, now: i64) -> Vec<Check> {
    let meshed = meshed(namespaces);
    let (mut without, mut old, mut unready, mut inside) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for pod in pods.iter().filter(|pod| !has_ended(pod)) {
        match standing(pod, &meshed) {
            Standing::In(injected) => {
                inside += 1;
                let other = |theirs: &String| version.is_some_and(|version| theirs != version);
                if let (Some(theirs), Some(ours)) = (injected.filter(other), version) {
                    old.push(of_version(pod, &theirs, ours));
                }
                unready.extend(proxy_container(pod).and_then(|status| not_ready(pod, status, now)));
            }
            Standing::NotAsked | Standing::OptedOut => {}
            Standing::Cannot(why) => {
                let remedy =
                    "label it meshctl.dev/inject=disabled to say so, or take it off the host's network";
                without.push(lacks(pod, Outcome::Warn, why, remedy.to_owned()));
            }
            Standing::Missing => {
                let why = "it has no proxy: it was made before its namespace or itself asked for one, or while the \
                           webhook was not there";
                without.push(lacks(pod, Outcome::Fail, why, again(pod)));
            }
            Standing::Refused(why) => {
                let why = format!("it has no proxy, and with one it would be refused: {why}");
                without.push(lacks(pod, Outcome::Fail, &why, "change its template".to_owned()));
            }
        }
    }
    let all = || Some(format!("{inside} with a proxy"));
    if without.is_empty() {
        without.push(Check::ok(PODS, HAVE, all()).of("every pod"));
    }
    if old.is_empty() && version.is_some() {
        old.push(Check::ok(PODS, OF_VERSION, all()).of("every pod"));
    }
    if unready.is_empty() {
        unready.push(Check::ok(PODS, READY, all()).of("every pod"));
    }
    without.extend(old);
    without.extend(unready);
    without.sort_by(|a, b| (a.check, &a.reason, &a.subject).cmp(&(b.check, &b.reason, &b.subject)));
    without
}

const HAVE: &str = "has the proxy that it is to have";
const OF_VERSION: &str = "its proxy was put there by this version";
const READY: &str = "its proxy is ready";
/// A pod that began less than this ago may still be starting, in milliseconds.
const STARTING: i64 = 60_000;

fn lacks(pod: &Value, result: Outcome, why: &str, remedy: String) -> Check {
    Check::bad(PODS, HAVE, result, why, remedy).of(format!("Pod {}", full_name(pod)))
}

fn of_version(pod: &Value, theirs: &str, ours: &str) -> Check {
    let result = if skew(theirs, ours) == Skew::Unsupported { Outcome::Fail } else { Outcome::Warn };
    let reason = format!("it is of version {theirs}, the controller is {ours}");
    Check::bad(PODS, OF_VERSION, result, reason, again(pod)).of(format!("Pod {}", full_name(pod)))
}

/// The status of a pod's proxy; None: the kubelet has not told it yet.
fn proxy_container(pod: &Value) -> Option<&Value> {
    let of = |field: &str| pod["status"][field].as_array().into_iter().flatten();
    of("containerStatuses").chain(of("initContainerStatuses")).find(|c| c["name"] == PROXY_CONTAINER)
}

fn not_ready(pod: &Value, status: &Value, now: i64) -> Option<Check> {
    if status["ready"] == true {
        return None;
    }
    let text = |place: &str| status.pointer(place).and_then(Value::as_str);
    let why = text("/state/waiting/reason").or_else(|| text("/state/terminated/reason"));
    let message = text("/state/waiting/message").map(|text| format!(": {text}")).unwrap_or_default();
    let began = pod["status"]["startTime"].as_str().and_then(|t| OffsetDateTime::parse(t, &Rfc3339).ok());
    let fresh = began.is_some_and(|t| now.saturating_sub(t.unix_timestamp().saturating_mul(1000)) < STARTING);
    let result = if fresh { Outcome::Warn } else { Outcome::Fail };
    let starting = if fresh { "; it may still be starting" } else { "" };
    let reason = match status["restartCount"].as_u64().unwrap_or(0) {
        0 => format!("{}{message}{starting}", why.unwrap_or("it says that it is not")),
        times => {
            let times = units::count(usize::try_from(times).unwrap_or(usize::MAX), "time", "times");
            format!("{}{message}; it was restarted {times}", why.unwrap_or("it says that it is not"))
        }
    };
    let name = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
    let remedy =
        format!("see its log: kubectl -n {} logs {} -c {PROXY_CONTAINER}", name("namespace"), name("name"));
    Some(Check::bad(PODS, READY, result, reason, remedy).of(format!("Pod {}", full_name(pod))))
}

/// How a pod is made again.
fn again(pod: &Value) -> String {
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
    match owner(pod) {
        Some(owner)
            if ["deployment/", "daemonset/", "statefulset/"].iter().any(|kind| owner.starts_with(kind)) =>
        {
            format!("make it again: kubectl -n {namespace} rollout restart {owner}")
        }
        Some(owner) => format!("delete it, and {owner} makes it again"),
        None => "delete it, and make it again".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, spec: &Value) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "shop", "labels": {"pod-template-hash": "1"},
                "annotations": {"meshctl.dev/injected": "0.1.0"},
                "ownerReferences": [{"kind": "ReplicaSet", "name": "cart-1", "controller": true}]},
            "spec": spec,
        })
    }

    fn told(pods: &[Value], version: &str) -> Vec<String> {
        let shop = json!({"metadata": {"name": "shop", "labels": {"meshctl.dev/inject": "enabled"}}});
        let line = |c: Check| format!("{:?} {}: {}", c.result, c.line(), c.remedy.unwrap_or_default());
        checks(&[shop], pods, Some(version), 1_796_145_117_000).into_iter().map(line).collect()
    }

    #[test]
    fn pods_without_a_proxy_and_old_proxies() {
        let good = pod("a", &json!({"containers": [{"name": "mesh-proxy"}]}));
        assert_eq!(
            told(std::slice::from_ref(&good), "0.1.0"),
            [
                "Ok every pod: has the proxy that it is to have (1 with a proxy): ",
                "Ok every pod: its proxy is ready (1 with a proxy): ",
                "Ok every pod: its proxy was put there by this version (1 with a proxy): ",
            ]
        );
        let restart = "make it again: kubectl -n shop rollout restart deployment/cart";
        assert_eq!(
            told(std::slice::from_ref(&good), "0.3.0")[2],
            format!("Fail Pod shop/a: its proxy was put there by this version: {restart}")
        );
        assert!(told(&[good], "0.2.0")[2].starts_with("Warn Pod shop/a: "));
        let mut bare = pod("b", &json!({"containers": [{"name": "app", "image": "i"}]}));
        bare["metadata"]["annotations"] = json!({});
        let expected = format!("Fail Pod shop/b: has the proxy that it is to have: {restart}");
        assert_eq!(told(std::slice::from_ref(&bare), "0.1.0")[0], expected);
        let mut ended = bare;
        ended["status"] = json!({"phase": "Succeeded"});
        assert!(told(&[ended], "0.1.0")[0].starts_with("Ok "));
        let host = pod("c", &json!({"hostNetwork": true, "containers": [{"name": "app"}]}));
        assert!(told(&[host], "0.1.0")[0].starts_with("Warn Pod shop/c: has the proxy"));
    }

    #[test]
    fn proxies_that_are_not_ready() {
        let line = |status: Value, began: &str| {
            let mut pod = pod("a", &json!({"initContainers": [{"name": "mesh-proxy"}]}));
            pod["status"] = json!({"startTime": began, "initContainerStatuses": [status]});
            let checks = checks(&[], &[pod], None, 1_796_145_117_000);
            let check = checks.into_iter().find(|check| check.check == READY).unwrap();
            format!("{:?} {}", check.result, check.reason.unwrap_or_default())
        };
        let (long_ago, just_now) = ("2026-12-01T16:11:57Z", "2026-12-01T17:11:50Z");
        let waiting = json!({"name": "mesh-proxy", "ready": false, "restartCount": 2,
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}});
        assert_eq!(line(waiting, long_ago), "Fail CrashLoopBackOff: back-off; it was restarted 2 times");
        let running = json!({"name": "mesh-proxy", "ready": false, "state": {"running": {}}});
        assert_eq!(line(running.clone(), long_ago), "Fail it says that it is not");
        assert_eq!(line(running, just_now), "Warn it says that it is not; it may still be starting");
        assert_eq!(line(json!({"name": "mesh-proxy", "ready": true}), long_ago), "Ok ");
    }
}

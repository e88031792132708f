//! `meshctl check --proxy`: what each proxy says itself, asked one by one through the API server.

use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;

use super::model::{Check, Outcome};
use crate::{
    admin,
    cluster::{Cluster, standing::full_name},
    cmd::{Skew, now_millis, skew, when},
    out::units,
};

const PROXY: &str = "Each proxy";
/// Proxies that are asked at the same time.
const AT_ONCE: usize = 8;
/// Older configuration than this is told as a failure, in seconds.
const OLD: f64 = 30.0;

/// What a proxy says of itself.
#[derive(Debug)]
struct Said {
    pod: String,
    /// The identity that its pod gives it.
    wanted: String,
    status: Result<Value, String>,
    certificates: Result<Value, String>,
}

/// What proxies are compared with; None: not known, for the controller does not answer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted<'a> {
    pub(super) trust_domain: Option<&'a str>,
    /// Version of the controller.
    pub(super) version: Option<&'a str>,
}

/// Asks the proxies of these pods.
pub(super) async fn checks(
    cluster: &Cluster,
    pods: &[&Value],
    wanted: Wanted<'_>,
    patience: Duration,
) -> Vec<Check> {
    let mut said = Vec::new();
    for some in pods.chunks(AT_ONCE) {
        let mut asked = JoinSet::new();
        for pod in some {
            let domain = wanted.trust_domain.map(ToOwned::to_owned);
            asked.spawn(ask(cluster.clone(), (*pod).clone(), domain, patience));
        }
        said.extend(asked.join_all().await);
    }
    said.sort_by(|a, b| a.pod.cmp(&b.pod));
    if said.is_empty() {
        let remedy = "kubectl label namespace NAME meshctl.dev/inject=enabled; new pods there get one";
        return vec![Check::bad(PROXY, "there are proxies", Outcome::Warn, "no pod has one", remedy)];
    }
    let now = now_millis();
    said.iter().map(|said| judge(said, wanted.version, now)).collect()
}

async fn ask(cluster: Cluster, pod: Value, trust_domain: Option<String>, patience: Duration) -> Said {
    let text = |path: &str| pod.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    let account = match text("/spec/serviceAccountName") {
        "" => "default",
        account => account,
    };
    let domain = trust_domain.unwrap_or_default();
    let wanted = format!("spiffe://{domain}/ns/{namespace}/sa/{account}");
    let get = |path| admin::of_pod(&cluster, namespace, name, path, patience);
    let status = get("/status").await;
    let certificates =
        if status.is_ok() { get("/certificates").await } else { Err("it was not asked".to_owned()) };
    let wanted = if domain.is_empty() { String::new() } else { wanted };
    Said { pod: full_name(&pod), wanted, status, certificates }
}

/// One check for a proxy: the worst of what is wrong.
fn judge(said: &Said, version: Option<&str>, now: i64) -> Check {
    let check = "it is connected, up to date, and who it should be";
    let log =
        format!("see its log: kubectl -n {} logs {} -c mesh-proxy", namespace(&said.pod), name(&said.pod));
    let found = match &said.status {
        Ok(status) => trouble(status, said, now)
            .map(|reason| (Outcome::Fail, reason, log))
            .or_else(|| other_version(status, version)),
        Err(error) => {
            let remedy = format!("{log}; it takes the right to create pods/portforward");
            Some((Outcome::Fail, format!("its admin cannot be asked: {error}"), remedy))
        }
    };
    let made = match found {
        Some((result, reason, remedy)) => Check::bad(PROXY, check, result, reason, remedy),
        None => Check::ok(PROXY, check, summary(said, now)),
    };
    made.of(format!("Pod {}", said.pod))
}

/// A proxy that runs another version than the controller.
fn other_version(status: &Value, version: Option<&str>) -> Option<(Outcome, String, String)> {
    let (theirs, ours) = (status["version"].as_str()?, version?);
    let result = match skew(theirs, ours) {
        Skew::None => return None,
        Skew::Supported => Outcome::Warn,
        Skew::Unsupported => Outcome::Fail,
    };
    let remedy = "make its pod again, so that it gets the proxy of this version";
    Some((result, format!("it runs {theirs}, the controller is {ours}"), remedy.to_owned()))
}

fn namespace(pod: &str) -> &str {
    pod.split_once('/').map_or("", |(namespace, _)| namespace)
}

fn name(pod: &str) -> &str {
    pod.split_once('/').map_or(pod, |(_, name)| name)
}

fn age(status: &Value) -> f64 {
    status["discovery_age_seconds"].as_f64().unwrap_or(0.0)
}

fn identity(said: &Said) -> &str {
    said.certificates.as_ref().ok().and_then(|c| c["identity"].as_str()).unwrap_or("not known")
}

fn trouble(status: &Value, said: &Said, now: i64) -> Option<String> {
    let missing: Vec<&str> =
        status["missing"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if status["ready"] != true {
        return Some(format!("it is not ready: {}", missing.join("; ")));
    }
    if status["discovery_connected"] != true && age(status) >= OLD {
        let span = units::span(age(status) as u64);
        return Some(format!("it has not heard the controller for {span}, and works with what it has"));
    }
    match &said.certificates {
        Err(error) => Some(format!("its certificate is not known: {error}")),
        Ok(_) if !said.wanted.is_empty() && identity(said) != said.wanted => {
            Some(format!("it is {}, and its pod runs as {}", identity(said), said.wanted))
        }
        Ok(_) => {
            let end = not_after(said).filter(|end| *end <= now / 1000)?;
            Some(format!("its certificate expired {}: nobody lets it in", when(end, now)))
        }
    }
}

/// When its certificate expires, in seconds since the Unix epoch.
fn not_after(said: &Said) -> Option<i64> {
    said.certificates.as_ref().ok()?["not_after"].as_i64()
}

fn summary(said: &Said, now: i64) -> String {
    let status = said.status.as_ref().ok();
    let version = status.and_then(|status| status["version"].as_str()).unwrap_or("?");
    let age = status.map_or(0.0, age);
    let age = if age > 0.0 { format!("{} old", units::span(age as u64)) } else { "current".to_owned() };
    let until = not_after(said).map(|end| format!(", certificate expires {}", when(end, now)));
    format!("{version}, configuration {age}, {}{}", identity(said), until.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const WANTED: &str = "spiffe://t/ns/shop/sa/cart";

    fn told(change: impl FnOnce(&mut Said)) -> String {
        let mut said = Said {
            pod: "shop/cart-1".into(),
            wanted: WANTED.into(),
            status: Ok(json!({"ready": true, "version": "0.1.0", "discovery_connected": true})),
            certificates: Ok(json!({"identity": WANTED})),
        };
        change(&mut said);
        let check = judge(&said, Some("0.1.0"), 1_000_000);
        check.reason.unwrap_or_else(|| check.detail.unwrap_or_default())
    }

    #[test]
    fn what_a_proxy_says_is_judged() {
        assert_eq!(told(|_| {}), format!("0.1.0, configuration current, {WANTED}"));
        assert_eq!(
            told(|s| s.status = Ok(json!({"ready": false, "missing": ["no certificate"]}))),
            "it is not ready: no certificate"
        );
        let lost = |age: f64| json!({"ready": true, "version": "0.1.0", "discovery_connected": false, "discovery_age_seconds": age});
        assert_eq!(
            told(|s| s.status = Ok(lost(90.0))),
            "it has not heard the controller for 1m30s, and works with what it has"
        );
        assert_eq!(told(|s| s.status = Ok(lost(5.0))), format!("0.1.0, configuration 5s old, {WANTED}"));
        let until = |end: i64| Ok(json!({"identity": WANTED, "not_after": end}));
        assert_eq!(
            told(|s| s.certificates = until(1060)),
            format!("0.1.0, configuration current, {WANTED}, certificate expires in 1m")
        );
        assert_eq!(
            told(|s| s.certificates = until(940)),
            "its certificate expired 1m ago: nobody lets it in"
        );
        let of = |version: &str| json!({"ready": true, "version": version, "discovery_connected": true});
        assert_eq!(told(|s| s.status = Ok(of("0.2.0"))), "it runs 0.2.0, the controller is 0.1.0");
        assert_eq!(
            told(|s| s.certificates = Ok(json!({"identity": "spiffe://t/ns/shop/sa/x"}))),
            format!("it is spiffe://t/ns/shop/sa/x, and its pod runs as {WANTED}")
        );
        assert_eq!(told(|s| s.status = Err("gone".into())), "its admin cannot be asked: gone");
    }
}

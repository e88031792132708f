//! Checks of what the mesh is made of in a cluster: its objects, the controller's pods, webhooks, copies of the root. Pure
//! functions of what the API server says.

use std::collections::BTreeMap;

use base64::Engine as _;
use mesh_k8s::{
    crd,
    names::{TRUST_BUNDLE, TRUST_BUNDLE_KEY},
};
use mesh_proto::view::v1 as pb;
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::model::{Check, Outcome};
use crate::{
    chart::NAMESPACE,
    cluster::{
        objects::{Change, Id},
        standing::full_name,
        trouble::{condition, pod_trouble},
    },
    out::units,
};

pub(super) const INSTALLATION: &str = "Installation";
/// A leader renews far more often than this, in seconds.
const LEASE: i64 = 60;
const LOG: &str = "see the controller's log: kubectl -n mesh-system logs deploy/mesh-controller";

/// The mesh's objects: are they as they were installed? None: an object is not there.
pub(super) fn objects(found: &[(Id, Option<Change>)]) -> Vec<Check> {
    let check = "is there, as it was installed";
    let remedy = "put it back with `meshctl install`, which keeps the values";
    let bad = found.iter().filter_map(|(id, change)| {
        let (result, reason) = match change {
            Some(Change::Unchanged) => return None,
            Some(Change::Changed) => (Outcome::Warn, "somebody has changed it"),
            Some(Change::Created) | None => (Outcome::Fail, "it is not there"),
        };
        Some(Check::bad(INSTALLATION, check, result, reason, remedy).of(id.to_string()))
    });
    or_all(bad.collect(), || Check::ok(INSTALLATION, check, count(found.len(), "object")).of("every object"))
}

/// Kinds of the mesh: are they served?
pub(super) fn kinds(definitions: &[Value]) -> Vec<Check> {
    let check = "the kind is served";
    let bad = definitions.iter().filter_map(|definition| {
        if condition(definition, "Established").is_some_and(|c| c["status"] == "True") {
            return None;
        }
        let names = condition(definition, "NamesAccepted").filter(|c| c["status"] == "False");
        let reason = names.and_then(|c| c["message"].as_str()).unwrap_or("it is not established");
        let remedy = "see `kubectl describe crd`: another definition may have the name";
        let name = definition["metadata"]["name"].as_str().unwrap_or_default();
        let subject = format!("CustomResourceDefinition {name}");
        Some(Check::bad(INSTALLATION, check, Outcome::Fail, reason, remedy).of(subject))
    });
    let is_there = |name: &str| definitions.iter().any(|definition| definition["metadata"]["name"] == name);
    let gone = crd::ALL.iter().filter(|crd| crd.is_own() && !is_there(&crd.name())).map(|crd| {
        let remedy = "bring it with `meshctl install`, if the values do not leave it out";
        let check = Check::bad(INSTALLATION, check, Outcome::Warn, "it is not there", remedy);
        check.of(format!("CustomResourceDefinition {}", crd.name()))
    });
    or_all(bad.chain(gone).collect(), || {
        Check::ok(INSTALLATION, check, count(definitions.len(), "kind")).of("every kind")
    })
}

/// Pods of the controller: ready, and not restarted.
pub(super) fn controllers(pods: &[Value]) -> Vec<Check> {
    let check = "the controller's pods are ready";
    if pods.is_empty() {
        let remedy =
            format!("see `kubectl -n {NAMESPACE} describe deploy/mesh-controller`, or run `meshctl install`");
        return vec![Check::bad(INSTALLATION, check, Outcome::Fail, "there is none", remedy)];
    }
    let mut bad = Vec::new();
    for pod in pods {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let subject = format!("Pod {}", full_name(pod));
        if condition(pod, "Ready").is_none_or(|c| c["status"] != "True") {
            let reason = pod_trouble(name, pod).map(|trouble| trouble.text);
            let reason = reason.unwrap_or_else(|| "it is not ready".to_owned());
            bad.push(Check::bad(INSTALLATION, check, Outcome::Fail, reason, LOG).of(subject.clone()));
        }
        for container in pod["status"]["containerStatuses"].as_array().into_iter().flatten() {
            let restarts = container["restartCount"].as_u64().unwrap_or(0);
            if restarts > 0 {
                let ended = &container["lastState"]["terminated"];
                let why = ended["reason"].as_str().unwrap_or("a reason that is not known");
                let code = ended["exitCode"].as_i64().map(|c| format!(", exit code {c}")).unwrap_or_default();
                let times = units::count(usize::try_from(restarts).unwrap_or(usize::MAX), "time", "times");
                let reason = format!("it was restarted {times}, last for {why}{code}");
                let remedy = format!("see `kubectl -n {NAMESPACE} logs --previous {name}`");
                let check = "the controller's pods stay up";
                bad.push(Check::bad(INSTALLATION, check, Outcome::Warn, reason, remedy).of(subject.clone()));
            }
        }
    }
    or_all(bad, || Check::ok(INSTALLATION, check, format!("{0} of {0}", pods.len())))
}

/// One of the controllers leads: it writes roots and webhooks. `now`: in milliseconds; None: there is no Lease.
pub(super) fn leader(lease: Option<&Value>, now: i64) -> Check {
    let check = "a controller leads";
    let spec = lease.map_or(&Value::Null, |lease| &lease["spec"]);
    let holder = spec["holderIdentity"].as_str().unwrap_or_default();
    let renewed = spec["renewTime"].as_str().and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    let reason = match renewed {
        _ if holder.is_empty() => "nobody holds the Lease mesh-controller".to_owned(),
        None => format!("{holder} holds the Lease mesh-controller, and never renewed it"),
        Some(renewed) => {
            let old = now / 1000 - renewed.unix_timestamp();
            if old < LEASE {
                return Check::ok(INSTALLATION, check, holder.to_owned());
            }
            format!(
                "{holder} holds the Lease mesh-controller, and last renewed it {} ago",
                units::span(old.unsigned_abs())
            )
        }
    };
    let remedy = format!("roots and webhooks are not kept current; {LOG}");
    Check::bad(INSTALLATION, check, Outcome::Fail, reason, remedy)
}

/// The agents of the CNI plugin: one is ready on every node that is to have one.
pub(super) fn agents(set: &Value) -> Check {
    let check = "the CNI plugin's agents are ready";
    let number = |field: &str| set["status"][field].as_u64().unwrap_or(0);
    let (wanted, ready) = (number("desiredNumberScheduled"), number("numberReady"));
    if ready >= wanted {
        return Check::ok(INSTALLATION, check, format!("{ready} of {wanted}"));
    }
    let reason = format!("{ready} of {wanted} are: pods with a proxy do not start on the other nodes");
    let remedy = format!("see `kubectl -n {NAMESPACE} describe daemonset mesh-cni`, and the agents' logs");
    Check::bad(INSTALLATION, check, Outcome::Fail, reason, remedy)
}

/// Webhooks: does the API server know the controller by its present root, and is there somebody to ask?
pub(super) fn webhooks(configurations: &[Value], root: &str, slices: &[Value]) -> Vec<Check> {
    let check = "the API server knows the controller's certificate";
    let mut checks = Vec::new();
    for configuration in configurations {
        let kind = configuration["kind"].as_str().unwrap_or("Webhook");
        let name = configuration["metadata"]["name"].as_str().unwrap_or_default();
        let hooks = configuration["webhooks"].as_array().into_iter().flatten();
        let reasons: Vec<String> = hooks.filter_map(|hook| bundle_trouble(hook, root)).collect();
        let subject = format!("{kind} {name}");
        checks.push(match reasons.first() {
            None => Check::ok(INSTALLATION, check, None).of(subject),
            Some(reason) => Check::bad(INSTALLATION, check, Outcome::Fail, reason, LOG).of(subject),
        });
    }
    let check = "the webhook can be reached";
    let ready = |slice: &Value| {
        let endpoints = slice["endpoints"].as_array().into_iter().flatten();
        endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false).count()
    };
    checks.push(match slices.iter().map(ready).sum::<usize>() {
        0 => {
            let reason =
                format!("the Service {NAMESPACE}/mesh-controller has no ready endpoint: no pod is made in meshed namespaces");
            let remedy = "get a pod of the controller ready";
            Check::bad(INSTALLATION, check, Outcome::Fail, reason, remedy)
        }
        ready => Check::ok(INSTALLATION, check, count(ready, "endpoint")),
    });
    checks
}

/// What is wrong with a webhook's `caBundle`.
fn bundle_trouble(hook: &Value, root: &str) -> Option<String> {
    let name = hook["name"].as_str().unwrap_or_default();
    let text = hook["clientConfig"]["caBundle"].as_str().unwrap_or_default();
    if text.is_empty() {
        return Some(format!("{name} has no caBundle"));
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default();
    let theirs = String::from_utf8_lossy(&bytes);
    (theirs.trim() != root.trim()).then(|| format!("the caBundle of {name} is not the mesh's present root"))
}

/// Copies of the root in the namespaces that need one.
pub(super) fn bundles(copies: &BTreeMap<String, Option<String>>, root: &str) -> Vec<Check> {
    let check = "has the mesh's present root";
    let bad = copies.iter().filter_map(|(namespace, copy)| {
        let reason = match copy {
            Some(copy) if copy.trim() == root.trim() => return None,
            Some(_) => format!("the ConfigMap {TRUST_BUNDLE} there is another"),
            None => format!("the ConfigMap {TRUST_BUNDLE} is not there: pods with a proxy do not start"),
        };
        let remedy = format!("the leading controller writes it; {LOG}");
        Some(
            Check::bad(INSTALLATION, check, Outcome::Fail, reason, remedy)
                .of(format!("Namespace {namespace}")),
        )
    });
    let all =
        || Check::ok(INSTALLATION, check, count(copies.len(), "namespace")).of("every meshed namespace");
    if copies.is_empty() { Vec::new() } else { or_all(bad.collect(), all) }
}

/// The root in a ConfigMap.
pub(super) fn root_of(bundle: &Value) -> Option<String> {
    bundle["data"][TRUST_BUNDLE_KEY].as_str().map(ToOwned::to_owned)
}

/// The root that is in the cluster is that of the controller which answers.
pub(super) fn anchored(root: &str, anchors: &[pb::Anchor]) -> Check {
    let check = "the root in the cluster is the controller's";
    let sums = fingerprints(root);
    let known = |sum: &String| anchors.iter().any(|anchor| anchor.sha256 == *sum);
    if !sums.is_empty() && sums.iter().all(known) {
        return Check::ok(INSTALLATION, check, None);
    }
    let reason = format!("the ConfigMap {NAMESPACE}/{TRUST_BUNDLE} holds another");
    Check::bad(INSTALLATION, check, Outcome::Fail, reason, format!("the leading controller writes it; {LOG}"))
}

/// SHA-256 of each certificate of a PEM text.
fn fingerprints(pem: &str) -> Vec<String> {
    let mut sums = Vec::new();
    for part in pem.split("-----BEGIN CERTIFICATE-----").skip(1) {
        let body = part.split("-----END").next().unwrap_or_default();
        let body: String = body.split_whitespace().collect();
        if let Ok(der) = base64::engine::general_purpose::STANDARD.decode(body) {
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der);
            sums.push(digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect());
        }
    }
    sums
}

fn count(number: usize, one: &str) -> String {
    units::count(number, one, &format!("{one}s"))
}

fn or_all(bad: Vec<Check>, ok: impl FnOnce() -> Check) -> Vec<Check> {
    if bad.is_empty() { vec![ok()] } else { bad }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(checks: Vec<Check>) -> Vec<String> {
        let line = |c: Check| format!("{:?} {}: {}", c.result, c.line(), c.reason.unwrap_or_default());
        checks.into_iter().map(line).collect()
    }

    #[test]
    fn objects_that_are_gone_or_changed() {
        let id = |name: &str| Id {
            api_version: "v1".into(),
            kind: "Service".into(),
            namespace: "mesh-system".into(),
            name: name.into(),
        };
        let found = [
            (id("a"), Some(Change::Unchanged)),
            (id("b"), Some(Change::Changed)),
            (id("c"), Some(Change::Created)),
            (id("d"), None),
        ];
        assert_eq!(
            told(objects(&found)),
            [
                "Warn Service mesh-system/b: is there, as it was installed: somebody has changed it",
                "Fail Service mesh-system/c: is there, as it was installed: it is not there",
                "Fail Service mesh-system/d: is there, as it was installed: it is not there",
            ]
        );
        assert_eq!(
            told(objects(&found[..1])),
            ["Ok every object: is there, as it was installed (1 object): "]
        );
    }

    #[test]
    fn pods_of_the_controller() {
        let pod = |ready: &str, restarts: u64| {
            json!({"metadata": {"namespace": "mesh-system", "name": "m-1"}, "status": {
                "conditions": [{"type": "Ready", "status": ready}],
                "containerStatuses": [{"restartCount": restarts,
                    "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}]}})
        };
        assert_eq!(told(controllers(&[pod("True", 0)])), ["Ok the controller's pods are ready (1 of 1): "]);
        assert_eq!(
            told(controllers(&[pod("False", 2)])),
            [
                "Fail Pod mesh-system/m-1: the controller's pods are ready: it is not ready",
                "Warn Pod mesh-system/m-1: the controller's pods stay up: it was restarted 2 times, last for OOMKilled, \
                 exit code 137",
            ]
        );
        assert_eq!(told(controllers(&[])), ["Fail the controller's pods are ready: there is none"]);
    }

    #[test]
    fn webhooks_know_the_root_and_somebody_answers() {
        let hook = |bundle: Option<&str>| {
            let bundle = bundle.map(|text| base64::engine::general_purpose::STANDARD.encode(text));
            json!({"kind": "MutatingWebhookConfiguration", "metadata": {"name": "mesh-injector"},
                "webhooks": [{"name": "n", "clientConfig": {"caBundle": bundle}}]})
        };
        let slice = |ready: bool| json!({"endpoints": [{"conditions": {"ready": ready}}]});
        let check = |bundle: Option<&str>, expected: &str| {
            let told = told(webhooks(&[hook(bundle)], "root\n", &[slice(true)]));
            let subject = "MutatingWebhookConfiguration mesh-injector: the API server knows the controller's certificate";
            let (outcome, reason) = expected.split_once(' ').unwrap();
            assert_eq!(told[0], format!("{outcome} {subject}: {reason}"));
        };
        check(Some("root"), "Ok ");
        check(Some("other"), "Fail the caBundle of n is not the mesh's present root");
        check(None, "Fail n has no caBundle");
        let nobody = told(webhooks(&[], "root", &[slice(false)]));
        assert!(nobody[0].starts_with("Fail the webhook can be reached: "), "{nobody:?}");
    }

    #[test]
    fn copies_of_the_root() {
        let copies = |text: Option<&str>| BTreeMap::from([("shop".to_owned(), text.map(ToOwned::to_owned))]);
        let outcome = |text| bundles(&copies(text), "root").remove(0).result;
        assert_eq!(outcome(Some("root\n")), Outcome::Ok);
        assert_eq!((outcome(Some("x")), outcome(None)), (Outcome::Fail, Outcome::Fail));
        assert_eq!(bundles(&BTreeMap::new(), "root"), []);
    }

    #[test]
    fn roots_are_compared_by_what_they_are() {
        let der = base64::engine::general_purpose::STANDARD.encode("certificate");
        let pem = format!("-----BEGIN CERTIFICATE-----\n{der}\n-----END CERTIFICATE-----\n");
        let sum = fingerprints(&pem).remove(0);
        assert_eq!(sum.len(), 64);
        let anchor = |sha256: &str| pb::Anchor { sha256: sha256.into(), not_after: 0 };
        assert_eq!(anchored(&pem, &[anchor(&sum)]).result, Outcome::Ok);
        assert_eq!(anchored(&pem, &[anchor("00")]).result, Outcome::Fail);
        assert_eq!(anchored("", &[anchor(&sum)]).result, Outcome::Fail);
    }

    #[test]
    fn somebody_leads() {
        let now = 1_796_145_117_000;
        let line = |spec: Value| {
            let check = leader(Some(&json!({"spec": spec})), now);
            format!("{:?} {}", check.result, check.reason.or(check.detail).unwrap_or_default())
        };
        assert_eq!(line(json!({"holderIdentity": "a", "renewTime": "2026-12-01T17:11:50.123456Z"})), "Ok a");
        assert_eq!(
            line(json!({"holderIdentity": "a", "renewTime": "2026-12-01T17:06:57.000000Z"})),
            "Fail a holds the Lease mesh-controller, and last renewed it 5m ago"
        );
        assert_eq!(line(json!({"holderIdentity": ""})), "Fail nobody holds the Lease mesh-controller");
        assert_eq!(leader(None, now).result, Outcome::Fail);
    }

    #[test]
    fn agents_on_every_node() {
        let of = |ready: u64| agents(&json!({"status": {"desiredNumberScheduled": 2, "numberReady": ready}}));
        assert_eq!((of(2).result, of(1).result), (Outcome::Ok, Outcome::Fail));
    }
}

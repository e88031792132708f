//! Checks of the mesh in a cluster, as the API server sees it; [`system`] and [`pods`] judge what is read here.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::PostParams};
use mesh_k8s::{crd, labels, names};
use mesh_proto::view::v1 as pb;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

use super::{
    model::{Check, Outcome},
    pods, pre, surroundings,
    system::{self, INSTALLATION},
};
use crate::{
    chart::{self, NAMESPACE, values},
    cluster::{
        Cluster, ClusterError,
        objects::{self, Change, Id},
        preflight, refused, rights,
        standing::{full_name, has_proxy, meshed},
        trouble,
    },
    cmd::now_millis,
    install::release::Release,
};

const CLUSTER: &str = "Cluster";
const CLOCK: &str = "its clock agrees with this machine's";
const PODS: &str = "Pods";
/// Largest difference of clocks, in milliseconds.
const MAX_CLOCK_SKEW: i64 = 5000;
const DEFINITIONS: &str = "apiextensions.k8s.io/v1";
/// What it takes to look into the mesh: verb, kind, namespace, name, and how it is told.
const LOOKS: [(&str, &str, &str, &str, &str); 5] = [
    ("list", "Namespace", "", "", "namespaces"),
    ("list", "Pod", "", "", "pods"),
    ("list", "CustomResourceDefinition", "", "", "customresourcedefinitions.apiextensions.k8s.io"),
    ("get", "Secret", NAMESPACE, names::VIEW_TOKEN_SECRET, "the Secret mesh-system/mesh-view-token"),
    ("create", "PodPortForward", NAMESPACE, "", "pods/portforward in mesh-system"),
];
const ADMISSION: &str = "admissionregistration.k8s.io/v1";

/// All checks; `status`: of the controller, where it answers.
pub(super) async fn checks(cluster: &Cluster, status: Option<&pb::GetStatusResponse>) -> Vec<Check> {
    let mut checks = pre::version(cluster);
    checks.push(surroundings::native_sidecars(cluster.version));
    checks.push(clock_of(cluster).await);
    checks.push(rights(cluster).await);
    let installed = match installed(cluster).await {
        Ok(Some(installed)) => installed,
        Ok(None) => {
            let reason = format!("there is no Deployment {NAMESPACE}/mesh-controller");
            let remedy = "install it with `meshctl install`, or name another cluster with --context";
            checks.push(Check::bad(INSTALLATION, "the mesh is installed", Outcome::Fail, reason, remedy));
            return checks;
        }
        Err(error) => {
            checks.push(unknown(INSTALLATION, "the mesh's objects are there", &error));
            return checks;
        }
    };
    checks.extend(told(
        INSTALLATION,
        "the mesh's objects are there",
        as_installed(cluster, &installed).await,
    ));
    checks.extend(told(INSTALLATION, "its kinds are served", kinds(cluster).await));
    checks.extend(told(INSTALLATION, "the controller runs", running(cluster).await));
    match seen(cluster).await {
        Ok((namespaces, pods)) => {
            let trust = trust(cluster, &namespaces, &pods, status).await;
            checks.extend(told(INSTALLATION, "the mesh's root is known everywhere", trust));
            let cni = agents().read(cluster).await.is_ok_and(|set| set.is_some());
            checks.extend(surroundings::others(&namespaces));
            checks.extend(surroundings::pod_security(&namespaces, cni));
            checks.extend(surroundings::home(&namespaces));
            checks.push(injected(cluster, &namespaces).await);
            let version = status.map(|status| status.version.as_str());
            checks.extend(pods::checks(&namespaces, &pods, version, now_millis()));
        }
        Err(error) => checks.push(unknown(PODS, "pods have proxies", &error)),
    }
    checks
}

fn told(category: &'static str, check: &'static str, found: Result<Vec<Check>, ClusterError>) -> Vec<Check> {
    found.unwrap_or_else(|error| vec![unknown(category, check, &error)])
}

/// What every other command here takes: without it most of what follows cannot be told.
async fn rights(cluster: &Cluster) -> Check {
    let check = "you may look into the mesh";
    let asked = async {
        let mut missing = Vec::new();
        for (verb, kind, namespace, name, told) in LOOKS {
            let id = Id {
                api_version: if kind == "CustomResourceDefinition" { DEFINITIONS } else { "v1" }.to_owned(),
                kind: kind.to_owned(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            };
            if !rights::may(cluster, &id, verb).await? {
                missing.push(format!("{verb} {told}"));
            }
        }
        Ok::<_, ClusterError>(missing)
    };
    match asked.await {
        Ok(missing) if missing.is_empty() => Check::ok(CLUSTER, check, None),
        Ok(missing) => {
            let reason = format!("you may not {}", missing.join("; "));
            let remedy = "use a context of somebody who may, such as a cluster-admin; docs/operate.md lists the rights";
            Check::bad(CLUSTER, check, Outcome::Warn, reason, remedy)
        }
        Err(error) => unknown(CLUSTER, check, &error),
    }
}

/// The controller's pods, which of them leads, and the agents of the CNI plugin.
async fn running(cluster: &Cluster) -> Result<Vec<Check>, ClusterError> {
    let mut checks =
        system::controllers(&objects::list(cluster, "v1", "Pod", NAMESPACE, trouble::CONTROLLER).await?);
    let lease = Id {
        api_version: "coordination.k8s.io/v1".to_owned(),
        kind: "Lease".to_owned(),
        namespace: NAMESPACE.to_owned(),
        name: names::CONTROLLER.to_owned(),
    };
    checks.push(system::leader(lease.read(cluster).await?.as_ref(), now_millis()));
    checks.extend(agents().read(cluster).await?.as_ref().map(system::agents));
    Ok(checks)
}

/// What brings the CNI plugin to the nodes.
fn agents() -> Id {
    Id {
        api_version: "apps/v1".to_owned(),
        kind: "DaemonSet".to_owned(),
        namespace: NAMESPACE.to_owned(),
        name: "mesh-cni".to_owned(),
    }
}

/// What could not be read is no failure of the mesh.
fn unknown(category: &'static str, check: &'static str, error: &ClusterError) -> Check {
    let remedy = "use a context of somebody who may read it, such as a cluster-admin";
    Check::bad(category, check, Outcome::Warn, format!("it cannot be told: {error}"), remedy)
}

/// Pods could not be read.
pub(super) fn unreadable(error: &ClusterError) -> Check {
    unknown(PODS, "proxies can be asked", error)
}

/// The API server does not answer. Our error texts are of the form "what is wrong; what to do".
pub(super) fn unreachable(error: &ClusterError) -> Check {
    let text = error.to_string();
    let (reason, remedy) = text.split_once("; ").unwrap_or((&text, ""));
    Check::bad(CLUSTER, "the API server answers", Outcome::Fail, reason, remedy)
}

/// The objects that were installed; None: no mesh is.
async fn installed(cluster: &Cluster) -> Result<Option<Vec<Value>>, ClusterError> {
    if let Some(release) = Release::read(cluster).await? {
        return Ok(Some(release.objects));
    }
    let Some(deployment) = preflight::deployment().read(cluster).await? else { return Ok(None) };
    // By Helm or from manifests, with values that are not known: the names are the same.
    let service = deployment["metadata"]["labels"][preflight::MANAGED_BY].as_str().unwrap_or("Helm");
    let defaults = values::complete(json!({})).ok().and_then(|values| chart::render(&values, service).ok());
    let kept = |object: &Value| object["kind"] != "CustomResourceDefinition";
    Ok(Some(defaults.unwrap_or_default().into_iter().filter(kept).collect()))
}

/// Compares objects with what was installed, by a dry run where whoever asks may; else sees that they are there.
async fn as_installed(cluster: &Cluster, installed: &[Value]) -> Result<Vec<Check>, ClusterError> {
    let ours = |object: &&Value| object["metadata"]["labels"][preflight::MANAGED_BY] == "meshctl";
    let mut found = Vec::new();
    for object in installed {
        let id = Id::of(object);
        let compared = match Some(object).filter(ours) {
            Some(object) => objects::apply(cluster, object, true).await.ok(),
            None => None,
        };
        let change = match compared {
            Some(change) => Some(change),
            None => id.read(cluster).await?.map(|_| Change::Unchanged),
        };
        found.push((id, change));
    }
    Ok(system::objects(&found))
}

async fn kinds(cluster: &Cluster) -> Result<Vec<Check>, ClusterError> {
    let (version, kind) = (DEFINITIONS, "CustomResourceDefinition");
    let mut definitions = objects::list(cluster, version, kind, "", "").await?;
    let versions = surroundings::kinds(&definitions);
    definitions.retain(|definition| crd::ALL.iter().any(|crd| definition["metadata"]["name"] == crd.name()));
    Ok([versions, system::kinds(&definitions)].concat())
}

/// All namespaces and all pods.
pub(super) async fn seen(cluster: &Cluster) -> Result<(Vec<Value>, Vec<Value>), ClusterError> {
    let namespaces = objects::list(cluster, "v1", "Namespace", "", "").await?;
    Ok((namespaces, objects::list(cluster, "v1", "Pod", "", "").await?))
}

/// The root, in all places where it must be. It is read where the controller publishes it: the Secret holds its key.
async fn trust(
    cluster: &Cluster,
    namespaces: &[Value],
    pods: &[Value],
    status: Option<&pb::GetStatusResponse>,
) -> Result<Vec<Check>, ClusterError> {
    let mut copies: BTreeMap<String, Option<String>> = BTreeMap::new();
    let with_proxies = pods.iter().filter(|pod| has_proxy(pod));
    let needing = with_proxies.filter_map(|pod| pod["metadata"]["namespace"].as_str());
    let wanted: BTreeSet<&str> = meshed(namespaces).into_iter().chain(needing).chain([NAMESPACE]).collect();
    for namespace in wanted {
        let id = Id {
            api_version: "v1".to_owned(),
            kind: "ConfigMap".to_owned(),
            namespace: namespace.to_owned(),
            name: names::TRUST_BUNDLE.to_owned(),
        };
        let copy = id.read(cluster).await?.as_ref().and_then(system::root_of);
        copies.insert(namespace.to_owned(), copy);
    }
    let root = copies.get(NAMESPACE).cloned().flatten().unwrap_or_default();
    let mut checks: Vec<Check> =
        status.map(|status| system::anchored(&root, &status.anchors)).into_iter().collect();
    checks.extend(system::bundles(&copies, &root));
    let mut configurations = Vec::new();
    for (kind, name) in [
        ("MutatingWebhookConfiguration", names::MUTATING_WEBHOOK),
        ("ValidatingWebhookConfiguration", names::VALIDATING_WEBHOOK),
    ] {
        let id = Id {
            api_version: ADMISSION.to_owned(),
            kind: kind.to_owned(),
            namespace: String::new(),
            name: name.to_owned(),
        };
        configurations.extend(id.read(cluster).await?);
    }
    if configurations.is_empty() {
        // The values leave them out.
        return Ok(checks);
    }
    let of_controller = format!("kubernetes.io/service-name={}", names::CONTROLLER);
    let slices =
        objects::list(cluster, "discovery.k8s.io/v1", "EndpointSlice", NAMESPACE, &of_controller).await?;
    checks.extend(system::webhooks(&configurations, &root, &slices));
    Ok(checks)
}

/// That a pod which asks for a proxy really gets one, by a dry run: in a meshed namespace, where there is one.
async fn injected(cluster: &Cluster, namespaces: &[Value]) -> Check {
    let namespace = meshed(namespaces).into_iter().next().unwrap_or("default");
    let check = "a pod that is made gets a proxy";
    let subject = format!("Namespace {namespace}");
    let pod = serde_json::from_value(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "meshctl-check-",
            "namespace": namespace,
            "labels": {labels::INJECT: "enabled"},
        },
        "spec": {
            "automountServiceAccountToken": false,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "app",
                "image": "meshctl.dev/check",
                "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"cpu": "1m", "memory": "1Mi"}},
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    }));
    let pod: Pod = pod.unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let made = api.create(&params, &pod).await;
    let remedy =
        "see `kubectl get mutatingwebhookconfiguration mesh-injector -o yaml`, and the controller's log";
    match made {
        Ok(pod) if has_proxy(&serde_json::to_value(&pod).unwrap_or_default()) => {
            Check::ok(PODS, check, "as a dry run".to_owned()).of(subject)
        }
        Ok(_) => Check::bad(PODS, check, Outcome::Fail, "a dry run gave a pod without", remedy).of(subject),
        Err(error) => {
            let text = refused("a dry run", &error).to_string();
            // Others, such as a quota, say nothing of the mesh.
            let ours = ["webhook", "PodSecurity"].iter().any(|word| text.contains(word));
            let result = if ours { Outcome::Fail } else { Outcome::Warn };
            Check::bad(PODS, check, result, text, remedy).of(subject)
        }
    }
}

async fn clock_of(cluster: &Cluster) -> Check {
    let asked = now_millis();
    let date = async {
        let request = http::Request::get("/version").body(kube::client::Body::empty()).ok()?;
        let answer = cluster.client.send(request).await.ok()?;
        let text = answer.headers().get(http::header::DATE)?.to_str().ok()?.to_owned();
        // Dates of HTTP are those of e-mail, always in GMT (RFC 9110, 5.6.7).
        OffsetDateTime::parse(&text, &Rfc2822).ok()
    };
    clock(date.await.map(OffsetDateTime::unix_timestamp), asked, now_millis())
}

/// Compares the API server's clock, in whole seconds, with this machine's around the call, in milliseconds.
fn clock(theirs: Option<i64>, asked: i64, answered: i64) -> Check {
    let Some(seconds) = theirs else {
        let reason = "it does not say what time it is";
        return Check::bad(CLUSTER, CLOCK, Outcome::Warn, reason, "compare both clocks by hand");
    };
    let (from, until) = (seconds * 1000, seconds * 1000 + 999);
    let (off, direction) =
        if until < asked { (asked - until, "behind") } else { ((from - answered).max(0), "ahead") };
    if off < MAX_CLOCK_SKEW {
        return Check::ok(CLUSTER, CLOCK, None);
    }
    let reason = format!("the API server's clock is {:.1} s {direction}", off as f64 / 1000.0);
    let remedy = "synchronise both clocks (NTP): tokens and certificates depend on them";
    Check::bad(CLUSTER, CLOCK, Outcome::Fail, reason, remedy)
}

/// The names of pods, for those that ask their proxies.
pub(super) fn with_proxies(pods: &[Value]) -> Vec<&Value> {
    let mut found: Vec<&Value> =
        pods.iter().filter(|pod| has_proxy(pod) && !crate::cluster::standing::has_ended(pod)).collect();
    found.sort_by_key(|pod| full_name(pod));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_in_whole_seconds() {
        let check = |theirs: i64, expected: Option<&str>| {
            let found = clock(Some(theirs), 100_400, 100_600);
            assert_eq!(found.reason.as_deref(), expected, "{theirs}");
        };
        check(100, None);
        check(95, None);
        check(105, None);
        check(94, Some("the API server's clock is 5.4 s behind"));
        check(106, Some("the API server's clock is 5.4 s ahead"));
        assert_eq!(clock(None, 0, 0).result, Outcome::Warn);
        let parsed = OffsetDateTime::parse("Tue, 01 Dec 2026 17:11:57 GMT", &Rfc2822).unwrap();
        assert_eq!(parsed.unix_timestamp(), 1_796_145_117);
    }
}

//! How a pod stands to the mesh: in it, or why not.

use std::collections::BTreeSet;

use mesh_k8s::{
    inject::{self, Config, Nonce, Outcome, Skip},
    labels,
    names::PROXY_CONTAINER,
};
use serde_json::Value;

use crate::chart::NAMESPACE;

/// How a pod stands to the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has a proxy, of this version where that is noted.
    In(Option<String>),
    /// Nobody asked for a proxy.
    NotAsked,
    /// It says that it wants none.
    OptedOut,
    /// It is asked for, and cannot be: why.
    Cannot(&'static str),
    /// It is asked for, and was made without one.
    Missing,
    /// It is asked for, and would be refused today: why.
    Refused(String),
}

impl Standing {
    /// Whether it is in the mesh, and if not, why.
    pub(crate) fn words(&self) -> String {
        let asks = format!("{}=enabled", labels::INJECT);
        match self {
            Self::In(None) => "yes".to_owned(),
            Self::In(Some(version)) => format!("yes, its proxy was put there by version {version}"),
            Self::NotAsked => format!("no: neither its namespace nor itself is labelled {asks}"),
            Self::OptedOut => format!("no: it says {}: disabled", labels::INJECT),
            Self::Cannot(why) => format!("no: {why}"),
            Self::Missing => {
                "no: it is to be, and was made before that was said, or while the webhook was not there; \
                              make it again"
                    .to_owned()
            }
            Self::Refused(why) => format!("no, and it would be refused today: {why}"),
        }
    }
}

/// Namespaces whose pods are to have proxies.
pub(crate) fn meshed(namespaces: &[Value]) -> BTreeSet<&str> {
    let is = |object: &&Value| {
        object["metadata"]["labels"][labels::INJECT] == "enabled"
            && object["metadata"]["deletionTimestamp"].is_null()
    };
    let names = namespaces.iter().filter(is).filter_map(|object| object["metadata"]["name"].as_str());
    names.filter(|name| !is_system(name)).collect()
}

/// Namespaces whose pods never have proxies.
fn is_system(namespace: &str) -> bool {
    namespace == "kube-system" || namespace == NAMESPACE
}

/// True when a pod has ended, or is about to.
pub(crate) fn has_ended(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
        || !pod["metadata"]["deletionTimestamp"].is_null()
}

/// True when a pod has a proxy.
pub(crate) fn has_proxy(pod: &Value) -> bool {
    let of = |field: &str| pod["spec"][field].as_array().into_iter().flatten();
    of("containers").chain(of("initContainers")).any(|container| container["name"] == PROXY_CONTAINER)
}

/// How a pod stands, by the rules of the webhook: `meshed` has the namespaces that ask for proxies.
pub(crate) fn standing(pod: &Value, meshed: &BTreeSet<&str>) -> Standing {
    let metadata = &pod["metadata"];
    if has_proxy(pod) {
        return Standing::In(metadata["annotations"][labels::INJECTED].as_str().map(ToOwned::to_owned));
    }
    let namespace = metadata["namespace"].as_str().unwrap_or_default();
    let label = metadata["labels"][labels::INJECT].as_str();
    let asked = !is_system(namespace) && (label == Some("enabled") || meshed.contains(namespace));
    match (asked, label) {
        (false, _) => return Standing::NotAsked,
        (true, Some("disabled")) => return Standing::OptedOut,
        (true, _) => {}
    }
    // What comes of it is not used.
    let nonce = Nonce::new([0; Nonce::LEN]);
    match inject::inject(pod, &Config::default(), None, &nonce) {
        Outcome::Skipped(Skip::Disabled) => Standing::OptedOut,
        Outcome::Skipped(skip @ (Skip::HostNetwork | Skip::Windows)) => Standing::Cannot(skip.why()),
        Outcome::Skipped(Skip::AlreadyInjected) => Standing::In(None),
        Outcome::Injected(_) => Standing::Missing,
        Outcome::Refused(refusals) => {
            let all: Vec<String> = refusals.iter().map(ToString::to_string).collect();
            Standing::Refused(all.join("; "))
        }
    }
}

/// `namespace/name` of an object.
pub(crate) fn full_name(object: &Value) -> String {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    format!("{}/{}", text("namespace"), text("name"))
}

/// What made a pod, as kubectl takes it: `deployment/cart`. None: nothing makes it again.
pub(crate) fn owner(pod: &Value) -> Option<String> {
    let owners = pod["metadata"]["ownerReferences"].as_array()?;
    let owner = owners.iter().find(|owner| owner["controller"] == true)?;
    let (kind, name) = (owner["kind"].as_str()?, owner["name"].as_str()?);
    // A ReplicaSet of a Deployment has that one's name and the hash of its template, which its pods have as a label.
    let hash = pod["metadata"]["labels"]["pod-template-hash"].as_str();
    let deployment = hash.and_then(|hash| name.strip_suffix(hash)?.strip_suffix('-'));
    Some(match (kind, deployment) {
        ("ReplicaSet", Some(deployment)) => format!("deployment/{deployment}"),
        _ => format!("{}/{name}", kind.to_lowercase()),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(namespace: &str, change: impl FnOnce(&mut Value)) -> Value {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "namespace": namespace},
            "spec": {"containers": [{"name": "app", "image": "i"}]},
        });
        change(&mut pod);
        pod
    }

    #[test]
    fn pods_stand_as_the_webhook_would_have_it() {
        let namespace = |name: &str, value: &str| json!({"metadata": {"name": name, "labels": {"meshctl.dev/inject": value}}});
        let all =
            [namespace("shop", "enabled"), namespace("other", "no"), namespace("kube-system", "enabled")];
        let meshed = meshed(&all);
        let check = |namespace: &str, change: fn(&mut Value), expected: Standing| {
            let pod = pod(namespace, change);
            assert_eq!(standing(&pod, &meshed), expected, "{pod}");
        };
        let host_network = |p: &mut Value| p["spec"]["hostNetwork"] = json!(true);
        check("shop", |_| {}, Standing::Missing);
        check("other", |_| {}, Standing::NotAsked);
        check("kube-system", |_| {}, Standing::NotAsked);
        check("other", host_network, Standing::NotAsked);
        check("shop", host_network, Standing::Cannot(Skip::HostNetwork.why()));
        check(
            "other",
            |p| p["metadata"]["labels"] = json!({"meshctl.dev/inject": "enabled"}),
            Standing::Missing,
        );
        check(
            "shop",
            |p| p["metadata"]["labels"] = json!({"meshctl.dev/inject": "disabled"}),
            Standing::OptedOut,
        );
        check(
            "shop",
            |p| p["metadata"]["annotations"] = json!({"meshctl.dev/inject": "disabled"}),
            Standing::OptedOut,
        );
        check("shop", |p| p["spec"]["securityContext"] = json!({"runAsUser": 1337}), {
            let Standing::Refused(why) = standing(
                &pod("shop", |p| p["spec"]["securityContext"] = json!({"runAsUser": 1337})),
                &meshed,
            ) else {
                panic!("not refused")
            };
            assert!(why.contains("runAsUser"), "{why}");
            Standing::Refused(why)
        });
        check(
            "other",
            |p| {
                p["spec"]["initContainers"] = json!([{"name": "mesh-proxy"}]);
                p["metadata"]["annotations"] = json!({"meshctl.dev/injected": "0.1.0"});
            },
            Standing::In(Some("0.1.0".into())),
        );
    }

    #[test]
    fn who_makes_a_pod() {
        let made = |owners: Value| {
            let labels = json!({"pod-template-hash": "5f6"});
            owner(&json!({"metadata": {"labels": labels, "ownerReferences": owners}}))
        };
        let by = |kind: &str, name: &str| json!([{"kind": kind, "name": name, "controller": true}]);
        assert_eq!(made(by("ReplicaSet", "cart-5f6")).as_deref(), Some("deployment/cart"));
        assert_eq!(made(by("ReplicaSet", "own")).as_deref(), Some("replicaset/own"));
        assert_eq!(made(by("StatefulSet", "db")).as_deref(), Some("statefulset/db"));
        assert_eq!(made(json!([])), None);
    }
}

//! Checks of what a cluster brings along that matters to the mesh: native sidecars, other meshes, versions of kinds, Pod
//! Security. Pure functions of what the API server says.

use mesh_k8s::{crd, inject::Server, labels};
use serde_json::Value;

use super::model::{Check, Outcome};
use crate::chart::NAMESPACE;

const CLUSTER: &str = "Cluster";
const NAMESPACES: &str = "Namespaces";
/// Kinds of others that the mesh reads: the definition's name, and the version.
const GATEWAY: [(&str, &str); 2] =
    [("httproutes.gateway.networking.k8s.io", "v1"), ("grpcroutes.gateway.networking.k8s.io", "v1")];
/// Namespaces in which other meshes live, and whose they are.
const HOMES: [(&str, &str); 6] = [
    ("istio-system", "Istio"),
    ("linkerd", "Linkerd"),
    ("consul", "Consul"),
    ("kuma-system", "Kuma"),
    ("osm-system", "Open Service Mesh"),
    ("traefik-mesh", "Traefik Mesh"),
];
/// Labels and annotations by which other meshes are asked for: name, value (empty: any), and whose it is.
const ASKS: [(&str, &str, &str); 6] = [
    ("istio-injection", "enabled", "Istio"),
    ("istio.io/rev", "", "Istio"),
    ("istio.io/dataplane-mode", "ambient", "Istio"),
    ("linkerd.io/inject", "enabled", "Linkerd"),
    ("kuma.io/sidecar-injection", "enabled", "Kuma"),
    ("openservicemesh.io/sidecar-injection", "enabled", "Open Service Mesh"),
];
/// What says which pods a namespace takes.
const ENFORCE: &str = "pod-security.kubernetes.io/enforce";

/// Whether proxies can start before, and end after, the applications.
pub(super) fn native_sidecars((major, minor): (u32, u32)) -> Check {
    let check = "it has native sidecars";
    if (Server { major, minor }).has_native_sidecars() {
        return Check::ok(CLUSTER, check, None);
    }
    let reason = format!(
        "they came with Kubernetes 1.29, and this is {major}.{minor}: proxies are ordinary containers, so that init containers \
         have no mesh, and pods of Jobs do not end by themselves"
    );
    Check::bad(
        CLUSTER,
        check,
        Outcome::Warn,
        reason,
        "upgrade the cluster, or label pods of Jobs meshctl.dev/inject=disabled",
    )
}

/// Namespaces that belong to other meshes, or ask for them: nothing may be injected twice.
pub(super) fn others(namespaces: &[Value]) -> Vec<Check> {
    let check = "no pod is asked for by two meshes";
    let mut found = Vec::new();
    for namespace in namespaces {
        let name = text(namespace, "name");
        let subject = format!("Namespace {name}");
        if let Some((_, whose)) = HOMES.iter().find(|(home, _)| *home == name) {
            let reason = format!("{whose} seems to live there");
            let remedy =
                "let each namespace be in one mesh only; calls between two meshes are plaintext to either";
            found.push(Check::bad(NAMESPACES, check, Outcome::Warn, reason, remedy).of(subject.clone()));
        }
        let Some((ask, whose)) = asks_for_another(namespace) else { continue };
        let result = if is_meshed(namespace) { Outcome::Fail } else { Outcome::Warn };
        let reason = match result {
            Outcome::Fail => format!("it asks for a proxy of this mesh, and by {ask} for one of {whose}"),
            Outcome::Ok | Outcome::Warn => format!("it asks for {whose} by {ask}"),
        };
        let remedy = format!("take away {ask}, or do not label it {}=enabled", labels::INJECT);
        found.push(Check::bad(NAMESPACES, check, result, reason, remedy).of(subject));
    }
    if found.is_empty() { vec![Check::ok(NAMESPACES, check, None)] } else { found }
}

fn asks_for_another(namespace: &Value) -> Option<(&'static str, &'static str)> {
    let metadata = &namespace["metadata"];
    let has = |name: &str, wanted: &str| {
        let values = [metadata["labels"][name].as_str(), metadata["annotations"][name].as_str()];
        values.into_iter().flatten().any(|value| wanted.is_empty() || value == wanted)
    };
    ASKS.iter().find(|(name, value, _)| has(name, value)).map(|(name, _, whose)| (*name, *whose))
}

/// Definitions that are there: do they serve the versions that the mesh reads?
pub(super) fn kinds(definitions: &[Value]) -> Vec<Check> {
    let check = "the kind is served in the version that the mesh reads";
    let own: Vec<(String, &str)> = crd::ALL.iter().map(|crd| (crd.name(), crd.version)).collect();
    let others = GATEWAY.iter().map(|(name, version)| ((*name).to_owned(), *version));
    let mut bad = Vec::new();
    let mut seen = 0;
    for (name, version) in own.into_iter().chain(others) {
        let Some(definition) = definitions.iter().find(|d| text(d, "name") == name) else { continue };
        seen += 1;
        let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
        let served: Vec<&str> =
            versions.filter(|v| v["served"] == true).filter_map(|v| v["name"].as_str()).collect();
        if served.contains(&version) {
            continue;
        }
        let told = if served.is_empty() { "none".to_owned() } else { served.join(", ") };
        let reason = format!("the mesh reads {version}, and the cluster serves {told}");
        let remedy = "bring the definition to a release that has it; the mesh does not see its objects";
        let subject = format!("CustomResourceDefinition {name}");
        bad.push(Check::bad(CLUSTER, check, Outcome::Fail, reason, remedy).of(subject));
    }
    if bad.is_empty() {
        let told = match seen {
            0 => "none is there yet".to_owned(),
            _ => format!("{seen} there already"),
        };
        bad.push(Check::ok(CLUSTER, check, told).of("every kind"));
    }
    bad
}

/// Namespaces whose Pod Security level refuses the init container that writes firewall rules. `cni`: the nodes write
/// them.
pub(super) fn pod_security(namespaces: &[Value], cni: bool) -> Vec<Check> {
    let check = "its Pod Security level takes pods with a proxy";
    let mut found = Vec::new();
    for namespace in namespaces.iter().filter(|namespace| !cni && is_meshed(namespace)) {
        let level = namespace["metadata"]["labels"][ENFORCE].as_str().unwrap_or_default();
        if !matches!(level, "baseline" | "restricted") {
            continue;
        }
        let reason =
            format!("{level} is enforced, and mesh-init needs NET_ADMIN: pods with a proxy are refused");
        let remedy = "install with --set cni.enabled=true, so that the nodes write the rules (docs/cni.md)";
        let subject = format!("Namespace {}", text(namespace, "name"));
        found.push(Check::bad(NAMESPACES, check, Outcome::Fail, reason, remedy).of(subject));
    }
    if found.is_empty() {
        let told = if cni { "the nodes write the firewall's rules" } else { "none refuses them" };
        found.push(Check::ok(NAMESPACES, check, told.to_owned()).of("every meshed namespace"));
    }
    found
}

/// The mesh's own namespace, where somebody made it before: the controller keeps to `restricted`.
pub(super) fn home(namespaces: &[Value]) -> Option<Check> {
    let home = namespaces.iter().find(|namespace| text(namespace, "name") == NAMESPACE)?;
    let check = "the mesh's namespace takes no proxies";
    let subject = format!("Namespace {NAMESPACE}");
    if home["metadata"]["labels"][labels::INJECT] != "enabled" {
        return Some(Check::ok(NAMESPACES, check, None).of(subject));
    }
    let reason = format!("it is labelled {}=enabled, which has no effect there", labels::INJECT);
    let remedy = format!("kubectl label namespace {NAMESPACE} {}-", labels::INJECT);
    Some(Check::bad(NAMESPACES, check, Outcome::Warn, reason, remedy).of(subject))
}

fn is_meshed(namespace: &Value) -> bool {
    namespace["metadata"]["labels"][labels::INJECT] == "enabled"
        && namespace["metadata"]["deletionTimestamp"].is_null()
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn namespace(name: &str, labels: &Value) -> Value {
        json!({"metadata": {"name": name, "labels": labels}})
    }

    fn told(checks: &[Check]) -> Vec<String> {
        let line =
            |c: &Check| format!("{:?} {}: {}", c.result, c.line(), c.reason.clone().unwrap_or_default());
        checks.iter().map(line).collect()
    }

    #[test]
    fn sidecars_are_native_from_1_29_on() {
        assert_eq!(native_sidecars((1, 29)).result, Outcome::Ok);
        let old = native_sidecars((1, 28));
        assert_eq!(old.result, Outcome::Warn);
        assert!(old.reason.is_some_and(|reason| reason.contains("this is 1.28")));
    }

    #[test]
    fn two_meshes_in_one_namespace() {
        assert_eq!(
            told(&others(&[namespace("shop", &json!({}))])),
            ["Ok no pod is asked for by two meshes: "]
        );
        let check = "no pod is asked for by two meshes";
        let both = namespace("shop", &json!({"meshctl.dev/inject": "enabled", "istio-injection": "enabled"}));
        let annotated =
            json!({"metadata": {"name": "bank", "annotations": {"linkerd.io/inject": "enabled"}}});
        assert_eq!(
            told(&others(&[both, annotated, namespace("istio-system", &json!({}))])),
            [
                format!(
                    "Fail Namespace shop: {check}: it asks for a proxy of this mesh, and by istio-injection for one of Istio"
                ),
                format!("Warn Namespace bank: {check}: it asks for Linkerd by linkerd.io/inject"),
                format!("Warn Namespace istio-system: {check}: Istio seems to live there"),
            ]
        );
        assert_eq!(others(&[namespace("a", &json!({"istio-injection": "disabled"}))])[0].result, Outcome::Ok);
    }

    #[test]
    fn kinds_in_other_versions() {
        let definition = |name: &str, version: &str, served: bool| json!({"metadata": {"name": name}, "spec": {"versions": [{"name": version, "served": served}]}});
        let split = "trafficsplits.split.smi-spec.io";
        let check = "the kind is served in the version that the mesh reads";
        assert_eq!(told(&kinds(&[])), [format!("Ok every kind: {check} (none is there yet): ")]);
        let good =
            kinds(&[definition(split, "v1alpha4", true), definition("others.example.org", "v9", true)]);
        assert_eq!(told(&good), [format!("Ok every kind: {check} (1 there already): ")]);
        let gateway = "httproutes.gateway.networking.k8s.io";
        assert_eq!(
            told(&kinds(&[definition(split, "v1alpha2", true), definition(gateway, "v1", false)])),
            [
                format!(
                    "Fail CustomResourceDefinition {split}: {check}: the mesh reads v1alpha4, and the cluster serves v1alpha2"
                ),
                format!(
                    "Fail CustomResourceDefinition {gateway}: {check}: the mesh reads v1, and the cluster serves none"
                ),
            ]
        );
    }

    #[test]
    fn namespaces_that_refuse_capabilities() {
        let with = |level: &str, inject: &str| {
            namespace(
                "shop",
                &json!({"meshctl.dev/inject": inject, "pod-security.kubernetes.io/enforce": level}),
            )
        };
        let outcome = |namespace, cni| pod_security(&[namespace], cni).remove(0).result;
        assert_eq!(outcome(with("baseline", "enabled"), false), Outcome::Fail);
        assert_eq!(outcome(with("restricted", "enabled"), false), Outcome::Fail);
        assert_eq!(outcome(with("restricted", "enabled"), true), Outcome::Ok);
        assert_eq!(outcome(with("restricted", "no"), false), Outcome::Ok);
        assert_eq!(outcome(with("privileged", "enabled"), false), Outcome::Ok);
    }

    #[test]
    fn the_namespace_of_the_mesh_itself() {
        assert_eq!(home(&[]), None);
        let of = |labels: Value| home(&[namespace("mesh-system", &labels)]).map(|check| check.result);
        assert_eq!(of(json!({})), Some(Outcome::Ok));
        assert_eq!(of(json!({"meshctl.dev/inject": "enabled"})), Some(Outcome::Warn));
    }
}

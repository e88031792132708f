//! What goes into the bundle; what cannot be read is noted, and the rest goes on.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::LogParams};
use mesh_k8s::{crd, names::PROXY_CONTAINER};
use serde_json::{Value, json};

use super::{archive::Archive, redact::Redactor};
use crate::{
    admin,
    chart::NAMESPACE,
    cluster::{
        Cluster, ClusterError, objects, refused,
        select::pair,
        standing::{full_name, has_ended, has_proxy},
        trouble::CONTROLLER,
    },
};

/// Largest log of one container, in bytes.
const MAX_LOG: i64 = 4 << 20;
/// What is read of the mesh's own namespace. No Secrets.
const OWN: [(&str, &str); 14] = [
    ("v1", "Pod"),
    ("v1", "Service"),
    ("v1", "ConfigMap"),
    ("v1", "ServiceAccount"),
    ("v1", "Event"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "DaemonSet"),
    ("apps/v1", "ReplicaSet"),
    ("discovery.k8s.io/v1", "EndpointSlice"),
    ("coordination.k8s.io/v1", "Lease"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("policy/v1", "PodDisruptionBudget"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
];
/// What is read of the cluster, with the labels that it must have.
const WIDE: [(&str, &str, &str); 7] = [
    ("v1", "Namespace", ""),
    ("v1", "Node", ""),
    ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", ""),
    ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", ""),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition", ""),
    ("rbac.authorization.k8s.io/v1", "ClusterRole", "app.kubernetes.io/part-of=mesh"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "app.kubernetes.io/part-of=mesh"),
];
/// Kinds of others that the mesh reads.
const ROUTES: [(&str, &str); 2] = [("HTTPRoute", "httproutes"), ("GRPCRoute", "grpcroutes")];
/// What proxies are asked.
const PATHS: [&str; 6] = ["/status", "/config", "/destinations", "/endpoints", "/certificates", "/edges"];

/// Reads, redacts and writes.
pub(super) struct Collector<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) redactor: Redactor,
    pub(super) archive: Archive,
    pub(super) missing: Vec<String>,
    pub(super) patience: Duration,
}

impl Collector<'_> {
    /// Adds a text.
    pub(super) fn text(&mut self, name: &str, text: &str) -> anyhow::Result<()> {
        let text = self.redactor.text(text);
        Ok(self.archive.add(name, text.as_bytes())?)
    }

    /// Adds a document.
    pub(super) fn json(&mut self, name: &str, value: Value) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(&self.redactor.json(value))?;
        Ok(self.archive.add(name, text.as_bytes())?)
    }

    /// Notes what is not there.
    pub(super) fn lacks(&mut self, what: &str, why: &str) {
        self.missing.push(format!("{what}: {}", self.redactor.text(why)));
    }

    /// Ends the archive: the number of files, and what is missing.
    pub(super) fn finish(mut self) -> anyhow::Result<(usize, Vec<String>)> {
        let text: String = self.missing.iter().map(|line| format!("{line}\n")).collect();
        self.archive.add("missing.txt", text.as_bytes())?;
        let files = self.archive.files;
        self.archive.finish()?;
        Ok((files, self.missing))
    }

    fn list(&mut self, name: &str, found: Result<Vec<Value>, ClusterError>) -> anyhow::Result<()> {
        match found {
            Ok(items) if items.is_empty() => Ok(()),
            Ok(items) => self.json(&format!("objects/{name}.json"), json!({"items": items})),
            Err(error) => {
                self.lacks(&format!("objects/{name}.json"), &error.to_string());
                Ok(())
            }
        }
    }

    /// Objects; returns the pods that have a proxy.
    pub(super) async fn objects(&mut self) -> anyhow::Result<Vec<Value>> {
        for (version, kind) in OWN {
            let mut found = objects::list(self.cluster, version, kind, NAMESPACE, "").await;
            if let (Ok(items), "ConfigMap") = (&mut found, kind) {
                items.retain(|item| pair(item).1.starts_with("mesh-"));
            }
            self.list(&format!("{NAMESPACE}/{kind}"), found)?;
        }
        for (version, kind, labels) in WIDE {
            let found = objects::list(self.cluster, version, kind, "", labels).await;
            self.list(kind, found.map(|items| items.into_iter().map(without_schema).collect()))?;
        }
        for kind in &crd::ALL {
            let version = format!("{}/{}", kind.group, kind.version);
            let found = objects::list_as(self.cluster, &version, kind.kind, kind.plural, "", "").await;
            self.list(kind.kind, found)?;
        }
        for (kind, plural) in ROUTES {
            let version = "gateway.networking.k8s.io/v1";
            let found = objects::list_as(self.cluster, version, kind, plural, "", "").await;
            self.list(kind, found)?;
        }
        let pods = match objects::list(self.cluster, "v1", "Pod", "", "").await {
            Ok(pods) => pods,
            Err(error) => {
                self.lacks("pods of the mesh", &error.to_string());
                return Ok(Vec::new());
            }
        };
        let mut pods: Vec<Value> = pods.into_iter().filter(|pod| has_proxy(pod) && !has_ended(pod)).collect();
        pods.sort_by_key(full_name);
        self.list("pods-with-proxy", Ok(pods.clone()))?;
        let namespaces: BTreeSet<String> = pods.iter().map(|pod| pair(pod).0).collect();
        for namespace in namespaces {
            for (version, kind) in [("v1", "Service"), ("discovery.k8s.io/v1", "EndpointSlice")] {
                let found = objects::list(self.cluster, version, kind, &namespace, "").await;
                self.list(&format!("{namespace}/{kind}"), found)?;
            }
        }
        Ok(pods)
    }

    /// Logs of the controllers and of the agents.
    pub(super) async fn logs(&mut self, tail: i64) -> anyhow::Result<()> {
        let mut done = BTreeSet::new();
        for labels in [CONTROLLER, "app.kubernetes.io/name=mesh-cni"] {
            let pods = match objects::list(self.cluster, "v1", "Pod", NAMESPACE, labels).await {
                Ok(pods) => pods,
                Err(error) => {
                    self.lacks(&format!("logs of pods with {labels}"), &error.to_string());
                    continue;
                }
            };
            for pod in pods.into_iter().filter(|pod| done.insert(full_name(pod))) {
                let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
                let names: Vec<String> =
                    containers.filter_map(|c| c["name"].as_str().map(ToOwned::to_owned)).collect();
                for container in names {
                    self.log(&pod, &container, tail).await?;
                }
            }
        }
        Ok(())
    }

    async fn log(&mut self, pod: &Value, container: &str, tail: i64) -> anyhow::Result<()> {
        let (namespace, name) = pair(pod);
        let api: Api<Pod> = Api::namespaced(self.cluster.client.clone(), &namespace);
        let statuses = ["containerStatuses", "initContainerStatuses"];
        let mut statuses =
            statuses.iter().flat_map(|field| pod["status"][*field].as_array().into_iter().flatten());
        let status = statuses.find(|status| status["name"] == container);
        let restarted = status.is_some_and(|status| status["restartCount"].as_u64().unwrap_or(0) > 0);
        for previous in [false, true] {
            if previous && !restarted {
                continue;
            }
            let file =
                format!("logs/{namespace}/{name}-{container}{}.log", if previous { "-previous" } else { "" });
            let params = LogParams {
                container: Some(container.to_owned()),
                previous,
                tail_lines: Some(tail),
                limit_bytes: Some(MAX_LOG),
                ..LogParams::default()
            };
            match api.logs(&name, &params).await {
                Ok(text) => self.text(&file, &text)?,
                Err(error) => self.lacks(&file, &refused("reading it", &error).to_string()),
            }
        }
        Ok(())
    }

    /// What proxies say themselves, and their logs: of the first ones.
    pub(super) async fn proxies(&mut self, pods: &[Value], most: usize, tail: i64) -> anyhow::Result<()> {
        for pod in pods.iter().take(most) {
            let (namespace, name) = pair(pod);
            for path in PATHS {
                let answer = admin::of_pod(self.cluster, &namespace, &name, path, self.patience).await;
                let file = format!("proxies/{namespace}/{name}{path}.json");
                match answer {
                    Ok(answer) => self.json(&file, answer)?,
                    Err(error) => {
                        self.lacks(&file, &error);
                        break;
                    }
                }
            }
            self.log(pod, PROXY_CONTAINER, tail).await?;
        }
        if pods.len() > most {
            let why = format!("only {most} of {} are asked; --proxies asks more", pods.len());
            self.lacks("proxies", &why);
        }
        Ok(())
    }
}

/// Definitions without their schemas, which are long and known.
fn without_schema(mut object: Value) -> Value {
    for version in object["spec"]["versions"].as_array_mut().into_iter().flatten() {
        if let Some(fields) = version.as_object_mut() {
            fields.remove("schema");
        }
    }
    object
}

//! What of the mesh is in a cluster, and taking it away.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, ListParams},
    core::GroupVersionKind,
};
use mesh_k8s::{crd, labels::INJECTED};
use serde_json::Value;

use super::release;
use crate::{
    chart::NAMESPACE,
    cluster::{
        Cluster, ClusterError,
        agents::{self, Agents},
        is_absent,
        objects::{self, Id},
        preflight::MANAGED_BY,
        refused,
        wait::{self, Deadline, WaitError},
    },
    out::Out,
};

/// Kinds of what meshctl and the chart have put there, in the order in which they go: nothing must ask a controller that is
/// gone, and the controller must not make again what went.
const KINDS: [(&str, &str); 16] = [
    ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"),
    ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"),
    ("monitoring.coreos.com/v1", "ServiceMonitor"),
    ("monitoring.coreos.com/v1", "PodMonitor"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "DaemonSet"),
    ("policy/v1", "PodDisruptionBudget"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("v1", "Service"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("v1", "ServiceAccount"),
    ("v1", "ConfigMap"),
    ("v1", "Namespace"),
];

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Remains {
    /// In the order in which they go.
    pub(crate) objects: Vec<Id>,
    /// Definitions of custom resources that the mesh has brought.
    pub(crate) definitions: Vec<Id>,
    /// Objects of those kinds.
    pub(crate) custom: Vec<String>,
    /// Pods with a proxy.
    pub(crate) injected: Vec<Injected>,
    /// The agents of the CNI plugin, if there are any.
    pub(crate) agents: Option<Agents>,
}

/// A pod with a proxy.
#[derive(Debug)]
pub(crate) struct Injected {
    /// As in shop/cart-1.
    pub(crate) pod: String,
    /// Of the proxy; empty: it was not injected, but written by hand.
    pub(crate) version: String,
}

impl Remains {
    /// True where the mesh has left nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.definitions.is_empty()
    }

    /// Looks for everything.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub(crate) async fn find(cluster: &Cluster) -> Result<Self, ClusterError> {
        let mut found = Self::default();
        for (api_version, kind) in KINDS {
            found.objects.extend(ours(cluster, api_version, kind).await?);
            if kind == "ConfigMap" {
                let made = format!("{MANAGED_BY}=mesh-controller");
                found.objects.extend(objects::labelled(cluster, api_version, kind, &made).await?);
                found.objects.extend(made_by_name(cluster).await?);
            }
        }
        let kind = "CustomResourceDefinition";
        let definitions =
            objects::labelled(cluster, "apiextensions.k8s.io/v1", kind, "app.kubernetes.io/part-of=mesh");
        for definition in definitions.await? {
            if let Some(crd) = crd::ALL.iter().find(|crd| crd.name() == definition.name) {
                found.custom.extend(custom(cluster, crd).await?);
                found.definitions.push(definition);
            }
        }
        found.injected = injected(cluster).await?;
        if found.objects.contains(&agents::daemon_set()) {
            found.agents = Agents::find(cluster).await?;
        }
        Ok(found)
    }

    /// Deletes it, and waits until it is gone. Gives how the agents of the CNI plugin stood, where there were some.
    ///
    /// # Errors
    /// When the cluster refuses something, or it takes too long.
    pub(crate) async fn remove(
        &self,
        cluster: &Cluster,
        within: Duration,
        out: &Out,
    ) -> Result<Option<Agents>, WaitError> {
        let deadline = Deadline::new(within);
        let mut agents = None;
        let mut controller_is_gone = false;
        for id in &self.objects {
            let is_below = !matches!(
                id.kind.as_str(),
                "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" | "Deployment"
            );
            if is_below && !controller_is_gone {
                self.wait_for_controller(cluster, deadline).await?;
                controller_is_gone = true;
            }
            if *id == agents::daemon_set() {
                // They ask the API server whether they end for good: before their account and their rights go.
                agents = Some(agents::remove(cluster, deadline).await?);
                out.remark(&format!("deleted   {id}"));
            } else if wait::deleted(cluster, id, deadline).await? {
                out.remark(&format!("deleted   {id}"));
            }
        }
        for id in &self.definitions {
            if wait::deleted(cluster, id, deadline).await? {
                out.remark(&format!("deleted   {id}"));
            }
        }
        let all: Vec<Id> = self.objects.iter().chain(&self.definitions).cloned().collect();
        wait::gone(cluster, &all, deadline).await?;
        Ok(agents)
    }

    /// Its pods must not write any more when what they made is deleted.
    async fn wait_for_controller(&self, cluster: &Cluster, deadline: Deadline) -> Result<(), WaitError> {
        let labels = Some("app.kubernetes.io/name=mesh-controller");
        let pods = loop {
            if let Some(pods) = deadline.heard("not all is gone", pods(cluster, labels).await).await? {
                break pods;
            }
        };
        let ids: Vec<Id> = pods
            .into_iter()
            .filter(|pod| pod.metadata.namespace.as_deref() == Some(NAMESPACE))
            .map(|pod| Id {
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                namespace: NAMESPACE.to_owned(),
                name: pod.metadata.name.unwrap_or_default(),
            })
            .collect();
        wait::gone(cluster, &ids, deadline).await
    }
}

/// Objects of a kind that meshctl has applied.
async fn ours(cluster: &Cluster, api_version: &str, kind: &str) -> Result<Vec<Id>, ClusterError> {
    let labels = format!("app.kubernetes.io/part-of=mesh,{MANAGED_BY}=meshctl");
    objects::labelled(cluster, api_version, kind, &labels).await
}

/// Kinds of which meshctl looks for what it has applied.
pub(crate) fn kinds() -> Vec<Id> {
    let of = |(api_version, kind): (&str, &str)| Id {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        namespace: String::new(),
        name: String::new(),
    };
    KINDS.into_iter().map(of).collect()
}

/// What meshctl has applied, in any run, and is not wanted any more; in the order in which it goes.
///
/// # Errors
/// When the cluster cannot be asked.
pub(crate) async fn beyond(cluster: &Cluster, wanted: &[Value]) -> Result<Vec<Id>, ClusterError> {
    let wanted: Vec<Id> = wanted.iter().map(Id::of).chain([release::id()]).collect();
    let mut found = Vec::new();
    for (api_version, kind) in KINDS {
        if kind != "Namespace" {
            let ours = ours(cluster, api_version, kind).await?;
            found.extend(ours.into_iter().filter(|id| !wanted.contains(id)));
        }
    }
    Ok(found)
}

/// What the controller makes in the mesh's namespace, by name.
async fn made_by_name(cluster: &Cluster) -> Result<Vec<Id>, ClusterError> {
    let made = [
        ("v1", "Secret", "mesh-ca"),
        ("v1", "Secret", "mesh-view-token"),
        ("coordination.k8s.io/v1", "Lease", "mesh-controller"),
    ];
    let mut found = Vec::new();
    for (api_version, kind, name) in made {
        let id = Id {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            namespace: NAMESPACE.to_owned(),
            name: name.to_owned(),
        };
        found.extend(id.read(cluster).await?.map(|_| id));
    }
    Ok(found)
}

async fn custom(cluster: &Cluster, crd: &crd::Crd) -> Result<Vec<String>, ClusterError> {
    let kind = GroupVersionKind::gvk(crd.group, crd.version, crd.kind);
    let resource = ApiResource::from_gvk_with_plural(&kind, crd.plural);
    let api: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &resource);
    let listed = match api.list_metadata(&ListParams::default()).await {
        Ok(listed) => listed.items,
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(error) => return Err(refused(format!("listing {}", crd.plural), &error)),
    };
    let of = |meta: kube::core::ObjectMeta| {
        let (namespace, name) = (meta.namespace.unwrap_or_default(), meta.name.unwrap_or_default());
        format!("{} {namespace}/{name}", crd.kind)
    };
    Ok(listed.into_iter().map(|object| of(object.metadata)).collect())
}

async fn pods(cluster: &Cluster, labels: Option<&str>) -> Result<Vec<Pod>, ClusterError> {
    let api: Api<Pod> = Api::all(cluster.client.clone());
    let mut params = ListParams::default().limit(500);
    params.label_selector = labels.map(ToOwned::to_owned);
    let mut found = Vec::new();
    loop {
        let page = api.list(&params).await.map_err(|error| refused("listing pods", &error))?;
        found.extend(page.items);
        match page.metadata.continue_ {
            Some(token) if !token.is_empty() => params.continue_token = Some(token),
            _ => return Ok(found),
        }
    }
}

/// Pods that have a proxy, and have not ended.
///
/// # Errors
/// When the cluster cannot be asked.
pub(crate) async fn injected(cluster: &Cluster) -> Result<Vec<Injected>, ClusterError> {
    let has_proxy = |pod: &Pod| {
        let Some(spec) = &pod.spec else { return false };
        let init = spec.init_containers.iter().flatten();
        spec.containers.iter().chain(init).any(|container| container.name == "mesh-proxy")
    };
    let has_ended = |pod: &Pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    };
    let of = |pod: Pod| {
        let metadata = pod.metadata;
        let annotations = metadata.annotations.unwrap_or_default();
        Injected {
            pod: format!("{}/{}", metadata.namespace.unwrap_or_default(), metadata.name.unwrap_or_default()),
            version: annotations.get(INJECTED).cloned().unwrap_or_default(),
        }
    };
    let all = pods(cluster, None).await?;
    Ok(all.into_iter().filter(|pod| has_proxy(pod) && !has_ended(pod)).map(of).collect())
}

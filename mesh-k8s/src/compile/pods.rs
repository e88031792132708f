//! Pods of a Kubernetes cluster: those that have a proxy count as Workloads.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_core::name::WorkloadRef;

use crate::{
    compile::index::{Index, Item},
    object::{Located, Membership, Object, Pod, Workload},
};

/// Namespaces whose pods have proxies, or get some.
pub(crate) fn namespaces(index: &Index<'_>) -> BTreeSet<Arc<str>> {
    let asked = index.namespaces.values().filter(|ns| ns.object.inject).map(|ns| &ns.object.name);
    let has_proxy = |pod: &&&Pod| matches!(pod.mesh, Membership::Inside(_));
    let found = index.pods.values().filter(has_proxy).map(|pod| &pod.name.namespace);
    asked.chain(found).cloned().collect()
}

/// The uids of the pods in the mesh.
pub(crate) fn uids(index: &Index<'_>) -> BTreeMap<WorkloadRef, Arc<str>> {
    let pods = index.pods.values().filter(|pod| matches!(pod.mesh, Membership::Inside(_)));
    let uid = |pod: &&Pod| {
        let (namespace, name) = (Arc::clone(&pod.name.namespace), Arc::clone(&pod.name.name));
        (WorkloadRef { namespace, name }, Arc::clone(&pod.uid))
    };
    pods.map(uid).collect()
}

impl Item<'_, Workload> {
    /// True when it is a pod, and no object of the kind Workload.
    pub(crate) fn is_pod(&self) -> bool {
        matches!(self.located.object, Object::Pod(_))
    }
}

impl<'a> Index<'a> {
    pub(crate) fn add_pod(&mut self, pod: &'a Pod, located: &'a Located) {
        self.pods.insert(pod.name.key(), pod);
        if pod.on_host && pod.inject != Some(false) {
            self.on_hosts.push(Item { object: pod, located });
        }
        if let Membership::Inside(object) = &pod.mesh {
            self.workloads.push(Item { object, located });
        }
    }

    /// A pod on its host's network gets no proxy, whoever asks for one.
    pub(crate) fn report_pods_on_hosts(&mut self) {
        for Item { object: pod, located } in std::mem::take(&mut self.on_hosts) {
            let namespace = self.namespaces.get(&*pod.name.namespace);
            let is_asked = pod.inject.unwrap_or_else(|| namespace.is_some_and(|ns| ns.object.inject));
            if is_asked {
                let message =
                    "it is to have a proxy, but is on the host's network: it is not in the mesh".to_owned();
                let remedy = "take it off the host's network, or label it meshctl.dev/inject: disabled";
                self.problems.warn(located, 0, "spec.hostNetwork", message, remedy);
            }
        }
    }

    /// Proxies say which Workload they stand beside by name alone: where a pod has that name, the other is refused. The
    /// list must be sorted by name.
    pub(crate) fn drop_namesakes(&mut self) {
        let pods = &self.pods;
        let is_taken = |workload: &Item<'a, Workload>| {
            !workload.is_pod()
                && pods.get(&workload.object.name.key()).is_some_and(|pod| pod.mesh != Membership::Outside)
        };
        let refused: Vec<Item<'a, Workload>> =
            self.workloads.iter().filter(|w| is_taken(w)).copied().collect();
        if refused.is_empty() {
            return;
        }
        self.workloads.retain(|workload| !is_taken(workload));
        for workload in refused {
            let message = "a pod in the mesh has this name already".to_owned();
            let line = workload.place().line;
            self.problems.conflict(workload.located, line, "metadata.name", message, "choose another name");
        }
    }
}

//! Secrets in the controller's own namespace: read, made once, and replaced only by whoever knows what stood there. Beside
//! them is the trust bundle, which tells whether a mesh is in use.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use kube::{
    Api, Resource as _,
    api::{ObjectMeta, PostParams},
};
use mesh_k8s::names::{TRUST_BUNDLE, TRUST_BUNDLE_KEY};

use super::{Cluster, ClusterError, MANAGED_BY, MANAGER, ask};

/// The Secrets of one namespace.
#[derive(Clone)]
pub(crate) struct Secrets {
    api: Api<Secret>,
    maps: Api<ConfigMap>,
    namespace: String,
}

/// A Secret as it was read.
pub(crate) struct Held(Secret);

impl Held {
    /// What is under `key`, if it is text.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        let bytes = self.0.data.as_ref()?.get(key)?;
        std::str::from_utf8(&bytes.0).ok()
    }
}

impl Secrets {
    /// Those of the controller's namespace.
    pub(crate) fn new(cluster: &Cluster) -> Self {
        let api = Api::namespaced(cluster.client.clone(), &cluster.namespace);
        let maps = Api::namespaced(cluster.client.clone(), &cluster.namespace);
        Self { api, maps, namespace: cluster.namespace.clone() }
    }

    /// Names one, for people.
    pub(crate) fn named(&self, name: &str) -> String {
        format!("Secret {}/{name}", self.namespace)
    }

    /// Reads one.
    pub(crate) async fn read(&self, name: &str) -> Result<Option<Held>, ClusterError> {
        let what = || format!("read {}", self.named(name));
        Ok(ask(what, self.api.get_opt(name)).await?.map(Held))
    }

    /// Names the trust bundle, if there is one: the mesh that it is of is in use.
    pub(crate) async fn trust_bundle(&self) -> Result<Option<String>, ClusterError> {
        let named = format!("ConfigMap {}/{TRUST_BUNDLE}", self.namespace);
        let found = ask(|| format!("read the {named}"), self.maps.get_opt(TRUST_BUNDLE)).await?;
        let has_root = |map: &ConfigMap| {
            let pem = map.data.as_ref().and_then(|data| data.get(TRUST_BUNDLE_KEY));
            pem.is_some_and(|pem| !pem.trim().is_empty())
        };
        Ok(found.filter(has_root).map(|_| named))
    }

    /// Makes one. False: there is one already.
    pub(crate) async fn create(&self, name: &str, data: &[(&str, &str)]) -> Result<bool, ClusterError> {
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(BTreeMap::from([(MANAGED_BY.to_owned(), MANAGER.to_owned())])),
            ..ObjectMeta::default()
        };
        let secret = Secret {
            metadata,
            data: Some(bytes(data).collect()),
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        };
        let what = || format!("create {}", self.named(name));
        unless_conflict(ask(what, self.api.create(&params(), &secret)).await)
    }

    /// Changes what was read, and leaves the rest of it. False: somebody else was faster.
    pub(crate) async fn replace(&self, held: Held, data: &[(&str, &str)]) -> Result<bool, ClusterError> {
        let mut secret = held.0;
        secret.data.get_or_insert_default().extend(bytes(data));
        let name = secret.meta().name.clone().unwrap_or_default();
        let what = || format!("replace {}", self.named(&name));
        unless_conflict(ask(what, self.api.replace(&name, &params(), &secret)).await)
    }
}

fn params() -> PostParams {
    PostParams { dry_run: false, field_manager: Some(MANAGER.to_owned()) }
}

fn bytes(data: &[(&str, &str)]) -> impl Iterator<Item = (String, ByteString)> {
    data.iter().map(|(key, text)| ((*key).to_owned(), ByteString(text.as_bytes().to_vec())))
}

fn unless_conflict<T>(answer: Result<T, ClusterError>) -> Result<bool, ClusterError> {
    match answer {
        Ok(_) => Ok(true),
        Err(error) if error.code() == Some(409) => Ok(false),
        Err(error) => Err(error),
    }
}

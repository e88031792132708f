//! What was installed: kept in the cluster, for upgrades to go on from and to come back to.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    chart::NAMESPACE,
    cluster::{
        Cluster, ClusterError,
        objects::{self, Id},
        preflight::MANAGED_BY,
        wait::{Deadline, WaitError},
    },
};

/// The ConfigMap that has it.
const NAME: &str = "mesh-installation";
/// How long the cluster may be away when it is written.
const PATIENCE: Duration = Duration::from_secs(30);

/// A version of the mesh, the values that were wanted, and the objects that were applied.
#[derive(Clone, Debug)]
pub(crate) struct Release {
    pub(crate) version: String,
    /// What differs from the chart's defaults.
    pub(crate) overlay: Value,
    /// Without custom resources' definitions, which stay as they are.
    pub(crate) objects: Vec<Value>,
}

/// Where it is kept.
pub(super) fn id() -> Id {
    Id {
        api_version: "v1".to_owned(),
        kind: "ConfigMap".to_owned(),
        namespace: NAMESPACE.to_owned(),
        name: NAME.to_owned(),
    }
}

impl Release {
    /// Of what is about to be applied.
    pub(crate) fn new(version: &str, overlay: Value, objects: &[Value]) -> Self {
        let objects = objects.iter().filter(|object| object["kind"] != "CustomResourceDefinition");
        Self { version: version.to_owned(), overlay, objects: objects.cloned().collect() }
    }

    /// Reads what the last installation that was completed left; None: there is none.
    ///
    /// # Errors
    /// When the cluster cannot be asked, or somebody has changed it.
    pub(crate) async fn read(cluster: &Cluster) -> Result<Option<Self>, ClusterError> {
        let Some(object) = id().read(cluster).await? else { return Ok(None) };
        let odd = |reason: String| ClusterError::Odd {
            what: id().to_string(),
            reason: format!("{reason}; delete it, and run `meshctl install` with the values that are wanted"),
        };
        let field = |name: &str| object["data"][name].as_str().ok_or_else(|| odd(format!("it lacks {name}")));
        let parse = |name: &str| -> Result<Value, ClusterError> {
            serde_json::from_str(field(name)?).map_err(|error| odd(format!("{name}: {error}")))
        };
        let Value::Array(objects) = parse("objects.json")? else {
            return Err(odd("objects.json is no list".to_owned()));
        };
        Ok(Some(Self { version: field("version")?.to_owned(), overlay: parse("values.json")?, objects }))
    }

    /// Keeps it.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub(crate) async fn write(&self, cluster: &Cluster) -> Result<(), WaitError> {
        let object = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": NAME,
                "namespace": NAMESPACE,
                "labels": {"app.kubernetes.io/part-of": "mesh", MANAGED_BY: "meshctl"},
            },
            "data": {
                "version": self.version,
                "values.json": self.overlay.to_string(),
                "objects.json": Value::Array(self.objects.clone()).to_string(),
            },
        });
        let deadline = Deadline::new(PATIENCE);
        loop {
            let answer = objects::apply(cluster, &object, false).await;
            if deadline.heard("it is not noted what is installed", answer).await?.is_some() {
                return Ok(());
            }
        }
    }
}

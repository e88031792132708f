//! All objects of a cluster, by name: what an uninstall must leave as it was.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::cluster::Cluster;
use crate::workspace;

/// Kinds of which objects come and go by themselves.
const OTHERS: [&str; 7] = [
    "events",
    "events.events.k8s.io",
    "leases.coordination.k8s.io",
    "endpoints",
    "endpointslices.discovery.k8s.io",
    "componentstatuses",
    "ipaddresses.networking.k8s.io",
];

/// Notes which objects are there before the mesh comes.
pub(super) fn remember(cluster: &Cluster<'_>) -> Result<()> {
    let lines: Vec<String> = Objects::list(cluster)?.0.into_iter().collect();
    let file = file()?;
    fs::write(&file, lines.join("\n")).with_context(|| format!("cannot write {}", file.display()))
}

fn file() -> Result<PathBuf> {
    Ok(workspace::target_directory()?.join("e2e-objects"))
}

/// Objects, each as `KIND/NAME in NAMESPACE`.
#[derive(Debug, PartialEq)]
pub(super) struct Objects(BTreeSet<String>);

impl Objects {
    /// Those that are there now.
    pub(super) fn list(cluster: &Cluster<'_>) -> Result<Self> {
        let kinds = cluster.run(&["api-resources", "--verbs=list", "-o", "name", "--no-headers"])?;
        let kinds: Vec<&str> = kinds.lines().filter(|kind| !OTHERS.contains(kind)).collect();
        let columns = "custom-columns=K:.kind,N:.metadata.name,S:.metadata.namespace";
        let get = ["get", &kinds.join(","), "-A", "--ignore-not-found", "--no-headers", "-o", columns];
        let text = cluster.run(&get)?;
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        // kubectl has a kind twice that two groups serve.
        Ok(Self(text.lines().map(words).collect()))
    }

    /// Those that were noted.
    pub(super) fn remembered() -> Result<Self> {
        let file = file()?;
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(Self(text.lines().map(str::to_owned).collect()))
    }

    /// What is here and not in `before`.
    pub(super) fn more_than(&self, before: &Self) -> Vec<String> {
        self.0.difference(&before.0).cloned().collect()
    }
}

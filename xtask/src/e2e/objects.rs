//! Objects that the mesh cannot use are refused when they are written, and nothing of what was there changes.

use anyhow::{Result, ensure};

use super::cluster::Cluster;

/// Each with what its author must be told: by a rule of the schema, by the webhook, and by the schema itself.
const BAD: [(&str, &[&str]); 3] = [
    (
        "apiVersion: meshctl.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: bad, namespace: shop}\nspec:\n  targetRef: \
         {kind: Service, name: catalog}\n  loadBalancing: {algorithm: RoundRobin, hashOn: {sourceIP: true}}\n",
        &["spec.loadBalancing", "hashOn goes with algorithm RingHash or Maglev"],
    ),
    (
        "apiVersion: split.smi-spec.io/v1alpha4\nkind: TrafficSplit\nmetadata: {name: catalog, namespace: shop}\nspec:\n  \
         service: catalog\n  backends: [{service: catalog-v1, weight: 0}, {service: catalog-v2, weight: 0}]\n",
        &["TrafficSplit shop/catalog", "spec.backends", "give at least one backend a weight above 0"],
    ),
    (
        "apiVersion: meshctl.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: bad, namespace: shop}\nspec:\n  targetRef: \
         {kind: Servise, name: catalog}\n  timeouts: {request: 5s}\n",
        &["spec.targetRef.kind", "supported values: \"Service\""],
    ),
];

/// Writes them all, on a cluster where a split of `catalog` stands.
pub(super) fn refused(cluster: &Cluster<'_>) -> Result<()> {
    let split =
        || cluster.get(&["trafficsplit", "-n", "shop", "catalog"]).map(|object| object["spec"].clone());
    let before = split()?;
    for (text, wanted) in BAD {
        let told = cluster.apply(text).err().map(|error| format!("{error:#}")).unwrap_or_default();
        for part in wanted {
            ensure!(
                told.contains(part),
                "there is no `{part}` in what the author of this is told: `{told}`\n{text}"
            );
        }
        println!("{told}");
    }
    ensure!(before == split()?, "a refused object has changed what was there");
    let left = cluster.run(&["get", "trafficpolicies", "-n", "shop", "-o", "name"])?;
    ensure!(!left.contains("/bad"), "a refused object is there: {left}");
    Ok(())
}

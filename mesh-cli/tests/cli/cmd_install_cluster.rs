//! `install`, `upgrade` and `uninstall` against a cluster: what is refused, in what order all comes and goes, and what
//! becomes of failures in between.

use crate::living::Living;

const SYSTEM: &str = "/api/v1/namespaces/mesh-system";

/// Nothing was changed.
#[track_caller]
fn untouched(cluster: &Living) {
    assert_eq!(cluster.state().changes, Vec::<String>::new());
}

#[test]
fn the_trust_domain_stays() {
    let cluster = Living::with_mesh(&["--set", "trustDomain=prod.example.com"]);
    let told = "the trust domain of this mesh is prod.example.com, and would become cluster.local";
    for verb in ["install", "upgrade"] {
        cluster.check(&[verb, "--set", "trustDomain=cluster.local"], 1, &["nothing was changed", told]);
    }
    cluster.check(
        &["upgrade", "--reset-values"],
        1,
        &[told, "keep it with --set trustDomain=prod.example.com"],
    );
    untouched(&cluster);
    // A first installation that was not completed is held to it as well, but not before there are keys.
    cluster.state().objects.remove(&format!("{SYSTEM}/configmaps/mesh-installation"));
    cluster.check(&["install"], 1, &[told]);
    untouched(&cluster);
    cluster.state().objects.remove(&format!("{SYSTEM}/secrets/mesh-ca"));
    cluster.check(&["install"], 0, &["is ready"]);
}

#[test]
fn values_of_the_installation_stay_when_others_are_typed() {
    let cluster = Living::with_mesh(&["--set", "trustDomain=prod.example.com,controller.replicas=3"]);
    cluster.check(&["install", "--set", "controller.logLevel=debug"], 0, &["is ready"]);
    let state = cluster.state();
    let config = &state.objects[&format!("{SYSTEM}/configmaps/mesh-config")]["data"]["inject.yaml"];
    assert!(config.as_str().unwrap().contains("trustDomain: \"prod.example.com\""), "{config}");
    let deployment = &state.objects["/apis/apps/v1/namespaces/mesh-system/deployments/mesh-controller"];
    assert_eq!(deployment["spec"]["replicas"], 3);
}

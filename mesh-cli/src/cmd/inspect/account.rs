//! One service account: who runs under it, what it may call, and who may call it.

use mesh_core::{
    config::WorkloadConfig,
    identity::SpiffeId,
    policy::{Rule, Source},
};
use serde_json::json;

use super::{
    Mesh, Name,
    document::{View, policy_fields, policy_value},
};
use crate::words;

pub(super) fn view(mesh: &Mesh, (namespace, name): &Name) -> View {
    let mut view = View::new("ServiceAccount");
    let configs = || mesh.workloads.iter().map(|view| &view.config);
    let is = |id: &SpiffeId| id.namespace_and_account() == Some((namespace, name));
    let own: Vec<&WorkloadConfig> = configs().filter(|config| is(&config.identity)).collect();
    let Some(first) = own.first() else { return view };
    let workloads: Vec<String> = own.iter().map(|config| config.workload.to_string()).collect();
    let named =
        |rule: &&Rule| rule.sources.iter().any(|source| matches!(source, Source::Identity(id) if is(id)));
    let mut grants: Vec<String> = configs()
        .flat_map(|config| {
            let rules = config.policy.rules.iter().filter(named);
            rules.map(|rule| format!("{}: {}", config.workload, words::rule(rule)))
        })
        .collect();
    grants.sort();
    grants.dedup();
    let fields = [
        ("Identity", first.identity.as_str().to_owned()),
        ("Workloads", workloads.join(", ")),
        ("Named in rules", if grants.is_empty() { "of no workload".into() } else { grants.join("\n") }),
    ];
    view.fields(format!("Service account {namespace}/{name}"), &fields);
    for config in &own {
        view.fields(format!("Who may call workload {}", config.workload), &policy_fields(&config.policy));
    }
    let policies = own.iter().map(
        |config| json!({"workload": config.workload.to_string(), "policy": policy_value(&config.policy)}),
    );
    view.fact("policies", policies.collect::<Vec<_>>());
    view.fact("identity", first.identity.as_str());
    view.fact("namedInRules", grants);
    view.fact("workloads", workloads);
    view
}

//! Applying the chart's objects in an order in which each finds what it needs.

use std::time::Duration;

use serde_json::Value;

use super::{InstallError, release::Release};
use crate::{
    cluster::{
        Cluster, ClusterError,
        objects::{self, Change, Id},
        wait::{self, Deadline, WaitError},
    },
    out::Out,
};

/// When a kind's turn is. Webhooks are last: until the controller answers, they would keep pods from being made.
fn turn(kind: &str) -> u8 {
    match kind {
        "Namespace" => 0,
        "CustomResourceDefinition" => 1,
        "Deployment" | "DaemonSet" => 3,
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => 4,
        "ServiceMonitor" | "PodMonitor" => 5,
        _ => 2,
    }
}

/// Objects in their order.
pub(crate) fn ordered(objects: &[Value]) -> Vec<&Value> {
    let mut ordered: Vec<&Value> = objects.iter().collect();
    ordered.sort_by_key(|object| turn(object["kind"].as_str().unwrap_or_default()));
    ordered
}

/// What applying would do, as the API server says; objects in a namespace that is not there yet are not shown to it.
///
/// # Errors
/// When it would refuse one.
pub(crate) async fn plan(
    cluster: &Cluster,
    objects: &[Value],
    has_namespace: bool,
) -> Result<Vec<(Id, Change)>, ClusterError> {
    let mut plan = Vec::new();
    for object in ordered(objects) {
        let id = Id::of(object);
        let change = if has_namespace || id.namespace.is_empty() {
            objects::apply(cluster, object, true).await?
        } else {
            Change::Created
        };
        plan.push((id, change));
    }
    Ok(plan)
}

/// Applies objects and waits until the mesh is ready, then deletes what the earlier release had beyond them.
///
/// # Errors
/// When the cluster refuses something, or the mesh does not become ready.
pub(crate) async fn take(
    cluster: &Cluster,
    objects: &[Value],
    earlier: Option<&Release>,
    within: Duration,
    out: &Out,
) -> Result<(), WaitError> {
    let deadline = Deadline::new(within);
    let ids = |kinds: &[&str]| -> Vec<Id> {
        let all = objects.iter().map(Id::of);
        all.filter(|id| kinds.contains(&id.kind.as_str())).collect()
    };
    let mut turns_done = 0;
    for object in ordered(objects) {
        let id = Id::of(object);
        let turn = turn(&id.kind);
        if turns_done < 2 && turn >= 2 {
            wait::established(cluster, &ids(&["CustomResourceDefinition"]), deadline).await?;
        }
        if turns_done < 4 && turn >= 4 {
            wait_for_controller(cluster, deadline, out).await?;
        }
        turns_done = turns_done.max(turn);
        match objects::apply(cluster, object, false).await? {
            Change::Created => out.remark(&format!("created   {id}")),
            Change::Changed => out.remark(&format!("changed   {id}")),
            Change::Unchanged => out.detail(&format!("unchanged {id}")),
        }
    }
    if turns_done < 4 {
        wait_for_controller(cluster, deadline, out).await?;
    }
    let webhooks = ids(&["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"]);
    wait::trusted(cluster, &webhooks, deadline).await?;
    for id in earlier.map(|earlier| earlier.beyond(objects)).unwrap_or_default() {
        if id.delete(cluster).await? {
            out.remark(&format!("deleted   {id}"));
        }
    }
    Ok(())
}

async fn wait_for_controller(cluster: &Cluster, deadline: Deadline, out: &Out) -> Result<(), WaitError> {
    wait::rolled_out(cluster, deadline, |state| out.remark(&format!("waiting   controller: {state}"))).await
}

/// How it stands after steps that were not completed, and what to do.
pub(crate) fn unfinished(error: WaitError, rest: &str) -> InstallError {
    let rest = rest.to_owned();
    match error {
        WaitError::Cluster(cause) => InstallError::Interrupted { cause, rest },
        cause @ (WaitError::Late { .. } | WaitError::Hopeless(_)) => InstallError::NotReady { cause, rest },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn webhooks_come_when_somebody_answers() {
        let values = crate::chart::values::complete(json!({"namespace": {"create": true}})).unwrap();
        let objects = crate::chart::render(&values, "meshctl").unwrap();
        let kinds: Vec<&str> = ordered(&objects).iter().map(|o| o["kind"].as_str().unwrap()).collect();
        let at = |kind: &str| kinds.iter().position(|k| *k == kind).unwrap();
        assert_eq!(at("Namespace"), 0);
        assert!(at("CustomResourceDefinition") < at("ServiceAccount"));
        assert!(at("ConfigMap") < at("Deployment"));
        assert!(at("RoleBinding") < at("Deployment"));
        assert!(at("Deployment") < at("MutatingWebhookConfiguration"));
        assert_eq!(at("ValidatingWebhookConfiguration"), kinds.len() - 1);
    }

    #[test]
    fn all_kinds_of_the_chart_are_known() {
        let all = json!({"networkPolicy": {"enabled": true}, "controller": {"replicas": 2},
            "monitoring": {"serviceMonitor": true, "podMonitor": true}, "namespace": {"create": true}});
        let values = crate::chart::values::complete(all).unwrap();
        for object in crate::chart::render(&values, "meshctl").unwrap() {
            let id = Id::of(&object);
            assert!(id.resource().is_some(), "{id}");
            let managed = object["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "meshctl";
            assert!(managed || id.kind == "CustomResourceDefinition", "{id} would not be found again");
        }
    }
}

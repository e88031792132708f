//! Applying the chart's objects in an order in which each finds what it needs.

use std::{collections::HashSet, time::Duration};

use serde_json::Value;

use super::{InstallError, remove};
use crate::{
    cluster::{
        Cluster, ClusterError, agents,
        objects::{self, Change, Id},
        trouble,
        wait::{self, Deadline, WaitError},
    },
    out::Out,
};

/// Turns of kinds after which something is waited for.
const DEFINITIONS: u8 = 1;
const AGENTS: u8 = 3;
const CONTROLLER: u8 = 5;

/// When a kind's turn is. The agents of the CNI plugin are there before the configuration relies on them; webhooks are last:
/// until the controller answers, they would keep pods from being made.
fn turn(kind: &str) -> u8 {
    match kind {
        "Namespace" => 0,
        "CustomResourceDefinition" => DEFINITIONS,
        "DaemonSet" => AGENTS,
        "ConfigMap" => 4,
        "Deployment" => CONTROLLER,
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => 6,
        "ServiceMonitor" | "PodMonitor" => 7,
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

/// Applies objects and waits until the mesh is ready, then deletes what is not wanted any more. Gives what of that could not
/// be done: the mesh is ready all the same.
///
/// # Errors
/// When the cluster refuses something, or the mesh does not become ready.
pub(crate) async fn take(
    cluster: &Cluster,
    objects: &[Value],
    within: Duration,
    out: &Out,
) -> Result<Vec<String>, WaitError> {
    let mut run = Run { cluster, objects, deadline: Deadline::new(within), stuck: HashSet::new(), out };
    let beyond = run.until(async || remove::beyond(cluster, objects).await).await?;
    run.stuck = run.until(async || trouble::stuck(cluster).await).await?;
    // As long as there are agents, they need what the namespace allows them.
    let keeps_level = beyond.contains(&agents::daemon_set());
    let mut done = 0;
    for object in ordered(objects) {
        let turn = turn(object["kind"].as_str().unwrap_or_default());
        run.wait(done, turn).await?;
        done = done.max(turn);
        if !(keeps_level && object["kind"] == "Namespace") {
            run.apply(object).await?;
        }
    }
    run.wait(done, u8::MAX).await?;
    let webhooks = run.ids(&["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"]);
    wait::trusted(cluster, &webhooks, run.deadline).await?;
    run.deadline = run.deadline.renewed();
    Ok(run.tidy(&beyond).await)
}

/// What all steps need.
struct Run<'a> {
    cluster: &'a Cluster,
    objects: &'a [Value],
    deadline: Deadline,
    /// What was past help before anything was changed.
    stuck: HashSet<String>,
    out: &'a Out,
}

impl Run<'_> {
    /// Asks until there is an answer.
    async fn until<T>(&self, ask: impl AsyncFn() -> Result<T, ClusterError>) -> Result<T, WaitError> {
        loop {
            if let Some(answer) = self.deadline.heard("the cluster does not answer", ask().await).await? {
                return Ok(answer);
            }
        }
    }

    fn ids(&self, kinds: &[&str]) -> Vec<Id> {
        let all = self.objects.iter().map(Id::of);
        all.filter(|id| kinds.contains(&id.kind.as_str())).collect()
    }

    async fn apply(&self, object: &Value) -> Result<(), WaitError> {
        let id = Id::of(object);
        match self.until(async || objects::apply(self.cluster, object, false).await).await? {
            Change::Created => self.out.remark(&format!("created   {id}")),
            Change::Changed => self.out.remark(&format!("changed   {id}")),
            Change::Unchanged => self.out.detail(&format!("unchanged {id}")),
        }
        Ok(())
    }

    /// Waits for what the turns that are done bring, before the `next`.
    async fn wait(&mut self, done: u8, next: u8) -> Result<(), WaitError> {
        let Self { cluster, deadline, out, .. } = *self;
        if done <= DEFINITIONS && next > DEFINITIONS {
            wait::established(cluster, &self.ids(&["CustomResourceDefinition"]), deadline).await?;
        }
        if done <= AGENTS && next > AGENTS && self.ids(&["DaemonSet"]).contains(&agents::daemon_set()) {
            let say = |state: &str| out.remark(&format!("waiting   agents of the CNI plugin: {state}"));
            agents::rolled_out(cluster, deadline, &self.stuck, say).await?;
            self.deadline = deadline.renewed();
        }
        if done <= CONTROLLER && next > CONTROLLER {
            let say = |state: &str| out.remark(&format!("waiting   controller: {state}"));
            wait::rolled_out(cluster, self.deadline, &self.stuck, say).await?;
        }
        Ok(())
    }

    /// Deletes what is not wanted any more; what could not be done.
    async fn tidy(&self, beyond: &[Id]) -> Vec<String> {
        let mut left = Vec::new();
        for id in beyond {
            let done = if *id == agents::daemon_set() {
                self.without_agents(&mut left).await
            } else {
                wait::deleted(self.cluster, id, self.deadline).await
            };
            match done {
                Ok(true) => self.out.remark(&format!("deleted   {id}")),
                Ok(false) => {}
                Err(error) => left.push(format!("{id} is still there: {error}")),
            }
        }
        left
    }

    /// Deletes the agents of the CNI plugin, and lowers the level of their namespace.
    async fn without_agents(&self, left: &mut Vec<String>) -> Result<bool, WaitError> {
        let agents = agents::remove(self.cluster, self.deadline).await?;
        left.extend(agents.stay_chained());
        for object in self.objects.iter().filter(|object| object["kind"] == "Namespace") {
            self.apply(object).await?;
        }
        Ok(true)
    }
}

/// How it stands after steps that were not completed, and what to do.
pub(crate) fn unfinished(error: WaitError, rest: &str) -> InstallError {
    let rest = rest.to_owned();
    match error {
        WaitError::Cluster(cause) => InstallError::Interrupted { cause, rest },
        cause @ (WaitError::Late { .. } | WaitError::Hopeless { .. }) => {
            InstallError::NotReady { cause, rest }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn webhooks_come_when_somebody_answers() {
        let values = crate::chart::values::complete(json!({"namespace": {"create": true},
            "cni": {"enabled": true}}))
        .unwrap();
        let objects = crate::chart::render(&values, "meshctl").unwrap();
        let kinds: Vec<&str> = ordered(&objects).iter().map(|o| o["kind"].as_str().unwrap()).collect();
        let at = |kind: &str| kinds.iter().position(|k| *k == kind).unwrap();
        assert_eq!(at("Namespace"), 0);
        assert!(at("CustomResourceDefinition") < at("ServiceAccount"));
        assert!(at("DaemonSet") < at("ConfigMap"));
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

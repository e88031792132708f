//! Finding pods and what makes them, by the names that people type.

use anyhow::Context as _;
use serde_json::Value;

use super::{
    Cluster,
    objects::{self, Id},
    standing::full_name,
};
use crate::cmd::names::Wanted;

/// A kind that can be named.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named {
    pub(crate) api_version: &'static str,
    pub(crate) kind: &'static str,
    /// What people call it.
    pub(crate) noun: &'static str,
    /// What lists all of them.
    pub(crate) lists: &'static str,
}

/// Pods.
pub(crate) const POD: Named =
    Named { api_version: "v1", kind: "Pod", noun: "pod", lists: "kubectl get pods -A" };

/// The only object of that name, in all namespaces or the one that was typed.
///
/// # Errors
/// When there is none, or there are several, or the cluster cannot be asked.
pub(crate) async fn one(cluster: &Cluster, named: Named, wanted: &Wanted) -> anyhow::Result<Value> {
    let namespace = wanted.namespace().unwrap_or_default();
    let all = objects::list(cluster, named.api_version, named.kind, namespace, "").await?;
    let names: Vec<(String, String)> = all.iter().map(pair).collect();
    let found = wanted.only(named.noun, named.lists, &names)?;
    let object = all.into_iter().find(|object| pair(object) == found);
    object.with_context(|| format!("{} {}/{} is gone", named.noun, found.0, found.1))
}

/// One of the kinds that lie in no namespace.
///
/// # Errors
/// When it is not there, or the cluster cannot be asked.
pub(crate) async fn by_name(cluster: &Cluster, named: Named, name: &str) -> anyhow::Result<Value> {
    let id = Id {
        api_version: named.api_version.to_owned(),
        kind: named.kind.to_owned(),
        namespace: String::new(),
        name: name.to_owned(),
    };
    let found = id.read(cluster).await?;
    found.with_context(|| format!("there is no {} {name}; `{}` lists them", named.noun, named.lists))
}

/// The pods that an object with a selector has.
///
/// # Errors
/// When the cluster cannot be asked.
pub(crate) async fn pods_of(cluster: &Cluster, object: &Value) -> anyhow::Result<Vec<Value>> {
    let (namespace, _) = pair(object);
    let mut pods = objects::list(cluster, "v1", "Pod", &namespace, &selector(object)).await?;
    pods.sort_by_key(full_name);
    Ok(pods)
}

/// Its selector, as in a list's query.
fn selector(object: &Value) -> String {
    let selector = &object["spec"]["selector"];
    let equal = selector["matchLabels"].as_object().into_iter().flatten();
    let mut parts: Vec<String> =
        equal.filter_map(|(name, value)| Some(format!("{name}={}", value.as_str()?))).collect();
    for one in selector["matchExpressions"].as_array().into_iter().flatten() {
        let Some(key) = one["key"].as_str() else { continue };
        let values: Vec<&str> =
            one["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        match one["operator"].as_str() {
            Some("In") => parts.push(format!("{key} in ({})", values.join(","))),
            Some("NotIn") => parts.push(format!("{key} notin ({})", values.join(","))),
            Some("Exists") => parts.push(key.to_owned()),
            Some("DoesNotExist") => parts.push(format!("!{key}")),
            _ => {}
        }
    }
    parts.join(",")
}

/// Namespace and name.
pub(crate) fn pair(object: &Value) -> (String, String) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_become_queries() {
        let expressions = json!([
            {"key": "tier", "operator": "In", "values": ["a", "b"]},
            {"key": "x", "operator": "NotIn", "values": ["c"]},
            {"key": "y", "operator": "Exists"},
            {"key": "z", "operator": "DoesNotExist"},
        ]);
        let object =
            json!({"spec": {"selector": {"matchLabels": {"app": "cart"}, "matchExpressions": expressions}}});
        assert_eq!(selector(&object), "app=cart,tier in (a,b),x notin (c),y,!z");
        assert_eq!(selector(&json!({})), "");
    }
}

//! What no schema tells: whether the controller can read what is made of the values. Told here, it replaces nothing that is
//! good.

use std::time::Duration;

use mesh_k8s::{inject, names::LEAF_LIFETIME};
use serde_json::Value;

/// The ConfigMap with the defaults of injection.
pub(crate) const CONFIG: &str = "mesh-config";

/// What is wrong, each with its place.
pub(crate) fn check(values: &Value, objects: &[Value]) -> Vec<String> {
    lifetime(values).into_iter().chain(defaults(objects)).collect()
}

/// The trust domain that these objects give the mesh.
pub(crate) fn trust_domain(objects: &[Value]) -> Option<String> {
    let text = objects.iter().find_map(inject_yaml)?;
    let defaults: Value = serde_saphyr::from_str(text).ok()?;
    defaults["trustDomain"].as_str().map(ToOwned::to_owned)
}

fn lifetime(values: &Value) -> Option<String> {
    let text = values["controller"]["leafLifetime"].as_str()?;
    let is_fit = seconds(text).is_some_and(|seconds| LEAF_LIFETIME.contains(&Duration::from_secs(seconds)));
    (!is_fit).then(|| format!("controller.leafLifetime: {text:?} is not from 10s to 90d"))
}

fn seconds(text: &str) -> Option<u64> {
    let unit = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
    let (digits, unit) = unit.iter().find_map(|(end, unit)| Some((text.strip_suffix(end)?, unit)))?;
    digits.parse::<u64>().ok()?.checked_mul(*unit)
}

/// The defaults of injection: most of them are values under `proxy`.
fn defaults(objects: &[Value]) -> Option<String> {
    let text = objects.iter().find_map(inject_yaml)?;
    let error = inject::Config::from_yaml(text).err()?.to_string();
    let error = named(text, &error).unwrap_or(error);
    Some(format!("the defaults of injection (values under proxy): {error}"))
}

/// With the name that stands there, in place of a line of what nobody has written.
fn named(text: &str, error: &str) -> Option<String> {
    let (line, rest) = error.trim_start_matches("error: ").strip_prefix("line ")?.split_once(" column ")?;
    let (_, told) = rest.split_once(": ")?;
    let line = text.lines().nth(line.parse::<usize>().ok()?.checked_sub(1)?)?;
    let (name, _) = line.split_once(':')?;
    Some(format!("{name}: {told}"))
}

fn inject_yaml(object: &Value) -> Option<&str> {
    let is_config = object["kind"] == "ConfigMap" && object["metadata"]["name"] == CONFIG;
    object["data"]["inject.yaml"].as_str().filter(|_| is_config)
}

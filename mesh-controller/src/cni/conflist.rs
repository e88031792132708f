//! A network's configuration with our plugin in it, and without: pure functions of a file's content.

use std::path::Path;

use serde_json::{Map, Value, json};

/// The plugin's name, and that of its program.
pub(super) const PLUGIN: &str = "mesh-cni";
/// Ends the name of a file that has a list of plugins.
pub(super) const LIST: &str = ".conflist";
/// End the names of files that runtimes take for a network of one plugin.
const SINGLE: [&str; 2] = [".conf", ".json"];
/// Versions of CNI that know no chains begin so.
const NO_CHAINS: [&str; 2] = ["0.1.", "0.2."];

/// A file as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Edited {
    /// Its name: another one than before if the file was of a single plugin.
    pub(super) name: String,
    pub(super) text: String,
}

/// True if container runtimes read a file of that name.
pub(super) fn is_read(name: &str) -> bool {
    name.ends_with(LIST) || SINGLE.iter().any(|end| name.ends_with(end))
}

/// Our plugin's entry.
pub(super) fn entry(socket: &Path, exclude: &[String]) -> Value {
    json!({ "type": PLUGIN, "socket": socket, "exclude": exclude })
}

/// The file with our plugin chained. None: it is already.
///
/// # Errors
/// Why it is no network that plugins can be chained to.
pub(super) fn chained(name: &str, text: &str, entry: &Value) -> Result<Option<Edited>, String> {
    let mut network = object(text)?;
    let new_name = if name.ends_with(LIST) {
        name.to_owned()
    } else {
        network = listed(network)?;
        let stem = SINGLE.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        format!("{stem}{LIST}")
    };
    let version = network.get("cniVersion").and_then(Value::as_str).unwrap_or("0.1.0");
    if NO_CHAINS.iter().any(|old| version.starts_with(old)) {
        return Err(format!("cniVersion {version} has no chains; set it to 0.4.0 or later"));
    }
    let Some(Value::Array(plugins)) = network.get_mut("plugins") else {
        return Err("it has no list `plugins`".to_owned());
    };
    if plugins.iter().any(|plugin| type_of(plugin).is_none()) {
        return Err("one of its plugins has no `type`".to_owned());
    }
    if !plugins.iter().any(|plugin| !is_ours(plugin)) {
        return Err("it has no plugin that makes a network".to_owned());
    }
    // Wherever others put themselves, they need not move for us: all that matters is that a network is there.
    let own: Vec<usize> = (0..plugins.len()).filter(|at| plugins.get(*at).is_some_and(is_ours)).collect();
    if let [at] = own[..]
        && at > 0
        && plugins.get(at) == Some(entry)
    {
        return Ok(None);
    }
    plugins.retain(|plugin| !is_ours(plugin));
    plugins.push(entry.clone());
    Ok(Some(Edited { name: new_name, text: written(&network) }))
}

/// The file without our plugin. None: it is not in there.
pub(super) fn unchained(name: &str, text: &str) -> Option<Edited> {
    let mut network = object(text).ok()?;
    let plugins = network.get_mut("plugins")?.as_array_mut()?;
    let before = plugins.len();
    plugins.retain(|plugin| !is_ours(plugin));
    (plugins.len() < before).then(|| Edited { name: name.to_owned(), text: written(&network) })
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("it is no JSON object".to_owned()),
        Err(error) => Err(format!("it is no JSON: {error}")),
    }
}

/// A network of one plugin as a list of one: what runtimes make of it themselves.
fn listed(mut single: Map<String, Value>) -> Result<Map<String, Value>, String> {
    if !single.get("type").is_some_and(Value::is_string) {
        return Err("it has no `type`".to_owned());
    }
    let mut network = Map::new();
    for field in ["cniVersion", "name"] {
        network.extend(single.remove(field).map(|value| (field.to_owned(), value)));
    }
    network.insert("plugins".to_owned(), json!([single]));
    Ok(network)
}

fn type_of(plugin: &Value) -> Option<&str> {
    plugin.get("type")?.as_str()
}

fn is_ours(plugin: &Value) -> bool {
    type_of(plugin) == Some(PLUGIN)
}

fn written(network: &Map<String, Value>) -> String {
    format!("{:#}\n", Value::Object(network.clone()))
}

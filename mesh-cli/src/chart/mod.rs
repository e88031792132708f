//! The mesh's chart, which is part of this program, rendered as Helm would (docs/adr/0013-templates-by-gtmpl.md).
//!
//! [`values`] is what is wanted, checked by [`schema`] and, when it is rendered, by [`meaning`]; [`functions`] are those of Helm's that the chart uses.

mod functions;
pub(crate) mod meaning;
mod schema;
#[cfg(test)]
mod tests;
pub(crate) mod values;

use std::collections::HashMap;

use gtmpl_ng::{Context, Template, Value as Variable};
use serde_json::{Value, json};

/// A file of the chart.
type File = (&'static str, &'static str);

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../../charts/mesh/", $name)))),*]
    };
}

const DEFINITION: &str = include_str!("../../../charts/mesh/Chart.yaml");
const VALUES: &str = include_str!("../../../charts/mesh/values.yaml");
const SCHEMA: &str = include_str!("../../../charts/mesh/values.schema.json");
/// What all templates include.
const HELPERS: &str = include_str!("../../../charts/mesh/templates/_helpers.tpl");

const TEMPLATES: [File; 17] = files![
    "templates/namespace.yaml",
    "templates/crds/workloads.yaml",
    "templates/crds/trafficpolicies.yaml",
    "templates/crds/externalservices.yaml",
    "templates/crds/trafficsplits.yaml",
    "templates/crds/traffictargets.yaml",
    "templates/crds/httproutegroups.yaml",
    "templates/crds/tcproutes.yaml",
    "templates/rbac.yaml",
    "templates/configmap.yaml",
    "templates/service.yaml",
    "templates/network.yaml",
    "templates/disruption.yaml",
    "templates/deployment.yaml",
    "templates/monitoring.yaml",
    "templates/cni.yaml",
    "templates/webhooks.yaml",
];

const PROFILES: [File; 3] = files!["profiles/demo.yaml", "profiles/ha.yaml", "profiles/minimal.yaml"];

/// The namespace of the mesh.
pub(crate) const NAMESPACE: &str = "mesh-system";

/// Why the chart cannot be rendered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChartError {
    /// A template does not agree with the values.
    #[error("{file}: {reason}")]
    Template {
        /// Which.
        file: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// What a template makes is no YAML.
    #[error("{file} makes no YAML of these values: {reason}")]
    NotYaml {
        /// Which.
        file: &'static str,
        /// What is wrong.
        reason: String,
    },
}

/// Renders the chart: objects in the order of its files. `service` is who manages them, as in `Helm`.
///
/// # Errors
/// When the chart does not fit the values.
pub(crate) fn render(values: &Value, service: &str) -> Result<Vec<Value>, ChartError> {
    let definition: Value = serde_saphyr::from_str(DEFINITION)
        .map_err(|error| ChartError::NotYaml { file: "Chart.yaml", reason: error.to_string() })?;
    let context = json!({
        "Values": values,
        "Chart": {
            "Name": definition["name"],
            "Version": definition["version"],
            "AppVersion": definition["appVersion"],
        },
        "Release": {"Name": "mesh", "Namespace": NAMESPACE, "Service": service},
    });
    let context = Context::from(variable(&context));
    let mut objects = Vec::new();
    for (file, text) in TEMPLATES {
        let text = expand(file, text, &context)
            .map_err(|error| ChartError::Template { file, reason: error.to_string() })?;
        let found: Vec<Value> = serde_saphyr::from_multiple(&text)
            .map_err(|error| ChartError::NotYaml { file, reason: error.to_string() })?;
        objects.extend(found.into_iter().filter(|object| !object.is_null()));
    }
    Ok(objects)
}

fn expand(name: &str, text: &str, context: &Context) -> Result<String, gtmpl_ng::TemplateError> {
    let mut template = Template::with_name(name);
    functions::add_to(&mut template);
    template.add_template("helpers", HELPERS)?;
    template.add_template(name, text)?;
    Ok(template.render(context)?)
}

/// A value as templates see it.
fn variable(value: &Value) -> Variable {
    match value {
        Value::Null => Variable::Nil,
        Value::Bool(value) => Variable::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Variable::from(integer),
            (None, Some(float)) => Variable::from(float),
            (None, None) => Variable::from(number.to_string()),
        },
        Value::String(text) => Variable::from(text.as_str()),
        Value::Array(items) => Variable::Array(items.iter().map(variable).collect()),
        Value::Object(fields) => {
            let fields: HashMap<String, Variable> =
                fields.iter().map(|(name, value)| (name.clone(), variable(value))).collect();
            Variable::Map(fields)
        }
    }
}

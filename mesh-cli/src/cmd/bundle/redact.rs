//! What must not leave a cluster is taken out: contents of Secrets, values of applications' environment, and whatever looks
//! like a token, a password or a private key.

use mesh_k8s::names::{CHECK_CONTAINER, INIT_CONTAINER, PROXY_CONTAINER};
use regex::Regex;
use serde_json::Value;

/// What stands in its place.
const GONE: &str = "[redacted]";
/// Names of values that are secrets.
const NAMES: &str = r"(?i)passw|passphrase|pwd|secret|token|credential|authorization|cookie|api[-_]?key|access[-_]?key|private[-_]?key|dsn|signature";
/// Fields of Kubernetes and of proxies with such a name that hold none.
const HARMLESS: [&str; 4] = ["secretName", "token_file", "tokenFile", "serviceAccountToken"];
/// Containers of the mesh: the values of their environment are no secrets, unless they look like some.
const OURS: [&str; 5] = [PROXY_CONTAINER, INIT_CONTAINER, CHECK_CONTAINER, "controller", "mesh-controller"];
/// Texts that are secrets, and what takes their place.
const TEXTS: [(&str, &str); 6] = [
    (r"(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)", GONE),
    (r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*", GONE),
    (r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}", "$1 [redacted]"),
    (r"([A-Za-z][A-Za-z0-9+.-]*://[^/\s:@]*):[^@/\s]+@", "$1:[redacted]@"),
    (
        r"\b(?:AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{20,}|xox[abps]-[A-Za-z0-9-]{10,}|glpat-[A-Za-z0-9_-]{10,})",
        GONE,
    ),
    (
        r#"(?i)([a-z0-9_.-]*(?:passw|passphrase|pwd|secret|token|credential|api[-_]?key|access[-_]?key|private[-_]?key)[a-z0-9_.-]*\\?["']?\s*[=:]\s*)(?:\\?"[^"]*"|'[^']*'|[^\s,;&"']+)"#,
        "$1[redacted]",
    ),
];

/// Takes secrets out of texts and objects.
#[derive(Debug)]
pub(super) struct Redactor {
    texts: Vec<(Regex, &'static str)>,
    names: Regex,
    /// Secrets that are known: wherever they stand, they go.
    known: Vec<String>,
}

impl Redactor {
    /// `known`: secrets that are at hand.
    ///
    /// # Errors
    /// Never, as long as the patterns of this file are good.
    pub(super) fn new(known: Vec<String>) -> Result<Self, regex::Error> {
        let compile = |(pattern, with): (&str, &'static str)| Regex::new(pattern).map(|regex| (regex, with));
        let texts = TEXTS.into_iter().map(compile).collect::<Result<Vec<_>, _>>()?;
        let known = known.into_iter().filter(|secret| secret.len() >= 8).collect();
        Ok(Self { texts, names: Regex::new(NAMES)?, known })
    }

    /// A text, such as a log.
    pub(super) fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.known {
            text = text.replace(secret.as_str(), GONE);
        }
        for (pattern, with) in &self.texts {
            text = pattern.replace_all(&text, *with).into_owned();
        }
        text
    }

    /// An object, or any other JSON.
    pub(super) fn json(&self, mut value: Value) -> Value {
        self.walk(&mut value);
        value
    }

    fn walk(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.walk(item)),
            Value::Object(_) => self.object(value),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn object(&self, value: &mut Value) {
        if value["kind"] == "Secret" {
            let metadata = ["name", "namespace"].map(|f| (f.to_owned(), value["metadata"][f].clone()));
            let metadata: serde_json::Map<String, Value> = metadata.into_iter().collect();
            *value = serde_json::json!({"kind": "Secret", "metadata": metadata, "data": GONE});
            return;
        }
        let is_container = value["image"].is_string() || value["env"].is_array();
        let ours = value["name"].as_str().is_some_and(|name| OURS.contains(&name));
        let Some(fields) = value.as_object_mut() else { return };
        fields.remove("managedFields");
        if let Some(annotations) = fields.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
        let named_so =
            fields.get("name").and_then(Value::as_str).is_some_and(|name| self.names.is_match(name));
        if named_so && fields.get("value").is_some_and(Value::is_string) {
            fields.insert("value".to_owned(), GONE.into());
        }
        if is_container && !ours {
            let env = fields.get_mut("env").and_then(Value::as_array_mut);
            for one in env.into_iter().flatten().filter_map(Value::as_object_mut) {
                if one.contains_key("value") {
                    one.insert("value".to_owned(), GONE.into());
                }
            }
        }
        for (name, field) in fields.iter_mut() {
            let secret = self.names.is_match(name) && !HARMLESS.contains(&name.as_str());
            if secret && field.is_string() {
                *field = GONE.into();
            } else {
                self.walk(field);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn redactor() -> Redactor {
        Redactor::new(vec!["0123456789abcdef".into(), "short".into()]).unwrap()
    }

    #[test]
    fn texts_lose_their_secrets() {
        let redactor = redactor();
        let check = |text: &str, expected: &str| assert_eq!(redactor.text(text), expected, "{text}");
        check("a short line about nothing", "a short line about nothing");
        check("view 0123456789abcdef!", "view [redacted]!");
        check("authorization: Bearer abcdefghijkl", "authorization: Bearer [redacted]");
        check("x eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrIn0.c2ln y", "x [redacted] y");
        check("postgres://me:hunter2@db/shop", "postgres://me:[redacted]@db/shop");
        check("--db-password=hunter2 --port=1", "--db-password=[redacted] --port=1");
        check(r#"{"apiKey":"abc","n":1}"#, r#"{"apiKey":[redacted],"n":1}"#);
        check("a\n-----BEGIN EC PRIVATE KEY-----\nMHcC\n-----END EC PRIVATE KEY-----\nb", "a\n[redacted]\nb");
        check("cut -----BEGIN PRIVATE KEY-----\nMHcC", "cut [redacted]");
        check("AKIAIOSFODNN7EXAMPLE", "[redacted]");
        check("-----BEGIN CERTIFICATE-----", "-----BEGIN CERTIFICATE-----");
    }

    #[test]
    fn objects_lose_theirs() {
        let app = json!({"name": "app", "image": "i", "args": ["--token=abc", "-v"],
            "env": [{"name": "COLOUR", "value": "blue"}, {"name": "REF", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]});
        let ours = json!({"name": "mesh-proxy", "image": "p",
            "env": [{"name": "MESH_CONTROLLER", "value": "mesh:15010"}, {"name": "MY_TOKEN", "value": "t"}]});
        let pod = json!({"kind": "Pod", "metadata": {"name": "a", "managedFields": [1],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "hunter2", "keep": "1"}},
            "spec": {"containers": [app, ours], "volumes": [{"secret": {"secretName": "mesh-ca"}}]}});
        let told = redactor().json(pod);
        let containers = &told["spec"]["containers"];
        assert_eq!(containers[0]["env"][0], json!({"name": "COLOUR", "value": GONE}));
        assert_eq!(containers[0]["env"][1]["valueFrom"]["secretKeyRef"]["name"], "s");
        assert_eq!(containers[0]["args"], json!(["--token=[redacted]", "-v"]));
        assert_eq!(containers[1]["env"][0]["value"], "mesh:15010");
        assert_eq!(containers[1]["env"][1]["value"], GONE);
        assert_eq!(told["metadata"], json!({"name": "a", "annotations": {"keep": "1"}}));
        assert_eq!(told["spec"]["volumes"][0]["secret"]["secretName"], "mesh-ca");
        let secret = json!({"kind": "Secret", "metadata": {"name": "s", "namespace": "n", "annotations": {"x": "hunter2"}},
            "data": {"a": "aHVudGVyMg=="}, "stringData": {"b": "hunter2"}});
        let told = redactor().json(json!({"items": [secret]})).to_string();
        assert!(
            told.contains("\"name\":\"s\"") && !told.contains("hunter2") && !told.contains("aHVudGVyMg"),
            "{told}"
        );
        let map = json!({"kind": "ConfigMap", "data": {"db_password": "hunter2", "plain": "yes"}});
        assert_eq!(redactor().json(map)["data"], json!({"db_password": GONE, "plain": "yes"}));
        let header = json!({"set": [{"name": "Authorization", "value": "hunter2"}]});
        assert_eq!(redactor().json(header)["set"][0]["value"], GONE);
    }
}

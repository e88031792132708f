//! Builds structural schemas, as CustomResourceDefinitions have them (OpenAPI v3).

use serde_json::{Map, Value, json};

/// A duration, as `parse::values` reads it (GEP-2257).
const DURATION: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";
/// A name of DNS (RFC 1123), and one label of it.
const NAME: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// What a value may be.
#[derive(Clone, Debug)]
pub(super) struct Schema(Map<String, Value>);

impl Schema {
    fn of(kind: &str) -> Self {
        Self(Map::new()).with("type", kind)
    }

    fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    /// What it means, for `kubectl explain`.
    pub(super) fn about(self, text: &str) -> Self {
        self.with("description", text)
    }

    /// Fields of an object that must be there.
    pub(super) fn required(self, names: &[&str]) -> Self {
        self.with("required", names)
    }

    /// Items of a list that have different owners, told apart by this field.
    pub(super) fn keyed_by(self, field: &str) -> Self {
        self.with("x-kubernetes-list-type", "map").with("x-kubernetes-list-map-keys", json!([field]))
    }

    /// An expression (CEL) that must hold; else `message` is said.
    pub(super) fn rule(self, expression: &str, message: &str) -> Self {
        self.with("x-kubernetes-validations", json!([{"rule": expression, "message": message}]))
    }

    /// Exactly one of these fields must be there.
    pub(super) fn one_of(self, names: &[&str]) -> Self {
        let has: Vec<String> = names.iter().map(|name| format!("has(self.{name})")).collect();
        let rule = format!("[{}].exists_one(found, found)", has.join(", "));
        self.rule(&rule, &format!("exactly one of {} is needed", names.join(", ")))
    }

    pub(super) fn json(self) -> Value {
        Value::Object(self.0)
    }
}

/// Text of which the API server itself sees to the rest.
pub(super) fn plain() -> Schema {
    Schema::of("string")
}

/// Text.
pub(super) fn text() -> Schema {
    Schema::of("string").with("maxLength", 4096)
}

/// Longer text.
pub(super) fn long_text(max: usize) -> Schema {
    Schema::of("string").with("maxLength", max)
}

/// A name (RFC 1123).
pub(super) fn name() -> Schema {
    Schema::of("string").with("maxLength", 253).with("pattern", NAME)
}

/// A name that is one label of a host name.
pub(super) fn label() -> Schema {
    Schema::of("string").with("maxLength", 63).with("pattern", LABEL)
}

/// One of these words.
pub(super) fn choice(words: &[&str]) -> Schema {
    Schema::of("string").with("enum", words)
}

/// True or false.
pub(super) fn flag() -> Schema {
    Schema::of("boolean")
}

/// A whole number.
pub(super) fn integer(min: u32, max: u32) -> Schema {
    let format = if i32::try_from(max).is_ok() { "int32" } else { "int64" };
    Schema::of("integer").with("format", format).with("minimum", min).with("maximum", max)
}

/// A port.
pub(super) fn port() -> Schema {
    integer(1, u32::from(u16::MAX))
}

/// A share in percent.
pub(super) fn percent() -> Schema {
    Schema::of("number").with("minimum", 0).with("maximum", 100)
}

/// A duration, as in 500ms or 1m30s.
pub(super) fn duration() -> Schema {
    Schema::of("string").with("maxLength", 32).with("pattern", DURATION)
}

/// A list of at most so many items.
pub(super) fn list(items: Schema, max: usize) -> Schema {
    Schema::of("array").with("maxItems", max).with("items", items.json())
}

/// An object with these fields.
pub(super) fn object<const N: usize>(fields: [(&str, Schema); N]) -> Schema {
    let fields: Map<String, Value> =
        fields.into_iter().map(|(name, schema)| (name.to_owned(), schema.json())).collect();
    Schema::of("object").with("properties", fields)
}

/// Whatever the mesh's own reader makes of it.
pub(super) fn anything() -> Schema {
    Schema(Map::new()).with("x-kubernetes-preserve-unknown-fields", true)
}

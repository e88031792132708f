//! Checks values against a schema. It knows the keywords that `values.schema.json` uses, and a test sees that the file uses
//! no others: Helm checks with the same file.

use serde_json::Value;

use crate::nearest::nearest;

/// What is wrong, each with its place.
pub(super) fn check(schema: &Value, value: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    look(schema, value, "", &mut wrong);
    wrong
}

fn look(schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
    if let Some(expected) = schema.get("type") {
        let names: Vec<&str> = match expected {
            Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
            other => other.as_str().into_iter().collect(),
        };
        if !names.iter().any(|name| is(name, value)) {
            let words: Vec<&str> = names.into_iter().map(word).collect();
            wrong.push(format!("{at}: {} is not {}", shown(value), words.join(" or ")));
            return;
        }
    }
    if let Some(words) = schema.get("enum").and_then(Value::as_array)
        && !words.contains(value)
    {
        let words: Vec<String> = words.iter().map(shown).collect();
        wrong.push(format!("{at}: {} is not one of {}", shown(value), words.join(", ")));
    }
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                field(schema, name, inner, &path, wrong);
            }
        }
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                for (index, item) in items.iter().enumerate() {
                    look(schema, item, &format!("{at}[{index}]"), wrong);
                }
            }
        }
        Value::String(text) => {
            if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
                && !regex::Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text))
            {
                wrong.push(format!("{at}: {} does not have the form {pattern}", shown(value)));
            }
        }
        Value::Number(number) => {
            let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
            let number = number.as_f64().unwrap_or(f64::NAN);
            let low = bound("minimum").is_some_and(|least| number < least);
            let high = bound("maximum").is_some_and(|most| number > most);
            if low || high {
                let bounds = [bound("minimum"), bound("maximum")]
                    .map(|b| b.map_or_else(String::new, |b| b.to_string()));
                wrong.push(format!("{at}: {} is not from {} to {}", shown(value), bounds[0], bounds[1]));
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

fn field(schema: &Value, name: &str, value: &Value, path: &str, wrong: &mut Vec<String>) {
    let known = schema.get("properties").and_then(Value::as_object);
    if let Some(inner) = known.and_then(|known| known.get(name)) {
        return look(inner, value, path, wrong);
    }
    match schema.get("additionalProperties") {
        Some(Value::Bool(false)) => {
            let names = || known.into_iter().flat_map(|known| known.keys().map(String::as_str));
            let remedy = match nearest(name, names()) {
                Some(meant) => format!("did you mean {meant}?"),
                None => format!("known here: {}", names().collect::<Vec<_>>().join(", ")),
            };
            wrong.push(format!("{path}: there is no such value; {remedy}"));
        }
        Some(inner @ Value::Object(_)) => look(inner, value, path, wrong),
        _ => {}
    }
}

fn is(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        _ => false,
    }
}

/// The name of a type, for people.
fn word(name: &str) -> &str {
    match name {
        "object" => "a mapping",
        "array" => "a list",
        "string" => "text",
        "boolean" => "true or false",
        "integer" => "a whole number",
        "number" => "a number",
        other => other,
    }
}

/// A value in few words.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 60 { text } else { text.chars().take(57).chain("...".chars()).collect() }
}

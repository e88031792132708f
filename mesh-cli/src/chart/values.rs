//! Values of the chart: its defaults, under a profile, under files, under `--set`, as Helm has it.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::{PROFILES, SCHEMA, VALUES, schema};

/// Largest file of values, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// Deepest place that `--set` can name, and longest list that it can make.
const MAX_DEPTH: usize = 16;
const MAX_ITEMS: usize = 1000;

/// Why values cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ValuesError {
    /// A file cannot be read.
    #[error("cannot read the values in {}: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is too large.
    #[error("{} has more than {MAX_FILE} bytes: that is no file of values", .0.display())]
    TooLarge(PathBuf),
    /// A text is no mapping.
    #[error("{place}: {reason}")]
    NoMapping {
        /// Which.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// A `--set` cannot be read.
    #[error(
        "--set {text:?}: {reason}; write it as in controller.replicas=3 or proxy.skipOutboundPorts={{25,587}}"
    )]
    BadSet {
        /// What was typed.
        text: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The values are not what the chart takes.
    #[error("the values are not what the chart takes: {}; charts/mesh/README.md lists them", .0.join("; "))]
    Refused(Vec<String>),
}

/// What somebody wants of the chart's values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted<'a> {
    /// The name of a profile.
    pub(crate) profile: Option<&'a str>,
    /// Files, the later above the earlier.
    pub(crate) files: &'a [PathBuf],
    /// Texts of `--set`.
    pub(crate) set: &'a [String],
    /// Texts of `--set-string`.
    pub(crate) set_string: &'a [String],
}

impl Wanted<'_> {
    /// Reads files and texts: what differs from the defaults, on top of `base`.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub(crate) fn overlay(&self, base: Value) -> Result<Value, ValuesError> {
        let mut values = base;
        if let Some(name) = self.profile {
            let file = format!("profiles/{name}.yaml");
            let text = PROFILES.iter().find(|(path, _)| *path == file).map_or("", |(_, text)| text);
            merge(&mut values, mapping(&file, text)?);
        }
        for path in self.files {
            merge(&mut values, mapping(&path.display().to_string(), &read(path)?)?);
        }
        for (texts, typed) in [(self.set, true), (self.set_string, false)] {
            for text in texts {
                set(&mut values, text, typed)?;
            }
        }
        Ok(values)
    }
}

/// The chart's defaults with `overlay` on top, checked.
///
/// # Errors
/// When they are not what the chart takes.
pub(crate) fn complete(overlay: Value) -> Result<Value, ValuesError> {
    let mut values = mapping("values.yaml", VALUES)?;
    merge(&mut values, overlay);
    let no_schema = |error: serde_json::Error| ValuesError::NoMapping {
        place: "values.schema.json".to_owned(),
        reason: error.to_string(),
    };
    let schema: Value = serde_json::from_str(SCHEMA).map_err(no_schema)?;
    let wrong = schema::check(&schema, &values);
    if wrong.is_empty() { Ok(values) } else { Err(ValuesError::Refused(wrong)) }
}

fn read(path: &PathBuf) -> Result<String, ValuesError> {
    let unreadable = |source| ValuesError::Unreadable { path: path.clone(), source };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > MAX_FILE {
        return Err(ValuesError::TooLarge(path.clone()));
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

/// Reads YAML that is a mapping, or empty.
pub(crate) fn mapping(place: &str, text: &str) -> Result<Value, ValuesError> {
    let wrong = |reason: String| ValuesError::NoMapping { place: place.to_owned(), reason };
    let found: Vec<Value> =
        serde_saphyr::from_multiple(text).map_err(|error| wrong(format!("no YAML: {error}")))?;
    match <[Value; 1]>::try_from(found) {
        Ok([Value::Object(fields)]) => Ok(Value::Object(fields)),
        Ok([Value::Null]) => Ok(Value::Object(Map::new())),
        Ok(_) => Err(wrong("values are a mapping, as in \"controller: {replicas: 3}\"".to_owned())),
        Err(found) if found.is_empty() => Ok(Value::Object(Map::new())),
        Err(_) => Err(wrong("there is more than one document".to_owned())),
    }
}

/// Puts `above` on `below`: mappings are joined, null takes a value away, all else replaces.
fn merge(below: &mut Value, above: Value) {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            for (name, value) in above {
                match below.get_mut(&name) {
                    _ if value.is_null() => {
                        below.remove(&name);
                    }
                    Some(old) if old.is_object() && value.is_object() => merge(old, value),
                    Some(_) | None => {
                        below.insert(name, value);
                    }
                }
            }
        }
        (below, above) => *below = above,
    }
}

/// Reads `a.b=c,d={1,2}` and puts it into `values`. A backslash takes a character as it is.
fn set(values: &mut Value, text: &str, typed: bool) -> Result<(), ValuesError> {
    let wrong = |reason| ValuesError::BadSet { text: text.to_owned(), reason };
    for part in split(text, ',') {
        let mut sides = split(&part, '=').into_iter();
        let (Some(path), Some(first)) = (sides.next(), sides.next()) else {
            return Err(wrong("there is no \"=\""));
        };
        let value = sides.fold(first, |all, more| format!("{all}={more}"));
        let value = match value.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some("") => Value::Array(Vec::new()),
            Some(items) => split(items, ',').iter().map(|item| scalar(item, typed)).collect(),
            None => scalar(&value, typed),
        };
        let steps = split(&path, '.');
        if steps.len() > MAX_DEPTH || steps.iter().any(String::is_empty) {
            return Err(wrong("the name is no path of names with dots between them"));
        }
        place(values, &steps, value).map_err(wrong)?;
    }
    Ok(())
}

/// Puts a value where a path leads to; a step may end in `[N]`.
fn place(values: &mut Value, steps: &[String], value: Value) -> Result<(), &'static str> {
    let Some((step, rest)) = steps.split_first() else {
        *values = value;
        return Ok(());
    };
    let (name, index) = match step.strip_suffix(']').and_then(|step| step.split_once('[')) {
        Some((name, index)) => (name, Some(index)),
        None => (step.as_str(), None),
    };
    if !values.is_object() {
        *values = Value::Object(Map::new());
    }
    let Value::Object(fields) = values else { return Err("not a mapping") };
    let mut inner = fields.entry(unescaped(name)).or_insert(Value::Null);
    if let Some(index) = index {
        let index: usize = index.parse().map_err(|_| "what stands in [] is no number")?;
        if index >= MAX_ITEMS {
            return Err("the list would be too long");
        }
        if !inner.is_array() {
            *inner = Value::Array(Vec::new());
        }
        let Value::Array(items) = inner else { return Err("not a list") };
        if items.len() <= index {
            items.resize(index + 1, Value::Null);
        }
        inner = items.get_mut(index).ok_or("not a list")?;
    }
    place(inner, rest, value)
}

/// A number, true, false, null or text.
fn scalar(text: &str, typed: bool) -> Value {
    let text = unescaped(text);
    if !typed {
        return Value::String(text);
    }
    let leading_zero = text.len() > 1 && text.starts_with('0');
    match text.as_str() {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        "null" => Value::Null,
        _ => match text.parse::<i64>() {
            Ok(number) if !leading_zero => Value::from(number),
            _ => Value::String(text),
        },
    }
}

/// Parts between separators; not where a backslash stands before one, nor within `{}`.
fn split(text: &str, separator: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0_usize;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if c == separator && depth == 0 {
            parts.push(String::new());
            continue;
        }
        if let Some(last) = parts.last_mut() {
            last.push(c);
            if c == '\\' {
                last.extend(characters.next());
            }
        }
    }
    parts
}

fn unescaped(text: &str) -> String {
    let mut characters = text.chars();
    let mut found = String::with_capacity(text.len());
    while let Some(c) = characters.next() {
        found.extend(if c == '\\' { characters.next() } else { Some(c) });
    }
    found
}

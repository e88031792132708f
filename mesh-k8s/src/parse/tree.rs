//! One YAML document as a tree that knows the line of every value.
//!
//! A tree, and not serde's derived types, because an object that is refused must still be recognised by kind and name,
//! and because every mistake in it is to be reported at once, with line and path. Size, depth and aliases are bounded.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{
    Options, Spanned,
    options::{DuplicateKeyPolicy, NonFiniteFloatPolicy},
};

/// Deepest nesting of one document.
const MAX_DEPTH: usize = 32;
/// Most values in one document, aliases expanded.
const MAX_NODES: usize = 200_000;

/// A value and its line.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Line in the file, from 1.
    pub(crate) line: u32,
    /// The value.
    pub(crate) value: Value,
}

/// A YAML value (core schema).
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// Nothing, or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer.
    Integer(i128),
    /// Another number.
    Float(f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping; keys can be there twice.
    Map(Vec<Entry>),
}

/// One entry of a mapping.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The key.
    pub(crate) key: String,
    /// The key's line.
    pub(crate) line: u32,
    /// The value.
    pub(crate) value: Node,
}

/// Why a document is no YAML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable {
    /// Line in the file, from 1.
    pub(crate) line: u32,
    /// What is wrong.
    pub(crate) message: String,
}

/// Reads one document whose first line is `first_line` of its file. None: it is empty.
pub(crate) fn read(text: &str, first_line: u32) -> Result<Option<Node>, Unreadable> {
    match serde_saphyr::from_str_with_options::<Node>(text, options()) {
        Ok(mut node) => {
            node.shift(first_line.saturating_sub(1));
            Ok(Some(node).filter(|n| !matches!(n.value, Value::Null)))
        }
        Err(error) => {
            let error = error.without_snippet();
            let relative = error.location().map_or(1, |l| u32::try_from(l.line()).unwrap_or(u32::MAX)).max(1);
            let message = error.to_string();
            let first = message.lines().next().unwrap_or_default();
            Err(Unreadable {
                line: first_line.saturating_add(relative - 1),
                message: without_location(first).chars().take(300).collect(),
            })
        }
    }
}

/// Cuts off " at line 3, column 7": lines of one document are not those of the file.
fn without_location(message: &str) -> &str {
    let cut = message.find(" at line ").or_else(|| message.find("line ").filter(|&at| at == 0));
    cut.and_then(|at| message.get(..at)).filter(|rest| !rest.is_empty()).unwrap_or(message)
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 2 * MAX_NODES,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_recorded_anchor_events: MAX_NODES,
            max_merge_keys: 1_000,
            max_documents: 1,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_NODES,
            max_replay_stack_depth: 8,
        },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        emit_comments: false,
        strict_booleans: true,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        with_snippet: false,
    }
}

impl Node {
    fn shift(&mut self, by: u32) {
        self.line = self.line.saturating_add(by);
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.shift(by)),
            Value::Map(entries) => entries.iter_mut().for_each(|entry| {
                entry.line = entry.line.saturating_add(by);
                entry.value.shift(by);
            }),
            Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_) => {}
        }
    }

    /// The first value under `key` of a mapping.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|e| e.key == key).map(|e| &e.value),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl From<&serde_json::Value> for Node {
    /// Without lines: all are 0.
    fn from(json: &serde_json::Value) -> Self {
        let value = match json {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(value) => Value::Bool(*value),
            serde_json::Value::Number(number) => match number.as_i128() {
                Some(integer) => Value::Integer(integer),
                None => Value::Float(number.as_f64().unwrap_or(f64::INFINITY)),
            },
            serde_json::Value::String(text) => Value::Text(text.clone()),
            serde_json::Value::Array(items) => Value::List(items.iter().map(Self::from).collect()),
            serde_json::Value::Object(entries) => {
                let entry =
                    |(key, value)| Entry { key: String::clone(key), line: 0, value: Self::from(value) };
                Value::Map(entries.iter().map(entry).collect())
            }
        };
        Self { line: 0, value }
    }
}

impl fmt::Display for Value {
    /// As in messages: `"text"`, `8080`, `a list`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("nothing"),
            Self::Bool(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
            Self::Text(text) => fmt::Debug::fmt(&shorten(text), f),
            Self::List(_) => f.write_str("a list"),
            Self::Map(_) => f.write_str("a mapping"),
        }
    }
}

/// The first 80 characters, for messages.
pub(crate) fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(80).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

fn line_of<T>(spanned: &Spanned<T>) -> u32 {
    u32::try_from(spanned.referenced.line()).unwrap_or(u32::MAX).max(1)
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { line: line_of(&spanned), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(Self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Value, E> {
        Ok(i128::try_from(value).map_or(Value::Float(f64::INFINITY), Value::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element::<Node>()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = access.next_key::<Spanned<String>>()? {
            let line = line_of(&key);
            entries.push(Entry { key: key.value, line, value: access.next_value()? });
        }
        Ok(Value::Map(entries))
    }
}

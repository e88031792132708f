//! Reads typed values from a tree and gathers everything that is wrong with an object.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use mesh_core::name::ObjectRef;

use crate::{
    nearest::nearest,
    parse::tree::{Entry, Node, Value, shorten},
    problem::{Place, Problem},
};

/// Most problems that are reported of one object.
const MAX_PROBLEMS: usize = 20;
/// Longest list: proxies are told of no longer one.
const MAX_ITEMS: usize = 4096;
/// Most regular expressions in one object.
const MAX_PATTERNS: usize = 128;

/// Gathers the problems of one object.
pub(crate) struct Reader {
    pub(crate) file: Arc<str>,
    pub(crate) object: Option<ObjectRef>,
    pub(crate) problems: Vec<Problem>,
    /// Regular expressions so far.
    pub(crate) patterns: usize,
}

/// A value and its path, as in `spec.ports[0].port`.
#[derive(Clone, Debug)]
pub(crate) struct Field<'a> {
    pub(crate) path: String,
    pub(crate) node: &'a Node,
}

/// A mapping whose fields are taken one by one; [`Fields::finish`] reports those that nobody took.
pub(crate) struct Fields<'a> {
    path: String,
    line: u32,
    entries: &'a [Entry],
    known: Vec<&'static str>,
    /// False: it was no mapping, which has been reported.
    usable: bool,
}

impl<'a> Field<'a> {
    pub(crate) fn line(&self) -> u32 {
        self.node.line
    }
}

impl Reader {
    pub(crate) fn new(file: Arc<str>, object: Option<ObjectRef>) -> Self {
        Self { file, object, problems: Vec::new(), patterns: 0 }
    }

    /// True when something that was reported refuses the object.
    pub(crate) fn is_refused(&self) -> bool {
        self.problems.iter().any(|p| p.refused)
    }

    /// Reports what refuses the object.
    pub(crate) fn refuse(
        &mut self,
        line: u32,
        path: &str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.report(line, path, message.into(), remedy.into(), true);
    }

    /// Reports what the object can live with.
    pub(crate) fn warn(
        &mut self,
        line: u32,
        path: &str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.report(line, path, message.into(), remedy.into(), false);
    }

    fn report(&mut self, line: u32, path: &str, message: String, remedy: String, refused: bool) {
        if self.problems.len() >= MAX_PROBLEMS && (!refused || self.is_refused()) {
            return;
        }
        self.problems.push(Problem {
            object: self.object.clone(),
            place: Place { file: Arc::clone(&self.file), line },
            field: path.to_owned(),
            message,
            remedy,
            refused,
            is_conflict: false,
        });
    }

    /// Reports a value that is not what was expected.
    pub(crate) fn expected(&mut self, field: &Field<'_>, what: &str, remedy: impl Into<String>) {
        let value = &field.node.value;
        self.refuse(field.line(), &field.path, format!("{value} is not {what}"), remedy);
    }

    /// Counts a regular expression; false when there are too many in this object.
    pub(crate) fn count_pattern(&mut self, field: &Field<'_>) -> bool {
        self.patterns += 1;
        if self.patterns == MAX_PATTERNS + 1 {
            let message = format!("more than {MAX_PATTERNS} regular expressions in one object");
            self.refuse(field.line(), &field.path, message, "split the object");
        }
        self.patterns <= MAX_PATTERNS
    }

    /// A mapping; of anything else, which is reported, it has no fields.
    pub(crate) fn fields<'a>(&mut self, field: &Field<'a>) -> Fields<'a> {
        let (entries, usable): (&[Entry], bool) = match &field.node.value {
            Value::Map(entries) => (entries, true),
            _ => {
                self.expected(field, "a mapping", "write \"key: value\" lines, indented below the field");
                (&[], false)
            }
        };
        Fields { path: field.path.clone(), line: field.line(), entries, known: Vec::new(), usable }
    }

    /// The items of a list.
    pub(crate) fn list<'a>(&mut self, field: &Field<'a>) -> Vec<Field<'a>> {
        match &field.node.value {
            Value::List(items) if items.len() > MAX_ITEMS => {
                let message = format!("the list has {} items; at most {MAX_ITEMS} are read", items.len());
                self.refuse(field.line(), &field.path, message, "split the object");
                Vec::new()
            }
            Value::List(items) => {
                let item = |(index, node)| Field { path: format!("{}[{index}]", field.path), node };
                items.iter().enumerate().map(item).collect()
            }
            _ => {
                self.expected(field, "a list", "write \"- \" before each item");
                Vec::new()
            }
        }
    }

    /// Text.
    pub(crate) fn text<'a>(&mut self, field: &Field<'a>) -> Option<&'a str> {
        if let Value::Text(text) = &field.node.value {
            return Some(text);
        }
        let remedy = match field.node.value {
            Value::Bool(_) | Value::Integer(_) | Value::Float(_) => "put it in quotes",
            _ => "write text there",
        };
        self.expected(field, "text", remedy);
        None
    }

    /// Text that is a name by `is_valid`, described by `what`.
    pub(crate) fn name<'a>(
        &mut self,
        field: &Field<'a>,
        is_valid: fn(&str) -> bool,
        what: &str,
    ) -> Option<&'a str> {
        let text = self.text(field)?;
        if is_valid(text) {
            return Some(text);
        }
        self.expected(field, what, "use a-z, 0-9 and '-', and begin and end with a letter or a digit");
        None
    }

    /// An integer from `min` to `max`, described by `what`.
    pub(crate) fn integer<'a>(&mut self, field: &Field<'a>, what: &str, min: u32, max: u32) -> Option<u32> {
        match &field.node.value {
            Value::Integer(value) if (i128::from(min)..=i128::from(max)).contains(value) => {
                u32::try_from(*value).ok()
            }
            Value::Text(text) if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() => {
                self.expected(field, &format!("{what} ({min} to {max})"), "remove the quotes");
                None
            }
            _ => {
                let remedy = format!("write a number from {min} to {max}");
                self.expected(field, &format!("{what} ({min} to {max})"), remedy);
                None
            }
        }
    }

    /// A port number.
    pub(crate) fn port<'a>(&mut self, field: &Field<'a>) -> Option<u16> {
        self.integer(field, "a port number", 1, u32::from(u16::MAX)).and_then(|p| u16::try_from(p).ok())
    }

    /// An IP address that can be dialled.
    pub(crate) fn ip<'a>(&mut self, field: &Field<'a>) -> Option<IpAddr> {
        let text = self.text(field)?;
        match text.parse::<IpAddr>() {
            Ok(ip) if !ip.is_unspecified() && !ip.is_multicast() => Some(ip),
            _ => {
                self.expected(field, "an IP address that can be dialled", "write one, as in 127.1.0.3");
                None
            }
        }
    }

    /// One of several words.
    pub(crate) fn choice<T: Copy>(&mut self, field: &Field<'_>, choices: &[(&'static str, T)]) -> Option<T> {
        let text = self.text(field)?;
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let remedy = match nearest(text, words.iter().copied()) {
            Some(word) => format!("did you mean {word:?}?"),
            None => "write one of these".to_owned(),
        };
        self.expected(field, &format!("one of {}", words.join(", ")), remedy);
        None
    }

    /// A mapping of text to text.
    pub(crate) fn text_map<'a>(&mut self, field: &Field<'a>) -> BTreeMap<String, String> {
        let entries = self.entries(field);
        self.texts(&entries)
    }

    /// Entries of a mapping as text.
    pub(crate) fn texts<'a>(&mut self, entries: &[(&'a str, Field<'a>)]) -> BTreeMap<String, String> {
        let mut map = BTreeMap::new();
        for (key, value) in entries {
            if let Some(text) = self.text(value) {
                map.insert((*key).to_owned(), text.to_owned());
            }
        }
        map
    }

    /// The entries of a mapping with free keys; a key that is there twice is reported.
    pub(crate) fn entries<'a>(&mut self, field: &Field<'a>) -> Vec<(&'a str, Field<'a>)> {
        let Fields { path, entries, .. } = self.fields(field);
        self.report_duplicates(&path, entries);
        let pair = |entry: &'a Entry| {
            (
                entry.key.as_str(),
                Field { path: format!("{path}[{}]", shorten(&entry.key)), node: &entry.value },
            )
        };
        entries.iter().map(pair).collect()
    }

    fn report_duplicates(&mut self, path: &str, entries: &[Entry]) {
        let mut first: BTreeMap<&str, u32> = BTreeMap::new();
        for entry in entries {
            if let Some(line) = first.get(entry.key.as_str()) {
                let message = format!("the field is there twice, first in line {line}");
                self.refuse(entry.line, &join(path, &shorten(&entry.key)), message, "keep one of them");
            } else {
                first.insert(&entry.key, entry.line);
            }
        }
    }
}

impl<'a> Fields<'a> {
    /// The value of a field; None when it is absent, null, or an empty list.
    pub(crate) fn optional(&mut self, name: &'static str) -> Option<Field<'a>> {
        self.known.push(name);
        let entry = self.entries.iter().find(|entry| entry.key == name)?;
        let empty = match &entry.value.value {
            Value::Null => true,
            Value::List(items) => items.is_empty(),
            _ => false,
        };
        (!empty).then(|| Field { path: join(&self.path, name), node: &entry.value })
    }

    /// The value of a field that must be there.
    pub(crate) fn required(&mut self, reader: &mut Reader, name: &'static str) -> Option<Field<'a>> {
        let found = self.optional(name);
        if found.is_none() && self.usable {
            let entry = self.entries.iter().find(|entry| entry.key == name);
            let (line, message) = match entry {
                Some(entry) => (entry.line, "the field is empty"),
                None => (self.line, "the field is missing"),
            };
            // A misspelt field is told once, with the right name.
            let misspelt = self.entries.iter().any(|e| nearest(&e.key, [name]).is_some());
            if entry.is_some() || !misspelt {
                reader.refuse(line, &join(&self.path, name), message, format!("add \"{name}:\""));
            }
        }
        found
    }

    /// Fields that are known, and without meaning for the mesh.
    pub(crate) fn ignore(&mut self, names: &[&'static str]) {
        self.known.extend_from_slice(names);
    }

    /// Fields that mean something that the mesh does not do yet.
    pub(crate) fn unsupported(&mut self, reader: &mut Reader, names: &[&'static str]) {
        for name in names {
            if let Some(field) = self.optional(name) {
                reader.refuse(field.line(), &field.path, "the field is not supported yet", "remove it");
            }
        }
    }

    /// True for a mapping without entries.
    pub(crate) fn is_empty(&self) -> bool {
        self.usable && self.entries.is_empty()
    }

    /// Number of its entries.
    pub(crate) fn count(&self) -> usize {
        self.entries.len()
    }

    /// Where the mapping stands.
    pub(crate) fn line(&self) -> u32 {
        self.line
    }

    /// Its path.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Reports fields that nobody took, and those that are there twice.
    pub(crate) fn finish(self, reader: &mut Reader) {
        reader.report_duplicates(&self.path, self.entries);
        for entry in self.entries.iter().filter(|entry| !self.known.contains(&entry.key.as_str())) {
            let remedy = match nearest(&entry.key, self.known.iter().copied()) {
                Some(name) => format!("did you mean {name:?}?"),
                None if self.known.len() <= 12 => format!("known here: {}", self.known.join(", ")),
                None => "remove it".to_owned(),
            };
            let path = join(&self.path, &shorten(&entry.key));
            reader.refuse(entry.line, &path, "the field is unknown", remedy);
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

//! A file of several YAML documents, of which some are changed and all others stay as they are, letter by letter.

use anyhow::anyhow;
use serde_json::Value;
use serde_saphyr::DuplicateKeyPolicy;

/// What becomes of one object.
pub(super) enum Change {
    /// It stays; why, and whether that should be known, if it could have been changed.
    None(Option<(&'static str, bool)>),
    /// It is another one now.
    New(Value),
    /// It is wrong.
    Refused(Vec<String>),
}

/// All files, changed.
#[derive(Default)]
pub(super) struct Changed {
    /// The documents, in their order.
    pub(super) text: String,
    pub(super) warnings: Vec<String>,
    pub(super) remarks: Vec<String>,
    pub(super) refusals: Vec<String>,
}

/// Changes the objects of one file.
///
/// # Errors
/// When a document is no YAML.
pub(super) fn change(
    file: &str,
    text: &str,
    change: &impl Fn(&Value) -> Change,
    all: &mut Changed,
) -> anyhow::Result<()> {
    for document in mesh_k8s::documents(text) {
        let object = read(document.text).map_err(|(line, why)| {
            let line = u64::from(document.first_line) + line.max(1) - 1;
            anyhow!("{file}:{line}: the document is no YAML: {why}")
        })?;
        let place = format!("{file}:{}", document.first_line);
        all.begin();
        match one(&place, &object, change, all) {
            None => all.text.push_str(document.text.trim_matches(['\r', '\n'])),
            Some(new) => {
                let written = write(&new).map_err(|why| anyhow!("{place}: it cannot be written: {why}"))?;
                all.text.push_str(written.trim_end());
            }
        }
        all.text.push('\n');
    }
    Ok(())
}

impl Changed {
    fn begin(&mut self) {
        if !self.text.is_empty() {
            self.text.push_str("---\n");
        }
    }
}

/// An object, or the items of a List. None: it stays as it is.
fn one(place: &str, object: &Value, change: &impl Fn(&Value) -> Change, all: &mut Changed) -> Option<Value> {
    let text = |name: &str| object.get(name).and_then(Value::as_str);
    if (text("apiVersion"), text("kind")) == (Some("v1"), Some("List")) {
        let items = object.get("items").and_then(Value::as_array)?;
        let new: Vec<Option<Value>> = items.iter().map(|item| one(place, item, change, all)).collect();
        if new.iter().all(Option::is_none) {
            return None;
        }
        let items = new.into_iter().zip(items).map(|(new, old)| new.unwrap_or_else(|| old.clone()));
        let mut object = object.clone();
        object["items"] = items.collect();
        return Some(object);
    }
    let metadata = |name: &str| object.pointer(&format!("/metadata/{name}")).and_then(Value::as_str);
    let name = metadata("name").or_else(|| metadata("generateName")).unwrap_or("without a name");
    let name =
        metadata("namespace").map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"));
    let what = format!("{place}: {} {name}", text("kind").unwrap_or("object"));
    match change(object) {
        Change::New(new) => return Some(new),
        Change::None(None) => {}
        Change::None(Some((why, true))) => all.warnings.push(format!("{what} gets no proxy: {why}")),
        Change::None(Some((why, false))) => all.remarks.push(format!("{what} stays as it is: {why}")),
        Change::Refused(problems) => {
            all.refusals.extend(problems.iter().map(|problem| format!("{what}: {problem}")));
        }
    }
    None
}

/// Reads a document as kubectl does: YAML 1.1, in which 0644 is a number to the base of eight.
fn read(text: &str) -> Result<Value, (u64, String)> {
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::Error,
        legacy_octal_numbers: true,
        emit_comments: false,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let line = error.location().map_or(1, |location| location.line());
        (line, error.to_string().lines().next().unwrap_or_default().to_owned())
    })
}

/// Writes one; texts that another reader could take for something else are quoted.
fn write(object: &Value) -> Result<String, String> {
    let options = serde_saphyr::ser_options! {
        prefer_block_scalars: false,
        compact_list_indent: true,
    };
    let mut text = String::new();
    serde_saphyr::to_fmt_writer_with_options(&mut text, object, options)
        .map_err(|error| error.to_string())?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn marked(object: &Value) -> Change {
        match object.get("kind").and_then(Value::as_str) {
            Some("New") => {
                let mut new = object.clone();
                new["done"] = true.into();
                Change::New(new)
            }
            Some("Bad") => Change::Refused(vec!["spec: wrong; mend it".into()]),
            Some("Host") => Change::None(Some(("because", true))),
            _ => Change::None(None),
        }
    }

    fn changed(text: &str) -> Changed {
        let mut all = Changed::default();
        change("f.yaml", text, &marked, &mut all).unwrap();
        all
    }

    #[test]
    fn others_stay_letter_by_letter_and_in_order() {
        let text = "# first\nkind: Other   # a remark\nmode: 0644\n---\nkind: New\nmode: 0644\non: \"yes\"\n---\n---\nkind: Last\n";
        let all = changed(text);
        let expected = "# first\nkind: Other   # a remark\nmode: 0644\n---\ndone: true\nkind: New\nmode: 420\n\"on\": \"yes\"\n---\nkind: Last\n";
        assert_eq!(all.text, expected);
        assert_eq!(changed("").text, "");
    }

    #[test]
    fn items_of_lists_are_changed() {
        let text = "apiVersion: v1\nkind: List\nitems:\n- kind: New\n- kind: Other\n";
        let value: Value = serde_saphyr::from_str(&changed(text).text).unwrap();
        assert_eq!(value["items"], json!([{ "kind": "New", "done": true }, { "kind": "Other" }]));
        let untouched = "apiVersion: v1\nkind: List\nitems: [{kind: Other}]\n";
        assert_eq!(changed(untouched).text, untouched);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let all = changed("kind: Host\nmetadata: {name: a, namespace: b}\n---\nkind: Bad\n");
        assert_eq!(all.warnings, ["f.yaml:1: Host b/a gets no proxy: because"]);
        assert_eq!(all.refusals, ["f.yaml:3: Bad without a name: spec: wrong; mend it"]);
        let mut all = Changed::default();
        let error = change("f.yaml", "kind: A\n---\nb: [\n", &marked, &mut all).unwrap_err().to_string();
        assert!(error.starts_with("f.yaml:") && error.contains("no YAML"), "{error}");
    }

    #[test]
    fn what_is_written_is_read_as_the_same() {
        let texts = [
            "yes",
            "0644",
            "1:30",
            "~",
            "null",
            "a: b",
            "#x",
            "",
            " a",
            "x\ny\n",
            "2001-01-01",
            "1e3",
            "é\u{7}",
        ];
        let long = "word ".repeat(60);
        let object =
            json!({ "texts": texts, "long": long, "number": 1.5, "no": [], "none": {}, "null": null });
        assert_eq!(read(&write(&object).unwrap()).unwrap(), object);
    }
}

//! Splits a file into YAML documents, so that one broken document does not hide the others.

/// One document of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Document<'a> {
    /// Its text.
    pub text: &'a str,
    /// Line of the file where that text begins, from 1.
    pub first_line: u32,
}

/// The documents of a file that hold more than blanks, comments and directives.
///
/// A line that begins with `---` or `...` is a document marker wherever it stands (YAML 1.2.2 section 9.1.2), so that
/// splitting by lines is exact.
#[must_use]
pub fn split(file: &str) -> Vec<Document<'_>> {
    let file = file.strip_prefix('\u{feff}').unwrap_or(file);
    let mut found = Vec::new();
    let (mut begin, mut first_line, mut at) = (0, 1, 0);
    for (line, number) in file.split_inclusive('\n').zip(1_u32..) {
        if is_marker(line) {
            push(&mut found, file.get(begin..at), first_line);
            begin = at + 3;
            first_line = number;
        }
        at += line.len();
    }
    push(&mut found, file.get(begin..), first_line);
    found
}

fn is_marker(line: &str) -> bool {
    let rest = line.strip_prefix("---").or_else(|| line.strip_prefix("..."));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn push<'a>(found: &mut Vec<Document<'a>>, text: Option<&'a str>, first_line: u32) {
    let Some(text) = text else { return };
    let empty = |line: &str| {
        let trimmed = line.trim();
        trimmed.is_empty() || trimmed.starts_with('#') || line.starts_with('%')
    };
    if !text.lines().all(empty) {
        found.push(Document { text, first_line });
    }
}

/// What can be told of a document that is no YAML: its kind, namespace and name, read line by line. The block style
/// that people write is recognised, and nothing else.
pub(crate) fn guess(text: &str) -> Option<(&str, &str, &str)> {
    let (mut kind, mut namespace, mut name) = (None, Some("default"), None);
    let mut metadata = None;
    let (mut kinds, mut metadatas) = (0, 0);
    for line in text.lines() {
        let indent = line.len() - line.trim_start_matches(' ').len();
        let Some((key, value)) = line.trim().split_once(':') else { continue };
        let value = plain(value);
        if indent == 0 {
            metadata = (key == "metadata").then_some(0);
            if key == "kind" {
                kinds += 1;
                kind = value;
            } else if key == "metadata" {
                metadatas += 1;
                (namespace, name) = inline(line);
            }
            continue;
        }
        let Some(level) = metadata.as_mut() else { continue };
        if *level == 0 {
            *level = indent;
        }
        match key {
            "name" if indent == *level => name = value,
            "namespace" if indent == *level => namespace = value,
            _ => {}
        }
    }
    // Twice: the "---" between two objects is missing, and both are meant.
    if kinds > 1 || metadatas > 1 {
        return None;
    }
    Some((kind?, namespace?, name?))
}

/// `metadata: {name: a, namespace: b}` on one line.
fn inline(line: &str) -> (Option<&str>, Option<&str>) {
    let field = |wanted: &str| {
        line.split(['{', ',', '}'])
            .filter_map(|part| part.split_once(':'))
            .find(|(key, _)| key.trim() == wanted)
            .map(|(_, value)| plain(value))
    };
    (field("namespace").unwrap_or(Some("default")), field("name").flatten())
}

fn plain(value: &str) -> Option<&str> {
    let value = value.split(" #").next().unwrap_or_default().trim().trim_matches(['"', '\'']);
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
    (!value.is_empty() && value.len() <= 253 && value.bytes().all(allowed)).then_some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{guess, split};

    fn check(file: &str, expected: &[(&str, u32)]) {
        let found: Vec<(&str, u32)> = split(file).iter().map(|d| (d.text.trim(), d.first_line)).collect();
        assert_eq!(found, expected, "{file:?}");
    }

    #[test]
    fn documents_and_their_lines() {
        check("", &[]);
        check("a: 1", &[("a: 1", 1)]);
        check("---\na: 1\n---\nb: 2\n", &[("a: 1", 1), ("b: 2", 3)]);
        check("# only a comment\n---\n\n--- # another\na: 1\n", &[("# another\na: 1", 4)]);
        check("%YAML 1.2\n---\na: 1\n...\n", &[("a: 1", 2)]);
        check("a: |\n  ---\n  x\n---x: 1\n", &[("a: |\n  ---\n  x\n---x: 1", 1)]);
        check("\u{feff}a: 1\r\n---\r\nb: 2\r\n", &[("a: 1", 1), ("b: 2", 2)]);
        check("--- {a: 1}\n--- {b: 2}", &[("{a: 1}", 1), ("{b: 2}", 2)]);
    }

    #[test]
    fn broken_documents_are_recognised() {
        let block = "apiVersion: v1\nkind: Service # that\nmetadata:\n  labels:\n    name: wrong\n  name: \"cart\"\n  namespace: shop\nspec: [\n";
        assert_eq!(guess(block), Some(("Service", "shop", "cart")));
        assert_eq!(
            guess("kind: Service\nmetadata: {name: cart}\nx: ]"),
            Some(("Service", "default", "cart"))
        );
        assert_eq!(guess("metadata:\n  name: cart\n"), None);
        assert_eq!(guess("kind: Service\nspec:\n  name: cart\n"), None);
        let second = "kind: Service\nmetadata: {name: cart}\n";
        assert_eq!(guess(&second.repeat(2)), None, "two objects");
        assert_eq!(guess("kind: Service\nmetadata:\n  name: cart\n  namespace: '?'\n"), None);
        assert_eq!(guess("kind: Service\nmetadata: {name: cart, namespace: a_b}\n"), None);
    }

    proptest! {
        #[test]
        fn splitting_loses_no_document(parts in proptest::collection::vec("[a-z]{1,5}: [0-9]{1,3}", 0..6)) {
            let file = parts.join("\n---\n");
            let found: Vec<String> = split(&file).iter().map(|d| d.text.trim().to_owned()).collect();
            prop_assert_eq!(found, parts);
        }

        #[test]
        fn any_text_is_split_and_guessed(text in "(?s)[-. \n:{}a-z#%\u{feff}é]{0,200}") {
            for document in split(&text) {
                let _ = guess(document.text);
                prop_assert!(text.contains(document.text));
            }
        }
    }
}

//! YAML in, objects and problems out.

use proptest::prelude::*;

use super::parse;

/// Parses `text`; expects these objects, and these problems as `LINE FIELD: MESSAGE` (a `!` before the line: refused;
/// MESSAGE is a part of message and remedy).
fn check(text: &str, objects: &[&str], problems: &[&str]) {
    let (found, wrong, recognised) = parse("mesh.yaml", text);
    let names: Vec<String> = found.iter().map(|o| o.reference().to_string()).collect();
    let told: Vec<String> = wrong.iter().map(ToString::to_string).collect();
    assert_eq!(names, objects, "objects of {text}\n{told:#?}");
    assert_eq!(wrong.len(), problems.len(), "problems of {text}\n{told:#?}");
    for (problem, expected) in wrong.iter().zip(problems) {
        let (place, message) = expected.split_once(": ").unwrap();
        let refused = if problem.refused { "!" } else { "" };
        assert_eq!(format!("{refused}{} {}", problem.place.line, problem.field), place, "{problem}");
        let all = format!("{}; {}", problem.message, problem.remedy);
        assert!(all.contains(message), "{all:?} lacks {message:?}");
        assert!(recognised || problem.refused, "{problem}");
    }
}

const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec:
  selector: {app: cart}
  ports:
  - {name: http, port: 80, targetPort: 8080}
";

#[test]
fn one_service() {
    check(SERVICE, &["Service shop/cart"], &[]);
}

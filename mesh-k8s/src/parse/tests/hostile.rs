//! Input that means harm, and input that means nothing.

use std::{fmt::Write, time::Instant};

use proptest::prelude::*;

use super::parse;
use crate::compile::{Settings, compile};

/// Reads and compiles; nothing may panic, and what is refused must be told.
fn survive(text: &str) {
    let (objects, problems, _) = parse("f.yaml", text);
    let lines = u32::try_from(text.lines().count()).unwrap_or(u32::MAX).max(1);
    for problem in &problems {
        assert!(!problem.message.is_empty() && problem.place.line >= 1, "{problem}");
        assert!(problem.place.line <= lines + 1, "{problem} of {lines} lines");
    }
    let settings = Settings {
        trust_domain: "cluster.local".parse().unwrap(),
        cluster_domain: "cluster.local".to_owned(),
    };
    let compiled = compile(&objects, &settings);
    for (service, routes) in &compiled.services {
        assert!(compiled.endpoints.contains_key(service));
        assert!(routes.needed().all(|needed| compiled.endpoints.contains_key(needed)), "{service}");
    }
}

fn head(kind: &str) -> String {
    format!("apiVersion: v1\nkind: {kind}\nmetadata: {{name: a}}\n")
}

#[test]
fn bombs_are_refused_quickly() {
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let before = format!("*a{}, ", level - 1).repeat(10);
        writeln!(laughs, "a{level}: &a{level} [{before}]").unwrap();
    }
    let deep_flow = format!("spec: {}{}", "[".repeat(20_000), "]".repeat(20_000));
    let mut deep_block = String::from("spec:\n");
    for level in 0..2_000 {
        writeln!(deep_block, "{}a:", " ".repeat(level + 1)).unwrap();
    }
    let wide = format!("spec: [{}]", "1,".repeat(400_000));
    let patterns = (0..500).fold("spec:\n  matches:\n".to_owned(), |mut text, number| {
        writeln!(text, "  - {{name: n{number}, pathRegex: 'a{number}'}}").unwrap();
        text
    });
    let group = "apiVersion: specs.smi-spec.io/v1alpha4\nkind: HTTPRouteGroup\nmetadata: {name: a}\n";
    let huge_pattern = "spec: {matches: [{name: a, pathRegex: '(\\w{1,100}){1,100}'}]}\n";
    for (name, text) in [
        ("laughs", format!("{}{laughs}", head("Service"))),
        ("deep flow", format!("{}{deep_flow}", head("Service"))),
        ("deep block", format!("{}{deep_block}", head("Service"))),
        ("wide", format!("{}{wide}", head("Service"))),
        ("patterns", format!("{group}{patterns}")),
        ("huge pattern", format!("{group}{huge_pattern}")),
        ("recursive", format!("{}spec: &a {{a: *a}}\n", head("Service"))),
    ] {
        let started = Instant::now();
        let (objects, problems, recognised) = parse("f", &text);
        assert!(objects.is_empty(), "{name}");
        assert!(problems.iter().any(|p| p.refused), "{name}");
        assert!(recognised, "{name}: {problems:?}");
        assert!(problems.len() <= 21, "{name}: {}", problems.len());
        // Other processes may have the processor: what is not bounded takes minutes.
        assert!(started.elapsed().as_secs() < 60, "{name}: {:?}", started.elapsed());
    }
}

#[test]
fn problems_are_bounded() {
    let (_, problems, recognised) = parse("f", &"a\n---\n".repeat(100_000));
    assert_eq!(problems.len(), 1001);
    assert!(!recognised);
    let (_, problems, recognised) = parse("f", &" ".repeat((16 << 20) + 1));
    assert_eq!((problems.len(), recognised), (1, false));
}

#[test]
fn odd_texts() {
    for text in [
        "",
        "\u{feff}",
        "---",
        "...",
        "\0",
        "%",
        "%YAML 9.9\n---\na",
        "a: !!binary x",
        "? [a]\n: b",
        "<<: 1",
        "*a",
        "\t- a",
    ] {
        survive(text);
        survive(&format!("{}spec:\n  {text}\n", head("Service")));
    }
}

const GOOD: &str = include_str!("good.yaml");

#[test]
fn the_good_mesh_is_good() {
    let (objects, problems, recognised) = parse("good.yaml", GOOD);
    assert!(problems.is_empty() && recognised, "{problems:?}");
    assert_eq!(objects.len(), 15);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn any_text_is_survived(text in any::<String>()) {
        survive(&text);
    }

    #[test]
    fn any_text_of_yaml_characters_is_survived(text in "[-a-c0-9:{}\\[\\],&*!|>'\"#%@ \n?~<]{0,300}") {
        survive(&text);
    }

    #[test]
    fn mutated_good_yaml_is_survived(
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), 0..20_usize, "[-a-c0-9:{}\\[\\],&*!|>'\"# \n]{0,6}"), 1..6)
    ) {
        let mut text: Vec<char> = GOOD.chars().collect();
        for (at, remove, insert) in cuts {
            let at = at.index(text.len());
            let end = (at + remove).min(text.len());
            text.splice(at..end, insert.chars());
        }
        survive(&text.into_iter().collect::<String>());
    }

    #[test]
    fn values_of_wrong_type_are_survived(
        at in any::<prop::sample::Index>(),
        value in prop::sample::select(vec!["[]", "{}", "null", "-1", "1e999", ".nan", "[[1]]", "{a: b}", "true", "''", "99999999999999999999"])
    ) {
        let lines: Vec<&str> = GOOD.lines().collect();
        let at = at.index(lines.len());
        let text: Vec<String> = lines.iter().enumerate().map(|(number, line)| match line.split_once(": ") {
            Some((key, _)) if number == at => format!("{key}: {value}"),
            _ => (*line).to_owned(),
        }).collect();
        survive(&text.join("\n"));
    }
}

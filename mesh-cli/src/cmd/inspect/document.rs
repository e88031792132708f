//! What `inspect` tells: sections for people, one document for programs.

use mesh_core::{
    policy::{Action, DefaultAction, PolicySet, Rule, Scope, TlsMode},
    route::{RouteRule, ServiceRoutes},
};
use mesh_proto::view::v1 as pb;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Edge, Name};
use crate::{out::table, words};

/// One part of the answer for people.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) title: String,
    /// Indented lines.
    pub(super) body: String,
}

/// The answer about one thing.
#[derive(Debug)]
pub(super) struct View {
    pub(super) kind: &'static str,
    pub(super) sections: Vec<Section>,
    /// Facts of that kind, for documents.
    pub(super) facts: Map<String, Value>,
}

/// The answer for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document<'a> {
    kind: &'static str,
    namespace: &'a str,
    name: &'a str,
    #[serde(flatten)]
    facts: &'a Map<String, Value>,
    calls: Vec<super::edges::EdgeDocument>,
    problems: Vec<ProblemDocument>,
}

impl View {
    /// An answer without sections.
    pub(super) fn new(kind: &'static str) -> Self {
        Self { kind, sections: Vec::new(), facts: Map::new() }
    }

    /// Adds a section of names and values.
    pub(super) fn fields(&mut self, title: impl Into<String>, fields: &[(&str, String)]) {
        self.sections.push(Section { title: title.into(), body: table::fields(2, fields) });
    }

    /// Adds a section of indented lines.
    pub(super) fn lines(&mut self, title: impl Into<String>, lines: &[String]) {
        let body = lines.iter().map(|line| format!("  {}\n", table::plain(line))).collect();
        self.sections.push(Section { title: title.into(), body });
    }

    /// Adds a fact.
    pub(super) fn fact(&mut self, name: &str, value: impl Into<Value>) {
        self.facts.insert(name.to_owned(), value.into());
    }

    /// The whole answer for programs.
    pub(super) fn document<'a>(
        &'a self,
        (namespace, name): &'a Name,
        calls: &[Edge],
        problems: Vec<ProblemDocument>,
    ) -> Document<'a> {
        let calls = calls.iter().map(Edge::document).collect();
        Document { kind: self.kind, namespace, name, facts: &self.facts, calls, problems }
    }
}

/// One problem of the configuration.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProblemDocument {
    object: Option<String>,
    file: String,
    line: u32,
    field: String,
    message: String,
    remedy: String,
    refused: bool,
}

impl ProblemDocument {
    /// Its lines for people.
    pub(super) fn text(&self) -> String {
        let field = if self.field.is_empty() { String::new() } else { format!("{}: ", self.field) };
        let place = if self.line == 0 { self.file.clone() } else { format!("{}:{}", self.file, self.line) };
        let text = format!("{place}: {field}{}", self.message);
        let remedy = if self.remedy.is_empty() {
            String::new()
        } else {
            format!("    {}\n", table::plain(&self.remedy))
        };
        format!("  {}\n{remedy}", table::plain(&text))
    }
}

/// Problems of an object.
pub(super) fn problems(all: &[pb::Problem], kind: &str, (namespace, name): &Name) -> Vec<ProblemDocument> {
    let concerns = |problem: &&pb::Problem| {
        problem.object.as_ref().is_some_and(|object| {
            object.kind == kind && object.namespace == *namespace && object.name == *name
        })
    };
    let document = |problem: &pb::Problem| ProblemDocument {
        object: problem.object.as_ref().map(|o| format!("{} {}/{}", o.kind, o.namespace, o.name)),
        file: problem.file.clone(),
        line: problem.line,
        field: problem.field.clone(),
        message: problem.message.clone(),
        remedy: problem.remedy.clone(),
        refused: problem.refused,
    };
    all.iter().filter(concerns).map(document).collect()
}

/// Who may call, for people.
pub(super) fn policy_fields(policy: &PolicySet) -> Vec<(&'static str, String)> {
    let rules: Vec<String> = policy.rules.iter().map(words::rule).collect();
    vec![
        ("mTLS", words::tls_mode(policy.tls_mode).to_owned()),
        ("Rules", if rules.is_empty() { "none".into() } else { rules.join("\n") }),
        ("Otherwise", words::default_action(policy)),
    ]
}

fn action(rule: &Rule) -> &'static str {
    match rule.action {
        Action::Allow => "allow",
        Action::Deny => "deny",
    }
}

/// Null: all calls.
fn requests(rule: &Rule) -> Option<Vec<String>> {
    match &rule.scope {
        Scope::Any => None,
        Scope::Http(all) => Some(all.iter().map(words::condition).collect()),
    }
}

/// Who may call, for programs.
pub(super) fn policy_value(policy: &PolicySet) -> Value {
    let rules = policy.rules.iter().map(|rule| {
        serde_json::json!({
            "object": rule.object.to_string(),
            "sources": rule.sources.iter().map(words::source).collect::<Vec<_>>(),
            "ports": rule.ports,
            "action": action(rule),
            "requests": requests(rule),
        })
    });
    let tls = match policy.tls_mode {
        TlsMode::Permissive => "permissive",
        TlsMode::Strict => "strict",
    };
    let default = match policy.default_action {
        DefaultAction::Allow => "allow",
        DefaultAction::Authenticated => "authenticated",
        DefaultAction::Deny => "deny",
        DefaultAction::Smi => "smi",
    };
    serde_json::json!({
        "mtls": tls,
        "default": default,
        "defaultFrom": policy.default_source.to_string(),
        "rules": rules.collect::<Vec<_>>(),
    })
}

/// Routes, for programs.
pub(super) fn routes_value(routes: &ServiceRoutes) -> Value {
    let rule = |rule: &RouteRule| {
        let backends = rule.backends.iter().map(|backend| {
            serde_json::json!({
                "service": backend.service.to_string(),
                "weight": backend.weight,
                "invalid": backend.invalid,
                "filters": backend.filters.iter().map(words::traffic::filter).collect::<Vec<_>>(),
                "spread": backend.settings.as_deref().and_then(words::traffic::spread),
            })
        });
        serde_json::json!({
            "object": rule.object.to_string(),
            "index": rule.index,
            "matches": words::conditions(&rule.matches),
            "filters": rule.filters.iter().map(words::traffic::filter).collect::<Vec<_>>(),
            "timeouts": words::traffic::timeouts(&rule.timeouts),
            "retry": rule.retry.as_ref().map(words::traffic::retry),
            "backends": backends.collect::<Vec<_>>(),
        })
    };
    routes.rules.iter().map(rule).collect()
}

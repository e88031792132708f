//! Names, routes and policy in words.

pub(crate) mod traffic;

use mesh_core::{
    filter::Filter,
    identity::SpiffeId,
    matching::{PathMatch, RequestMatch, ValueMatch},
    policy::{Action, DefaultAction, PolicySet, Rule, Scope, Source, TlsMode},
    route::{Backend, RouteRule},
};

/// Callers and callees without a mesh identity.
pub(crate) const OUTSIDE: &str = "outside";

/// An identity as people write it: `NAMESPACE/SERVICE-ACCOUNT`, or the whole SPIFFE ID where it has another form.
pub(crate) fn identity(id: &SpiffeId) -> String {
    match id.namespace_and_account() {
        Some((namespace, account)) => format!("{namespace}/{account}"),
        None => id.as_str().to_owned(),
    }
}

/// One condition: `GET,HEAD /cart/* with header x-user = "bob"`.
pub(crate) fn condition(condition: &RequestMatch) -> String {
    let methods: Vec<&str> = condition.methods.iter().map(http::Method::as_str).collect();
    let mut words = vec![if methods.is_empty() { "any method".to_owned() } else { methods.join(",") }];
    words.push(match &condition.path {
        None => "any path".into(),
        Some(PathMatch::Exact(path)) => path.clone(),
        Some(PathMatch::Prefix(prefix)) if prefix == "/" || prefix.is_empty() => "any path".into(),
        Some(PathMatch::Prefix(prefix)) => format!("{}/*", prefix.trim_end_matches('/')),
        Some(PathMatch::Regex(pattern)) if pattern.is_whole() => format!("path ~ ^{}$", pattern.source()),
        Some(PathMatch::Regex(pattern)) => format!("path ~ ^{}", pattern.source()),
    });
    let value = |value: &ValueMatch| match value {
        ValueMatch::Exact(text) => format!("= {text:?}"),
        ValueMatch::Regex(pattern) => format!("~ {}", pattern.source()),
    };
    for (at, (name, wanted)) in condition.headers.iter().enumerate() {
        words.push(format!("{} header {name} {}", if at == 0 { "with" } else { "and" }, value(wanted)));
    }
    for (name, wanted) in &condition.query {
        let with = if words.len() > 2 { "and" } else { "with" };
        words.push(format!("{with} query {name} {}", value(wanted)));
    }
    if condition.is_any() { "any request".into() } else { words.join(" ") }
}

/// Conditions of which one must hold.
pub(crate) fn conditions(all: &[RequestMatch]) -> String {
    if all.is_empty() {
        return "any request".into();
    }
    all.iter().map(condition).collect::<Vec<_>>().join(", or ")
}

/// A caller or a set of callers.
pub(crate) fn source(source: &Source) -> String {
    match source {
        Source::Identity(id) => identity(id),
        Source::Namespace(namespace) => format!("every service account of namespace {namespace}"),
        Source::Authenticated => "every caller with an identity".into(),
        Source::Any => "every caller".into(),
    }
}

/// One rule of policy: `allow shop/storefront: GET /items/* on port 8080 (TrafficTarget shop/items)`. Several conditions
/// take a line each.
pub(crate) fn rule(rule: &Rule) -> String {
    let action = match rule.action {
        Action::Allow => "allow",
        Action::Deny => "deny",
    };
    let callers = match rule.sources.as_slice() {
        [] => "nobody".to_owned(),
        sources => sources.iter().map(source).collect::<Vec<_>>().join(", "),
    };
    let ports: Vec<String> = rule.ports.iter().map(ToString::to_string).collect();
    let ports = match ports.as_slice() {
        [] => String::new(),
        [one] => format!(" on port {one}"),
        many => format!(" on ports {}", many.join(", ")),
    };
    let object = &rule.object;
    match &rule.scope {
        Scope::Any => format!("{action} {callers}: all calls{ports} ({object})"),
        Scope::Http(all) if all.len() > 1 => {
            let lines: Vec<String> = all.iter().map(|one| format!("\n  {}", condition(one))).collect();
            format!("{action} {callers}{ports} any of these ({object}):{}", lines.concat())
        }
        Scope::Http(all) => format!("{action} {callers}: {}{ports} ({object})", conditions(all)),
    }
}

/// What happens to calls that no rule matches.
pub(crate) fn default_action(policy: &PolicySet) -> String {
    let what = match policy.default_action {
        DefaultAction::Allow => "allow",
        DefaultAction::Authenticated => "allow callers with an identity",
        DefaultAction::Deny => "deny",
        DefaultAction::Smi => "deny callers with an identity; others by mTLS mode",
    };
    format!("{what} ({})", policy.default_source)
}

/// Whether plaintext is let in.
pub(crate) fn tls_mode(mode: TlsMode) -> &'static str {
    match mode {
        TlsMode::Permissive => "permissive: plaintext is let in, as a caller without identity",
        TlsMode::Strict => "strict: only mesh TLS is let in",
    }
}

/// Weights of a rule's backends in percent: `shop/catalog-v1:8080 90%, shop/catalog-v2:8080 10%`.
pub(crate) fn backends(backends: &[Backend]) -> String {
    let total: u64 = backends.iter().map(|backend| u64::from(backend.weight)).sum();
    let one = |backend: &Backend| {
        let share = match total {
            0 => "0%".to_owned(),
            _ => percent(u64::from(backend.weight) * 1000 / total),
        };
        let note = if backend.invalid { " (does not exist: this share is refused)" } else { "" };
        if backends.len() == 1 && total > 0 {
            return format!("{}{note}", backend.service);
        }
        format!("{} {share}{note}", backend.service)
    };
    match backends {
        [] => "nowhere: calls are refused".into(),
        _ if total == 0 => "nowhere: all weights are 0, calls are refused".into(),
        all => all.iter().map(one).collect::<Vec<_>>().join(", "),
    }
}

fn percent(tenths: u64) -> String {
    if tenths.is_multiple_of(10) {
        format!("{}%", tenths / 10)
    } else {
        format!("{}.{}%", tenths / 10, tenths % 10)
    }
}

/// One rule of routing: `any request -> shop/catalog:8080 (Service shop/catalog)`, and below it what is done to its calls.
pub(crate) fn route(rule: &RouteRule) -> String {
    let answers = rule.filters.iter().any(|f| matches!(f, Filter::Redirect(_) | Filter::Respond(_)));
    let to = if answers && rule.backends.is_empty() { "answered".into() } else { backends(&rule.backends) };
    let first = format!("{} -> {to} ({})", conditions(&rule.matches), rule.object);
    let mut lines = vec![first];
    lines.extend(rule.filters.iter().map(traffic::filter));
    lines.extend(traffic::timeouts(&rule.timeouts));
    lines.extend(rule.retry.as_ref().map(traffic::retry));
    for backend in &rule.backends {
        lines.extend(
            backend.filters.iter().map(|f| format!("to {}: {}", backend.service.name, traffic::filter(f))),
        );
        let spread = backend.settings.as_deref().and_then(traffic::spread);
        lines.extend(spread.map(|spread| format!("to {}: {spread}", backend.service.name)));
    }
    lines.join("\n  ")
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, Method};
    use mesh_core::{matching::Pattern, name::ObjectRef, name::ServicePort};

    use super::*;

    #[test]
    fn conditions_in_words() {
        let check = |wanted: &RequestMatch, expected: &str| assert_eq!(condition(wanted), expected);
        check(&RequestMatch::default(), "any request");
        let get = RequestMatch {
            path: Some(PathMatch::Prefix("/cart/".into())),
            methods: vec![Method::GET, Method::HEAD],
            headers: vec![(HeaderName::from_static("x-user"), ValueMatch::Exact("bob".into()))],
            query: vec![("v".into(), ValueMatch::Regex(Pattern::whole("[0-9]+").unwrap()))],
            hosts: Vec::new(),
        };
        check(&get, "GET,HEAD /cart/* with header x-user = \"bob\" and query v ~ [0-9]+");
        let start = RequestMatch {
            path: Some(PathMatch::Regex(Pattern::start("/a.*").unwrap())),
            ..RequestMatch::default()
        };
        check(&start, "any method path ~ ^/a.*");
    }

    #[test]
    fn rules_in_words() {
        let mut allow = Rule {
            object: ObjectRef::new("TrafficTarget", "shop", "cart"),
            action: Action::Allow,
            sources: vec![Source::Identity("spiffe://cluster.local/ns/shop/sa/storefront".parse().unwrap())],
            ports: vec![8080],
            scope: Scope::Any,
        };
        assert_eq!(rule(&allow), "allow shop/storefront: all calls on port 8080 (TrafficTarget shop/cart)");
        allow.sources.clear();
        allow.ports = vec![1, 2];
        allow.action = Action::Deny;
        let path = |path: &str| RequestMatch {
            path: Some(PathMatch::Exact(path.into())),
            ..RequestMatch::default()
        };
        assert_eq!(rule(&allow), "deny nobody: all calls on ports 1, 2 (TrafficTarget shop/cart)");
        allow.scope = Scope::Http(vec![path("/a"), path("/b")]);
        let lines = "deny nobody on ports 1, 2 any of these (TrafficTarget shop/cart):\n  any method /a\n  any method /b";
        assert_eq!(rule(&allow), lines);
    }

    #[test]
    fn weights_in_percent() {
        let to = |name: &str, weight, invalid| Backend {
            invalid,
            ..Backend::new(ServicePort::new("shop", name, 80), weight)
        };
        let check = |all: &[Backend], expected: &str| assert_eq!(backends(all), expected);
        check(&[], "nowhere: calls are refused");
        check(&[to("a", 0, false)], "nowhere: all weights are 0, calls are refused");
        check(&[to("a", 7, false)], "shop/a:80");
        check(
            &[to("a", 2, false), to("b", 1, true)],
            "shop/a:80 66.6%, shop/b:80 33.3% (does not exist: this share is refused)",
        );
    }
}

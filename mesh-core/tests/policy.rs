//! Properties of policy: `decide` is what its documentation says, whatever the rules.

#![expect(clippy::expect_used, reason = "in a test, failing is the purpose")]

use http::{HeaderMap, Method};
use mesh_core::{
    identity::SpiffeId,
    matching::{PathMatch, RequestMatch, RequestParts},
    name::ObjectRef,
    policy::{Action, Call, DefaultAction, PolicySet, Rule, Scope, Source, TlsMode, decide},
    reason::Reason,
};
use proptest::{collection::vec, option, prelude::*, sample::select};

fn id(namespace: &str, account: &str) -> SpiffeId {
    format!("spiffe://cluster.local/ns/{namespace}/sa/{account}").parse().expect("valid")
}

fn caller() -> impl Strategy<Value = SpiffeId> {
    (select(vec!["shop", "jobs"]), select(vec!["cart", "job"]))
        .prop_map(|(namespace, account)| id(namespace, account))
}

fn rule() -> impl Strategy<Value = Rule> {
    let source = prop_oneof![
        caller().prop_map(Source::Identity),
        select(vec!["shop", "jobs"]).prop_map(|namespace| Source::Namespace(namespace.into())),
        Just(Source::Authenticated),
        Just(Source::Any),
    ];
    let condition =
        (option::of(select(vec!["/a", "/b"])), vec(select(vec![Method::GET, Method::CONNECT]), 0..3))
            .prop_map(|(path, methods)| RequestMatch {
                path: path.map(|path| PathMatch::Prefix(path.into())),
                methods,
                ..Default::default()
            });
    let scope = prop_oneof![Just(Scope::Any), vec(condition, 1..3).prop_map(Scope::Http)];
    let action = select(vec![Action::Allow, Action::Deny]);
    (action, vec(source, 0..3), vec(select(vec![80_u16, 81]), 0..2), scope, any::<u32>()).prop_map(
        |(action, sources, ports, scope, name)| Rule {
            object: ObjectRef::new("TrafficTarget", "shop", &name.to_string()),
            action,
            sources,
            ports,
            scope,
        },
    )
}

fn policy() -> impl Strategy<Value = PolicySet> {
    use DefaultAction::{Allow, Authenticated, Deny, Smi};
    let mode = select(vec![TlsMode::Permissive, TlsMode::Strict]);
    (mode, select(vec![Allow, Authenticated, Deny, Smi]), vec(rule(), 0..6)).prop_map(
        |(tls_mode, default_action, rules)| PolicySet {
            tls_mode,
            default_action,
            default_source: ObjectRef::new("Namespace", "", "shop"),
            rules,
        },
    )
}

/// What a test asks: caller, port, and method and path (None: opaque).
type Question = (Option<SpiffeId>, u16, Option<(Method, String)>);

fn question() -> impl Strategy<Value = Question> {
    let request = (
        select(vec![Method::GET, Method::POST, Method::CONNECT]),
        select(vec!["/a", "/a/x", "/ab", "/b", "/c"]),
    );
    (option::of(caller()), select(vec![80_u16, 81, 82]), option::of(request)).prop_map(
        |(source, port, request)| (source, port, request.map(|(method, path)| (method, path.to_owned()))),
    )
}

fn ask<T>((source, port, request): &Question, answer: impl FnOnce(&Call<'_>) -> T) -> T {
    let headers = HeaderMap::new();
    let parts = request.as_ref().map(|(method, path)| RequestParts {
        method,
        path,
        query: None,
        headers: &headers,
        authority: None,
    });
    answer(&Call { source: source.as_ref(), port: *port, request: parts.as_ref() })
}

fn allowed(policy: &PolicySet, question: &Question) -> bool {
    ask(question, |call| decide(policy, call).is_allowed())
}

/// The same decision, written as the documentation tells it and without sharing code.
fn reference(policy: &PolicySet, (source, port, request): &Question) -> bool {
    if source.is_none() && policy.tls_mode == TlsMode::Strict {
        return false;
    }
    let from = |s: &Source| match s {
        Source::Any => true,
        Source::Authenticated => source.is_some(),
        Source::Identity(wanted) => source.as_ref() == Some(wanted),
        Source::Namespace(ns) => source
            .as_ref()
            .is_some_and(|id| id.as_str().starts_with(&format!("spiffe://cluster.local/ns/{ns}/sa/"))),
    };
    let fits = |m: &RequestMatch, method: &Method, path: &str| {
        let path_fits = match &m.path {
            Some(PathMatch::Prefix(prefix)) => path == prefix || path.starts_with(&format!("{prefix}/")),
            _ => true,
        };
        path_fits && (m.methods.is_empty() || m.methods.iter().any(|wanted| wanted == method))
    };
    let hit = |rule: &Rule| {
        let scope = match (&rule.scope, request) {
            (Scope::Any, Some((Method::CONNECT, _))) => rule.action == Action::Deny,
            (Scope::Any, _) => true,
            (Scope::Http(any_of), Some((Method::CONNECT, path))) => {
                let named = |m: &&RequestMatch| m.methods.contains(&Method::CONNECT);
                rule.action == Action::Deny
                    || any_of.iter().filter(named).any(|m| fits(m, &Method::CONNECT, path))
            }
            (Scope::Http(any_of), Some((method, path))) => any_of.iter().any(|m| fits(m, method, path)),
            (Scope::Http(_), None) => rule.action == Action::Deny,
        };
        scope && (rule.ports.is_empty() || rule.ports.contains(port)) && rule.sources.iter().any(from)
    };
    let any = |action| policy.rules.iter().any(|rule| rule.action == action && hit(rule));
    if any(Action::Deny) {
        return false;
    }
    let connect = matches!(request, Some((Method::CONNECT, _)));
    any(Action::Allow)
        || !connect
            && match policy.default_action {
                DefaultAction::Allow => true,
                DefaultAction::Authenticated => source.is_some(),
                DefaultAction::Deny => false,
                DefaultAction::Smi => source.is_none(),
            }
}

proptest! {
    #[test]
    fn decides_as_documented(policy in policy(), question in question()) {
        prop_assert_eq!(allowed(&policy, &question), reference(&policy, &question));
    }

    #[test]
    fn order_does_not_matter(policy in policy(), question in question()) {
        let mut reversed = policy.clone();
        reversed.rules.reverse();
        prop_assert_eq!(allowed(&policy, &question), allowed(&reversed, &question));
    }

    #[test]
    fn another_deny_never_lets_more_in(policy in policy(), extra in rule(), at: prop::sample::Index, question in question()) {
        let mut more = policy.clone();
        more.rules.insert(at.index(policy.rules.len() + 1), Rule { action: Action::Deny, ..extra });
        prop_assert!(!allowed(&more, &question) || allowed(&policy, &question));
    }

    #[test]
    fn another_allow_never_keeps_more_out(policy in policy(), extra in rule(), question in question()) {
        let mut more = policy.clone();
        more.rules.push(Rule { action: Action::Allow, ..extra });
        prop_assert!(allowed(&more, &question) || !allowed(&policy, &question));
    }

    #[test]
    fn strict_lets_no_stranger_in(policy in policy(), question in question()) {
        let strict = PolicySet { tls_mode: TlsMode::Strict, ..policy };
        let (_, port, request) = question;
        let verdict = ask(&(None, port, request), |call| decide(&strict, call).verdict);
        prop_assert_eq!(verdict, Err(Reason::TlsRequired));
    }

    /// A rule about requests lets no connection in, and denies those that could carry what it denies.
    #[test]
    fn opaque_is_never_let_in_by_requests(mut policy in policy(), port in select(vec![80_u16, 81]), source in caller()) {
        policy.default_action = DefaultAction::Deny;
        policy.rules.retain(|rule| matches!(rule.scope, Scope::Http(_)));
        prop_assert!(!allowed(&policy, &(Some(source), port, None)));
    }

    /// Applications that are proxies are declared, by a rule that names CONNECT.
    #[test]
    fn connect_is_let_in_by_its_name_only(mut policy in policy(), port in select(vec![80_u16, 81]), source in option::of(caller())) {
        for rule in &mut policy.rules {
            if let (Action::Allow, Scope::Http(conditions)) = (rule.action, &mut rule.scope) {
                conditions.iter_mut().for_each(|c| c.methods.retain(|method| method != Method::CONNECT));
            }
        }
        prop_assert!(!allowed(&policy, &(source, port, Some((Method::CONNECT, String::new())))));
    }

    #[test]
    fn opaque_gets_no_more_than_any_request(policy in policy(), (source, port, request) in question()) {
        let connect = matches!(request, Some((Method::CONNECT, _)));
        if allowed(&policy, &(source.clone(), port, None)) && request.is_some() && !connect {
            prop_assert!(allowed(&policy, &(source, port, request)), "the connection was let in, a request on it is not");
        }
    }

    /// Who decided is told: an object of the policy, and one whose action is the verdict.
    #[test]
    fn somebody_decided(policy in policy(), question in question()) {
        ask(&question, |call| {
            let decision = decide(&policy, call);
            let action = if decision.is_allowed() { Action::Allow } else { Action::Deny };
            let named = policy.rules.iter().any(|rule| rule.object == *decision.by && rule.action == action);
            assert!(named || *decision.by == policy.default_source);
        });
    }
}

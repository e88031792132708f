//! Who may call a ServiceAccount: TrafficTargets (SMI access v1alpha3) and the namespaces' defaults.

use std::collections::BTreeMap;

use mesh_core::{
    identity::SpiffeId,
    matching::RequestMatch,
    name::ObjectRef,
    policy::{Action, DefaultAction, PolicySet, Rule, Scope, Source, TlsMode},
};

use crate::{
    compile::{
        MAX_ITEMS, Settings,
        index::{Index, Item, Key},
    },
    object::{RuleOfTarget, SpecKind, TrafficTarget, Workload},
};

/// What TrafficTargets say about one ServiceAccount.
pub(crate) struct Granted {
    /// The first of them: it is why others are refused.
    first: ObjectRef,
    rules: Vec<Rule>,
}

/// What TrafficTargets say, by the ServiceAccount that is called.
pub(crate) fn grants<'a>(index: &mut Index<'a>, settings: &Settings) -> BTreeMap<Key<'a>, Granted> {
    let mut grants = BTreeMap::new();
    for target in index.targets.clone() {
        let destination = &target.object.destination;
        let object = target.reference();
        report_unknown_accounts(index, target);
        let granted = grants
            .entry(destination.value.key())
            .or_insert_with(|| Granted { first: object.clone(), rules: Vec::new() });
        let Some((ports, scope)) = scope(index, target) else { continue };
        let sources = target.object.sources.iter().filter_map(|source| {
            let (namespace, name) = source.value.key();
            SpiffeId::service_account(&settings.trust_domain, namespace, name).ok().map(Source::Identity)
        });
        let rule = Rule { object, action: Action::Allow, sources: sources.collect(), ports, scope };
        if let Some(message) = too_long(&rule, granted.rules.len()) {
            let remedy = "write fewer and wider ones";
            index.problems.refuse(target.located, target.place().line, "spec", message, remedy);
        } else {
            granted.rules.push(rule);
        }
    }
    close(index, &mut grants);
    grants
}

/// Why proxies cannot be told of a rule.
fn too_long(rule: &Rule, rules_before: usize) -> Option<String> {
    let conditions = if let Scope::Http(conditions) = &rule.scope { conditions.len() } else { 0 };
    let counts = [
        (rules_before + 1, "TrafficTargets for one ServiceAccount"),
        (rule.sources.len(), "sources"),
        (rule.ports.len(), "ports"),
        (conditions, "matches"),
    ];
    let (count, what) = counts.into_iter().find(|(count, _)| *count > MAX_ITEMS)?;
    Some(format!("{count} {what}; at most {MAX_ITEMS} can be: it opens nothing"))
}

/// Nobody gets in where the only TrafficTarget is a refused one: it was written to restrict.
fn close<'a>(index: &mut Index<'a>, grants: &mut BTreeMap<Key<'a>, Granted>) {
    for target in index.closed.clone() {
        let destination = &target.object.destination;
        let key = destination.value.key();
        if grants.contains_key(&key) {
            continue;
        }
        grants.insert(key, Granted { first: target.reference(), rules: Vec::new() });
        let message =
            format!("ServiceAccount {}/{} is closed until it is mended: nobody may call it", key.0, key.1);
        let remedy = "mend the TrafficTarget, or remove it";
        index.problems.warn(target.located, destination.line, "spec.destination", message, remedy);
    }
}

/// The policy of one Workload.
pub(crate) fn of(index: &Index<'_>, grants: &BTreeMap<Key<'_>, Granted>, workload: &Workload) -> PolicySet {
    let namespace: &str = &workload.name.namespace;
    let item = index.namespaces.get(namespace);
    let tls_mode: TlsMode = workload.mtls.or_else(|| item?.object.mtls).unwrap_or_default();
    if let Some(granted) = grants.get(&(namespace, &*workload.service_account.value)) {
        return PolicySet {
            tls_mode,
            default_action: DefaultAction::Deny,
            default_source: granted.first.clone(),
            rules: granted.rules.clone(),
        };
    }
    PolicySet {
        tls_mode,
        default_action: item.and_then(|item| item.object.default_policy).unwrap_or(DefaultAction::Allow),
        default_source: ObjectRef::new("Namespace", "", namespace),
        rules: Vec::new(),
    }
}

fn report_unknown_accounts(index: &mut Index<'_>, target: Item<'_, TrafficTarget>) {
    let destination = std::iter::once(("spec.destination.name".to_owned(), &target.object.destination));
    let sources = target.object.sources.iter().enumerate();
    let sources = sources.map(|(at, source)| (format!("spec.sources[{at}].name"), source));
    for (field, account) in destination.chain(sources) {
        let (namespace, name) = account.value.key();
        if index.accounts.contains(&(namespace, name)) {
            continue;
        }
        let remedy = index.suggest_account(namespace, name);
        let message =
            format!("ServiceAccount {namespace}/{name} does not exist, and no Workload runs under it");
        index.problems.warn(target.located, account.line, &field, message, remedy);
    }
}

/// Ports (empty: all) and requests that a TrafficTarget opens; None: nothing.
///
/// TCPRoutes restrict the ports of the HTTPRouteGroups beside them. A reference to nothing opens nothing: a rule that
/// named it would otherwise open more than was written.
fn scope(index: &mut Index<'_>, target: Item<'_, TrafficTarget>) -> Option<(Vec<u16>, Scope)> {
    let namespace: &str = &target.object.name.namespace;
    let (mut conditions, mut groups) = (Vec::new(), 0);
    let (mut ports, mut all_ports, mut tcp_routes) = (Vec::new(), false, 0);
    for (at, rule) in target.object.rules.iter().enumerate() {
        match rule.kind {
            SpecKind::HttpRouteGroup => {
                groups += 1;
                conditions.extend(named_matches(index, target, at, rule));
            }
            SpecKind::TcpRoute => {
                tcp_routes += 1;
                if let Some(route) = index.tcp_routes.get(&(namespace, &*rule.name)) {
                    all_ports |= route.object.ports.is_empty();
                    ports.extend_from_slice(&route.object.ports);
                } else {
                    let remedy = index.suggest_tcp_route(namespace, &rule.name);
                    let message = format!("TCPRoute {} does not exist: it opens no port", rule.name);
                    index.problems.warn(
                        target.located,
                        rule.line,
                        &format!("spec.rules[{at}].name"),
                        message,
                        remedy,
                    );
                }
            }
        }
    }
    if tcp_routes > 0 && ports.is_empty() && !all_ports {
        return None;
    }
    if all_ports {
        ports.clear();
    }
    ports.sort_unstable();
    ports.dedup();
    match (groups, conditions.is_empty()) {
        (0, _) => Some((ports, Scope::Any)),
        (_, true) => None,
        (_, false) => Some((ports, Scope::Http(conditions))),
    }
}

/// The conditions of the matches that a rule names; without names, of all.
fn named_matches(
    index: &mut Index<'_>,
    target: Item<'_, TrafficTarget>,
    at: usize,
    rule: &RuleOfTarget,
) -> Vec<RequestMatch> {
    let namespace: &str = &target.object.name.namespace;
    let Some(group) = index.groups.get(&(namespace, &*rule.name)).copied() else {
        let remedy = index.suggest_group(namespace, &rule.name);
        let message = format!("HTTPRouteGroup {} does not exist: it opens nothing", rule.name);
        index.problems.warn(target.located, rule.line, &format!("spec.rules[{at}].name"), message, remedy);
        return Vec::new();
    };
    let all = &group.object.matches;
    if rule.matches.is_empty() {
        return all.iter().map(|(_, condition)| condition.clone()).collect();
    }
    let mut found = Vec::new();
    for (match_at, wanted) in rule.matches.iter().enumerate() {
        if let Some((_, condition)) = all.iter().find(|(name, _)| *name == wanted.value) {
            found.push(condition.clone());
            continue;
        }
        let names: Vec<&str> = all.iter().take(20).map(|(name, _)| name.as_str()).collect();
        let message =
            format!("HTTPRouteGroup {} has no match {:?}: it opens nothing", rule.name, wanted.value);
        let field = format!("spec.rules[{at}].matches[{match_at}]");
        index.problems.warn(
            target.located,
            wanted.line,
            &field,
            message,
            format!("it has {}", names.join(", ")),
        );
    }
    found
}

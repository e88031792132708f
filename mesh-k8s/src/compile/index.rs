//! All objects by name, the first of each.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, hash_map::Entry};

use mesh_core::{
    name::ObjectRef,
    policy::{DefaultAction, TlsMode},
};

use crate::{
    nearest::nearest,
    object::{
        EndpointSlice, ExternalService, HttpRoute, HttpRouteGroup, Located, Name, Namespace, Object, Pod,
        PortOfService, Service, Standing, TcpRoute, TrafficPolicy, TrafficSplit, TrafficTarget, Workload,
    },
    problem::{Place, Problem},
};

/// Most names that are suggested in one compilation: each costs a comparison with all names.
pub(crate) const MAX_SUGGESTIONS: usize = 100;

/// An object and where it was read.
#[derive(Debug)]
pub(crate) struct Item<'a, T> {
    pub(crate) object: &'a T,
    pub(crate) located: &'a Located,
}

impl<T> Clone for Item<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Item<'_, T> {}

impl<T> Item<'_, T> {
    pub(crate) fn place(&self) -> &Place {
        &self.located.place
    }

    pub(crate) fn reference(&self) -> ObjectRef {
        self.located.reference()
    }
}

/// Namespace and name.
pub(crate) type Key<'a> = (&'a str, &'a str);

/// All objects, and what is wrong with them.
#[derive(Default)]
pub(crate) struct Index<'a> {
    pub(crate) namespaces: BTreeMap<&'a str, Item<'a, Namespace>>,
    /// Every ServiceAccount, also those that only Workloads name.
    pub(crate) accounts: BTreeSet<Key<'a>>,
    /// Also those that stand for an ExternalService.
    pub(crate) services: BTreeMap<Key<'a>, Item<'a, Service>>,
    pub(crate) externals: BTreeMap<Key<'a>, Item<'a, ExternalService>>,
    /// Host names of ExternalServices.
    pub(crate) hosts: BTreeMap<&'a str, Item<'a, ExternalService>>,
    /// By namespace and name.
    pub(crate) workloads: Vec<Item<'a, Workload>>,
    /// By standing, file and line, as all lists below.
    pub(crate) routes: Vec<Item<'a, HttpRoute>>,
    pub(crate) policies: Vec<Item<'a, TrafficPolicy>>,
    pub(crate) splits: Vec<Item<'a, TrafficSplit>>,
    pub(crate) targets: Vec<Item<'a, TrafficTarget>>,
    /// Those that are refused: what they were to restrict is closed.
    pub(crate) closed: Vec<Item<'a, TrafficTarget>>,
    pub(crate) groups: BTreeMap<Key<'a>, Item<'a, HttpRouteGroup>>,
    pub(crate) tcp_routes: BTreeMap<Key<'a>, Item<'a, TcpRoute>>,
    /// Pods of a Kubernetes cluster; those in the mesh are among the Workloads too.
    pub(crate) pods: HashMap<Key<'a>, &'a Pod>,
    /// Those that get no proxy, although they may be meant to have one.
    pub(crate) on_hosts: Vec<Item<'a, Pod>>,
    /// By Service.
    pub(crate) slices: HashMap<Key<'a>, Vec<&'a EndpointSlice>>,
    pub(crate) problems: Problems,
}

/// What is wrong.
#[derive(Default)]
pub(crate) struct Problems {
    found: Vec<Problem>,
    refused: BTreeSet<(ObjectRef, Place)>,
    suggested: usize,
}

impl Name {
    /// Namespace and name.
    pub(crate) fn key(&self) -> Key<'_> {
        (&self.namespace, &self.name)
    }
}

impl<'a> Index<'a> {
    pub(crate) fn new(objects: &'a [Located]) -> Self {
        let mut sorted: Vec<&Located> = objects.iter().collect();
        sorted.sort_by(|a, b| {
            let by_place = (a.standing, &a.place).cmp(&(b.standing, &b.place));
            // Items of one flow-style List can share a line.
            by_place.then_with(|| a.object.key().cmp(&b.object.key()))
        });
        let mut index = Self::default();
        let mut first: HashMap<(&str, Key<'a>), &Place> = HashMap::with_capacity(objects.len());
        for located in sorted {
            let is_stand_in = located.standing == Standing::StandIn;
            if let (true, Object::TrafficTarget(object)) = (is_stand_in, &located.object) {
                index.closed.push(Item { object, located });
                continue;
            }
            match first.entry(located.object.key()) {
                Entry::Vacant(entry) => {
                    entry.insert(&located.place);
                    index.add(located);
                    if is_stand_in {
                        index.report_stand_in(located);
                    }
                }
                Entry::Occupied(_) if is_stand_in => {}
                Entry::Occupied(entry) => {
                    if let Object::TrafficTarget(object) = &located.object {
                        index.closed.push(Item { object, located });
                    }
                    let message =
                        format!("an object of this kind and name is there already, at {}", entry.get());
                    index.problems.conflict(
                        located,
                        located.place.line,
                        "metadata.name",
                        message,
                        "keep one of them",
                    );
                }
            }
        }
        index.drop_shared_addresses();
        index.workloads.sort_by(|a, b| a.object.name.cmp(&b.object.name));
        index.drop_namesakes();
        index.report_pods_on_hosts();
        for workload in &index.workloads {
            index.accounts.insert((&workload.object.name.namespace, &workload.object.service_account.value));
        }
        index
    }

    fn add(&mut self, located: &'a Located) {
        match &located.object {
            Object::Namespace(object) => {
                self.namespaces.insert(&object.name, Item { object, located });
            }
            Object::ServiceAccount(object) => {
                self.accounts.insert(object.name.key());
            }
            Object::Service(object) => {
                self.add_service(object, located);
            }
            Object::ExternalService(object) => self.add_external(Item { object, located }),
            Object::Workload(object) => self.workloads.push(Item { object, located }),
            Object::HttpRoute(object) | Object::GrpcRoute(object) => {
                self.routes.push(Item { object, located });
            }
            Object::TrafficPolicy(object) => self.policies.push(Item { object, located }),
            Object::TrafficSplit(object) => self.splits.push(Item { object, located }),
            Object::TrafficTarget(object) => self.targets.push(Item { object, located }),
            Object::HttpRouteGroup(object) => {
                self.groups.insert(object.name.key(), Item { object, located });
            }
            Object::TcpRoute(object) => {
                self.tcp_routes.insert(object.name.key(), Item { object, located });
            }
            Object::Pod(object) => self.add_pod(object, located),
            Object::EndpointSlice(object) => {
                self.slices.entry((&object.name.namespace, &object.service)).or_default().push(object);
            }
        }
    }

    /// False: a Service or ExternalService has the name already.
    fn add_service(&mut self, object: &'a Service, located: &'a Located) -> bool {
        if let Some(first) = self.services.get(&object.name.key()) {
            let message = format!("{} has this name already, at {}", first.reference(), first.place());
            let line = located.place.line;
            self.problems.conflict(located, line, "metadata.name", message, "choose another name");
            return false;
        }
        self.services.insert(object.name.key(), Item { object, located });
        true
    }

    fn add_external(&mut self, external: Item<'a, ExternalService>) {
        let hosts = &external.object.hosts;
        if let Some((at, host, first)) =
            hosts.iter().enumerate().find_map(|(at, host)| Some((at, host, *self.hosts.get(&*host.value)?)))
        {
            let message =
                format!("{} is a host of {} already, at {}", host.value, first.reference(), first.place());
            let field = format!("spec.hosts[{at}]");
            self.problems.conflict(external.located, host.line, &field, message, "keep it in one of them");
            return;
        }
        if self.add_service(&external.object.service, external.located) {
            self.externals.insert(external.object.service.name.key(), external);
            self.hosts.extend(hosts.iter().map(|host| (&*host.value, external)));
        }
    }

    /// Tells what stands in for a refused Namespace.
    fn report_stand_in(&mut self, located: &Located) {
        let Object::Namespace(namespace) = &located.object else { return };
        let what = match (namespace.default_policy, namespace.mtls) {
            (Some(DefaultAction::Deny), Some(TlsMode::Strict)) => "default-policy deny and mtls strict hold",
            (Some(DefaultAction::Deny), _) => "default-policy deny holds",
            (_, Some(TlsMode::Strict)) => "mtls strict holds",
            // What could be read of it holds, and closes no more than was written.
            _ => return,
        };
        let message = format!("namespace {} is closed until it is mended: {what}", namespace.name);
        self.problems.warn(located, located.place.line, "metadata", message, "mend the Namespace");
    }

    /// A port of a Service.
    pub(crate) fn port(&self, key: Key<'_>, port: u16) -> Option<&'a PortOfService> {
        self.services.get(&key)?.object.ports.iter().find(|p| p.port == port)
    }

    /// What to do about a reference to a Service that does not exist.
    pub(crate) fn suggest_service(&mut self, namespace: &str, name: &str) -> String {
        let names = self.services.range((namespace, "")..).take_while(|((ns, _), _)| *ns == namespace);
        suggest(&mut self.problems.suggested, "Service", name, names.map(|((_, name), _)| *name))
    }

    /// What to do about a reference to an HTTPRouteGroup that does not exist.
    pub(crate) fn suggest_group(&mut self, namespace: &str, name: &str) -> String {
        let names = self.groups.range((namespace, "")..).take_while(|((ns, _), _)| *ns == namespace);
        suggest(&mut self.problems.suggested, "HTTPRouteGroup", name, names.map(|((_, name), _)| *name))
    }

    /// What to do about a reference to a TCPRoute that does not exist.
    pub(crate) fn suggest_tcp_route(&mut self, namespace: &str, name: &str) -> String {
        let names = self.tcp_routes.range((namespace, "")..).take_while(|((ns, _), _)| *ns == namespace);
        suggest(&mut self.problems.suggested, "TCPRoute", name, names.map(|((_, name), _)| *name))
    }

    /// What to do about a reference to a ServiceAccount that does not exist.
    pub(crate) fn suggest_account(&mut self, namespace: &str, name: &str) -> String {
        let names = self.accounts.range((namespace, "")..).take_while(|(ns, _)| *ns == namespace);
        suggest(&mut self.problems.suggested, "ServiceAccount", name, names.map(|(_, name)| *name))
    }
}

fn suggest<'b>(used: &mut usize, kind: &str, name: &str, names: impl Iterator<Item = &'b str>) -> String {
    *used += 1;
    let found = if *used <= MAX_SUGGESTIONS { nearest(name, names) } else { None };
    match found {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("add the {kind}, or correct its name"),
    }
}

impl Object {
    /// Kind, namespace and name, to compare.
    fn key(&self) -> (&'static str, Key<'_>) {
        match self {
            Self::Namespace(o) => ("Namespace", ("", &o.name)),
            Self::ServiceAccount(o) => ("ServiceAccount", o.name.key()),
            Self::Service(o) => ("Service", o.name.key()),
            Self::Workload(o) => ("Workload", o.name.key()),
            Self::HttpRoute(o) => ("HTTPRoute", o.name.key()),
            Self::GrpcRoute(o) => ("GRPCRoute", o.name.key()),
            Self::TrafficPolicy(o) => ("TrafficPolicy", o.name.key()),
            Self::ExternalService(o) => ("ExternalService", o.service.name.key()),
            Self::TrafficSplit(o) => ("TrafficSplit", o.name.key()),
            Self::TrafficTarget(o) => ("TrafficTarget", o.name.key()),
            Self::HttpRouteGroup(o) => ("HTTPRouteGroup", o.name.key()),
            Self::TcpRoute(o) => ("TCPRoute", o.name.key()),
            Self::Pod(o) => ("Pod", o.name.key()),
            Self::EndpointSlice(o) => ("EndpointSlice", o.name.key()),
        }
    }
}

impl Problems {
    /// Reports what refuses an object.
    pub(crate) fn refuse(
        &mut self,
        located: &Located,
        line: u32,
        field: &str,
        message: String,
        remedy: impl Into<String>,
    ) {
        self.refused.insert((located.reference(), located.place.clone()));
        self.report(located, line, field, message, remedy.into(), true);
    }

    /// Reports another object that keeps one out of force.
    pub(crate) fn conflict(
        &mut self,
        located: &Located,
        line: u32,
        field: &str,
        message: String,
        remedy: impl Into<String>,
    ) {
        self.refuse(located, line, field, message, remedy);
        if let Some(last) = self.found.last_mut() {
            last.is_conflict = true;
        }
    }

    /// Reports what an object can live with.
    pub(crate) fn warn(
        &mut self,
        located: &Located,
        line: u32,
        field: &str,
        message: String,
        remedy: impl Into<String>,
    ) {
        self.report(located, line, field, message, remedy.into(), false);
    }

    fn report(
        &mut self,
        located: &Located,
        line: u32,
        field: &str,
        message: String,
        remedy: String,
        refused: bool,
    ) {
        self.found.push(Problem {
            object: Some(located.reference()),
            place: located.place.at(line),
            field: field.to_owned(),
            message,
            remedy,
            refused,
            is_conflict: false,
        });
    }

    /// All of them by file and line, each once, and what they refuse.
    pub(crate) fn into_sorted(self) -> (Vec<Problem>, BTreeSet<(ObjectRef, Place)>) {
        let mut found = self.found;
        found.sort_by(|a, b| {
            (&a.place, &a.object, &a.field, &a.message).cmp(&(&b.place, &b.object, &b.field, &b.message))
        });
        let mut seen = HashSet::new();
        found.retain(|p| seen.insert((p.place.clone(), p.field.clone(), p.message.clone())));
        (found, self.refused)
    }
}

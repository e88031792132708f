//! Answers where a call goes, by host or by address.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use mesh_core::{
    config::{Destination, Endpoint},
    name::{Host, ObjectRef, ServicePort, WorkloadRef, is_dns_label},
    protocol::Protocol,
    resource::DestinationKey,
    route::{Backend, RouteRule, ServiceRoutes},
};

use crate::{
    compile::{
        Compiled, Resolved,
        endpoints::SelectedWorkload,
        external,
        index::{Index, MAX_SUGGESTIONS},
    },
    nearest::nearest,
};

/// What stands at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Addressed {
    /// A Service port, at its clusterIP.
    Service(ServicePort),
    /// One workload's port: the Service port that it counts as, the name of its own endpoint set, and who it is.
    Workload { service: ServicePort, key: ServicePort, protocol: Protocol, workload: WorkloadRef },
}

impl Compiled {
    /// Where a call goes that names its destination by `key` from `client_namespace`, and the Service ports whose
    /// endpoints that answer refers to. All of these are keys of [`Compiled::endpoints`].
    ///
    /// The address of a workload leads to that one alone: its endpoint has a port of its own in
    /// [`Compiled::endpoints`], which stands for no Service.
    #[must_use]
    pub fn destination(
        &self,
        key: &DestinationKey,
        client_namespace: &str,
    ) -> (Destination, Vec<ServicePort>) {
        let found = match key {
            DestinationKey::Host(host) => match self.host(host, client_namespace) {
                Ok(routes) => routes,
                Err(detail) => return (Destination::Unknown(detail), Vec::new()),
            },
            DestinationKey::Addr(addr) => match self.address(addr.0) {
                Some(routes) => routes,
                None => return (Destination::Passthrough, Vec::new()),
            },
        };
        let closure: BTreeSet<ServicePort> = found.needed().cloned().collect();
        (Destination::Service(found.into_owned()), closure.into_iter().collect())
    }

    fn address(&self, address: SocketAddr) -> Option<Cow<'_, ServiceRoutes>> {
        let plain = SocketAddr::new(address.ip().to_canonical(), address.port());
        match self.addresses.get(&plain)? {
            Addressed::Service(port) => self.services.get(port).map(Cow::Borrowed),
            Addressed::Workload { service, key, protocol, workload } => {
                Some(Cow::Owned(direct(service, key, *protocol, workload)))
            }
        }
    }

    /// The Service port that a host names, or what is wrong with it.
    fn host(&self, host: &Host, client_namespace: &str) -> Result<Cow<'_, ServiceRoutes>, String> {
        if let Ok(ip) = host.name.parse::<IpAddr>() {
            let port = host.port.unwrap_or(80);
            let found = self.address(SocketAddr::new(ip, port));
            return found.ok_or_else(|| format!("{ip}:{port} is the address of no workload or Service"));
        }
        let Some((namespace, name)) = self.named(host, client_namespace) else {
            let domain = &self.cluster_domain;
            return Err(format!(
                "{:?} cannot name a Service; write svc, svc.ns or svc.ns.svc.{domain}",
                &*host.name
            ));
        };
        let ports: Vec<&ServiceRoutes> = self.ports_of(namespace, name).collect();
        if ports.is_empty() {
            return Err(self.unknown_service(namespace, name, client_namespace));
        }
        let wanted = match host.port {
            Some(port) => ports.iter().find(|routes| routes.service.port == port),
            None => match ports.as_slice() {
                [only] => Some(only),
                several => several.iter().find(|routes| routes.service.port == 80),
            },
        };
        wanted.map(|routes| Cow::Borrowed(*routes)).ok_or_else(|| {
            let numbers: Vec<String> = ports.iter().map(|routes| routes.service.port.to_string()).collect();
            let missing = match host.port {
                Some(port) => format!("has no port {port}"),
                None => "has several ports and none is 80: write one".to_owned(),
            };
            format!("Service {namespace}/{name} {missing}; it has {}", numbers.join(", "))
        })
    }

    /// Namespace and name of the Service that a host names, or else of the ExternalService.
    fn named<'a>(&'a self, host: &'a Host, client_namespace: &'a str) -> Option<(&'a str, &'a str)> {
        let service = host.service(client_namespace, &self.cluster_domain);
        let exists = |(namespace, name): &(&str, &str)| self.ports_of(namespace, name).next().is_some();
        let external = || self.hosts.get(&*host.name).map(|(namespace, name)| (&**namespace, &**name));
        service.filter(exists).or_else(external).or(service)
    }

    fn ports_of(&self, namespace: &str, name: &str) -> impl Iterator<Item = &ServiceRoutes> {
        let range = ServicePort::new(namespace, name, 0)..=ServicePort::new(namespace, name, u16::MAX);
        self.services.range(range).map(|(_, routes)| routes)
    }

    fn is_known(&self, host: &Host, client_namespace: &str) -> bool {
        let service = self.named(host, client_namespace);
        service.is_some_and(|(namespace, name)| self.ports_of(namespace, name).next().is_some())
            || host.name.parse::<IpAddr>().is_ok()
    }

    fn unknown_service(&self, namespace: &str, name: &str, client_namespace: &str) -> String {
        let missing = format!("no Service {name:?} in namespace {namespace}");
        let written = |port: &ServicePort| {
            if *port.namespace == *client_namespace {
                port.name.to_string()
            } else {
                format!("{}.{}", port.name, port.namespace)
            }
        };
        if let Some(elsewhere) = self.services.keys().find(|port| &*port.name == name) {
            return format!("{missing}; did you mean {:?}?", written(elsewhere));
        }
        let own = || self.services.keys().filter(|port| &*port.namespace == namespace);
        let near = nearest(name, own().map(|port| &*port.name));
        if let Some(port) = near.and_then(|near| own().find(|port| &*port.name == near)) {
            return format!("{missing}; did you mean {:?}?", written(port));
        }
        let names: BTreeSet<&str> = own().map(|port| &*port.name).take(50).collect();
        if names.is_empty() {
            return format!("{missing}, which has none");
        }
        let some: Vec<&str> = names.into_iter().take(8).collect();
        format!("{missing}; there are {}", some.join(", "))
    }

    /// Fills in what stands at which address, and the endpoints of single workloads.
    pub(crate) fn index_addresses(
        &mut self,
        index: &mut Index<'_>,
        workloads: &[SelectedWorkload<'_>],
        resolved: &Resolved,
    ) {
        let mut addresses = BTreeMap::new();
        for service in index.services.values().copied().collect::<Vec<_>>() {
            for ip in &service.object.cluster_ips {
                for port in &service.object.ports {
                    let address = SocketAddr::new(ip.to_canonical(), port.port);
                    match addresses.entry(address) {
                        Entry::Vacant(entry) => {
                            entry.insert(Addressed::Service(service.object.port_name(port.port)));
                        }
                        Entry::Occupied(_) => {
                            let message = format!("{address} is the address of something else already");
                            let (field, remedy) =
                                ("spec.clusterIP", "give every Service an address of its own");
                            index.problems.warn(service.located, port.line, field, message, remedy);
                        }
                    }
                }
            }
        }
        for workload in workloads {
            let Some(config) = self.workloads.get(&workload.reference) else { continue };
            for port in &config.inbound {
                let Some(endpoint) = workload.endpoint(port.port, port.protocol) else { continue };
                let address = endpoint.address.0;
                let address = SocketAddr::new(address.ip().to_canonical(), address.port());
                let Entry::Vacant(entry) = addresses.entry(address) else {
                    let line = workload.item.object.address.line;
                    let message = format!("{address} is a clusterIP: calls to it go to its Service");
                    let (field, remedy) = ("status.podIP", "keep addresses of pods and of Services apart");
                    index.problems.warn(workload.item.located, line, field, message, remedy);
                    continue;
                };
                let key = self.direct_key(&endpoint);
                if self.services.contains_key(&key) && !self.is_only_endpoint(&key, &endpoint) {
                    continue;
                }
                let service = port.services.first().unwrap_or(&key).clone();
                let workload = endpoint.workload.clone();
                self.endpoints.insert(key.clone(), vec![endpoint]);
                entry.insert(Addressed::Workload { service, key, protocol: port.protocol, workload });
            }
        }
        // What the mesh itself has at an address goes first: addresses outside are not ours to choose.
        for (address, port) in external::by_address(index, resolved) {
            addresses.entry(address).or_insert(Addressed::Service(port));
        }
        self.addresses = addresses;
    }

    /// The name under which the endpoint is published alone: its workload's, or, where a Service has that name,
    /// `ip-127-1-0-3` (of IPv6 all digits).
    fn direct_key(&self, endpoint: &Endpoint) -> ServicePort {
        let address = endpoint.address.0;
        let workload = &endpoint.workload;
        let (namespace, name) = (Arc::clone(&workload.namespace), Arc::clone(&workload.name));
        let named = ServicePort { namespace, name, port: address.port() };
        let is_free = is_dns_label(&workload.name) && !self.services.contains_key(&named);
        if is_free || self.is_only_endpoint(&named, endpoint) {
            return named;
        }
        let name = match address.ip() {
            IpAddr::V4(ip) => format!("ip-{}", ip.to_string().replace('.', "-")),
            IpAddr::V6(ip) => format!("ip-{}", ip.segments().map(|s| format!("{s:04x}")).join("-")),
        };
        ServicePort { name: name.into(), ..named }
    }

    fn is_only_endpoint(&self, service: &ServicePort, endpoint: &Endpoint) -> bool {
        self.endpoints.get(service).is_some_and(|all| all.len() == 1 && all.first() == Some(endpoint))
    }

    /// Reports upstreams that lead nowhere.
    pub(crate) fn report_unknown_upstreams(&self, index: &mut Index<'_>) {
        let workloads = index.workloads.clone();
        // Workloads of one kind name the same hosts, and each suggestion costs a comparison with all names.
        let mut told: HashMap<(&str, &Host), Option<String>> = HashMap::new();
        let mut suggested = 0;
        for workload in workloads {
            let namespace: &str = &workload.object.name.namespace;
            for (at, upstream) in workload.object.upstreams.iter().enumerate() {
                let wrong = told.entry((namespace, &upstream.host)).or_insert_with(|| {
                    if suggested < MAX_SUGGESTIONS || self.is_known(&upstream.host, namespace) {
                        let wrong = self.host(&upstream.host, namespace).err();
                        suggested += usize::from(wrong.is_some());
                        return wrong;
                    }
                    Some(format!("{} leads to no Service", upstream.host))
                });
                if let Some(detail) = wrong.clone() {
                    let field = format!("spec.upstreams[{at}].host");
                    let remedy = "correct host and port, or add the Service";
                    index.problems.warn(workload.located, upstream.line, &field, detail, remedy);
                }
            }
        }
    }
}

/// The route to one workload alone.
fn direct(
    service: &ServicePort,
    key: &ServicePort,
    protocol: Protocol,
    workload: &WorkloadRef,
) -> ServiceRoutes {
    let object = ObjectRef {
        kind: "Workload".into(),
        namespace: Arc::clone(&workload.namespace),
        name: Arc::clone(&workload.name),
    };
    let backends = vec![Backend::new(key.clone(), 1)];
    let rule = RouteRule::new(object, backends);
    ServiceRoutes::new(service.clone(), protocol, vec![rule])
}

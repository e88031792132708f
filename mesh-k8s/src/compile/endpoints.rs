//! Which Workloads stand behind which Service ports.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
};

use mesh_core::{
    addr::EndpointAddr,
    config::Endpoint,
    identity::SpiffeId,
    name::{ServicePort, WorkloadRef},
    protocol::Protocol,
};

use crate::{
    compile::{
        MAX_ENDPOINTS, MAX_ITEMS, Settings,
        index::{Index, Item},
        slices::Slices,
    },
    labels,
    object::{PortName, PortOfService, PortOfWorkload, Service, Workload},
};

/// A Workload and the Service ports that lead to its ports.
pub(crate) struct SelectedWorkload<'a> {
    pub(crate) item: Item<'a, Workload>,
    pub(crate) reference: WorkloadRef,
    pub(crate) identity: SpiffeId,
    pub(crate) zone: Arc<str>,
    /// Its ports; of a pod also those that only EndpointSlices name.
    pub(crate) ports: Vec<SelectedPort<'a>>,
}

/// One port of a Workload.
pub(crate) struct SelectedPort<'a> {
    pub(crate) port: Cow<'a, PortOfWorkload>,
    /// The Service ports that lead there.
    pub(crate) services: Vec<ServicePort>,
    /// The first protocol that is declared.
    pub(crate) protocol: Protocol,
}

/// Services with the Workloads that they select.
pub(crate) struct Selected<'a> {
    /// By namespace and name.
    pub(crate) workloads: Vec<SelectedWorkload<'a>>,
    /// Every Service port, also without endpoints.
    pub(crate) endpoints: BTreeMap<ServicePort, Vec<Endpoint>>,
    /// What every Service port speaks.
    pub(crate) protocols: BTreeMap<ServicePort, Protocol>,
}

impl Service {
    /// Names one of its ports.
    pub(crate) fn port_name(&self, port: u16) -> ServicePort {
        ServicePort { namespace: Arc::clone(&self.name.namespace), name: Arc::clone(&self.name.name), port }
    }
}

impl SelectedPort<'_> {
    /// Notes that a Service port leads here. False: too many do.
    pub(crate) fn lead(&mut self, service: &ServicePort, protocol: Protocol) -> bool {
        if self.services.len() == MAX_ITEMS {
            return false;
        }
        self.services.push(service.clone());
        if self.protocol == Protocol::Undeclared {
            self.protocol = protocol;
        }
        true
    }
}

impl SelectedWorkload<'_> {
    /// Its zone; may be empty.
    pub(crate) fn zone(&self) -> Arc<str> {
        Arc::clone(&self.zone)
    }

    /// The endpoint at one of its ports; None: it has no address yet.
    pub(crate) fn endpoint(&self, port: u16, protocol: Protocol) -> Option<Endpoint> {
        let ip = self.item.object.address.value?;
        Some(self.endpoint_at(EndpointAddr(SocketAddr::new(ip, port)), protocol))
    }

    /// The endpoint at one of its addresses.
    pub(crate) fn endpoint_at(&self, address: EndpointAddr, protocol: Protocol) -> Endpoint {
        Endpoint {
            address,
            identity: Some(self.identity.clone()),
            workload: self.reference.clone(),
            protocol,
            zone: Arc::clone(&self.zone),
        }
    }
}

/// Workloads by namespace and label.
type ByLabel<'a> = HashMap<(&'a str, &'a str, &'a str), Vec<usize>>;

impl<'a> Selected<'a> {
    pub(crate) fn new(index: &mut Index<'a>, settings: &Settings) -> Self {
        let mut workloads = workloads(index, settings);
        let slices = Slices::new(index, &mut workloads);
        let mut by_label: ByLabel<'a> = HashMap::new();
        // Which pods take calls of a Service, EndpointSlices say.
        for (number, workload) in workloads.iter().enumerate().filter(|(_, w)| !w.item.is_pod()) {
            let object = workload.item.object;
            for (key, value) in &object.labels {
                by_label.entry((&object.name.namespace, key, value)).or_default().push(number);
            }
        }
        let mut selected = Self { workloads, endpoints: BTreeMap::new(), protocols: BTreeMap::new() };
        let services: Vec<Item<'a, Service>> = index.services.values().copied().collect();
        for service in services {
            let mut numbers = selected.matching(&by_label, service.object);
            if numbers.len() > MAX_ENDPOINTS {
                let message = format!(
                    "the selector matches {} Workloads; at most {MAX_ENDPOINTS} get calls",
                    numbers.len()
                );
                let (line, remedy) = (service.object.selector.line, "split the Service");
                index.problems.warn(service.located, line, "spec.selector", message, remedy);
                numbers.truncate(MAX_ENDPOINTS);
            }
            let is_sliced = index.slices.contains_key(&service.object.name.key());
            if numbers.is_empty() && !is_sliced && !service.object.selector.value.is_empty() {
                let message =
                    "the selector matches no Workload of the namespace: the Service has no endpoints"
                        .to_owned();
                let remedy = "compare it with metadata.labels of the Workloads";
                index.problems.warn(
                    service.located,
                    service.object.selector.line,
                    "spec.selector",
                    message,
                    remedy,
                );
            }
            for (at, port) in service.object.ports.iter().enumerate() {
                selected.add_port(index, &slices, service, at, port, &numbers);
            }
        }
        selected
    }

    /// Numbers of the Workloads that a Service selects: the rarest label decides which are looked at.
    fn matching(&self, by_label: &ByLabel<'_>, service: &Service) -> Vec<usize> {
        let namespace: &str = &service.name.namespace;
        let selector = &service.selector.value;
        let lists = selector.iter().map(|(key, value)| {
            by_label.get(&(namespace, key.as_str(), value.as_str())).map_or(&[][..], Vec::as_slice)
        });
        let Some(rarest) = lists.min_by_key(|list| list.len()) else { return Vec::new() };
        let fits = |number: &&usize| {
            let labels = self.workloads.get(**number).map(|w| &w.item.object.labels);
            labels.is_some_and(|labels| selector.iter().all(|(key, value)| labels.get(key) == Some(value)))
        };
        rarest.iter().filter(fits).copied().collect()
    }

    fn add_port(
        &mut self,
        index: &mut Index<'a>,
        slices: &Slices<'a>,
        service: Item<'a, Service>,
        at: usize,
        port: &PortOfService,
        numbers: &[usize],
    ) {
        let name = service.object.port_name(port.port);
        let mut found = slices.endpoints(index, service.object, port, &mut self.workloads);
        let mut common: Option<Protocol> = found.first().map(|endpoint| endpoint.protocol);
        let mut differing: Option<WorkloadRef> = None;
        let mut crowded: Option<WorkloadRef> = None;
        for &number in numbers {
            let Some(workload) = self.workloads.get_mut(number) else { continue };
            let Some((slot, target)) = target(workload.item.object, &port.target) else { continue };
            let protocol =
                if target.protocol == Protocol::Undeclared { port.protocol } else { target.protocol };
            if !workload.ports.get_mut(slot).is_none_or(|port| port.lead(&name, protocol)) {
                crowded = Some(workload.reference.clone());
                continue;
            }
            found.extend(workload.endpoint(target.port, protocol));
            if protocol != *common.get_or_insert(protocol) {
                differing = Some(workload.reference.clone());
            }
        }
        let field = format!("spec.ports[{at}]");
        if let Some(crowded) = crowded {
            let message = format!("{MAX_ITEMS} Service ports lead to {crowded} already: this one does not");
            index.problems.warn(service.located, port.line, &field, message, "remove some Services");
        }
        if let Some(differing) = differing {
            let message = format!(
                "the Workloads do not agree on the protocol: {differing} differs from the first; calls count as {}",
                port.protocol
            );
            index.problems.warn(
                service.located,
                port.line,
                &field,
                message,
                "declare one appProtocol on all of them",
            );
            common = None;
        }
        if found.is_empty() && !numbers.is_empty() {
            let message = match &port.target {
                PortName::Number(number) => format!("no selected Workload has port {number}"),
                PortName::Name(name) => format!("no selected Workload has a port named {name:?}"),
            };
            let remedy = "add it to spec.ports of the Workloads, or correct targetPort";
            index.problems.warn(service.located, port.line, &format!("{field}.targetPort"), message, remedy);
        }
        self.protocols.insert(name.clone(), common.unwrap_or(port.protocol));
        self.endpoints.insert(name, found);
    }
}

/// The Workload's port that a Service port leads to, and its position.
fn target<'w>(workload: &'w Workload, wanted: &PortName) -> Option<(usize, &'w PortOfWorkload)> {
    let is_wanted = |port: &PortOfWorkload| match wanted {
        PortName::Number(number) => port.port == *number,
        PortName::Name(name) => port.name == *name,
    };
    workload.ports.iter().enumerate().find(|(_, port)| is_wanted(port))
}

fn workloads<'a>(index: &mut Index<'a>, settings: &Settings) -> Vec<SelectedWorkload<'a>> {
    let port = |port: &'a PortOfWorkload| SelectedPort {
        port: Cow::Borrowed(port),
        services: Vec::new(),
        protocol: port.protocol,
    };
    let mut found = Vec::with_capacity(index.workloads.len());
    for item in index.workloads.clone() {
        let object = item.object;
        let (namespace, account) = (&object.name.namespace, &object.service_account.value);
        let identity = match SpiffeId::service_account(&settings.trust_domain, namespace, account) {
            Ok(identity) => identity,
            Err(error) => {
                let line = object.service_account.line;
                let message = format!("no identity can be made of it: {error}");
                index.problems.refuse(
                    item.located,
                    line,
                    "spec.serviceAccount",
                    message,
                    "choose another name",
                );
                continue;
            }
        };
        found.push(SelectedWorkload {
            item,
            reference: WorkloadRef { namespace: Arc::clone(namespace), name: Arc::clone(&object.name.name) },
            identity,
            zone: object.labels.get(labels::ZONE).map_or("", String::as_str).into(),
            ports: object.ports.iter().map(port).collect(),
        });
    }
    found
}

//! Who stands at which address, where several say that they do.
//!
//! Services come first, for the cluster hands out their addresses; then pods, of which the nodes say where they are.
//! Workloads come last, whatever applied before: who may write one can claim any address.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use crate::{
    compile::index::{Index, Item},
    object::{Pod, Service, Workload},
};

/// What is wrong with a Workload's address.
struct Clash {
    line: u32,
    field: &'static str,
    message: String,
    remedy: &'static str,
}

const OWN: &str = "give every Workload an address of its own";

impl Pod {
    /// Of pods that say the same address the greatest has it: a node that is lost leaves its pods as they were, while
    /// their addresses are given to others. What is on a host has its address only where nobody else says so.
    fn claim(&self) -> (bool, &str, (&str, &str)) {
        (!self.on_host, &self.created, self.name.key())
    }
}

impl<'a> Index<'a> {
    /// Refuses who stands at the address of somebody else.
    pub(crate) fn drop_shared_addresses(&mut self) {
        let pods = self.pods_by_address();
        let services = self.services_by_address();
        let mut first: HashMap<IpAddr, Item<'a, Workload>> = HashMap::new();
        let mut served: HashMap<SocketAddr, Item<'a, Workload>> = HashMap::new();
        for workload in std::mem::take(&mut self.workloads) {
            let Some(ip) = workload.object.address.value.map(|ip| ip.to_canonical()) else {
                self.workloads.push(workload);
                continue;
            };
            let pod = pods.get(&ip).filter(|pod| !workload.is_pod() || pod.name != workload.object.name);
            let clash = match pod {
                Some(pod) => Some(with_pod(workload, ip, pod)),
                None if workload.is_pod() => None,
                None => with_port(workload, ip, &services, &served),
            };
            if let Some(Clash { line, field, message, remedy }) = clash {
                self.problems.conflict(workload.located, line, field, message, remedy);
                continue;
            }
            if !workload.is_pod() {
                served.extend(workload.object.ports.iter().map(|p| (SocketAddr::new(ip, p.port), workload)));
                if let Some(first) = first.insert(ip, workload) {
                    let message = format!("{} has the same address, at {}", first.reference(), first.place());
                    let remedy = format!("{OWN}, for two proxies cannot share one");
                    let line = workload.object.address.line;
                    self.problems.warn(workload.located, line, "spec.address", message, remedy);
                }
            }
            self.workloads.push(workload);
        }
    }

    fn pods_by_address(&self) -> HashMap<IpAddr, &'a Pod> {
        let mut found: HashMap<IpAddr, &'a Pod> = HashMap::with_capacity(self.pods.len());
        for pod in self.pods.values().copied() {
            for ip in &pod.addresses {
                let holder = found.entry(ip.to_canonical()).or_insert(pod);
                if pod.claim() > holder.claim() {
                    *holder = pod;
                }
            }
        }
        found
    }

    fn services_by_address(&self) -> HashMap<SocketAddr, Item<'a, Service>> {
        let of = |service: &Item<'a, Service>| {
            let service = *service;
            let ips = service.object.cluster_ips.iter().map(|ip| ip.to_canonical());
            ips.flat_map(move |ip| {
                service.object.ports.iter().map(move |port| (SocketAddr::new(ip, port.port), service))
            })
        };
        self.services.values().flat_map(of).collect()
    }
}

fn with_pod(workload: Item<'_, Workload>, ip: IpAddr, pod: &Pod) -> Clash {
    let (namespace, name) = pod.name.key();
    let line = workload.object.address.line;
    if workload.is_pod() {
        let message = format!("{ip} is the address of Pod {namespace}/{name} by now, which was made later");
        let remedy = "delete this pod, if it is gone with its node";
        return Clash { line, field: "status.podIP", message, remedy };
    }
    let message = format!("{ip} is the address of Pod {namespace}/{name}");
    Clash { line, field: "spec.address", message, remedy: OWN }
}

/// Two cannot serve one address and port.
fn with_port(
    workload: Item<'_, Workload>,
    ip: IpAddr,
    services: &HashMap<SocketAddr, Item<'_, Service>>,
    served: &HashMap<SocketAddr, Item<'_, Workload>>,
) -> Option<Clash> {
    workload.object.ports.iter().find_map(|port| {
        let at = SocketAddr::new(ip, port.port);
        let message = match (services.get(&at), served.get(&at)) {
            (Some(service), _) => {
                format!("{at} is a clusterIP of {}, at {}", service.reference(), service.place())
            }
            (None, Some(first)) => {
                format!("{at} is served by {} already, at {}", first.reference(), first.place())
            }
            (None, None) => return None,
        };
        Some(Clash { line: port.line, field: "spec.address", message, remedy: OWN })
    })
}

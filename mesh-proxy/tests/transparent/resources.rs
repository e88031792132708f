//! What the controller says: a client, a server behind two Services, and one that is outside the mesh.

use mesh_core::{
    addr::{EndpointAddr, OrigDst},
    config::{Destination, Endpoint, InboundPort, WorkloadConfig},
    name::{ObjectRef, ServicePort, WorkloadRef},
    policy::{DefaultAction, PolicySet, TlsMode},
    protocol::Protocol,
    resource::{DestinationKey, ResourceName},
    route::{Backend, RouteRule, ServiceRoutes},
};
use mesh_proto::convert::ResourceBody;
use mesh_testkit::control::FakeController;

use super::{SERVICE, SERVICE_V6};

pub(crate) fn resources(controller: &FakeController) {
    let web = ServicePort::new("shop", "web", 80);
    let workload = |name: &str, address: &str| WorkloadConfig {
        workload: WorkloadRef::new("shop", name),
        identity: controller.ca().id("shop", name),
        address: Some(address.parse().unwrap()),
        zone: "".into(),
        inbound: Vec::new(),
        upstreams: Vec::new(),
        policy: PolicySet {
            tls_mode: TlsMode::Permissive,
            default_action: DefaultAction::Allow,
            default_source: ObjectRef::new("Namespace", "", "shop"),
            rules: Vec::new(),
        },
    };
    let (client, mut server) = (workload("client", "10.99.1.2"), workload("server", "10.99.2.2"));
    server.inbound.push(InboundPort {
        port: 8080,
        name: "http".to_owned(),
        protocol: Protocol::Http1,
        app_address: None,
        services: vec![web],
        limits: mesh_core::settings::InboundLimits::default(),
        proxy_protocol: mesh_core::protocol::ProxyProtocol::default(),
    });
    let at =
        |address: &str| ResourceName::Destination(DestinationKey::Addr(OrigDst(address.parse().unwrap())));
    for (name, service, endpoint) in
        [("web", SERVICE, "10.99.2.2:8080"), ("web6", SERVICE_V6, "[fd99:2::2]:8080")]
    {
        let port = ServicePort::new("shop", name, 80);
        let endpoint = Endpoint {
            address: EndpointAddr(endpoint.parse().unwrap()),
            identity: Some(server.identity.clone()),
            workload: server.workload.clone(),
            protocol: Protocol::Http1,
            zone: "".into(),
        };
        let object = ObjectRef::new("Service", "shop", name);
        let rule = RouteRule::new(object, vec![Backend::new(port.clone(), 1)]);
        let routes = ServiceRoutes::new(port.clone(), Protocol::Http1, vec![rule]);
        controller.set(ResourceName::Endpoints(port), ResourceBody::Endpoints(vec![endpoint]));
        controller.set(at(service), ResourceBody::Destination(Destination::Service(routes)));
    }
    for config in [client, server] {
        controller.set_for(&config.workload.clone(), ResourceName::Workload, ResourceBody::Workload(config));
    }
    controller.set(at("10.99.2.1:9000"), ResourceBody::Destination(Destination::Passthrough));
}

//! Who takes part in the demo, on which addresses, and the YAML that says so.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use anyhow::bail;
use clap::ValueEnum;
use mesh_core::ports;

use super::transparent;

/// Holding this port on the controller's address claims the whole range 127.N.0.0/24 for one demo.
const CLAIM: u16 = 15_099;
/// Where every application gives its own counts.
pub(crate) const STATS: u16 = 9_090;
/// Last part of the controller's address.
const CONTROLLER: u8 = 1;
/// The range that the YAML of the example uses.
const RANGE: u8 = 77;
/// Where cart's sidecar takes connections to inventory.
pub(crate) const INVENTORY_UPSTREAM: u16 = 17_000;

/// A workload of the shop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// Name of the Workload.
    pub(crate) name: &'static str,
    /// Its service account.
    pub(crate) account: &'static str,
    /// Last part of its address.
    host: u8,
    /// Ports of its application; None: it serves nothing.
    serves: Option<Serves>,
}

/// Where an application listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Serves {
    /// Beside its sidecar, which has the port that is called.
    beside: u16,
    /// The port that is called.
    called: u16,
}

const fn member(name: &'static str, account: &'static str, host: u8, serves: Option<Serves>) -> Member {
    Member { name, account, host, serves }
}

const fn serves(beside: u16, called: u16) -> Option<Serves> {
    Some(Serves { beside, called })
}

impl Member {
    /// True if it is a service, and not only a caller.
    pub(crate) fn is_service(self) -> bool {
        self.serves.is_some()
    }
}

/// The generator of load.
pub(crate) const LOAD: Member = member("load", "load", 2, None);
/// The pages.
pub(crate) const STOREFRONT: Member = member("storefront", "storefront", 3, serves(9080, 8080));
/// The first version of the catalog.
pub(crate) const CATALOG_V1: Member = member("catalog-v1", "catalog", 4, serves(9080, 8080));
/// The second version of the catalog.
pub(crate) const CATALOG_V2: Member = member("catalog-v2", "catalog", 5, serves(9080, 8080));
/// The carts.
pub(crate) const CART: Member = member("cart", "cart", 6, serves(9070, 7070));
/// The stock.
pub(crate) const INVENTORY: Member = member("inventory", "inventory", 7, serves(9000, 7000));
/// The job that may not read carts.
pub(crate) const BATCH: Member = member("batch", "batch", 8, None);
/// All of them; each has a sidecar.
pub(crate) const MEMBERS: [Member; 7] = [LOAD, STOREFRONT, CATALOG_V1, CATALOG_V2, CART, INVENTORY, BATCH];

/// What the demo does wrong on purpose, to show that its checks would tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Break {
    /// Writes other weights than it claims.
    Split,
    /// Writes no rule about who may call cart.
    Policy,
    /// Lets the load go around its sidecar, in plaintext.
    Mtls,
}

/// The addresses of one demo.
#[derive(Debug)]
pub(crate) enum Net {
    /// Loopback addresses: 127.N.0.0/24.
    Loopback {
        /// N.
        range: u8,
        /// Held as long as the demo runs.
        _claim: TcpListener,
    },
    /// 10.77.0.0/24, within a network namespace of the demo's own.
    Namespaces,
}

impl Net {
    /// Takes the first range that nobody uses.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn claim() -> anyhow::Result<Self> {
        for range in RANGE..=250 {
            let ip = |host| Ipv4Addr::new(127, range, 0, host);
            let Ok(claim) = TcpListener::bind((ip(CONTROLLER), CLAIM)) else { continue };
            let net = Self::Loopback { range, _claim: claim };
            // Bound and closed again: a listener that never accepted leaves nothing behind.
            if net.listeners().iter().all(|address| TcpListener::bind(address).is_ok()) {
                return Ok(net);
            }
        }
        bail!(
            "no range of loopback addresses 127.{RANGE}.0.0/24 to 127.250.0.0/24 is free; \
             the demo needs Linux, where all of 127.0.0.0/8 is this machine"
        )
    }

    /// A port of a workload's address.
    pub(crate) fn at(&self, member: Member, port: u16) -> SocketAddr {
        (self.address(member.host), port).into()
    }

    fn address(&self, host: u8) -> IpAddr {
        let [first, second] = match self {
            Self::Loopback { range, .. } => [127, *range],
            Self::Namespaces => [10, RANGE],
        };
        Ipv4Addr::new(first, second, 0, host).into()
    }

    /// True if every workload has a network namespace of its own.
    pub(crate) fn is_transparent(&self) -> bool {
        match self {
            Self::Loopback { .. } => false,
            Self::Namespaces => true,
        }
    }

    /// Where an application listens; None: it is none.
    pub(crate) fn app(&self, member: Member) -> Option<SocketAddr> {
        let port = if self.is_transparent() { member.serves?.called } else { member.serves?.beside };
        Some(self.at(member, port))
    }

    /// Last part of a workload's address.
    pub(crate) fn host(&self, member: Member) -> u8 {
        member.host
    }

    /// The controller's address.
    pub(crate) fn controller_ip(&self) -> IpAddr {
        self.address(CONTROLLER)
    }

    /// A port of the controller's address.
    pub(crate) fn controller(&self, port: u16) -> SocketAddr {
        // Only loopback will do for what is not for sidecars.
        let ip = if self.is_transparent() && port != ports::CONTROL {
            Ipv4Addr::LOCALHOST.into()
        } else {
            self.controller_ip()
        };
        (ip, port).into()
    }

    /// The address of a workload, without port.
    pub(crate) fn ip(&self, member: Member) -> String {
        self.at(member, 0).ip().to_string()
    }

    /// Everything that listens while the demo runs, and must not after it.
    pub(crate) fn listeners(&self) -> Vec<SocketAddr> {
        let of_proxy = [ports::OUTBOUND, ports::ADMIN, ports::HEALTH];
        let sidecars = MEMBERS.iter().flat_map(|m| of_proxy.map(|port| self.at(*m, port)));
        let apps = MEMBERS.iter().filter_map(|m| self.app(*m).map(|app| (m, app)));
        let apps = apps.flat_map(|(m, app)| [app, self.at(*m, STATS)]);
        let controller = [ports::CONTROL, ports::VIEW, ports::CONTROLLER_HEALTH].map(|p| self.controller(p));
        sidecars.chain(apps).chain(controller).collect()
    }
}

/// Name of the file that holds the split.
pub(crate) const SPLIT_FILE: &str = "split.yaml";

/// The example's files, as they are in the repository.
const FILES: [(&str, &str); 5] = [
    ("namespace.yaml", include_str!("../../../examples/shop/mesh/namespace.yaml")),
    ("workloads.yaml", include_str!("../../../examples/shop/mesh/workloads.yaml")),
    ("services.yaml", include_str!("../../../examples/shop/mesh/services.yaml")),
    (SPLIT_FILE, include_str!("../../../examples/shop/mesh/split.yaml")),
    ("policy.yaml", include_str!("../../../examples/shop/mesh/policy.yaml")),
];

/// The files for this demo's addresses.
pub(crate) fn yaml(net: &Net, broken: Option<Break>) -> Vec<(&'static str, String)> {
    let place = |text: &str| match net {
        Net::Loopback { range, .. } => text.replace(&format!("127.{RANGE}.0."), &format!("127.{range}.0.")),
        Net::Namespaces => transparent::yaml(text).replace("127.", "10."),
    };
    FILES.iter().map(|(name, text)| (*name, damage(broken, name, place(text)))).collect()
}

fn damage(broken: Option<Break>, name: &str, text: String) -> String {
    match (broken, name) {
        (Some(Break::Split), SPLIT_FILE) => split_yaml(broken, 90, 10),
        // Without its sources nobody is named, and without the whole object nobody is refused.
        (Some(Break::Policy), "policy.yaml") => text
            .split("---\n")
            .filter(|object| !object.contains("storefront-to-cart"))
            .collect::<Vec<_>>()
            .join("---\n"),
        (Some(Break::Mtls), "namespace.yaml") => text
            .replace("meshctl.dev/mtls: strict", "meshctl.dev/mtls: permissive")
            .replace("meshctl.dev/default-policy: authenticated", "meshctl.dev/default-policy: allow"),
        _ => text,
    }
}

/// The split's file with other weights.
pub(crate) fn split_yaml(broken: Option<Break>, v1: u32, v2: u32) -> String {
    let (v1, v2) = if broken == Some(Break::Split) { (70, 30) } else { (v1, v2) };
    let text = FILES.iter().find(|(name, _)| *name == SPLIT_FILE).map_or("", |(_, text)| *text);
    let text =
        text.replace("weight: 90", &format!("weight: {v1}")).replace("weight: 10", &format!("weight: {v2}"));
    text.replace("90 go to version 1 and 10 to", &format!("{v1} go to version 1 and {v2} to"))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};
    use mesh_core::{
        addr::OrigDst,
        config::Destination,
        matching::RequestParts,
        policy::{Call, TlsMode, decide},
        resource::DestinationKey,
    };

    use super::*;

    #[test]
    fn two_demos_take_different_ranges() {
        let (first, second) = (Net::claim().unwrap(), Net::claim().unwrap());
        assert_ne!(first.controller_ip(), second.controller_ip());
        let text: String = yaml(&second, None).into_iter().map(|(_, text)| text).collect();
        for member in MEMBERS {
            let address = format!("address: {}\n", second.ip(member));
            assert!(text.contains(&address), "{address}");
        }
        assert!(!text.contains(&first.ip(CART)));
    }

    #[test]
    fn members_are_those_of_the_yaml() {
        let workloads = FILES[1].1;
        assert_eq!(workloads.matches("kind: Workload").count(), MEMBERS.len());
        for m in MEMBERS {
            let name = format!("metadata: {{name: {}, namespace: shop", m.name);
            let object = workloads.split("---\n").find(|object| object.contains(&name)).unwrap();
            assert!(object.contains(&format!("serviceAccount: {}\n", m.account)), "{object}");
            assert!(object.contains(&format!("address: 127.{RANGE}.0.{}\n", m.host)), "{object}");
            if let Some(Serves { beside, called }) = m.serves {
                assert!(object.contains(&format!("127.{RANGE}.0.{}:{beside}\"", m.host)), "{object}");
                assert!(object.contains(&format!(" port: {called},")), "{object}");
            }
        }
        assert!(workloads.contains(&format!("listenPort: {INVENTORY_UPSTREAM}")));
    }

    #[test]
    fn edits_change_what_they_say() {
        let moved = split_yaml(None, 50, 50);
        assert_eq!((moved.matches("weight: 50").count(), moved.matches("weight:").count()), (2, 2));
        assert!(split_yaml(Some(Break::Split), 90, 10).contains("weight: 70"));
        let policy = |broken| damage(broken, "policy.yaml", FILES[4].1.to_owned());
        assert!(policy(None).contains("storefront-to-cart"));
        let damaged = policy(Some(Break::Policy));
        assert!(!damaged.contains("storefront-to-cart") && damaged.contains("cart-to-inventory"));
        let namespace = damage(Some(Break::Mtls), "namespace.yaml", FILES[0].1.to_owned());
        assert!(namespace.contains("mtls: permissive") && namespace.contains("default-policy: allow"));
    }

    /// What the files say to the mesh. They must say it without a single remark.
    fn compiled(broken: Option<Break>) -> mesh_k8s::Compiled {
        let files = FILES.map(|(name, text)| (name, damage(broken, name, text.to_owned())));
        compile(&files)
    }

    fn compile(files: &[(&str, String)]) -> mesh_k8s::Compiled {
        let parsed: Vec<_> = files.iter().map(|(name, text)| mesh_k8s::parse(name, text)).collect();
        let settings = mesh_k8s::Settings {
            trust_domain: ports::DEFAULT_TRUST_DOMAIN.parse().unwrap(),
            cluster_domain: ports::DEFAULT_CLUSTER_DOMAIN.into(),
        };
        let problems: Vec<_> = parsed.iter().flat_map(|(_, problems, _)| problems).collect();
        assert!(problems.is_empty(), "{problems:#?}");
        let objects: Vec<_> = parsed.into_iter().flat_map(|(objects, ..)| objects).collect();
        let compiled = mesh_k8s::compile(&objects, &settings);
        assert!(compiled.problems.is_empty(), "{:#?}", compiled.problems);
        compiled
    }

    fn may_list_carts(compiled: &mesh_k8s::Compiled, account: &str) -> bool {
        let cart = &compiled.workloads[&"shop/cart".parse().unwrap()];
        let caller = format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().unwrap();
        let request = RequestParts {
            method: &Method::POST,
            path: "/shop.cart.v1.Cart/List",
            query: None,
            headers: &HeaderMap::new(),
            authority: None,
        };
        let call = Call { source: Some(&caller), port: 7070, request: Some(&request) };
        decide(&cart.policy, &call).is_allowed()
    }

    #[test]
    fn the_example_says_what_the_demo_claims() {
        let compiled = compiled(None);
        assert_eq!(compiled.workloads.len(), MEMBERS.len());
        assert!(may_list_carts(&compiled, "storefront") && !may_list_carts(&compiled, "batch"));
        let catalog = &compiled.services[&"shop/catalog:80".parse().unwrap()];
        let backends = catalog.rules.iter().flat_map(|rule| &rule.backends);
        let weights: Vec<_> = backends.map(|b| (b.service.name.to_string(), b.weight)).collect();
        assert_eq!(weights, [("catalog-v1".to_owned(), 90), ("catalog-v2".to_owned(), 10)]);
    }

    #[test]
    fn a_transparent_demo_is_the_same_shop_with_addresses() {
        let compiled = compile(&yaml(&Net::Namespaces, None));
        assert_eq!(compiled.workloads.len(), MEMBERS.len());
        assert!(may_list_carts(&compiled, "storefront") && !may_list_carts(&compiled, "batch"));
        for member in MEMBERS {
            let workload = &compiled.workloads[&format!("shop/{}", member.name).parse().unwrap()];
            assert_eq!(workload.address, Some(Net::Namespaces.at(member, 0).ip()));
            assert!(workload.upstreams.is_empty());
            let ports: Vec<_> = workload.inbound.iter().map(|port| (port.port, port.app_address)).collect();
            let app = Net::Namespaces.app(member).map(|app| (app.port(), None));
            assert_eq!(ports, app.into_iter().collect::<Vec<_>>());
        }
        let services = [
            (transparent::STOREFRONT, "shop/storefront:80"),
            (transparent::CATALOG, "shop/catalog:80"),
            (transparent::CART, "shop/cart:7070"),
            (transparent::INVENTORY, "shop/inventory:7000"),
        ];
        for (address, service) in services {
            let key = DestinationKey::Addr(OrigDst(address.parse().unwrap()));
            let Destination::Service(routes) = compiled.destination(&key, "shop").0 else {
                panic!("{address}")
            };
            assert_eq!(routes.service.to_string(), service);
        }
    }

    #[test]
    fn what_is_broken_on_purpose_is_valid_all_the_same() {
        assert!(may_list_carts(&compiled(Some(Break::Policy)), "batch"));
        let open = compiled(Some(Break::Mtls));
        assert!(open.workloads.values().all(|w| w.policy.tls_mode == TlsMode::Permissive));
        compiled(Some(Break::Split));
    }
}

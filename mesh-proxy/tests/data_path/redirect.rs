//! A test again in a network namespace of its own, where a firewall rule leads connections to the proxy.
//!
//! Needs root, `ip`, `nft` and `unshare`. Without root it says that it was left out, and fails in CI.

#![expect(clippy::print_stdout, reason = "says what was left out, and what the test inside said")]

use std::{
    io::Write as _,
    net::SocketAddr,
    process::{Command, Stdio},
};

use mesh_core::{
    addr::OrigDst,
    config::{Destination, Endpoint, WorkloadConfig},
    name::ServicePort,
    protocol::Protocol,
    resource::{DestinationKey, ResourceName},
    route::ServiceRoutes,
};
use mesh_proto::convert::ResourceBody;
use mesh_proxy::config::{Mode, Options};

use crate::mesh::{Mesh, Side, route_to};

/// Set where the test runs in its namespace.
const INSIDE: &str = "MESH_TEST_NAMESPACE";

/// Runs `test`, named `name` (`module::function`), in a namespace.
pub(crate) fn redirected<F: Future<Output = ()>>(name: &str, test: impl FnOnce() -> F) {
    if std::env::var_os(INSIDE).is_some() {
        run("ip", &["link", "set", "lo", "up"]);
        run("ip", &["route", "add", "10.96.0.0/16", "dev", "lo", "src", "127.0.0.1"]);
        rules(
            "table ip t { chain output { type nat hook output priority -100; \
             ip daddr 10.96.0.0/16 tcp dport != 0 redirect to :15001; }\n}",
        );
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        return runtime.unwrap().block_on(test());
    }
    let root =
        std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !root {
        assert!(std::env::var_os("CI").is_none(), "{name} needs root: CI must run as root");
        println!("LEFT OUT: {name} is not tested, for that needs root");
        return;
    }
    let own = std::env::current_exe().unwrap();
    let outcome = Command::new("unshare")
        .args(["--net", "--kill-child", "--fork", "--"])
        .arg(own)
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&[outcome.stdout, outcome.stderr].concat()).into_owned();
    assert!(outcome.status.success() && text.contains("1 passed"), "{text}");
    print!("{text}");
}

fn run(program: &str, args: &[&str]) {
    let outcome = Command::new(program).args(args).output().unwrap();
    assert!(outcome.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&outcome.stderr));
}

fn rules(text: &str) {
    let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    nft.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success(), "{text}");
}

impl Mesh {
    /// Starts a proxy to which connections to 10.96.0.0/16 are redirected.
    pub(crate) async fn transparent(
        &self,
        config: WorkloadConfig,
        change: impl FnOnce(&mut Options),
    ) -> Side {
        let health = SocketAddr::from((config.address.unwrap(), 15_020)).to_string();
        let transparent = |options: &mut Options| {
            options.mode = Mode::Transparent;
            options.address = None;
            options.health = Some(health);
            // Each test asks about new addresses, and the machine may be busy.
            options.discovery_wait = "30s".to_owned();
            change(options);
        };
        self.proxy(config, transparent).await
    }

    /// Gives a Service an address.
    pub(crate) fn at(&self, address: SocketAddr, routes: ServiceRoutes) {
        let key = DestinationKey::Addr(OrigDst(address));
        let body = ResourceBody::Destination(Destination::Service(routes));
        self.controller.set(ResourceName::Destination(key), body);
    }

    /// A Service with an address, whose calls all go to these endpoints.
    pub(crate) fn service_at(
        &self,
        address: SocketAddr,
        service: &ServicePort,
        protocol: Protocol,
        endpoints: &[Endpoint],
    ) {
        self.endpoints(service, endpoints);
        self.at(address, route_to(service, protocol, &[(service, 1)]));
    }
}

//! One HTTP/2 server, bare and behind two sidecars: prints both addresses, and serves until its standard input ends.
//! `cargo xtask h2spec` compares the two.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a tool for developers; what fails ends it")]

#[path = "../tests/data_path/mesh.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod mesh;

use std::io::Read as _;

use mesh_core::{config::Destination, protocol::Protocol};
use mesh_testkit::{app::HttpApp, net::fresh_addr};

use crate::mesh::{Pair, route_to};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let app = HttpApp::start("app", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http2, app.address(), |_| ()).await;
    let outbound = pair.client.proxy.addresses().outbound;
    // The client names the address that it calls.
    let routes = route_to(&pair.service, Protocol::Http2, &[(&pair.service, 1)]);
    pair.mesh.controller.set_host(&outbound.to_string(), Destination::Service(routes));
    println!("{} {outbound}", app.address());
    let _ = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await;
}

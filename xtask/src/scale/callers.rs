//! Peers of the server's proxy that do not pool: each connection is one of mutual TLS. They are the outbound half of
//! `examples/bare-pair`, with certificates of the client's service account.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::bench::arrange::{Places, certificates, socket, wait_for_ports};
use crate::bench::process::Process;

/// Where they listen. Several, for each needs two descriptors for a connection.
const ADDRESSES: [&str; 2] = ["127.9.4.2", "127.9.4.3"];
/// What an HTTP/1.1 connection between proxies is called.
const ALPN: &str = "mesh1-h1";

/// Starts them. What is sent to one of the addresses comes out of TLS connections to `peer`.
pub(super) fn start(places: &Places, peer: SocketAddr) -> Result<Vec<(Process, SocketAddr)>> {
    let (folder, data) = (&places.folder, places.folder.join("data"));
    // As the controller would sign it, but for a process that is no proxy.
    let issuer = data.join("ca").join("issuer");
    certificates::sign(folder, "client", &issuer)?;
    let read = |file| std::fs::read(file).context("cannot read a certificate back");
    let chain = [read(folder.join("client.pem"))?, read(issuer.with_extension("pem"))?].concat();
    std::fs::write(folder.join("client-chain.pem"), chain).context("cannot write a certificate's chain")?;
    let start = |ip: &str| {
        let entry = socket(ip, 15001)?;
        let mut command = Command::new(places.target.join("release").join("bare-pair"));
        command.args(["outbound", "--mode", "tcp", "--alpn", ALPN, "--listen", &entry.to_string()]);
        command.args(["--to", &peer.to_string(), "--peer", "spiffe://cluster.local/ns/bench/sa/server"]);
        command.arg("--cert").arg(folder.join("client-chain.pem"));
        command.arg("--key").arg(folder.join("client.key"));
        command.arg("--roots").arg(data.join("trust-bundle.pem"));
        let mut process = Process::start(&format!("caller-{ip}"), folder, &mut command)?;
        wait_for_ports(&mut process, ip, &[entry.port()])?;
        Ok((process, entry))
    };
    ADDRESSES.into_iter().map(start).collect()
}

//! What is on the wire between pods: a socket that hears all packets of a network namespace.
//!
//! Traffic within a pod is not there, nor need it be: an application and its sidecar are one pod.

use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socket_with, sockopt};
use serde_json::{Value, json};

use super::cluster::Cluster;
use crate::workspace;

/// All protocols (linux/if_ether.h), in network order.
const ETH_P_ALL: u32 = (0x0003_u16).to_be() as u32;
/// Addresses of pods begin with this.
const PODS: [u8; 2] = [10, 244];
/// What the shop's services say in plain text, at the start of a packet.
const PLAIN: [&[u8]; 5] = [b"GET ", b"POST ", b"HTTP/1.", b"PRI * HTTP/2", b"OK "];

/// Counts of one watch.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Packets with data from pod to pod.
    pub(super) packets: u64,
    /// Of these: those that begin with a TLS record.
    pub(super) tls: u64,
    /// Of these: those that begin with what is never in TLS.
    pub(super) plain: u64,
    /// The first of those.
    pub(super) sample: String,
}

/// A watch that runs.
pub(super) struct Sniffer {
    child: Child,
}

impl Sniffer {
    /// Watches the lab's node; None on another cluster.
    pub(super) fn start(cluster: &Cluster<'_>) -> Result<Option<Self>> {
        let Some(lab) = cluster.lab else { return Ok(None) };
        let own = workspace::target_directory()?.join("debug").join("xtask");
        let mut command: Command = lab.in_network(&own);
        command.args(["e2e", "--sniff"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(Some(Self { child: command.spawn().context("cannot start the watch of the network")? }))
    }

    /// Ends it.
    pub(super) fn stop(mut self) -> Result<Seen> {
        drop(self.child.stdin.take());
        let out = self.child.wait_with_output()?;
        ensure!(out.status.success(), "the watch of the network failed ({})", out.status);
        let seen: Value = serde_json::from_slice(&out.stdout)?;
        let number = |name: &str| seen[name].as_u64().unwrap_or_default();
        Ok(Seen {
            packets: number("packets"),
            tls: number("tls"),
            plain: number("plain"),
            sample: seen["sample"].as_str().unwrap_or_default().to_owned(),
        })
    }
}

/// Counts until standard input ends, and prints the counts as JSON.
pub(crate) fn watch() -> Result<()> {
    let protocol = rustix::net::Protocol::from_raw(
        rustix::net::RawProtocol::new(ETH_P_ALL).context("a protocol is not zero")?,
    );
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, Some(protocol))
        .context("cannot listen to all packets: is this root")?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(Duration::from_millis(100)))?;
    sockopt::set_socket_recv_buffer_size_force(&socket, 64 << 20)?;
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _read = std::io::stdin().read(&mut [0]);
        let _main_may_be_gone = ended.send(());
    });
    let mut seen = Seen::default();
    let mut buffer = vec![0; 65536];
    while end.try_recv().is_err() {
        match recv(&socket, &mut *buffer, RecvFlags::empty()) {
            Ok((length, _)) => seen.take(&buffer[..length.min(buffer.len())]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot read packets"),
        }
    }
    let Seen { packets, tls, plain, sample } = seen;
    let text = json!({"packets": packets, "tls": tls, "plain": plain, "sample": sample}).to_string();
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

impl Seen {
    /// Counts a packet that begins with an IPv4 header, if it has TCP data from one pod to another.
    fn take(&mut self, packet: &[u8]) {
        let Some((from, to, data)) = tcp(packet) else { return };
        // The first address of each range is the node's own, of which kubelet probes.
        let is_pod = |address: Ipv4Addr| address.octets()[..2] == PODS && address.octets()[3] != 1;
        if !is_pod(from) || !is_pod(to) || data.is_empty() {
            return;
        }
        self.packets += 1;
        if matches!(data, [0x14..=0x17, 3, 0..=4, ..]) {
            self.tls += 1;
        } else if PLAIN.iter().any(|start| data.starts_with(start)) {
            self.plain += 1;
            if self.sample.is_empty() {
                let start = String::from_utf8_lossy(&data[..data.len().min(60)]);
                self.sample = format!("{from} -> {to}: {}", start.escape_default());
            }
        }
    }
}

/// Addresses and data of a TCP packet (RFC 791, RFC 9293).
fn tcp(packet: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr, &[u8])> {
    let header = usize::from(packet.first()? & 15) * 4;
    let length = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
    if packet[0] >> 4 != 4 || *packet.get(9)? != 6 || header < 20 {
        return None;
    }
    let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
    // A packet that the kernel has yet to cut up says 0.
    let end = if length == 0 { packet.len() } else { length.min(packet.len()) };
    let segment = packet.get(header..end)?;
    let data = usize::from(segment.get(12)? >> 4) * 4;
    Some((address(12)?, address(16)?, segment.get(data..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(from: [u8; 4], to: [u8; 4], data: &[u8]) -> Vec<u8> {
        let length = u16::try_from(40 + data.len()).unwrap().to_be_bytes();
        let mut packet = vec![0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, 6, 0, 0];
        packet.extend(from);
        packet.extend(to);
        packet.extend([0; 12]);
        packet.extend([0x50, 0x18, 0, 0, 0, 0, 0, 0]);
        packet.extend(data);
        packet
    }

    #[test]
    fn packets_between_pods_are_told_apart() {
        let mut seen = Seen::default();
        let (a, b, node) = ([10, 244, 1, 2], [10, 244, 1, 3], [10, 244, 1, 1]);
        seen.take(&packet(a, b, &[0x17, 3, 3, 0, 9, 1, 2, 3]));
        seen.take(&packet(a, b, b"GET / HTTP/1.1\r\n"));
        seen.take(&packet(node, b, b"GET / HTTP/1.1\r\n"));
        seen.take(&packet(a, b, b""));
        seen.take(&[0x45]);
        seen.take(&[]);
        assert_eq!((seen.packets, seen.tls, seen.plain), (2, 1, 1));
        assert_eq!(seen.sample, "10.244.1.2 -> 10.244.1.3: GET / HTTP/1.1\\r\\n");
    }
}

//! What is intercepted, and which rules do that: a pure function.

use mesh_core::ports;

use super::{
    model::{Base, Chain, Hook, Is, Kind, Match, Rule, Table, Transport, Verdict},
    values::{Cgroup, Cidr, ClassId, Interface, Mark, PortRange},
};

/// Name of the only table that is touched.
pub(crate) const TABLE: &str = "mesh";
/// Chain that decides what the proxy itself sends.
const PROXY: &str = "proxy";
/// Priorities of the well-known places `raw`, `dstnat` and `filter`.
const RAW: i32 = -300;
const DSTNAT: i32 = -100;
const FILTER: i32 = 0;
/// Port of DNS.
const DNS: u16 = 53;

/// How senders are told apart: by what a socket has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Senders {
    pub(crate) users: Vec<u32>,
    pub(crate) groups: Vec<u32>,
    pub(crate) marks: Vec<Mark>,
    pub(crate) classes: Vec<ClassId>,
    pub(crate) cgroups: Vec<Cgroup>,
}

impl Senders {
    /// True if nobody is meant.
    pub(crate) fn is_empty(&self) -> bool {
        self.matches().next().is_none()
    }

    /// One condition for each.
    fn matches(&self) -> impl Iterator<Item = Match> {
        let users = self.users.iter().copied().map(Match::User);
        let groups = self.groups.iter().copied().map(Match::Group);
        let marks = self.marks.iter().copied().map(Match::Mark);
        let classes = self.classes.iter().map(|class| Match::ClassId(class.0));
        let cgroups = self.cgroups.iter().cloned().map(Match::Cgroup);
        users.chain(groups).chain(marks).chain(classes).chain(cgroups)
    }
}

/// What is intercepted and what is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The proxy itself.
    pub(crate) proxy: Senders,
    /// Others whose connections are left alone.
    pub(crate) skip: Senders,
    /// Where the proxy takes what the application sends.
    pub(crate) outbound: u16,
    /// Where the proxy takes what comes for the application.
    pub(crate) inbound: u16,
    /// Ports of the proxy that nobody outside may reach, beside those two.
    pub(crate) private: Vec<u16>,
    /// Destination ports that are left alone.
    pub(crate) skip_outbound_ports: Vec<PortRange>,
    /// Ports of the workload that are left alone.
    pub(crate) skip_inbound_ports: Vec<PortRange>,
    /// Destinations that are left alone.
    pub(crate) skip_outbound: Vec<Cidr>,
    /// Sources that are left alone.
    pub(crate) skip_inbound: Vec<Cidr>,
    /// Interfaces that are left alone, in both directions.
    pub(crate) skip_interfaces: Vec<Interface>,
    /// Where DNS questions of the application go; None: they are left alone.
    pub(crate) dns: Option<u16>,
}

impl Plan {
    /// The rules.
    pub(crate) fn table(&self) -> Table {
        let chains = vec![self.wire(), self.input(), self.prerouting(), self.own(), self.output()];
        Table { name: TABLE, chains }
    }

    /// What nobody may send from outside, whatever the host's routing allows.
    fn wire(&self) -> Chain {
        let why = "loopback is nobody else's";
        let outside = || Match::InInterface(Is::Not, Interface::loopback());
        let rules = loopback_networks()
            .map(|network| rule([outside(), Match::Destination(Is::Equal, network)], Verdict::Drop, why));
        let base = Base { kind: Kind::Filter, hook: Hook::Prerouting, priority: RAW };
        Chain { name: "wire", base: Some(base), rules: rules.into() }
    }

    /// The proxy's own ports are closed to others.
    fn input(&self) -> Chain {
        let mut rules = vec![rule(
            [Match::InInterface(Is::Equal, Interface::loopback())],
            Verdict::Accept,
            "from this host",
        )];
        let closed = |transport, port, verdict| {
            // The port that was called: a redirected connection comes by with the proxy's port, too.
            let when = [Match::Transport(transport), Match::Forth, Match::OriginalPort(port)];
            rule(when, verdict, "for this host only")
        };
        for port in self.private_ports() {
            rules.push(closed(Transport::Tcp, port, Verdict::Reset));
        }
        if let Some(port) = self.dns {
            rules.push(closed(Transport::Udp, port, Verdict::Drop));
        }
        let base = Base { kind: Kind::Filter, hook: Hook::Input, priority: FILTER };
        Chain { name: "input", base: Some(base), rules }
    }

    /// What comes in for the application goes to the proxy.
    fn prerouting(&self) -> Chain {
        let accept = |when, why| rule([when], Verdict::Accept, why);
        let tcp = |port| Match::Port(Transport::Tcp, port);
        let mut rules = vec![
            accept(Match::InInterface(Is::Equal, Interface::loopback()), "from this host"),
            accept(Match::DestinationIsLocal(Is::Not), "for others, routed through this host"),
        ];
        let interfaces = self.skip_interfaces.iter().cloned();
        rules.extend(interfaces.map(|name| accept(Match::InInterface(Is::Equal, name), "skipped interface")));
        let sources = self.skip_inbound.iter().copied();
        rules.extend(sources.map(|cidr| accept(Match::Source(Is::Equal, cidr), "skipped source")));
        rules.push(accept(tcp(PortRange::one(ports::HEALTH)), "health and metrics of the proxy"));
        let own = self.private_ports().map(|port| accept(tcp(PortRange::one(port)), "closed by chain input"));
        rules.extend(own);
        let skipped = self.skip_inbound_ports.iter().copied();
        rules.extend(skipped.map(|port| accept(tcp(port), "skipped port")));
        rules.push(rule([Match::Transport(Transport::Tcp)], Verdict::Redirect(self.inbound), "inbound"));
        let base = Base { kind: Kind::Nat, hook: Hook::Prerouting, priority: DSTNAT };
        Chain { name: "prerouting", base: Some(base), rules }
    }

    /// What the proxy sends goes out. Where it calls its own workload as one endpoint of a Service, it does so from a
    /// loopback address: that comes in again as any call does.
    fn own(&self) -> Chain {
        let to_itself = |network| {
            let when = [
                Match::OutInterface(Is::Equal, Interface::loopback()),
                Match::Source(Is::Equal, network),
                Match::Destination(Is::Not, network),
                Match::Transport(Transport::Tcp),
            ];
            rule(when, Verdict::Redirect(self.inbound), "its own workload, as an endpoint")
        };
        let mut rules: Vec<Rule> = loopback_networks().map(to_itself).into();
        rules.push(rule([], Verdict::Accept, "the proxy's own"));
        Chain { name: PROXY, base: None, rules }
    }

    /// What the application sends goes to the proxy.
    fn output(&self) -> Chain {
        let accept = |when, why| rule([when], Verdict::Accept, why);
        let mut rules = Vec::new();
        rules.extend(self.proxy.matches().map(|sender| rule([sender], Verdict::Jump(PROXY), "the proxy")));
        rules.extend(self.skip.matches().map(|sender| accept(sender, "skipped sender")));
        let interfaces = self.skip_interfaces.iter().cloned();
        rules
            .extend(interfaces.map(|name| accept(Match::OutInterface(Is::Equal, name), "skipped interface")));
        let cidrs = self.skip_outbound.iter().copied();
        rules.extend(cidrs.map(|cidr| accept(Match::Destination(Is::Equal, cidr), "skipped destination")));
        for port in self.skip_outbound_ports.iter().copied() {
            rules.push(accept(Match::Port(Transport::Tcp, port), "skipped port"));
            if self.dns.is_some() && port.contains(DNS) {
                rules.push(accept(Match::Port(Transport::Udp, port), "skipped port"));
            }
        }
        if let Some(to) = self.dns {
            for transport in [Transport::Udp, Transport::Tcp] {
                let question = Match::Port(transport, PortRange::one(DNS));
                rules.push(rule([question], Verdict::Redirect(to), "DNS"));
            }
        }
        let to_itself = Match::OutInterface(Is::Equal, Interface::loopback());
        rules.push(accept(to_itself, "the application to itself"));
        rules.push(rule([Match::Transport(Transport::Tcp)], Verdict::Redirect(self.outbound), "outbound"));
        let base = Base { kind: Kind::Nat, hook: Hook::Output, priority: DSTNAT };
        Chain { name: "output", base: Some(base), rules }
    }

    /// The proxy's ports that are closed to others, each once.
    fn private_ports(&self) -> impl Iterator<Item = u16> {
        let mut all = vec![self.outbound, self.inbound];
        all.extend(self.private.iter().copied());
        all.extend(self.dns);
        all.sort_unstable();
        all.dedup();
        all.into_iter()
    }
}

fn rule(when: impl Into<Vec<Match>>, then: Verdict, why: &'static str) -> Rule {
    Rule { when: when.into(), then, why }
}

/// The loopback networks of both families.
fn loopback_networks() -> [Cidr; 2] {
    let v4 = Cidr { address: [127, 0, 0, 0].into(), prefix: 8 };
    let v6 = Cidr { address: std::net::Ipv6Addr::LOCALHOST.into(), prefix: 128 };
    [v4, v6]
}

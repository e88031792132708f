//! Firewall rules as data: what both back-ends, netlink and text, are made of.
//!
//! It holds what interception needs of nf_tables and no more, so that each part has one text and one meaning.

use std::net::IpAddr;

use super::values::{Cgroup, Cidr, Interface, Mark, PortRange};

/// A table of the `inet` family, which sees IPv4 and IPv6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its chains; one that is jumped to stands before those that do it.
    pub(crate) chains: Vec<Chain>,
}

/// Rules in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    /// Its name.
    pub(crate) name: &'static str,
    /// Where packets come into it; None: by jumps only.
    pub(crate) base: Option<Base>,
    /// The first rule that matches and ends, ends.
    pub(crate) rules: Vec<Rule>,
}

/// Where packets come into a chain. What no rule decides is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    /// What its rules may do.
    pub(crate) kind: Kind,
    /// When packets come by.
    pub(crate) hook: Hook,
    /// Its place among the chains of the hook; lower comes first.
    pub(crate) priority: i32,
}

/// What the rules of a chain may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Change addresses; sees only the first packet of a connection.
    Nat,
    /// Refuse.
    Filter,
}

/// When packets come by a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// When they have come in.
    Prerouting,
    /// When they are found to be for this host.
    Input,
    /// When this host has made them.
    Output,
}

/// What is done to the packets that all conditions match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Conditions, all of which must hold.
    pub(crate) when: Vec<Match>,
    /// What then happens.
    pub(crate) then: Verdict,
    /// Why, as a comment that the kernel keeps: at most 120 bytes, without quotes.
    pub(crate) why: &'static str,
}

/// Whether a condition is for equality or against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Is {
    /// Equal, or within.
    Equal,
    /// The opposite.
    Not,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    /// The interface by which the packet came.
    InInterface(Is, Interface),
    /// The interface by which the packet leaves.
    OutInterface(Is, Interface),
    /// The transport protocol.
    Transport(Transport),
    /// The transport protocol, and the port the packet goes to.
    Port(Transport, PortRange),
    /// The source address.
    Source(Is, Cidr),
    /// The destination address.
    Destination(Is, Cidr),
    /// The destination address is one of this host's.
    DestinationIsLocal(Is),
    /// The user that opened the socket.
    User(u32),
    /// The group that opened the socket.
    Group(u32),
    /// The mark that the socket gave the packet.
    Mark(Mark),
    /// The net_cls class of the socket's cgroup (version 1).
    ClassId(u32),
    /// The cgroup (version 2) in which the socket was made, or an ancestor of that.
    Cgroup(Cgroup),
    /// The packet goes the way of its connection's first packet.
    Forth,
    /// The port to which the connection's first packet was sent, before any rule changed it.
    OriginalPort(u16),
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The chain is left; the packet goes on.
    Accept,
    /// It vanishes.
    Drop,
    /// It is answered with a TCP reset.
    Reset,
    /// Another chain decides; what that leaves open goes on here.
    Jump(&'static str),
    /// It goes to a port of this host: on loopback where this host made it, else on the address of the interface.
    Redirect(u16),
}

/// The version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl From<IpAddr> for Family {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

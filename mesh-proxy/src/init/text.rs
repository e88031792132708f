//! The rules as text for `nft -f`.

use std::fmt::{self, Display, Formatter};

use super::model::{Base, Chain, Family, Hook, Is, Kind, Match, Rule, Table, Transport, Verdict};

/// A table as a script that replaces it in one transaction, whether or not it was there.
pub(crate) struct Script<'a>(pub(crate) &'a Table);

impl Display for Script<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Table { name, chains } = self.0;
        write!(f, "add table inet {name}\ndelete table inet {name}\ntable inet {name} {{")?;
        for (index, chain) in chains.iter().enumerate() {
            f.write_str(if index == 0 { "\n" } else { "\n\n" })?;
            chain.fmt(f)?;
        }
        f.write_str("\n}\n")
    }
}

impl Display for Chain {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "\tchain {} {{", self.name)?;
        if let Some(Base { kind, hook, priority }) = self.base {
            let (kind, hook) = (kind.name(), hook.name());
            write!(f, "\n\t\ttype {kind} hook {hook} priority {priority}; policy accept;")?;
        }
        for rule in &self.rules {
            write!(f, "\n\t\t{rule}")?;
        }
        f.write_str("\n\t}")
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for condition in &self.when {
            write!(f, "{condition} ")?;
        }
        write!(f, "{} comment \"{}\"", self.then, self.why)
    }
}

impl Kind {
    /// Its name in nf_tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Filter => "filter",
        }
    }
}

impl Hook {
    fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Output => "output",
        }
    }
}

impl Display for Transport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Reset => f.write_str("reject with tcp reset"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Redirect(port) => write!(f, "redirect to :{port}"),
        }
    }
}

/// The sign of a comparison, with a space behind it where there is one.
fn sign(is: Is) -> &'static str {
    match is {
        Is::Equal => "",
        Is::Not => "!= ",
    }
}

impl Display for Match {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let address = |f: &mut Formatter<'_>, side, is, cidr: &super::values::Cidr| {
            let (ip, family) = match Family::from(cidr.address) {
                Family::V4 => ("ip", "ipv4"),
                Family::V6 => ("ip6", "ipv6"),
            };
            // All addresses of a family: nft would compare nothing with nothing.
            if cidr.prefix == 0 {
                return write!(f, "meta nfproto {}{family}", sign(is));
            }
            write!(f, "{ip} {side} {}{cidr}", sign(is))
        };
        match self {
            Self::InInterface(is, name) => write!(f, "iifname {}\"{name}\"", sign(*is)),
            Self::OutInterface(is, name) => write!(f, "oifname {}\"{name}\"", sign(*is)),
            Self::Transport(transport) => write!(f, "meta l4proto {transport}"),
            Self::Port(transport, range) => write!(f, "{transport} dport {range}"),
            Self::Source(is, cidr) => address(f, "saddr", *is, cidr),
            Self::Destination(is, cidr) => address(f, "daddr", *is, cidr),
            Self::DestinationIsLocal(is) => write!(f, "fib daddr type {}local", sign(*is)),
            Self::User(user) => write!(f, "meta skuid {user}"),
            Self::Group(group) => write!(f, "meta skgid {group}"),
            Self::Mark(mark) if mark.mask == u32::MAX => write!(f, "meta mark {mark}"),
            Self::Mark(mark) => write!(f, "meta mark & {:#010x} == {:#010x}", mark.mask, mark.value),
            Self::ClassId(class) => write!(f, "meta cgroup {class}"),
            Self::Cgroup(cgroup) => {
                write!(f, "socket cgroupv2 level {} \"{}\"", cgroup.level, cgroup.path.display())
            }
            Self::Forth => f.write_str("ct direction original"),
            Self::OriginalPort(port) => write!(f, "ct original proto-dst {port}"),
        }
    }
}

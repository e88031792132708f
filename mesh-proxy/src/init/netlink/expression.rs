//! What a rule is made of in the kernel: small steps with registers (`linux/netfilter/nf_tables.h`).
//!
//! The steps are those that nft itself writes for the same text: a test compares the two.

use super::{
    super::{
        model::{Family, Is, Match, Rule, Transport, Verdict},
        values::{Cidr, Interface, PortRange},
    },
    message::Attributes,
};

/// The register that verdicts go to, and the one that values go to.
const VERDICT: u32 = 0;
const VALUE: u32 = 1;

/// Comparisons.
const EQ: u32 = 0;
const NEQ: u32 = 1;
const LTE: u32 = 3;
const GTE: u32 = 5;

/// Keys of the expression `meta`.
const MARK: u32 = 3;
const IIFNAME: u32 = 6;
const OIFNAME: u32 = 7;
const SKUID: u32 = 10;
const SKGID: u32 = 11;
const NFPROTO: u32 = 15;
const L4PROTO: u32 = 16;
const CGROUP: u32 = 23;

/// Headers that the expression `payload` reads from.
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;

/// Space for the name of an interface.
const IFNAMSIZ: usize = 16;
/// A local address, in the routing table.
const RTN_LOCAL: u32 = 2;

/// Writes a rule's expressions, and knows what the rule has checked already: an address is read only from a packet
/// of its family, a port only from one of its protocol.
pub(super) struct Writer<'a> {
    out: &'a mut Attributes,
    family: Option<Family>,
    transport: Option<Transport>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(out: &'a mut Attributes) -> Self {
        Self { out, family: None, transport: None }
    }

    /// Writes all of a rule.
    pub(super) fn rule(&mut self, rule: &Rule) {
        for condition in &rule.when {
            self.condition(condition);
        }
        self.verdict(rule.then);
    }

    fn condition(&mut self, condition: &Match) {
        match condition {
            Match::InInterface(is, name) => self.interface(IIFNAME, *is, name),
            Match::OutInterface(is, name) => self.interface(OIFNAME, *is, name),
            Match::Transport(transport) => self.transport(*transport),
            Match::Port(transport, range) => self.port(*transport, *range),
            Match::Source(is, cidr) => self.address(*is, *cidr, (12, 8)),
            Match::Destination(is, cidr) => self.address(*is, *cidr, (16, 24)),
            Match::DestinationIsLocal(is) => {
                self.expression("fib", |data| {
                    // Result: the type; of the destination address.
                    data.number(1, VALUE).number(2, 3).number(3, 2);
                });
                self.compare(operator(*is), &RTN_LOCAL.to_ne_bytes());
            }
            Match::User(user) => self.meta(SKUID, EQ, &user.to_ne_bytes()),
            Match::Group(group) => self.meta(SKGID, EQ, &group.to_ne_bytes()),
            Match::Mark(mark) => {
                self.load(MARK);
                if mark.mask != u32::MAX {
                    self.mask(&mark.mask.to_ne_bytes());
                }
                self.compare(EQ, &mark.value.to_ne_bytes());
            }
            Match::ClassId(class) => self.meta(CGROUP, EQ, &class.to_ne_bytes()),
            Match::Cgroup(cgroup) => {
                self.expression("socket", |data| {
                    data.number(1, 3).number(2, VALUE).number(3, cgroup.level);
                });
                self.compare(EQ, &cgroup.id.to_ne_bytes());
            }
            Match::Forth => {
                self.expression("ct", |data| {
                    data.number(1, VALUE).number(2, 1);
                });
                self.compare(EQ, &[0]);
            }
            Match::OriginalPort(port) => {
                self.expression("ct", |data| {
                    // The destination port; of the way of the first packet.
                    data.number(1, VALUE).number(2, 12).bytes(3, &[0]);
                });
                self.compare(EQ, &port.to_be_bytes());
            }
        }
    }

    fn interface(&mut self, key: u32, is: Is, interface: &Interface) {
        let mut name = interface.name.clone().into_bytes();
        if !interface.is_prefix {
            name.resize(IFNAMSIZ, 0);
        }
        self.meta(key, operator(is), &name);
    }

    fn transport(&mut self, transport: Transport) {
        if self.transport.replace(transport) != Some(transport) {
            self.meta(L4PROTO, EQ, &[transport.number()]);
        }
    }

    fn port(&mut self, transport: Transport, range: PortRange) {
        self.transport(transport);
        self.payload(TRANSPORT, 2, 2);
        if range.first == range.last {
            return self.compare(EQ, &range.first.to_be_bytes());
        }
        self.compare(GTE, &range.first.to_be_bytes());
        self.compare(LTE, &range.last.to_be_bytes());
    }

    /// `offsets`: where the address stands in an IPv4 and in an IPv6 header.
    fn address(&mut self, is: Is, cidr: Cidr, offsets: (u32, u32)) {
        let family = Family::from(cidr.address);
        let number = match family {
            Family::V4 => 2,
            Family::V6 => 10,
        };
        if cidr.prefix == 0 {
            return self.meta(NFPROTO, operator(is), &[number]);
        }
        if self.family.replace(family) != Some(family) {
            self.meta(NFPROTO, EQ, &[number]);
        }
        let offset = match family {
            Family::V4 => offsets.0,
            Family::V6 => offsets.1,
        };
        let mut octets = cidr.octets();
        if cidr.prefix.is_multiple_of(8) {
            // Whole bytes can be compared without a mask.
            octets.truncate(usize::from(cidr.prefix / 8));
            self.payload(NETWORK, offset, u32::from(cidr.prefix / 8));
        } else {
            self.payload(NETWORK, offset, u32::from(cidr.bits() / 8));
            self.mask(&cidr.mask());
        }
        self.compare(operator(is), &octets);
    }

    fn verdict(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Accept => self.decide(1, None),
            Verdict::Drop => self.decide(0, None),
            Verdict::Jump(chain) => self.decide(-3, Some(chain)),
            Verdict::Reset => {
                self.transport(Transport::Tcp);
                self.expression("reject", |data| {
                    data.number(1, 1).bytes(2, &[0]);
                });
            }
            Verdict::Redirect(port) => {
                self.expression("immediate", |data| {
                    data.number(1, VALUE).nest(2, |data| {
                        data.bytes(1, &port.to_be_bytes());
                    });
                });
                self.expression("redir", |data| {
                    // A port is given (NF_NAT_RANGE_PROTO_SPECIFIED).
                    data.number(1, VALUE).number(3, 2);
                });
            }
        }
    }

    fn decide(&mut self, code: i32, chain: Option<&str>) {
        self.expression("immediate", |data| {
            data.number(1, VERDICT).nest(2, |data| {
                data.nest(2, |verdict| {
                    verdict.bytes(1, &code.to_be_bytes());
                    if let Some(chain) = chain {
                        verdict.text(2, chain);
                    }
                });
            });
        });
    }

    fn meta(&mut self, key: u32, operator: u32, value: &[u8]) {
        self.load(key);
        self.compare(operator, value);
    }

    fn load(&mut self, key: u32) {
        self.expression("meta", |data| {
            data.number(1, VALUE).number(2, key);
        });
    }

    fn payload(&mut self, header: u32, offset: u32, length: u32) {
        self.expression("payload", |data| {
            data.number(1, VALUE).number(2, header).number(3, offset).number(4, length);
        });
    }

    fn mask(&mut self, mask: &[u8]) {
        let length = u32::try_from(mask.len()).unwrap_or(u32::MAX);
        self.expression("bitwise", |data| {
            data.number(1, VALUE).number(2, VALUE).number(3, length);
            data.nest(4, |data| {
                data.bytes(1, mask);
            });
            data.nest(5, |data| {
                data.bytes(1, &vec![0; mask.len()]);
            });
        });
    }

    fn compare(&mut self, operator: u32, value: &[u8]) {
        self.expression("cmp", |data| {
            data.number(1, VALUE).number(2, operator).nest(3, |data| {
                data.bytes(1, value);
            });
        });
    }

    fn expression(&mut self, name: &str, fill: impl FnOnce(&mut Attributes)) {
        self.out.nest(1, |element| {
            element.text(1, name).nest(2, fill);
        });
    }
}

fn operator(is: Is) -> u32 {
    match is {
        Is::Equal => EQ,
        Is::Not => NEQ,
    }
}

impl Transport {
    fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

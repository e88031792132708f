//! Plans of every shape, and what their rules do: who is led where.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use clap::Parser;
use proptest::{collection::vec, option, prelude::*};

use super::{
    model::{Match, Table, Verdict},
    plan::{Plan, Senders},
    text::Script,
    values::{Cidr, ClassId, Interface, Mark, PortRange},
    *,
};

impl Plan {
    /// A plan without anything special.
    pub(super) fn sample() -> Self {
        Self {
            proxy: Senders { users: vec![1337], ..Senders::default() },
            skip: Senders::default(),
            outbound: 15001,
            inbound: 15006,
            private: vec![15000],
            skip_outbound_ports: Vec::new(),
            skip_inbound_ports: Vec::new(),
            skip_outbound: Vec::new(),
            skip_inbound: Vec::new(),
            skip_interfaces: Vec::new(),
            dns: None,
        }
    }
}

fn cidrs() -> impl Strategy<Value = Cidr> {
    let v4 = (any::<u32>(), 0..=32_u8).prop_map(|(bits, prefix)| {
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        Cidr { address: IpAddr::V4(Ipv4Addr::from(bits & mask)), prefix }
    });
    let v6 = (any::<u128>(), 0..=128_u8).prop_map(|(bits, prefix)| {
        let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
        Cidr { address: IpAddr::V6(Ipv6Addr::from(bits & mask)), prefix }
    });
    prop_oneof![v4, v6]
}

fn ports() -> impl Strategy<Value = PortRange> {
    (1_u16.., 1_u16..).prop_map(|(a, b)| PortRange { first: a.min(b), last: a.max(b) })
}

fn senders() -> impl Strategy<Value = Senders> {
    let marks = (1_u32.., any::<bool>())
        .prop_map(|(value, whole)| Mark { value, mask: if whole { u32::MAX } else { value } });
    (vec(any::<u32>(), 0..4), vec(any::<u32>(), 0..4), vec(marks, 0..4), vec(1_u32.., 0..4)).prop_map(
        |(users, groups, marks, classes)| Senders {
            users,
            groups,
            marks,
            classes: classes.into_iter().map(ClassId).collect(),
            cgroups: Vec::new(),
        },
    )
}

/// Plans of every shape.
pub(super) fn plans() -> impl Strategy<Value = Plan> {
    let interfaces = "[a-z][a-z0-9.-]{0,13}\\*?".prop_map(|name| name.parse::<Interface>().unwrap());
    let lists = (vec(ports(), 0..4), vec(ports(), 0..4), vec(cidrs(), 0..4), vec(cidrs(), 0..4));
    (senders(), senders(), lists, vec(interfaces, 0..3), option::of(1_u16..), vec(1_u16.., 0..3)).prop_map(
        |(proxy, skip, lists, skip_interfaces, dns, private)| Plan {
            proxy,
            skip,
            skip_outbound_ports: lists.0,
            skip_inbound_ports: lists.1,
            skip_outbound: lists.2,
            skip_inbound: lists.3,
            skip_interfaces,
            dns,
            private,
            ..Plan::sample()
        },
    )
}

/// Rules of one chain.
fn chain<'a>(table: &'a Table, name: &str) -> &'a [model::Rule] {
    &table.chains.iter().find(|chain| chain.name == name).unwrap().rules
}

proptest! {
    #[test]
    fn the_proxy_is_let_go_first_and_the_rest_is_caught_last(plan in plans()) {
        let table = plan.table();
        let output = chain(&table, "output");
        let jumps = output.iter().take_while(|rule| rule.then == Verdict::Jump("proxy")).count();
        let of_proxy = &plan.proxy;
        let identities = of_proxy.users.len() + of_proxy.groups.len() + of_proxy.marks.len()
            + of_proxy.classes.len() + of_proxy.cgroups.len();
        prop_assert_eq!(jumps, identities);
        prop_assert_eq!(output.last().unwrap().then, Verdict::Redirect(plan.outbound));
        prop_assert_eq!(chain(&table, "prerouting").last().unwrap().then, Verdict::Redirect(plan.inbound));
        // Every rule that leads somewhere is for TCP, or for DNS: other UDP is never touched.
        for rule in table.chains.iter().flat_map(|chain| &chain.rules) {
            let udp = rule.when.iter().any(|m| matches!(m, Match::Port(model::Transport::Udp, _)));
            if let (Verdict::Redirect(port), true) = (rule.then, udp) {
                prop_assert_eq!(Some(port), plan.dns);
            }
            prop_assert!(rule.why.len() <= 120 && !rule.why.contains('"'));
        }
    }

    #[test]
    fn a_network_is_what_it_prints(cidr in cidrs()) {
        prop_assert_eq!(cidr.to_string().parse::<Cidr>().unwrap(), cidr);
    }

    #[test]
    fn nothing_that_is_typed_is_a_panic(text in ".{0,40}") {
        let _ = (text.parse::<Cidr>(), text.parse::<PortRange>(), text.parse::<Mark>());
        let _ = (text.parse::<ClassId>(), text.parse::<Interface>());
    }
}

#[derive(Parser)]
struct Typed {
    #[command(flatten)]
    options: InitOptions,
}

fn typed(flags: &str) -> Result<InitOptions, String> {
    let words = std::iter::once("init").chain(flags.split_whitespace());
    Typed::try_parse_from(words).map(|typed| typed.options).map_err(|error| error.to_string())
}

#[test]
fn what_makes_no_sense_is_refused() {
    let refused = |flags: &str| match typed(flags).map(|options| run(&options)) {
        Ok(Err(error)) => {
            assert_eq!(error.exit_code(), 2);
            error.to_string()
        }
        Ok(Ok(text)) => panic!("{text}"),
        Err(error) => error,
    };
    assert!(refused("--print").contains("how is the proxy told from the workload?"));
    assert!(refused("--print --skip-uid 5").contains("how is the proxy told"));
    assert!(refused("--print --proxy-uid 5 --outbound-port 15006").contains("port 15006 is given to two"));
    assert!(refused("--print --proxy-uid 5 --dns-port 15001").contains("port 15001 is given to two"));
    assert!(refused("--proxy-uid 5 --skip-outbound-cidr 10.0.0.0/33").contains("32 bits"));
    assert!(refused("--proxy-uid root").contains("invalid value 'root' for '--proxy-uid <UID>'"));
    assert!(refused("--proxy-uid 5 --dns-port 0").contains("--dns-port"));
    assert!(refused("--print --proxy-cgroup nowhere").contains("expected the path of a cgroup"));
    let many = (1..=600).map(|port| port.to_string()).collect::<Vec<_>>().join(",");
    assert!(refused(&format!("--print --proxy-uid 5 --skip-inbound-port {many}")).contains("more than 500"));
}

#[test]
fn the_text_is_a_script_for_nft() {
    let text = Script(&Plan::sample().table()).to_string();
    assert!(text.starts_with("add table inet mesh\ndelete table inet mesh\ntable inet mesh {\n"), "{text}");
    for line in [
        "\t\tmeta skuid 1337 jump proxy comment \"the proxy\"\n",
        "\t\ttcp dport 15020 accept comment \"health and metrics of the proxy\"\n",
        "\t\tmeta l4proto tcp redirect to :15001 comment \"outbound\"\n",
        "\t\tmeta l4proto tcp redirect to :15006 comment \"inbound\"\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
    let remove = run(&typed("--remove --print").unwrap()).unwrap();
    assert_eq!(remove, "add table inet mesh\ndelete table inet mesh\n");
}

//! What the kernel has afterwards, as `nft` lists it.

use std::{fs, path::PathBuf};

use serde_json::Value;

use super::namespace::{Namespace, namespace};

/// Rules of somebody else, at the same places as ours.
const FOREIGN: &str = "\
table inet foreign {
    set ports { type inet_service; elements = { 22, 80 }; }
    chain output { type nat hook output priority -100; tcp dport @ports counter accept;
    }
    chain input { type filter hook input priority 0; policy drop; iifname \"lo\" accept;
    }
}
table ip mesh { chain prerouting { type nat hook prerouting priority -100; tcp dport 81 redirect to :82;
}
}
";

fn listed(namespace: &Namespace) -> String {
    let outcome = namespace.command("nft").args(["list", "ruleset"]).output().unwrap();
    assert!(outcome.status.success());
    String::from_utf8(outcome.stdout).unwrap()
}

/// All rules as the kernel has them, without handles, which only count.
fn kernel(namespace: &Namespace) -> Value {
    let outcome = namespace.command("nft").args(["-j", "list", "ruleset"]).output().unwrap();
    assert!(outcome.status.success(), "{}", String::from_utf8_lossy(&outcome.stderr));
    let mut all: Value = serde_json::from_slice(&outcome.stdout).unwrap();
    for item in all["nftables"].as_array_mut().unwrap() {
        for object in item.as_object_mut().unwrap().values_mut() {
            object.as_object_mut().unwrap().remove("handle");
        }
    }
    all
}

/// A cgroup (version 2) that ends with this.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let mut lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let mount = lines.find(|fields| fields.get(2) == Some(&"cgroup2"))?[1].to_owned();
        let path = PathBuf::from(mount).join(name);
        fs::create_dir(&path).ok()?;
        Some(Self(path))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn the_kernel_has_what_the_text_shows() {
    let Some(namespace) = namespace() else { return };
    let name = format!("mesh-test-{}", std::process::id());
    let cgroup = Cgroup::new(&name);
    let with_cgroup = format!("--proxy-cgroup /{name} --skip-cgroup /{name} --proxy-uid 5");
    let mut plans = vec![
        "--proxy-uid 1337".to_owned(),
        "--proxy-gid 0,7 --proxy-mark 5,0x500/0xff00 --proxy-classid 0x10001 --dns-port 15053".to_owned(),
        "--proxy-uid 1 --skip-uid 4294967295 --skip-gid 9 --skip-mark 0x63/0x7f --skip-classid 88".to_owned(),
        "--proxy-uid 1 --skip-outbound-port 80,90-100,50-60,1-65535 --skip-inbound-port 22,1000-1002 --dns-port 9"
            .to_owned(),
        "--proxy-uid 1 --skip-outbound-cidr 10.0.0.0/8,10.2.0.0/15,192.0.2.1,0.0.0.0/0,128.0.0.0/1".to_owned(),
        "--proxy-uid 1 --skip-outbound-cidr fd00::/8,fc00::/7,2001:db8::1,2001:db8:8000::/33,::/0".to_owned(),
        "--proxy-uid 1 --skip-inbound-cidr 10.0.0.0/9,fe80::/10,0.0.0.0/0 --skip-interface docker0,veth*,a".to_owned(),
        "--proxy-uid 1 --outbound-port 4000 --inbound-port 4001 --private-port 4002,4001".to_owned(),
    ];
    plans.extend(cgroup.is_some().then_some(with_cgroup));
    for flags in plans {
        let text = namespace.init(&format!("{flags} --print"));
        assert!(!listed(&namespace).contains("inet mesh"), "--print changes nothing");
        namespace.init(&flags);
        let by_netlink = kernel(&namespace);
        namespace.init("--remove");
        namespace.nft(&text);
        assert_eq!(by_netlink, kernel(&namespace), "{flags}\n{text}");
        assert!(by_netlink["nftables"].as_array().unwrap().len() > 15, "{by_netlink}");
        namespace.init("--remove");
    }
}

#[test]
fn again_is_the_same_and_removing_restores() {
    let Some(namespace) = namespace() else { return };
    namespace.nft(FOREIGN);
    let (before, before_text) = (kernel(&namespace), listed(&namespace));
    namespace.init("--remove");
    assert_eq!(listed(&namespace), before_text, "removing what is not there is no error, and does nothing");
    namespace.init("--proxy-uid 1337 --skip-inbound-port 22");
    let once = kernel(&namespace);
    namespace.init("--proxy-uid 1337 --skip-inbound-port 22");
    assert_eq!(kernel(&namespace), once, "twice is once");
    namespace.init("--proxy-uid 4242");
    let (other, text) = (kernel(&namespace), listed(&namespace));
    assert!(other != once && text.contains("skuid 4242") && !text.contains("1337"), "replaced: {text}");
    namespace.init("--remove");
    assert_eq!(listed(&namespace), before_text, "byte for byte");
    assert_eq!(kernel(&namespace), before);
    namespace.init("--remove");
}

/// What the init container of a pod is given.
#[test]
fn net_admin_is_enough() {
    let Some(namespace) = namespace() else { return };
    let flags = "--proxy-uid 1337 --skip-outbound-port 80,90-100 --skip-inbound-port 22 --skip-uid 9 \
                 --skip-outbound-cidr 10.0.0.0/8,fd00::/8";
    namespace.init(flags);
    let expected = kernel(&namespace);
    namespace.init("--remove");
    let only = ["--bounding-set=-all,+net_admin", "--inh-caps=-all,+net_admin", "--no-new-privs"];
    let alone = |program: &str| {
        let mut command = namespace.command("setpriv");
        command.args(only).arg(program);
        command
    };
    let has = alone("cat").arg("/proc/self/status").output().unwrap();
    let has = String::from_utf8(has.stdout).unwrap();
    // Number 12 of linux/capability.h.
    assert!(has.contains("CapEff:\t0000000000001000\nCapBnd:\t0000000000001000"), "{has}");
    // Twice: to replace a table is to read it too.
    for _ in 0..2 {
        let outcome = alone(env!("CARGO_BIN_EXE_mesh-proxy"))
            .arg("init")
            .args(flags.split_whitespace())
            .output()
            .unwrap();
        assert!(outcome.status.success(), "{}", String::from_utf8_lossy(&outcome.stderr));
        assert_eq!(kernel(&namespace), expected);
    }
}

#[test]
fn what_cannot_be_done_is_told_and_changes_nothing() {
    let Some(namespace) = namespace() else { return };
    let proxy = env!("CARGO_BIN_EXE_mesh-proxy");
    namespace.init("--proxy-uid 1337");
    let before = listed(&namespace);
    let outcome = namespace
        .command("setpriv")
        .args(["--reuid=65534", "--clear-groups", "--bounding-set=-all", proxy, "init", "--proxy-uid", "5"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&outcome.stderr).into_owned();
    assert_eq!(outcome.status.code(), Some(1), "{text}");
    assert!(text.contains("NET_ADMIN"), "{text}");
    for (flags, expected) in [
        ("", "how is the proxy told from the workload?"),
        (
            "--proxy-uid 1 --skip-outbound-cidr 10.0.0.0/40",
            "prefix length 40 is more than the address's 32 bits",
        ),
        ("--proxy-cgroup /there/is/none", "make it before the rules"),
        ("--proxy-uid 1 --outbound-port 15006", "port 15006 is given to two"),
    ] {
        let outcome = namespace.try_init(flags);
        let text = String::from_utf8_lossy(&outcome.stderr).into_owned();
        assert_eq!(outcome.status.code(), Some(2), "{flags}: {text}");
        assert!(text.contains(expected), "{flags}: {text}");
    }
    assert_eq!(listed(&namespace), before);
    // A table of the same name with a chain that somebody else jumps to is ours all the same: it is replaced whole.
    namespace.nft("table inet mesh {\nchain stray {\ncounter accept\n}\n}\n");
    namespace.init("--proxy-uid 1337");
    assert_eq!(listed(&namespace), before);
}

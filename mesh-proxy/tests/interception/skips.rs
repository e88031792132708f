//! Who is led where, by connections: every flag with a case that it changes, and one that it does not.
//!
//! ```text
//! pod: what stands at 15001 says "outbound", at 15006 "inbound", at 7000 "app"   outside: servers say "direct"
//!      10.77.1.2 fd77:1::2 (up0) ───────────────────────────────────────────── 10.77.1.1 fd77:1::1
//!      10.77.2.2           (side0) ─────────────────────────────────────────── 10.77.2.1
//! ```

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use rustix::{
    process::{Gid, Uid},
    thread::{set_thread_gid, set_thread_uid},
};
use socket2::{Domain, Protocol, Socket, Type};

use super::namespace::{Namespace, namespace};

/// How long one answer may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// The user that the proxy is said to have; no case of the application uses it.
pub(crate) const PROXY: u32 = 1337;

/// Who connects.
#[derive(Clone, Copy, Debug, Default)]
struct Who {
    user: u32,
    group: u32,
    mark: u32,
}

/// Answers every connection to `address` within a namespace with a word.
fn greet(namespace: &Namespace, address: &str, word: &'static str) {
    let address: SocketAddr = address.parse().unwrap();
    let listener = namespace.within(|| {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.set_reuse_address(true).unwrap();
        if address.is_ipv6() {
            socket.set_only_v6(true).unwrap();
        }
        socket.bind(&address.into()).unwrap_or_else(|error| panic!("{address}: {error}"));
        socket.listen(64).unwrap();
        TcpListener::from(socket)
    });
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(word.as_bytes()));
        }
    });
}

/// What answers there; "refused" or "silent" when nobody does.
fn call(namespace: &Namespace, who: Who, address: &str) -> String {
    let address: SocketAddr = address.parse().unwrap();
    namespace.within(|| {
        // The thread's own, and a socket belongs to who made it. Only root may mark one.
        set_thread_gid(Gid::from_raw(who.group)).unwrap();
        if who.mark == 0 {
            set_thread_uid(Uid::from_raw(who.user)).unwrap();
        }
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).unwrap();
        if who.mark != 0 {
            socket.set_mark(who.mark).unwrap();
        }
        match socket.connect_timeout(&address.into(), PATIENCE) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return "refused".to_owned(),
            Err(error) => return format!("{error}"),
        }
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut text = String::new();
        match stream.read_to_string(&mut text) {
            Ok(_) => text,
            Err(error) => format!("silent: {error}"),
        }
    })
}

/// The two namespaces, with everything that answers.
pub(crate) fn place() -> Option<(Namespace, Namespace)> {
    let (pod, outside) = (namespace()?, namespace()?);
    for (number, end) in [(1, "up0"), (2, "side0")] {
        outside.link(&format!("out{number}"), &pod, end);
        outside.ip(&format!("addr add 10.77.{number}.1/24 dev out{number}"));
        outside.ip(&format!("addr add fd77:{number}::1/64 dev out{number} nodad"));
        outside.ip(&format!("link set out{number} up"));
        pod.ip(&format!("addr add 10.77.{number}.2/24 dev {end}"));
        pod.ip(&format!("addr add fd77:{number}::2/64 dev {end} nodad"));
        pod.ip(&format!("link set {end} up"));
    }
    pod.ip("route add default via 10.77.1.1");
    for any in ["0.0.0.0", "[::]"] {
        for port in [80, 90, 53, 15001] {
            greet(&outside, &format!("{any}:{port}"), "direct");
        }
        greet(&pod, &format!("{any}:15006"), "inbound");
        greet(&pod, &format!("{any}:7000"), "app");
        greet(&pod, &format!("{any}:7001"), "app");
        greet(&pod, &format!("{any}:15020"), "health");
        greet(&pod, &format!("{any}:15053"), "dns");
    }
    for loopback in ["127.0.0.1", "[::1]"] {
        greet(&pod, &format!("{loopback}:15001"), "outbound");
        greet(&pod, &format!("{loopback}:15000"), "admin");
        greet(&pod, &format!("{loopback}:9999"), "private");
    }
    Some((pod, outside))
}

const APP: Who = Who { user: 65534, group: 65534, mark: 0 };

#[test]
fn what_goes_out_is_led_to_the_proxy_but_for_the_skips() {
    let Some((pod, _outside)) = place() else { return };
    let by = |user, group, mark| Who { user, group, mark };
    let v4 = "10.77.1.1:80";
    let v6 = "[fd77:1::1]:80";
    // Flags; who; where to; who answers with the flags.
    let cases = [
        ("", APP, v4, "outbound"),
        ("", APP, v6, "outbound"),
        ("", by(PROXY, 1, 0), v4, "direct"),
        ("", by(PROXY, 1, 0), v6, "direct"),
        // To its own host, by whatever address.
        ("", APP, "127.0.0.1:9999", "private"),
        ("", APP, "[::1]:9999", "private"),
        ("", APP, "10.77.1.2:7000", "app"),
        ("", APP, "[fd77:1::2]:7000", "app"),
        // An address that nobody has: the proxy takes it all the same.
        ("", APP, "10.96.0.1:443", "outbound"),
        ("--proxy-gid 77", by(5, 77, 0), v4, "direct"),
        ("--proxy-gid 77", by(5, 78, 0), v4, "outbound"),
        ("--proxy-mark 0x539", by(0, 0, 0x539), v4, "direct"),
        ("--proxy-mark 0x539", by(0, 0, 0x53a), v6, "outbound"),
        ("--proxy-mark 0x500/0xff00", by(0, 0, 0x5ab), v6, "direct"),
        ("--skip-uid 70,71", by(71, 1, 0), v4, "direct"),
        ("--skip-uid 70,71", by(72, 1, 0), v4, "outbound"),
        ("--skip-gid 80", by(72, 80, 0), v6, "direct"),
        ("--skip-mark 9", by(0, 0, 9), v4, "direct"),
        ("--skip-mark 9", by(0, 0, 8), v4, "outbound"),
        ("--skip-outbound-port 85-95", APP, "10.77.1.1:90", "direct"),
        ("--skip-outbound-port 85-95", APP, "[fd77:1::1]:90", "direct"),
        ("--skip-outbound-port 85-95", APP, v4, "outbound"),
        ("--skip-outbound-cidr 10.77.1.0/24", APP, v4, "direct"),
        ("--skip-outbound-cidr 10.77.1.0/24", APP, "10.77.2.1:80", "outbound"),
        ("--skip-outbound-cidr 10.77.0.0/23", APP, v4, "direct"),
        ("--skip-outbound-cidr 10.77.0.0/23", APP, "10.77.2.1:80", "outbound"),
        ("--skip-outbound-cidr fd77:1::/33", APP, v6, "direct"),
        ("--skip-outbound-cidr ::/0", APP, v6, "direct"),
        ("--skip-outbound-cidr ::/0", APP, v4, "outbound"),
        ("--skip-interface side0", APP, "10.77.2.1:80", "direct"),
        ("--skip-interface sid*", APP, "[fd77:2::1]:80", "direct"),
        ("--skip-interface side0", APP, v4, "outbound"),
        ("--dns-port 15053", APP, "10.77.1.1:53", "dns"),
        ("--dns-port 15053", APP, "[fd77:1::1]:53", "dns"),
        ("--dns-port 15053", by(PROXY, 1, 0), "10.77.1.1:53", "direct"),
        ("--dns-port 15053 --skip-outbound-port 53", APP, "10.77.1.1:53", "direct"),
        ("", APP, "10.77.1.1:53", "outbound"),
    ];
    let mut last = None;
    for (flags, who, to, expected) in cases {
        if last.replace(flags) != Some(flags) {
            pod.init(&format!("--proxy-uid {PROXY} {flags}"));
        }
        assert_eq!(call(&pod, who, to), expected, "{flags:?}: {who:?} calls {to}");
    }
    pod.init("--remove");
    assert_eq!(call(&pod, APP, v4), "direct", "removed");
}

#[test]
fn what_comes_in_is_led_to_the_proxy_but_for_the_skips() {
    let Some((pod, outside)) = place() else { return };
    let cases = [
        ("", "10.77.1.2:7000", "inbound"),
        ("", "[fd77:1::2]:7000", "inbound"),
        ("", "10.77.1.2:4444", "inbound"),
        // What is bound to loopback: the proxy takes it, which dials the address that was called.
        ("", "10.77.1.2:9999", "inbound"),
        ("", "10.77.1.2:15020", "health"),
        ("", "[fd77:1::2]:15020", "health"),
        ("", "10.77.1.2:15000", "refused"),
        ("", "10.77.1.2:15001", "refused"),
        ("", "10.77.1.2:15006", "refused"),
        ("", "[fd77:1::2]:15000", "refused"),
        ("", "[fd77:1::2]:15001", "refused"),
        ("", "[fd77:1::2]:15006", "refused"),
        ("--skip-inbound-port 7000-7001", "10.77.1.2:7001", "app"),
        ("--skip-inbound-port 7001", "10.77.1.2:7000", "inbound"),
        ("--skip-inbound-port 9999", "10.77.1.2:9999", "refused"),
        ("--skip-inbound-cidr 10.77.1.0/24", "10.77.1.2:7000", "app"),
        ("--skip-inbound-cidr 10.77.1.0/24", "10.77.2.2:7000", "inbound"),
        ("--skip-inbound-cidr 10.77.1.0/24", "10.77.1.2:15006", "refused"),
        ("--skip-inbound-cidr fd77:1::/64", "[fd77:1::2]:7000", "app"),
        ("--skip-interface side0", "10.77.2.2:7000", "app"),
        ("--skip-interface side0", "10.77.2.2:15001", "refused"),
        ("--skip-interface side0", "10.77.1.2:7000", "inbound"),
        ("--dns-port 15053", "10.77.1.2:15053", "refused"),
        ("--private-port 7001", "10.77.1.2:7001", "refused"),
        ("--inbound-port 7000 --outbound-port 7001", "10.77.1.2:8000", "app"),
        ("--inbound-port 7000 --outbound-port 7001", "10.77.1.2:7000", "refused"),
    ];
    let mut last = None;
    for (flags, to, expected) in cases {
        if last.replace(flags) != Some(flags) {
            pod.init(&format!("--proxy-uid {PROXY} {flags}"));
        }
        assert_eq!(call(&outside, Who::default(), to), expected, "{flags:?}: a call to {to}");
    }
    pod.init("--remove");
    assert_eq!(call(&outside, Who::default(), "10.77.1.2:7000"), "app", "removed");
}

/// Runs a shell in the pod, within a cgroup that the script makes, and returns what it prints.
fn in_cgroup(pod: &Namespace, script: &str) -> String {
    let outcome = pod.command("unshare").args(["--mount", "sh", "-ec", script]).output().unwrap();
    String::from_utf8_lossy(&[outcome.stdout, outcome.stderr].concat()).trim().to_owned()
}

#[test]
fn cgroups_of_both_versions_tell_the_proxy() {
    let Some((pod, _outside)) = place() else { return };
    let name = format!("mesh-skip-{}", std::process::id());
    // Without an interpreter that reads from sockets: bash, which Debian has.
    let ask = "exec bash -c 'exec 3<>/dev/tcp/10.77.1.1/80; cat <&3'";
    pod.init(&format!("--proxy-uid {PROXY}"));
    assert_eq!(in_cgroup(&pod, ask), "outbound");

    let root = "root=$(awk '$3 == \"cgroup2\" {print $2; exit}' /proc/mounts); test -n \"$root\"";
    let made = in_cgroup(&pod, &format!("{root}; mkdir -p $root/{name}/inner; echo made"));
    if made == "made" {
        pod.init(&format!("--proxy-cgroup /{name}"));
        let enter = |group: &str| format!("{root}; echo $$ > $root/{group}/cgroup.procs; {ask}");
        assert_eq!(in_cgroup(&pod, &enter(&name)), "direct");
        assert_eq!(in_cgroup(&pod, &enter(&format!("{name}/inner"))), "direct", "a cgroup within it");
        assert_eq!(in_cgroup(&pod, ask), "outbound");
        pod.init(&format!("--proxy-uid {PROXY} --skip-cgroup /{name}/inner"));
        assert_eq!(in_cgroup(&pod, &enter(&name)), "outbound");
        assert_eq!(in_cgroup(&pod, &enter(&format!("{name}/inner"))), "direct");
        let _ = in_cgroup(&pod, &format!("{root}; rmdir $root/{name}/inner $root/{name}"));
    } else {
        left_out("cgroups of version 2", &made);
    }

    let mount = "dir=$(mktemp -d); mount -t cgroup -o net_cls none $dir";
    let class = format!("{mount}; mkdir -p $dir/{name}; echo 0x100042 > $dir/{name}/net_cls.classid");
    let made = in_cgroup(&pod, &format!("{class}; echo made"));
    if made == "made" {
        let enter = format!("{class}; echo $$ > $dir/{name}/cgroup.procs; {ask}");
        pod.init("--proxy-classid 0x100042");
        assert_eq!(in_cgroup(&pod, &enter), "direct");
        assert_eq!(in_cgroup(&pod, ask), "outbound");
        pod.init(&format!("--proxy-uid {PROXY} --skip-classid 0x100043"));
        assert_eq!(in_cgroup(&pod, &enter), "outbound");
        let _ = in_cgroup(&pod, &format!("{mount}; rmdir $dir/{name}"));
    } else {
        left_out("cgroups of version 1", &made);
    }
}

#[expect(clippy::print_stdout, reason = "whoever runs the tests must see it")]
fn left_out(what: &str, why: &str) {
    println!("LEFT OUT: {what} are not tested, for this machine has none: {why}");
}

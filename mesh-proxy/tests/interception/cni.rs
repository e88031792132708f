//! The CNI plugin: the real program under its other name, with an agent that is told what to say; and the proxy that
//! expects rules.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::namespace::{Namespace, namespace};

/// The plugin where runtimes look for it, and where its agent is to be.
struct Node {
    folder: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut install = Command::new(env!("CARGO_BIN_EXE_mesh-proxy"));
        let installed = install.args(["cni-install", "--bin"]).arg(folder.path()).output().unwrap();
        assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
        Self { folder }
    }

    fn plugin(&self) -> PathBuf {
        self.folder.path().join("mesh-cni")
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    /// Answers one question with this line, and returns the question.
    fn agent(&self, answer: &str) -> std::thread::JoinHandle<Value> {
        let listener = UnixListener::bind(self.socket()).unwrap();
        let (answer, socket) = (answer.to_owned(), self.socket());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut question = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut question).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            fs::remove_file(socket).unwrap();
            serde_json::from_str(&question).unwrap()
        })
    }

    fn entry(&self) -> Value {
        json!({ "cniVersion": "0.4.0", "name": "net", "type": "mesh-cni", "socket": self.socket(),
            "exclude": ["kube-system"], "prevResult": { "cniVersion": "0.4.0", "ips": [{ "version": "4", "address": "10.0.0.2/24" }] } })
    }

    /// Calls the plugin as a runtime does.
    fn call(&self, command: &str, netns: &str, pod_namespace: &str, input: &[u8]) -> Output {
        let mut plugin = Command::new(self.plugin());
        plugin.env("CNI_COMMAND", command).env("CNI_CONTAINERID", "c").env("CNI_IFNAME", "eth0");
        plugin.env("CNI_NETNS", netns).env("CNI_PATH", self.folder.path());
        let pod =
            format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={pod_namespace};K8S_POD_NAME=cart;K8S_POD_UID=u");
        plugin.env("CNI_ARGS", pod).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = plugin.spawn().unwrap();
        // It may refuse before it has read all of it.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    fn add(&self, netns: &str) -> Output {
        self.call("ADD", netns, "shop", self.entry().to_string().as_bytes())
    }
}

const RULES: &str = "{\"args\":[\"--proxy-uid\",\"1337\",\"--skip-inbound-port\",\"22\"]}\n";

fn table(namespace: &Namespace) -> String {
    let listed = namespace.command("nft").args(["list", "ruleset"]).output().unwrap();
    String::from_utf8(listed.stdout).unwrap()
}

fn json_of(output: &Output) -> Value {
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

/// The code of CNI, and the message, of a call that must have failed.
fn refused(output: &Output) -> (u64, String) {
    assert!(!output.status.success(), "{output:?}");
    let json = json_of(output);
    let text = |field: &str| json[field].as_str().unwrap().to_owned();
    (json["code"].as_u64().unwrap(), format!("{}; {}", text("msg"), text("details")))
}

#[test]
fn a_pod_of_the_mesh_gets_its_rules_and_others_do_not() {
    let Some(pod) = namespace() else { return };
    let node = Node::new();
    let agent = node.agent(RULES);
    let added = node.add(&pod.path());
    assert!(added.status.success(), "{added:?}");
    assert_eq!(json_of(&added), node.entry()["prevResult"], "what others made is passed on");
    assert_eq!(agent.join().unwrap(), json!({ "namespace": "shop", "name": "cart", "uid": "u" }));
    let with_rules = table(&pod);
    assert!(with_rules.contains("skuid 1337") && with_rules.contains("dport 22"), "{with_rules}");

    let check = |agent: &str| {
        let agent = node.agent(agent);
        let outcome = node.call("CHECK", &pod.path(), "shop", node.entry().to_string().as_bytes());
        agent.join().unwrap();
        outcome
    };
    let checked = check(RULES);
    assert!(checked.status.success() && checked.stdout.is_empty(), "{checked:?}");
    pod.nft("flush chain inet mesh output");
    let (code, message) = refused(&check(RULES));
    assert!(code == 100 && message.contains("was changed"), "{code} {message}");
    pod.nft("delete table inet mesh");
    assert!(refused(&check(RULES)).1.contains("is missing"));
    assert!(check("{\"skip\":\"it has no proxy\"}\n").status.success());

    let agent = node.agent("{\"skip\":\"it has no proxy\"}\n");
    assert!(node.add(&pod.path()).status.success());
    agent.join().unwrap();
    assert_eq!(table(&pod), "", "not of the mesh");
    let excluded = node.call("ADD", &pod.path(), "kube-system", node.entry().to_string().as_bytes());
    assert!(excluded.status.success(), "no agent is needed: {excluded:?}");
    let deleted = node.call("DEL", "", "shop", b"{}");
    assert!(!deleted.status.success(), "DEL needs a configuration, too");
    assert!(node.call("DEL", "", "shop", node.entry().to_string().as_bytes()).status.success());
}

#[test]
fn a_pod_of_which_nothing_is_known_does_not_start() {
    let Some(pod) = namespace() else { return };
    let node = Node::new();
    let (code, message) = refused(&node.add(&pod.path()));
    assert_eq!(code, 11, "try again later");
    assert!(message.contains("pod shop/cart cannot be started yet"), "{message}");
    assert!(message.contains("DaemonSet mesh-cni"), "{message}");
    // What a crash leaves is no agent either.
    drop(UnixListener::bind(node.socket()).unwrap());
    assert_eq!(refused(&node.add(&pod.path())).0, 11);
    fs::remove_file(node.socket()).unwrap();

    let cases = [
        ("{\"error\":\"the API server is away\"}\n", 11, "the API server is away"),
        ("", 11, "cut off"),
        ("{\"args\":[\"--proxy-uid\",\"1337\"]}", 11, "cut off"),
        ("garbage\n", 11, "not understood"),
        ("{\"args\":[]}\n", 100, "how is the proxy told"),
        ("{\"args\":[\"--proxy-uid\",\"x\"]}\n", 100, "invalid value 'x'"),
        ("{\"args\":[\"--proxy-uid\",\"1\",\"--remove\"]}\n", 100, "--remove"),
    ];
    for (answer, expected, text) in cases {
        let agent = node.agent(answer);
        let (code, message) = refused(&node.add(&pod.path()));
        agent.join().unwrap();
        assert!(code == expected && message.contains(text), "{answer}: {code} {message}");
    }
    assert_eq!(table(&pod), "");
}

#[test]
fn the_nodes_own_network_is_never_touched() {
    let Some(pod) = namespace() else { return };
    let node = Node::new();
    // The plugin runs in the namespace that it is told to change: nothing else is at stake.
    let agent = node.agent(RULES);
    let own = pod.within(|| node.add("/proc/self/ns/net"));
    agent.join().unwrap();
    let (code, message) = refused(&own);
    assert!(code == 4 && message.contains("the node itself"), "{code} {message}");
    assert_eq!(table(&pod), "");
    for (path, text) in [("/nowhere", "No such file"), ("/proc/self/status", "cannot enter")] {
        let agent = node.agent(RULES);
        let (code, message) = refused(&node.add(path));
        agent.join().unwrap();
        assert!(code == 5 && message.contains(text), "{path}: {code} {message}");
    }
}

#[test]
fn garbage_is_refused_and_versions_are_told() {
    let node = Node::new();
    let mut huge = node.entry();
    huge["fill"] = Value::from("x".repeat(2_000_000));
    let inputs = ["", "{", "[]", "null", "\u{0}", &huge.to_string()];
    for input in inputs {
        let (code, _) = refused(&node.call("ADD", "/nowhere", "shop", input.as_bytes()));
        assert_eq!(code, 6, "{}", &input[..input.len().min(20)]);
    }
    assert_eq!(refused(&node.call("ADD", "/nowhere", "../..", node.entry().to_string().as_bytes())).0, 4);
    let versions = json_of(&node.call("VERSION", "", "shop", b"{\"cniVersion\":\"1.1.0\"}"));
    let known: Vec<&str> =
        versions["supportedVersions"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(known, ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
}

#[test]
fn an_installation_replaces_what_runs() {
    let node = Node::new();
    // Open, as one that runs is: a file that was written to would change under it.
    let running = fs::File::open(node.plugin()).unwrap();
    fs::write(node.folder.path().join(".mesh-cni.new"), "cut short").unwrap();
    let mut install = Command::new(env!("CARGO_BIN_EXE_mesh-proxy"));
    let again = install.args(["cni-install", "--bin"]).arg(node.folder.path()).output().unwrap();
    assert!(again.status.success());
    let inode = |meta: &fs::Metadata| std::os::unix::fs::MetadataExt::ino(meta);
    assert_ne!(inode(&running.metadata().unwrap()), inode(&fs::metadata(node.plugin()).unwrap()));
    assert_eq!(fs::read_dir(node.folder.path()).unwrap().count(), 1, "nothing is left beside it");
    let mut install = Command::new(env!("CARGO_BIN_EXE_mesh-proxy"));
    let nowhere = install.args(["cni-install", "--bin", "/nowhere"]).output().unwrap();
    let text = String::from_utf8_lossy(&nowhere.stderr).into_owned();
    assert!(!nowhere.status.success() && text.contains("/nowhere/.mesh-cni.new: No such file"), "{text}");
}

/// A proxy that expects rules, as the user that rules know.
fn proxy(pod: &Namespace, admin: &Path) -> Child {
    let mut command = pod.command("setpriv");
    command.args(["--reuid=1337", "--regid=1337", "--clear-groups", env!("CARGO_BIN_EXE_mesh-proxy"), "run"]);
    command.args(["--expect-rules", "--workload", "shop/cart", "--trust-pin"]);
    command.arg(format!("sha256:{}", "0".repeat(64))).arg("--admin-socket").arg(admin);
    command.stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_proxy_that_expects_rules_does_not_run_without() {
    let Some(pod) = namespace() else { return };
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let admin = folder.path().join("admin.sock");
    let ends = |code: i32, text: &str| {
        let ended = proxy(&pod, &admin).wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(ended.status.code() == Some(code) && told.contains(text), "{:?} {told}", ended.status);
    };
    ends(2, "no route to others");
    let Some(other) = namespace() else { return };
    pod.link("pod", &other, "peer");
    other.ip("link set peer up");
    for command in ["addr add 10.1.0.2/24 dev pod", "link set pod up", "route add default dev pod"] {
        pod.ip(command);
    }
    ends(76, "a connection to 10.1.0.2:15006 did not come");
    pod.init("--proxy-uid 1338");
    ends(76, "no firewall rules lead connections to this proxy");
    pod.init("--proxy-uid 1337 --skip-outbound-cidr 0.0.0.0/0");
    let mut runs = proxy(&pod, &admin);
    let deadline = Instant::now() + Duration::from_secs(20);
    let listens = || pod.within(|| TcpStream::connect(("127.0.0.1", 15020))).is_ok();
    while !listens() {
        assert!(runs.try_wait().unwrap().is_none(), "it has ended");
        assert!(Instant::now() < deadline, "it does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    runs.kill().unwrap();
    runs.wait().unwrap();
}

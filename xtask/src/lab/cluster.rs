//! The programs of a cluster, with their arguments.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::image;
use super::needs::CNI;
use super::node::Node;
use super::place::{DNS, Lab, PODS, SERVICES};
use super::process::Started;
use super::template;
use crate::workspace;

const ETCD: &str = "http://127.0.0.1:2379";

/// The control plane's store.
pub(super) fn etcd(started: &mut Started, node: &Node<'_>) -> Result<()> {
    let args = [
        format!("--data-dir={}", node.lab.folder().join("etcd").display()),
        format!("--listen-client-urls={ETCD}"),
        format!("--advertise-client-urls={ETCD}"),
        "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
        // What a lab holds need not outlive the machine.
        "--unsafe-no-fsync".to_owned(),
    ];
    started.start(node, &installed("etcd")?, &args)
}

/// The API server.
pub(super) fn api_server(started: &mut Started, node: &Node<'_>) -> Result<()> {
    let pki = node.lab.pki();
    let mut args = vec![
        format!("--etcd-servers={ETCD}"),
        format!("--advertise-address={}", node.ip()),
        format!("--service-cluster-ip-range={SERVICES}"),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
    ];
    let plain = [
        "--bind-address=0.0.0.0",
        "--secure-port=6443",
        "--authorization-mode=Node,RBAC",
        "--allow-privileged",
        "--kubelet-preferred-address-types=InternalIP",
        "--requestheader-allowed-names=front-proxy",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        "--enable-aggregator-routing",
    ];
    args.extend(plain.map(str::to_owned));
    let files = [
        ("client-ca-file", "ca.crt"),
        ("tls-cert-file", "apiserver.crt"),
        ("tls-private-key-file", "apiserver.key"),
        ("service-account-key-file", "service-accounts.pub"),
        ("service-account-signing-key-file", "service-accounts.key"),
        ("kubelet-certificate-authority", "ca.crt"),
        ("kubelet-client-certificate", "apiserver-client.crt"),
        ("kubelet-client-key", "apiserver-client.key"),
        ("requestheader-client-ca-file", "front-proxy-ca.crt"),
        ("proxy-client-cert-file", "front-proxy.crt"),
        ("proxy-client-key-file", "front-proxy.key"),
    ];
    args.extend(in_folder(&pki, &files));
    started.start(node, &compiled(node.lab, "kube-apiserver"), &args)
}

/// Controllers and scheduler, when the API server answers.
pub(super) fn controllers(started: &mut Started, node: &Node<'_>) -> Result<()> {
    let pki = node.lab.pki();
    let name = "kube-controller-manager.conf";
    let files = [
        ("kubeconfig", name),
        ("authentication-kubeconfig", name),
        ("authorization-kubeconfig", name),
        ("service-account-private-key-file", "service-accounts.key"),
        ("root-ca-file", "ca.crt"),
        ("cluster-signing-cert-file", "ca.crt"),
        ("cluster-signing-key-file", "ca.key"),
    ];
    let mut args = in_folder(&pki, &files);
    args.extend(["--use-service-account-credentials", "--leader-elect=false"].map(str::to_owned));
    // They ask a lot while they start, one after the other.
    args.extend(["--kube-api-qps=1000", "--kube-api-burst=1000"].map(str::to_owned));
    started.start(node, &compiled(node.lab, "kube-controller-manager"), &args)?;

    let mut args = in_folder(&pki, &[("kubeconfig", "kube-scheduler.conf")]);
    args.push("--leader-elect=false".to_owned());
    started.start(node, &compiled(node.lab, "kube-scheduler"), &args)
}

/// What runs a node's containers.
pub(super) fn containerd(started: &mut Started, node: &Node<'_>) -> Result<()> {
    let folder = node.folder();
    let text = folder.to_string_lossy();
    let config = folder.join("containerd.toml");
    let values = [("node", &*text), ("pause", image::PAUSE)];
    template::write(&config, include_str!("files/containerd.toml"), &values)?;

    let (network, plugins) = (node.networks(), node.plugins());
    for folder in [&network, &plugins] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    for plugin in fs::read_dir(CNI).with_context(|| format!("cannot list {CNI}"))? {
        let plugin = plugin?;
        let link = plugins.join(plugin.file_name());
        symlink(plugin.path(), &link).with_context(|| format!("cannot make {}", link.display()))?;
    }
    let file = network.join("lab.conflist");
    template::write(&file, include_str!("files/lab.conflist"), &[("pods", &node.pods())])?;
    started.start(node, &installed("containerd")?, &[format!("--config={}", config.display())])
}

/// What runs a node's pods and leads them to services, when its containerd answers.
pub(super) fn kubelet(started: &mut Started, node: &Node<'_>) -> Result<()> {
    let (pki, folder) = (node.lab.pki(), node.folder());
    let config = folder.join("kubelet.yaml");
    let values = [
        ("node", &*folder.to_string_lossy()),
        ("pki", &*pki.to_string_lossy()),
        ("cgroup", &format!("/{}", node.cgroup())),
        ("dns", &DNS.to_string()),
        ("name", &node.name()),
    ];
    template::write(&config, include_str!("files/kubelet.yaml"), &values)?;
    let mut args = in_folder(&pki, &[("kubeconfig", &format!("{}.conf", node.name()))]);
    args.push(format!("--config={}", config.display()));
    args.push(format!("--hostname-override={}", node.name()));
    args.push(format!("--node-ip={}", node.ip()));
    started.start(node, &compiled(node.lab, "kubelet"), &args)?;

    let mut args = in_folder(&pki, &[("kubeconfig", "kube-proxy.conf")]);
    args.push("--proxy-mode=iptables".to_owned());
    args.push(format!("--cluster-cidr={PODS}"));
    args.push(format!("--hostname-override={}", node.name()));
    // The limit is the machine's, not the node's.
    args.push("--conntrack-max-per-core=0".to_owned());
    started.start(node, &compiled(node.lab, "kube-proxy"), &args)
}

/// The cluster's DNS, and what Kubernetes has to know of it.
pub(super) fn coredns(started: &mut Started, node: &Node<'_>) -> Result<()> {
    let (folder, pki) = (node.lab.folder(), node.lab.pki());
    let ip = node.ip().to_string();
    let values = [("node_ip", &*ip), ("pki", &pki.to_string_lossy()), ("dns", &DNS.to_string())];
    let (config, objects) = (folder.join("Corefile"), folder.join("dns.yaml"));
    template::write(&config, include_str!("files/Corefile"), &values)?;
    template::write(&objects, include_str!("files/dns.yaml"), &values)?;
    workspace::output(node.lab.kubectl(["apply", "-f"]).arg(&objects))?;
    started.start(node, &compiled(node.lab, "coredns"), &["-conf".to_owned(), config.display().to_string()])
}

fn compiled(lab: &Lab, name: &str) -> PathBuf {
    lab.binaries().join(name)
}

fn installed(name: &str) -> Result<PathBuf> {
    workspace::find(name).with_context(|| format!("no program {name} on PATH"))
}

/// `--NAME=FOLDER/FILE` for each.
fn in_folder(folder: &Path, files: &[(&str, &str)]) -> Vec<String> {
    files.iter().map(|(name, file)| format!("--{name}={}", folder.join(file).display())).collect()
}

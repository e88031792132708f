//! The mesh's controller in the lab, with the rights that the chart gives it and no others.

mod follow;
mod identity;
mod proxy;

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::check::wait_for;
use super::node::Node;
use super::place::Lab;
use super::{kubectl, template};
use crate::workspace;

/// The chart's rights. All in it that is not plain YAML are its namespace and lines that may be left out.
const RIGHTS: &str = include_str!("../../../../charts/mesh/templates/rbac.yaml");
const NAMESPACE: &str = "mesh-system";

/// Runs the whole test in a cluster of one node.
pub(super) fn check(lab: &Lab) -> Result<()> {
    let build = ["build", "--workspace", "--bins", "--locked"];
    workspace::status(&mut workspace::cargo(build))?;
    prepare(lab)?;
    identity::check(lab)?;
    follow::check(lab)
}

/// A controller that runs, until this is dropped.
struct Controller<'a> {
    lab: &'a Lab,
    node: Node<'a>,
    programs: PathBuf,
    /// Which of the replicas.
    number: u16,
    child: Child,
}

impl Drop for Controller<'_> {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has noticed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl<'a> Controller<'a> {
    /// Starts replica `number`: each has its own ports.
    fn start(lab: &'a Lab, number: u16) -> Result<Self> {
        let node = lab.nodes().into_iter().next().context("a lab without a node")?;
        let programs = workspace::target_directory()?.join("debug");
        let log = lab.logs().join(format!("mesh-controller-{number}.log"));
        let out = File::options().create(true).append(true).open(&log);
        let out = out.with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = node.in_network(&programs.join("mesh-controller"));
        command.args(["run", "--kubernetes", "--namespace", NAMESPACE, "--data-dir"]).arg(data(lab, number));
        for (flag, port) in [("--listen", 15_010), ("--view", 15_080), ("--health", 15_014)] {
            command.args([flag, &format!("127.0.0.1:{}", port + 1_000 * number)]);
        }
        command.args(["--pod-name", &format!("replica-{number}"), "--leaf-lifetime", "20s"]);
        command.env("KUBECONFIG", kubeconfig(lab)).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(out);
        let child = command.spawn().context("cannot start the controller")?;
        let controller = Self { lab, node, programs, number, child };
        wait_for("controller", || Ok(controller.metrics().is_ok()))
            .with_context(|| format!("see {}", log.display()))?;
        controller.take_view_token()?;
        Ok(controller)
    }

    /// Tells it to stop as Kubernetes does.
    fn terminate(&self) -> Result<()> {
        workspace::output(Command::new("kill").arg(self.child.id().to_string()))?;
        Ok(())
    }

    /// Waits until it has stopped.
    fn ended(mut self) -> Result<()> {
        let ended = self.child.wait()?;
        ensure!(ended.success(), "the controller ended with {ended}");
        Ok(())
    }

    /// Where proxies connect.
    fn address(&self) -> String {
        format!("127.0.0.1:{}", 15_010 + 1_000 * self.number)
    }

    /// Puts the token of the view API where meshctl looks for it.
    fn take_view_token(&self) -> Result<()> {
        let token = secret(self.lab, "mesh-view-token", "token")?;
        write_private(&data(self.lab, self.number).join("view-token"), &token)
    }

    fn meshctl(&self, args: &[&str]) -> Command {
        let mut command = self.node.in_network(&self.programs.join("meshctl"));
        command.args(args).arg("--data-dir").arg(data(self.lab, self.number));
        command
    }

    /// What it says of itself.
    fn metrics(&self) -> Result<String> {
        let url = format!("http://127.0.0.1:{}/metrics", 15_014 + 1_000 * self.number);
        let mut command = self.node.in_network(&busybox()?);
        workspace::output(command.args(["wget", "-q", "-O", "-", &url]))
    }

    fn is_leader(&self) -> Result<bool> {
        Ok(self.metrics()?.contains("mesh_controller_is_leader 1\n"))
    }
}

/// Namespace, ServiceAccount and rights of the controller, and a kubeconfig of its own.
fn prepare(lab: &Lab) -> Result<()> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    let rights: Vec<String> = RIGHTS
        .lines()
        .map(|line| line.replace("{{ .Release.Namespace }}", NAMESPACE))
        .filter(|line| !line.contains("{{"))
        .collect();
    let file = lab.folder().join("rights.yaml");
    fs::write(&file, format!("{namespace}\n---\n{}\n", rights.join("\n")))?;
    apply(lab, &file)?;
    let token = workspace::output(&mut lab.kubectl(["create", "token", "mesh-controller", "-n", NAMESPACE]))?;
    let admin = workspace::output(&mut lab.kubectl(["config", "view", "--raw", "-o", "json"]))?;
    let mut config: Value = serde_json::from_str(&admin).context("kubectl printed no JSON")?;
    for user in config["users"].as_array_mut().into_iter().flatten() {
        user["user"] = json!({"token": token.trim()});
    }
    write_private(&kubeconfig(lab), &config.to_string())
}

/// A text in one of the controller's Secrets.
fn secret(lab: &Lab, name: &str, key: &str) -> Result<String> {
    let path = format!("-o=go-template={{{{index .data {key:?} | base64decode}}}}");
    workspace::output(&mut lab.kubectl(["get", "secret", "-n", NAMESPACE, name, &path]))
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    Ok(())
}

fn kubeconfig(lab: &Lab) -> PathBuf {
    lab.folder().join("mesh-controller.kubeconfig")
}

fn data(lab: &Lab, number: u16) -> PathBuf {
    lab.folder().join(format!("mesh-controller-{number}"))
}

fn busybox() -> Result<PathBuf> {
    workspace::find("busybox").context("no busybox: install the package busybox-static")
}

fn apply(lab: &Lab, file: &Path) -> Result<()> {
    kubectl(lab, &[OsStr::new("apply"), OsStr::new("-f"), file.as_os_str()])
}

/// Applies one of the test's own files.
fn apply_template(lab: &Lab, name: &str, text: &str, values: &[(&str, &str)]) -> Result<()> {
    let file = lab.folder().join(name);
    template::write(&file, text, values)?;
    apply(lab, &file)
}

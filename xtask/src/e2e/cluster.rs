//! The cluster that is tested, and how it is talked to.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::lab::{check::wait_within, place::Lab};
use crate::workspace;

/// How long the cluster may take to do what it is told.
pub(super) const PATIENCE: Duration = Duration::from_secs(90);

/// A cluster.
pub(super) struct Cluster<'a> {
    /// None: somebody else's.
    pub(super) lab: Option<&'a Lab>,
    kubeconfig: PathBuf,
    programs: PathBuf,
    /// Jobs that were started.
    jobs: AtomicU32,
}

/// A load that runs.
pub(super) struct Load<'a> {
    cluster: &'a Cluster<'a>,
    name: String,
}

impl<'a> Cluster<'a> {
    /// The one of a lab.
    pub(super) fn lab(lab: &'a Lab) -> Result<Self> {
        Ok(Self { lab: Some(lab), ..Self::named(&lab.kubeconfig())? })
    }

    /// The one that a kubeconfig names.
    pub(super) fn named(kubeconfig: &Path) -> Result<Self> {
        let programs = workspace::target_directory()?.join("debug");
        let jobs = AtomicU32::new(std::process::id() % 1000 * 100);
        Ok(Self { lab: None, kubeconfig: kubeconfig.to_path_buf(), programs, jobs })
    }

    /// `kubectl ARGS`.
    pub(super) fn kubectl<A: AsRef<OsStr>>(&self, args: &[A]) -> Command {
        let mut command = match self.lab {
            Some(lab) => lab.kubectl([]),
            None => Command::new("kubectl"),
        };
        command.env("KUBECONFIG", &self.kubeconfig).args(args);
        command
    }

    /// `meshctl ARGS`.
    pub(super) fn meshctl<A: AsRef<OsStr>>(&self, args: &[A]) -> Command {
        let program = self.programs.join("meshctl");
        let mut command = match self.lab {
            Some(lab) => lab.in_network(&program),
            None => Command::new(&program),
        };
        command.env("KUBECONFIG", &self.kubeconfig).args(args);
        command
    }

    /// Runs kubectl and returns what it printed.
    pub(super) fn run<A: AsRef<OsStr>>(&self, args: &[A]) -> Result<String> {
        workspace::output(&mut self.kubectl(args))
    }

    /// An object, or a list of them, as `kubectl get ARGS` has it.
    pub(super) fn get(&self, args: &[&str]) -> Result<Value> {
        let text = workspace::output(self.kubectl(&["get"]).args(args).args(["-o", "json"]))?;
        serde_json::from_str(&text).context("kubectl printed no JSON")
    }

    /// What meshctl answers as JSON.
    pub(super) fn ask(&self, args: &[&str]) -> Result<Value> {
        let text = workspace::output(self.meshctl(args).args(["-o", "json"]))?;
        serde_json::from_str(&text).context("meshctl printed no JSON")
    }

    /// `kubectl apply` of a text.
    pub(super) fn apply(&self, text: &str) -> Result<()> {
        use std::io::Write as _;
        let mut command = self.kubectl(&["apply", "-f", "-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start kubectl")?;
        child.stdin.take().context("no standard input")?.write_all(text.as_bytes())?;
        let out = child.wait_with_output()?;
        ensure!(out.status.success(), "kubectl apply: {}", String::from_utf8_lossy(&out.stderr).trim());
        Ok(())
    }

    /// Applies a file of the example shop.
    pub(super) fn apply_shop(&self, file: &str) -> Result<()> {
        let path = workspace::root().join("examples/shop").join(file);
        self.run(&[OsStr::new("apply"), OsStr::new("-f"), path.as_os_str()]).map(drop)
    }

    /// Waits until all proxies have what was changed.
    pub(super) fn applied(&self) -> Result<()> {
        workspace::output(&mut self.meshctl(&["wait", "--applied"])).map(drop)
    }

    /// Waits until all pods of a Deployment, or of all Deployments of the shop, are those that were asked for, and ready.
    pub(super) fn rolled_out(&self, namespace: &str, deployments: &[&str]) -> Result<()> {
        for name in deployments {
            let wait = ["rollout", "status", "-n", namespace, "--timeout=90s", name];
            let done = self.run(&wait);
            if let Err(error) = done {
                let pods = self.run(&["get", "pods", "-n", namespace, "-o", "wide"]).unwrap_or_default();
                let events = self.run(&["get", "events", "-n", namespace]).unwrap_or_default();
                return Err(error.context(format!("{name} does not get ready\n{pods}\n{events}")));
            }
        }
        Ok(())
    }

    /// Starts a Job of the shop's image in its namespace, in the mesh.
    pub(super) fn start(&'a self, name: &str, account: &str, args: &[impl AsRef<str>]) -> Result<Load<'a>> {
        self.start_labelled(name, account, "{}", args)
    }

    /// As [`Cluster::start`], with labels for its pod.
    pub(super) fn start_labelled(
        &'a self,
        name: &str,
        account: &str,
        labels: &str,
        args: &[impl AsRef<str>],
    ) -> Result<Load<'a>> {
        let args: Vec<Value> = args.iter().map(|arg| Value::from(arg.as_ref())).collect();
        let args = Value::from(args).to_string();
        // An earlier one of this name may still be going.
        let name = format!("{name}-{}", self.jobs.fetch_add(1, Ordering::Relaxed));
        let values = [("name", &*name), ("account", account), ("labels", labels), ("args", &args)];
        self.apply(&fill(include_str!("files/job.yaml"), &values)?)?;
        Ok(Load { cluster: self, name })
    }

    /// Asks until the answer is yes.
    pub(super) fn wait_for(&self, what: &str, ask: impl FnMut() -> Result<bool>) -> Result<()> {
        wait_within(PATIENCE, what, ask)
    }
}

impl Load<'_> {
    /// Waits until its container runs, that is: its sidecar is ready.
    pub(super) fn running(&self) -> Result<()> {
        self.cluster.wait_for(&format!("running {}", self.name), || {
            let pods = self.pods()?;
            let statuses = pods["items"][0]["status"]["containerStatuses"].clone();
            let own = statuses.as_array().into_iter().flatten().find(|s| s["name"] == "job");
            Ok(own.is_some_and(|s| !s["state"]["running"].is_null() || !s["state"]["terminated"].is_null()))
        })
    }

    fn pods(&self) -> Result<Value> {
        self.cluster.get(&["pods", "-n", "shop", "-l", &format!("job-name={}", self.name)])
    }

    /// The name of its pod.
    pub(super) fn pod(&self) -> Result<String> {
        let pods = self.pods()?;
        Ok(pods["items"][0]["metadata"]["name"].as_str().context("no pod")?.to_owned())
    }

    /// Waits until the job has ended, and returns how, and what it printed.
    pub(super) fn finish(self) -> Result<(i64, Value)> {
        let mut code = None;
        self.cluster.wait_for(&format!("end of {}", self.name), || {
            let pods = self.pods()?;
            let statuses = pods["items"][0]["status"]["containerStatuses"].as_array().into_iter().flatten();
            let own = statuses.into_iter().find(|s| s["name"] == "job");
            code = own.and_then(|s| s["state"]["terminated"]["exitCode"].as_i64());
            Ok(code.is_some())
        })?;
        let job = format!("job/{}", self.name);
        let text = self.cluster.run(&["logs", "-n", "shop", &job, "-c", "job"])?;
        self.cluster.run(&["delete", "-n", "shop", &job, "--wait=false"])?;
        let last = text.lines().last().unwrap_or_default();
        let printed = serde_json::from_str(last).with_context(|| format!("the job printed `{text}`"))?;
        Ok((code.unwrap_or(-1), printed))
    }
}

/// Fills places that are written as `@name@`.
fn fill(template: &str, values: &[(&str, &str)]) -> Result<String> {
    let text = values
        .iter()
        .fold(template.to_owned(), |text, (name, value)| text.replace(&format!("@{name}@"), value));
    ensure!(!text.contains('@'), "a place of the template is left:\n{text}");
    Ok(text)
}

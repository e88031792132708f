//! A proxy beside a pod: it runs on the node, with a token that is the pod's or is not.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::super::check::wait_for;
use super::super::place::Lab;
use super::{Controller, busybox, data, write_private};
use crate::workspace;

/// Audience of the mesh's tokens.
pub(super) const AUDIENCE: &str = "meshctl.dev";

/// A proxy that runs, until this is dropped.
pub(super) struct Proxy<'a> {
    controller: &'a Controller<'a>,
    child: Child,
    /// The address where it listens; each has its own.
    address: String,
    token_file: PathBuf,
    log: PathBuf,
}

impl Drop for Proxy<'_> {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has noticed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl<'a> Proxy<'a> {
    /// Starts the proxy of `workload`, with that token.
    pub(super) fn start(
        controller: &'a Controller<'a>,
        workload: &str,
        (number, token): (u8, &str),
    ) -> Result<Self> {
        let lab = controller.lab;
        let folder = lab.folder();
        // What is in the ConfigMaps, which have a test of their own; here the API server may be away.
        let bundle = data(lab, controller.number).join("trust-bundle.pem");
        let token_file = folder.join(format!("token-{number}"));
        write_private(&token_file, token)?;
        let log = lab.logs().join(format!("mesh-proxy-{number}.log"));
        let out = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let address = format!("127.77.0.{number}");
        let mut command = controller.node.in_network(&controller.programs.join("mesh-proxy"));
        command.args(["run", "--mode", "explicit", "--workers", "1", "--workload", workload]);
        command.args(["--address", &address, "--controller", &controller.address()]);
        command.arg("--token-file").arg(&token_file).arg("--trust-bundle").arg(&bundle);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(out).spawn();
        let child = child.context("cannot start the proxy")?;
        Ok(Self { controller, child, address, token_file, log })
    }

    /// Gives it another token, from its next certificate on.
    pub(super) fn take(&self, token: &str) -> Result<()> {
        write_private(&self.token_file, token)
    }

    /// Its certificate: identity and serial number.
    pub(super) fn certificate(&self) -> Result<(String, String)> {
        let found = self.ask("certificates")?;
        let text = |key: &str| found[key].as_str().map(str::to_owned).context("it has no certificate");
        Ok((text("identity")?, text("serial")?))
    }

    /// What it knows of its workload.
    pub(super) fn workload(&self) -> Result<Value> {
        Ok(self.ask("config")?["workload"].take())
    }

    /// Waits until it has a certificate for that identity, other than `before`. Returns the serial number.
    pub(super) fn certified(&self, identity: &str, before: &str) -> Result<String> {
        let mut found = String::new();
        let done = wait_for("certificate", || {
            let (of, serial) = self.certificate()?;
            anyhow::ensure!(of == identity, "it is for {of}, not for {identity}");
            found = serial;
            Ok(found != before)
        });
        done.with_context(|| format!("see {}", self.log.display()))?;
        Ok(found)
    }

    /// Waits until it was refused with these words and this code.
    pub(super) fn refused(&self, why: &str, code: &str) -> Result<()> {
        let code = format!("({code})");
        let mut log = String::new();
        let done = wait_for("refusal", || {
            log = std::fs::read_to_string(&self.log)?;
            Ok(log.lines().any(|line| line.contains(why) && line.contains(&code)))
        });
        done.with_context(|| format!("nobody said {why:?} {code}:\n{log}"))
    }

    fn ask(&self, what: &str) -> Result<Value> {
        let url = format!("http://{}:15000/{what}", self.address);
        let mut command = self.controller.node.in_network(&busybox()?);
        let text = workspace::output(command.args(["wget", "-q", "-O", "-", &url]))?;
        serde_json::from_str(&text).context("the proxy printed no JSON")
    }
}

/// A token of a ServiceAccount, bound to a pod if one is given, as kubelet projects it.
pub(super) fn token(
    lab: &Lab,
    namespace: &str,
    account: &str,
    audience: &str,
    pod: Option<&str>,
) -> Result<String> {
    let mut command = lab.kubectl(["create", "token", account, "-n", namespace, "--audience", audience]);
    if let Some(pod) = pod {
        command.args(["--bound-object-kind", "Pod", "--bound-object-name", pod]);
    }
    Ok(workspace::output(&mut command)?.trim().to_owned())
}

/// What a namespace's pods trust.
pub(super) fn trust_bundle(lab: &Lab, namespace: &str) -> Result<String> {
    let path = r#"-o=go-template={{index .data "trust-bundle.pem"}}"#;
    workspace::output(&mut lab.kubectl(["get", "configmap", "-n", namespace, "mesh-trust-bundle", path]))
}

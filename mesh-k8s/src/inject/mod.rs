//! Puts a proxy beside a pod's containers, and takes it out again.
//!
//! ```text
//! pod ── shape ──▶ checks ── options ──▶ probes ──▶ containers ──▶ the new pod
//!        (is it one?)  (refuse)  (annotations)  (led to the proxy)
//! ```
//! A pod is JSON as Kubernetes writes it, or the template of one: what has `metadata` and `spec`. *Invariants:* what has
//! a proxy keeps that one, so that to inject twice is to inject once; [`uninject`] gives back what was there before, for
//! the proxy's container holds the probes that were rewritten; what is refused is refused with all that is wrong.

mod again;
mod checks;
mod config;
mod containers;
mod nonce;
mod objects;
mod options;
mod probes;
mod quantity;
mod quiet;
mod shape;
#[cfg(test)]
mod tests;

use std::fmt;

use serde_json::{Map, Value, json};

pub(crate) use self::options::opaque_ports;
pub use self::{
    config::{Config, ConfigError, Native, Quantities, Resources},
    nonce::Nonce,
    objects::{inject_object, uninject_object},
};
use self::{options::Options, probes::Sites, shape::Pod};
use crate::{labels, names::PROXY_CONTAINER};

/// The user that the proxy runs as. Nobody else may: what it sends passes by the firewall's rules.
pub const PROXY_UID: u32 = 1337;
/// The annotation by which kubectl knows whose logs are meant, and where to run a command.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// Version that is noted on pods.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Version of an API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Server {
    /// Major version.
    pub major: u32,
    /// Minor version.
    pub minor: u32,
}

impl Server {
    /// Reads what `/version` answers, as in "1" and "29+".
    #[must_use]
    pub fn parse(major: &str, minor: &str) -> Option<Self> {
        let digits = |text: &str| text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().ok();
        Some(Self { major: digits(major)?, minor: digits(minor)? })
    }

    /// True if init containers can go on beside the others (since 1.29).
    #[must_use]
    pub fn has_native_sidecars(self) -> bool {
        self >= Self { major: 1, minor: 29 }
    }
}

/// What became of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It has a proxy now.
    Injected(Value),
    /// It stays as it is.
    Skipped(Skip),
    /// It must not run so.
    Refused(Vec<Refusal>),
}

/// Why a pod stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// It says that it wants no proxy.
    Disabled,
    /// It has one.
    AlreadyInjected,
    /// It shares the host's network: a proxy would lead all of the host's connections to itself.
    HostNetwork,
    /// It does not run on Linux.
    Windows,
}

impl Skip {
    /// Why, in words that follow the pod's name.
    #[must_use]
    pub fn why(self) -> &'static str {
        match self {
            Self::Disabled => "it says meshctl.dev/inject: disabled",
            Self::AlreadyInjected => "it has a proxy already",
            Self::HostNetwork => {
                "it is on the host's network (hostNetwork: true), so that it is not in the mesh: it is called in plaintext"
            }
            Self::Windows => "it runs on Windows, for which there is no proxy",
        }
    }
}

/// One thing for which a pod is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Path of the field, from the pod on.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.field, self.message, self.remedy)
    }
}

/// Collects what is wrong.
#[derive(Default)]
struct Refusals(Vec<Refusal>);

impl Refusals {
    /// Most that are told of one pod.
    const MAX: usize = 50;

    fn add(&mut self, field: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) {
        if self.0.len() < Self::MAX {
            let refusal = Refusal { field: field.into(), message: message.into(), remedy: remedy.into() };
            self.0.push(refusal);
        }
    }
}

/// Puts a proxy into a pod. `server`: who will run it; None: not known, which counts as a recent one. `nonce`: its own, if
/// it has none yet.
#[must_use]
pub fn inject(pod: &Value, config: &Config, server: Option<Server>, nonce: &Nonce) -> Outcome {
    let mut refusals = Refusals::default();
    let Some(shape) = Pod::read(pod, &mut refusals) else { return Outcome::Refused(refusals.0) };
    match skip(&shape, &mut refusals) {
        Some(Skip::AlreadyInjected) => return again::inject(pod, &shape, nonce, refusals),
        Some(skip @ (Skip::Disabled | Skip::HostNetwork | Skip::Windows)) => return Outcome::Skipped(skip),
        None => {}
    }
    checks::run(&shape, false, &mut refusals);
    let options = Options::read(&shape, config, server, &mut refusals);
    let mut new = pod.clone();
    let sites = Sites { native: options.native, is_injected: false };
    let mut probes = probes::lead_to_proxy(&mut new, sites, nonce, &mut refusals);
    quiet::add(&mut new, options.quiet, nonce, &mut probes);
    if !refusals.0.is_empty() {
        return Outcome::Refused(refusals.0);
    }
    containers::add(&mut new, &options, config, &probes);
    if config.cni {
        let flags = Value::from(containers::rules(&options));
        set_annotation(&mut new, labels::INTERCEPTION, &flags.to_string());
    }
    if !options.native {
        name_default_container(&mut new, &shape);
    }
    set_annotation(&mut new, labels::INJECTED, VERSION);
    Outcome::Injected(new)
}

/// Takes the proxy out of a pod. None: there is none that this put there.
#[must_use]
pub fn uninject(pod: &Value) -> Option<Value> {
    let shape = Pod::read(pod, &mut Refusals::default())?;
    if !shape.annotations().contains_key(labels::INJECTED) || !shape.has_proxy() {
        return None;
    }
    let held = probes::held(&shape);
    let mut old = pod.clone();
    containers::remove(&mut old);
    probes::restore(&mut old, &held);
    remove_annotation(&mut old, labels::INTERCEPTION);
    if shape.annotations().contains_key(labels::DEFAULT_CONTAINER) {
        remove_annotation(&mut old, labels::DEFAULT_CONTAINER);
        remove_annotation(&mut old, DEFAULT_CONTAINER);
    }
    remove_annotation(&mut old, labels::INJECTED);
    Some(old)
}

fn skip(pod: &Pod<'_>, refusals: &mut Refusals) -> Option<Skip> {
    let wish = pod.wish(refusals);
    if pod.annotations().contains_key(labels::INJECTED) {
        if pod.has_proxy() {
            return Some(Skip::AlreadyInjected);
        }
        let message = format!("it says that there is a proxy, but no container is called {PROXY_CONTAINER}");
        refusals.add(shape::annotation(labels::INJECTED), message, "remove the annotation");
    }
    if wish == Some(false) {
        return Some(Skip::Disabled);
    }
    if pod.spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        return Some(Skip::HostNetwork);
    }
    (pod.spec.get("os").and_then(|os| os.get("name")) == Some(&json!("windows"))).then_some(Skip::Windows)
}

/// Without a name kubectl takes the first container, which is the proxy now: what was the first before is named, unless
/// the pod names another one itself.
fn name_default_container(new: &mut Value, before: &Pod<'_>) {
    let first = before.spec.get("containers").and_then(|all| all.get(0)?.get("name")?.as_str());
    if let Some(first) = first.filter(|_| !before.annotations().contains_key(DEFAULT_CONTAINER)) {
        set_annotation(new, DEFAULT_CONTAINER, first);
        set_annotation(new, labels::DEFAULT_CONTAINER, "added");
    }
}

fn set_annotation(pod: &mut Value, name: &str, value: &str) {
    let Some(pod) = pod.as_object_mut() else { return };
    if let Some(metadata) = object(pod, "metadata")
        && let Some(annotations) = object(metadata, "annotations")
    {
        annotations.insert(name.to_owned(), value.into());
    }
}

fn remove_annotation(pod: &mut Value, name: &str) {
    let Some(metadata) = pod.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(name);
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
    if metadata.is_empty()
        && let Some(pod) = pod.as_object_mut()
    {
        pod.remove("metadata");
    }
}

/// A field that is an object; made if it is not there, or null.
fn object<'a>(parent: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Map<String, Value>> {
    let field = parent.entry(name).or_insert(Value::Null);
    if field.is_null() {
        *field = Value::Object(Map::new());
    }
    field.as_object_mut()
}

/// A field that is a list; made if it is not there, or null.
fn list<'a>(parent: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Vec<Value>> {
    let field = parent.entry(name).or_insert(Value::Null);
    if field.is_null() {
        *field = Value::Array(Vec::new());
    }
    field.as_array_mut()
}

//! Names of objects, workloads and Services, and hosts as applications write them.

use std::{fmt, str::FromStr, sync::Arc};

/// An object that a person wrote, or that the mesh implies. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    /// Kind, as in its YAML.
    pub kind: Arc<str>,
    /// Namespace; empty for objects that have none.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl ObjectRef {
    /// Names an object.
    #[must_use]
    pub fn new(kind: &str, namespace: &str, name: &str) -> Self {
        Self { kind: kind.into(), namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            return write!(f, "{} {}", self.kind, self.name);
        }
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// Why a text is no name of the form that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not of the form {expected}")]
pub struct NameError {
    text: String,
    expected: &'static str,
}

impl NameError {
    pub(crate) fn new(text: &str, expected: &'static str) -> Self {
        Self { text: text.chars().take(200).collect(), expected }
    }
}

/// One running instance with one proxy beside it; written `NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadRef {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name of the Workload or pod.
    pub name: Arc<str>,
}

impl WorkloadRef {
    /// Names a workload.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for WorkloadRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for WorkloadRef {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, name)) if is_dns_label(namespace) && is_dns_name(name) => {
                Ok(Self::new(namespace, name))
            }
            _ => Err(NameError::new(text, "NAMESPACE/NAME")),
        }
    }
}

/// One port of one Service; written `NAMESPACE/NAME:PORT`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServicePort {
    /// Namespace of the Service.
    pub namespace: Arc<str>,
    /// Name of the Service.
    pub name: Arc<str>,
    /// The Service's own port, not the target port; never 0.
    pub port: u16,
}

impl ServicePort {
    /// Names a port of a Service.
    #[must_use]
    pub fn new(namespace: &str, name: &str, port: u16) -> Self {
        Self { namespace: namespace.into(), name: name.into(), port }
    }
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.namespace, self.name, self.port)
    }
}

impl FromStr for ServicePort {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (namespace, rest) = text.split_once('/')?;
            let (name, port) = rest.rsplit_once(':')?;
            let port = parse_port(port)?;
            (is_dns_label(namespace) && is_dns_label(name)).then(|| Self::new(namespace, name, port))
        };
        parse().ok_or_else(|| NameError::new(text, "NAMESPACE/NAME:PORT"))
    }
}

/// A host as an application wrote it in explicit mode (`Host`, `:authority` or a declared upstream), lower case,
/// without a trailing dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host {
    /// The name, as in `catalog`, `catalog.shop` or `catalog.shop.svc.cluster.local`.
    pub name: Arc<str>,
    /// The port, if one was written.
    pub port: Option<u16>,
}

impl Host {
    /// The Service that this host names for a caller in `namespace`: `svc`, `svc.ns` or `svc.ns.svc[.DOMAIN]`.
    /// None when it cannot name a Service, whatever Services exist.
    #[must_use]
    pub fn service<'a>(&'a self, namespace: &'a str, cluster_domain: &str) -> Option<(&'a str, &'a str)> {
        let name: &str = &self.name;
        let short = match name.strip_suffix(cluster_domain).and_then(|n| n.strip_suffix('.')) {
            Some(rest) => rest.strip_suffix(".svc")?,
            None => name.strip_suffix(".svc").unwrap_or(name),
        };
        match short.split_once('.') {
            None if short.len() == name.len() => Some((namespace, short)),
            None => None,
            Some((service, ns)) if !ns.contains('.') => Some((ns, service)),
            Some(_) => None,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl FromStr for Host {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (name, port) = match text.rsplit_once(':') {
                Some((name, port)) => (name, Some(parse_port(port)?)),
                None => (text, None),
            };
            let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
            is_dns_name(&name).then(|| Self { name: name.into(), port })
        };
        parse().ok_or_else(|| NameError::new(text, "HOST[:PORT]"))
    }
}

fn parse_port(text: &str) -> Option<u16> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|&p| plain && p != 0)
}

/// True for one label of a DNS name (RFC 1123: 1 to 63 of a-z, 0-9 and inner '-').
#[must_use]
pub fn is_dns_label(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(allowed)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// True for a DNS name of at most 253 bytes (RFC 1123).
#[must_use]
pub fn is_dns_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_label)
}

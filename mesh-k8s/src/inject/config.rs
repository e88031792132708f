//! The mesh-wide defaults of injection.

use std::{fmt, str::FromStr};

use mesh_core::{
    identity::TrustDomain,
    name::is_dns_name,
    ports::{CONTROL, DEFAULT_CLUSTER_DOMAIN, DEFAULT_TRUST_DOMAIN},
    range::{Cidr, PortRange},
};
use serde::{Deserialize, Deserializer, de};

use super::quantity;
use crate::names;

/// Levels of logs.
pub(super) const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
/// When images are fetched.
const PULL: [&str; 3] = ["Always", "IfNotPresent", "Never"];

/// What injected pods get, unless their annotations say otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Config {
    /// Image of the proxy.
    pub proxy_image: String,
    /// When it is fetched; empty: as the cluster decides.
    pub image_pull_policy: String,
    /// What the proxy may use.
    pub resources: Resources,
    /// What the proxy logs.
    pub log_level: String,
    /// Whether proxies are native sidecars.
    pub native_sidecars: Native,
    /// Where the controller serves proxies, HOST:PORT; empty: at its Service.
    pub controller: String,
    /// The mesh's trust domain.
    pub trust_domain: String,
    /// The cluster's DNS domain.
    pub cluster_domain: String,
    /// Ports to which connections pass by proxies.
    #[serde(deserialize_with = "values")]
    pub skip_outbound_ports: Vec<PortRange>,
    /// Ports of pods that proxies leave alone.
    #[serde(deserialize_with = "values")]
    pub skip_inbound_ports: Vec<PortRange>,
    /// Networks to which connections pass by proxies.
    #[serde(deserialize_with = "values")]
    pub skip_outbound_cidrs: Vec<Cidr>,
    /// True: the firewall's rules are written by a CNI plugin, and pods get no init container.
    pub cni: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            proxy_image: format!("meshctl.dev/mesh-proxy:{}", super::VERSION),
            image_pull_policy: String::new(),
            resources: Resources::default(),
            log_level: "info".to_owned(),
            native_sidecars: Native::Auto,
            controller: String::new(),
            trust_domain: DEFAULT_TRUST_DOMAIN.to_owned(),
            cluster_domain: DEFAULT_CLUSTER_DOMAIN.to_owned(),
            skip_outbound_ports: Vec::new(),
            skip_inbound_ports: Vec::new(),
            skip_outbound_cidrs: Vec::new(),
            cni: false,
        }
    }
}

/// What a proxy is given, and what it may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resources {
    /// What it is given for certain.
    pub requests: Quantities,
    /// Most that it may use.
    pub limits: Quantities,
}

/// CPU and memory, as Kubernetes writes them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quantities {
    /// CPU, as in 100m.
    #[serde(deserialize_with = "amount")]
    pub cpu: Option<String>,
    /// Memory, as in 64Mi.
    #[serde(deserialize_with = "amount")]
    pub memory: Option<String>,
}

/// Whether proxies are native sidecars: init containers that go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Native {
    /// Where the cluster has them.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl<'de> Deserialize<'de> for Native {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Scalar::deserialize(deserializer)?.to_string().as_str() {
            "auto" => Ok(Self::Auto),
            "true" => Ok(Self::Always),
            "false" => Ok(Self::Never),
            other => Err(de::Error::custom(format!("{other:?} is none of auto, true and false"))),
        }
    }
}

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads YAML. What is not said has its default.
    ///
    /// # Errors
    /// [`ConfigError`] names the field, or line and column.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let config: Self = serde_saphyr::from_str(text).map_err(|error| {
            // What follows the first line shows the text again.
            ConfigError(error.to_string().lines().next().unwrap_or_default().to_owned())
        })?;
        config.check()?;
        Ok(config)
    }

    /// Checks what types cannot.
    ///
    /// # Errors
    /// [`ConfigError`] names the field.
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong = |field: &str, value: &str, expected: &str| {
            Err(ConfigError(format!("{field}: {value:?} is not {expected}")))
        };
        if self.proxy_image.is_empty() || self.proxy_image.contains(char::is_whitespace) {
            return wrong("proxyImage", &self.proxy_image, "the name of an image");
        }
        if !self.image_pull_policy.is_empty() && !PULL.contains(&&*self.image_pull_policy) {
            return wrong("imagePullPolicy", &self.image_pull_policy, "Always, IfNotPresent or Never");
        }
        if !LEVELS.contains(&&*self.log_level) {
            return wrong("logLevel", &self.log_level, "error, warn, info, debug or trace");
        }
        if TrustDomain::from_str(&self.trust_domain).is_err() {
            return wrong("trustDomain", &self.trust_domain, "a trust domain, as in cluster.local");
        }
        if !is_dns_name(&self.cluster_domain) {
            return wrong("clusterDomain", &self.cluster_domain, "a DNS name, as in cluster.local");
        }
        let port = self.controller.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if !self.controller.is_empty() && port.is_none_or(|port| port == 0) {
            return wrong("controller", &self.controller, "HOST:PORT");
        }
        let Resources { requests, limits } = &self.resources;
        for (field, amount) in [
            ("resources.requests.cpu", &requests.cpu),
            ("resources.requests.memory", &requests.memory),
            ("resources.limits.cpu", &limits.cpu),
            ("resources.limits.memory", &limits.memory),
        ] {
            if let Some(text) = amount.as_ref().filter(|text| quantity::parse(text).is_none()) {
                return wrong(field, text, "an amount, as in 100m or 64Mi");
            }
        }
        Ok(())
    }

    /// Where proxies find the controller.
    pub(super) fn controller(&self) -> String {
        if !self.controller.is_empty() {
            return self.controller.clone();
        }
        let (name, namespace) = (names::CONTROLLER, names::NAMESPACE);
        format!("{name}.{namespace}.svc.{}:{CONTROL}", self.cluster_domain)
    }
}

/// A text, or what YAML takes for something else.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Bool(bool),
    Whole(u64),
    Number(f64),
    Text(String),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Whole(value) => value.fmt(f),
            Self::Number(value) => value.fmt(f),
            Self::Text(value) => f.write_str(value),
        }
    }
}

/// A list, or one text with commas.
fn values<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err = String>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Values {
        None(()),
        List(Vec<Scalar>),
        One(Scalar),
    }
    let items: Vec<String> = match Values::deserialize(deserializer)? {
        Values::None(()) => Vec::new(),
        Values::List(items) => items.iter().map(Scalar::to_string).collect(),
        Values::One(text) => text.to_string().split(',').map(str::to_owned).collect(),
    };
    let parse = |item: &String| {
        let item = item.trim();
        item.parse().map_err(|error| de::Error::custom(format!("{item:?}: {error}")))
    };
    items.iter().filter(|item| !item.trim().is_empty()).map(parse).collect()
}

fn amount<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<Scalar>::deserialize(deserializer)?
        .map(|value| value.to_string())
        .filter(|text| !text.is_empty()))
}

//! Names of what the mesh puts into a cluster.

use std::{ops::RangeInclusive, time::Duration};

/// Namespace of the controller, unless configured otherwise.
pub const NAMESPACE: &str = "mesh-system";
/// The controller's Service, Deployment and ServiceAccount.
pub const CONTROLLER: &str = "mesh-controller";
/// ConfigMap that has the mesh's roots, in every namespace that has proxies.
pub const TRUST_BUNDLE: &str = "mesh-trust-bundle";
/// Key of the roots in it.
pub const TRUST_BUNDLE_KEY: &str = "trust-bundle.pem";
/// Audience of the ServiceAccount tokens by which proxies prove what they are.
pub const TOKEN_AUDIENCE: &str = "meshctl.dev";
/// Name of the container that is the proxy.
pub const PROXY_CONTAINER: &str = "mesh-proxy";
/// Name of the init container that writes the firewall's rules.
pub const INIT_CONTAINER: &str = "mesh-init";
/// Name of the init container that sees that the node has written them, before a proxy that is no native sidecar.
pub const CHECK_CONTAINER: &str = "mesh-check";
/// Secret of the controller's namespace: the authority (`root.pem`, `root.key`, `issuer.pem`, `issuer.key`).
pub const CA_SECRET: &str = "mesh-ca";
/// Secret of the controller's namespace: the token of the view API.
pub const VIEW_TOKEN_SECRET: &str = "mesh-view-token";
/// Key of the token in it.
pub const VIEW_TOKEN_KEY: &str = "token";
/// What the life of a proxy's certificate may be: proxies renew at half of it.
pub const LEAF_LIFETIME: RangeInclusive<Duration> =
    Duration::from_secs(10)..=Duration::from_secs(90 * 24 * 3600);
/// The MutatingWebhookConfiguration that injects proxies.
pub const MUTATING_WEBHOOK: &str = "mesh-injector";
/// The ValidatingWebhookConfiguration that checks the mesh's own objects.
pub const VALIDATING_WEBHOOK: &str = "mesh-validator";

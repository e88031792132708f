//! Ports and names that are the same everywhere.

/// Outbound listener of a proxy.
pub const OUTBOUND: u16 = 15001;
/// Inbound listener of a proxy (transparent mode).
pub const INBOUND: u16 = 15006;
/// Admin of a proxy: live state, read-only, loopback.
pub const ADMIN: u16 = 15000;
/// Readiness and metrics of a proxy.
pub const HEALTH: u16 = 15020;
/// The controller's gRPC: identity, discovery, telemetry.
pub const CONTROL: u16 = 15010;
/// The controller's health and metrics.
pub const CONTROLLER_HEALTH: u16 = 15014;
/// The controller's webhook: injection and checks of objects.
pub const WEBHOOK: u16 = 15017;
/// The controller's view API.
pub const VIEW: u16 = 15080;

/// Ports of the mesh itself: as original destinations they are refused, so that nobody is led in a circle.
/// [`HEALTH`] is not among them, for the interception rules skip it.
pub const OWN: [u16; 3] = [OUTBOUND, INBOUND, ADMIN];

/// The mesh's trust domain unless configured otherwise.
pub const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";
/// The cluster's DNS domain unless configured otherwise.
pub const DEFAULT_CLUSTER_DOMAIN: &str = "cluster.local";

//! The only file that knows every part: builds, spawns and drains a proxy.

use std::net::SocketAddr;

use crate::config::Config;

/// Why a proxy does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {}

/// Where a proxy listens, with real ports.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// Outbound listener.
    pub outbound: SocketAddr,
    /// Inbound listener; transparent mode only.
    pub inbound: Option<SocketAddr>,
    /// Admin.
    pub admin: SocketAddr,
    /// Health and metrics.
    pub health: SocketAddr,
}

/// A running proxy.
pub struct Proxy {
    addresses: Addresses,
}

impl Proxy {
    /// Starts a proxy; returns when its own listeners stand.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(_config: Config) -> Result<Self, StartError> {
        todo!()
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses.clone()
    }

    /// Returns when identity, workload configuration and all listeners are there.
    pub async fn ready(&self) {}

    /// Drains and ends.
    pub async fn shutdown(self) {}
}

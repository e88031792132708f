//! Mesh TLS: one epoch per certificate and set of roots.

mod peer;

use std::sync::Arc;

use mesh_core::{identity::SpiffeId, protocol::MeshAlpn};

pub(crate) use self::peer::{PeerIdentityError, peer_identity};

/// One certificate with one set of roots. A new one of either makes a new epoch with new session stores, for a resumed
/// session is not verified again.
pub(crate) struct TlsEpoch {
    /// Number, from 1, growing.
    pub generation: u64,
    /// Whose certificate it is.
    pub identity: SpiffeId,
    server: Arc<rustls::ServerConfig>,
}

impl TlsEpoch {
    /// For accepting: TLS 1.3, client certificate required and verified, ALPN of the mesh.
    pub(crate) fn server_config(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.server)
    }

    /// For connecting to `expected` and nobody else. Callers keep the result.
    pub(crate) fn client_config(&self, _expected: &SpiffeId, _alpn: MeshAlpn) -> Arc<rustls::ClientConfig> {
        todo!()
    }
}

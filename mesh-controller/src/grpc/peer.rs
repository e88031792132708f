//! Who calls: the identity in a client certificate, and what it may call.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool},
};

use mesh_core::identity::{SpiffeId, TrustDomain};
use rustls::pki_types::CertificateDer;
use tonic::Status;
use x509_parser::extensions::GeneralName;

/// The other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Its address, for the log.
    pub(crate) address: SocketAddr,
    /// Its verified identity; None: it has no certificate.
    pub(crate) identity: Option<Arc<PeerIdentity>>,
    /// True since it has asked for a certificate, in full.
    pub(crate) asked: Arc<AtomicBool>,
}

/// A verified identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerIdentity {
    /// The SPIFFE ID.
    pub(crate) id: SpiffeId,
    /// When its certificate expires, in seconds since the Unix epoch.
    pub(crate) not_after: i64,
}

/// Why a certificate names no peer of the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PeerError {
    /// It cannot be read.
    #[error("the certificate is malformed")]
    Malformed,
    /// It has no or more than one URI SAN, or other names beside (X.509-SVID section 2).
    #[error("the certificate does not have exactly one URI SAN with a SPIFFE ID")]
    Name,
    /// It is of another mesh.
    #[error("the certificate is of another trust domain")]
    TrustDomain,
}

/// Reads the identity of a certificate whose chain was verified.
pub(crate) fn identity_of(
    certificate: &CertificateDer<'_>,
    trust_domain: &TrustDomain,
) -> Result<PeerIdentity, PeerError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|_| PeerError::Malformed)?;
    let names =
        parsed.subject_alternative_name().map_err(|_| PeerError::Malformed)?.ok_or(PeerError::Name)?;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let (Some(uri), None) = (uris.next(), uris.next()) else { return Err(PeerError::Name) };
    let id: SpiffeId = uri.parse().map_err(|_| PeerError::Name)?;
    if id.trust_domain() != trust_domain.as_str() {
        return Err(PeerError::TrustDomain);
    }
    Ok(PeerIdentity { id, not_after: parsed.validity().not_after.timestamp() })
}

/// The calls that the control port knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rpc {
    /// `identity.v1` Certify.
    Certify,
    /// `discovery.v1` Watch.
    Watch,
    /// `telemetry.v1` Report.
    Report,
    /// Anything else.
    Unknown,
}

impl Rpc {
    /// Which call a path names.
    pub(crate) fn of(path: &str) -> Self {
        match path {
            "/mesh.identity.v1.Identity/Certify" => Self::Certify,
            "/mesh.discovery.v1.Discovery/Watch" => Self::Watch,
            "/mesh.telemetry.v1.Telemetry/Report" => Self::Report,
            _ => Self::Unknown,
        }
    }

    /// Name in metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Certify => "Certify",
            Self::Watch => "Watch",
            Self::Report => "Report",
            Self::Unknown => "unknown",
        }
    }
}

/// Whether a call is looked at, by who calls. `now` is in seconds since the Unix epoch.
pub(crate) fn admit(rpc: Rpc, peer: Option<&PeerIdentity>, now: i64) -> Result<(), Status> {
    match (peer, rpc) {
        (Some(peer), _) if peer.id.is_controller() => {
            Err(Status::permission_denied("the controller's own identity is no client"))
        }
        // The chain was verified when the connection was made, which may be long ago.
        (Some(peer), _) if peer.not_after <= now => {
            Err(Status::unauthenticated("the client certificate has expired: renew it and connect again"))
        }
        (Some(_), _) | (None, Rpc::Certify) => Ok(()),
        (None, Rpc::Watch | Rpc::Report | Rpc::Unknown) => Err(Status::unauthenticated(
            "this call needs a client certificate: get one by Certify of mesh.identity.v1 and connect again with it",
        )),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn only_certify_is_open_to_strangers() {
        let peer = |id: &str| PeerIdentity { id: id.parse().unwrap(), not_after: 100 };
        let cart = peer("spiffe://cluster.local/ns/shop/sa/cart");
        let controller = peer("spiffe://cluster.local/ns/mesh-system/sa/mesh-controller");
        let check = |rpc, peer: Option<&PeerIdentity>, now, expected: Option<Code>| {
            assert_eq!(admit(rpc, peer, now).err().map(|s| s.code()), expected, "{rpc:?} {peer:?} {now}");
        };
        for rpc in [Rpc::Certify, Rpc::Watch, Rpc::Report, Rpc::Unknown] {
            let open = rpc == Rpc::Certify;
            check(rpc, None, 0, if open { None } else { Some(Code::Unauthenticated) });
            check(rpc, Some(&cart), 99, None);
            check(rpc, Some(&cart), 100, Some(Code::Unauthenticated));
            check(rpc, Some(&controller), 0, Some(Code::PermissionDenied));
        }
    }
}

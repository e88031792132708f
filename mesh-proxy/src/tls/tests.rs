//! Handshakes in memory, with good certificates and every bad kind.

use std::{
    io,
    slice::from_ref,
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_core::{identity::SpiffeId, protocol::MeshAlpn, reason::Reason};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
    string::Ia5String,
};
use rustls::{
    ClientConnection, NamedGroup, ServerConnection,
    client::danger::ServerCertVerifier,
    pki_types::{CertificateDer, ServerName, UnixTime},
    sign::CertifiedKey,
};

use super::*;

pub(super) const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const ADVERSARY: &str = "spiffe://cluster.local/ns/shop/sa/adversary";
pub(super) const JOB: &str = "spiffe://cluster.local/ns/shop/sa/job";

pub(super) struct Ca {
    root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap().der().clone();
        Self { root, issuer: Issuer::new(params, key) }
    }

    /// A certificate with these URIs as the controller would issue it, valid for `hours` since an hour ago.
    pub(super) fn svid(&self, uris: &[&str], hours: i64) -> Result<Svid, SvidError> {
        let request = KeyAndRequest::generate()?;
        let der = request.request.as_slice().into();
        let key = rcgen::CertificateSigningRequestParams::from_der(&der)?.public_key;
        let leaf = leaf(uris, hours).signed_by(&key, &self.issuer).unwrap().der().clone();
        request.certify(vec![leaf], from_ref(&self.root), SystemTime::now())
    }

    pub(super) fn epoch(&self, svid: Svid) -> TlsEpoch {
        TlsEpoch::new(1, Arc::new(svid), vec![self.root.clone()]).unwrap()
    }

    /// Like [`Ca::svid`], without the checks of the holder: what an adversary presents.
    fn unchecked(&self, uris: &[&str], hours: i64) -> Svid {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let leaf = leaf(uris, hours).signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let key = provider().key_provider.load_private_key(key).unwrap();
        svid::forged(id(ADVERSARY), SystemTime::now(), CertifiedKey::new(vec![leaf], key))
    }
}

fn leaf(uris: &[&str], hours: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = time::OffsetDateTime::now_utc() - time::Duration::HOUR;
    params.not_after = params.not_before + time::Duration::hours(hours);
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names =
        uris.iter().map(|uri| SanType::URI(Ia5String::try_from(*uri).unwrap())).collect();
    params
}

/// Runs a handshake to its end: what the client and what the server made of it.
fn handshake(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
) -> Result<(ClientConnection, ServerConnection), io::Error> {
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut client = ClientConnection::new(client, name).map_err(io::Error::other)?;
    let mut server = ServerConnection::new(server).map_err(io::Error::other)?;
    for _ in 0..10 {
        let mut wire = Vec::new();
        client.write_tls(&mut wire)?;
        server.read_tls(&mut wire.as_slice())?;
        let result = server.process_new_packets();
        result.map_err(io::Error::other)?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire)?;
        client.read_tls(&mut wire.as_slice())?;
        let result = client.process_new_packets();
        result.map_err(io::Error::other)?;
        if !client.is_handshaking() && !server.is_handshaking() && !client.wants_write() {
            return Ok((client, server));
        }
    }
    Err(io::Error::other("the handshake does not end"))
}

pub(super) fn id(text: &str) -> SpiffeId {
    text.parse().unwrap()
}

#[test]
fn both_sides_know_each_other_with_post_quantum_keys() {
    let ca = Ca::new();
    let cart = ca.epoch(ca.svid(&[CART], 24).unwrap());
    let job = ca.epoch(ca.svid(&[JOB], 24).unwrap());
    let client = job.client_config(&id(CART), MeshAlpn::H2);
    let (client, server) = handshake(client, cart.server_config()).unwrap();
    assert_eq!(peer_identity(client.peer_certificates()), Ok(id(CART)));
    assert_eq!(peer_identity(server.peer_certificates()), Ok(id(JOB)));
    assert_eq!(server.alpn_protocol(), Some(MeshAlpn::H2.as_bytes()));
    let group = server.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
}

#[test]
fn a_session_is_resumed_within_an_epoch_and_not_beyond() {
    let ca = Ca::new();
    let cart = ca.epoch(ca.svid(&[CART], 24).unwrap());
    let job = ca.epoch(ca.svid(&[JOB], 24).unwrap());
    let kind_with = |alpn, job: &TlsEpoch, cart: &TlsEpoch| {
        let config = job.client_config(&id(CART), alpn);
        let (mut client, mut server) = handshake(config, cart.server_config()).unwrap();
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets().unwrap();
        assert_eq!(peer_identity(server.peer_certificates()), Ok(id(JOB)));
        server.handshake_kind().unwrap()
    };
    let kind = |job: &TlsEpoch, cart: &TlsEpoch| kind_with(MeshAlpn::H2, job, cart);
    assert_eq!(kind(&job, &cart), rustls::HandshakeKind::Full);
    assert_eq!(kind(&job, &cart), rustls::HandshakeKind::Resumed);
    assert_eq!(kind_with(MeshAlpn::Tcp, &job, &cart), rustls::HandshakeKind::Resumed, "another protocol");
    let newer = ca.epoch(ca.svid(&[CART], 24).unwrap());
    assert_eq!(kind(&job, &newer), rustls::HandshakeKind::Full);
}

#[test]
fn a_server_with_another_identity_is_refused() {
    let ca = Ca::new();
    let cart = ca.epoch(ca.svid(&[CART], 24).unwrap());
    let job = ca.epoch(ca.svid(&[JOB], 24).unwrap());
    let config = job.client_config(&id("spiffe://cluster.local/ns/shop/sa/catalog"), MeshAlpn::H1);
    let error = handshake(config, cart.server_config()).unwrap_err();
    assert_eq!(handshake_reason(&error), Reason::IdentityMismatch);
}

/// A caller and a server with such a certificate are both refused.
fn check_refused(bad: impl Fn(&Ca) -> Svid, expected: &str) {
    let ca = Ca::new();
    let cart = ca.epoch(ca.svid(&[CART], 24).unwrap());
    let adversary = ca.epoch(bad(&ca));
    let as_caller = handshake(adversary.client_config(&id(CART), MeshAlpn::H2), cart.server_config());
    let error = as_caller.unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
    let as_server = handshake(cart.client_config(&id(ADVERSARY), MeshAlpn::H2), adversary.server_config());
    let error = as_server.unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn expired_certificates_are_refused() {
    check_refused(|ca| ca.unchecked(&[ADVERSARY], 0), "expired");
}

#[test]
fn foreign_certificates_are_refused() {
    check_refused(|_| Ca::new().unchecked(&[ADVERSARY], 24), "BadSignature");
}

#[test]
fn certificates_with_two_uris_are_refused() {
    check_refused(|ca| ca.unchecked(&[ADVERSARY, CART], 24), "2 URI SANs");
}

#[test]
fn certificates_without_uri_are_refused() {
    check_refused(|ca| ca.unchecked(&[], 24), "0 URI SANs");
}

#[test]
fn certificates_with_a_uri_that_is_no_spiffe_id_are_refused() {
    check_refused(|ca| ca.unchecked(&["https://cluster.local/ns/shop"], 24), "SPIFFE ID");
}

#[test]
fn callers_of_another_trust_domain_are_refused() {
    let ca = Ca::new();
    let cart = ca.epoch(ca.svid(&[CART], 24).unwrap());
    let other = ca.epoch(ca.svid(&["spiffe://other.mesh/ns/shop/sa/job"], 24).unwrap());
    let error = handshake(other.client_config(&id(CART), MeshAlpn::H2), cart.server_config()).unwrap_err();
    assert!(error.to_string().contains("another trust domain"), "{error}");
}

#[test]
fn callers_without_certificate_are_refused() {
    let ca = Ca::new();
    let cart = ca.epoch(ca.svid(&[CART], 24).unwrap());
    let anchors = Anchors::Roots(Arc::new(root_store(from_ref(&ca.root)).unwrap()));
    let mut config =
        ClientConfig::clone(&control_config(ExpectedServer::new(anchors, id(CART)), None).unwrap());
    config.alpn_protocols = vec![MeshAlpn::H2.as_bytes().to_vec()];
    let error = handshake(Arc::new(config), cart.server_config()).unwrap_err();
    assert!(error.to_string().contains("peer sent no certificates"), "{error}");
}

#[test]
fn a_pin_accepts_the_chain_that_holds_the_root_and_no_other() {
    let ca = Ca::new();
    let leaf = ca.svid(&[CART], 24).unwrap().certified().cert;
    let chain = |root: &CertificateDer<'static>| [leaf.clone(), vec![root.clone()]].concat();
    let verify = |pin: [u8; 32], chain: &[CertificateDer<'static>]| {
        let verifier = ExpectedServer::new(Anchors::Pin(pin), id(CART));
        let name = ServerName::try_from("127.0.0.1").unwrap();
        ServerCertVerifier::verify_server_cert(&verifier, &chain[0], &chain[1..], &name, &[], UnixTime::now())
    };
    let pin = sha256(&ca.root);
    assert!(verify(pin, &chain(&ca.root)).is_ok());
    assert!(verify(pin, &leaf).is_err(), "the root is missing");
    let foreign = Ca::new();
    assert!(verify(sha256(&foreign.root), &chain(&ca.root)).is_err(), "another pin");
    assert!(verify(sha256(&foreign.root), &chain(&foreign.root)).is_err(), "another root pasted in");
}

#[test]
fn an_issued_chain_must_fit_key_and_roots() {
    let (ca, foreign) = (Ca::new(), Ca::new());
    let chain = ca.svid(&[CART], 24).unwrap().certified().cert;
    let now = SystemTime::now();
    let certify = |roots: &[CertificateDer<'static>], chain| {
        KeyAndRequest::generate().unwrap().certify(chain, roots, now).map(|_| ())
    };
    assert!(matches!(certify(from_ref(&ca.root), chain.clone()), Err(SvidError::Rustls(_))), "another's key");
    assert!(matches!(certify(from_ref(&foreign.root), chain), Err(SvidError::Rustls(_))), "another root");
    assert!(matches!(certify(from_ref(&ca.root), vec![]), Err(SvidError::Length(0))));
    assert!(ca.svid(&[CART], 24).unwrap().is_trusted_by(from_ref(&ca.root), now));
    assert!(!ca.svid(&[CART], 24).unwrap().is_trusted_by(from_ref(&foreign.root), now));
}

/// What becomes of a peer's connection when the certificate is renewed, and when the roots change.
#[tokio::test]
async fn a_connection_outlives_a_renewal_but_not_its_root() {
    let (ca, foreign) = (Ca::new(), Ca::new());
    let epoch = |generation, roots: &[&Ca]| {
        let roots: Vec<_> = roots.iter().map(|ca| ca.root.clone()).collect();
        Arc::new(TlsEpoch::new(generation, Arc::new(ca.svid(&[CART], 24).unwrap()), roots).unwrap())
    };
    let chain = ca.svid(&[JOB], 24).unwrap().certified().cert.as_slice().into();
    for side in [Side::Caller, Side::Callee] {
        let epochs = tokio::sync::watch::Sender::new(Some(epoch(1, &[&ca])));
        let roots = epochs.borrow().as_ref().unwrap().roots_hash;
        let credentials = Credentials::new(side, Some(&chain), roots).unwrap();
        let changes = epochs.subscribe();
        let ended = tokio::spawn(async move { credentials.withdrawn(changes).await });
        for (generation, roots) in [(2, [&ca].as_slice()), (3, &[&ca, &foreign])] {
            epochs.send_replace(Some(epoch(generation, roots)));
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert!(!ended.is_finished(), "{side:?} after epoch {generation}");
        }
        epochs.send_replace(Some(epoch(4, &[&foreign])));
        tokio::time::timeout(Duration::from_secs(5), ended).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_connection_does_not_outlive_its_certificate() {
    let ca = Ca::new();
    let epochs = tokio::sync::watch::Sender::new(None);
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = leaf(&[JOB], 24);
    params.not_after = time::OffsetDateTime::now_utc() + time::Duration::seconds(2);
    let chain = [params.signed_by(&key, &ca.issuer).unwrap().der().clone()].into();
    let credentials = Credentials::new(Side::Caller, Some(&chain), [0; 32]).unwrap();
    let changes = epochs.subscribe();
    let ended = tokio::spawn(async move { credentials.withdrawn(changes).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!ended.is_finished(), "still valid");
    tokio::time::timeout(Duration::from_secs(5), ended).await.unwrap().unwrap();
}

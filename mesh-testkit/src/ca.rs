//! A throw-away trust domain: root, issuer, and certificates that are good, or bad in one way.

use std::time::Duration;

use mesh_core::{
    config::TrustBundle,
    identity::{SpiffeId, TrustDomain},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;

/// A trust domain with a self-signed root and an issuer below it, as the mesh's controller has.
pub struct TestCa {
    trust_domain: TrustDomain,
    root: CertifiedIssuer<'static, KeyPair>,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate chain, leaf first, with the leaf's key.
pub struct Svid {
    /// Leaf and issuer.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
}

impl Clone for Svid {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

/// What is wrong with a certificate. A foreign root is another [`TestCa`] of the same trust domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Its time is over since an hour.
    Expired,
    /// Its time begins in an hour.
    NotYetValid,
    /// Its SANs hold a second URI.
    TwoUris,
    /// It has no SANs.
    NoSan,
    /// It may sign certificates.
    Ca,
    /// Its only SAN is a DNS name.
    DnsOnly,
}

impl Flaw {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Expired, Self::NotYetValid, Self::TwoUris, Self::NoSan, Self::Ca, Self::DnsOnly];
}

const HOUR: Duration = Duration::from_secs(3600);

impl TestCa {
    /// A new trust domain.
    ///
    /// # Panics
    /// When `trust_domain` is no trust domain.
    #[must_use]
    pub fn new(trust_domain: &str) -> Self {
        let key = || KeyPair::generate().expect("a key");
        let root = CertifiedIssuer::self_signed(authority("root"), key()).expect("a root");
        let issuer = CertifiedIssuer::signed_by(authority("issuer"), key(), &root).expect("an issuer");
        Self { trust_domain: trust_domain.parse().expect("a trust domain"), root, issuer }
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> CertificateDer<'static> {
        self.root.as_ref().der().clone()
    }

    /// The issuer's certificate.
    #[must_use]
    pub fn issuer(&self) -> CertificateDer<'static> {
        self.issuer.as_ref().der().clone()
    }

    /// The root, PEM.
    #[must_use]
    pub fn root_pem(&self) -> String {
        self.root.as_ref().pem()
    }

    /// SHA-256 of the root's DER, in lower-case hexadecimal: what a pin holds.
    #[must_use]
    pub fn root_sha256(&self) -> String {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, self.root.as_ref().der());
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The bundle that proxies are sent.
    #[must_use]
    pub fn bundle(&self) -> TrustBundle {
        TrustBundle {
            trust_domain: self.trust_domain.clone(),
            roots: vec![self.root.as_ref().der().to_vec()],
        }
    }

    /// The ID of a service account of this trust domain.
    ///
    /// # Panics
    /// When a name is not valid.
    #[must_use]
    pub fn id(&self, namespace: &str, service_account: &str) -> SpiffeId {
        SpiffeId::service_account(&self.trust_domain, namespace, service_account).expect("valid names")
    }

    /// A good certificate for a service account.
    #[must_use]
    pub fn svid(&self, namespace: &str, service_account: &str) -> Svid {
        self.issue(&leaf(&self.id(namespace, service_account)))
    }

    /// The controller's: its chain includes the root, so that a pin can be checked.
    #[must_use]
    pub fn controller(&self) -> Svid {
        let mut svid = self.issue(&leaf(&SpiffeId::controller(&self.trust_domain)));
        svid.chain.push(self.root());
        svid
    }

    /// A certificate for `id` that is bad in one way.
    #[must_use]
    pub fn flawed(&self, id: &SpiffeId, flaw: Flaw) -> Svid {
        let mut params = leaf(id);
        let now = OffsetDateTime::now_utc();
        match flaw {
            Flaw::Expired => (params.not_before, params.not_after) = (now - 2 * HOUR, now - HOUR),
            Flaw::NotYetValid => (params.not_before, params.not_after) = (now + HOUR, now + 2 * HOUR),
            Flaw::TwoUris => params.subject_alt_names.push(uri(&format!("{id}-2"))),
            Flaw::NoSan => params.subject_alt_names.clear(),
            Flaw::Ca => {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                params.key_usages.push(KeyUsagePurpose::KeyCertSign);
            }
            Flaw::DnsOnly => params.subject_alt_names = vec![dns("cart.shop.svc.cluster.local")],
        }
        self.issue(&params)
    }

    /// An ordinary certificate of a web server.
    #[must_use]
    pub fn web(&self, name: &str) -> Svid {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![dns(name)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(&params)
    }

    /// Signs the public key of a certificate request (PKCS #10, DER) as `id`; leaf and issuer. None: the request is
    /// broken.
    #[must_use]
    pub fn certify(&self, id: &SpiffeId, csr_der: &[u8], lifetime: Duration) -> Option<Vec<Vec<u8>>> {
        let request =
            CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr_der)).ok()?;
        let mut params = leaf(id);
        params.not_after = OffsetDateTime::now_utc() + lifetime;
        let chain = self.sign(&params, &request.public_key);
        Some(chain.into_iter().map(|certificate| certificate.to_vec()).collect())
    }

    fn issue(&self, params: &CertificateParams) -> Svid {
        let key = KeyPair::generate().expect("a key");
        let chain = self.sign(params, &key);
        Svid { chain, key: PrivatePkcs8KeyDer::from(key.serialize_der()).into() }
    }

    fn sign(&self, params: &CertificateParams, key: &impl PublicKeyData) -> Vec<CertificateDer<'static>> {
        let leaf = params.signed_by(key, &self.issuer).expect("a certificate");
        vec![leaf.der().clone(), self.issuer()]
    }
}

/// The only URI among the SANs of a certificate, when it is a SPIFFE ID.
#[must_use]
pub fn identity_of(certificate: &[u8]) -> Option<SpiffeId> {
    use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let names = &certificate.subject_alternative_name().ok()??.value.general_names;
    match names.as_slice() {
        [GeneralName::URI(uri)] => uri.parse().ok(),
        _ => None,
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("test {name}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf(id: &SpiffeId) -> CertificateParams {
    let mut params = CertificateParams::default();
    let now = OffsetDateTime::now_utc();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![uri(id.as_str())];
    (params.not_before, params.not_after) = (now - Duration::from_secs(60), now + HOUR);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("ASCII"))
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().expect("ASCII"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_name_who_they_are_for() {
        let ca = TestCa::new("cluster.local");
        let id = ca.id("shop", "cart");
        assert_eq!(identity_of(&ca.svid("shop", "cart").chain[0]), Some(id.clone()));
        let controller = ca.controller();
        assert_eq!(identity_of(&controller.chain[0]), Some(SpiffeId::controller(ca.trust_domain())));
        assert_eq!(controller.chain[2], ca.root());
        for flaw in [Flaw::TwoUris, Flaw::NoSan, Flaw::DnsOnly] {
            assert_eq!(identity_of(&ca.flawed(&id, flaw).chain[0]), None, "{flaw:?}");
        }
        assert_eq!(ca.root_sha256().len(), 64);
    }

    #[test]
    fn only_the_key_of_a_request_is_used() {
        let ca = TestCa::new("cluster.local");
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(["other.name".to_owned()]).expect("params");
        let request = params.serialize_request(&key).expect("a request");
        let chain = ca.certify(&ca.id("shop", "cart"), request.der(), HOUR).expect("certified");
        assert_eq!(identity_of(&chain[0]), Some(ca.id("shop", "cart")));
        assert_eq!(ca.certify(&ca.id("shop", "cart"), b"nonsense", HOUR), None);
    }
}

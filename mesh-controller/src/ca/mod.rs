//! The certificate authority: one root, one issuer under it, short-lived leafs.
//!
//! A leaf holds nothing that the requester chose but its public key (see [`csr`]). The root's key signs issuers only.

mod authority;
mod csr;
mod directory;
mod secret;
mod tokens;

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use mesh_core::identity::SpiffeId;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;

pub use self::authority::CaError;
use self::{
    authority::{IssuingKey, Root},
    csr::public_key,
    directory::Directory,
};
pub(crate) use self::{csr::CsrError, tokens::Tokens};
use crate::kubernetes::Secrets;

/// How far back leafs begin, so that a peer whose clock is a little late accepts them.
const BACKDATE: Duration = Duration::from_secs(300);
/// How often it is seen to that the issuer is the right one.
const FOLLOW: Duration = Duration::from_secs(300);
/// Wait after a failure to renew one of the controller's own.
const RETRY: Duration = Duration::from_secs(60);

/// A certificate that was issued.
pub(crate) struct Leaf {
    /// Leaf first, then the issuer; the root left out.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// When it expires, in seconds since the Unix epoch.
    pub(crate) not_after: i64,
    /// Serial number, hexadecimal, for the audit log.
    pub(crate) serial: String,
}

/// Where the authority is kept.
enum Store {
    /// In files: this controller is the only one.
    Directory(Directory),
    /// In a Secret that all replicas share; keys are in memory only.
    Secret(Box<Secrets>),
}

/// The certificate authority of one trust domain.
pub(crate) struct Ca {
    store: Store,
    root: Root,
    issuer: ArcSwap<IssuingKey>,
    leaf_lifetime: Duration,
}

impl Ca {
    /// Loads the authority from `directory`, or makes it there. A start after a crash finds all of it or nothing.
    pub(crate) fn open(
        directory: &Path,
        trust_domain: &str,
        leaf_lifetime: Duration,
    ) -> Result<Self, CaError> {
        let (directory, root, issuer) = Directory::open(directory, trust_domain)?;
        let store = Store::Directory(directory);
        Ok(Self { store, root, issuer: ArcSwap::from_pointee(issuer), leaf_lifetime })
    }

    /// Loads the authority from its Secret, or makes it there. Replicas that start together end up with the same one.
    pub(crate) async fn open_in(
        secrets: Secrets,
        trust_domain: &str,
        leaf_lifetime: Duration,
    ) -> Result<Self, CaError> {
        let (root, issuer) = secret::open(&secrets, trust_domain).await?;
        let store = Store::Secret(Box::new(secrets));
        Ok(Self { store, root, issuer: ArcSwap::from_pointee(issuer), leaf_lifetime })
    }

    /// Sees that the issuer is the one that is kept, and replaces it there when two thirds of its life are over. True
    /// when it is another than before.
    pub(crate) async fn renew_issuer(&self, now: SystemTime) -> Result<bool, CaError> {
        let current = self.issuer.load_full();
        let next = match &self.store {
            Store::Directory(directory) if self.root.is_due(&current, unix(now)) => {
                Some(directory.new_issuer(&self.root)?)
            }
            Store::Directory(_) => None,
            Store::Secret(secrets) => secret::follow(secrets, &self.root, &current, unix(now)).await?,
        };
        let is_new = next.is_some();
        if let Some(next) = next {
            tracing::info!(not_after = next.not_after, "certificates come from another issuer from now on");
            self.issuer.store(next.into());
        }
        Ok(is_new)
    }

    /// Renews the issuer in time, for ever.
    pub(crate) async fn keep_fresh(&self) {
        loop {
            // Not all replicas at once.
            tokio::time::sleep(FOLLOW.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
            if let Err(error) = self.renew_issuer(SystemTime::now()).await {
                tracing::error!(%error, "the issuer cannot be looked after");
            }
        }
    }

    /// The root certificate.
    pub(crate) fn root(&self) -> &CertificateDer<'static> {
        &self.root.certificate
    }

    /// The root certificate, PEM.
    pub(crate) fn root_pem(&self) -> &str {
        &self.root.pem
    }

    /// SHA-256 of the root's DER, lower-case hexadecimal: what a proxy pins.
    pub(crate) fn root_sha256(&self) -> String {
        sha256_hex(self.root())
    }

    /// When the root expires, in seconds since the Unix epoch.
    pub(crate) fn root_not_after(&self) -> i64 {
        self.root.not_after
    }

    /// When the issuer expires, in seconds since the Unix epoch.
    pub(crate) fn issuer_not_after(&self) -> i64 {
        self.issuer.load().not_after
    }

    /// Issues a leaf for `identity` to the public key of a certificate request.
    pub(crate) fn certify(&self, identity: &SpiffeId, csr_der: &[u8]) -> Result<Leaf, CsrError> {
        let key = public_key(csr_der, identity)?;
        self.sign_identity(identity, &key)
    }

    /// Issues a leaf for `identity` to a key made here; for the controller's own use.
    pub(crate) fn certify_own(
        &self,
        identity: &SpiffeId,
    ) -> Result<(Leaf, PrivateKeyDer<'static>), CsrError> {
        let key = rcgen::KeyPair::generate()?;
        let mut leaf = self.sign_identity(identity, &key)?;
        leaf.chain.push(self.root().clone());
        Ok((leaf, PrivatePkcs8KeyDer::from(key.serialize_der()).into()))
    }

    /// Issues a leaf for DNS names to a key made here: what the webhook serves with. It names no identity, so that no
    /// proxy takes it for a peer.
    pub(crate) fn certify_server(
        &self,
        dns_names: &[String],
    ) -> Result<(Leaf, PrivateKeyDer<'static>), CsrError> {
        let key = rcgen::KeyPair::generate()?;
        let names = dns_names.iter().map(|name| Ok(SanType::DnsName(name.as_str().try_into()?)));
        let names = names.collect::<Result<Vec<_>, rcgen::Error>>()?;
        let leaf = self.sign(names, vec![ExtendedKeyUsagePurpose::ServerAuth], &key)?;
        Ok((leaf, PrivatePkcs8KeyDer::from(key.serialize_der()).into()))
    }

    fn sign_identity(&self, identity: &SpiffeId, key: &impl PublicKeyData) -> Result<Leaf, CsrError> {
        let names = vec![SanType::URI(identity.as_str().try_into()?)];
        self.sign(names, vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth], key)
    }

    fn sign(
        &self,
        names: Vec<SanType>,
        usages: Vec<ExtendedKeyUsagePurpose>,
        key: &impl PublicKeyData,
    ) -> Result<Leaf, CsrError> {
        let issuer = self.issuer.load();
        let now = OffsetDateTime::now_utc();
        let end = (now + self.leaf_lifetime).unix_timestamp().min(issuer.not_after);
        let serial = random_serial()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.not_before = now - BACKDATE;
        params.not_after = OffsetDateTime::from_unix_timestamp(end).unwrap_or(now);
        params.subject_alt_names = names;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages;
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(key, &issuer.issuer)?;
        Ok(Leaf {
            chain: vec![leaf.der().clone(), issuer.certificate.clone()],
            not_after: end,
            serial: hex(&serial),
        })
    }
}

/// When a holder should renew: half of what is left, ± a tenth of it, so that proxies that started together spread.
pub(crate) fn renew_after(not_after: i64, now: SystemTime) -> Duration {
    let left = Duration::from_secs(u64::try_from(not_after - unix(now)).unwrap_or(0));
    left.mul_f64(0.5 + (fastrand::f64() - 0.5) * 0.1)
}

/// Renews a certificate of the controller's own in time, for ever. `certify` has a new one served, and returns when that
/// expires; `what` is whose it is, in the log.
pub(crate) async fn keep_fresh<E: std::fmt::Display>(
    what: &str,
    first_not_after: i64,
    certify: impl Fn() -> Result<i64, E>,
) {
    let mut wait = renew_after(first_not_after, SystemTime::now());
    loop {
        tokio::time::sleep(wait.max(Duration::from_secs(1))).await;
        match certify() {
            Ok(not_after) => wait = renew_after(not_after, SystemTime::now()),
            Err(error) => {
                tracing::error!(%error, "the {what}'s certificate cannot be renewed");
                wait = RETRY;
            }
        }
    }
}

/// A name of the authority's own certificates.
fn authority_name(role: &str, trust_domain: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, trust_domain);
    name.push(DnType::CommonName, format!("mesh {role}"));
    name
}

/// 16 random bytes, positive and without leading zeros (RFC 5280 section 4.1.2.2).
fn random_serial() -> Result<[u8; 16], rcgen::Error> {
    let mut serial = random::<16>()?;
    serial[0] = (serial[0] & 0x3f) | 0x40;
    Ok(serial)
}

/// Random bytes for keys and tokens.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], rcgen::Error> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| rcgen::Error::RingUnspecified)?;
    Ok(bytes)
}

/// SHA-256 as lower-case hexadecimal.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Seconds since the Unix epoch.
pub(crate) fn unix(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;

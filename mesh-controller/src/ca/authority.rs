//! What the authority is, wherever it is kept: a root, and an issuer under it, each a certificate and its key as PEM.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SerialNumber};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use time::OffsetDateTime;

use super::{BACKDATE, authority_name, random_serial};
use crate::{data_dir::DataDirError, kubernetes::ClusterError};

const ROOT_DAYS: i64 = 3650;
const ISSUER_DAYS: i64 = 365;
const DAY: i64 = 86_400;

/// Why there is no certificate authority.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file cannot be read or written, or others may read it.
    #[error(transparent)]
    Files(#[from] DataDirError),
    /// A Secret cannot be read or written.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// What is kept is not what it should be.
    #[error(
        "{place} is not usable: {problem}; restore it from a backup, or move {whole} away to begin with a new mesh (all proxies must then get the new trust bundle)"
    )]
    Damaged {
        /// The file, or the key of a Secret.
        place: String,
        /// The directory, or the Secret.
        whole: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Others have put another root where ours was kept.
    #[error(
        "{0} holds another root than this controller began with: restart all controllers to change over, or restore it"
    )]
    Exchanged(String),
    /// Proxies trust an authority whose keys are not there.
    #[error(
        "{secret} is missing, but {bundle} says that a mesh is in use: restore {secret}, or delete this ConfigMap to begin a new mesh (all proxies must then be restarted)"
    )]
    Lost {
        /// The Secret.
        secret: String,
        /// The ConfigMap with the roots of that mesh.
        bundle: String,
    },
    /// Others change what is kept all the time.
    #[error("{0} is changed by others again and again: see who does")]
    Busy(String),
    /// Keys could not be made or used.
    #[error("cannot make a certificate: {0}")]
    Crypto(#[from] rcgen::Error),
}

/// Names of what is kept: files of a directory, or keys of a Secret.
pub(super) const ROOT: Names = Names { certificate: "root.pem", key: "root.key" };
/// The same for the issuer.
pub(super) const ISSUER: Names = Names { certificate: "issuer.pem", key: "issuer.key" };

/// Names of a certificate and its key.
pub(super) struct Names {
    pub(super) certificate: &'static str,
    pub(super) key: &'static str,
}

/// A certificate and its key, PEM.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// Where the authority is kept, for people.
pub(super) struct Place {
    /// The directory, or the Secret.
    pub(super) whole: String,
    /// What stands between it and a name in it.
    pub(super) separator: &'static str,
}

impl Place {
    /// Something in it is not what it should be.
    pub(super) fn damaged(&self, name: &str, problem: impl Into<String>) -> CaError {
        let place = format!("{}{}{name}", self.whole, self.separator);
        CaError::Damaged { place, whole: self.whole.clone(), problem: problem.into() }
    }
}

/// The root, in memory.
pub(super) struct Root {
    trust_domain: String,
    issuer: Issuer<'static, KeyPair>,
    pub(super) certificate: CertificateDer<'static>,
    pub(super) pem: String,
    pub(super) not_after: i64,
}

/// The issuer, in memory: what signs leafs.
pub(super) struct IssuingKey {
    pub(super) issuer: Issuer<'static, KeyPair>,
    pub(super) certificate: CertificateDer<'static>,
    pub(super) not_after: i64,
    pem: String,
}

/// Makes a root and its issuer.
pub(super) fn create(trust_domain: &str) -> Result<(Pair, Pair), CaError> {
    let key = KeyPair::generate()?;
    let params =
        authority_params("root", trust_domain, ROOT_DAYS, i64::MAX, BasicConstraints::Unconstrained)?;
    let root = Pair { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem() };
    let not_after = params.not_after.unix_timestamp();
    Ok((root, sign_issuer(trust_domain, &Issuer::new(params, key), not_after)?))
}

impl Root {
    /// Reads what is kept. None in place of a pair: the certificate or its key is missing.
    pub(super) fn read(pair: Option<&Pair>, trust_domain: &str, place: &Place) -> Result<Self, CaError> {
        let missing = || {
            place.damaged(
                ROOT.certificate,
                "it, or its key beside it, is missing or they do not belong together",
            )
        };
        let read = Parsed::read(pair.ok_or_else(missing)?, &ROOT, place)?.ok_or_else(missing)?;
        let made_for = organisation(&read.certificate);
        if made_for.as_deref() != Some(trust_domain) {
            let made_for = made_for.unwrap_or_default();
            let problem = format!("it was made for trust domain {made_for:?}, not {trust_domain:?}");
            return Err(place.damaged(ROOT.certificate, problem));
        }
        Ok(Self {
            trust_domain: trust_domain.to_owned(),
            issuer: read.issuer,
            certificate: read.certificate,
            pem: read.pem,
            not_after: read.not_after,
        })
    }

    /// Reads an issuer. None: it is missing, or not of this root.
    pub(super) fn issuer(&self, pair: Option<&Pair>, place: &Place) -> Result<Option<IssuingKey>, CaError> {
        let Some(pair) = pair else { return Ok(None) };
        let read = Parsed::read(pair, &ISSUER, place)?
            .filter(|read| issued_by(&read.certificate, &self.certificate));
        Ok(read.map(|read| IssuingKey {
            issuer: read.issuer,
            certificate: read.certificate,
            not_after: read.not_after,
            pem: read.pem,
        }))
    }

    /// Makes another issuer.
    pub(super) fn new_issuer(&self) -> Result<Pair, CaError> {
        sign_issuer(&self.trust_domain, &self.issuer, self.not_after)
    }

    /// True when less than a third of an issuer's life is left, and another one would live longer.
    pub(super) fn is_due(&self, issuer: &IssuingKey, now: i64) -> bool {
        issuer.not_after - now < ISSUER_DAYS * DAY / 3 && issuer.not_after < self.not_after
    }

    /// What is to be kept of it.
    pub(super) fn pair(&self) -> Pair {
        Pair { certificate: self.pem.clone(), key: self.issuer.key().serialize_pem() }
    }
}

impl IssuingKey {
    /// What is to be kept of it.
    pub(super) fn pair(&self) -> Pair {
        Pair { certificate: self.pem.clone(), key: self.issuer.key().serialize_pem() }
    }
}

fn sign_issuer(trust_domain: &str, root: &Issuer<'_, KeyPair>, root_not_after: i64) -> Result<Pair, CaError> {
    let key = KeyPair::generate()?;
    let constraints = BasicConstraints::Constrained(0);
    let mut params = authority_params("issuer", trust_domain, ISSUER_DAYS, root_not_after, constraints)?;
    params.use_authority_key_identifier_extension = true;
    Ok(Pair { certificate: params.signed_by(&key, root)?.pem(), key: key.serialize_pem() })
}

fn authority_params(
    role: &str,
    trust_domain: &str,
    days: i64,
    latest: i64,
    constraints: BasicConstraints,
) -> Result<CertificateParams, CaError> {
    let now = OffsetDateTime::now_utc();
    let end = (now.unix_timestamp() + days * DAY).min(latest);
    let mut params = CertificateParams::default();
    params.distinguished_name = authority_name(role, trust_domain);
    params.serial_number = Some(SerialNumber::from_slice(&random_serial()?));
    params.not_before = now - BACKDATE;
    params.not_after = OffsetDateTime::from_unix_timestamp(end).unwrap_or(now);
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// A certificate and its key, read.
struct Parsed {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    not_after: i64,
}

impl Parsed {
    /// None: they do not belong together.
    fn read(pair: &Pair, names: &Names, place: &Place) -> Result<Option<Self>, CaError> {
        let key = KeyPair::from_pem(&pair.key).map_err(|e| place.damaged(names.key, e.to_string()))?;
        let damaged = |problem: String| place.damaged(names.certificate, problem);
        let certificate = CertificateDer::from_pem_slice(pair.certificate.as_bytes())
            .map_err(|e| damaged(e.to_string()))?;
        let (not_after, same_key) = {
            let (_, parsed) =
                x509_parser::parse_x509_certificate(&certificate).map_err(|e| damaged(e.to_string()))?;
            let same_key = parsed.public_key().subject_public_key.data == key.public_key_raw();
            (parsed.validity().not_after.timestamp(), same_key)
        };
        if !same_key {
            return Ok(None);
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Some(Self { issuer, certificate, pem: pair.certificate.clone(), not_after }))
    }
}

fn issued_by(issuer: &CertificateDer<'_>, root: &CertificateDer<'_>) -> bool {
    let (Ok((_, issuer)), Ok((_, root))) =
        (x509_parser::parse_x509_certificate(issuer), x509_parser::parse_x509_certificate(root))
    else {
        return false;
    };
    issuer.verify_signature(Some(root.public_key())).is_ok()
}

fn organisation(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    parsed.subject().iter_organization().next()?.as_str().ok().map(str::to_owned)
}

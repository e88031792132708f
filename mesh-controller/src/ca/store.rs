//! The authority on disk: `ca/{root,issuer}.{pem,key}`, made whole or not at all.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SerialNumber};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use time::OffsetDateTime;

use super::{BACKDATE, authority_name, random_serial};
use crate::data_dir::{self, DataDirError, PRIVATE, PUBLIC, on};

const ROOT_DAYS: i64 = 3650;
const ISSUER_DAYS: i64 = 365;
const DAY: i64 = 86_400;

/// Why there is no certificate authority.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file cannot be read or written, or others may read it.
    #[error(transparent)]
    Files(#[from] DataDirError),
    /// A file does not hold what it should.
    #[error("{} is not usable: {problem}; restore it from a backup, or move the directory {} away to begin with a new mesh (all proxies must then get the new trust bundle)",
        path.display(), path.parent().unwrap_or(path).display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Keys could not be made or used.
    #[error("cannot make a certificate: {0}")]
    Crypto(#[from] rcgen::Error),
}

/// The root: its certificate, its key and where they are.
pub(super) struct Stored {
    directory: PathBuf,
    trust_domain: String,
    issuer: Issuer<'static, KeyPair>,
    pub(super) certificate: CertificateDer<'static>,
    pub(super) pem: String,
    pub(super) not_after: i64,
}

/// The issuer: what signs leafs.
pub(super) struct IssuingKey {
    pub(super) issuer: Issuer<'static, KeyPair>,
    pub(super) certificate: CertificateDer<'static>,
    pub(super) not_after: i64,
}

impl IssuingKey {
    /// True when less than a third of its life is left.
    pub(super) fn is_due(&self, now: i64) -> bool {
        self.not_after - now < ISSUER_DAYS * DAY / 3
    }
}

impl Stored {
    /// Makes a new issuer and replaces the one on disk. Key first: a crash between both leaves a pair that does not
    /// match, which the next start replaces again.
    pub(super) fn new_issuer(&self) -> Result<IssuingKey, CaError> {
        let (pem, key) = sign_issuer(&self.trust_domain, &self.issuer, self.not_after)?;
        data_dir::write_atomic(&self.directory.join("issuer.key"), PRIVATE, key.serialize_pem().as_bytes())?;
        data_dir::write_atomic(&self.directory.join("issuer.pem"), PUBLIC, pem.as_bytes())?;
        read_issuer(&self.directory)?
            .ok_or_else(|| damaged(&self.directory.join("issuer.pem"), "it vanished"))
    }
}

/// Loads the authority, or makes it when `directory` does not exist.
pub(super) fn load_or_create(directory: &Path, trust_domain: &str) -> Result<(Stored, IssuingKey), CaError> {
    if !directory.exists() {
        create(directory, trust_domain)?;
    }
    data_dir::make_private_dir(directory)?;
    let root = read_root(directory, trust_domain)?;
    let issuer = match read_issuer(directory)? {
        Some(issuer) if issued_by(&issuer.certificate, &root.certificate) => issuer,
        _ => root.new_issuer()?,
    };
    Ok((root, issuer))
}

/// Makes all files in a directory beside, and renames it at the end: that is the moment when the authority exists.
fn create(directory: &Path, trust_domain: &str) -> Result<(), CaError> {
    let staging = directory.with_extension("new");
    if staging.exists() {
        fs::remove_dir_all(&staging).map_err(on("remove", &staging))?;
    }
    data_dir::make_private_dir(&staging)?;

    let key = KeyPair::generate()?;
    let params =
        authority_params("root", trust_domain, ROOT_DAYS, i64::MAX, BasicConstraints::Unconstrained)?;
    let pem = params.self_signed(&key)?.pem();
    let key_pem = key.serialize_pem();
    let (issuer_pem, issuer_key) =
        sign_issuer(trust_domain, &Issuer::new(params.clone(), key), params.not_after.unix_timestamp())?;

    data_dir::write_new(&staging.join("root.key"), PRIVATE, key_pem.as_bytes())?;
    data_dir::write_new(&staging.join("root.pem"), PUBLIC, pem.as_bytes())?;
    data_dir::write_new(&staging.join("issuer.key"), PRIVATE, issuer_key.serialize_pem().as_bytes())?;
    data_dir::write_new(&staging.join("issuer.pem"), PUBLIC, issuer_pem.as_bytes())?;
    data_dir::sync_dir(&staging)?;
    fs::rename(&staging, directory).map_err(on("create", directory))?;
    data_dir::sync_dir(directory.parent().unwrap_or(directory))?;
    Ok(())
}

fn sign_issuer(
    trust_domain: &str,
    root: &Issuer<'_, KeyPair>,
    root_not_after: i64,
) -> Result<(String, KeyPair), CaError> {
    let key = KeyPair::generate()?;
    let mut params = authority_params(
        "issuer",
        trust_domain,
        ISSUER_DAYS,
        root_not_after,
        BasicConstraints::Constrained(0),
    )?;
    params.use_authority_key_identifier_extension = true;
    Ok((params.signed_by(&key, root)?.pem(), key))
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

fn read_root(directory: &Path, trust_domain: &str) -> Result<Stored, CaError> {
    let path = directory.join("root.pem");
    let pair = read_pair(directory, "root")?.ok_or_else(|| {
        damaged(&path, "it, or its key beside it, is missing or they do not belong together")
    })?;
    let made_for = organisation(&pair.certificate);
    if made_for.as_deref() != Some(trust_domain) {
        let made_for = made_for.unwrap_or_default();
        return Err(damaged(
            &path,
            &format!("it was made for trust domain {made_for:?}, not {trust_domain:?}"),
        ));
    }
    Ok(Stored {
        directory: directory.to_owned(),
        trust_domain: trust_domain.to_owned(),
        issuer: pair.issuer,
        certificate: pair.certificate,
        pem: pair.pem,
        not_after: pair.not_after,
    })
}

fn read_issuer(directory: &Path) -> Result<Option<IssuingKey>, CaError> {
    let pair = read_pair(directory, "issuer")?;
    Ok(pair.map(|pair| IssuingKey {
        issuer: pair.issuer,
        certificate: pair.certificate,
        not_after: pair.not_after,
    }))
}

struct Pair {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    not_after: i64,
}

/// Reads a certificate and its key; None when one is missing or they do not belong together.
fn read_pair(directory: &Path, name: &str) -> Result<Option<Pair>, CaError> {
    let (certificate_path, key_path) =
        (directory.join(format!("{name}.pem")), directory.join(format!("{name}.key")));
    let Some(key_pem) = data_dir::read_private(&key_path)? else { return Ok(None) };
    let pem = match fs::read_to_string(&certificate_path) {
        Ok(pem) => pem,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(on("read", &certificate_path)(error).into()),
    };
    let key_pem = String::from_utf8(key_pem).map_err(|_| damaged(&key_path, "it is no text"))?;
    let key = KeyPair::from_pem(&key_pem).map_err(|e| damaged(&key_path, &e.to_string()))?;
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|e| damaged(&certificate_path, &e.to_string()))?;
    let (not_after, same_key) = {
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate)
            .map_err(|e| damaged(&certificate_path, &e.to_string()))?;
        let same_key = parsed.public_key().subject_public_key.data == key.public_key_raw();
        (parsed.validity().not_after.timestamp(), same_key)
    };
    if !same_key {
        return Ok(None);
    }
    let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
    Ok(Some(Pair { issuer, certificate, pem, not_after }))
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

fn damaged(path: &Path, problem: &str) -> CaError {
    CaError::Damaged { path: path.to_owned(), problem: problem.to_owned() }
}

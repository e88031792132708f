//! Certificate requests (PKCS #10, RFC 2986): what is taken from one is its public key, and nothing else.

use mesh_core::identity::SpiffeId;
use rcgen::SubjectPublicKeyInfo;
use x509_parser::{
    certification_request::X509CertificationRequest,
    cri_attributes::ParsedCriAttribute,
    extensions::{GeneralName, ParsedExtension},
    oid_registry,
    prelude::FromDer,
    public_key::PublicKey,
};

/// Largest request that is looked at, in bytes.
pub(crate) const MAX_CSR_BYTES: usize = 8 * 1024;

/// Why a request gets no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CsrError {
    /// It is larger than any honest request.
    #[error("the certificate request has {0} bytes; at most {MAX_CSR_BYTES} are allowed")]
    TooLarge(usize),
    /// It is no PKCS #10 request.
    #[error("the certificate request is malformed ({0}); send one PKCS #10 request, DER")]
    Malformed(&'static str),
    /// Its signature does not prove that the requester holds the key.
    #[error("the certificate request is not signed by the key that it holds")]
    Signature,
    /// Its key is of a kind that the mesh does not use.
    #[error(
        "the key or signature of the certificate request is not allowed: use ECDSA P-256 or P-384, Ed25519, or RSA with 2048 to 8192 bits, without SHA-1"
    )]
    Algorithm,
    /// It asks for the right to issue certificates.
    #[error("the certificate request asks for CA rights; leave basicConstraints and keyCertSign out")]
    CaRights,
    /// It asks for a name that was not proven.
    #[error("the certificate request asks for {asked:?} and the proof is for {proven}; leave names out")]
    OtherName {
        /// The name in the request.
        asked: String,
        /// The name that was proven.
        proven: SpiffeId,
    },
    /// The certificate could not be made: a fault of ours.
    #[error("cannot make the certificate: {0}")]
    Issue(#[from] rcgen::Error),
}

/// Checks a request and returns its public key.
pub(super) fn public_key(der: &[u8], proven: &SpiffeId) -> Result<SubjectPublicKeyInfo, CsrError> {
    if der.len() > MAX_CSR_BYTES {
        return Err(CsrError::TooLarge(der.len()));
    }
    let (rest, request) =
        X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed("no certificate request"))?;
    if !rest.is_empty() {
        return Err(CsrError::Malformed("bytes after its end"));
    }
    check_algorithm(&request)?;
    request.verify_signature().map_err(|_| CsrError::Signature)?;
    // All extension requests are looked at, not only the first.
    for attribute in request.certification_request_info.iter_attributes() {
        match attribute.parsed_attribute() {
            ParsedCriAttribute::ExtensionRequest(asked) => {
                for extension in &asked.extensions {
                    check_extension(extension.parsed_extension(), proven)?;
                }
            }
            _ => continue,
        }
    }
    SubjectPublicKeyInfo::from_der(request.certification_request_info.subject_pki.raw)
        .map_err(|_| CsrError::Algorithm)
}

fn check_algorithm(request: &X509CertificationRequest<'_>) -> Result<(), CsrError> {
    let signature = &request.signature_algorithm.algorithm;
    if *signature == oid_registry::OID_PKCS1_SHA1WITHRSA || *signature == oid_registry::OID_SHA1_WITH_RSA {
        return Err(CsrError::Algorithm);
    }
    let info = &request.certification_request_info.subject_pki;
    let curve = info.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
    let allowed = match info.parsed() {
        Ok(PublicKey::RSA(key)) => (2048..=8192).contains(&key.key_size()),
        Ok(PublicKey::EC(_)) => curve.is_some_and(|curve| {
            curve == oid_registry::OID_EC_P256 || curve == oid_registry::OID_NIST_EC_P384
        }),
        _ => info.algorithm.algorithm == oid_registry::OID_SIG_ED25519,
    };
    if allowed { Ok(()) } else { Err(CsrError::Algorithm) }
}

fn check_extension(extension: &ParsedExtension<'_>, proven: &SpiffeId) -> Result<(), CsrError> {
    match extension {
        ParsedExtension::BasicConstraints(constraints) if constraints.ca => Err(CsrError::CaRights),
        ParsedExtension::KeyUsage(usage) if usage.key_cert_sign() || usage.crl_sign() => {
            Err(CsrError::CaRights)
        }
        ParsedExtension::ParseError { .. } => Err(CsrError::Malformed("an extension cannot be read")),
        ParsedExtension::SubjectAlternativeName(names) => {
            let other = names.general_names.iter().find(|name| match name {
                GeneralName::URI(uri) => *uri != proven.as_str(),
                _ => true,
            });
            match other {
                None => Ok(()),
                Some(name) => {
                    let asked = match name {
                        GeneralName::URI(text) | GeneralName::DNSName(text) => (*text).to_owned(),
                        other => other.to_string(),
                    };
                    Err(CsrError::OtherName {
                        asked: asked.chars().take(200).collect(),
                        proven: proven.clone(),
                    })
                }
            }
        }
        _ => Ok(()),
    }
}

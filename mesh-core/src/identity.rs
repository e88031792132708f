//! SPIFFE identities (SPIFFE-ID specification, sections 2 and 3).

use std::{fmt, str::FromStr, sync::Arc};

/// Longest SPIFFE ID, in bytes (SPIFFE-ID section 2.3).
pub const MAX_ID_BYTES: usize = 2048;
/// Longest trust domain name, in bytes (SPIFFE-ID section 2.3).
pub const MAX_TRUST_DOMAIN_BYTES: usize = 255;

/// Namespace and service account of the controller: no token or certificate request can obtain this name.
pub const CONTROLLER: (&str, &str) = ("mesh-system", "mesh-controller");

/// Why a text is no SPIFFE ID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// It does not begin with `spiffe://`.
    #[error("a SPIFFE ID begins with \"spiffe://\"")]
    Scheme,
    /// It is longer than the specification allows.
    #[error(
        "a SPIFFE ID has at most {MAX_ID_BYTES} bytes and its trust domain at most {MAX_TRUST_DOMAIN_BYTES}"
    )]
    TooLong,
    /// The trust domain is empty or has a character that is not allowed.
    #[error("a trust domain is made of a-z, 0-9, '.', '-' and '_', and is not empty")]
    TrustDomain,
    /// The path has an empty or relative segment, or a character that is not allowed.
    #[error(
        "a SPIFFE path is made of segments of A-Z, a-z, 0-9, '.', '-' and '_', none empty, \".\" or \"..\""
    )]
    Path,
}

/// A trust domain, as in `cluster.local`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_TRUST_DOMAIN_BYTES {
            return Err(IdentityError::TooLong);
        }
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        if text.is_empty() || !text.bytes().all(allowed) {
            return Err(IdentityError::TrustDomain);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A SPIFFE ID with a path, as in `spiffe://cluster.local/ns/shop/sa/cart`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    uri: Arc<str>,
    /// Where the path begins (its slash) in `uri`.
    path_at: u16,
}

const SCHEME: &str = "spiffe://";

impl SpiffeId {
    /// The ID of a service account: `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/NAME`.
    ///
    /// # Errors
    /// When `namespace` or `service_account` is no valid path segment.
    pub fn service_account(
        trust_domain: &TrustDomain,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, IdentityError> {
        format!("{SCHEME}{trust_domain}/ns/{namespace}/sa/{service_account}").parse()
    }

    /// The controller's reserved ID in `trust_domain`.
    #[must_use]
    pub fn controller(trust_domain: &TrustDomain) -> Self {
        let uri = format!("{SCHEME}{trust_domain}/ns/{}/sa/{}", CONTROLLER.0, CONTROLLER.1);
        Self { path_at: (SCHEME.len() + trust_domain.0.len()) as u16, uri: uri.into() }
    }

    /// The whole URI.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// The trust domain's name.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        self.uri.get(SCHEME.len()..usize::from(self.path_at)).unwrap_or_default()
    }

    /// The path, with its leading slash.
    #[must_use]
    pub fn path(&self) -> &str {
        self.uri.get(usize::from(self.path_at)..).unwrap_or_default()
    }

    /// Namespace and service account, when the path has the mesh's form `/ns/NAMESPACE/sa/NAME`.
    #[must_use]
    pub fn namespace_and_account(&self) -> Option<(&str, &str)> {
        let (namespace, account) = self.path().strip_prefix("/ns/")?.split_once("/sa/")?;
        (!namespace.contains('/') && !account.contains('/')).then_some((namespace, account))
    }

    /// True for the controller's reserved name, in whatever trust domain.
    #[must_use]
    pub fn is_controller(&self) -> bool {
        self.namespace_and_account() == Some(CONTROLLER)
    }
}

impl FromStr for SpiffeId {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix(SCHEME).ok_or(IdentityError::Scheme)?;
        if text.len() > MAX_ID_BYTES {
            return Err(IdentityError::TooLong);
        }
        let (domain, path) = rest.split_once('/').ok_or(IdentityError::Path)?;
        TrustDomain::from_str(domain)?;
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let good = |s: &str| !s.is_empty() && s != "." && s != ".." && s.bytes().all(allowed);
        if !path.split('/').all(good) {
            return Err(IdentityError::Path);
        }
        Ok(Self { path_at: (SCHEME.len() + domain.len()) as u16, uri: text.into() })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

//! The authority in a directory: `ca/{root,issuer}.{pem,key}`, made whole or not at all.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::authority::{self, CaError, ISSUER, IssuingKey, Names, Pair, Place, ROOT, Root};
use crate::data_dir::{self, PRIVATE, PUBLIC, on};

/// The directory.
pub(super) struct Directory(PathBuf);

impl Directory {
    /// Loads the authority, or makes it when the directory does not exist.
    pub(super) fn open(path: &Path, trust_domain: &str) -> Result<(Self, Root, IssuingKey), CaError> {
        if !path.exists() {
            create(path, trust_domain)?;
        }
        data_dir::make_private_dir(path)?;
        let directory = Self(path.to_owned());
        let place = directory.place();
        let root = Root::read(directory.pair(&ROOT)?.as_ref(), trust_domain, &place)?;
        let issuer = match root.issuer(directory.pair(&ISSUER)?.as_ref(), &place)? {
            Some(issuer) => issuer,
            None => directory.new_issuer(&root)?,
        };
        Ok((directory, root, issuer))
    }

    /// Makes a new issuer and replaces the one on disk. Key first: a crash between both leaves a pair that does not
    /// match, which the next start replaces again.
    pub(super) fn new_issuer(&self, root: &Root) -> Result<IssuingKey, CaError> {
        let pair = root.new_issuer()?;
        data_dir::write_atomic(&self.0.join(ISSUER.key), PRIVATE, pair.key.as_bytes())?;
        data_dir::write_atomic(&self.0.join(ISSUER.certificate), PUBLIC, pair.certificate.as_bytes())?;
        let place = self.place();
        root.issuer(self.pair(&ISSUER)?.as_ref(), &place)?
            .ok_or_else(|| place.damaged(ISSUER.certificate, "it vanished"))
    }

    fn place(&self) -> Place {
        Place { whole: format!("the directory {}", self.0.display()), separator: ", file " }
    }

    /// None: one of both is missing.
    fn pair(&self, names: &Names) -> Result<Option<Pair>, CaError> {
        let (certificate_path, key_path) = (self.0.join(names.certificate), self.0.join(names.key));
        let Some(key) = data_dir::read_private(&key_path)? else { return Ok(None) };
        let certificate = match fs::read_to_string(&certificate_path) {
            Ok(pem) => pem,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(on("read", &certificate_path)(error).into()),
        };
        let key = String::from_utf8(key).map_err(|_| self.place().damaged(names.key, "it is no text"))?;
        Ok(Some(Pair { certificate, key }))
    }
}

/// Makes all files in a directory beside, and renames it at the end: that is the moment when the authority exists.
fn create(directory: &Path, trust_domain: &str) -> Result<(), CaError> {
    let staging = directory.with_extension("new");
    if staging.exists() {
        fs::remove_dir_all(&staging).map_err(on("remove", &staging))?;
    }
    data_dir::make_private_dir(&staging)?;
    let (root, issuer) = authority::create(trust_domain)?;
    for (names, pair) in [(ROOT, root), (ISSUER, issuer)] {
        data_dir::write_new(&staging.join(names.key), PRIVATE, pair.key.as_bytes())?;
        data_dir::write_new(&staging.join(names.certificate), PUBLIC, pair.certificate.as_bytes())?;
    }
    data_dir::sync_dir(&staging)?;
    fs::rename(&staging, directory).map_err(on("create", directory))?;
    data_dir::sync_dir(directory.parent().unwrap_or(directory))?;
    Ok(())
}

//! Bearer tokens of the standalone mesh: one per service account, handed to its proxies by the operator.
//!
//! The plain token is written once, to `tokens/NAMESPACE/SERVICEACCOUNT`; the controller keeps its SHA-256 only, in
//! `ca/token-hashes.json`. A token whose hash is known is never made again, so a restart changes nothing; to replace a
//! token, remove its entry there and start the controller again.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use aws_lc_rs::{constant_time::verify_slices_are_equal, digest};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use mesh_core::{identity::CONTROLLER, name::is_dns_label, name::is_dns_name};

use super::{authority::CaError, hex, random};
use crate::data_dir::{self, DataDir, PRIVATE};

/// Largest number of service accounts with a token.
const MAX_TOKENS: usize = 20_000;

/// A service account: namespace and name.
pub(crate) type Account = (String, String);

/// The tokens of all service accounts.
pub(crate) struct Tokens {
    hashes_path: PathBuf,
    tokens_path: PathBuf,
    hashes: Mutex<BTreeMap<Account, [u8; 32]>>,
}

impl Tokens {
    /// Loads the hashes.
    pub(crate) fn open(data_dir: &DataDir) -> Result<Self, CaError> {
        let hashes_path = data_dir.path("ca").join("token-hashes.json");
        let hashes = match data_dir::read_private(&hashes_path)? {
            None => BTreeMap::new(),
            Some(text) => parse(&text).ok_or_else(|| CaError::Damaged {
                place: hashes_path.display().to_string(),
                whole: format!("the directory {}", data_dir.path("ca").display()),
                problem: "it is no JSON object of NAMESPACE/ACCOUNT to SHA-256 in hexadecimal".into(),
            })?,
        };
        let tokens_path = data_dir.path("tokens");
        data_dir::make_private_dir(&tokens_path)?;
        Ok(Self { hashes_path, tokens_path, hashes: Mutex::new(hashes) })
    }

    /// Makes tokens for the accounts that have none yet. The reserved name never gets one, nor do names that could
    /// not be files. Returns how many are new.
    pub(crate) fn ensure<'a>(
        &self,
        accounts: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<usize, CaError> {
        let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = hashes.clone();
        for (namespace, name) in accounts {
            let key = (namespace.to_owned(), name.to_owned());
            let sound = is_dns_label(namespace) && is_dns_name(name) && (namespace, name) != CONTROLLER;
            if !sound || next.contains_key(&key) || next.len() >= MAX_TOKENS {
                continue;
            }
            let token = BASE64_URL_SAFE_NO_PAD.encode(random::<32>()?);
            let directory = self.tokens_path.join(namespace);
            data_dir::make_private_dir(&directory)?;
            data_dir::write_atomic(&directory.join(name), PRIVATE, token.as_bytes())?;
            next.insert(key, hash(token.as_bytes()));
        }
        let new = next.len() - hashes.len();
        if new > 0 {
            // After the plain tokens: a crash in between makes them anew, and never leaves a hash without its token.
            data_dir::write_atomic(&self.hashes_path, PRIVATE, print(&next).as_bytes())?;
            *hashes = next;
        }
        Ok(new)
    }

    /// The account whose token this is. Takes the same time whichever it is, and when it is none.
    pub(crate) fn account(&self, token: &str) -> Option<Account> {
        let hash = hash(token.trim().as_bytes());
        let hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = None;
        for (account, known) in &*hashes {
            if verify_slices_are_equal(known, &hash).is_ok() {
                found = Some(account);
            }
        }
        found.filter(|(namespace, name)| (namespace.as_str(), name.as_str()) != CONTROLLER).cloned()
    }
}

fn hash(token: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, token).as_ref());
    out
}

fn print(hashes: &BTreeMap<Account, [u8; 32]>) -> String {
    let object: serde_json::Map<String, serde_json::Value> = hashes
        .iter()
        .map(|((namespace, name), hash)| (format!("{namespace}/{name}"), hex(hash).into()))
        .collect();
    serde_json::Value::Object(object).to_string()
}

fn parse(text: &[u8]) -> Option<BTreeMap<Account, [u8; 32]>> {
    let object: BTreeMap<String, String> = serde_json::from_slice(text).ok()?;
    object
        .into_iter()
        .map(|(account, hash)| {
            let (namespace, name) = account.split_once('/')?;
            Some(((namespace.to_owned(), name.to_owned()), parse_hash(&hash)?))
        })
        .collect()
}

fn parse_hash(text: &str) -> Option<[u8; 32]> {
    let mut out = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_made_once_survive_a_restart_and_never_for_the_reserved_name() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(dir.path()).unwrap();
        data_dir::make_private_dir(&data_dir.path("ca")).unwrap();
        let tokens = Tokens::open(&data_dir).unwrap();
        let accounts = [("shop", "cart"), ("shop", "catalog"), CONTROLLER, ("..", "evil"), ("shop", "a/b")];
        assert_eq!(tokens.ensure(accounts).unwrap(), 2);
        assert_eq!(tokens.ensure(accounts).unwrap(), 0);

        let file = data_dir.path("tokens").join("shop/cart");
        let token = std::fs::read_to_string(&file).unwrap();
        assert_eq!(token.len(), 43, "256 bits");
        assert!(!data_dir.path("tokens").join("mesh-system").exists());
        let stored = std::fs::read_to_string(data_dir.path("ca").join("token-hashes.json")).unwrap();
        assert!(!stored.contains(&token), "only hashes are kept");

        let again = Tokens::open(&data_dir).unwrap();
        assert_eq!(again.ensure(accounts).unwrap(), 0);
        assert_eq!(again.account(&token), Some(("shop".into(), "cart".into())));
        assert_eq!(again.account(&format!("{token}\n")), Some(("shop".into(), "cart".into())));
        for wrong in ["", "x", &token[1..], &"A".repeat(43)] {
            assert_eq!(again.account(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_hash_planted_for_the_reserved_name_is_not_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(dir.path()).unwrap();
        data_dir::make_private_dir(&data_dir.path("ca")).unwrap();
        let planted = BTreeMap::from([((CONTROLLER.0.into(), CONTROLLER.1.into()), hash(b"known"))]);
        let path = data_dir.path("ca").join("token-hashes.json");
        data_dir::write_atomic(&path, PRIVATE, print(&planted).as_bytes()).unwrap();
        assert_eq!(Tokens::open(&data_dir).unwrap().account("known"), None);
        data_dir::write_atomic(&path, PRIVATE, b"{\"a\":1}").unwrap();
        assert!(Tokens::open(&data_dir).is_err(), "a damaged file is not taken for an empty one");
    }
}

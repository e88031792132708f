//! The authority in a Secret, shared by all replicas: one of them makes it, or renews its issuer, and the others follow.

use mesh_k8s::names::CA_SECRET;

use super::authority::{self, CaError, ISSUER, IssuingKey, Names, Pair, Place, ROOT, Root};
use crate::kubernetes::{Held, Secrets};

/// How often it is tried again when another replica was faster.
const ATTEMPTS: u32 = 5;

/// Loads the authority, or makes it if there is none. Where proxies trust an authority whose Secret is missing, none is
/// made: they would be cut off from it.
pub(super) async fn open(secrets: &Secrets, trust_domain: &str) -> Result<(Root, IssuingKey), CaError> {
    let place = place(secrets);
    for _ in 0..ATTEMPTS {
        let Some(held) = secrets.read(CA_SECRET).await? else {
            if let Some(bundle) = secrets.trust_bundle().await? {
                // A replica that has just begun the mesh makes the Secret first.
                if secrets.read(CA_SECRET).await?.is_none() {
                    return Err(CaError::Lost { secret: place.whole, bundle });
                }
                continue;
            }
            let (root, issuer) = authority::create(trust_domain)?;
            if create(secrets, &root, &issuer).await? {
                tracing::info!(secret = place.whole, "a new authority was made");
            }
            continue;
        };
        let root = Root::read(pair(&held, &ROOT).as_ref(), trust_domain, &place)?;
        if let Some(issuer) = root.issuer(pair(&held, &ISSUER).as_ref(), &place)? {
            return Ok((root, issuer));
        }
        replace_issuer(secrets, held, &root).await?;
    }
    Err(CaError::Busy(place.whole))
}

/// Compares what is held with the Secret, and renews the issuer there when it is due. Returns the issuer to use from now
/// on; None: the one that is in use. A Secret that was deleted is made anew, for without it the next controller would
/// begin another mesh.
pub(super) async fn follow(
    secrets: &Secrets,
    root: &Root,
    current: &IssuingKey,
    now: i64,
) -> Result<Option<IssuingKey>, CaError> {
    let place = place(secrets);
    let mut is_renewed = false;
    for _ in 0..ATTEMPTS {
        let Some(held) = secrets.read(CA_SECRET).await? else {
            tracing::warn!(secret = place.whole, "it is gone; it is made anew of what is in memory");
            create(secrets, &root.pair(), &current.pair()).await?;
            continue;
        };
        if pair(&held, &ROOT).is_none_or(|pair| pair.certificate.trim() != root.pem.trim()) {
            return Err(CaError::Exchanged(place.whole));
        }
        match root.issuer(pair(&held, &ISSUER).as_ref(), &place)? {
            Some(issuer) if is_renewed || !root.is_due(&issuer, now) => {
                return Ok((issuer.certificate != current.certificate).then_some(issuer));
            }
            _ => is_renewed = replace_issuer(secrets, held, root).await?,
        }
    }
    Err(CaError::Busy(place.whole))
}

/// Puts a new issuer there. False: another replica was faster; either way it is to be read again.
async fn replace_issuer(secrets: &Secrets, held: Held, root: &Root) -> Result<bool, CaError> {
    let issuer = root.new_issuer()?;
    let data = [(ISSUER.certificate, &*issuer.certificate), (ISSUER.key, &*issuer.key)];
    Ok(secrets.replace(held, &data).await?)
}

async fn create(secrets: &Secrets, root: &Pair, issuer: &Pair) -> Result<bool, CaError> {
    let data = [
        (ROOT.certificate, &*root.certificate),
        (ROOT.key, &*root.key),
        (ISSUER.certificate, &*issuer.certificate),
        (ISSUER.key, &*issuer.key),
    ];
    Ok(secrets.create(CA_SECRET, &data).await?)
}

fn pair(held: &Held, names: &Names) -> Option<Pair> {
    let text = |name| held.text(name).map(str::to_owned);
    Some(Pair { certificate: text(names.certificate)?, key: text(names.key)? })
}

fn place(secrets: &Secrets) -> Place {
    Place { whole: secrets.named(CA_SECRET), separator: ", key " }
}

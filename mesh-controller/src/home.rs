//! Where a controller keeps what must outlive it, and what it accepts as proofs: a directory of this machine, or Secrets
//! and tokens of a cluster.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use mesh_k8s::names::{VIEW_TOKEN_KEY, VIEW_TOKEN_SECRET};

use crate::{
    app::StartError,
    ca::{Ca, CaError, Tokens, random},
    config::Config,
    data_dir::{self, DataDir, PRIVATE, VIEW_TOKEN_FILE},
    grpc::Proofs,
    kubernetes::{Cluster, Reviews, Secrets, patiently},
    metrics::Metrics,
};

/// Shortest token of the view API that is taken as it is, in bytes.
const MIN_TOKEN: usize = 16;
/// How often it is tried again to agree with other replicas on it.
const ATTEMPTS: u32 = 5;

/// What was found there, or made.
pub(crate) struct Home {
    pub(crate) ca: Ca,
    pub(crate) view_token: String,
    pub(crate) proofs: Proofs,
    /// None: this mesh has no cluster.
    pub(crate) cluster: Option<Arc<Cluster>>,
}

impl Home {
    /// A directory.
    pub(crate) fn in_directory(config: &Config, data_dir: &DataDir) -> Result<Self, StartError> {
        let ca = Ca::open(&data_dir.path("ca"), config.trust_domain.as_str(), config.leaf_lifetime)?;
        let view_token = token_of_file(data_dir)?;
        Ok(Self { ca, view_token, proofs: Proofs::Own(Tokens::open(data_dir)?), cluster: None })
    }

    /// A cluster, whose API server may still be starting.
    pub(crate) async fn in_cluster(
        config: &Config,
        cluster: Arc<Cluster>,
        metrics: &Metrics,
    ) -> Result<Self, StartError> {
        let secrets = Secrets::new(&cluster);
        let is_away = |error: &CaError| matches!(error, CaError::Cluster(error) if error.is_away());
        let ca = patiently(is_away, || {
            Ca::open_in(secrets.clone(), config.trust_domain.as_str(), config.leaf_lifetime)
        });
        let ca = ca.await?;
        let view_token = patiently(is_away, || token_of_secret(&secrets)).await?;
        let proofs = Proofs::Kubernetes(Box::new(Reviews::new(&cluster.client, metrics)));
        Ok(Self { ca, view_token, proofs, cluster: Some(cluster) })
    }
}

fn token_of_file(data_dir: &DataDir) -> Result<String, CaError> {
    let path = data_dir.path(VIEW_TOKEN_FILE);
    if let Some(held) = data_dir::read_private(&path)? {
        let text = String::from_utf8(held).unwrap_or_default();
        if let Some(token) = usable(&text) {
            return Ok(token);
        }
    }
    let token = new_token()?;
    data_dir::write_atomic(&path, PRIVATE, token.as_bytes())?;
    Ok(token)
}

/// The token that all replicas share: whichever is first makes it.
async fn token_of_secret(secrets: &Secrets) -> Result<String, CaError> {
    for _ in 0..ATTEMPTS {
        let held = secrets.read(VIEW_TOKEN_SECRET).await?;
        if let Some(token) = held.as_ref().and_then(|held| usable(held.text(VIEW_TOKEN_KEY)?)) {
            return Ok(token);
        }
        let token = new_token()?;
        let data = [(VIEW_TOKEN_KEY, &*token)];
        // Read again either way: another replica may have been faster.
        match held {
            Some(held) => secrets.replace(held, &data).await?,
            None => secrets.create(VIEW_TOKEN_SECRET, &data).await?,
        };
    }
    Err(CaError::Busy(secrets.named(VIEW_TOKEN_SECRET)))
}

fn usable(text: &str) -> Option<String> {
    let token = text.trim();
    (token.len() >= MIN_TOKEN).then(|| token.to_owned())
}

fn new_token() -> Result<String, CaError> {
    Ok(BASE64_URL_SAFE_NO_PAD.encode(random::<32>()?))
}

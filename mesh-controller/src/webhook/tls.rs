//! The webhook's certificate: from the mesh's own authority, in memory, renewed at half of its life.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::{ServerConfig, crypto::aws_lc_rs};

use super::WebhookError;
use crate::ca::{Ca, keep_fresh};

/// What the webhook serves with at the moment.
pub(crate) struct Serving {
    ca: Arc<Ca>,
    names: Vec<String>,
    current: ArcSwap<ServerConfig>,
    first_not_after: i64,
}

impl Serving {
    /// Has a certificate issued for these DNS names.
    ///
    /// # Errors
    /// [`WebhookError`].
    pub(crate) fn new(ca: Arc<Ca>, names: Vec<String>) -> Result<Self, WebhookError> {
        let (config, first_not_after) = certified(&ca, &names)?;
        Ok(Self { ca, names, current: ArcSwap::from(config), first_not_after })
    }

    /// The configuration for the next connection.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Renews the certificate in time, for ever.
    pub(super) async fn keep_fresh(&self) {
        let certify = || {
            let (config, not_after) = certified(&self.ca, &self.names)?;
            self.current.store(config);
            Ok::<_, WebhookError>(not_after)
        };
        keep_fresh("webhook", self.first_not_after, certify).await;
    }
}

fn certified(ca: &Ca, names: &[String]) -> Result<(Arc<ServerConfig>, i64), WebhookError> {
    let certified = ca.certify_server(names);
    let (leaf, key) = certified.map_err(|error| WebhookError::Certificate(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(leaf.chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((Arc::new(config), leaf.not_after))
}

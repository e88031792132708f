//! Gets the first certificate and renews it for ever.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use super::{Keeper, certify::certify};
use crate::{backoff::Backoff, config::Config};

/// Waits after failures.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Share of the wait by which renewals are spread, so that proxies that started together do not renew together.
const JITTER: f64 = 0.1;

/// Runs for ever.
pub(crate) async fn run(keeper: Arc<Keeper>, config: Arc<Config>) {
    let mut backoff = Backoff::new(WAITS.0, WAITS.1);
    let mut failures = 0_u32;
    // A certificate that was handed over need not be renewed at once.
    let _woken = timeout(keeper.renewal(), keeper.renew.notified()).await;
    loop {
        // Every second attempt goes back to the configured anchor.
        match certify(&keeper, &config, failures % 2 == 1).await {
            Ok(next) => {
                failures = 0;
                backoff.reset();
                let next = next.mul_f64(1.0 - JITTER * fastrand::f64());
                keeper.renew_in(next);
                // An early wake means that the roots no longer cover the certificate.
                let _woken = timeout(next, keeper.renew.notified()).await;
            }
            Err(error) => {
                failures += 1;
                let wait = backoff.next(fastrand::f64());
                tracing::warn!(%error, attempt = failures, retry_in = ?wait, "no certificate");
                sleep(wait).await;
            }
        }
    }
}

//! What one of all replicas does: the trust bundles, what webhooks are verified with, and conditions of objects. All of it
//! could be done twice without harm; that one leads spares the API server the work, and readers of its log the question
//! who did what.

use std::sync::Arc;

use tokio::{sync::watch, task::JoinSet, time::timeout};

use super::{
    Bundles, Cluster,
    lease::{Lock, RETRY},
    status::Statuses,
    webhooks,
};
use crate::{app::stopped, grpc::Shared};

/// Competes for the lead and does the leader's work, until `stop` turns true. Then it hands over.
pub(crate) async fn run(
    shared: &Shared,
    cluster: Arc<Cluster>,
    bundles: Arc<Bundles>,
    mut stop: watch::Receiver<bool>,
) {
    let root_pem: Arc<str> = shared.ca.root_pem().into();
    let work = || {
        let mut tasks = JoinSet::new();
        let (bundles, snapshots) = (Arc::clone(&bundles), shared.publisher.subscribe());
        tasks.spawn(async move { bundles.keep(snapshots).await });
        let (client, root_pem) = (cluster.client.clone(), Arc::clone(&root_pem));
        tasks.spawn(async move { webhooks::keep(&client, &root_pem).await });
        let statuses = Statuses::new(cluster.client.clone(), Arc::clone(&cluster.noted));
        let (snapshots, proxies) = (shared.publisher.subscribe(), Arc::clone(&shared.proxies));
        tasks.spawn(statuses.keep(snapshots, proxies));
        tasks
    };
    let mut lock = Lock::new(&cluster);
    // Aborted when dropped.
    let mut working: Option<JoinSet<()>> = None;
    loop {
        // A leader that is not answered stops before another can begin.
        let limit = lock.left().unwrap_or(RETRY * 4);
        tokio::select! {
            attempt = timeout(limit, lock.attempt()) => match attempt {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "cannot ask who leads"),
                Err(_) => tracing::warn!("the API server did not say in time who leads"),
            },
            () = stopped(&mut stop) => break,
        }
        if let Some(ended) = working.as_mut().and_then(JoinSet::try_join_next) {
            tracing::error!(?ended, "a part of the leader's work ended by itself; it begins anew");
            working = None;
        }
        match (lock.is_leader(), working.is_some()) {
            (true, false) => {
                tracing::info!(replica = cluster.replica, "leading");
                working = Some(work());
            }
            (false, true) => {
                tracing::warn!(replica = cluster.replica, "leading no more");
                working = None;
            }
            (true, true) | (false, false) => {}
        }
        shared.metrics.is_leader.set(i64::from(working.is_some()));
        let pause = RETRY.mul_f64(1.0 + 0.2 * fastrand::f64());
        tokio::select! {
            () = tokio::time::sleep(lock.left().map_or(pause, |left| left.min(pause))) => {}
            () = stopped(&mut stop) => break,
        }
    }
    drop(working);
    shared.metrics.is_leader.set(0);
    if let Err(error) = lock.release().await {
        tracing::warn!(%error, "the lead could not be handed over: the next leader waits for the Lease to end");
    }
}

#[cfg(test)]
mod tests;

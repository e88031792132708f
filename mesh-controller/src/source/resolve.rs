//! Addresses of hosts outside of the mesh, looked up again and again; the last good answer is kept.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use mesh_k8s::Resolved;
use tokio::{sync::watch, task::JoinSet, time::timeout};

/// How often each host is looked up. The system's resolver does not tell how long an answer holds.
const INTERVAL: Duration = Duration::from_secs(30);
/// Longest wait for one answer.
const WAIT: Duration = Duration::from_secs(5);
/// Hosts that are looked up at a time.
const AT_A_TIME: usize = 16;
/// Most addresses of one host that are used.
const MAX_ADDRESSES: usize = 256;

/// Looks `hosts` up, every [`INTERVAL`] and whenever they change, until nobody asks any more.
pub(super) async fn run(mut hosts: watch::Receiver<BTreeSet<Arc<str>>>, found: watch::Sender<Resolved>) {
    loop {
        let wanted = hosts.borrow_and_update().clone();
        let answers = look_up(&wanted).await;
        found.send_if_modified(|known| {
            let next = merge(known, &wanted, answers);
            let changed = next != *known;
            *known = next;
            changed
        });
        tokio::select! {
            changed = hosts.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(INTERVAL), if !wanted.is_empty() => {}
            () = found.closed() => return,
        }
    }
}

/// What was answered, and what was known where there is no answer.
fn merge(known: &Resolved, wanted: &BTreeSet<Arc<str>>, mut answers: Resolved) -> Resolved {
    let one = |host: &Arc<str>| {
        let addresses = answers.remove(host).or_else(|| known.get(host).cloned())?;
        Some((Arc::clone(host), addresses))
    };
    wanted.iter().filter_map(one).collect()
}

/// The answers that came.
async fn look_up(hosts: &BTreeSet<Arc<str>>) -> Resolved {
    let mut open = hosts.iter().cloned();
    let mut running = JoinSet::new();
    let mut found = Resolved::new();
    for host in open.by_ref().take(AT_A_TIME) {
        running.spawn(one(host));
    }
    while let Some(ended) = running.join_next().await {
        if let Ok((host, Some(addresses))) = ended {
            found.insert(host, addresses);
        }
        if let Some(host) = open.next() {
            running.spawn(one(host));
        }
    }
    found
}

async fn one(host: Arc<str>) -> (Arc<str>, Option<Vec<IpAddr>>) {
    let answer = timeout(WAIT, tokio::net::lookup_host((host.to_string(), 0))).await;
    let addresses = match answer {
        Ok(Ok(addresses)) => {
            let unique: BTreeSet<IpAddr> = addresses.map(|address| address.ip().to_canonical()).collect();
            let usable = unique.into_iter().filter(|ip| !ip.is_unspecified() && !ip.is_multicast());
            usable.take(MAX_ADDRESSES).collect::<Vec<_>>()
        }
        Ok(Err(error)) => {
            tracing::warn!(%host, %error, "cannot look up a host of an ExternalService; the last answer stays");
            Vec::new()
        }
        Err(_) => {
            tracing::warn!(%host, wait = ?WAIT, "no answer for a host of an ExternalService; the last one stays");
            Vec::new()
        }
    };
    let found = (!addresses.is_empty()).then_some(addresses);
    (host, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(names: &[&str]) -> BTreeSet<Arc<str>> {
        names.iter().map(|name| Arc::from(*name)).collect()
    }

    #[tokio::test]
    async fn hosts_are_looked_up_when_they_change() {
        let (ask, asked) = watch::channel(hosts(&[]));
        let (found, mut answers) = watch::channel(Resolved::new());
        let task = tokio::spawn(run(asked, found));
        // Names under "invalid" never resolve (RFC 6761 section 6.4).
        ask.send_replace(hosts(&["localhost", "nowhere.invalid"]));
        let known = answers.wait_for(|known| known.contains_key("localhost")).await.unwrap().clone();
        assert!(known["localhost"].iter().all(IpAddr::is_loopback), "{known:?}");
        assert_eq!(known.len(), 1);
        ask.send_replace(hosts(&[]));
        answers.wait_for(Resolved::is_empty).await.unwrap();
        drop(ask);
        task.await.unwrap();
    }

    #[test]
    fn the_last_good_answer_is_kept() {
        let address = |text: &str| vec![text.parse::<IpAddr>().unwrap()];
        let known = Resolved::from([
            (Arc::from("a"), address("192.0.2.1")),
            (Arc::from("gone"), address("192.0.2.2")),
        ]);
        let answers = Resolved::from([(Arc::from("b"), address("192.0.2.3"))]);
        let next = merge(&known, &hosts(&["a", "b", "c"]), answers);
        let expected =
            Resolved::from([(Arc::from("a"), address("192.0.2.1")), (Arc::from("b"), address("192.0.2.3"))]);
        assert_eq!(next, expected);
    }
}

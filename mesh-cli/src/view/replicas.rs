//! Several controllers side by side: each knows the proxies that are connected to it, and numbers its own configurations.

use super::WorkloadView;

/// Adds what another controller knows of proxies. `newest`: of the configurations of the first controller, and of the
/// other; how far a proxy is behind stays as it is.
pub(super) fn merge(all: &mut Vec<WorkloadView>, others: Vec<WorkloadView>, newest: (u64, u64)) {
    let (first, other) = newest;
    for mut view in others {
        if let Some(proxy) = &mut view.proxy {
            proxy.generation = first.saturating_sub(other.saturating_sub(proxy.generation));
        }
        match all.iter_mut().find(|known| known.config.workload == view.config.workload) {
            Some(known) => {
                if rank(&view) > rank(known) {
                    known.proxy = view.proxy;
                }
            }
            None => all.push(view),
        }
    }
}

/// Connected before lost, then the later one.
fn rank(view: &WorkloadView) -> Option<(bool, i64)> {
    view.proxy.as_ref().map(|proxy| (proxy.connected, proxy.since_millis))
}

#[cfg(test)]
mod tests {
    use mesh_core::{
        config::WorkloadConfig,
        name::{ObjectRef, WorkloadRef},
        policy,
    };
    use mesh_proto::view::v1 as pb;

    use super::*;

    fn view(name: &str, proxy: Option<(bool, i64, u64)>) -> WorkloadView {
        let config = WorkloadConfig {
            workload: WorkloadRef::new("shop", name),
            identity: "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap(),
            address: None,
            zone: "".into(),
            inbound: Vec::new(),
            upstreams: Vec::new(),
            policy: policy::PolicySet {
                tls_mode: policy::TlsMode::Permissive,
                default_action: policy::DefaultAction::Allow,
                default_source: ObjectRef::new("Mesh", "", "default"),
                rules: Vec::new(),
            },
        };
        let proxy = proxy.map(|(connected, since_millis, generation)| pb::Proxy {
            connected,
            since_millis,
            generation,
            ..pb::Proxy::default()
        });
        WorkloadView { config, labels: Vec::new(), proxy }
    }

    #[test]
    fn each_controller_knows_its_own_proxies() {
        let check = |mine, theirs, expected: Option<(bool, u64)>| {
            let mut all = vec![view("cart", mine)];
            merge(&mut all, vec![view("cart", theirs)], (20, 7));
            let found = all[0].proxy.as_ref().map(|proxy| (proxy.connected, proxy.generation));
            assert_eq!((all.len(), found), (1, expected), "{mine:?} {theirs:?}");
        };
        check(None, None, None);
        check(Some((true, 1, 20)), None, Some((true, 20)));
        check(None, Some((true, 1, 7)), Some((true, 20)));
        check(None, Some((true, 1, 5)), Some((true, 18)));
        // It went from one controller to the other.
        check(Some((false, 9, 20)), Some((true, 5, 7)), Some((true, 20)));
        check(Some((true, 5, 19)), Some((false, 9, 7)), Some((true, 19)));
        check(Some((false, 1, 3)), Some((false, 2, 7)), Some((false, 20)));
        let mut all = vec![view("cart", None)];
        merge(&mut all, vec![view("till", None)], (1, 1));
        assert_eq!(all.len(), 2);
    }
}

//! Reads what a proxy counted from the text of its `/metrics` (Prometheus text format).

use std::collections::BTreeMap;

/// What one counter of a proxy is about, in the words of the demo: names of service accounts, Services and workloads
/// without namespace, port and trust domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Edge {
    /// "outbound" or "inbound".
    pub(crate) direction: String,
    /// Service account of the caller; empty: unknown.
    pub(crate) source: String,
    /// Service account of the callee; empty: unknown.
    pub(crate) destination: String,
    /// The Service that the route chose; empty: none.
    pub(crate) backend: String,
    /// The callee; empty: unknown.
    pub(crate) workload: String,
    /// Mesh TLS.
    pub(crate) secured: bool,
    /// Class of the response's status, as in "2xx"; empty: none.
    pub(crate) status: String,
    /// Why a proxy ended the call; empty: none did.
    pub(crate) reason: String,
}

/// Counters of one proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProxyCounts {
    /// `mesh_requests_total`.
    pub(crate) requests: BTreeMap<Edge, u64>,
    /// `mesh_connections_total`.
    pub(crate) connections: BTreeMap<Edge, u64>,
}

impl ProxyCounts {
    /// Reads a page of metrics; lines about other things are passed over.
    ///
    /// # Errors
    /// Gives a line about one of these counters that cannot be read.
    pub(crate) fn parse(page: &str) -> Result<Self, String> {
        let mut counts = Self::default();
        for line in page.lines() {
            let counter = match line.split_once('{') {
                Some(("mesh_requests_total", _)) => &mut counts.requests,
                Some(("mesh_connections_total", _)) => &mut counts.connections,
                _ => continue,
            };
            let (labels, value) = sample(line).ok_or_else(|| line.to_owned())?;
            *counter.entry(Edge::from_labels(&labels)).or_default() += value;
        }
        Ok(counts)
    }

    /// What was counted since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let minus = |now: &BTreeMap<Edge, u64>, then: &BTreeMap<Edge, u64>| {
            now.iter()
                .map(|(edge, n)| (edge.clone(), n.saturating_sub(then.get(edge).copied().unwrap_or(0))))
                .filter(|(_, n)| *n > 0)
                .collect()
        };
        Self {
            requests: minus(&self.requests, &earlier.requests),
            connections: minus(&self.connections, &earlier.connections),
        }
    }
}

/// Adds up those counters whose edge `which` picks.
pub(crate) fn sum(counters: &BTreeMap<Edge, u64>, which: impl Fn(&Edge) -> bool) -> u64 {
    counters.iter().filter(|(edge, _)| which(edge)).map(|(_, n)| n).sum()
}

impl Edge {
    fn from_labels(labels: &BTreeMap<String, String>) -> Self {
        let label = |name: &str| labels.get(name).map_or("", String::as_str);
        let account = |id: &str| id.rsplit_once("/sa/").map_or(id, |(_, account)| account).to_owned();
        // NAMESPACE/NAME and NAMESPACE/NAME:PORT
        let name = |of: &str| {
            let name = of.rsplit_once('/').map_or(of, |(_, name)| name);
            name.split_once(':').map_or(name, |(name, _)| name).to_owned()
        };
        Self {
            direction: label("direction").to_owned(),
            source: account(label("source")),
            destination: account(label("destination")),
            backend: name(label("backend")),
            workload: name(label("workload")),
            secured: matches!(label("secured"), "true" | "yes"),
            status: label("status").to_owned(),
            reason: label("reason").to_owned(),
        }
    }
}

/// Labels and value of one sample: `name{label="value",…} 12`.
fn sample(line: &str) -> Option<(BTreeMap<String, String>, u64)> {
    let (_, mut rest) = line.split_once('{')?;
    let mut labels = BTreeMap::new();
    while !rest.starts_with('}') {
        let (name, after) = rest.split_once("=\"")?;
        let (value, after) = quoted(after)?;
        labels.insert(name.trim_start_matches([',', ' ']).to_owned(), value);
        rest = after.strip_prefix(',').unwrap_or(after);
    }
    let value: f64 = rest.strip_prefix('}')?.split_whitespace().next()?.parse().ok()?;
    (value >= 0.0 && value.fract() == 0.0).then_some((labels, value as u64))
}

/// A text up to its closing quote, without escapes, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"# HELP mesh_requests_total Requests.
# TYPE mesh_requests_total counter
mesh_requests_total{direction="outbound",source="spiffe://cluster.local/ns/shop/sa/storefront",destination="spiffe://cluster.local/ns/shop/sa/catalog",service="shop/catalog:80",backend="shop/catalog-v2:80",workload="shop/catalog-v2",rule="TrafficSplit shop/catalog",protocol="http",secured="true",status="2xx",reason=""} 12
mesh_requests_total{direction="inbound",source="",destination="",service="",backend="",workload="",rule="a \"quoted\\\" } rule",protocol="http",secured="false",status="4xx",reason="TLS_REQUIRED"} 1.0
mesh_connections_total{direction="outbound",source="",workload="shop/cart"} 3
mesh_request_duration_seconds_bucket{le="0.1"} 0.5
# EOF
"#;

    #[test]
    fn reads_counters_and_passes_over_the_rest() {
        let counts = ProxyCounts::parse(PAGE).unwrap();
        assert_eq!((counts.requests.len(), counts.connections.len()), (2, 1));
        let catalog =
            sum(&counts.requests, |e| e.backend == "catalog-v2" && e.source == "storefront" && e.secured);
        assert_eq!(catalog, 12);
        let refused = counts.requests.keys().find(|e| !e.secured).unwrap();
        assert_eq!((refused.reason.as_str(), refused.status.as_str()), ("TLS_REQUIRED", "4xx"));
        assert_eq!(sum(&counts.connections, |e| e.workload == "cart"), 3);
    }

    #[test]
    fn counts_since_an_earlier_page() {
        let then = ProxyCounts::parse(PAGE).unwrap();
        let now = ProxyCounts::parse(&PAGE.replace("} 12\n", "} 20\n")).unwrap();
        let since = now.since(&then);
        assert_eq!(since.requests.values().copied().collect::<Vec<_>>(), [8]);
        assert!(since.connections.is_empty());
    }

    #[test]
    fn a_broken_line_is_an_error_not_a_panic() {
        for cut in 1..PAGE.len() {
            let Some(page) = PAGE.get(..cut) else { continue };
            let _either = ProxyCounts::parse(page);
        }
        assert!(ProxyCounts::parse("mesh_requests_total{direction=\"out").is_err());
        assert!(ProxyCounts::parse("mesh_requests_total{direction=\"outbound\"} -1").is_err());
    }
}

//! Where a redirect leads (Gateway API HTTPRequestRedirectFilter).

use super::Redirect;

/// The request that is redirected.
#[derive(Clone, Copy, Debug)]
pub struct Redirected<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Host, with its port where the caller wrote one.
    pub authority: &'a str,
    /// The path.
    pub path: &'a str,
    /// The query without its '?'; it is kept.
    pub query: Option<&'a str>,
    /// What the rule matched of the path.
    pub prefix: &'a str,
}

impl Redirect {
    /// The value of `Location`.
    #[must_use]
    pub fn location(&self, request: &Redirected<'_>) -> String {
        let scheme = self.scheme.as_deref().unwrap_or(request.scheme);
        let (host, port) = split(request.authority);
        let host = self.host.as_deref().unwrap_or(host);
        let port = match (self.port, &self.scheme) {
            (Some(port), _) => Some(port),
            (None, Some(scheme)) => well_known(scheme),
            (None, None) => port,
        };
        let port = port.filter(|port| well_known(scheme) != Some(*port));
        let path = match &self.path {
            Some(change) => change.apply(request.path, request.prefix),
            None => request.path.to_owned(),
        };
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let query = request.query.map(|query| format!("?{query}")).unwrap_or_default();
        format!("{scheme}://{host}{port}{path}{query}")
    }
}

/// Host and port of an authority (RFC 3986 section 3.2); brackets stay.
fn split(authority: &str) -> (&str, Option<u16>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()),
        _ => (authority, None),
    }
}

fn well_known(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

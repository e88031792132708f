//! Server names that a TLS client asks for (SNI, RFC 6066 section 3), and patterns for them.

use std::{cmp::Ordering, fmt, str::FromStr};

use crate::name::is_dns_name;

/// A pattern for server names (Gateway API, `hostnames` of TLSRoute): a name, or `*.` and the end of one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerNamePattern {
    /// The name, or what follows `*.`; in lower case.
    name: Box<str>,
    /// One or more labels stand before it.
    wildcard: bool,
}

/// A text that is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no server name: write a DNS name, or *. and one, as in *.example.com")]
pub struct NotServerName(String);

impl ServerNamePattern {
    /// Does it take this name? Case does not matter. None: the client asked for none, which no pattern takes.
    #[must_use]
    pub fn matches(&self, server_name: Option<&str>) -> bool {
        let Some(name) = server_name else { return false };
        if !self.wildcard {
            return name.eq_ignore_ascii_case(&self.name);
        }
        let before = name.len().checked_sub(self.name.len()).and_then(|at| name.split_at_checked(at));
        before.is_some_and(|(labels, end)| {
            end.eq_ignore_ascii_case(&self.name) && labels.len() > 1 && labels.ends_with('.')
        })
    }
}

impl FromStr for ServerNamePattern {
    type Err = NotServerName;

    fn from_str(text: &str) -> Result<Self, NotServerName> {
        let lower = text.to_ascii_lowercase();
        let (name, wildcard) = match lower.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (lower.as_str(), false),
        };
        match is_dns_name(name) {
            true => Ok(Self { name: name.into(), wildcard }),
            false => Err(NotServerName(text.to_owned())),
        }
    }
}

impl fmt::Display for ServerNamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.wildcard { "*." } else { "" }, self.name)
    }
}

/// Greater is more specific: a name before a wildcard, the longer before the shorter (Gateway API).
impl Ord for ServerNamePattern {
    fn cmp(&self, other: &Self) -> Ordering {
        let rank = |pattern: &Self| (!pattern.wildcard, pattern.name.len());
        rank(self).cmp(&rank(other)).then_with(|| other.name.cmp(&self.name))
    }
}

impl PartialOrd for ServerNamePattern {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> ServerNamePattern {
        text.parse().unwrap()
    }

    #[test]
    fn names_and_wildcards_match() {
        let cases = [
            ("shop.example", "shop.example", true),
            ("Shop.Example", "sHOP.example", true),
            ("shop.example", "a.shop.example", false),
            ("*.example", "shop.example", true),
            ("*.example", "a.shop.EXAMPLE", true),
            ("*.example", "example", false),
            ("*.example", ".example", false),
            ("*.example", "badexample", false),
        ];
        for (text, name, expected) in cases {
            assert_eq!(pattern(text).matches(Some(name)), expected, "{text} {name}");
        }
        assert!(!pattern("*.example").matches(None));
        assert!(!pattern("*.example").matches(Some("é.examplé")));
    }

    #[test]
    fn the_most_specific_is_the_greatest() {
        let mut all = ["*.b", "a.b", "*.a.b", "long.a.b"].map(pattern);
        all.sort();
        assert_eq!(all.map(|p| p.to_string()), ["*.b", "*.a.b", "a.b", "long.a.b"]);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for wrong in ["", "*", "*.", "a.*.b", "**.b", "a b", "*a.b"] {
            assert!(wrong.parse::<ServerNamePattern>().is_err(), "{wrong}");
        }
    }
}

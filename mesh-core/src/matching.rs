//! Conditions on requests (Gateway API HTTPRouteMatch, SMI HTTPRouteGroup), shared by routes and policy.

use std::sync::OnceLock;

use http::{HeaderMap, HeaderName, Method};
use regex::Regex;

use crate::path::loosest;

/// Longest regular expression that is compiled, in bytes.
pub const MAX_PATTERN_BYTES: usize = 4096;

/// A regular expression that is anchored at its start, or at both ends. Linear in time (no look-around, no
/// back-references), bounded in size.
#[derive(Clone, Debug)]
pub struct Pattern {
    source: String,
    anchored_end: bool,
    regex: Regex,
    /// The same without regard to case, compiled when first asked for.
    folded: OnceLock<Option<Regex>>,
}

/// Why a pattern is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a usable regular expression: {0}")]
pub struct PatternError(String);

impl Pattern {
    /// Compiles a pattern that must match the whole text.
    ///
    /// # Errors
    /// When the pattern is too long, too large once compiled, or uses what is not supported (look-around).
    pub fn whole(source: &str) -> Result<Self, PatternError> {
        Self::compile(source, true)
    }

    /// Compiles a pattern that must match a prefix of the text (SMI: anchored at the start only).
    ///
    /// # Errors
    /// As for [`Pattern::whole`].
    pub fn start(source: &str) -> Result<Self, PatternError> {
        Self::compile(source, false)
    }

    fn compile(source: &str, anchored_end: bool) -> Result<Self, PatternError> {
        if source.len() > MAX_PATTERN_BYTES {
            return Err(PatternError(format!("longer than {MAX_PATTERN_BYTES} bytes")));
        }
        // Compiled alone first, so that a stray ")" cannot escape the group that anchors it.
        limited(source, false).map_err(|e| PatternError(last_line(&e.to_string())))?;
        let regex = limited(&anchored(source, anchored_end), false)
            .map_err(|e| PatternError(last_line(&e.to_string())))?;
        Ok(Self { source: source.into(), anchored_end, regex, folded: OnceLock::new() })
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// True when the pattern must match up to the end of the text.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.anchored_end
    }

    /// True when `text` matches.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// True when `text` matches without regard to case. A pattern that is too large in this form matches everything.
    #[must_use]
    pub fn matches_in_any_case(&self, text: &str) -> bool {
        let folded =
            self.folded.get_or_init(|| limited(&anchored(&self.source, self.anchored_end), true).ok());
        folded.as_ref().is_none_or(|regex| regex.is_match(text))
    }
}

fn limited(text: &str, any_case: bool) -> Result<Regex, regex::Error> {
    regex::RegexBuilder::new(text).size_limit(1 << 18).case_insensitive(any_case).build()
}

fn anchored(source: &str, end: bool) -> String {
    let end = if end { "$" } else { "" };
    format!("^(?:{source}){end}")
}

fn last_line(text: &str) -> String {
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source && self.anchored_end == other.anchored_end
    }
}

impl Eq for Pattern {}

/// A condition on the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// The path equals this.
    Exact(String),
    /// The path begins with these whole segments; a trailing slash is ignored.
    Prefix(String),
    /// The path matches this pattern.
    Regex(Pattern),
}

impl PathMatch {
    /// True when `path` (normalised, without query) matches.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == path,
            Self::Prefix(prefix) => {
                let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
                path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Regex(pattern) => pattern.matches(path),
        }
    }

    /// True when `path` (normalised, without query) matches, or what some server may take it for does: a path that
    /// differs in case, in path parameters, or in dots, spaces or a slash at the end.
    #[must_use]
    pub fn may_match(&self, path: &str) -> bool {
        if self.matches(path) {
            return true;
        }
        let loose = loosest(path);
        match self {
            Self::Exact(exact) => {
                let bare = |text: &str| text.strip_suffix('/').unwrap_or(text).to_ascii_lowercase();
                bare(exact) == bare(&loose)
            }
            Self::Prefix(prefix) => {
                let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
                let Some((start, rest)) = loose.split_at_checked(prefix.len()) else { return false };
                start.eq_ignore_ascii_case(prefix) && (rest.is_empty() || rest.starts_with('/'))
            }
            Self::Regex(pattern) => {
                pattern.matches_in_any_case(path)
                    || pattern.matches_in_any_case(&loose)
                    || loose.strip_suffix('/').is_some_and(|bare| pattern.matches_in_any_case(bare))
            }
        }
    }
}

/// A condition on one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueMatch {
    /// The value equals this.
    Exact(String),
    /// The value matches this pattern.
    Regex(Pattern),
}

impl ValueMatch {
    /// True when `value` matches.
    #[must_use]
    pub fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == value,
            Self::Regex(pattern) => pattern.matches(value),
        }
    }
}

/// One condition on a request; all parts that are present must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestMatch {
    /// On the path; None: any.
    pub path: Option<PathMatch>,
    /// Methods of which one must match; empty: any.
    pub methods: Vec<Method>,
    /// On header fields; all must hold.
    pub headers: Vec<(HeaderName, ValueMatch)>,
    /// On query parameters; all must hold.
    pub query: Vec<(String, ValueMatch)>,
    /// On the authority without its port, in lower case; one must match; empty: any.
    pub hosts: Vec<ValueMatch>,
}

/// What conditions can look at.
#[derive(Clone, Copy, Debug)]
pub struct RequestParts<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path, normalised where rules match on paths (see [`crate::path`]).
    pub path: &'a str,
    /// The query without its '?'.
    pub query: Option<&'a str>,
    /// The header fields.
    pub headers: &'a HeaderMap,
    /// The authority (Host), as it was sent; None: there is none.
    pub authority: Option<&'a str>,
}

impl RequestMatch {
    /// True when `request` fulfils all parts.
    #[must_use]
    pub fn matches(&self, request: &RequestParts<'_>) -> bool {
        self.path.as_ref().is_none_or(|path| path.matches(request.path)) && self.matches_besides(request)
    }

    /// True when `request` fulfils all parts, its path in the reading of some server ([`PathMatch::may_match`]).
    #[must_use]
    pub fn may_match(&self, request: &RequestParts<'_>) -> bool {
        self.path.as_ref().is_none_or(|path| path.may_match(request.path)) && self.matches_besides(request)
    }

    fn matches_besides(&self, request: &RequestParts<'_>) -> bool {
        (self.methods.is_empty() || self.methods.contains(request.method))
            && self.headers.iter().all(|(name, value)| header_matches(request.headers, name, value))
            && self.query.iter().all(|(name, value)| query_matches(request.query, name, value))
            && (self.hosts.is_empty() || host_matches(request.authority, &self.hosts))
    }

    /// True when it fits every request.
    #[must_use]
    pub fn is_any(&self) -> bool {
        let any_path = match &self.path {
            None => true,
            Some(PathMatch::Prefix(prefix)) => prefix == "/" || prefix.is_empty(),
            Some(_) => false,
        };
        any_path
            && self.methods.is_empty()
            && self.headers.is_empty()
            && self.query.is_empty()
            && self.hosts.is_empty()
    }
}

/// Several fields of one name count as one value, joined by ", " (RFC 9110 section 5.3).
fn header_matches(headers: &HeaderMap, name: &HeaderName, value: &ValueMatch) -> bool {
    let mut all = headers.get_all(name).iter();
    let Some(first) = all.next() else { return false };
    let Some(second) = all.next() else {
        return first.to_str().is_ok_and(|text| value.matches(text));
    };
    let parts: Option<Vec<&str>> = [first, second].into_iter().chain(all).map(|v| v.to_str().ok()).collect();
    parts.is_some_and(|parts| value.matches(&parts.join(", ")))
}

/// The first parameter of a name decides (Gateway API: implementations should use the first).
fn query_matches(query: Option<&str>, name: &str, value: &ValueMatch) -> bool {
    let found = query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find(|(key, _)| *key == name);
    found.is_some_and(|(_, text)| value.matches(text))
}

/// Names of hosts have no case (RFC 9110 section 4.2.3).
fn host_matches(authority: Option<&str>, hosts: &[ValueMatch]) -> bool {
    let Some(authority) = authority else { return false };
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => authority,
    };
    let host = host.to_ascii_lowercase();
    hosts.iter().any(|value| value.matches(&host))
}

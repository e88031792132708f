//! Changes of paths, by whole segments (Gateway API HTTPPathModifier).

use std::borrow::Cow;

use super::PathChange;
use crate::matching::{PathMatch, RequestMatch};

impl PathChange {
    /// The new path. `prefix` is what the rule matched (see [`matched_prefix`]).
    #[must_use]
    pub fn apply(&self, path: &str, prefix: &str) -> String {
        match self {
            Self::Full(full) => rooted(full).into_owned(),
            Self::Prefix(replacement) => {
                let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
                let rest = match path.strip_prefix(prefix) {
                    Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
                    // The rule matched by something else; then nothing of the path is its prefix.
                    _ => path,
                };
                let replacement = rooted(replacement);
                match rest {
                    "" => replacement.into_owned(),
                    rest => format!("{}{rest}", replacement.trim_end_matches('/')),
                }
            }
        }
    }
}

fn rooted(path: &str) -> Cow<'_, str> {
    if path.starts_with('/') { Cow::Borrowed(path) } else { Cow::Owned(format!("/{path}")) }
}

/// The longest prefix among `matches` that `path` begins with; "/" when there is none.
#[must_use]
pub fn matched_prefix<'a>(matches: &'a [RequestMatch], path: &str) -> &'a str {
    let prefixes = matches.iter().filter_map(|condition| match &condition.path {
        Some(matching @ PathMatch::Prefix(prefix)) if matching.matches(path) => Some(prefix.as_str()),
        Some(PathMatch::Exact(_) | PathMatch::Prefix(_) | PathMatch::Regex(_)) | None => None,
    });
    prefixes.max_by_key(|prefix| prefix.len()).unwrap_or("/")
}

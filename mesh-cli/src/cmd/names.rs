//! Names as typed: `NAME` or `NAMESPACE/NAME`, found among what exists, or the nearest suggested.

use anyhow::bail;

use crate::{cli::Kind, nearest::nearest};

/// A name as typed.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    namespace: Option<String>,
    name: String,
}

impl Wanted {
    /// Reads `NAME` or `NAMESPACE/NAME`; `namespace` is what `-n` says.
    ///
    /// # Errors
    /// When `-n` contradicts the name.
    pub(crate) fn parse(typed: &str, namespace: Option<&str>) -> anyhow::Result<Self> {
        let (inner, name) = match typed.split_once('/') {
            Some((inner, name)) => (Some(inner), name),
            None => (None, typed),
        };
        if let (Some(inner), Some(flag)) = (inner, namespace)
            && inner != flag
        {
            bail!("{typed} is in namespace {inner}, but -n says {flag}; leave one of them out");
        }
        Ok(Self { namespace: inner.or(namespace).map(str::to_owned), name: name.to_owned() })
    }

    /// True when it names this.
    pub(crate) fn is(&self, namespace: &str, name: &str) -> bool {
        self.name == name && self.namespace.as_deref().is_none_or(|wanted| wanted == namespace)
    }

    /// The only one of `existing` (namespace and name) that it names.
    ///
    /// # Errors
    /// When there is none (suggests the nearest) or more than one (names them).
    pub(crate) fn find(&self, kind: Kind, existing: &[(String, String)]) -> anyhow::Result<(String, String)> {
        self.only(kind.noun(), &format!("meshctl stat {}", kind.arg()), existing)
    }

    /// As [`Self::find`], of anything: what people call it, and the command that lists all.
    pub(crate) fn only(
        &self,
        noun: &str,
        lists: &str,
        existing: &[(String, String)],
    ) -> anyhow::Result<(String, String)> {
        let mut found: Vec<&(String, String)> =
            existing.iter().filter(|(ns, name)| self.is(ns, name)).collect();
        found.sort();
        found.dedup();
        match found.as_slice() {
            [one] => Ok((*one).clone()),
            [] => Err(self.none(noun, lists, existing)),
            many => {
                let all: Vec<String> = many.iter().map(|(ns, name)| format!("{ns}/{name}")).collect();
                bail!("there are several {noun}s of that name: {}; say which with -n", all.join(", "))
            }
        }
    }

    /// The namespace that was typed.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// Says that it does not exist, and what was perhaps meant.
    pub(crate) fn unknown(&self, kind: Kind, existing: &[(String, String)]) -> anyhow::Error {
        self.none(kind.noun(), &format!("meshctl stat {}", kind.arg()), existing)
    }

    fn none(&self, noun: &str, lists: &str, existing: &[(String, String)]) -> anyhow::Error {
        let typed = match &self.namespace {
            Some(namespace) => format!("{namespace}/{}", self.name),
            None => self.name.clone(),
        };
        let elsewhere =
            existing.iter().find(|(_, name)| *name == self.name).map(|(ns, name)| format!("{ns}/{name}"));
        let near = || {
            let close = nearest(&self.name, existing.iter().map(|(_, name)| name.as_str()))?;
            existing.iter().find(|(_, name)| name == close).map(|(ns, name)| format!("{ns}/{name}"))
        };
        match elsewhere.or_else(near) {
            Some(other) => anyhow::anyhow!("there is no {noun} {typed}; did you mean {other}?"),
            None if existing.is_empty() => {
                anyhow::anyhow!("there is no {noun} {typed}: the mesh has none at all")
            }
            None => anyhow::anyhow!("there is no {noun} {typed}; `{lists}` lists them"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(typed: &str, namespace: Option<&str>) -> String {
        let all = [("shop", "cart"), ("shop", "catalog"), ("test", "cart")];
        let all = all.map(|(ns, name)| (ns.to_owned(), name.to_owned()));
        let found = Wanted::parse(typed, namespace).and_then(|wanted| wanted.find(Kind::Service, &all));
        found.map_or_else(|error| error.to_string(), |(ns, name)| format!("{ns}/{name}"))
    }

    #[test]
    fn finds_the_only_one() {
        assert_eq!(find("catalog", None), "shop/catalog");
        assert_eq!(find("test/cart", None), "test/cart");
        assert_eq!(find("cart", Some("shop")), "shop/cart");
    }

    #[test]
    fn says_what_to_do_otherwise() {
        assert_eq!(
            find("cart", None),
            "there are several services of that name: shop/cart, test/cart; say which with -n"
        );
        assert_eq!(find("catalgo", None), "there is no service catalgo; did you mean shop/catalog?");
        assert_eq!(
            find("catalog", Some("test")),
            "there is no service test/catalog; did you mean shop/catalog?"
        );
        assert_eq!(find("payments", None), "there is no service payments; `meshctl stat service` lists them");
        assert_eq!(
            find("shop/cart", Some("test")),
            "shop/cart is in namespace shop, but -n says test; leave one of them out"
        );
        let nothing = Wanted::parse("x", None).unwrap().find(Kind::Workload, &[]).unwrap_err();
        assert_eq!(nothing.to_string(), "there is no workload x: the mesh has none at all");
    }
}

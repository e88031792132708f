//! Cross-origin resource sharing (Fetch standard, section 3.3; Gateway API HTTPCORSFilter).

use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
        ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
    },
};

use super::Cors;

const ANY: HeaderValue = HeaderValue::from_static("*");

/// True for the question that a browser asks before the actual request.
#[must_use]
pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

impl Cors {
    /// Fields of the answer to a preflight. Without an allowed origin: none that allows anything.
    #[must_use]
    pub fn preflight(&self, request: &HeaderMap) -> HeaderMap {
        let mut answer = HeaderMap::new();
        let Some(origin) = self.allowed(request) else {
            answer.insert(VARY, HeaderValue::from_static("origin"));
            return answer;
        };
        self.allow_origin(origin, &mut answer);
        let asked = |name: HeaderName| request.get(name).cloned();
        let methods = match (self.any_method, self.credentials) {
            // With credentials "*" is a name like any other.
            (true, true) => asked(ACCESS_CONTROL_REQUEST_METHOD),
            (true, false) => Some(ANY),
            (false, _) => list(self.methods.iter().map(Method::as_str)),
        };
        let headers = match (self.any_header, self.credentials) {
            (true, true) => asked(ACCESS_CONTROL_REQUEST_HEADERS),
            (true, false) => Some(ANY),
            (false, _) => list(self.headers.iter().map(HeaderName::as_str)),
        };
        answer.extend(methods.map(|value| (ACCESS_CONTROL_ALLOW_METHODS, value)));
        answer.extend(headers.map(|value| (ACCESS_CONTROL_ALLOW_HEADERS, value)));
        if self.max_age > 0 {
            answer.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.into());
        }
        answer
    }

    /// The origin of a request, when it may call.
    #[must_use]
    pub fn allowed<'a>(&self, request: &'a HeaderMap) -> Option<&'a HeaderValue> {
        request.get(ORIGIN).filter(|origin| self.allows(origin))
    }

    /// Whether an origin may call.
    #[must_use]
    pub fn allows(&self, origin: &HeaderValue) -> bool {
        origin.to_str().is_ok_and(|text| self.origins.iter().any(|pattern| covers(pattern, text)))
    }

    /// Sets the fields of the actual response to a request of an allowed `origin`.
    pub fn respond(&self, origin: &HeaderValue, response: &mut HeaderMap) {
        self.allow_origin(origin, response);
        let expose = list(self.expose.iter().map(HeaderName::as_str));
        response.extend(expose.map(|value| (ACCESS_CONTROL_EXPOSE_HEADERS, value)));
    }

    fn allow_origin(&self, origin: &HeaderValue, answer: &mut HeaderMap) {
        if !self.credentials && self.origins.iter().any(|pattern| &**pattern == "*") {
            answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
            return;
        }
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        let _ = answer.try_append(VARY, HeaderValue::from_static("origin"));
        if self.credentials {
            answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> Option<HeaderValue> {
    let text = names.collect::<Vec<_>>().join(", ");
    if text.is_empty() { None } else { HeaderValue::try_from(text).ok() }
}

/// Whether `pattern` covers an origin: all of them, this one, or those whose host ends so. Neither schemes nor hosts
/// have a case.
fn covers(pattern: &str, origin: &str) -> bool {
    if pattern == "*" || pattern.eq_ignore_ascii_case(origin) {
        return true;
    }
    let Some((scheme, suffix)) = pattern.split_once("://*") else { return false };
    let Some((own, host)) = origin.split_once("://") else { return false };
    let Some(labels) = host.len().checked_sub(suffix.len()) else { return false };
    let (Some(first), Some(last)) = (host.get(..labels), host.get(labels..)) else { return false };
    let in_labels = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    scheme.eq_ignore_ascii_case(own)
        && suffix.starts_with('.')
        && !first.is_empty()
        && first.chars().all(in_labels)
        && last.eq_ignore_ascii_case(suffix)
}

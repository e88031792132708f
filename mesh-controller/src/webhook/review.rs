//! AdmissionReview, as far as it is used here.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};

/// Most problems that are told of one object.
const MAX_PROBLEMS: usize = 50;
/// Most warnings, and the longest one (Kubernetes cuts them).
const MAX_WARNINGS: usize = 10;
const MAX_WARNING: usize = 250;

/// The result where nothing could be said at the moment.
pub(super) const NOT_NOW: &str = "not_now";

/// What stands around a request.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Review {
    api_version: String,
    kind: String,
    request: Option<Request>,
}

/// What the API server asks.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request {
    pub(super) uid: String,
    #[serde(default)]
    pub(super) namespace: String,
    #[serde(default)]
    pub(super) operation: String,
    #[serde(default)]
    pub(super) dry_run: Option<bool>,
    /// Null when an object is deleted.
    #[serde(default)]
    pub(super) object: Value,
}

impl Review {
    /// Reads what came.
    ///
    /// # Errors
    /// What is wrong, for whoever asked.
    pub(super) fn read(body: &[u8]) -> Result<Request, String> {
        let review: Self =
            serde_json::from_slice(body).map_err(|error| format!("expected an AdmissionReview: {error}"))?;
        if (review.api_version.as_str(), review.kind.as_str()) != ("admission.k8s.io/v1", "AdmissionReview") {
            return Err(format!(
                "expected admission.k8s.io/v1 AdmissionReview, found {:?} {:?}",
                review.api_version, review.kind
            ));
        }
        review.request.ok_or_else(|| "the AdmissionReview has no request".to_owned())
    }
}

/// What is answered.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Verdict {
    /// Why not; None: it may be.
    pub(super) refusal: Option<(u16, String)>,
    /// What is to be changed (RFC 6902).
    pub(super) patch: Option<Value>,
    /// What whoever sent the object is told.
    pub(super) warnings: Vec<String>,
}

impl Verdict {
    /// It may be, as it is.
    pub(super) fn allowed() -> Self {
        Self::default()
    }

    /// It may not be, for all of these reasons.
    pub(super) fn refused(what: &str, problems: &[String]) -> Self {
        let shown = problems.get(..MAX_PROBLEMS).unwrap_or(problems);
        let more = problems.len() - shown.len();
        let more = if more == 0 { String::new() } else { format!("\n({more} more)") };
        let text = format!("{what}:\n{}{more}", shown.join("\n"));
        Self { refusal: Some((422, text)), ..Self::default() }
    }

    /// It may not be at the moment.
    pub(super) fn not_now(why: String) -> Self {
        Self { refusal: Some((503, why)), ..Self::default() }
    }

    /// What it comes to, for those who count.
    pub(super) fn result(&self) -> &'static str {
        match (&self.refusal, &self.patch) {
            (None, None) => "allowed",
            (None, Some(_)) => "injected",
            (Some((503, _)), _) => NOT_NOW,
            (Some(_), _) => "refused",
        }
    }

    /// The whole answer.
    pub(super) fn into_review(self, uid: &str) -> Value {
        let mut response = json!({ "uid": uid, "allowed": self.refusal.is_none() });
        if let Some((code, message)) = self.refusal {
            response["status"] = json!({ "code": code, "message": message });
        }
        if let Some(patch) = self.patch {
            response["patchType"] = "JSONPatch".into();
            response["patch"] = BASE64_STANDARD.encode(patch.to_string()).into();
        }
        if !self.warnings.is_empty() {
            let short = |text: &String| text.chars().take(MAX_WARNING).collect::<String>();
            response["warnings"] = self.warnings.iter().take(MAX_WARNINGS).map(short).collect();
        }
        let mut review = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview" });
        review["response"] = response;
        review
    }
}

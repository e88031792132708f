//! Whose a projected ServiceAccount token is: the API server says, anew for every certificate.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{Api, Client, api::PostParams};
use mesh_core::{
    identity::CONTROLLER,
    name::{is_dns_label, is_dns_name},
};
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::{ClusterError, ask, short};
use crate::metrics::Metrics;

/// The audience that tokens must be made for.
const AUDIENCE: &str = mesh_k8s::names::TOKEN_AUDIENCE;
/// Longest token that is looked at, in bytes.
const MAX_TOKEN: usize = 16 * 1024;
/// Most reviews at a time: whoever may ask needs no certificate.
const MAX_REVIEWS: usize = 32;
const PREFIX: &str = "system:serviceaccount:";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// The pod that a token was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BoundPod {
    /// Namespace of pod and ServiceAccount.
    pub(crate) namespace: String,
    /// The ServiceAccount.
    pub(crate) account: String,
    /// The pod's name.
    pub(crate) name: String,
    /// Its uid; empty: the API server does not say.
    pub(crate) uid: String,
}

/// Why a token proves nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    /// It is no ServiceAccount token at all.
    #[error(
        "the token is no ServiceAccount token of Kubernetes: mount a projected token with audience {AUDIENCE}"
    )]
    Malformed,
    /// It was made for others.
    #[error(
        "the token is for the audience {0:?}, not for {AUDIENCE}: mount a projected token with that audience"
    )]
    Audience(Vec<String>),
    /// The API server does not accept it.
    #[error(
        "the API server does not accept the token ({0}): it has expired, or its pod or ServiceAccount is gone"
    )]
    NotAuthenticated(String),
    /// It is somebody's who is no ServiceAccount.
    #[error("the token is of {0:?}, who is no ServiceAccount")]
    NoAccount(String),
    /// It is of the controller itself.
    #[error("the controller's own ServiceAccount gets no certificate: run the workload under another")]
    Reserved,
    /// It is of no pod.
    #[error("the token is bound to no pod: mount a projected token, for others prove nothing about the pod")]
    NoPod,
    /// The API server could not be asked, or may not be.
    #[error("the token cannot be checked: {0}")]
    Unchecked(#[from] ClusterError),
}

/// Asks the API server about tokens.
pub(crate) struct Reviews {
    api: Api<TokenReview>,
    slots: Semaphore,
    metrics: Metrics,
}

impl Reviews {
    pub(crate) fn new(client: &Client, metrics: &Metrics) -> Self {
        let api = Api::all(client.clone());
        Self { api, slots: Semaphore::new(MAX_REVIEWS), metrics: metrics.clone() }
    }

    /// The pod that a token was made for. Nothing is remembered: a pod that is gone proves nothing.
    pub(crate) async fn review(&self, token: &str) -> Result<BoundPod, TokenError> {
        let outcome = self.reviewed(token.trim()).await;
        self.metrics.token_review(match &outcome {
            Ok(_) => "accepted",
            Err(TokenError::Unchecked(_)) => "unchecked",
            Err(
                TokenError::Malformed
                | TokenError::Audience(_)
                | TokenError::NotAuthenticated(_)
                | TokenError::NoAccount(_)
                | TokenError::Reserved
                | TokenError::NoPod,
            ) => "refused",
        });
        outcome
    }

    async fn reviewed(&self, token: &str) -> Result<BoundPod, TokenError> {
        check_audience(token)?;
        let spec =
            TokenReviewSpec { audiences: Some(vec![AUDIENCE.to_owned()]), token: Some(token.to_owned()) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let answer = async {
            // Closed is never: the wait for a turn counts as waiting for the answer.
            let _turn = self.slots.acquire().await;
            self.api.create(&PostParams::default(), &review).await
        };
        let answer = ask(|| "create a TokenReview".to_owned(), answer).await?;
        read(&answer.status.unwrap_or_default())
    }
}

/// What a token says of itself, before anybody has checked that.
#[derive(Deserialize)]
struct Claims {
    aud: Audiences,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    All(Vec<String>),
}

/// Turns away what cannot be meant for the mesh, so that the API server is not asked about noise. Proves nothing.
fn check_audience(token: &str) -> Result<(), TokenError> {
    let mut parts = token.split('.');
    let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(TokenError::Malformed);
    };
    if token.len() > MAX_TOKEN {
        return Err(TokenError::Malformed);
    }
    let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).map_err(|_| TokenError::Malformed)?;
    let claims: Claims = serde_json::from_slice(&claims).map_err(|_| TokenError::Malformed)?;
    let audiences = match claims.aud {
        Audiences::One(one) => vec![one],
        Audiences::All(all) => all,
    };
    if audiences.iter().any(|audience| audience == AUDIENCE) {
        return Ok(());
    }
    Err(TokenError::Audience(audiences.iter().take(4).map(|audience| short(audience)).collect()))
}

/// Reads what the API server says.
fn read(status: &TokenReviewStatus) -> Result<BoundPod, TokenError> {
    if status.authenticated != Some(true) {
        return Err(TokenError::NotAuthenticated(short(
            status.error.as_deref().unwrap_or("no reason given"),
        )));
    }
    // Nothing said means that whoever checked knows no audiences, and took it for one of the API server.
    let audiences = status.audiences.as_deref().unwrap_or_default();
    if !audiences.iter().any(|audience| audience == AUDIENCE) {
        return Err(TokenError::Audience(audiences.to_vec()));
    }
    let user = status.user.as_ref();
    let username = user.and_then(|user| user.username.as_deref()).unwrap_or_default();
    let account = username.strip_prefix(PREFIX).and_then(|rest| rest.split_once(':'));
    let Some((namespace, account)) = account.filter(|(ns, name)| is_dns_label(ns) && is_dns_name(name))
    else {
        return Err(TokenError::NoAccount(short(username)));
    };
    if (namespace, account) == CONTROLLER {
        return Err(TokenError::Reserved);
    }
    let extra = |key: &str| match user.and_then(|user| user.extra.as_ref()?.get(key)).map(Vec::as_slice) {
        Some([one]) => Some(one.clone()),
        _ => None,
    };
    let name = extra(POD_NAME).filter(|name| is_dns_name(name)).ok_or(TokenError::NoPod)?;
    Ok(BoundPod {
        namespace: namespace.to_owned(),
        account: account.to_owned(),
        name,
        uid: extra(POD_UID).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn told(status: Value) -> Result<BoundPod, String> {
        read(&serde_json::from_value(status).unwrap()).map_err(|error| error.to_string())
    }

    fn status(change: impl FnOnce(&mut Value)) -> Value {
        let extra = json!({POD_NAME: ["cart-1"], POD_UID: ["u-1"]});
        let user = json!({"username": "system:serviceaccount:shop:cart", "groups": [], "extra": extra});
        let mut status = json!({"authenticated": true, "audiences": [AUDIENCE], "user": user});
        change(&mut status);
        status
    }

    #[test]
    fn only_a_bound_token_for_the_mesh_names_a_pod() {
        let expected = BoundPod {
            namespace: "shop".into(),
            account: "cart".into(),
            name: "cart-1".into(),
            uid: "u-1".into(),
        };
        assert_eq!(told(status(|_| {})), Ok(expected.clone()));
        let without_uid = status(|s| s["user"]["extra"] = json!({POD_NAME: ["cart-1"]}));
        assert_eq!(told(without_uid), Ok(BoundPod { uid: String::new(), ..expected }));

        let check = |status: Value, expected: &str| {
            let error = told(status.clone()).unwrap_err();
            assert!(error.contains(expected), "{status}: {error}");
        };
        check(json!({}), "no reason given");
        check(json!({"authenticated": false, "error": "token has\nexpired"}), "(token has expired)");
        check(status(|s| s["authenticated"] = json!(false)), "does not accept");
        check(status(|s| s["audiences"] = Value::Null), "audience [], not for");
        check(status(|s| s["audiences"] = json!(["vault"])), "[\"vault\"]");
        for name in
            ["admin", "system:node:a", "system:serviceaccount:shop", "system:serviceaccount:Shop:cart", ""]
        {
            check(status(|s| s["user"]["username"] = json!(name)), "no ServiceAccount");
        }
        check(
            status(|s| s["user"]["username"] = json!("system:serviceaccount:mesh-system:mesh-controller")),
            "controller's own",
        );
        for extra in
            [json!({}), json!({POD_NAME: []}), json!({POD_NAME: ["a", "b"]}), json!({POD_NAME: ["../x"]})]
        {
            check(status(|s| s["user"]["extra"] = extra), "bound to no pod");
        }
    }

    #[test]
    fn what_cannot_be_meant_for_the_mesh_is_not_asked_about() {
        let token = |claims: &str| format!("h.{}.s", BASE64_URL_SAFE_NO_PAD.encode(claims));
        for good in
            [format!("{{\"aud\":[\"a\",\"{AUDIENCE}\"]}}"), format!("{{\"aud\":\"{AUDIENCE}\",\"x\":1}}")]
        {
            check_audience(&token(&good)).unwrap();
        }
        let others =
            check_audience(&token("{\"aud\":[\"https://kubernetes.default.svc\"]}")).unwrap_err().to_string();
        assert!(others.contains("https://kubernetes.default.svc"), "{others}");
        let huge = format!(
            "h.{}.{}",
            BASE64_URL_SAFE_NO_PAD.encode(format!("{{\"aud\":\"{AUDIENCE}\"}}")),
            "s".repeat(MAX_TOKEN)
        );
        for noise in ["", ".", "..", "a.b", "a.b.c", "a.e30.c", "a.e30.c.d", &token("{\"aud\":1}"), &huge] {
            assert!(matches!(check_audience(noise), Err(TokenError::Malformed)), "{noise:.40}");
        }
    }
}

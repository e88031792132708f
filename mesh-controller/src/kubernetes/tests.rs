//! Replicas of the controller at an API server of our own.

use std::{sync::Arc, time::SystemTime};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::json;

use super::{fake::Fake, lease::Lock, *};
use crate::{
    ca::{Ca, CaError},
    metrics::Metrics,
};

const LIFETIME: Duration = Duration::from_secs(3600);

pub(super) fn cluster(fake: &Arc<Fake>, replica: &str) -> Cluster {
    let (url, namespace) = ("fake".to_owned(), "mesh-system".to_owned());
    Cluster { client: fake.client(), url, namespace, replica: replica.to_owned(), noted: Arc::default() }
}

async fn ca(fake: &Arc<Fake>) -> Result<Ca, CaError> {
    Ca::open_in(Secrets::new(&cluster(fake, "a")), "cluster.local", LIFETIME).await
}

#[tokio::test]
async fn replicas_end_up_with_one_authority() {
    let fake = Fake::new();
    let (first, second) = tokio::join!(ca(&fake), ca(&fake));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first.root_sha256(), second.root_sha256());
    assert_eq!(ca(&fake).await.unwrap().root_sha256(), first.root_sha256(), "after a restart");

    // One renews the issuer, the other one follows.
    let issuer = |ca: &Ca| ca.certify_server(&["a.svc".to_owned()]).unwrap().0.chain[1].clone();
    let before = issuer(&first);
    let later = SystemTime::now() + Duration::from_secs(250 * 86_400);
    let (one, other) = tokio::join!(first.renew_issuer(later), second.renew_issuer(later));
    assert!(one.unwrap() && other.unwrap());
    assert_ne!(issuer(&first), before);
    let now = SystemTime::now();
    second.renew_issuer(now).await.unwrap();
    first.renew_issuer(now).await.unwrap();
    assert_eq!(issuer(&first), issuer(&second));
    assert!(!first.renew_issuer(now).await.unwrap(), "nothing is new");
}

#[tokio::test]
async fn the_secret_is_restored_from_memory_and_never_followed_to_another_root() {
    let fake = Fake::new();
    let first = ca(&fake).await.unwrap();
    fake.remove("secrets", "mesh-ca");
    assert!(!first.renew_issuer(SystemTime::now()).await.unwrap());
    assert_eq!(ca(&fake).await.unwrap().root_sha256(), first.root_sha256());

    let other = Fake::new();
    let stranger = ca(&other).await.unwrap();
    fake.put("secrets", other.object("secrets", "mesh-ca"));
    let told = first.renew_issuer(SystemTime::now()).await.unwrap_err().to_string();
    assert!(told.contains("Secret mesh-system/mesh-ca") && told.contains("restart"), "{told}");
    assert_ne!(first.root_sha256(), stranger.root_sha256());

    let mut damaged = other.object("secrets", "mesh-ca");
    damaged["data"]["root.key"] = json!("bm8ga2V5");
    fake.put("secrets", damaged);
    let told = ca(&fake).await.err().unwrap().to_string();
    assert!(told.contains("mesh-ca, key root.key") && told.contains("backup"), "{told}");

    fake.fail("secrets", Some(503));
    assert!(matches!(ca(&fake).await, Err(CaError::Cluster(error)) if error.is_away()));
    fake.fail("secrets", Some(403));
    let told = ca(&fake).await.err().unwrap().to_string();
    assert!(told.contains("read Secret mesh-system/mesh-ca") && told.contains("403"), "{told}");
}

#[tokio::test]
async fn a_mesh_that_is_in_use_gets_no_other_authority() {
    let fake = Fake::new();
    // Nothing stands in a bundle that others emptied.
    fake.put(
        "configmaps",
        json!({"metadata": {"name": "mesh-trust-bundle"}, "data": {"trust-bundle.pem": ""}}),
    );
    let first = ca(&fake).await.unwrap();
    Bundles::new(&cluster(&fake, "a"), first.root_pem()).ensure("mesh-system").await.unwrap();
    assert_eq!(ca(&fake).await.unwrap().root_sha256(), first.root_sha256());

    let kept = fake.object("secrets", "mesh-ca");
    fake.remove("secrets", "mesh-ca");
    let told = ca(&fake).await.err().unwrap().to_string();
    for part in
        ["Secret mesh-system/mesh-ca is missing", "restore", "ConfigMap mesh-system/mesh-trust-bundle"]
    {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(fake.object("secrets", "mesh-ca").is_null(), "a new one was made");
    fake.put("secrets", kept);
    assert_eq!(ca(&fake).await.unwrap().root_sha256(), first.root_sha256());

    fake.remove("secrets", "mesh-ca");
    fake.remove("configmaps", "mesh-trust-bundle");
    assert_ne!(ca(&fake).await.unwrap().root_sha256(), first.root_sha256(), "a new mesh was asked for");
}

#[tokio::test]
async fn tokens_are_asked_about_each_time_and_noise_never() {
    let fake = Fake::new();
    let metrics = Metrics::new();
    let reviews = Reviews::new(&fake.client(), &metrics);
    let token = format!("h.{}.s", BASE64_URL_SAFE_NO_PAD.encode("{\"aud\":[\"meshctl.dev\"]}"));
    let extra = json!({"authentication.kubernetes.io/pod-name": ["cart-1"]});
    let user = json!({"username": "system:serviceaccount:shop:cart", "extra": extra});
    fake.review(json!({"authenticated": true, "audiences": ["meshctl.dev"], "user": user}));
    for _ in 0..2 {
        assert_eq!(reviews.review(&token).await.unwrap().name, "cart-1");
    }
    assert_eq!(fake.writes(), 2);
    // It was good a moment ago.
    fake.review(json!({"authenticated": false, "error": "pod is gone"}));
    assert!(
        matches!(reviews.review(&token).await, Err(TokenError::NotAuthenticated(why)) if why == "pod is gone")
    );
    assert!(matches!(reviews.review("noise").await, Err(TokenError::Malformed)));
    assert_eq!(fake.writes(), 3, "noise is not asked about");
    for (status, is_away) in [(500, true), (429, true), (403, false)] {
        fake.fail("tokenreviews", Some(status));
        let outcome = reviews.review(&token).await;
        assert!(
            matches!(outcome, Err(TokenError::Unchecked(error)) if error.is_away() == is_away),
            "{status}"
        );
    }
    let text = metrics.render();
    for (outcome, count) in [("accepted", 2), ("refused", 2), ("unchecked", 3)] {
        let line = format!("token_reviews_total{{outcome=\"{outcome}\"}} {count}\n");
        assert!(text.contains(&line), "{line} {text}");
    }
}

#[tokio::test]
async fn one_replica_leads_until_it_hands_over() {
    let fake = Fake::new();
    let (mut first, mut second) = (Lock::new(&cluster(&fake, "a")), Lock::new(&cluster(&fake, "b")));
    assert!(!first.is_leader() && first.left().is_none());
    for _ in 0..3 {
        first.attempt().await.unwrap();
        second.attempt().await.unwrap();
        assert!(first.is_leader() && !second.is_leader());
    }
    assert!(first.left().is_some_and(|left| left > Duration::from_secs(8)));
    // It leads on for a while when it is not answered.
    fake.fail("leases", Some(500));
    assert!(first.attempt().await.unwrap_err().is_away());
    assert!(first.is_leader());
    fake.fail("leases", None);
    first.release().await.unwrap();
    second.attempt().await.unwrap();
    assert!(second.is_leader());
    let lease = fake.object("leases", "mesh-controller");
    assert_eq!(
        (&lease["spec"]["holderIdentity"], &lease["spec"]["leaseTransitions"]),
        (&json!("b"), &json!(1))
    );
    // Somebody else takes it by force.
    let mut taken = lease;
    taken["spec"]["holderIdentity"] = json!("c");
    fake.put("leases", taken);
    second.attempt().await.unwrap();
    assert!(!second.is_leader());
}

#[tokio::test]
async fn a_trust_bundle_is_written_only_where_it_is_not_right() {
    let fake = Fake::new();
    let bundles = Bundles::new(&cluster(&fake, "a"), "PEM");
    bundles.ensure("shop").await.unwrap();
    let written = fake.object("configmaps", "mesh-trust-bundle");
    assert_eq!(written["data"], json!({"trust-bundle.pem": "PEM"}));
    assert_eq!(written["metadata"]["labels"]["app.kubernetes.io/managed-by"], "mesh-controller");
    bundles.ensure("shop").await.unwrap();
    assert_eq!(fake.writes(), 1);
    for change in [json!({"data": {"trust-bundle.pem": "other"}}), json!({"data": null})] {
        let mut object = written.clone();
        object["data"] = change["data"].clone();
        fake.put("configmaps", object);
        bundles.ensure("shop").await.unwrap();
        assert_eq!(fake.object("configmaps", "mesh-trust-bundle")["data"], written["data"]);
    }
    fake.fail("configmaps", Some(403));
    let told = bundles.ensure("shop").await.unwrap_err().to_string();
    assert!(told.contains("ConfigMap shop/mesh-trust-bundle"), "{told}");
}

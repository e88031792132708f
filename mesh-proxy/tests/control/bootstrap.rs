//! Who is trusted before the first byte, who is told the token, and how certificates are renewed.

use std::{sync::Arc, time::Duration};

use mesh_testkit::{
    ca::{Flaw, Svid, TestCa},
    control::FakeController,
    net::{PATIENCE, eventually, fresh_addr},
};

use crate::rig::{Rig, TOKEN, admin, cart, generation, get, start};

#[tokio::test]
async fn a_proxy_gets_its_certificate_and_is_ready() {
    let rig = Rig::new().await;
    let proxy = rig.ready().await;
    assert_eq!(get(proxy.addresses().health, "/ready").await, (200, "ready\n".to_owned()));
    let certificates = admin(&proxy, "/certificates").await;
    assert_eq!(certificates["identity"], rig.id().as_str());
    assert_eq!(certificates["roots"][0]["sha256"], rig.ca.root_sha256());
    assert!(certificates["not_after"].as_u64().unwrap() > 0);
    let [certified] = rig.controller.certified().try_into().unwrap();
    assert_eq!((certified.workload, certified.by_token), (cart(), true));
    let config = admin(&proxy, "/config").await;
    assert_eq!(config["workload"]["inbound"][0]["port"], 8080);
    assert!(!config.to_string().contains(TOKEN), "no secret in admin");
    proxy.shutdown().await;
}

#[tokio::test]
async fn a_pin_serves_instead_of_a_bundle() {
    let rig = Rig::new().await;
    let mut options = rig.options();
    (options.trust_bundle, options.trust_pin) = (None, Some(format!("sha256:{}", rig.ca.root_sha256())));
    let proxy = start(&options).await;
    tokio::time::timeout(PATIENCE, proxy.ready()).await.expect("ready");
    proxy.shutdown().await;
}

/// A controller that cannot prove itself is told nothing: neither token nor request.
async fn check_distrusted(rig: Rig, pin: Option<String>) {
    let mut options = rig.options();
    if let Some(pin) = pin {
        (options.trust_bundle, options.trust_pin) = (None, Some(format!("sha256:{pin}")));
    }
    let proxy = start(&options).await;
    let connections = || async { (rig.controller.connections() >= 3).then_some(()) };
    eventually(PATIENCE, "three attempts", connections).await;
    assert!(rig.controller.certified().is_empty(), "no certificate was asked for");
    let (status, body) = get(proxy.addresses().health, "/ready").await;
    assert_eq!(status, 503);
    assert!(body.contains("no certificate yet"), "{body}");
    proxy.shutdown().await;
}

#[tokio::test]
async fn another_pin_is_refused() {
    check_distrusted(Rig::new().await, Some("00".repeat(32))).await;
}

#[tokio::test]
async fn another_root_is_refused() {
    let rig = Rig::new().await;
    std::fs::write(rig.file("roots.pem"), TestCa::new("cluster.local").root_pem()).unwrap();
    check_distrusted(rig, None).await;
}

async fn impostor(svid: impl FnOnce(&TestCa) -> Svid) -> Rig {
    let ca = Arc::new(TestCa::new("cluster.local"));
    let svid = svid(&ca);
    let controller = FakeController::start_as(fresh_addr(0), Arc::clone(&ca), svid).await;
    Rig::with(controller, ca)
}

#[tokio::test]
async fn a_workload_that_poses_as_the_controller_is_refused() {
    check_distrusted(impostor(|ca| ca.svid("shop", "job")).await, None).await;
}

#[tokio::test]
async fn a_controller_with_an_expired_certificate_is_refused() {
    let id = |ca: &TestCa| ca.id("mesh-system", "mesh-controller");
    check_distrusted(impostor(|ca| ca.flawed(&id(ca), Flaw::Expired)).await, None).await;
}

#[tokio::test]
async fn the_token_is_read_again_at_every_attempt() {
    let rig = Rig::new().await;
    std::fs::write(rig.file("token"), "not it").unwrap();
    let proxy = rig.start().await;
    let refused = || async { (!rig.controller.certified().is_empty()).then_some(()) };
    eventually(PATIENCE, "the wrong token was tried", refused).await;
    assert_eq!(rig.controller.certified()[0].identity, None);
    std::fs::write(rig.file("token"), TOKEN).unwrap();
    tokio::time::timeout(PATIENCE, proxy.ready()).await.expect("ready with the right token");
    proxy.shutdown().await;
}

#[tokio::test]
async fn a_certificate_for_another_namespace_is_refused() {
    let rig = Rig::new().await;
    rig.controller.allow_token(TOKEN, rig.ca.id("bank", "cart"));
    let proxy = rig.start().await;
    let asked = || async { (rig.controller.certified().len() >= 2).then_some(()) };
    eventually(PATIENCE, "two attempts", asked).await;
    assert_eq!(generation(&proxy).await, 0);
    proxy.shutdown().await;
}

#[tokio::test]
async fn certificates_are_renewed_and_swapped_without_a_break() {
    let rig = Rig::new().await;
    rig.controller.set_lifetime(Duration::from_secs(60), Duration::from_secs(1));
    let proxy = rig.ready().await;
    let first = admin(&proxy, "/certificates").await;
    // The token is gone: from now on the certificate proves who asks.
    std::fs::remove_file(rig.file("token")).unwrap();
    let renewed = || async { (generation(&proxy).await >= 2).then_some(()) };
    eventually(PATIENCE, "a renewal", renewed).await;
    let second = admin(&proxy, "/certificates").await;
    assert_ne!(first["serial"], second["serial"]);
    assert_eq!(first["identity"], second["identity"]);
    assert!(rig.controller.certified().iter().skip(1).any(|certified| !certified.by_token));
    assert_eq!(get(proxy.addresses().health, "/ready").await.0, 200);
    let streams = || async { (rig.controller.hellos().len() >= 2).then_some(()) };
    eventually(PATIENCE, "a stream with the new certificate", streams).await;
    proxy.shutdown().await;
}

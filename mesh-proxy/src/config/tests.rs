//! Faults are told all at once; defaults follow the mode.

use super::*;

fn options(mode: Mode) -> Options {
    Options { trust_bundle: Some("roots.pem".into()), ..Options::new("shop/cart", "127.0.0.1:15010", mode) }
}

fn check(change: impl FnOnce(&mut Options), expected: &[&str]) {
    let mut options = options(Mode::Explicit);
    change(&mut options);
    let error = Config::new(&options).unwrap_err();
    let flags: Vec<&str> = error.faults.iter().map(|fault| fault.flag).collect();
    assert_eq!(flags, expected, "{error}");
}

#[test]
fn explicit_mode_listens_on_the_workloads_address() {
    let options = Options { address: Some("127.1.0.3".into()), ..options(Mode::Explicit) };
    let config = Config::new(&options).unwrap();
    assert_eq!(config.outbound, ["127.1.0.3:15001".parse().unwrap()]);
    assert_eq!(config.admin, "127.1.0.3:15000".parse().unwrap());
    assert_eq!(config.health, "127.1.0.3:15020".parse().unwrap());
    assert!(config.inbound.is_empty());
}

#[test]
fn transparent_mode_listens_for_all() {
    let config = Config::new(&options(Mode::Transparent)).unwrap();
    assert_eq!(config.outbound, ["127.0.0.1:15001".parse().unwrap(), "[::1]:15001".parse().unwrap()]);
    assert_eq!(config.inbound, ["0.0.0.0:15006".parse().unwrap(), "[::]:15006".parse().unwrap()]);
    assert_eq!(config.admin, "127.0.0.1:15000".parse().unwrap());
    assert_eq!(config.health, "0.0.0.0:15020".parse().unwrap());
}

#[test]
fn all_faults_are_told_at_once() {
    let change = |o: &mut Options| {
        o.workload = "cart".into();
        o.trust_domain = "Cluster.Local".into();
        o.controller = "nowhere".into();
        o.trust_pin = Some("sha256:12".into());
        o.address = Some("here".into());
        o.workers = Some(0);
        o.drain_timeout = "soon".into();
    };
    let all = ["workload", "trust-domain", "controller", "trust-pin", "address", "workers", "drain-timeout"];
    check(change, &all);
}

#[test]
fn a_fault_names_flag_variable_value_and_remedy() {
    let options = Options { drain_timeout: "soon".into(), ..options(Mode::Explicit) };
    let error = Config::new(&options).unwrap_err().to_string();
    assert!(error.starts_with("--drain-timeout (MESH_DRAIN_TIMEOUT): \"soon\" is not a duration"), "{error}");
}

#[test]
fn outbound_and_admin_stay_on_loopback() {
    check(|o| o.outbound = Some("0.0.0.0:15001".into()), &["outbound"]);
    check(|o| o.admin = Some("10.0.0.1:15000".into()), &["admin"]);
    check(|o| o.inbound = Some("0.0.0.0:15006".into()), &["inbound"]);
}

#[test]
fn trust_is_named_exactly_once() {
    check(|o| o.trust_bundle = None, &["trust-bundle"]);
    let pin = format!("sha256:{}", "0f".repeat(32));
    let mut pinned = options(Mode::Explicit);
    (pinned.trust_bundle, pinned.trust_pin) = (None, Some(pin));
    assert_eq!(Config::new(&pinned).unwrap().trust, TrustAnchor::Pin([0x0f; 32]));
    check(|o| o.trust_pin = Some(format!("sha256:{}", "g".repeat(64))), &["trust-pin"]);
}

#[test]
fn durations_have_units() {
    assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
    assert_eq!(parse_duration("2m"), Some(Duration::from_secs(120)));
    for bad in ["", "5", "s", "-1s", "1d", "99999999999999999999s"] {
        assert_eq!(parse_duration(bad), None, "{bad}");
    }
}

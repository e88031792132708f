//! `meshctl wait --applied`.

use serde_json::{Value, json};

use crate::{cluster::Cluster, cmd_help::shows, shop::Shop, support::Controller, support::run};

#[test]
fn all_have_it() {
    let controller = Controller::start(Shop::healthy());
    let output = run(controller.dir.path(), &["wait", "--applied"]);
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.starts_with("4 proxies have generation 7, after "), "{told}");
}

#[test]
fn one_is_late() {
    let controller = Controller::start(Shop::troubled());
    let command = ["wait", "--applied", "--timeout", "600ms"];
    controller.check(
        &command,
        1,
        "",
        "error: 1 of 2 proxies have not applied generation 7 within 600ms\n  shop/cart has generation 5\n\
         see `meshctl check`, or wait longer with --timeout\n",
    );
    let output = run(controller.dir.path(), &[&command[..], &["-o", "json"]].concat());
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected =
        json!({"applied": false, "generation": 7, "proxies": 2, "behind": ["shop/cart has generation 5"]});
    assert_eq!((output.status.code(), told), (Some(1), expected));
}

#[test]
fn nobody_can_be_asked() {
    let (_, dir) = Controller::start(Shop::healthy()).kill();
    let output = run(dir.path(), &["wait", "--applied"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&output.stderr).starts_with("error: no controller answers at "),
        "{output:?}"
    );
    let output = run(dir.path(), &["wait"]);
    assert_eq!(output.status.code(), Some(2));
}

/// The controllers of a cluster are asked through its API server, each of them.
#[test]
fn in_a_cluster() {
    let second = Controller::start(Shop::troubled());
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": []},
        "metadata": {"namespace": "mesh-system", "name": "mesh-controller-2",
            "labels": {"app.kubernetes.io/name": "mesh-controller"}},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    let cluster = Cluster::in_mesh(&[("/api/v1", "pods", pod)], &[]);
    cluster.lead("mesh-system/mesh-controller-2:15080", second.address);
    let output = cluster.run(&["wait", "--applied", "-v"]);
    let (told, asked) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{told}{asked}");
    assert!(told.starts_with("4 proxies have generation 7, after "), "{told}");
    for pod in ["mesh-controller-1", "mesh-controller-2"] {
        assert!(asked.contains(&format!("asking pod mesh-system/{pod} of ")), "{asked}");
    }
}

#[test]
fn help() {
    shows(
        &["wait", "--help"],
        r#"
Wait until all proxies have the newest configuration

Usage: meshctl wait [OPTIONS] --applied

Options:
      --applied  Until all connected proxies have applied the controller's newest configuration
  -h, --help     Print help

{COMMON}
Examples:
  kubectl apply -f canary.yaml && meshctl wait --applied
  meshctl wait --applied --timeout 2m

Here --timeout is the time for all of it [default: 30s].

Exit codes: 0 all connected proxies have it; 1 they have not in time; 2 it cannot be told.
"#,
    );
}

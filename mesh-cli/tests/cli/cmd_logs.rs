//! `meshctl logs`.

use serde_json::json;

use crate::{cluster::Cluster, cmd_look};

const CONTROLLER: &str = "/api/v1/namespaces/mesh-system/pods/mesh-controller-1/log";
const SIDECAR: &str = "/api/v1/namespaces/shop/pods/cart/log";

#[test]
fn of_controllers_and_sidecars() {
    let objects = [cmd_look::meshed(), cmd_look::pod("bare", &json!({}))];
    let logs = [(CONTROLLER, 200, json!("one\ntwo\u{1b}[2J\n")), (SIDECAR, 200, json!("sidecar\n"))];
    let cluster = Cluster::in_mesh(&objects, &logs);
    let check = |args: &[&str], code: i32, stdout: &str, stderr: &str| {
        let output = cluster.run(args);
        let told = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!((told.0.as_ref(), output.status.code()), (stdout, Some(code)), "{args:?} {}", told.1);
        assert!(told.1.contains(stderr), "{args:?} {}", told.1);
    };
    check(&["logs", "--tail", "2"], 0, "one\ntwo\u{fffd}[2J\n", "");
    check(&["logs", "cart", "--follow"], 0, "sidecar\n", "");
    check(&["logs", "cart", "-o", "json"], 0, "{\"line\":\"sidecar\",\"pod\":\"cart\"}\n", "");
    check(&["logs", "bare"], 2, "", "pod shop/bare has no sidecar; `meshctl inspect pod shop/bare` says why");
    check(&["logs", "nobody-of-them"], 2, "", "there is no pod nobody-of-them");
    let asked = cluster.asked();
    assert!(asked.iter().any(|asked| asked.ends_with(SIDECAR)), "{asked:?}");
}

#[test]
fn there_is_no_mesh() {
    let cluster = Cluster::start(&[], &[]);
    let output = cluster.run(&["logs"]);
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("no mesh is installed; see `meshctl install`"), "{told}");
}

#[test]
fn help() {
    crate::cmd_help::shows(
        &["logs", "--help"],
        r#"
Show the log of the controllers, or of a pod's sidecar

Usage: meshctl logs [OPTIONS] [NAME]

Arguments:
  [NAME]  Pod whose sidecar is meant, or NAMESPACE/NAME [default: the controllers]

Options:
  -h, --help                   Print help
  -n, --namespace <NAMESPACE>  Its namespace; needed only when the name exists in several
  -f, --follow                 Go on until Ctrl-C
      --tail <LINES>           Only the last lines
      --since <TIME>           Only what is not older than this
      --previous               Of the container before its last restart
      --init                   The init container that writes the firewall's rules, instead of the
                               sidecar

{COMMON}
Examples:
  meshctl logs                                  The controllers
  meshctl logs shop/cart-7d4b9-x2x1 -f          A pod's sidecar, as it goes on
  meshctl logs cart-7d4b9-x2x1 --tail 20 --since 10m
"#,
    );
}

//! `meshctl support-bundle`: what is in it, and what is not.

use std::{collections::BTreeMap, io::Read as _};

use serde_json::{Value, json};

use crate::{cluster::Cluster, cmd_look, support::TOKEN};

fn unpack(path: &std::path::Path) -> BTreeMap<String, String> {
    let file = std::fs::File::open(path).unwrap();
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let mut files = BTreeMap::new();
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        files.insert(name, text);
    }
    files
}

#[test]
fn all_but_secrets() {
    let (group, plural, mut pod) = cmd_look::meshed();
    pod["spec"]["containers"][0]["env"] = json!([{"name": "GREETING", "value": "hunter2"}]);
    let logs = json!(format!("started\nview token {TOKEN}\nAuthorization: Bearer hunter2hunter2\n"));
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "mesh-system", "name": "mesh-config"},
        "data": {"inject.yaml": "logLevel: info"}});
    let other = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "mesh-system", "name": "not-ours"},
        "data": {"a": "hunter2"}});
    let objects = [(group, plural, pod), ("/api/v1", "configmaps", map), ("/api/v1", "configmaps", other)];
    let answers = [("/api/v1/namespaces/mesh-system/pods/mesh-controller-1/log", 200, logs)];
    let cluster = Cluster::in_mesh(&objects, &answers);
    cluster.proxy("shop/cart", &[("/status", json!({"ready": true, "version": "0.1.0"}))]);
    let path = cluster.dir.path().join("bundle.tar.gz");
    let args = ["support-bundle", "--file", path.to_str().unwrap(), "-o", "json"];
    let output = cluster.run(&args);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let files = unpack(&path);
    assert_eq!(told["files"], files.len(), "{told}");
    let has = |name: &str, text: &str| {
        let name = format!("mesh-support/{name}");
        let content = files.get(&name).unwrap_or_else(|| panic!("{name} is not in {:?}", files.keys()));
        assert!(content.contains(text), "{name}: {content}");
    };
    has("README.txt", "missing.txt");
    has("bundle.json", "\"kubernetes\": \"1.34\"");
    has("check.json", "\"check\": \"the API server answers\"");
    has("objects/mesh-system/ConfigMap.json", "logLevel: info");
    has("objects/pods-with-proxy.json", "GREETING");
    has("logs/mesh-system/mesh-controller-1-controller.log", "started\nview token [redacted]\n");
    has("proxies/shop/cart/status.json", "\"ready\": true");
    has("missing.txt", "proxies/shop/cart/config.json: it answered 404");
    has("missing.txt", "logs/shop/cart-mesh-proxy.log: ");
    for (name, text) in &files {
        assert!(!text.contains("hunter2") && !text.contains(TOKEN), "{name}: {text}");
    }
    let asked = cluster.asked();
    assert!(
        !asked.iter().any(|asked| asked.ends_with("/secrets") || asked.contains("secrets/mesh-ca")),
        "{asked:?}"
    );
    // It holds what others need not see, and is not overwritten.
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let output = cluster.run(&args);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("name another file with --file"), "{output:?}");
}

#[test]
fn help() {
    crate::cmd_help::shows(
        &["support-bundle", "--help"],
        r#"
Collect what helps to find out what is wrong in a cluster, without secrets

Usage: meshctl support-bundle [OPTIONS]

Options:
      --file <FILE>       Where to write it [default: mesh-support-TIME.tar.gz here]
  -h, --help              Print help
      --proxies <NUMBER>  Most proxies that are asked and whose logs are taken [default: 20]
      --tail <LINES>      Lines of each log [default: 2000]

{COMMON}
Examples:
  meshctl support-bundle
  meshctl support-bundle --file mesh.tar.gz --proxies 0

Left out: contents of Secrets, values of the applications' environment, and whatever looks like a
token, a password or a private key. Look into it before you give it away.
"#,
    );
}

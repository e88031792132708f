//! Containers that are told to end when nobody calls their pod any more.

use super::*;

/// The hooks of the first container after injection, and what the proxy holds of it.
fn hooks(annotations: Value, spec: Value) -> (Value, Value) {
    let new = injected(&pod(annotations, spec), &Config::default(), SERVER);
    let env = new["spec"]["initContainers"][1]["env"].as_array().unwrap();
    let held = env.iter().find(|variable| variable["name"] == "MESH_PROBES");
    let held = held.map_or(Value::Null, |v| serde_json::from_str(v["value"].as_str().unwrap()).unwrap());
    (new["spec"]["containers"][0]["lifecycle"].clone(), held[format!("{}/app/pre-stop", nonce())].clone())
}

fn led() -> Value {
    json!({ "httpGet": { "path": format!("/probe/{}/app/pre-stop", nonce()), "port": 15020, "scheme": "HTTP" } })
}

#[test]
fn a_container_waits_before_it_ends() {
    let wait = |seconds: u64| (json!({ "preStop": led() }), json!({ "quietSeconds": seconds }));
    assert_eq!(hooks(json!({}), json!({ "containers": [app()] })), wait(5));
    let short = json!({ "containers": [app()], "terminationGracePeriodSeconds": 6 });
    assert_eq!(hooks(json!({}), short), wait(2));
    // Beside a hook of another kind.
    let mut container = app();
    container["lifecycle"] = json!({ "postStart": { "exec": { "command": ["/a"] } } });
    let (hooks, _) = hooks(json!({}), json!({ "containers": [container] }));
    assert_eq!(hooks, json!({ "postStart": { "exec": { "command": ["/a"] } }, "preStop": led() }));
}

#[test]
fn who_has_a_hook_or_serves_nobody_or_says_so_does_not_wait() {
    let never = |annotations: Value, spec: Value| {
        let (_, held) = hooks(annotations, spec);
        assert!(held.get("quietSeconds").is_none(), "{held}");
    };
    let mut own = app();
    own["lifecycle"] = json!({ "preStop": { "sleep": { "seconds": 9 } } });
    let (hooks, held) = hooks(json!({}), json!({ "containers": [own] }));
    assert_eq!((hooks, held), (json!({ "preStop": { "sleep": { "seconds": 9 } } }), Value::Null));
    never(json!({}), json!({ "containers": [app()], "restartPolicy": "Never" }));
    never(json!({}), json!({ "containers": [app()], "terminationGracePeriodSeconds": 2 }));
    never(json!({ "meshctl.dev/wait-before-stop": "disabled" }), json!({ "containers": [app()] }));
    let odd = pod(json!({ "meshctl.dev/wait-before-stop": "no" }), json!({ "containers": [app()] }));
    check_refused(&odd, &["metadata.annotations[meshctl.dev/wait-before-stop]: "]);
}

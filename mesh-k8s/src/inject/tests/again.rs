//! Pods that have a proxy, and were changed since.

use super::*;

fn probed(name: &str, port: u16) -> Value {
    json!({ "name": name, "image": "a:1", "livenessProbe": { "httpGet": { "path": "/z", "port": port } } })
}

fn held(pod: &Value) -> Value {
    let env = pod["spec"]["initContainers"][1]["env"].as_array().unwrap();
    let all: Vec<&Value> = env.iter().filter(|variable| variable["name"] == "MESH_PROBES").collect();
    assert!(all.len() < 2, "{all:?}");
    all.first().map_or(Value::Null, |v| serde_json::from_str(v["value"].as_str().unwrap()).unwrap())
}

fn key(rest: &str) -> String {
    format!("{}/{rest}", nonce())
}

fn with_proxy() -> Value {
    injected(&pod(json!({}), json!({ "containers": [probed("app", 80)] })), &Config::default(), SERVER)
}

#[test]
fn a_container_that_another_webhook_adds_has_its_probes_led_too() {
    let mut pod = with_proxy();
    pod["spec"]["containers"].as_array_mut().unwrap().push(probed("late", 81));
    let new = injected(&pod, &Config::default(), SERVER);
    let late = &new["spec"]["containers"][1]["livenessProbe"]["httpGet"];
    assert_eq!(
        *late,
        json!({ "path": format!("/probe/{}", key("late/liveness")), "port": 15020, "scheme": "HTTP" })
    );
    let held = held(&new);
    assert_eq!(
        (&held[key("app/liveness")]["port"], &held[key("late/liveness")]["port"]),
        (&json!(80), &json!(81))
    );
    assert_eq!(inject(&new, &Config::default(), SERVER), Outcome::Skipped(Skip::AlreadyInjected));
}

#[test]
fn a_probe_that_was_replaced_is_led_and_one_that_is_gone_is_forgotten() {
    let mut pod = with_proxy();
    pod["spec"]["containers"][0]["livenessProbe"] = json!({ "tcpSocket": { "port": 82 } });
    let new = injected(&pod, &Config::default(), SERVER);
    assert_eq!(
        held(&new)[key("app/liveness")],
        json!({ "port": 82, "timeoutSeconds": 1, "tcpSocket": { "port": 82 } })
    );
    pod["spec"]["containers"][0].as_object_mut().unwrap().remove("livenessProbe");
    let new = injected(&pod, &Config::default(), SERVER);
    assert_eq!(held(&new), json!({ key("app/pre-stop"): { "quietSeconds": 5 } }));
    assert_eq!(uninject(&new).unwrap()["spec"], json!({ "containers": [{ "name": "app", "image": "a:1" }] }));
}

#[test]
fn what_others_do_to_the_proxy_is_left() {
    let mut pod = with_proxy();
    // The defaults of an API server, a registry of one's own, the limits of a namespace, a variable for all.
    let proxy = &mut pod["spec"]["initContainers"][1];
    proxy["terminationMessagePath"] = "/dev/termination-log".into();
    proxy["readinessProbe"]["successThreshold"] = 1.into();
    proxy["image"] = "registry.example/mesh-proxy:1".into();
    proxy["resources"] = json!({ "limits": { "memory": "1Gi" } });
    proxy["env"].as_array_mut().unwrap().push(json!({ "name": "REGION", "value": "a" }));
    let with_default = config(|c| c.log_level = "debug".into());
    assert_eq!(inject(&pod, &with_default, SERVER), Outcome::Skipped(Skip::AlreadyInjected));
    pod["spec"]["containers"].as_array_mut().unwrap().push(probed("late", 81));
    let new = injected(&pod, &with_default, SERVER);
    let proxy = &new["spec"]["initContainers"][1];
    assert_eq!(proxy["image"], "registry.example/mesh-proxy:1");
    assert!(proxy["env"].as_array().unwrap().contains(&json!({ "name": "REGION", "value": "a" })));
}

#[test]
fn what_is_added_is_checked() {
    let mut pod = with_proxy();
    let late = json!({ "name": "late", "ports": [{ "containerPort": 15001 }],
        "securityContext": { "runAsUser": 1337 }, "livenessProbe": { "tcpSocket": { "port": 15020 } } });
    pod["spec"]["containers"].as_array_mut().unwrap().push(late);
    pod["spec"]["hostNetwork"] = true.into();
    pod["metadata"]["annotations"]["meshctl.dev/mtls"] = "on".into();
    check_refused(
        &pod,
        &[
            "spec.hostNetwork: the rules of its proxy",
            "spec.containers[1].securityContext.runAsUser: 1337",
            "spec.containers[1].ports[0].containerPort: the proxy listens on port 15001",
            "metadata.annotations[meshctl.dev/mtls]: \"on\" is not known",
            "spec.containers[1].livenessProbe.tcpSocket.port: port 15020 is the proxy's own",
        ],
    );
    // Another version's pods are its own.
    pod["metadata"]["annotations"]["meshctl.dev/injected"] = "0.0.1".into();
    assert_eq!(inject(&pod, &Config::default(), SERVER), Outcome::Skipped(Skip::AlreadyInjected));
}

#[test]
fn the_nonce_that_is_there_stays() {
    let other = Nonce::new([7; Nonce::LEN]);
    let made = |container: Value| {
        let asked = json!({ "meshctl.dev/wait-before-stop": "disabled" });
        injected(&pod(asked, json!({ "containers": [container] })), &Config::default(), SERVER)
    };
    let pod = made(probed("app", 80));
    let again = |pod: &Value| super::super::inject(pod, &Config::default(), SERVER, &other);
    assert_eq!(again(&pod), Outcome::Skipped(Skip::AlreadyInjected));
    let mut more = pod.clone();
    more["spec"]["containers"].as_array_mut().unwrap().push(probed("late", 81));
    assert_eq!(again(&more), inject(&more, &Config::default(), SERVER));

    // One that had no probes yet gets its nonce with the first of them; one whose paths can be guessed gets it now.
    let mut none = made(app());
    none["spec"]["containers"].as_array_mut().unwrap().push(probed("late", 81));
    let guessed = pod.to_string().replace(&format!("{}/", nonce()), "");
    for (pod, found) in [(none, "late/liveness"), (serde_json::from_str(&guessed).unwrap(), "app/liveness")] {
        let Outcome::Injected(new) = again(&pod) else { panic!("{pod}") };
        let held = held(&new);
        assert_eq!(held.as_object().unwrap().keys().collect::<Vec<_>>(), [&format!("{other}/{found}")]);
        assert_eq!(new.to_string().matches(&format!("/probe/{other}/{found}")).count(), 1);
    }
    assert_eq!(uninject(&serde_json::from_str(&guessed).unwrap()), uninject(&pod));
}

#[test]
fn a_hook_that_took_the_place_of_the_one_that_waits_stays() {
    let mut pod = with_proxy();
    let hook = json!({ "exec": { "command": ["/stop"] } });
    pod["spec"]["containers"][0]["lifecycle"]["preStop"] = hook.clone();
    let new = injected(&pod, &Config::default(), SERVER);
    assert_eq!(new["spec"]["containers"][0]["lifecycle"]["preStop"], hook);
    assert_eq!(held(&new).get(key("app/pre-stop")), None);
    assert_eq!(uninject(&new).unwrap()["spec"]["containers"][0]["lifecycle"]["preStop"], hook);
}

#[test]
fn nonces_are_told_from_names_of_containers() {
    assert_eq!(Nonce::new([1; 16]).to_string(), "01".repeat(16));
    assert_eq!(Nonce::read(&nonce().to_string()), Some(nonce()));
    for text in ["", "app", &"A1".repeat(16), &"a1".repeat(17), &"g1".repeat(16)] {
        assert_eq!(Nonce::read(text), None, "{text}");
    }
    // A container may be called like one.
    let name = nonce().to_string();
    let spec = json!({ "containers": [probed(&name, 80)] });
    let pod = pod(json!({ "a": "b" }), spec);
    assert_eq!(uninject(&injected(&pod, &Config::default(), SERVER)), Some(pod));
}

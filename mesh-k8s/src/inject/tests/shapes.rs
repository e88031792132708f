//! What a pod looks like afterwards.

use super::*;

#[test]
fn a_native_sidecar_stands_before_all_other_init_containers() {
    let spec = json!({ "containers": [app()], "initContainers": [{ "name": "fetch", "image": "f:1" }],
        "terminationGracePeriodSeconds": 60 });
    let new = injected(&pod(json!({}), spec), &Config::default(), SERVER);
    let names = |field: &str| -> Vec<String> {
        let items = new["spec"][field].as_array().unwrap();
        items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("initContainers"), ["mesh-init", "mesh-proxy", "fetch"]);
    assert_eq!(names("containers"), ["app"]);
    assert_eq!(names("volumes"), ["mesh-token", "mesh-trust", "mesh-run"]);
    assert_eq!(new["metadata"]["annotations"][labels::INJECTED], VERSION);
    let init = &new["spec"]["initContainers"][0];
    assert_eq!(init["args"], json!(["init", "--proxy-uid", "1337"]));
    assert_eq!(
        init["securityContext"],
        json!({ "runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": false, "privileged": false,
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"], "add": ["NET_ADMIN"] },
            "seccompProfile": { "type": "RuntimeDefault" } })
    );
    let proxy = &new["spec"]["initContainers"][1];
    assert_eq!(proxy["restartPolicy"], "Always");
    assert_eq!(
        proxy["startupProbe"]["httpGet"],
        json!({ "path": "/ready", "port": 15020, "scheme": "HTTP" })
    );
    assert_eq!(proxy["securityContext"]["capabilities"], json!({ "drop": ["ALL"] }));
    assert_eq!(proxy["securityContext"]["runAsUser"], 1337);
    assert_eq!(proxy["securityContext"]["readOnlyRootFilesystem"], true);
    for container in [init, proxy] {
        let mounts = container["volumeMounts"].as_array().unwrap();
        let covers = |mount: &Value| mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount";
        assert!(mounts.iter().any(covers), "no token of the API is mounted there");
    }
    let env = proxy["env"].as_array().unwrap();
    let value = |name: &str| env.iter().find(|v| v["name"] == name).map(|v| v["value"].clone());
    assert_eq!(value("MESH_CONTROLLER").unwrap(), "mesh-controller.mesh-system.svc.cluster.local:15010");
    assert_eq!(value("MESH_WORKLOAD").unwrap(), "$(POD_NAMESPACE)/$(POD_NAME)");
    assert_eq!(value("MESH_DRAIN_TIMEOUT").unwrap(), "58s");
    let held = format!(r#"{{"{}/app/pre-stop":{{"quietSeconds":5}}}}"#, nonce());
    assert_eq!(value("MESH_PROBES").unwrap(), held);
    assert_eq!(
        new["spec"]["volumes"][0]["projected"]["sources"],
        json!([{ "serviceAccountToken": { "audience": "meshctl.dev", "expirationSeconds": 3600, "path": "token" } }])
    );
}

#[test]
fn a_classic_sidecar_is_the_first_container_and_its_rules_come_last() {
    let spec = json!({ "containers": [app()], "initContainers": [{ "name": "fetch", "image": "f:1" }] });
    let pod = pod(json!({}), spec);
    let asked = json!({ "meshctl.dev/native-sidecar": "false" });
    let by_annotation = super::pod(asked, pod["spec"].clone());
    for new in [
        injected(&pod, &Config::default(), OLD),
        injected(&by_annotation, &Config::default(), SERVER),
        injected(&pod, &config(|c| c.native_sidecars = Native::Never), SERVER),
    ] {
        let spec = &new["spec"];
        assert_eq!(spec["initContainers"][0]["name"], "fetch");
        assert_eq!(spec["initContainers"][1]["name"], "mesh-init");
        assert_eq!(spec["containers"][0]["name"], "mesh-proxy");
        let hook = &spec["containers"][0]["lifecycle"]["postStart"]["exec"]["command"];
        assert_eq!(hook[1], "wait");
        assert!(spec["containers"][0].get("restartPolicy").is_none());
        let annotations = &new["metadata"]["annotations"];
        assert_eq!(annotations["kubectl.kubernetes.io/default-container"], "app");
    }
    let asked = super::pod(json!({ "meshctl.dev/native-sidecar": "true" }), pod["spec"].clone());
    let Outcome::Refused(refusals) = inject(&asked, &Config::default(), OLD) else { panic!("not refused") };
    assert!(refusals[0].message.contains("1.29"));
}

#[test]
fn kubectl_finds_the_application_and_not_the_proxy() {
    let name = "kubectl.kubernetes.io/default-container";
    let two = json!({ "containers": [app(), { "name": "second", "image": "s:1" }] });
    let own = pod(json!({ name: "second" }), two.clone());
    for (pod, server, expected) in [
        (pod(json!({ "a": "b" }), two.clone()), OLD, json!("app")),
        (json!({ "spec": two }), OLD, json!("app")),
        // Whose own choice stays, also when the proxy is taken out.
        (own.clone(), OLD, json!("second")),
        (pod(json!({ name: "app" }), two.clone()), OLD, json!("app")),
        // A native sidecar stands elsewhere.
        (own, SERVER, json!("second")),
        (pod(json!({ "a": "b" }), two), SERVER, Value::Null),
    ] {
        let new = injected(&pod, &Config::default(), server);
        assert_eq!(new["metadata"]["annotations"][name], expected, "{pod}");
        assert_eq!(inject(&new, &Config::default(), server), Outcome::Skipped(Skip::AlreadyInjected));
        assert_eq!(uninject(&new), Some(pod));
    }
}

#[test]
fn options_reach_the_containers() {
    let annotations = json!({
        "meshctl.dev/skip-outbound-ports": "22, 8000-8010",
        "meshctl.dev/skip-inbound-ports": "9000",
        "meshctl.dev/skip-outbound-cidrs": "10.0.0.0/8,fd00::/8",
        "meshctl.dev/skip-uids": "101,102",
        "meshctl.dev/opaque-ports": "3306",
        "meshctl.dev/log-level": "debug",
        "meshctl.dev/proxy-cpu-request": "50m",
        "meshctl.dev/proxy-memory-limit": "128Mi",
    });
    let defaults = config(|c| {
        c.resources.requests.memory = Some("32Mi".into());
        c.image_pull_policy = "Never".into();
    });
    let new = injected(&pod(annotations, json!({ "containers": [app()] })), &defaults, SERVER);
    let [init, proxy] = [&new["spec"]["initContainers"][0], &new["spec"]["initContainers"][1]];
    let args: Vec<&str> = init["args"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
    assert_eq!(
        args.join(" "),
        "init --proxy-uid 1337 --skip-outbound-port 22,8000-8010 --skip-inbound-port 9000 \
         --skip-outbound-cidr 10.0.0.0/8,fd00::/8 --skip-uid 101,102"
    );
    let resources =
        json!({ "requests": { "cpu": "50m", "memory": "32Mi" }, "limits": { "memory": "128Mi" } });
    for container in [init, proxy] {
        assert_eq!(container["resources"], resources);
        assert_eq!(container["imagePullPolicy"], "Never");
    }
    let log = proxy["env"].as_array().unwrap().iter().find(|v| v["name"] == "MESH_LOG").unwrap();
    assert_eq!(log["value"], "debug");
}

#[test]
fn rules_that_the_node_writes_are_told_to_it() {
    let cni = config(|c| c.cni = true);
    let asks = pod(json!({ "meshctl.dev/skip-inbound-ports": "22" }), json!({ "containers": [app()] }));
    let new = injected(&asks, &cni, SERVER);
    let flags = new["metadata"]["annotations"]["meshctl.dev/interception"].as_str().unwrap();
    let flags: Vec<String> = serde_json::from_str(flags).unwrap();
    let with_init = injected(&asks, &Config::default(), SERVER);
    let args = with_init["spec"]["initContainers"][0]["args"].as_array().unwrap();
    assert_eq!(args[1..], flags, "the same as those of an init container");
    assert_eq!(with_init["metadata"]["annotations"].get("meshctl.dev/interception"), None);
    let containers = new["spec"]["initContainers"].as_array().unwrap();
    assert_eq!(containers.len(), 1);
    assert_eq!(containers[0]["name"], "mesh-proxy");
    let expects = json!({ "name": "MESH_EXPECT_RULES", "value": "true" });
    assert!(containers[0]["env"].as_array().unwrap().contains(&expects));
    assert_eq!(uninject(&new).unwrap(), asks);

    let classic = injected(&asks, &cni, OLD);
    let containers = classic["spec"]["initContainers"].as_array().unwrap();
    assert_eq!(containers.len(), 1);
    assert_eq!(
        (&containers[0]["name"], &containers[0]["args"]),
        (&json!("mesh-check"), &json!(["expect-rules"]))
    );
    for new in [&new, &classic] {
        let all = ["containers", "initContainers"].map(|field| new["spec"][field].as_array().unwrap());
        for container in all.into_iter().flatten().filter(|c| c["name"] != "app") {
            let context = &container["securityContext"];
            assert_eq!(context["capabilities"], json!({ "drop": ["ALL"] }), "{container}");
            assert_eq!(context["runAsNonRoot"], true);
        }
    }
    assert_eq!(uninject(&classic).unwrap(), asks);
}

/// The probe that is held for `key`, and how the container's own looks now.
fn led(container: Value, key: &str, pointer: &str) -> (Value, Value) {
    let mut spec = json!({});
    spec["containers"] = vec![container].into();
    let old = pod(json!({}), spec);
    let new = injected(&old, &Config::default(), SERVER);
    let env = new["spec"]["initContainers"][1]["env"].as_array().unwrap();
    let text = env.iter().find(|v| v["name"] == "MESH_PROBES").map(|v| v["value"].as_str().unwrap());
    let held: Value =
        text.map_or(Value::Null, |text| serde_json::from_str(&text.replace("$$", "$")).unwrap());
    assert_eq!(uninject(&new).unwrap()["spec"], old["spec"]);
    (
        held[format!("{}/{key}", nonce())].clone(),
        new["spec"]["containers"][0].pointer(pointer).unwrap().clone(),
    )
}

#[test]
fn probes_and_hooks_are_led_to_the_proxy() {
    let get = json!({ "path": "/z?x=$(A)", "port": "web", "scheme": "HTTPS",
        "httpHeaders": [{ "name": "Host", "value": "a" }] });
    let container = json!({ "name": "app", "ports": [{ "name": "web", "containerPort": 8443 }],
        "livenessProbe": { "httpGet": get, "timeoutSeconds": 3, "periodSeconds": 7 } });
    let (held, now) = led(container, "app/liveness", "/livenessProbe");
    assert_eq!(held, json!({ "port": 8443, "timeoutSeconds": 3, "httpGet": get }));
    let ours = json!({ "path": format!("/probe/{}/app/liveness", nonce()), "port": 15020, "scheme": "HTTP" });
    assert_eq!(now, json!({ "httpGet": ours, "timeoutSeconds": 3, "periodSeconds": 7 }));

    let container = json!({ "name": "app", "startupProbe": { "grpc": { "port": 9000, "service": "s" } } });
    let (held, _) = led(container, "app/startup", "/startupProbe/httpGet");
    assert_eq!(held, json!({ "port": 9000, "timeoutSeconds": 1, "grpc": { "port": 9000, "service": "s" } }));

    let container = json!({ "name": "app", "lifecycle": { "preStop": { "tcpSocket": { "port": "8080" } } } });
    let (held, _) = led(container, "app/pre-stop", "/lifecycle/preStop/httpGet");
    assert_eq!(held, json!({ "port": 8080, "hook": true, "tcpSocket": { "port": "8080" } }));

    for left in
        [json!({ "exec": { "command": ["true"] } }), json!({ "httpGet": { "port": 80, "host": "10.0.0.1" } })]
    {
        let container = json!({ "name": "app", "readinessProbe": left });
        assert_eq!(led(container, "app/readiness", "/readinessProbe"), (Value::Null, left));
    }
}

#[test]
fn objects_that_make_pods() {
    let template = plain();
    let check = |version: &str, kind: &str, object: Value, pointer: &str| {
        let mut object = object;
        (object["apiVersion"], object["kind"]) = (version.into(), kind.into());
        let Some(Outcome::Injected(new)) = inject_object(&object, &Config::default(), SERVER, &nonce())
        else {
            panic!("{kind}")
        };
        let changed = new.pointer(pointer).unwrap();
        assert_eq!(changed["spec"], injected(&template, &Config::default(), SERVER)["spec"]);
        assert_eq!(uninject_object(&new), Some(object));
    };
    check("v1", "Pod", template.clone(), "");
    for kind in ["Deployment", "DaemonSet", "StatefulSet", "ReplicaSet"] {
        check("apps/v1", kind, json!({ "spec": { "template": template } }), "/spec/template");
    }
    check("batch/v1", "Job", json!({ "spec": { "template": template } }), "/spec/template");
    let cron = json!({ "spec": { "jobTemplate": { "spec": { "template": template } } } });
    check("batch/v1", "CronJob", cron, "/spec/jobTemplate/spec/template");
    let service = json!({ "apiVersion": "v1", "kind": "Service" });
    assert_eq!(inject_object(&service, &Config::default(), SERVER, &nonce()), None);
    let empty = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "spec": {} });
    let Some(Outcome::Refused(refusals)) = inject_object(&empty, &Config::default(), SERVER, &nonce()) else {
        panic!()
    };
    assert_eq!(refusals[0].field, "spec.template.spec");
}

#[test]
fn metadata_that_was_made_for_the_annotation_goes_with_it() {
    let bare = json!({ "spec": { "containers": [app()] } });
    let new = injected(&bare, &Config::default(), SERVER);
    assert_eq!(uninject(&new), Some(bare));
}

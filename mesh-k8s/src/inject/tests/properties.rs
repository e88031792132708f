//! Properties over many pods.

use proptest::prelude::*;

use super::*;

fn port() -> impl Strategy<Value = Value> {
    prop_oneof![Just(json!("web")), (1_u16..10_000).prop_map(Value::from), Just(json!("8080"))]
}

fn handler() -> impl Strategy<Value = Value> {
    let header =
        ("[A-Za-z-]{1,8}", "[ -~]{0,8}").prop_map(|(name, value)| json!({ "name": name, "value": value }));
    let get = ("[ -~]{0,12}", port(), prop::option::of("HTTPS?"), prop::collection::vec(header, 0..3))
        .prop_map(|(path, port, scheme, headers)| {
            let mut get = json!({ "path": path, "port": port });
            if let Some(scheme) = scheme {
                get["scheme"] = scheme.into();
            }
            if !headers.is_empty() {
                get["httpHeaders"] = headers.into();
            }
            json!({ "httpGet": get })
        });
    prop_oneof![
        get,
        port().prop_map(|port| json!({ "tcpSocket": { "port": port } })),
        (1_u16..9_999, "[a-z.$()]{0,6}").prop_map(|(p, s)| json!({ "grpc": { "port": p, "service": s } })),
        Just(json!({ "exec": { "command": ["true"] } })),
        Just(json!({ "httpGet": { "port": 80, "host": "10.0.0.1" } })),
    ]
}

fn container(name: String) -> impl Strategy<Value = Value> {
    let probe = (handler(), prop::option::of(1..60_u64)).prop_map(|(mut handler, timeout)| {
        if let Some(timeout) = timeout {
            handler["timeoutSeconds"] = timeout.into();
        }
        handler
    });
    let probe = probe.boxed();
    let optional = || prop::option::of(probe.clone());
    let hooks = (prop::option::of(handler()), prop::option::of(handler()));
    (optional(), optional(), optional(), hooks).prop_map(move |(live, ready, start, (post, pre))| {
        let mut all =
            json!({ "name": name, "image": "a:1", "ports": [{ "name": "web", "containerPort": 80 }] });
        for (field, probe) in [("livenessProbe", live), ("readinessProbe", ready), ("startupProbe", start)] {
            if let Some(probe) = probe {
                all[field] = probe;
            }
        }
        for (field, hook) in [("postStart", post), ("preStop", pre)] {
            if let Some(hook) = hook {
                all["lifecycle"][field] = hook;
            }
        }
        all
    })
}

fn any_pod() -> impl Strategy<Value = Value> {
    let app = (container("a".into()), prop::option::of(container("b".into())));
    let init = prop::option::of(container("i".into()));
    let annotations = prop::option::of(prop::collection::btree_map("[a-z]{1,4}", "[ -~]{0,8}", 1..3));
    let volume = prop::option::of(Just(json!({ "name": "data", "emptyDir": {} })));
    (app, init, annotations, volume, prop::option::of(0..4_000_u64)).prop_map(
        |((one, two), init, annotations, volume, grace)| {
            let containers: Vec<Value> = [Some(one), two].into_iter().flatten().collect();
            let mut pod = json!({ "metadata": { "name": "x" }, "spec": { "containers": containers } });
            if let Some(init) = init {
                pod["spec"]["initContainers"] = json!([init]);
            }
            if let Some(annotations) = annotations {
                pod["metadata"]["annotations"] = json!(annotations);
            }
            if let Some(volume) = volume {
                pod["spec"]["volumes"] = json!([volume]);
            }
            if let Some(grace) = grace {
                pod["spec"]["terminationGracePeriodSeconds"] = grace.into();
            }
            pod
        },
    )
}

/// JSON of any shape, with names that mean something.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ -~]{0,6}".prop_map(Value::from)
    ];
    let names = prop::sample::select(vec![
        "spec",
        "metadata",
        "annotations",
        "labels",
        "containers",
        "initContainers",
        "volumes",
        "name",
        "env",
        "ports",
        "livenessProbe",
        "httpGet",
        "port",
        "lifecycle",
        "preStop",
        "securityContext",
        "meshctl.dev/injected",
    ]);
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(names.clone(), inner, 0..6).prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn to_inject_twice_is_to_inject_once_and_can_be_undone(pod in any_pod(), old in any::<bool>()) {
        let server = if old { OLD } else { SERVER };
        let Outcome::Injected(new) = inject(&pod, &Config::default(), server) else {
            return Err(TestCaseError::fail(format!("{:?}", inject(&pod, &Config::default(), server))));
        };
        prop_assert_eq!(inject(&new, &Config::default(), server), Outcome::Skipped(Skip::AlreadyInjected));
        prop_assert_eq!(uninject(&new), Some(pod));
        // No handler that uses the network is left to kubelet, but for those that ask somebody else.
        let all = new["spec"]["containers"].as_array().into_iter().flatten();
        for container in all.filter(|container| container["name"] != "mesh-proxy") {
            let text = container.to_string();
            prop_assert!(!text.contains("tcpSocket") && !text.contains("\"grpc\""), "{}", text);
        }
    }

    #[test]
    fn what_is_added_later_is_as_if_it_had_been_there(
        pod in any_pod(), late in container("late".into()), old in any::<bool>()
    ) {
        let server = if old { OLD } else { SERVER };
        let add = |pod: &Value| {
            let mut pod = pod.clone();
            pod["spec"]["containers"].as_array_mut().unwrap().push(late.clone());
            pod
        };
        let grown = add(&injected(&pod, &Config::default(), server));
        let new = match inject(&grown, &Config::default(), server) {
            Outcome::Injected(new) => new,
            Outcome::Skipped(Skip::AlreadyInjected) => grown,
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        };
        prop_assert_eq!(&new, &injected(&add(&pod), &Config::default(), server));
        prop_assert_eq!(uninject(&new), Some(add(&pod)));
    }

    #[test]
    fn nothing_panics(pod in any_json()) {
        let _outcome = inject(&pod, &Config::default(), SERVER);
        let _old = uninject(&pod);
    }
}

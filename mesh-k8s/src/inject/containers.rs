//! The containers and volumes that a proxy is made of.

use mesh_core::ports;
use serde_json::{Map, Value, json};

use super::{
    Config, PROXY_UID, Quantities, Resources, list,
    options::Options,
    probes,
    shape::{CONTAINERS, is_ours},
};
use crate::names::{
    CHECK_CONTAINER, INIT_CONTAINER, PROXY_CONTAINER, TOKEN_AUDIENCE, TRUST_BUNDLE, TRUST_BUNDLE_KEY,
};

/// Names of the volumes.
pub(super) const VOLUMES: [&str; 3] = ["mesh-token", "mesh-trust", "mesh-run"];
const TOKEN_DIR: &str = "/var/run/secrets/meshctl.dev/token";
const TRUST_DIR: &str = "/var/run/secrets/meshctl.dev/trust";
const RUN_DIR: &str = "/run/mesh";
/// Where Kubernetes mounts a token of its API into each container that has nothing there.
const API_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Life of a token, in seconds; kubelet renews it in time.
const TOKEN_LIFE: u32 = 3600;
/// Time that a pod gets to end, unless it says otherwise, in seconds (Kubernetes).
pub(super) const GRACE: u64 = 30;
/// Longest time that a proxy drains, in seconds.
const MAX_DRAIN: u64 = 3600;

/// Puts all of it into a pod. What it has must be known to have the right shape.
pub(super) fn add(pod: &mut Value, options: &Options, config: &Config, probes: &Map<String, Value>) {
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let grace = spec.get("terminationGracePeriodSeconds").and_then(Value::as_u64).unwrap_or(GRACE);
    if let Some(volumes) = list(spec, "volumes") {
        volumes.extend(self::volumes());
    }
    let proxy = proxy(options, config, probes, grace);
    let init = match (config.cni, options.native) {
        (false, _) => Some(init(options, config)),
        // The proxy looks by itself, and all others wait for it.
        (true, true) => None,
        (true, false) => Some(check(options, config)),
    };
    if options.native {
        // First of all: the other init containers' connections go through the proxy.
        if let Some(containers) = list(spec, "initContainers") {
            containers.splice(0..0, init.into_iter().chain([proxy]));
        }
        return;
    }
    // Last: until the proxy runs, the other init containers' connections must not be led to it.
    if let Some(init) = init
        && let Some(containers) = list(spec, "initContainers")
    {
        containers.push(init);
    }
    // First: kubelet starts the next one when the hook of this one has ended.
    if let Some(containers) = list(spec, "containers") {
        containers.insert(0, proxy);
    }
}

/// Takes it out again.
pub(super) fn remove(pod: &mut Value) {
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let name = |item: &Value| item.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    for field in CONTAINERS.into_iter().chain(["volumes"]) {
        let Some(items) = spec.get_mut(field).and_then(Value::as_array_mut) else { continue };
        items.retain(|item| match field {
            "volumes" => !VOLUMES.contains(&&*name(item)),
            _ => !is_ours(&name(item)),
        });
        if items.is_empty() {
            spec.remove(field);
        }
    }
}

fn volumes() -> [Value; 3] {
    let [token, trust, run] = VOLUMES;
    [
        json!({ "name": token, "projected": { "sources": [{ "serviceAccountToken": {
            "audience": TOKEN_AUDIENCE, "expirationSeconds": TOKEN_LIFE, "path": "token",
        } }] } }),
        json!({ "name": trust, "configMap": { "name": TRUST_BUNDLE } }),
        json!({ "name": run, "emptyDir": {} }),
    ]
}

fn container(name: &str, config: &Config, resources: &Resources, args: &[String]) -> Value {
    let mut container = json!({
        "name": name,
        "image": config.proxy_image,
        "command": ["/mesh-proxy"],
        "args": args,
        // The mesh has no use for a token of the API, and whoever breaks into it shall find none: the roots stand there.
        "volumeMounts": [{ "name": VOLUMES[1], "mountPath": API_DIR, "readOnly": true }],
        // Why it failed is seen with the pod's status.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    });
    if !config.image_pull_policy.is_empty() {
        container["imagePullPolicy"] = config.image_pull_policy.as_str().into();
    }
    let amounts = |Quantities { cpu, memory }: &Quantities| {
        let known = [("cpu", cpu), ("memory", memory)].into_iter();
        let known = known.filter_map(|(name, value)| Some((name.to_owned(), value.as_deref()?.into())));
        Value::Object(known.collect())
    };
    let parts = [("requests", amounts(&resources.requests)), ("limits", amounts(&resources.limits))];
    let parts: Map<String, Value> = parts
        .into_iter()
        .filter(|(_, amounts)| *amounts != json!({}))
        .map(|(name, amounts)| (name.to_owned(), amounts))
        .collect();
    if !parts.is_empty() {
        container["resources"] = Value::Object(parts);
    }
    container
}

/// Flags of `mesh-proxy init` that make the pod's firewall rules.
pub(super) fn rules(options: &Options) -> Vec<String> {
    let mut args = vec!["--proxy-uid".to_owned(), PROXY_UID.to_string()];
    let mut flag = |name: &str, values: Vec<String>| {
        if !values.is_empty() {
            args.extend([name.to_owned(), values.join(",")]);
        }
    };
    fn texts<T: ToString>(values: &[T]) -> Vec<String> {
        values.iter().map(ToString::to_string).collect()
    }
    flag("--skip-outbound-port", texts(&options.skip_outbound_ports));
    flag("--skip-inbound-port", texts(&options.skip_inbound_ports));
    flag("--skip-outbound-cidr", texts(&options.skip_outbound_cidrs));
    flag("--skip-uid", texts(&options.skip_uids));
    args
}

fn init(options: &Options, config: &Config) -> Value {
    let mut args = vec!["init".to_owned()];
    args.extend(rules(options));
    let mut container = container(INIT_CONTAINER, config, &options.resources, &args);
    container["securityContext"] = json!({
        "runAsUser": 0,
        "runAsGroup": 0,
        "runAsNonRoot": false,
        "privileged": false,
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": { "drop": ["ALL"], "add": ["NET_ADMIN"] },
        "seccompProfile": { "type": "RuntimeDefault" },
    });
    container
}

fn proxy(options: &Options, config: &Config, probes: &Map<String, Value>, grace: u64) -> Value {
    let mut container = container(PROXY_CONTAINER, config, &options.resources, &["run".to_owned()]);
    let [token, trust, run] = VOLUMES;
    let health = |path: &str| json!({ "path": path, "port": ports::HEALTH, "scheme": "HTTP" });
    container["env"] = Value::Array(env(options, config, probes, grace));
    container["ports"] =
        json!([{ "name": "mesh-metrics", "containerPort": ports::HEALTH, "protocol": "TCP" }]);
    container["readinessProbe"] =
        json!({ "httpGet": health("/ready"), "periodSeconds": 5, "timeoutSeconds": 2 });
    container["securityContext"] = unprivileged();
    if let Some(mounts) = container["volumeMounts"].as_array_mut() {
        mounts.extend([
            json!({ "name": token, "mountPath": TOKEN_DIR, "readOnly": true }),
            json!({ "name": trust, "mountPath": TRUST_DIR, "readOnly": true }),
            json!({ "name": run, "mountPath": RUN_DIR }),
        ]);
    }
    if options.native {
        container["restartPolicy"] = "Always".into();
        container["startupProbe"] = json!({
            "httpGet": health("/ready"), "periodSeconds": 1, "timeoutSeconds": 2, "failureThreshold": 120,
        });
    } else {
        let wait = ["/mesh-proxy", "wait", "--timeout", "120s"];
        container["lifecycle"] = json!({ "postStart": { "exec": { "command": wait } } });
    }
    container
}

/// Looks for rules before other containers start: those beside a proxy that ends would go on without it.
fn check(options: &Options, config: &Config) -> Value {
    let mut container = container(CHECK_CONTAINER, config, &options.resources, &["expect-rules".to_owned()]);
    container["securityContext"] = unprivileged();
    container
}

/// What the Pod Security level `restricted` asks for, and the proxy's user.
fn unprivileged() -> Value {
    json!({
        "runAsUser": PROXY_UID,
        "runAsGroup": PROXY_UID,
        "runAsNonRoot": true,
        "privileged": false,
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": { "drop": ["ALL"] },
        "seccompProfile": { "type": "RuntimeDefault" },
    })
}

fn env(options: &Options, config: &Config, probes: &Map<String, Value>, grace: u64) -> Vec<Value> {
    let field =
        |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    let value = |name: &str, value: &str| json!({ "name": name, "value": value });
    // Shorter than what kubelet allows: to be killed is to lose the last report.
    let drain = grace.saturating_sub(2).clamp(1, MAX_DRAIN);
    let mut env = vec![
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("MESH_POD_IP", "status.podIP"),
        value("MESH_WORKLOAD", "$(POD_NAMESPACE)/$(POD_NAME)"),
        value("MESH_CONTROLLER", &config.controller()),
        value("MESH_TRUST_DOMAIN", &config.trust_domain),
        value("MESH_TOKEN_FILE", &format!("{TOKEN_DIR}/token")),
        value("MESH_TRUST_BUNDLE", &format!("{TRUST_DIR}/{TRUST_BUNDLE_KEY}")),
        value("MESH_ADMIN_SOCKET", &format!("{RUN_DIR}/admin.sock")),
        value("MESH_DRAIN_TIMEOUT", &format!("{drain}s")),
        value("MESH_LOG", &options.log_level),
    ];
    if config.cni {
        env.push(value("MESH_EXPECT_RULES", "true"));
    }
    env.extend(probes::variable(probes));
    env
}

//! What is rendered here is what Helm renders, and what is refused here Helm refuses.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};

use super::{
    DEFINITION, HELPERS, PROFILES, SCHEMA, TEMPLATES, render, schema,
    values::{Wanted, complete},
};

/// Sets of values, as they are typed after `helm template` and `meshctl install`.
const SETS: [&[&str]; 20] = [
    &[],
    &["profile=demo"],
    &["profile=ha"],
    &["profile=minimal"],
    &["profile=ha", "controller.antiAffinity=required", "controller.replicas=5"],
    &["controller.antiAffinity=required"],
    &["profile=ha", "networkPolicy.metricsFrom.team=observability"],
    &["controller.replicas=2", "controller.disruptionBudget=false", "controller.antiAffinity=off"],
    &["namespace.create=true", "trustDomain=prod.example.com", "clusterDomain=k8s.example"],
    &["image.repository=registry.example:5000/a/mesh", "image.tag=v1.2.3-rc.1", "image.pullPolicy=Always"],
    &["image.pullSecrets={one,two}"],
    &["webhooks.enabled=false", "crds.mesh=false", "crds.smi=false"],
    &["webhooks.failurePolicy=Ignore", "webhooks.timeoutSeconds=5"],
    &["monitoring.serviceMonitor=true", "monitoring.labels.release=prom"],
    &["monitoring.podMonitor=true", "monitoring.interval=5s", "networkPolicy.enabled=true"],
    &[
        "proxy.skipOutboundPorts={25,587,6000-6100}",
        "proxy.skipInboundPorts[0]=9090",
        "proxy.skipOutboundCidrs={10.0.0.0/8,fd00::/8}",
        "cni.enabled=true",
        "proxy.nativeSidecars=false",
    ],
    &[
        "controller.tolerations[0].key=dedicated",
        "controller.tolerations[0].operator=Equal",
        "controller.tolerations[0].value=a<b>&\"c\"",
        "controller.tolerations[1].operator=Exists",
        "controller.nodeSelector.kubernetes\\.io/os=linux",
        "controller.priorityClassName=system-cluster-critical",
    ],
    &[
        "controller.podAnnotations.note=yes\\, 'it' is: \"quoted\" # and so on",
        "controller.podLabels.team=mesh",
        "controller.logLevel=mesh_controller=debug\\,info",
        "controller.leafLifetime=90m",
    ],
    &[
        "namespace.create=true",
        "cni.enabled=true",
        "cni.binDir=/var/lib/cni/bin",
        "cni.confDir=/var/lib/cni/net.d",
        "cni.resources=null",
        "image.pullSecrets={one}",
    ],
    &["controller.resources=null", "proxy.resources.limits=null", "proxy.resources.requests.cpu=1"],
];

/// Sets that nobody may render.
const BAD: [&[&str]; 10] = [
    &["controller.replicas=0"],
    &["controller.replicas=two"],
    &["controller.antiAffinity=maybe"],
    &["controler.replicas=2"],
    &["controller.leafLifetime=1.5h"],
    &["image.tag=a b"],
    &["proxy.skipOutboundPorts={70000}"],
    &["webhooks.failurePolicy=fail"],
    &["trustDomain=Prod"],
    &["cni.binDir=opt"],
];

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/mesh")
}

fn ours(set: &[&str]) -> Result<Vec<Value>, String> {
    let profile = set.iter().find_map(|text| text.strip_prefix("profile="));
    let texts: Vec<String> =
        set.iter().filter(|text| !text.starts_with("profile=")).map(ToString::to_string).collect();
    let wanted = Wanted { profile, set: &texts, ..Wanted::default() };
    let overlay = wanted.overlay(json!({})).map_err(|error| error.to_string())?;
    let values = complete(overlay).map_err(|error| error.to_string())?;
    render(&values, "Helm").map_err(|error| error.to_string())
}

/// `cargo xtask helm` builds it; None, which is said, where it is not and need not be.
fn helm() -> Option<PathBuf> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/helm/helm");
    let helm = env::var_os("MESH_HELM").map_or(built, PathBuf::from);
    if helm.is_file() {
        return Some(helm);
    }
    assert!(env::var_os("CI").is_none(), "there is no Helm at {}: run `cargo xtask helm`", helm.display());
    eprintln!("LEFT OUT: the comparison with Helm, which `cargo xtask helm` builds");
    None
}

fn run(helm: &Path, set: &[&str]) -> Output {
    let mut command = Command::new(helm);
    command.args(["template", "mesh", "--namespace", "mesh-system", "--kube-version", "1.34.0"]);
    command.arg(chart());
    for text in set {
        match text.strip_prefix("profile=") {
            Some(profile) => command.arg("-f").arg(chart().join(format!("profiles/{profile}.yaml"))),
            None => command.args(["--set", text]),
        };
    }
    command.output().unwrap()
}

fn key(object: &Value) -> (String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&object["kind"]), text(&object["metadata"]["name"]))
}

#[test]
fn everything_is_rendered_as_helm_does() {
    let Some(helm) = helm() else { return };
    for set in SETS {
        let output = run(&helm, set);
        assert!(output.status.success(), "{set:?}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let mut theirs: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        theirs.retain(|object| !object.is_null());
        let mut ours = ours(set).unwrap();
        theirs.sort_by_key(key);
        ours.sort_by_key(key);
        let keys = |objects: &[Value]| objects.iter().map(key).collect::<Vec<_>>();
        assert_eq!(keys(&ours), keys(&theirs), "{set:?}");
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours, theirs, "{set:?}");
        }
    }
}

#[test]
fn what_helm_refuses_is_refused() {
    let helm = helm();
    for set in BAD {
        let error = ours(set).expect_err("it is rendered");
        let name = set[0].split(['=', '.']).next().unwrap();
        assert!(error.contains(name), "{set:?}: {error}");
        if let Some(helm) = &helm {
            assert!(!run(helm, set).status.success(), "{set:?} is not refused by Helm");
        }
    }
}

/// The object of a kind among those that are rendered.
fn one<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    objects.iter().find(|object| key(object) == (kind.to_owned(), name.to_owned())).unwrap()
}

#[test]
fn a_controller_that_waits_for_the_cluster_is_not_killed() {
    let objects = ours(&[]).unwrap();
    let container =
        &one(&objects, "Deployment", "mesh-controller")["spec"]["template"]["spec"]["containers"][0];
    let probe = &container["startupProbe"];
    let limit = probe["periodSeconds"].as_u64().unwrap() * probe["failureThreshold"].as_u64().unwrap();
    assert!(limit >= 190, "it may take 180 s to start, and is killed after {limit} s");
    assert_eq!(probe["httpGet"], container["livenessProbe"]["httpGet"]);
}

#[test]
fn the_webhook_may_write_events() {
    for (set, is_allowed) in [(&[][..], true), (&["webhooks.enabled=false"], false)] {
        let objects = ours(set).unwrap();
        let rules = one(&objects, "ClusterRole", "mesh-controller")["rules"].as_array().unwrap().clone();
        let events = json!({"apiGroups": [""], "resources": ["events"], "verbs": ["create"]});
        assert_eq!(rules.contains(&events), is_allowed, "{set:?}");
    }
}

#[test]
fn all_files_are_here() {
    let mut found = BTreeSet::new();
    for folder in ["templates", "templates/crds", "profiles"] {
        for entry in fs::read_dir(chart().join(folder)).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                found.insert(format!("{folder}/{}", entry.file_name().to_str().unwrap()));
            }
        }
    }
    found.remove("templates/_helpers.tpl");
    let here: BTreeSet<String> =
        TEMPLATES.iter().chain(&PROFILES).map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(here, found);
    assert!(!HELPERS.is_empty());
}

#[test]
fn versions_are_one() {
    let definition: Value = serde_saphyr::from_str(DEFINITION).unwrap();
    assert_eq!(definition["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(definition["appVersion"], env!("CARGO_PKG_VERSION"));
}

/// Keywords that are not known would be passed over.
#[test]
fn the_schema_uses_what_is_checked() {
    fn look(schema: &Value) {
        for (keyword, value) in schema.as_object().unwrap() {
            match keyword.as_str() {
                "properties" => value.as_object().unwrap().values().for_each(look),
                "items" => look(value),
                "additionalProperties" if value.is_object() => look(value),
                "pattern" => drop(regex::Regex::new(value.as_str().unwrap()).unwrap()),
                "additionalProperties" => assert_eq!(*value, false),
                "type" | "enum" | "minimum" | "maximum" | "$schema" | "title" => {}
                other => panic!("{other} is not checked"),
            }
        }
    }
    look(&serde_json::from_str(SCHEMA).unwrap());
}

#[test]
fn every_value_is_in_the_schema_and_the_table() {
    fn look(schema: &Value, value: &Value, at: &str, table: &str) {
        let Some(fields) = value.as_object() else { return };
        for (name, inner) in fields {
            let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
            let known = &schema["properties"][name];
            if name == "requests" || name == "limits" {
                continue;
            }
            assert!(!known.is_null(), "{path} is not in values.schema.json");
            assert!(table.contains(name), "{path} is not in the chart's README.md");
            look(known, inner, &path, table);
        }
    }
    let values = complete(json!({})).unwrap();
    let table = fs::read_to_string(chart().join("README.md")).unwrap();
    look(&serde_json::from_str(SCHEMA).unwrap(), &values, "", &table);
}

#[test]
fn mistakes_are_told() {
    #[track_caller]
    fn told(set: &[&str], expected: &str) {
        let error = ours(set).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    told(&["controler.replicas=2"], "controler: there is no such value; did you mean controller?");
    told(&["controller.replicas=two"], "controller.replicas: \"two\" is not a whole number");
    told(&["controller.replicas=0"], "controller.replicas: 0 is not from 1 to 100");
    told(&["image.pullPolicy=never"], "is not one of \"Always\", \"IfNotPresent\", \"Never\"");
    told(&["controller"], "there is no \"=\"");
    told(&["a..b=1"], "no path of names");
    told(&["controller.tolerations[x]=1"], "is no number");
    told(&["controller.tolerations[5000]=1"], "too long");
    let deep = vec!["a"; 100].join(".") + "=1";
    told(&[&deep], "no path of names");
}

#[test]
fn a_schema_refuses_by_itself() {
    let schema = json!({"type": "object", "additionalProperties": {"type": "string"}});
    assert_eq!(schema::check(&schema, &json!({"a": "b"})), Vec::<String>::new());
    assert_eq!(schema::check(&schema, &json!({"a": 1})), ["a: 1 is not text"]);
}

/// Where each replica needs a node of its own, a new one must not wait for one that an old one has.
#[test]
fn replicas_that_stay_apart_are_replaced_one_by_one() {
    #[track_caller]
    fn check(set: &[&str], expected: (u8, u8), is_apart: bool) {
        let objects = ours(set).unwrap();
        let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
        let how = &deployment["spec"]["strategy"]["rollingUpdate"];
        let (unavailable, surge) = expected;
        assert_eq!(*how, json!({"maxUnavailable": unavailable, "maxSurge": surge}), "{set:?}");
        let rule =
            "/spec/template/spec/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution";
        assert_eq!(deployment.pointer(rule).is_some(), is_apart, "{set:?}");
    }
    check(&[], (0, 1), false);
    check(&["controller.replicas=3"], (0, 1), false);
    check(&["controller.replicas=3", "controller.antiAffinity=required"], (1, 0), true);
    check(&["controller.antiAffinity=required"], (0, 1), false);
}

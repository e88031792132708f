//! One pod: whether it is in the mesh, why not, and what its proxy has.

use mesh_k8s::names::{CHECK_CONTAINER, INIT_CONTAINER, PROXY_CONTAINER};
use serde_json::{Value, json};

use super::{
    super::{document::View, workload},
    Seen,
};
use crate::{
    admin::Door,
    cluster::{
        select::pair,
        standing::{Standing, full_name, has_proxy, owner, standing},
    },
};

pub(super) async fn view(seen: &Seen, pod: &Value) -> View {
    let mut view = View::new("Pod");
    let standing = standing(pod, &seen.meshed());
    view.fields(format!("Pod {}", full_name(pod)), &own(pod, &standing));
    view.fact("inMesh", matches!(standing, Standing::In(_)));
    view.fact("why", standing.words());
    view.fact("node", pod["spec"]["nodeName"].clone());
    view.fact("madeBy", owner(pod));
    view.fact("phase", pod["status"]["phase"].clone());
    if !has_proxy(pod) {
        return view;
    }
    view.fields("Its sidecar, as the node sees it", &sidecar(pod));
    view.fact("sidecar", json!({"ready": container(pod, PROXY_CONTAINER)["ready"] == true}));
    let name = pair(pod);
    let place = Some((&seen.cluster, seen.patience));
    let known = match &seen.mesh {
        Some(mesh) => workload::add(&mut view, mesh, &name, place).await,
        None => false,
    };
    if !known {
        if seen.mesh.is_some() {
            let line = "the controller does not know it: it has no address yet, or its object is refused; see `meshctl check`";
            view.lines("Workload", &[line.to_owned()]);
        }
        let (namespace, name) = &name;
        let door = Door::Pod { cluster: &seen.cluster, namespace, name, patience: seen.patience };
        workload::says(&mut view, &door).await;
    }
    view
}

fn own(pod: &Value, standing: &Standing) -> Vec<(&'static str, String)> {
    let text = |path: &str| pod.pointer(path).and_then(Value::as_str).filter(|text| !text.is_empty());
    let or = |path: &str, otherwise: &str| text(path).unwrap_or(otherwise).to_owned();
    vec![
        ("In the mesh", standing.words()),
        ("Phase", or("/status/phase", "not known")),
        ("Node", or("/spec/nodeName", "none yet")),
        ("Address", or("/status/podIP", "none yet")),
        ("Runs as", or("/spec/serviceAccountName", "default")),
        ("Made by", owner(pod).unwrap_or_else(|| "nobody: it does not come again by itself".to_owned())),
    ]
}

/// A container's status.
fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let of = |field: &str| pod["status"][field].as_array().into_iter().flatten();
    let mut all = of("containerStatuses").chain(of("initContainerStatuses"));
    all.find(|status| status["name"] == name).unwrap_or(&Value::Null)
}

fn sidecar(pod: &Value) -> Vec<(&'static str, String)> {
    let of = |field: &str| pod["spec"][field].as_array().into_iter().flatten();
    let has = |field: &str, name: &str| of(field).any(|container| container["name"] == name);
    let status = container(pod, PROXY_CONTAINER);
    let state = status["state"].as_object().and_then(|state| state.iter().next());
    let state = state.map_or_else(
        || "not told yet".to_owned(),
        |(state, detail)| match detail["reason"].as_str() {
            Some(reason) => format!("{state}: {reason}"),
            None => state.clone(),
        },
    );
    let ready = if status["ready"] == true { "yes" } else { "no" };
    let kind = if has("initContainers", PROXY_CONTAINER) { "native sidecar" } else { "ordinary container" };
    let rules = if has("initContainers", INIT_CONTAINER) {
        "written by the init container mesh-init"
    } else if has("initContainers", CHECK_CONTAINER)
        || pod["metadata"]["annotations"][mesh_k8s::labels::INTERCEPTION].is_string()
    {
        "written by the node (CNI plugin)"
    } else {
        "none by the mesh"
    };
    vec![
        ("Ready", ready.to_owned()),
        ("State", state),
        ("Restarts", status["restartCount"].as_u64().unwrap_or(0).to_string()),
        ("Kind", kind.to_owned()),
        ("Firewall rules", rules.to_owned()),
        ("Image", status["image"].as_str().unwrap_or("not known").to_owned()),
    ]
}

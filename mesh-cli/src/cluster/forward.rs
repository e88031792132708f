//! The view API of a controller in a cluster: its pod's own loopback, reached through the API server, with the token that
//! the controller keeps in a Secret.

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{Api, api::ListParams, client::UpgradeConnectionError};
use mesh_core::ports;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Cluster, ClusterError, is_absent, refused};
use crate::chart::NAMESPACE;

/// The Secret with the token, and its key.
const TOKEN: (&str, &str) = ("mesh-view-token", "token");

/// A connection to a pod.
pub(crate) type Stream = Box<dyn Duplex>;

/// What can be read and written.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// Reads the token.
///
/// # Errors
/// When it is not there, or must not be read.
pub(crate) async fn token(cluster: &Cluster) -> Result<String, ClusterError> {
    let (name, key) = TOKEN;
    let what = format!("Secret {NAMESPACE}/{name}");
    let api: Api<Secret> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let secret = match api.get(name).await {
        Ok(secret) => secret,
        Err(error) if is_absent(&error) => {
            let reason = format!(
                "it is not there: no mesh is installed in the cluster at {}, or its controller never ran; see \
                 `meshctl install`, or name another cluster with --context",
                cluster.url
            );
            return Err(ClusterError::Odd { what, reason });
        }
        Err(error) => return Err(refused(format!("reading {what}"), &error)),
    };
    let bytes = secret.data.and_then(|mut data| data.remove(key)).map(|bytes| bytes.0).unwrap_or_default();
    let token = String::from_utf8(bytes).unwrap_or_default().trim().to_owned();
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        let reason = format!("it holds no token under {key:?}; delete it, and the controller makes another");
        return Err(ClusterError::Odd { what, reason });
    }
    Ok(token)
}

/// Connects to every controller that is ready: pods' names, and the connections; at least one.
///
/// # Errors
/// When none is, or connections must not be forwarded.
pub(crate) async fn open(cluster: &Cluster) -> Result<Vec<(String, Stream)>, ClusterError> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let labels = "app.kubernetes.io/name=mesh-controller";
    let pods = api.list(&ListParams::default().labels(labels)).await;
    let pods = pods.map_err(|error| refused("listing the controller's pods", &error))?;
    let mut names: Vec<String> =
        pods.into_iter().filter(is_ready).filter_map(|pod| pod.metadata.name).collect();
    names.sort();
    let (mut streams, mut failed) = (Vec::new(), None);
    for name in names {
        match to(cluster, NAMESPACE, &name, ports::VIEW).await {
            Ok(stream) => streams.push((name, stream)),
            Err(error) => failed = Some(error),
        }
    }
    match (streams.is_empty(), failed) {
        (false, _) => Ok(streams),
        (true, Some(error)) => Err(error),
        (true, None) => {
            let what = format!("no controller is ready in the cluster at {}", cluster.url);
            let reason = format!("see `kubectl -n {NAMESPACE} get pods`, or `meshctl check`");
            Err(ClusterError::Odd { what, reason })
        }
    }
}

/// Connects to a port of a pod's own loopback.
///
/// # Errors
/// When connections must not be forwarded.
pub(crate) async fn to(
    cluster: &Cluster,
    namespace: &str,
    pod: &str,
    port: u16,
) -> Result<Stream, ClusterError> {
    let what = format!("forwarding a connection to pod {namespace}/{pod}");
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let forwarded = api.portforward(pod, &[port]).await;
    let mut forwarded = forwarded.map_err(|error| not_forwarded(what.clone(), namespace, &error))?;
    let stream = forwarded.take_stream(port);
    let stream = stream.ok_or_else(|| ClusterError::Odd { what, reason: "there is no stream".to_owned() })?;
    // It carries as long as it is waited for.
    tokio::spawn(forwarded.join());
    Ok(Box::new(stream))
}

/// Why not, in words: the client knows only the status code.
fn not_forwarded(what: String, namespace: &str, error: &kube::Error) -> ClusterError {
    let kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(status)) = error else {
        return refused(what, error);
    };
    let reason = match status.as_u16() {
        401 | 403 => format!("{status}; it takes the right to create pods/portforward in {namespace}"),
        404 => format!("{status}; the pod is gone, or its node does not know it"),
        _ => format!("{status}; see that the pod runs, and that its node answers"),
    };
    ClusterError::Refused { what, reason }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

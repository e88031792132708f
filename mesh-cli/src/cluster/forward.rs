//! The view API of a controller in a cluster: its pod's own loopback, reached through the API server, with the token that
//! the controller keeps in a Secret.

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{Api, api::ListParams};
use mesh_core::ports;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Cluster, ClusterError, is_absent, refused};
use crate::chart::NAMESPACE;

/// The Secret with the token, and its key.
const TOKEN: (&str, &str) = ("mesh-view-token", "token");

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

/// Connects to a controller that is ready: the pod's name, and the connection.
///
/// # Errors
/// When none is, or connections must not be forwarded.
pub(crate) async fn open(
    cluster: &Cluster,
) -> Result<(String, impl AsyncRead + AsyncWrite + Unpin + Send + 'static), ClusterError> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let labels = "app.kubernetes.io/name=mesh-controller";
    let pods = api.list(&ListParams::default().labels(labels)).await;
    let pods = pods.map_err(|error| refused("listing the controller's pods", &error))?;
    let name = pods.into_iter().find(is_ready).and_then(|pod| pod.metadata.name).ok_or_else(|| {
        let what = format!("no controller is ready in the cluster at {}", cluster.url);
        let reason = format!("see `kubectl -n {NAMESPACE} get pods`");
        ClusterError::Odd { what, reason }
    })?;
    let what = format!("forwarding a connection to pod {NAMESPACE}/{name}");
    let forwarded = api.portforward(&name, &[ports::VIEW]).await;
    let mut forwarded = forwarded.map_err(|error| refused(what.as_str(), &error))?;
    let stream = forwarded.take_stream(ports::VIEW);
    let stream = stream.ok_or_else(|| ClusterError::Odd { what, reason: "there is no stream".to_owned() })?;
    // It carries as long as it is waited for.
    tokio::spawn(forwarded.join());
    Ok((name, stream))
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

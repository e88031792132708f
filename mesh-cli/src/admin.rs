//! Asks a proxy itself, on this machine or in a pod: its admin, plaintext HTTP/1.1 on loopback.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use mesh_core::ports;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::cluster::{Cluster, forward};

/// How long a proxy may take: it is on this machine.
const PATIENCE: Duration = Duration::from_millis(500);
/// Largest answer, in bytes.
const MAX_ANSWER: usize = 8 << 20;

/// Where the admin of a workload's proxy stands, when it is on this machine: explicit mode gives every workload its own
/// loopback address. None for other addresses: admins answer on loopback only.
pub(crate) fn address(workload: IpAddr) -> Option<SocketAddr> {
    workload.is_loopback().then(|| SocketAddr::new(workload, ports::ADMIN))
}

/// Where a proxy is asked.
#[derive(Debug)]
pub(crate) enum Door<'a> {
    /// On this machine.
    Here(SocketAddr),
    /// In a pod, by namespace and name.
    Pod { cluster: &'a Cluster, namespace: &'a str, name: &'a str, patience: Duration },
}

impl Door<'_> {
    /// What it says at a path of its admin, such as `/status`.
    ///
    /// # Errors
    /// When it does not answer, or with something else than JSON.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, String> {
        match self {
            Self::Here(address) => here(*address, path).await,
            Self::Pod { cluster, namespace, name, patience } => {
                of_pod(cluster, namespace, name, path, *patience).await
            }
        }
    }
}

impl std::fmt::Display for Door<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Here(address) => write!(f, "http://{address}"),
            Self::Pod { namespace, name, .. } => write!(f, "pod {namespace}/{name}:{}", ports::ADMIN),
        }
    }
}

async fn here(address: SocketAddr, path: &str) -> Result<Value, String> {
    let asked = async {
        let stream = tokio::net::TcpStream::connect(address).await?;
        ask(stream, &address.to_string(), path).await
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {PATIENCE:?}")),
    }
}

/// What the proxy of a pod says at a path of its admin, such as `/status`.
///
/// # Errors
/// When it does not answer, or with something else than JSON.
pub(crate) async fn of_pod(
    cluster: &Cluster,
    namespace: &str,
    pod: &str,
    path: &str,
    patience: Duration,
) -> Result<Value, String> {
    let asked = async {
        let stream = forward::to(cluster, namespace, pod, ports::ADMIN).await?;
        ask(stream, &format!("127.0.0.1:{}", ports::ADMIN), path).await
    };
    match tokio::time::timeout(patience, asked).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {patience:?}")),
    }
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &str,
    path: &str,
) -> anyhow::Result<Value> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let request = http::Request::get(path).header("host", host).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    driver.abort();
    let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
    anyhow::ensure!(status.is_success(), "it answered {status}");
    Ok(serde_json::from_slice(&body)?)
}

/// Top-level facts of such an answer, as names and values for people.
pub(crate) fn facts(answer: &Value) -> Vec<(String, String)> {
    let Value::Object(fields) = answer else { return vec![("Answer".into(), words(answer))] };
    let name = |name: &String| {
        let spaced = name.replace('_', " ");
        let mut letters = spaced.chars();
        letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
    };
    fields.iter().map(|(field, value)| (name(field), words(value))).collect()
}

fn words(value: &Value) -> String {
    match value {
        Value::Null => "none".into(),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => format!("{float:.1}"),
            _ => number.to_string(),
        },
        Value::Array(all) if all.is_empty() => "none".into(),
        Value::Array(all) => all.iter().map(words).collect::<Vec<_>>().join(", "),
        // What it is named by stands for the rest, which -o json shows.
        Value::Object(fields) => ["address", "name"]
            .iter()
            .find_map(|name| fields.get(*name))
            .map_or_else(|| value.to_string(), words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_addresses_are_asked() {
        assert_eq!(address([127, 1, 0, 3].into()), Some(([127, 1, 0, 3], 15000).into()));
        assert_eq!(address([10, 0, 0, 1].into()), None);
    }

    #[test]
    fn facts_of_an_answer() {
        let answer = serde_json::json!({
            "ready": true,
            "missing": [],
            "listeners": [{"address": "127.0.0.1:1", "role": "x"}, {"address": "127.0.0.1:2"}],
            "uptime_seconds": 25.037,
            "workers": 2,
        });
        let expected = [
            ("Listeners", "127.0.0.1:1, 127.0.0.1:2"),
            ("Missing", "none"),
            ("Ready", "yes"),
            ("Uptime seconds", "25.0"),
            ("Workers", "2"),
        ];
        let facts = facts(&answer);
        assert_eq!(facts.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect::<Vec<_>>(), expected);
    }
}

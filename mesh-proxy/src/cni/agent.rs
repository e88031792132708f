//! Asks the node's agent about a pod: one line of JSON each way, on a Unix socket.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use serde::Deserialize;
use serde_json::json;

use super::{
    reply::{Code, Failure},
    request::Pod,
};

/// How long the agent may take. Its own limit, when it asks the API server, is shorter.
const PATIENCE: Duration = Duration::from_secs(15);
/// Longest answer, in bytes: more than an annotation can have.
const MAX_ANSWER: u64 = 512 * 1024;

/// What the agent says of a pod.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Answer {
    /// It is of the mesh: flags of `mesh-proxy init`.
    Args(Vec<String>),
    /// It is not, and why.
    Skip(String),
    /// The agent cannot say.
    Error(String),
}

/// Asks.
pub(super) fn ask(socket: &Path, pod: &Pod) -> Result<Answer, Failure> {
    exchange(socket, pod).map_err(|error| {
        let details = format!(
            "the mesh's agent on this node does not answer at {}: {error}. Until it does, it is not known whether the pod is of the mesh, and kubelet tries again; see that a pod of the DaemonSet mesh-cni runs on this node",
            socket.display()
        );
        Failure::new(Code::TryAgain, format!("{pod} cannot be started yet"), &details)
    })
}

fn exchange(socket: &Path, pod: &Pod) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let question = json!({ "namespace": pod.namespace, "name": pod.name, "uid": pod.uid });
    stream.write_all(format!("{question}\n").as_bytes())?;
    let mut line = Vec::new();
    BufReader::new(stream.take(MAX_ANSWER)).read_until(b'\n', &mut line)?;
    read(&line)
}

/// Reads an answer.
pub(super) fn read(line: &[u8]) -> io::Result<Answer> {
    if !line.ends_with(b"\n") {
        return Err(io::Error::other("its answer is cut off"));
    }
    serde_json::from_slice(line)
        .map_err(|error| io::Error::other(format!("its answer is not understood: {error}")))
}

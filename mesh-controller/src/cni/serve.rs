//! The socket on which the plugin asks: one line of JSON each way.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, watch},
    time::timeout,
};

use super::{State, pods::Pods, verdict::Verdict};

/// Longest question, in bytes.
const MAX_QUESTION: u64 = 4096;
/// Longest answer that is read, in bytes.
const MAX_ANSWER: u64 = 512 * 1024;
/// How long one exchange may take.
const PATIENCE: Duration = Duration::from_secs(14);
/// Most questions at a time.
const MAX_QUESTIONS: usize = 64;

/// What is asked.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Question {
    /// What is to be done for a pod?
    Pod { namespace: String, name: String, uid: String },
    /// Is the agent ready?
    Ready { ready: bool },
}

/// A socket that only root may use.
pub(super) struct Server {
    listener: UnixListener,
}

impl Server {
    /// Takes the place of whoever listened there before.
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let temporary = path.with_extension("new");
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&temporary)?;
        fs::set_permissions(&temporary, Permissions::from_mode(0o600))?;
        fs::rename(&temporary, path)?;
        Ok(Self { listener })
    }

    /// Answers for ever.
    pub(super) async fn run(self, pods: Arc<Pods>, state: watch::Receiver<State>) {
        let places = Arc::new(Semaphore::new(MAX_QUESTIONS));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot take a question");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (pods, state) = (Arc::clone(&pods), *state.borrow());
            tokio::spawn(async move {
                let done = timeout(PATIENCE, answer(stream, &pods, state)).await;
                if let Err(error) = done.unwrap_or_else(|late| Err(late.into())) {
                    tracing::warn!(%error, "a question was not answered");
                }
                drop(place);
            });
        }
    }
}

async fn answer(mut stream: UnixStream, pods: &Pods, state: State) -> io::Result<()> {
    let mut line = Vec::new();
    BufReader::new((&mut stream).take(MAX_QUESTION)).read_until(b'\n', &mut line).await?;
    let verdict = match serde_json::from_slice(&line) {
        Ok(Question::Pod { namespace, name, uid }) => {
            let key = (namespace, name);
            let verdict = pods.verdict(&key, &uid).await;
            let (namespace, name) = key;
            match &verdict {
                Verdict::Args(_) => tracing::info!(namespace, name, "a pod of the mesh starts"),
                Verdict::Skip(why) => tracing::debug!(namespace, name, why, "a pod starts"),
                Verdict::Error(error) => tracing::warn!(namespace, name, error, "a pod cannot start"),
            }
            verdict
        }
        Ok(Question::Ready { .. }) => readiness(state),
        Err(error) => Verdict::Error(format!("the agent does not understand the question: {error}")),
    };
    let mut text = serde_json::to_vec(&verdict)?;
    text.push(b'\n');
    stream.write_all(&text).await
}

fn readiness(state: State) -> Verdict {
    match state {
        State { listed: false, .. } => Verdict::Error("the node's pods are not listed yet".to_owned()),
        State { chained: false, .. } => Verdict::Error("the plugin is not chained; see the log".to_owned()),
        State { .. } => Verdict::skip("ready"),
    }
}

/// Asks the agent that listens there whether it is ready.
pub(super) async fn probe(path: &Path) -> anyhow::Result<()> {
    let ask = async {
        let mut stream = UnixStream::connect(path).await?;
        let mut question = serde_json::to_vec(&Question::Ready { ready: true })?;
        question.push(b'\n');
        stream.write_all(&question).await?;
        let mut text = String::new();
        stream.take(MAX_ANSWER).read_to_string(&mut text).await?;
        Ok::<String, io::Error>(text)
    };
    let answer = timeout(PATIENCE, ask).await.unwrap_or_else(|late| Err(late.into()));
    let answer = answer.with_context(|| format!("no agent answers at {}", path.display()))?;
    let answer: serde_json::Value = serde_json::from_str(&answer).context("the agent's answer is no JSON")?;
    match answer.get("error").and_then(serde_json::Value::as_str) {
        None => Ok(()),
        Some(problem) => bail!("{problem}"),
    }
}

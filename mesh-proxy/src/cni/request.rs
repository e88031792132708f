//! What the container runtime asks for: environment and standard input, read without trust.

use std::{fmt, path::PathBuf};

use serde::Deserialize;

use super::{
    Passed,
    reply::{Code, Failure, VERSIONS},
};

/// Longest name of a pod or namespace, in bytes (as of Kubernetes).
const MAX_NAME: usize = 253;

/// One call of the plugin.
#[derive(Debug, PartialEq)]
pub(super) struct Request {
    /// Version of CNI that is spoken.
    pub(super) version: String,
    pub(super) command: Command,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub(super) enum Command {
    /// A container joins a network; what other plugins have made of it so far.
    Add(Attachment, Passed),
    /// Is a container as it was made?
    Check(Attachment),
    /// Which versions are spoken?
    Version,
    /// DEL, GC, STATUS: nothing is held, so nothing is to be done.
    Nothing,
}

/// A container in a network.
#[derive(Debug, PartialEq)]
pub(super) struct Attachment {
    /// File of its network namespace.
    pub(super) namespace: PathBuf,
    /// The pod that it is. None: it is not Kubernetes that makes it.
    pub(super) pod: Option<Pod>,
    /// Where the agent listens.
    pub(super) socket: PathBuf,
    /// Namespaces whose pods are never of the mesh: they start without the agent, which may need them.
    pub(super) exclude: Vec<String>,
}

impl Attachment {
    /// Who it is, for people.
    pub(super) fn who(&self) -> String {
        self.pod.as_ref().map_or_else(|| "the container".to_owned(), Pod::to_string)
    }
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pod {
    pub(super) namespace: String,
    pub(super) name: String,
    /// Empty: the runtime does not say.
    pub(super) uid: String,
}

impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pod {}/{}", self.namespace, self.name)
    }
}

/// The plugin's own entry of a network's configuration, as runtimes hand it over.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    cni_version: String,
    socket: Option<PathBuf>,
    #[serde(default)]
    exclude: Vec<String>,
    prev_result: Option<Passed>,
}

/// What VERSION brings.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    cni_version: Option<String>,
}

impl Request {
    /// Reads a call.
    pub(super) fn read(env: impl Fn(&str) -> Option<String>, input: &[u8]) -> Result<Self, Failure> {
        let command = set(&env, "CNI_COMMAND")?;
        if command == "VERSION" {
            // Some ask without saying in which version.
            let asked = serde_json::from_slice::<Asked>(input).ok().and_then(|asked| asked.cni_version);
            return Ok(Self {
                version: asked.unwrap_or_else(|| "1.0.0".to_owned()),
                command: Command::Version,
            });
        }
        let entry: Entry = serde_json::from_slice(input).map_err(|error| {
            Failure::new(Code::Undecodable, "standard input is no network configuration", &error)
        })?;
        let version = entry.cni_version.clone();
        if !VERSIONS.contains(&&*version) {
            let message = format!("CNI {version:?} is not spoken");
            let remedy = format!("set cniVersion of the network to one of {}", VERSIONS.join(", "));
            return Err(Failure::new(Code::Version, message, &remedy));
        }
        let command = Command::read(&command, &env, entry).map_err(|failure| failure.in_version(&version))?;
        Ok(Self { version, command })
    }
}

impl Command {
    fn read(command: &str, env: &impl Fn(&str) -> Option<String>, mut entry: Entry) -> Result<Self, Failure> {
        let passed = entry.prev_result.take();
        match command {
            "ADD" => {
                let Some(passed) = passed else {
                    let remedy = "put it behind the plugin that makes the pod's network";
                    return Err(Failure::new(
                        Code::Config,
                        "the network has no result of another plugin",
                        &remedy,
                    ));
                };
                Ok(Self::Add(Attachment::read(env, entry)?, passed))
            }
            "CHECK" => Ok(Self::Check(Attachment::read(env, entry)?)),
            "DEL" | "GC" | "STATUS" => Ok(Self::Nothing),
            other => {
                let known = "ADD, CHECK, DEL, GC, STATUS and VERSION are known";
                Err(Failure::new(Code::Environment, format!("CNI_COMMAND is {other:?}"), &known))
            }
        }
    }
}

impl Attachment {
    fn read(env: &impl Fn(&str) -> Option<String>, entry: Entry) -> Result<Self, Failure> {
        let namespace = PathBuf::from(set(env, "CNI_NETNS")?);
        let Some(socket) = entry.socket.filter(|socket| socket.is_absolute()) else {
            let remedy = "say where the agent listens, as it does when it writes this entry";
            return Err(Failure::new(Code::Config, "`socket` is no absolute path", &remedy));
        };
        let pod = Pod::read(&env("CNI_ARGS").unwrap_or_default())?;
        Ok(Self { namespace, pod, socket, exclude: entry.exclude })
    }
}

impl Pod {
    /// Reads `NAME=VALUE;NAME=VALUE`.
    fn read(args: &str) -> Result<Option<Self>, Failure> {
        let value = |name: &str| {
            let mut pairs = args.split(';').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
        };
        let (namespace, name) = (value("K8S_POD_NAMESPACE"), value("K8S_POD_NAME"));
        let (Some(namespace), Some(name)) = (namespace, name) else { return Ok(None) };
        let pod = Self { namespace, name, uid: value("K8S_POD_UID").unwrap_or_default() };
        for text in [&pod.namespace, &pod.name] {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
            if text.is_empty() || text.len() > MAX_NAME || !text.bytes().all(is_plain) {
                let expected = "expected the names of a pod and its namespace";
                return Err(Failure::new(Code::Environment, "CNI_ARGS is wrong", &expected));
            }
        }
        Ok(Some(pod))
    }
}

fn set(env: &impl Fn(&str) -> Option<String>, name: &str) -> Result<String, Failure> {
    env(name).filter(|value| !value.is_empty()).ok_or_else(|| {
        let remedy = "this program is called by container runtimes, as a CNI plugin";
        Failure::new(Code::Environment, format!("{name} is not set"), &remedy)
    })
}

//! What the flags and the environment mean: where the controller's view API is, and the token for it.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use crate::{
    chart::NAMESPACE,
    cli::{Connect, Where},
    cluster::{Cluster, forward},
    out::Out,
    view::Client,
};

/// Largest file that is read for an address or a token, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// Where the controller is believed to be.
#[derive(Clone, Debug)]
pub(crate) struct Ctx {
    data_dir: PathBuf,
    view: Option<String>,
    token_file: Option<PathBuf>,
    timeout: Duration,
    /// How long was said to wait.
    patience: Option<Duration>,
    /// The cluster whose controller is meant; None: one on this machine.
    cluster: Option<Where>,
}

/// Why the controller cannot even be asked. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CtxError {
    /// There is no home directory to look in.
    #[error(
        "neither --data-dir, MESH_DATA_DIR, XDG_STATE_HOME nor HOME is set; name the controller's data directory with --data-dir"
    )]
    NoDirectory,
    /// No controller has left its address there.
    #[error(
        "no controller is running with the data directory {}; start one with \
         `mesh-controller run --source DIR --data-dir {}`, try `meshctl demo`, or name another with --data-dir",
        .0.display(), .0.display()
    )]
    NoController(PathBuf),
    /// The token's file is not there.
    #[error("there is no view token at {}; name the controller's view-token file with --view-token-file", .0.display())]
    NoToken(PathBuf),
    /// A file cannot be read.
    #[error(
        "cannot read {}: {source}; it belongs to the user that runs the controller: \
         run meshctl as that user, or name another with {flag}", path.display()
    )]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What names another one.
        flag: &'static str,
        /// Why.
        source: io::Error,
    },
    /// `controller.json` is not what a controller writes.
    #[error("{} is not what a controller writes ({reason}); remove it and restart the controller", path.display())]
    BadState {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The token's file holds no token.
    #[error("{} holds no token; copy the controller's view-token file", .0.display())]
    BadToken(PathBuf),
    /// The address is none.
    #[error("{0:?} is not an address of the form IP:PORT, as in 127.0.0.1:15080")]
    BadAddress(String),
}

impl CtxError {
    /// True when a file is not there at all.
    fn is_absence(&self) -> bool {
        matches!(self, Self::Unreadable { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// What a controller says about itself in `controller.json`; fields that meshctl does not use are left out.
#[derive(Debug, Deserialize)]
struct ControllerFile {
    view: String,
}

/// Address and token of a view API.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Where it is, for people: `HOST:PORT`, or a pod.
    pub(crate) address: String,
    /// `HOST:PORT`, as the controller is to see it.
    pub(crate) authority: String,
    /// The bearer token.
    pub(crate) token: String,
    /// Where the token was read.
    pub(crate) token_file: PathBuf,
    /// How long one answer may take.
    pub(crate) timeout: Duration,
}

impl Ctx {
    /// Takes flags first, then the environment.
    ///
    /// # Errors
    /// [`CtxError::NoDirectory`] when there is nowhere to look.
    pub(crate) fn new(flags: &Connect, place: &Where) -> Result<Self, CtxError> {
        let default = || default_data_dir(|name| env::var_os(name).map(PathBuf::from));
        let data_dir = match (&flags.data_dir, &flags.view, &flags.view_token_file) {
            (Some(dir), ..) => dir.clone(),
            (None, Some(_), Some(_)) => default().unwrap_or_default(),
            _ => default().ok_or(CtxError::NoDirectory)?,
        };
        let named = place.kubeconfig.is_some() || place.context.is_some();
        let elsewhere = flags.data_dir.is_some() || flags.view.is_some();
        let here = || elsewhere || data_dir.join("controller.json").exists();
        let kubeconfig = || env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty());
        let in_cluster = named || (!here() && kubeconfig());
        Ok(Self {
            cluster: in_cluster.then(|| place.clone()),
            data_dir,
            view: flags.view.clone(),
            token_file: flags.view_token_file.clone(),
            timeout: flags.answer(),
            patience: flags.timeout,
        })
    }

    /// Finds address and token.
    ///
    /// # Errors
    /// When either cannot be read; the error says what to do.
    pub(crate) fn target(&self) -> Result<Target, CtxError> {
        let address = match &self.view {
            Some(address) => address.clone(),
            None => self.address_from_file()?,
        };
        let address = address.strip_prefix("http://").unwrap_or(&address).trim_end_matches('/').to_owned();
        if !address.parse::<http::uri::Authority>().is_ok_and(|a| a.port_u16().is_some()) {
            return Err(CtxError::BadAddress(address));
        }
        let token_file = self.token_file.clone().unwrap_or_else(|| self.data_dir.join("view-token"));
        let text = match read(&token_file, "--view-token-file") {
            Err(error) if error.is_absence() => return Err(CtxError::NoToken(token_file)),
            other => other?,
        };
        let token = text.trim().to_owned();
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(CtxError::BadToken(token_file));
        }
        Ok(Target { authority: address.clone(), address, token, token_file, timeout: self.timeout })
    }

    /// Connects to the view API.
    ///
    /// # Errors
    /// When address or token cannot be read, or nothing answers; the error says what to do.
    pub(crate) async fn connect(&self, out: &Out) -> anyhow::Result<Client> {
        if let Some(place) = &self.cluster {
            return self.connect_in(place, out).await;
        }
        let target = self.target()?;
        out.detail(&format!("asking {} with the token in {}", target.address, target.token_file.display()));
        Ok(Client::connect(target).await?)
    }

    /// The cluster that is meant; None: a mesh on this machine.
    pub(crate) fn place(&self) -> Option<&Where> {
        self.cluster.as_ref()
    }

    /// The cluster that is meant, or that of the current context.
    pub(crate) fn place_or_current(&self) -> Where {
        self.cluster.clone().unwrap_or(Where { kubeconfig: None, context: None })
    }

    /// The same for a command that is only about clusters: without a name, that of the current context.
    pub(crate) fn of_cluster(&self) -> Self {
        Self { cluster: Some(self.place_or_current()), ..self.clone() }
    }

    /// How long one answer may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// What `--timeout` says, where it is given.
    pub(crate) fn patience(&self) -> Option<Duration> {
        self.patience
    }

    /// Connects to the controllers in a cluster, through its API server.
    async fn connect_in(&self, place: &Where, out: &Out) -> anyhow::Result<Client> {
        let cluster = Cluster::connect(place, self.timeout).await?;
        let token = forward::token(&cluster).await?;
        let mut client: Option<Client> = None;
        for (pod, stream) in forward::open(&cluster).await? {
            let target = Target {
                address: format!("pod {NAMESPACE}/{pod}"),
                authority: format!("127.0.0.1:{}", mesh_core::ports::VIEW),
                token: token.clone(),
                token_file: PathBuf::from(format!("Secret {NAMESPACE}/mesh-view-token")),
                timeout: self.timeout,
            };
            out.detail(&format!("asking {} of {}, context {}", target.address, cluster.url, cluster.context));
            let another = Client::over(target, stream).await?;
            match &mut client {
                None => client = Some(another),
                Some(first) => first.beside(another),
            }
        }
        client.ok_or_else(|| anyhow::anyhow!("no controller is ready; see `meshctl check`"))
    }

    fn address_from_file(&self) -> Result<String, CtxError> {
        let path = self.data_dir.join("controller.json");
        let text = match read(&path, "--data-dir") {
            Err(error) if error.is_absence() => return Err(CtxError::NoController(self.data_dir.clone())),
            other => other?,
        };
        let file: ControllerFile = serde_json::from_str(&text)
            .map_err(|error| CtxError::BadState { path, reason: error.to_string() })?;
        Ok(file.view)
    }
}

/// `MESH_DATA_DIR` is read by clap; without it the controller's default is taken.
fn default_data_dir(var: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |name| var(name).filter(|path| path.is_absolute());
    match absolute("XDG_STATE_HOME") {
        Some(state) => Some(state.join("mesh")),
        None => absolute("HOME").map(|home| home.join(".local/state/mesh")),
    }
}

fn read(path: &Path, flag: &'static str) -> Result<String, CtxError> {
    use io::Read as _;
    let mut text = String::new();
    let result = fs::File::open(path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text));
    result.map_err(|source| CtxError::Unreadable { path: path.into(), flag, source })?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_directory_follows_the_xdg_specification() {
        let check = |vars: &[(&str, &str)], expected: Option<&str>| {
            let var = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| PathBuf::from(v));
            assert_eq!(default_data_dir(var), expected.map(PathBuf::from), "{vars:?}");
        };
        check(&[("XDG_STATE_HOME", "/s"), ("HOME", "/h")], Some("/s/mesh"));
        check(&[("XDG_STATE_HOME", "relative"), ("HOME", "/h")], Some("/h/.local/state/mesh"));
        check(&[("HOME", "/h")], Some("/h/.local/state/mesh"));
        check(&[], None);
    }
}

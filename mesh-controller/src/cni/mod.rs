//! `mesh-controller cni-agent`: what the CNI plugin `mesh-cni` needs on each node.
//!
//! ```text
//! API server ── pods of this node ─▶ pods ──▶ serve ◀── "is this pod of the mesh?" ── plugin
//!                                     └────▶ raced (pods that came up without rules are deleted)
//! keep ── conflist (pure) ──▶ the node's network configuration has the plugin, whoever writes it anew
//! ```
//! *Invariants:* what is not ours in the network's configuration stays as it is, and a reader of it sees the old file or
//! the new one; the plugin stays chained while the agent is away, so that no pod of the mesh starts without its rules;
//! it goes only with the DaemonSet.

mod args;
mod conflist;
mod keep;
mod pace;
mod pods;
mod raced;
mod serve;
#[cfg(test)]
mod tests;
mod verdict;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::{Api, Client, Config};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

pub use self::args::CniAgentArgs;
use self::{keep::Keeper, pace::Writes, pods::Pods, raced::Raced, serve::Server};

/// How often it is looked whether the network's configuration is as it must be, beside notifications.
const LOOK: Duration = Duration::from_secs(1);
/// How long the API server may take, when the agent ends, to say whether it was removed for good.
const LAST_QUESTION: Duration = Duration::from_secs(5);
/// How soon it is asked again when it fails.
const ASK_AGAIN: Duration = Duration::from_millis(300);
/// Longest silence of the API server.
const SILENCE: Duration = Duration::from_secs(pods::WATCH as u64 + 10);

/// What the agent's parts tell each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    /// The pods of the node were listed.
    listed: bool,
    /// The plugin is in the network's configuration.
    chained: bool,
}

/// Runs until `stop`.
///
/// # Errors
/// When it cannot start: no cluster, no socket.
pub async fn run(args: CniAgentArgs, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    if args.probe {
        return serve::probe(&args.socket).await;
    }
    let mut config = Config::infer().await.context("no way to the cluster: is this a pod of one?")?;
    config.read_timeout = Some(SILENCE);
    let client = Client::try_from(config).context("no way to the cluster")?;
    let node = args.node.clone().context("--node (NODE_NAME): the name of this node is needed")?;
    let state = watch::Sender::new(State::default());
    let pods = Arc::new(Pods::new(client.clone(), node));
    let server =
        Server::bind(&args.socket).with_context(|| format!("cannot listen on {}", args.socket.display()))?;
    let keeper = Keeper::new(&args.conf_dir, conflist::entry(&args.socket, &args.exclude));

    let mut tasks = JoinSet::new();
    tasks.spawn(server.run(Arc::clone(&pods), state.subscribe()));
    tasks.spawn(Arc::clone(&pods).follow(state.clone()));
    tasks.spawn(Raced::new(client.clone(), Arc::clone(&pods), state.subscribe()).run());
    tokio::pin!(stop);
    tokio::select! {
        () = hold(&keeper, &state) => {}
        () = &mut stop => {}
    }
    tasks.shutdown().await;
    if is_removed(&client, args.daemon_set.as_deref()).await {
        keeper.leave();
    } else {
        tracing::info!("the plugin stays chained: until an agent runs again, pods wait for it");
    }
    Ok(())
}

/// Keeps the plugin chained, as soon as it can be answered.
async fn hold(keeper: &Keeper, state: &watch::Sender<State>) {
    let mut listed = state.subscribe();
    // An error means that nobody is left to list.
    let _ = listed.wait_for(|state| state.listed).await;
    let mut changes = keeper.watch();
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut told, mut writes) = (None, Writes::default());
    loop {
        let outcome = keeper.hold(&mut writes, Instant::now());
        state.send_if_modified(|state| {
            std::mem::replace(&mut state.chained, outcome.is_ok()) != outcome.is_ok()
        });
        let problem = outcome.err().map(|problem| problem.to_string());
        if let Some(problem) = problem.as_ref().filter(|_| told != problem) {
            tracing::warn!("the plugin is not chained: {problem}");
        }
        told = problem;
        tokio::select! {
            _ = tick.tick() => changes.renew(),
            () = changes.next() => {}
        }
    }
}

/// True if no agent will follow: the DaemonSet is gone, or going. An API server that does not answer is no sign of that.
async fn is_removed(client: &Client, daemon_set: Option<&str>) -> bool {
    let Some((namespace, name)) = daemon_set.and_then(|text| text.split_once('/')) else { return true };
    let api: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
    let asked = async {
        loop {
            match api.get_metadata(name).await {
                Ok(found) => return found.metadata.deletion_timestamp.is_some(),
                // The right to ask goes with the rest.
                Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403 | 404) => return true,
                // Nobody asks again after this.
                Err(_) => sleep(ASK_AGAIN).await,
            }
        }
    };
    timeout(LAST_QUESTION, asked).await.unwrap_or(false)
}

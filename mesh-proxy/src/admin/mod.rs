//! What people and probes ask a proxy: admin (live state), health, metrics, and the socket that changes state.

mod doors;
mod dump;
mod health;
mod room;
mod server;
mod socket;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

pub(crate) use self::{
    doors::Doors,
    health::missing,
    socket::{BINARY, WITHIN},
};
use crate::{
    config::Config,
    control::Control,
    drain::Drain,
    life::Ask,
    listeners::{Listeners, Progress},
    probe::{self, Verdict},
    telemetry::{Metrics, Telemetry, access_log::AccessLog},
    upgrade,
};

/// What the answers are made of.
pub(crate) struct State {
    /// The proxy's configuration.
    pub config: Arc<Config>,
    /// What the controller says.
    pub control: Control,
    /// What is counted.
    pub telemetry: Telemetry,
    /// Metrics text.
    pub metrics: Metrics,
    /// The access log.
    pub access_log: AccessLog,
    /// Where the proxy listens.
    pub listeners: watch::Receiver<Listeners>,
    /// What does not stand yet.
    pub progress: watch::Receiver<Progress>,
    /// Whether the proxy is ending.
    pub drain: watch::Receiver<Drain>,
    /// Asks the proxy to end.
    pub ask: watch::Sender<Ask>,
    /// Asks it to make room for another binary.
    pub upgrade: mpsc::Sender<upgrade::Request>,
    /// Which process in the row of upgrades this is; the first is 1.
    pub generation: u64,
}

impl State {
    /// Returns when identity, workload configuration and all listeners are there.
    pub(crate) async fn ready(&self) {
        let mut tls = self.control.tls();
        let mut workload = self.control.workload();
        let mut progress = self.progress.clone();
        // These end only together with the proxy.
        let _identity = tls.wait_for(Option::is_some).await;
        let _workload = workload.wait_for(Option::is_some).await;
        let _listeners = progress.wait_for(Progress::is_complete).await;
    }
}

/// Answers of the admin port. Read-only, without secrets.
pub(crate) fn admin<'a>(state: &'a State, request: &'a server::Head) -> server::Answering<'a> {
    server::now(read(state, request))
}

/// What [`admin`] answers.
fn read(state: &State, request: &server::Head) -> server::Answer {
    if !server::host_is_local(request) {
        return server::Answer::text(403, "admin is asked by IP address or as localhost");
    }
    match request.uri.path() {
        "/config" => server::Answer::json(&dump::config(state)),
        "/destinations" => server::Answer::json(&state.control.dump_destinations()),
        "/endpoints" => server::Answer::json(&state.control.dump_endpoints()),
        "/certificates" => server::Answer::json(&dump::certificates(state)),
        "/edges" => server::Answer::json(&dump::edges(state)),
        "/status" => server::Answer::json(&dump::status(state)),
        _ => server::Answer::text(
            404,
            "there are /config, /destinations, /endpoints, /certificates, /edges and /status",
        ),
    }
}

/// Answers of the health port, which performs the application's probes too. None: the connection ends, unanswered.
pub(crate) fn health<'a>(state: &'a State, request: &'a server::Head) -> server::Answering<'a> {
    match request.uri.path().strip_prefix(probe::PATH) {
        Some(key) => Box::pin(probed(state, request, key)),
        None => server::now(own_health(state, request)),
    }
}

async fn probed(state: &State, request: &server::Head, key: &str) -> Option<server::Answer> {
    let agent = request.headers.get(http::header::USER_AGENT);
    match state.config.probes.perform(key, agent, &state.telemetry).await {
        None => Some(server::Answer::text(404, "there is no such probe")),
        Some(Verdict::Good) => Some(server::Answer::text(200, "ok")),
        Some(Verdict::Bad(why)) => Some(server::Answer::text(503, &why)),
        Some(Verdict::Broken(why)) => {
            tracing::info!(hook = probe::name(key), why, "the application's hook failed");
            None
        }
    }
}

fn own_health(state: &State, request: &server::Head) -> server::Answer {
    match request.uri.path() {
        "/live" => server::Answer::text(200, "live"),
        "/ready" => match missing(state) {
            missing if missing.is_empty() => server::Answer::text(200, "ready"),
            missing => server::Answer::text(503, &missing.join("\n")),
        },
        "/metrics" => server::Answer::metrics(state.metrics.text()),
        _ => server::Answer::text(404, "there are /ready, /live, /metrics and /probe/NONCE/CONTAINER/NAME"),
    }
}

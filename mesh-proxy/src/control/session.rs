//! The discovery stream: opened, resumed and kept for ever.

use std::{sync::Arc, time::Duration};

use mesh_core::resource::DestinationKey;
use mesh_proto::{
    convert::Wire as _,
    discovery::v1::{
        Ack, Hello, Subscribe, Unsubscribe, WatchRequest, WatchResponse, discovery_client::DiscoveryClient,
        watch_request::Kind,
    },
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{
    Change, Control, Shared,
    channel::{ConnectError, connect},
};
use crate::{
    backoff::Backoff,
    identity::TrustError,
    tls::{Svid, TlsEpoch},
};

/// Waits after failures.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Time for the controller to open the stream, and for a message to be taken.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// A stream that stood for so long was good, though nothing came by it.
const STOOD: Duration = Duration::from_secs(30);
/// How often idle subscriptions are looked for.
const SWEEP: Duration = Duration::from_secs(30);
/// Largest response.
const MAX_MESSAGE_BYTES: usize = 32 * 1024 * 1024;
/// Most names in one request.
const MAX_NAMES: usize = 256;
/// Requests that wait to be sent.
const QUEUE: usize = 16;
/// Most resources that are held: beyond it a new stream drops what nobody needs.
const MAX_RESOURCES: usize = 5 * super::subscriptions::MAX;

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("discovery: {} ({:?})", .0.message(), .0.code())]
    Status(Box<tonic::Status>),
    #[error("the controller ended the discovery stream")]
    Ended,
    #[error("the controller takes no messages")]
    Stuck,
    #[error("the controller sent more than {MAX_RESOURCES} resources")]
    TooMany,
}

impl From<tonic::Status> for SessionError {
    fn from(status: tonic::Status) -> Self {
        Self::Status(Box::new(status))
    }
}

/// Runs for ever. `instance` names this process.
pub(crate) async fn run(control: Control, instance: String) {
    let shared = &*control.shared;
    let mut backoff = Backoff::new(WAITS.0, WAITS.1);
    let mut failures = 0_u32;
    let mut epochs = shared.keeper.epochs();
    loop {
        let Ok(epoch) = epochs.wait_for(Option::is_some).await.map(|epoch| epoch.clone()) else { return };
        let Some(epoch) = epoch else { continue };
        let mut session = Session { shared, instance: &instance, answered: false };
        // Every second attempt goes back to the configured anchor.
        let begun = Instant::now();
        let result = session.run(&epoch, failures % 2 == 1).await;
        if session.answered || begun.elapsed() > STOOD {
            failures = 0;
            backoff.reset();
        }
        match result {
            // The certificate is a new one: connect with it at once.
            Ok(()) => tracing::debug!("reconnecting with the new certificate"),
            Err(error) => {
                failures += 1;
                let wait = backoff.next(fastrand::f64());
                tracing::warn!(%error, retry_in = ?wait, "no discovery");
                sleep(wait).await;
            }
        }
    }
}

struct Session<'a> {
    shared: &'a Shared,
    instance: &'a str,
    /// The controller answered at least once.
    answered: bool,
}

impl Session<'_> {
    /// One connection, from its beginning to its end. Ok: the certificate was renewed.
    async fn run(&mut self, epoch: &Arc<TlsEpoch>, bootstrap: bool) -> Result<(), SessionError> {
        let config = &self.shared.config;
        let tls = self.shared.keeper.control_tls(config, Some(&epoch.svid), bootstrap)?;
        let channel = connect(&config.controller, tls).await?;
        let (requests, queue) = mpsc::channel(QUEUE);
        let (known, wanted) = self.shared.begin_stream();
        let _open = Open(self.shared);
        let hello = Hello {
            workload: Some(config.workload.to_wire()),
            proxy_version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.instance.to_owned(),
            known,
        };
        send(&requests, Kind::Hello(hello)).await?;
        let mut client = DiscoveryClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let opening = client.watch(ReceiverStream::new(queue));
        let responses = timeout(STEP_TIMEOUT, opening).await.map_err(|_| SessionError::Stuck)??.into_inner();
        send_names(&requests, &wanted, true).await?;
        tracing::info!(controller = config.controller, "discovery stream open");
        // Not with the first response: a controller that has nothing new sends none.
        self.shared.channel.send_replace(Some(channel));
        self.follow(&epoch.svid, responses, requests).await
    }

    async fn follow(
        &mut self,
        svid: &Arc<Svid>,
        mut responses: Streaming<WatchResponse>,
        requests: mpsc::Sender<WatchRequest>,
    ) -> Result<(), SessionError> {
        let mut epochs = self.shared.keeper.epochs();
        // It may have been renewed while this stream was being opened.
        epochs.mark_changed();
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                response = responses.message() => {
                    let response = response?.ok_or(SessionError::Ended)?;
                    self.answered = true;
                    self.take(&response, &requests).await?;
                }
                () = self.shared.changed.notified() => {
                    for (names, begin) in batches(self.shared.take_changes()) {
                        send_names(&requests, &names, begin).await?;
                    }
                }
                changed = epochs.changed() => {
                    let current = epochs.borrow_and_update().clone();
                    let renewed = current.is_some_and(|epoch| !Arc::ptr_eq(&epoch.svid, svid));
                    if changed.is_err() || renewed {
                        return Ok(());
                    }
                }
                _ = sweep.tick() => self.shared.sweep(),
            }
        }
    }

    async fn take(
        &self,
        response: &WatchResponse,
        requests: &mpsc::Sender<WatchRequest>,
    ) -> Result<(), SessionError> {
        let rejected = self.shared.apply(response);
        for refusal in &rejected {
            tracing::warn!(
                resource = refusal.name,
                error = refusal.error,
                "resource refused; its last good version stays"
            );
        }
        send(requests, Kind::Ack(Ack { nonce: response.nonce, rejected })).await?;
        if self.shared.resources() > MAX_RESOURCES { Err(SessionError::TooMany) } else { Ok(()) }
    }
}

/// Marks the stream as ended, however that came about.
struct Open<'a>(&'a Shared);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.end_stream();
        self.0.channel.send_replace(None);
    }
}

async fn send(requests: &mpsc::Sender<WatchRequest>, kind: Kind) -> Result<(), SessionError> {
    let request = WatchRequest { kind: Some(kind) };
    match timeout(STEP_TIMEOUT, requests.send(request)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(SessionError::Ended),
        Err(_) => Err(SessionError::Stuck),
    }
}

async fn send_names(
    requests: &mpsc::Sender<WatchRequest>,
    keys: &[DestinationKey],
    begin: bool,
) -> Result<(), SessionError> {
    for keys in keys.chunks(MAX_NAMES) {
        let names = keys.iter().map(ToString::to_string).collect();
        let kind = if begin {
            Kind::Subscribe(Subscribe { names })
        } else {
            Kind::Unsubscribe(Unsubscribe { names })
        };
        send(requests, kind).await?;
    }
    Ok(())
}

/// Changes in their order, neighbours of a kind together.
fn batches(changes: Vec<Change>) -> Vec<(Vec<DestinationKey>, bool)> {
    let mut batches: Vec<(Vec<DestinationKey>, bool)> = Vec::new();
    for change in changes {
        let (key, begin) = match change {
            Change::Begin(key) => (key, true),
            Change::End(key) => (key, false),
        };
        match batches.last_mut() {
            Some((keys, kind)) if *kind == begin => keys.push(key),
            _ => batches.push((vec![key], begin)),
        }
    }
    batches
}

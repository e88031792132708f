//! One stream: what the proxy says changes its closure; what the closure lacks is sent, a few responses at a time.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_core::{
    name::WorkloadRef,
    resource::{DestinationKey, ResourceName},
};
use mesh_proto::discovery::v1::{Ack, Hello, WatchRequest, WatchResponse, watch_request::Kind};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tonic::{Status, Streaming};

use super::{MAX_IN_FLIGHT, closure::Closure};
use crate::{
    app::stopped,
    ca::unix,
    grpc::{Shared, check_runs_under, peer::PeerIdentity, workload_of},
    limit::Bucket,
    publish::{ProxyHandle, ProxyState, Snapshot},
};

/// Most subscriptions of one stream.
const MAX_SUBSCRIPTIONS: usize = 4096;
/// Most resources that a proxy may say it holds.
const MAX_KNOWN: usize = 4 * MAX_SUBSCRIPTIONS;
/// Subscriptions per second in the long run; faster ones wait.
const SUBSCRIPTIONS_PER_SECOND: f64 = 500.0;
/// Time that a proxy gets to subscribe again before what it held from an earlier stream is removed.
const RESUME_GRACE: Duration = Duration::from_secs(5);
/// Longest error and name that are kept of what a proxy says.
const MAX_SHOWN: usize = 500;

type Out = mpsc::Sender<Result<WatchResponse, Status>>;

/// A response that was not answered yet.
struct InFlight {
    nonce: u64,
    names: Vec<String>,
}

/// One stream.
pub(super) struct Session {
    shared: Arc<Shared>,
    peer: Arc<PeerIdentity>,
    workload: WorkloadRef,
    handle: ProxyHandle,
    closure: Closure,
    out: Out,
    nonce: u64,
    in_flight: VecDeque<InFlight>,
    rejected: BTreeMap<String, String>,
    /// Newest generation of which something was sent or found to be held.
    seen: u64,
    subscribing: Bucket,
    /// When the next message is read.
    read_at: Instant,
    /// When removals begin.
    remove_at: Instant,
}

impl Session {
    /// Checks what the proxy says of itself.
    pub(super) fn open(
        shared: Arc<Shared>,
        peer: &Arc<PeerIdentity>,
        hello: Hello,
        out: Out,
    ) -> Result<Self, Status> {
        let workload = workload_of(hello.workload.as_ref())?;
        check_runs_under(&shared.publisher.current(), &workload, peer)?;
        if hello.known.len() > MAX_KNOWN {
            return Err(Status::resource_exhausted(format!("known: at most {MAX_KNOWN} resources")));
        }
        let mut known = Vec::with_capacity(hello.known.len());
        for resource in hello.known {
            // Written back in the one form that the controller uses.
            let name = parse_name(&resource.name)?.to_string();
            known.push((name, resource.version.chars().take(MAX_SHOWN).collect()));
        }
        let now = Instant::now();
        let remove_at = if known.is_empty() { now } else { now + RESUME_GRACE };
        let mut state = ProxyState::default();
        state.version = shown(&hello.proxy_version);
        state.instance = shown(&hello.instance);
        state.certificate_not_after = peer.not_after;
        let handle = shared.proxies.connect(&workload, state).ok_or_else(|| {
            Status::resource_exhausted(format!(
                "Workload {workload} has too many streams: does more than one proxy run as it?"
            ))
        })?;
        tracing::info!(%workload, identity = %peer.id, "proxy connected");
        Ok(Self {
            closure: Closure::new(workload.clone(), known),
            shared,
            peer: Arc::clone(peer),
            workload,
            handle,
            out,
            nonce: 0,
            in_flight: VecDeque::new(),
            rejected: BTreeMap::new(),
            seen: 0,
            subscribing: Bucket::new(MAX_SUBSCRIPTIONS as u32, SUBSCRIPTIONS_PER_SECOND, now.into_std()),
            read_at: now,
            remove_at,
        })
    }

    /// Serves the stream until the proxy ends it (Ok) or there is a reason to.
    pub(super) async fn run(
        mut self,
        mut requests: Streaming<WatchRequest>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), Status> {
        let mut snapshots = self.shared.publisher.subscribe();
        let left = u64::try_from(self.peer.not_after - unix(SystemTime::now())).unwrap_or(0);
        let expiry = Instant::now() + Duration::from_secs(left);
        loop {
            let snapshot = Arc::clone(&snapshots.borrow_and_update());
            self.push(&snapshot)?;
            let (read_at, remove_at) = (self.read_at, self.remove_at);
            let removals_wait = remove_at > Instant::now();
            tokio::select! {
                message = async { sleep_until(read_at).await; requests.message().await } => match message {
                    Ok(Some(message)) => self.take(message, &snapshot)?,
                    Ok(None) => return Ok(()),
                    // The connection broke: nobody is there to be told.
                    Err(status) => {
                        tracing::debug!(workload = %self.workload, %status, "proxy disconnected");
                        return Ok(());
                    }
                },
                changed = snapshots.changed() => {
                    changed.map_err(|_| Status::unavailable("the controller is stopping"))?;
                }
                () = sleep_until(remove_at), if removals_wait => {}
                () = sleep_until(expiry) => {
                    return Err(Status::unauthenticated(
                        "the client certificate has expired: renew it and connect again",
                    ));
                }
                () = stopped(&mut stop) => {
                    return Err(Status::unavailable("the controller is stopping: connect again"));
                }
                () = self.out.closed() => return Ok(()),
            }
        }
    }

    /// Sends what the proxy lacks, as far as it keeps up.
    fn push(&mut self, snapshot: &Snapshot) -> Result<(), Status> {
        self.check(snapshot)?;
        self.forget_rejected(snapshot);
        let mut complete = false;
        while self.in_flight.len() < MAX_IN_FLIGHT {
            // Removals wait until all before was applied: a refused destination may still name old endpoints.
            let may_remove =
                self.in_flight.is_empty() && self.rejected.is_empty() && Instant::now() >= self.remove_at;
            let delta = self.closure.next(snapshot, may_remove);
            if delta.is_empty() {
                complete = true;
                break;
            }
            self.nonce += 1;
            let names = delta.upserts.iter().map(|resource| resource.name.clone()).collect();
            self.in_flight.push_back(InFlight { nonce: self.nonce, names });
            let response = WatchResponse {
                nonce: self.nonce,
                upserts: delta.upserts.iter().map(|resource| (**resource).clone()).collect(),
                removed: delta.removed,
            };
            if self.out.try_send(Ok(response)).is_err() {
                return Ok(());
            }
            if self.seen != 0 && snapshot.generation > self.seen {
                self.shared.metrics.push_seconds.observe(snapshot.at.elapsed().as_secs_f64());
            }
            self.seen = snapshot.generation;
        }
        let applied = complete && self.in_flight.is_empty() && self.rejected.is_empty();
        if complete {
            self.seen = snapshot.generation;
        }
        let pending = self.in_flight.len();
        self.handle.update(|state| {
            state.pending = pending;
            if applied {
                state.generation = snapshot.generation;
            }
        });
        Ok(())
    }

    /// What the proxy refused but is no longer to hold is no trouble any more.
    fn forget_rejected(&mut self, snapshot: &Snapshot) {
        if self.rejected.is_empty() {
            return;
        }
        let (before, wanted) = (self.rejected.len(), self.closure.names(snapshot));
        self.rejected.retain(|name, _| wanted.contains(name));
        if self.rejected.len() < before {
            self.handle.update(|state| state.rejected = self.rejected.clone());
        }
    }

    /// Ends the stream of a workload that is no longer there, or no longer this identity's.
    fn check(&self, snapshot: &Snapshot) -> Result<(), Status> {
        if !snapshot.compiled.workloads.contains_key(&self.workload) {
            return Err(Status::not_found(format!(
                "Workload {} was deleted: stop its proxy, or add the Workload again",
                self.workload
            )));
        }
        check_runs_under(snapshot, &self.workload, &self.peer)
    }

    fn take(&mut self, message: WatchRequest, snapshot: &Snapshot) -> Result<(), Status> {
        match message.kind {
            Some(Kind::Subscribe(subscribe)) => {
                self.pace(subscribe.names.len());
                for name in &subscribe.names {
                    self.closure.subscribe(parse_destination(name)?);
                    if self.closure.len() > MAX_SUBSCRIPTIONS {
                        return Err(Status::resource_exhausted(format!(
                            "at most {MAX_SUBSCRIPTIONS} subscriptions: end those that are idle"
                        )));
                    }
                }
                self.show_subscriptions();
            }
            Some(Kind::Unsubscribe(unsubscribe)) => {
                self.pace(unsubscribe.names.len());
                let keys = unsubscribe.names.iter().map(|name| parse_destination(name));
                let keys = keys.collect::<Result<Vec<_>, _>>()?;
                self.closure.unsubscribe(keys, snapshot);
                self.show_subscriptions();
            }
            Some(Kind::Ack(ack)) => self.acknowledge(ack),
            Some(Kind::Hello(_)) => return Err(Status::invalid_argument("Hello comes once, at first")),
            None => {
                return Err(Status::invalid_argument(
                    "a message of a kind that this controller does not know",
                ));
            }
        }
        Ok(())
    }

    /// A nonce answers its response and all before it.
    fn acknowledge(&mut self, ack: Ack) {
        let mut answered: Vec<String> = Vec::new();
        while self.in_flight.front().is_some_and(|first| first.nonce <= ack.nonce) {
            answered.extend(self.in_flight.pop_front().into_iter().flat_map(|first| first.names));
        }
        for name in &answered {
            self.rejected.remove(name);
        }
        for rejected in ack.rejected.into_iter().take(MAX_SUBSCRIPTIONS) {
            if !answered.contains(&rejected.name) {
                continue;
            }
            let error = shown(&rejected.error);
            tracing::warn!(workload = %self.workload, resource = rejected.name, error, "proxy refused a resource");
            self.rejected.insert(rejected.name, error);
        }
        self.handle.update(|state| state.rejected = self.rejected.clone());
    }

    /// Whoever subscribes too fast is read more slowly.
    fn pace(&mut self, names: usize) {
        let now = Instant::now();
        self.read_at = now + self.subscribing.charge(names, now.into_std()).min(Duration::from_secs(60));
    }

    fn show_subscriptions(&self) {
        let names = self.closure.subscriptions().collect();
        self.handle.update(|state| state.subscriptions = names);
    }
}

fn parse_name(name: &str) -> Result<ResourceName, Status> {
    name.parse().map_err(|e| Status::invalid_argument(format!("resource name: {e}")))
}

fn parse_destination(name: &str) -> Result<DestinationKey, Status> {
    match parse_name(name)? {
        ResourceName::Destination(key) => Ok(key),
        ResourceName::TrustBundle | ResourceName::Workload | ResourceName::Endpoints(_) => {
            Err(Status::invalid_argument(format!("{name:?} cannot be subscribed to; only destinations can")))
        }
    }
}

/// What a proxy says, made safe to show.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect()
}

//! The protocol of discovery, from the controller's side: closure of what is subscribed, sent as deltas.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    pin::Pin,
    sync::{Arc, PoisonError},
};

use futures_util::Stream;
use mesh_core::name::{ServicePort, WorkloadRef};
use mesh_proto::{
    convert::Wire as _,
    discovery::v1::{
        Hello, Resource as Message, WatchRequest, WatchResponse, destination::Outcome,
        discovery_server::Discovery as DiscoveryService, filter, resource::Body, watch_request::Kind,
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{
    remember,
    state::{Answered, Scope, Services, State, caller},
};

type Responses = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

#[async_trait]
impl DiscoveryService for Services {
    type WatchStream = Responses;

    async fn watch(&self, request: Request<Streaming<WatchRequest>>) -> Result<Response<Responses>, Status> {
        caller(&request)?;
        let requests = request.into_inner();
        let (sender, receiver) = mpsc::channel(16);
        let state = Arc::clone(&self.0);
        // Answers at once, before Hello: a client may wait for the response's head before it speaks.
        tokio::spawn(async move {
            if let Err(status) = session(state, requests, &sender).await {
                let _ = sender.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// What one stream subscribes and has been sent.
struct Session {
    workload: WorkloadRef,
    subscribed: BTreeSet<String>,
    /// Versions that the proxy holds from an earlier stream.
    known: HashMap<String, String>,
    /// Versions that it has been sent on this stream, or that it held already.
    sent: BTreeMap<String, String>,
    nonce: u64,
}

async fn session(
    state: Arc<State>,
    mut requests: Streaming<WatchRequest>,
    sender: &mpsc::Sender<Result<WatchResponse, Status>>,
) -> Result<(), Status> {
    let Some(WatchRequest { kind: Some(Kind::Hello(hello)) }) = requests.message().await? else {
        return Err(Status::invalid_argument("the first message is Hello"));
    };
    let workload = hello.workload.as_ref().ok_or_else(|| Status::invalid_argument("no workload"))?;
    let workload = WorkloadRef::from_wire(workload).map_err(|e| Status::invalid_argument(e.to_string()))?;
    remember(&state.hellos, hello.clone());
    let Hello { known, instance, .. } = hello;
    let mut session = Session {
        workload,
        subscribed: ["trust-bundle", "workload"].map(String::from).into(),
        known: known.into_iter().map(|resource| (resource.name, resource.version)).collect(),
        sent: BTreeMap::new(),
        nonce: 0,
    };
    session.tell(&state);
    let mut resources = state.resources.subscribe();
    loop {
        let delta = session.delta(&resources.borrow_and_update());
        if let Some(delta) = delta
            && sender.send(Ok(delta)).await.is_err()
        {
            return Ok(());
        }
        tokio::select! {
            changed = resources.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
            }
            request = requests.message() => match request?.and_then(|request| request.kind) {
                None => return Ok(()),
                Some(kind) => session.hear(kind, &instance, &state)?,
            },
        }
    }
}

impl Session {
    fn hear(&mut self, kind: Kind, instance: &str, state: &State) -> Result<(), Status> {
        match kind {
            Kind::Hello(_) => return Err(Status::invalid_argument("a second Hello")),
            Kind::Subscribe(more) => self.subscribed.extend(more.names),
            Kind::Unsubscribe(less) => self.subscribed.retain(|name| !less.names.contains(name)),
            Kind::Ack(ack) => {
                let (workload, instance) = (self.workload.clone(), instance.to_owned());
                remember(&state.answers, Answered { workload, instance, ack });
            }
        }
        self.tell(state);
        Ok(())
    }

    /// Lets the test see what is subscribed.
    fn tell(&self, state: &State) {
        let mut all = state.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(self.workload.clone(), self.subscribed.clone());
    }

    /// What the proxy does not have yet, and what it no longer needs.
    fn delta(&mut self, resources: &BTreeMap<Scope, Message>) -> Option<WatchResponse> {
        let find = |name: &str| {
            let own = resources.get(&(Some(self.workload.clone()), name.to_owned()));
            own.or_else(|| resources.get(&(None, name.to_owned())))
        };
        let mut closure: Vec<&Message> = Vec::new();
        for subscribed in self.subscribed.iter().filter_map(|name| find(name)) {
            // Endpoints first: they are to be there when the destination that names them comes.
            closure.extend(endpoints_of(subscribed).iter().filter_map(|name| find(name)));
            closure.push(subscribed);
        }
        let mut now = BTreeMap::new();
        let mut upserts = Vec::new();
        for message in closure {
            let held = self.sent.get(&message.name).or_else(|| self.known.get(&message.name));
            if held != Some(&message.version) && !now.contains_key(&message.name) {
                upserts.push(message.clone());
            }
            now.insert(message.name.clone(), message.version.clone());
        }
        let removed: Vec<String> =
            self.sent.keys().filter(|name| !now.contains_key(*name)).cloned().collect();
        self.known.retain(|name, _| !now.contains_key(name));
        self.sent = now;
        if upserts.is_empty() && removed.is_empty() {
            return None;
        }
        self.nonce += 1;
        Some(WatchResponse { nonce: self.nonce, upserts, removed })
    }
}

/// Names of the endpoint sets that a destination names.
fn endpoints_of(message: &Message) -> BTreeSet<String> {
    let Some(Body::Destination(destination)) = &message.body else { return BTreeSet::new() };
    let Some(Outcome::Service(service)) = &destination.outcome else { return BTreeSet::new() };
    let backends = service.rules.iter().flat_map(|rule| &rule.backends).filter(|backend| !backend.invalid);
    let ports = backends.clone().filter_map(|backend| backend.service.as_ref());
    let filters = service.rules.iter().flat_map(|rule| &rule.filters);
    let filters = filters.chain(backends.flat_map(|backend| &backend.filters));
    let copies = filters.filter_map(|filter| match &filter.kind {
        Some(filter::Kind::Mirror(mirror)) => mirror.service.as_ref(),
        _ => None,
    });
    ports
        .chain(copies)
        .filter_map(|port| ServicePort::from_wire(port).ok())
        .map(|port| format!("endpoints/{port}"))
        .collect()
}

//! What is known of each proxy, for people's tools.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use mesh_core::name::WorkloadRef;

/// A proxy, as the controller sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProxyState {
    /// Its discovery stream stands.
    pub(crate) connected: bool,
    /// Version of its binary.
    pub(crate) version: String,
    /// Name of its process.
    pub(crate) instance: String,
    /// When its stream was opened or lost.
    pub(crate) since: Option<SystemTime>,
    /// When its certificate expires, in seconds since the Unix epoch.
    pub(crate) certificate_not_after: i64,
    /// Subscribed resources.
    pub(crate) subscriptions: Vec<String>,
    /// Responses that it has not answered yet.
    pub(crate) pending: usize,
    /// Resources that it refused, and why.
    pub(crate) rejected: BTreeMap<String, String>,
    /// Newest configuration that it has applied in full.
    pub(crate) generation: u64,
    /// When it last reported.
    pub(crate) reported: Option<SystemTime>,
    /// Which stream this is: an older stream that ends later changes nothing.
    pub(super) stream: u64,
    /// Streams that stand.
    pub(super) streams: usize,
}

/// Most streams of one workload at a time: its own, those of processes that another one took over from and that finish
/// what they carry, and those that broke without anybody noticing yet.
const MAX_STREAMS: usize = 8;

/// All proxies that were ever connected and whose workload still exists.
#[derive(Default)]
pub(crate) struct Proxies {
    states: Mutex<HashMap<WorkloadRef, ProxyState>>,
    streams: std::sync::atomic::AtomicU64,
}

impl Proxies {
    /// Registers a stream; None when the workload has too many. Its end is noticed when the handle is dropped.
    pub(crate) fn connect(
        self: &Arc<Self>,
        workload: &WorkloadRef,
        state: ProxyState,
    ) -> Option<ProxyHandle> {
        let stream = self.streams.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        let mut states = self.lock();
        let (reported, streams) = states.get(workload).map_or((None, 0), |old| (old.reported, old.streams));
        if streams >= MAX_STREAMS {
            return None;
        }
        let since = Some(SystemTime::now());
        let state = ProxyState { connected: true, since, reported, stream, streams: streams + 1, ..state };
        states.insert(workload.clone(), state);
        Some(ProxyHandle { proxies: Arc::clone(self), workload: workload.clone(), stream })
    }

    /// Notes that a proxy has reported.
    pub(crate) fn reported(&self, workload: &WorkloadRef) {
        self.lock().entry(workload.clone()).or_default().reported = Some(SystemTime::now());
    }

    /// Forgets proxies whose workload is gone.
    pub(crate) fn retain(&self, exists: impl Fn(&WorkloadRef) -> bool) {
        self.lock().retain(|workload, state| state.connected || exists(workload));
    }

    /// What is known of one proxy.
    pub(crate) fn get(&self, workload: &WorkloadRef) -> Option<ProxyState> {
        self.lock().get(workload).cloned()
    }

    /// How many are connected.
    pub(crate) fn connected(&self) -> usize {
        self.lock().values().filter(|state| state.connected).count()
    }

    /// The configurations that connected proxies have applied, in order; without those that have none yet.
    pub(crate) fn generations(&self) -> Vec<u64> {
        let states = self.lock();
        let connected = states.values().filter(|state| state.connected && state.generation > 0);
        let mut all: Vec<u64> = connected.map(|state| state.generation).collect();
        all.sort_unstable();
        all
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<WorkloadRef, ProxyState>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One stream's access to its proxy's state.
pub(crate) struct ProxyHandle {
    proxies: Arc<Proxies>,
    workload: WorkloadRef,
    stream: u64,
}

impl ProxyHandle {
    /// Changes the state, unless a newer stream of the same workload has taken over.
    pub(crate) fn update(&self, change: impl FnOnce(&mut ProxyState)) {
        if let Some(state) = self.proxies.lock().get_mut(&self.workload).filter(|s| s.stream == self.stream) {
            change(state);
        }
    }
}

impl Drop for ProxyHandle {
    fn drop(&mut self) {
        if let Some(state) = self.proxies.lock().get_mut(&self.workload) {
            state.streams = state.streams.saturating_sub(1);
            if state.stream == self.stream {
                state.connected = false;
                state.since = Some(SystemTime::now());
                state.subscriptions.clear();
                state.pending = 0;
            }
        }
    }
}

//! Which endpoint of a backend takes a call.

use std::{
    cell::{Cell, OnceCell, RefCell},
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use http::{HeaderMap, HeaderValue, header::COOKIE};
use mesh_core::{
    balance::{hash::hash, maglev::Maglev, p2c, ring::Ring, slow_start},
    settings::{BackendSettings, Balance, HashKey},
};

use super::{EndpointState, checks, usable::Usable};
use crate::worker::Worker;

/// What the choice can look at besides the endpoints.
#[derive(Clone, Copy, Default)]
pub(crate) struct Affinity<'a> {
    /// The request's header fields; None: an opaque connection.
    pub headers: Option<&'a HeaderMap>,
    /// The caller's address; None: not known.
    pub source: Option<IpAddr>,
    /// The hash of the call's key, where it was chosen for before.
    pub hash: Option<u64>,
}

/// A choice.
pub(crate) struct Picked {
    /// The endpoint's index.
    pub at: usize,
    /// A cookie for the response, so that the caller comes back to the same endpoint.
    pub cookie: Option<HeaderValue>,
    /// The hash by which it was chosen; None: the choice does not follow from the call.
    pub hash: Option<u64>,
}

/// The endpoints of one backend.
pub(crate) struct Balancer {
    endpoints: Vec<Rc<EndpointState>>,
    /// None: two choices by load among all.
    settings: Option<Arc<BackendSettings>>,
    own_zone: Arc<str>,
    usable: RefCell<Option<Rc<Usable>>>,
    turn: Cell<usize>,
    ring: OnceCell<Ring>,
    maglev: OnceCell<Maglev>,
}

impl Balancer {
    /// Prepares the endpoints, and has them checked where that is wanted.
    pub(crate) fn new(
        worker: &Rc<Worker>,
        endpoints: Vec<Rc<EndpointState>>,
        settings: Option<&Arc<BackendSettings>>,
    ) -> Self {
        if let Some(settings) = settings {
            for endpoint in &endpoints {
                endpoint.outlier.set(settings.outlier);
                checks::follow(worker, endpoint, settings.health.as_ref());
            }
        }
        let own_zone = worker.workload().map_or_else(|| "".into(), |workload| Arc::clone(&workload.zone));
        Self::plain(endpoints, settings.cloned(), own_zone)
    }

    pub(super) fn plain(
        endpoints: Vec<Rc<EndpointState>>,
        settings: Option<Arc<BackendSettings>>,
        own_zone: Arc<str>,
    ) -> Self {
        Self {
            turn: Cell::new(fastrand::usize(..)),
            endpoints,
            settings,
            own_zone,
            usable: RefCell::default(),
            ring: OnceCell::new(),
            maglev: OnceCell::new(),
        }
    }

    /// All endpoints.
    pub(crate) fn endpoints(&self) -> &[Rc<EndpointState>] {
        &self.endpoints
    }

    /// Picks an endpoint, none of `avoid` where there is another, and not the last of them where there are two. None:
    /// there is none that works.
    pub(crate) fn pick(&self, call: Affinity<'_>, avoid: &[Rc<EndpointState>]) -> Option<Picked> {
        let just = |at| Picked { at, cookie: None, hash: None };
        let Some(settings) = &self.settings else {
            let all = Group::All(self.endpoints.len());
            return self.by_load(all, None).map(|place| just(self.other_than(avoid, all, place)));
        };
        let usable = self.usable(settings)?;
        let spent = |group: &[usize]| !avoid.is_empty() && group.iter().all(|at| self.is_among(avoid, *at));
        let near = usable.far.is_empty()
            || (!usable.near.is_empty()
                && !spent(&usable.near)
                && usable.near_share.takes(fastrand::u64(..)));
        let group = Group::These(if near { &usable.near } else { &usable.far });
        let place = match &settings.balance {
            Balance::PeakEwma | Balance::LeastRequest => self.by_load(group, Some(settings)),
            Balance::RoundRobin => self.warm(group, settings, |count| {
                self.turn.set(self.turn.get().wrapping_add(1));
                self.turn.get() % count
            }),
            Balance::Random => self.warm(group, settings, |count| fastrand::usize(..count)),
            Balance::RingHash(key) => return self.by_hash(key, false, call, group, avoid),
            Balance::Maglev(key) => return self.by_hash(key, true, call, group, avoid),
        };
        place.map(|place| just(self.other_than(avoid, group, place)))
    }

    /// The endpoints that get calls now.
    fn usable(&self, settings: &BackendSettings) -> Option<Rc<Usable>> {
        let first = self.endpoints.first()?;
        let mut kept = self.usable.borrow_mut();
        if let Some(usable) = &*kept
            && usable.is_current(first)
        {
            return Some(Rc::clone(usable));
        }
        let usable = Rc::new(Usable::of(&self.endpoints, settings, &self.own_zone));
        *kept = Some(Rc::clone(&usable));
        Some(usable)
    }

    /// The better of two at random.
    fn by_load(&self, group: Group<'_>, settings: Option<&Arc<BackendSettings>>) -> Option<usize> {
        if group.len() <= 1 {
            return (group.len() == 1).then_some(0);
        }
        let now = self.endpoints.first()?.now();
        let least = settings.is_some_and(|settings| settings.balance == Balance::LeastRequest);
        let window = settings.and_then(|settings| settings.slow_start);
        let cost = |place| {
            let Some(endpoint) = self.endpoints.get(group.at(place)) else { return f64::MAX };
            let load = endpoint.load.borrow();
            let cost = if least { f64::from(load.pending()) + 1.0 } else { load.cost(now) };
            cost / warmth(endpoint, now, window)
        };
        p2c::pick(group.len(), fastrand::u64(..), cost)
    }

    /// A place by `next`; endpoints that are still warming up are passed over now and then.
    fn warm(
        &self,
        group: Group<'_>,
        settings: &BackendSettings,
        next: impl Fn(usize) -> usize,
    ) -> Option<usize> {
        const TRIES: usize = 3;
        let now = self.endpoints.first()?.now();
        let mut place = None;
        for _ in 0..TRIES {
            let at = (group.len() > 0).then(|| next(group.len()))?;
            place = Some(at);
            let warmth =
                self.endpoints.get(group.at(at)).map_or(1.0, |e| warmth(e, now, settings.slow_start));
            if warmth >= 1.0 || fastrand::f64() < warmth {
                break;
            }
        }
        place
    }

    /// The endpoint of a call's key; where it has none, any, and where the key is a cookie that may be made, by a new one.
    fn by_hash(
        &self,
        key: &HashKey,
        maglev: bool,
        call: Affinity<'_>,
        group: Group<'_>,
        avoid: &[Rc<EndpointState>],
    ) -> Option<Picked> {
        let (hash, cookie) = match call.hash.or_else(|| key_of(key, call)) {
            Some(hash) => (hash, None),
            None => made(key, call.headers.is_some()),
        };
        let next = |avoid: &[_]| {
            let fits = |at: usize| group.holds(at) && !self.is_among(avoid, at);
            if maglev {
                self.maglev.get_or_init(|| Maglev::new(&self.names())).pick(hash, fits)
            } else {
                self.ring.get_or_init(|| Ring::new(&self.names())).pick(hash, fits)
            }
        };
        let at = next(avoid).or_else(|| next(last_of(avoid))).or_else(|| next(&[]))?;
        Some(Picked { at, cookie, hash: Some(hash) })
    }

    fn is_among(&self, some: &[Rc<EndpointState>], at: usize) -> bool {
        !some.is_empty()
            && self.endpoints.get(at).is_some_and(|endpoint| some.iter().any(|one| Rc::ptr_eq(one, endpoint)))
    }

    /// What hashes know endpoints by.
    fn names(&self) -> Vec<String> {
        self.endpoints.iter().map(|endpoint| endpoint.endpoint.address.to_string()).collect()
    }

    /// The index at `place`, or another one where that is an endpoint to avoid.
    fn other_than(&self, avoid: &[Rc<EndpointState>], group: Group<'_>, place: usize) -> usize {
        let at = group.at(place);
        if !self.is_among(avoid, at) {
            return at;
        }
        let (count, first) = (group.len(), fastrand::usize(..group.len().max(1)));
        let next = |avoid: &[_]| {
            let mut all = (0..count).map(|step| group.at((first + step) % count));
            all.find(|at| !self.is_among(avoid, *at))
        };
        next(avoid).or_else(|| next(last_of(avoid))).unwrap_or(at)
    }
}

fn last_of(all: &[Rc<EndpointState>]) -> &[Rc<EndpointState>] {
    all.last().map_or(&[], std::slice::from_ref)
}

/// Endpoints among which is chosen, by index.
#[derive(Clone, Copy)]
enum Group<'a> {
    All(usize),
    /// In ascending order.
    These(&'a [usize]),
}

impl Group<'_> {
    fn len(self) -> usize {
        match self {
            Self::All(count) => count,
            Self::These(all) => all.len(),
        }
    }

    fn at(self, place: usize) -> usize {
        match self {
            Self::All(_) => place,
            Self::These(all) => all.get(place).copied().unwrap_or(usize::MAX),
        }
    }

    fn holds(self, at: usize) -> bool {
        match self {
            Self::All(count) => at < count,
            Self::These(all) => all.binary_search(&at).is_ok(),
        }
    }
}

/// The part of its share that an endpoint gets.
fn warmth(endpoint: &EndpointState, now: u64, window: Option<Duration>) -> f64 {
    let Some(window) = window else { return 1.0 };
    slow_start::factor(Duration::from_nanos(now.saturating_sub(endpoint.since.get())), window)
}

/// The hash of a call's key. None: the call does not have it.
fn key_of(key: &HashKey, call: Affinity<'_>) -> Option<u64> {
    match key {
        HashKey::Header(name) => Some(hash(call.headers?.get(name)?.as_bytes(), 0)),
        HashKey::Cookie { name, .. } => Some(hash(cookie(call.headers?, name)?.as_bytes(), 0)),
        HashKey::SourceIp => match call.source? {
            IpAddr::V4(ip) => Some(hash(&ip.octets(), 0)),
            IpAddr::V6(ip) => Some(hash(&ip.octets(), 0)),
        },
    }
}

/// The value of a cookie (RFC 6265 section 4.2).
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let fields = headers.get_all(COOKIE).iter().filter_map(|field| field.to_str().ok());
    let mut pairs = fields.flat_map(|field| field.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// A hash for a call that has no key, and the cookie that will be its key.
fn made(key: &HashKey, http: bool) -> (u64, Option<HeaderValue>) {
    let HashKey::Cookie { name, ttl: Some(ttl), path } = key else { return (fastrand::u64(..), None) };
    if !http {
        return (fastrand::u64(..), None);
    }
    let value = format!("{:016x}", fastrand::u64(..));
    let mut text = format!("{name}={value}; HttpOnly");
    if !ttl.is_zero() {
        text.push_str(&format!("; Max-Age={}", ttl.as_secs()));
    }
    if !path.is_empty() {
        text.push_str(&format!("; Path={path}"));
    }
    (hash(value.as_bytes(), 0), HeaderValue::try_from(text).ok())
}

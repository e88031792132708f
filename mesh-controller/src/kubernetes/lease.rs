//! Which replica leads: whoever holds the Lease, as client-go does it. What is decided is pure; [`Lock`] does it.
//!
//! Times of others are never compared with a clock of ours: a holder is gone when its Lease has not changed for as long
//! as it says, by the watch of whoever looks on. A holder gives up before that time is over.

use std::time::{Duration, Instant};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};

use super::{Cluster, ClusterError, MANAGER, ask};

/// The Lease's name.
const NAME: &str = "mesh-controller";
/// How long a Lease holds that is not renewed.
const LEASE: Duration = Duration::from_secs(15);
/// A holder that could not renew for so long leads no more.
const RENEW: Duration = Duration::from_secs(10);
/// Time between attempts.
pub(super) const RETRY: Duration = Duration::from_secs(2);

/// What a replica does about the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    /// It is free.
    Take,
    /// It is ours.
    Renew,
    /// Another one holds it.
    Wait,
}

/// What one replica knows.
struct Election {
    own: String,
    /// The Lease as it was seen last, and since when it is like that.
    seen: Option<(LeaseSpec, Instant)>,
    /// When it was ours for certain.
    held: Option<Instant>,
}

impl Election {
    fn decide(&mut self, found: Option<&LeaseSpec>, now: Instant) -> Move {
        let Some(found) = found else { return Move::Take };
        if self.seen.as_ref().is_none_or(|(seen, _)| seen != found) {
            self.seen = Some((found.clone(), now));
        }
        let holder = found.holder_identity.as_deref().unwrap_or_default();
        let seconds = found.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
        let lasts = seconds.map_or(LEASE, Duration::from_secs);
        let since = self.seen.as_ref().map_or(now, |(_, since)| *since);
        match holder {
            "" => Move::Take,
            holder if holder == self.own => Move::Renew,
            _ if now.duration_since(since) > lasts => Move::Take,
            _ => Move::Wait,
        }
    }

    fn is_leader(&self, now: Instant) -> bool {
        self.held.is_some_and(|held| now.duration_since(held) < RENEW)
    }
}

/// The Lease that says that `own` holds it.
fn written(found: Option<&LeaseSpec>, own: &str, how: Move, now: Timestamp) -> LeaseSpec {
    let before = found.cloned().unwrap_or_default();
    let is_new = how == Move::Take;
    LeaseSpec {
        holder_identity: Some(own.to_owned()),
        lease_duration_seconds: i32::try_from(LEASE.as_secs()).ok(),
        acquire_time: if is_new { Some(MicroTime(now)) } else { before.acquire_time },
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(
            before.lease_transitions.unwrap_or(0).saturating_add(i32::from(is_new && found.is_some())),
        ),
        ..LeaseSpec::default()
    }
}

/// The Lease that says that nobody holds it, and that the next need not wait.
fn released(found: &LeaseSpec, now: Timestamp) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(String::new()),
        lease_duration_seconds: Some(1),
        renew_time: Some(MicroTime(now)),
        ..found.clone()
    }
}

/// The Lease of the cluster, and one replica's part in it.
pub(super) struct Lock {
    api: Api<Lease>,
    election: Election,
}

impl Lock {
    pub(super) fn new(cluster: &Cluster) -> Self {
        let api = Api::namespaced(cluster.client.clone(), &cluster.namespace);
        let election = Election { own: cluster.replica.clone(), seen: None, held: None };
        Self { api, election }
    }

    /// True while this replica leads.
    pub(super) fn is_leader(&self) -> bool {
        self.election.is_leader(Instant::now())
    }

    /// How long this replica leads if nothing comes of its attempts; None: it does not.
    pub(super) fn left(&self) -> Option<Duration> {
        self.election.held.map(|held| RENEW.saturating_sub(held.elapsed())).filter(|left| !left.is_zero())
    }

    /// Takes or renews the Lease, if it may.
    pub(super) async fn attempt(&mut self) -> Result<(), ClusterError> {
        // What is written counts from before it was sent.
        let begun = Instant::now();
        let found = self.read().await?;
        let spec = found.as_ref().and_then(|lease| lease.spec.as_ref());
        let how = self.election.decide(spec, Instant::now());
        if how == Move::Wait {
            self.election.held = None;
            return Ok(());
        }
        let spec = written(spec, &self.election.own, how, Timestamp::now());
        let is_ours = match found {
            Some(lease) => self.replace(lease, spec).await?,
            None => self.create(spec).await?,
        };
        self.election.held = is_ours.then_some(begun);
        Ok(())
    }

    /// Gives the Lease back, so that another replica leads at once.
    pub(super) async fn release(mut self) -> Result<(), ClusterError> {
        if self.election.held.take().is_none() {
            return Ok(());
        }
        let Some(lease) = self.read().await? else { return Ok(()) };
        let Some(spec) = &lease.spec else { return Ok(()) };
        if spec.holder_identity.as_deref() == Some(&*self.election.own) {
            let spec = released(spec, Timestamp::now());
            self.replace(lease, spec).await?;
        }
        Ok(())
    }

    async fn read(&self) -> Result<Option<Lease>, ClusterError> {
        ask(|| format!("read the Lease {NAME}"), self.api.get_opt(NAME)).await
    }

    async fn create(&self, spec: LeaseSpec) -> Result<bool, ClusterError> {
        let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
        let lease = Lease { metadata, spec: Some(spec) };
        let done = ask(|| format!("create the Lease {NAME}"), self.api.create(&params(), &lease)).await;
        is_done(done.map(drop))
    }

    async fn replace(&self, mut lease: Lease, spec: LeaseSpec) -> Result<bool, ClusterError> {
        lease.spec = Some(spec);
        let done =
            ask(|| format!("change the Lease {NAME}"), self.api.replace(NAME, &params(), &lease)).await;
        is_done(done.map(drop))
    }
}

/// False: another replica was faster.
fn is_done(done: Result<(), ClusterError>) -> Result<bool, ClusterError> {
    match done {
        Ok(()) => Ok(true),
        Err(error) if error.code() == Some(409) => Ok(false),
        Err(error) => Err(error),
    }
}

fn params() -> PostParams {
    PostParams { dry_run: false, field_manager: Some(MANAGER.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn election(own: &str) -> Election {
        Election { own: own.to_owned(), seen: None, held: None }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    #[test]
    fn a_lease_is_taken_when_it_is_free_or_has_not_changed_for_its_time() {
        let start = Instant::now();
        let after = |seconds: u64| start + Duration::from_secs(seconds);
        let mut b = election("b");
        assert_eq!(b.decide(None, start), Move::Take);
        // The clock of the holder may be hours ahead or behind: only its changes count.
        for skew in [-100_000, 0, 100_000] {
            let mut b = election("b");
            let first = written(None, "a", Move::Take, at(skew));
            assert_eq!(b.decide(Some(&first), after(0)), Move::Wait);
            assert_eq!(b.decide(Some(&first), after(14)), Move::Wait);
            let renewed = written(Some(&first), "a", Move::Renew, at(skew + 2));
            assert_eq!(b.decide(Some(&renewed), after(15)), Move::Wait);
            assert_eq!(b.decide(Some(&renewed), after(30)), Move::Wait);
            assert_eq!(b.decide(Some(&renewed), after(31)), Move::Take);
        }
        let first = written(None, "a", Move::Take, at(0));
        assert_eq!(b.decide(Some(&first), start), Move::Wait);
        assert_eq!(b.decide(Some(&released(&first, at(3))), start), Move::Take, "released: no waiting");
        assert_eq!(election("a").decide(Some(&first), start), Move::Renew);
        let broken = LeaseSpec { lease_duration_seconds: Some(-1), ..first };
        assert_eq!(election("b").decide(Some(&broken), start), Move::Wait);
    }

    #[test]
    fn transitions_count_holders_and_renewals_keep_when_it_was_acquired() {
        let first = written(None, "a", Move::Take, at(0));
        assert_eq!((first.lease_transitions, first.lease_duration_seconds), (Some(0), Some(15)));
        let renewed = written(Some(&first), "a", Move::Renew, at(2));
        assert_eq!((&renewed.acquire_time, renewed.lease_transitions), (&first.acquire_time, Some(0)));
        assert_eq!(renewed.renew_time, Some(MicroTime(at(2))));
        let taken = written(Some(&released(&renewed, at(3))), "b", Move::Take, at(4));
        assert_eq!((taken.acquire_time, taken.lease_transitions), (Some(MicroTime(at(4))), Some(1)));
    }

    #[test]
    fn a_leader_gives_up_before_another_can_lead() {
        let start = Instant::now();
        let mut a = election("a");
        assert!(!a.is_leader(start));
        a.held = Some(start);
        assert!(a.is_leader(start + Duration::from_millis(9_999)));
        assert!(!a.is_leader(start + RENEW));
        assert!(RENEW + RETRY < LEASE);
    }
}

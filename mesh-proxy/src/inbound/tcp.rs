//! Bytes to the application, carried without being looked into, as long as policy allows.

use std::{sync::Arc, time::Instant};

use mesh_core::{config::WorkloadConfig, edge::Direction, protocol::Protocol, reason::Reason};
use tokio::sync::watch;

use super::port::{Callee, Verdict};
use crate::{
    net::{
        Stream,
        copy::{Counts, bidirectional},
        dial::dial,
    },
    telemetry::{EdgeStats, Outcome, access_log::Entry},
};

type Changes = watch::Receiver<Option<Arc<WorkloadConfig>>>;

/// Carries a connection: authorised before the application is dialled, and again whenever policy changes.
pub(super) async fn carry(callee: &Callee, mut stream: Stream) {
    let began = Instant::now();
    // Before the first decision, so that no change is missed while the application is dialled.
    let changes = callee.worker.workload_changes();
    let Verdict { verdict, edge } = callee.decide(None, Protocol::Opaque);
    let counts = Counts::default();
    let mut ended = Ended { callee, edge, began, counts: &counts, reason: Some(Reason::ShuttingDown) };
    if let Err(reason) = verdict {
        return ended.because(Some(reason));
    }
    ended.edge.connection();
    let Ok(mut app) = Box::pin(dial(callee.app, None)).await else {
        return ended.because(Some(Reason::AppUnavailable));
    };
    let overdue = Box::pin(callee.worker.overdue(stream.caller()));
    tokio::select! {
        biased;
        reason = revoked(callee, changes) => ended.because(Some(reason)),
        reason = overdue => ended.because(Some(reason)),
        outcome = bidirectional(&mut stream, &mut app, &counts) => {
            ended.because(outcome.is_err().then_some(Reason::UpstreamReset));
        }
    }
}

/// Returns when policy no longer lets the connection in.
async fn revoked(callee: &Callee, mut changes: Changes) -> Reason {
    loop {
        if changes.changed().await.is_err() {
            // The last policy stays.
            return std::future::pending().await;
        }
        if let Err(reason) = callee.decide(None, Protocol::Opaque).verdict {
            return reason;
        }
    }
}

/// A connection that ends; counted when it is dropped, whatever happened.
struct Ended<'a> {
    callee: &'a Callee,
    edge: Arc<EdgeStats>,
    began: Instant,
    counts: &'a Counts,
    reason: Option<Reason>,
}

impl Ended<'_> {
    fn because(&mut self, reason: Option<Reason>) {
        self.reason = reason;
    }
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let outcome = Outcome {
            status: None,
            failed: self.reason.is_some(),
            reason: self.reason,
            micros: self.began.elapsed().as_micros() as u64,
            request_bytes: self.counts.forth.get(),
            response_bytes: self.counts.back.get(),
        };
        self.edge.finished(&outcome);
        let log = &self.callee.worker.access_log;
        if log.enabled() {
            log.write(Entry {
                direction: Direction::Inbound,
                edge: Some(Arc::clone(&self.edge)),
                peer: Some(self.callee.peer.0),
                upstream: Some(self.callee.app),
                method: None,
                authority: None,
                path: None,
                outcome,
            });
        }
    }
}

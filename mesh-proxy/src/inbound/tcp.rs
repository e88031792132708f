//! Bytes to the application, carried without being looked into, as long as policy allows.

use std::time::Instant;

use mesh_core::{edge::Direction, protocol::Protocol, reason::Reason};

use super::port::{Callee, Verdict};
use crate::{
    net::{
        Stream,
        copy::{Counts, bidirectional},
        dial::dial,
    },
    telemetry::{EdgeStats, Outcome, access_log::Entry},
};

/// Carries a connection: authorised before the application is dialled, and again whenever policy changes.
pub(super) async fn carry(callee: &Callee, mut stream: Stream) {
    let began = Instant::now();
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
    tokio::select! {
        outcome = bidirectional(&mut stream, &mut app, &counts) => {
            ended.because(outcome.is_err().then_some(Reason::UpstreamReset));
        }
        reason = revoked(callee) => ended.because(Some(reason)),
    }
}

/// Returns when policy no longer lets the connection in.
async fn revoked(callee: &Callee) -> Reason {
    let mut changes = callee.worker.workload_changes();
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
    edge: std::sync::Arc<EdgeStats>,
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
                edge: Some(std::sync::Arc::clone(&self.edge)),
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

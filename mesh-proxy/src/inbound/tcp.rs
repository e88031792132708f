//! Bytes to the application, carried without being looked into, as long as policy allows.

use std::{
    io, mem,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use mesh_core::{config::WorkloadConfig, edge::Direction, protocol::Protocol, reason::Reason};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::watch,
    time::timeout,
};

use super::{
    only_tls::{OnlyTls, is_not_tls},
    port::{Callee, Verdict},
};
use crate::{
    detect::DETECT_TIMEOUT,
    net::{
        Stream, TAKEN,
        copy::{Counts, bidirectional_after},
        refused,
    },
    telemetry::{EdgeStats, Outcome, access_log::Entry},
};

type Changes = watch::Receiver<Option<Arc<WorkloadConfig>>>;

/// A connection to the application that stands already, and what the application has said on it.
pub(super) struct Greeted {
    /// The connection.
    pub stream: Stream,
    /// What was read from it.
    pub said: Bytes,
}

/// How long a peer may take to hear why it is refused.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Carries a connection: authorised before the application is dialled, and again whenever policy changes. `tells`: the
/// caller's proxy waits for a word whether it is taken.
pub(super) async fn carry(callee: &Callee, mut stream: Stream, greeted: Option<Box<Greeted>>, tells: bool) {
    let began = Instant::now();
    // Before the first decision, so that no change is missed while the application is dialled.
    let changes = callee.worker.workload_changes();
    let Verdict { verdict, edge } = callee.decide(None, Protocol::Opaque);
    let counts = Counts::default();
    let mut ended = Ended { callee, edge, began, counts: &counts, reason: Some(Reason::ShuttingDown) };
    if let Err(reason) = verdict {
        let unused = ended.is_tentative() && is_unused(&mut stream).await;
        ended.because(if unused { None } else { Some(reason) });
        return refuse(stream, tells, reason).await;
    }
    if !ended.is_tentative() {
        ended.edge.connection();
    }
    let (mut app, said) = match greeted {
        Some(greeted) => (greeted.stream, greeted.said),
        None => match callee.connect().await {
            Ok(app) => (app, Bytes::new()),
            Err(reason) => {
                ended.because(Some(reason));
                return refuse(stream, tells, reason).await;
            }
        },
    };
    let caller = stream.caller();
    let mut stream = OnlyTls::new(&mut stream, speaks_http(callee));
    let overdue = Box::pin(callee.worker.overdue(caller.as_ref()));
    tokio::select! {
        biased;
        reason = revoked(callee, changes) => ended.because(Some(reason)),
        reason = overdue => ended.because(Some(reason)),
        outcome = relay(&mut stream, &mut app, said, tells, &counts) => {
            // To take a connection back whose word was not read yet resets it.
            let unused = tells && counts.carried() == 0 && ended.is_tentative();
            ended.because(outcome.err().filter(|_| !unused).map(|error| match is_not_tls(&error) {
                true => Reason::BadRequest,
                false => Reason::UpstreamReset,
            }));
        }
    }
}

/// Tells the caller that it is taken, if it wants to hear that, and copies.
async fn relay(
    stream: &mut OnlyTls<'_>,
    app: &mut Stream,
    mut said: Bytes,
    tells: bool,
    counts: &Counts,
) -> io::Result<()> {
    if tells {
        // With what the application has said, so that this comes no later.
        let said = mem::take(&mut said);
        stream.write_all(&[&[TAKEN], &*said].concat()).await?;
        stream.flush().await?;
        counts.back.set(said.len() as u64);
    }
    bidirectional_after(stream, app, said, counts).await
}

/// True when the application reads requests from what a peer's proxy sends; what a stranger sends was looked into.
fn speaks_http(callee: &Callee) -> bool {
    match callee.declared {
        Protocol::Http1 | Protocol::Http2 | Protocol::Grpc => callee.caller.is_some(),
        Protocol::Opaque | Protocol::Undeclared => false,
    }
}

/// Ends a connection; the caller's proxy is told why, if it wants to hear that.
async fn refuse(mut stream: Stream, tells: bool, reason: Reason) {
    if !tells {
        return;
    }
    let told = async move {
        stream.write_all(&refused(reason)).await?;
        stream.shutdown().await?;
        // To close while bytes of the caller's are unread would take the word back.
        let mut unread = [0; 4096];
        while stream.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    // In a box: it is large, and rare.
    let _ = timeout(LAST_WORD, Box::pin(told)).await;
}

/// Waits for the first byte of a caller that is refused: true when none comes before the caller closes.
async fn is_unused(stream: &mut Stream) -> bool {
    let mut byte = [0; 1];
    matches!(timeout(DETECT_TIMEOUT, stream.read(&mut byte)).await, Ok(Ok(0) | Err(_)))
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

    /// A peer connects to a port of which it does not know what it speaks before its application has said anything,
    /// and takes that back when it turns out to be HTTP. Without a byte that is no call.
    fn is_tentative(&self) -> bool {
        self.callee.declared == Protocol::Undeclared && self.callee.caller.is_some()
    }
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        if self.is_tentative() {
            if self.reason.is_none() && self.counts.carried() == 0 {
                return;
            }
            self.edge.connection();
        }
        let outcome = Outcome {
            status: None,
            failed: self.reason.is_some(),
            reason: self.reason,
            micros: self.began.elapsed().as_micros() as u64,
            request_bytes: self.counts.forth.get(),
            response_bytes: self.counts.back.get(),
            retries: 0,
        };
        self.edge.finished(&outcome);
        let log = &self.callee.worker.access_log;
        if log.enabled() {
            log.write(Entry {
                direction: Direction::Inbound,
                edge: Some(Arc::clone(&self.edge)),
                peer: Some(self.callee.ends.source),
                upstream: Some(self.callee.app),
                method: None,
                authority: None,
                path: None,
                server_name: None,
                outcome,
            });
        }
    }
}

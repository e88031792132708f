//! Limits of time for connections that are carried without being looked into.

use std::time::Duration;

use mesh_core::{reason::Reason, settings::Timeouts};
use tokio::time::sleep;

use super::copy::Counts;

/// A limit that nobody lives to see.
const FOREVER: Duration = Duration::from_secs(365 * 86_400);

/// Returns when a limit is reached. Without one, that is never: a peer whose host is gone is noticed by keep-alives,
/// and a connection that both ends hold open may be silent for as long as they like.
pub(crate) async fn overtime(timeouts: Timeouts, counts: &Counts) -> Reason {
    if timeouts.idle.is_none() && timeouts.stream.is_none() {
        return std::future::pending().await;
    }
    // In a box: rare, and it would otherwise be part of every connection.
    Box::pin(async {
        tokio::select! {
            () = idle(timeouts.idle.unwrap_or(FOREVER), counts) => Reason::IdleTimeout,
            () = sleep(timeouts.stream.unwrap_or(FOREVER)) => Reason::RequestTimeout,
        }
    })
    .await
}

/// Returns when no byte has passed for `limit`, and before it has been twice as long.
async fn idle(limit: Duration, counts: &Counts) {
    let carried = || counts.forth.get() + counts.back.get();
    loop {
        let before = carried();
        sleep(limit).await;
        if carried() == before {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn timeouts(idle: u64, stream: u64) -> Timeouts {
        let limit = |millis| (millis > 0).then(|| Duration::from_millis(millis));
        Timeouts { idle: limit(idle), stream: limit(stream), ..Timeouts::default() }
    }

    #[tokio::test]
    async fn silence_and_age_end_a_connection_where_that_is_configured() {
        let counts = Counts::default();
        let busy = async {
            for _ in 0..20 {
                sleep(Duration::from_millis(20)).await;
                counts.back.set(counts.back.get() + 1);
            }
            counts.back.get()
        };
        let began = Instant::now();
        let (reason, carried) = tokio::join!(overtime(timeouts(200, 0), &counts), busy);
        assert_eq!((reason, carried), (Reason::IdleTimeout, 20));
        assert!(began.elapsed() >= Duration::from_millis(600), "bytes put it off");
        assert_eq!(overtime(timeouts(1000, 10), &counts).await, Reason::RequestTimeout);
        let never = overtime(Timeouts::default(), &counts);
        tokio::time::timeout(Duration::from_millis(50), never).await.expect_err("no limit");
    }
}

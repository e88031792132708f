//! Waiting until nobody calls the application any more, before it is told to end.

use std::time::Duration;

use mesh_core::edge::Direction;
use tokio::time::{Instant, sleep};

use crate::telemetry::Telemetry;

/// Nobody calls who did not for so long. Callers of the mesh hear in a fraction of it that the pod goes.
const SILENCE: Duration = Duration::from_secs(1);
/// Time between looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Returns when no connection came in and no request ended for [`SILENCE`], or after `at_most`.
pub(super) async fn wait(telemetry: &Telemetry, at_most: Duration) {
    let begun = Instant::now();
    let (mut calls, mut since) = (count(telemetry), begun);
    while since.elapsed() < SILENCE && begun.elapsed() < at_most {
        sleep(PAUSE).await;
        let now = count(telemetry);
        if now != calls {
            (calls, since) = (now, Instant::now());
        }
    }
    tracing::info!(waited = ?begun.elapsed(), "the application may end: its callers have left, or the time is over");
}

/// Inbound connections and requests so far.
fn count(telemetry: &Telemetry) -> u64 {
    let opened: u64 = telemetry.shards().iter().map(|shard| shard.opened(Direction::Inbound)).sum();
    let edges = telemetry.edges();
    let inbound = edges.iter().filter(|(key, _)| key.direction == Direction::Inbound);
    opened + inbound.map(|(_, counts)| counts.totals.requests).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long is waited when somebody calls so often, once in a quarter of a second, in seconds.
    async fn waited(calls: u32) -> f64 {
        let telemetry = Telemetry::new(1, "test");
        let begun = Instant::now();
        let calling = async {
            for _ in 0..calls {
                telemetry.shards()[0].connection_opened(Direction::Inbound);
                telemetry.shards()[0].connection_opened(Direction::Outbound);
                sleep(Duration::from_millis(250)).await;
            }
            // The application goes on calling others.
            loop {
                telemetry.shards()[0].connection_opened(Direction::Outbound);
                sleep(Duration::from_millis(250)).await;
            }
        };
        tokio::select! {
            () = wait(&telemetry, Duration::from_secs(4)) => begun.elapsed().as_secs_f64(),
            () = calling => 0.0,
        }
    }

    #[tokio::test]
    async fn waits_for_a_second_of_silence_and_no_longer_than_it_may() {
        let (none, some, many) = tokio::join!(waited(0), waited(5), waited(40));
        for (seconds, least, most) in [(none, 1.0, 1.8), (some, 2.0, 3.2), (many, 4.0, 5.5)] {
            assert!((least..=most).contains(&seconds), "waited {seconds} s, expected {least} to {most}");
        }
    }
}

//! Reports edges to the controller (`telemetry.v1`): totals, so that a lost report loses nothing.

use std::{sync::Arc, time::Duration};

use mesh_proto::{
    convert::Wire as _,
    telemetry::v1::{ReportRequest, telemetry_client::TelemetryClient},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tonic::transport::Channel;

use super::Telemetry;
use crate::config::Config;

/// Until the first report on a connection.
const FIRST: Duration = Duration::from_millis(100);
/// Until the next one, when the controller does not say, or the last failed.
const DEFAULT: Duration = Duration::from_secs(1);
/// What the controller may ask for.
const RANGE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));
/// Time for the controller to take one report.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How often idle edges are looked for.
const SWEEP: Duration = Duration::from_secs(60);
/// Largest report: all edges of all shards, with room.
const MAX_MESSAGE_BYTES: usize = 32 * 1024 * 1024;

/// Runs for ever.
pub(crate) async fn run(
    telemetry: Telemetry,
    config: Arc<Config>,
    mut channels: watch::Receiver<Option<Channel>>,
) {
    let mut swept = Instant::now();
    let mut wait = FIRST;
    loop {
        sleep(wait).await;
        if swept.elapsed() >= SWEEP {
            telemetry.sweep();
            swept = Instant::now();
        }
        let channel = channels.borrow_and_update().clone();
        wait = match channel {
            Some(channel) => report_once(&telemetry, &config, channel).await.unwrap_or(DEFAULT),
            None => {
                // Until there is one; but idle edges are swept meanwhile too.
                let _connected = timeout(DEFAULT, channels.wait_for(Option::is_some)).await;
                FIRST
            }
        };
    }
}

/// Sends one report; returns when the next is wanted. None: it was not taken.
pub(crate) async fn report_once(
    telemetry: &Telemetry,
    config: &Config,
    channel: Channel,
) -> Option<Duration> {
    let edges = telemetry.edges().into_iter().map(|(key, counts)| (key, counts.totals).to_wire()).collect();
    let request = ReportRequest {
        workload: Some(config.workload.to_wire()),
        instance: telemetry.instance.to_string(),
        edges,
        uptime_millis: u64::try_from(telemetry.started.elapsed().as_millis()).unwrap_or(u64::MAX),
    };
    let mut client = TelemetryClient::new(channel).max_encoding_message_size(MAX_MESSAGE_BYTES);
    match timeout(TIMEOUT, client.report(request)).await {
        Ok(Ok(response)) => {
            let wished = Duration::from_millis(response.into_inner().next_after_millis);
            Some(if wished.is_zero() { DEFAULT } else { wished.clamp(RANGE.0, RANGE.1) })
        }
        Ok(Err(status)) => {
            tracing::debug!(error = status.message(), code = ?status.code(), "report not taken");
            None
        }
        Err(_) => None,
    }
}

//! What a proxy tells: reports, and the end of its life.

use mesh_core::edge::{EdgeKey, EdgeTotals};
use mesh_proto::{convert::Wire as _, telemetry::v1::ReportRequest};
use mesh_testkit::{
    client::Connection,
    net::{PATIENCE, eventually},
};
use tokio::net::TcpStream;

use crate::rig::{Rig, cart, get};

/// Requests of all edges of a report.
fn requests(report: &ReportRequest) -> u64 {
    let edges = report.edges.iter().map(|edge| <(EdgeKey, EdgeTotals)>::from_wire(edge).unwrap());
    edges.map(|(_, totals)| totals.requests).sum()
}

#[tokio::test]
async fn edges_are_reported_as_totals_and_once_more_at_the_end() {
    let rig = Rig::new().await;
    let proxy = rig.ready().await;
    let outbound = proxy.addresses().outbound;
    let call = |count| async move {
        let mut connection = Connection::http1(TcpStream::connect(outbound).await.unwrap()).await;
        for _ in 0..count {
            assert_eq!(connection.get("/", "nowhere").await.unwrap().status(), 404);
        }
    };
    rig.controller.set_host("nowhere", mesh_core::config::Destination::Unknown("nothing".to_owned()));
    call(3).await;
    let reported = || async { rig.controller.reports().last().filter(|r| requests(r) == 3).cloned() };
    let report = eventually(PATIENCE, "a report of 3 requests", reported).await;
    assert_eq!(report.workload, Some(cart().to_wire()));
    assert_eq!(report.instance, rig.controller.hellos()[0].instance);
    call(2).await;
    proxy.shutdown().await;
    assert_eq!(requests(rig.controller.reports().last().unwrap()), 5, "the last report has everything");
}

#[tokio::test]
async fn after_shutdown_nothing_listens() {
    let rig = Rig::new().await;
    let proxy = rig.ready().await;
    let at = proxy.addresses();
    assert_eq!(get(at.health, "/live").await.0, 200);
    proxy.shutdown().await;
    let closed = || async {
        for address in [at.outbound, at.admin, at.health, (rig.ip, 8080).into()] {
            if TcpStream::connect(address).await.is_ok() {
                return None;
            }
        }
        Some(())
    };
    eventually(PATIENCE, "all listeners closed", closed).await;
}

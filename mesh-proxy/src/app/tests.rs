//! What tests of other modules need of the whole.

use super::*;
use crate::config::{Mode, Options};

/// A configuration that listens on any ports of `ip` and finds no controller.
pub(crate) fn config(ip: &str) -> Config {
    let any = || Some(format!("{ip}:0"));
    let options = Options {
        address: Some(ip.to_owned()),
        outbound: any(),
        admin: any(),
        health: any(),
        trust_pin: Some(format!("sha256:{}", "00".repeat(32))),
        workers: Some(1),
        ..Options::new("shop/cart", "127.0.0.1:1", Mode::Explicit)
    };
    Config::new(&options).unwrap()
}

/// The metrics text of a proxy that counted this and has no controller.
pub(crate) fn metrics(telemetry: Telemetry) -> String {
    let control = Control::new(Arc::new(config("127.66.1.1")), Arc::new(Keeper::new()));
    let access_log = AccessLog::open(&crate::config::AccessLogTarget::Off).unwrap();
    Metrics::new(telemetry, control, access_log).text()
}

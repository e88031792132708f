//! Properties of what people type to start a proxy.

use std::time::Duration;

use super::{Config, Mode, Options, parse_duration};

/// Options are taken or refused by name; what is taken is within its limits.
pub(crate) fn options(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.lines();
    let mut next = || lines.next().unwrap_or_default().to_owned();
    let mode = if next() == "explicit" { Mode::Explicit } else { Mode::Transparent };
    let mut options = Options::new(&next(), &next(), mode);
    options.trust_domain = next();
    options.trust_pin = Some(next());
    options.drain_timeout = next();
    options.head_timeout = next();
    let mut some = || Some(next()).filter(|text| !text.is_empty());
    options.address = some();
    options.outbound = some();
    options.inbound = some();
    options.admin = some();
    options.mark = some();
    match Config::new(&options) {
        Ok(config) => {
            assert_eq!(config.workload.to_string(), options.workload.trim());
            assert_eq!(config.trust_domain.as_str(), options.trust_domain.trim());
            assert!(config.admin.ip().is_loopback() && config.outbound.iter().all(|a| a.ip().is_loopback()));
            assert!(config.drain_timeout <= Duration::from_secs(3600));
            assert!(config.head_timeout >= Duration::from_millis(100), "{:?}", config.head_timeout);
        }
        Err(error) => assert!(error.to_string().contains("--"), "{error}"),
    }
    // In milliseconds the longest times are no longer numbers that it takes.
    if let Some(time) = parse_duration(text)
        && let Ok(millis) = u64::try_from(time.as_millis())
    {
        assert_eq!(parse_duration(&format!("{millis}ms")), Some(time));
    }
}

/// Options, one a line.
pub(crate) fn option_seeds() -> Vec<Vec<u8>> {
    let pin = format!("sha256:{}", "0f".repeat(32));
    let all = format!(
        "explicit\nshop/cart\nlocalhost:15010\ncluster.local\n{pin}\n30s\n90s\n127.0.0.7\n127.0.0.7:15001\n\n127.0.0.7:0\n"
    );
    let marked =
        format!("\nshop/cart\n[::1]:15010\nexample.org\n{pin}\n5m\n100ms\n\n\n0.0.0.0:15006\n\n0x10/0xff\n");
    vec![all.into_bytes(), marked.into_bytes(), b"2h".to_vec()]
}

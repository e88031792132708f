//! How a client keeps step with what measures it: `ready`, a line to start, a line of JSON, the end of input to stop.

use std::io::Write as _;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// Says that everything is set up and waits for the start.
pub(crate) fn wait_for_start() -> Result<()> {
    println!("ready");
    std::io::stdout().flush().context("cannot say that it is ready")?;
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line).context("cannot read the start")?;
    ensure!(read > 0, "stopped before the start");
    Ok(())
}

/// Prints what was seen, and waits for the end of standard input: connections are still open meanwhile.
pub(crate) fn report(outcome: &Value) -> Result<()> {
    println!("{outcome}");
    std::io::stdout().flush().context("cannot print what was seen")?;
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).context("cannot wait for the end")?;
    Ok(())
}

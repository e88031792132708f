//! What is in stock, over a line protocol: to the mesh these are bytes, encrypted and authorised by connection.

use std::{process::ExitCode, sync::Arc};

use clap::Args;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

use crate::{
    ServiceArgs,
    serve::{self, Shutdown},
    stats::Stats,
};

/// Longest line, in bytes.
const MAX_LINE: u64 = 256;

/// Flags of `shop inventory`.
#[derive(Args)]
pub(crate) struct InventoryArgs {
    #[command(flatten)]
    service: ServiceArgs,
}

/// Runs the service until it is told to end.
///
/// # Errors
/// When an address cannot be bound.
pub(crate) async fn run(args: InventoryArgs) -> anyhow::Result<ExitCode> {
    let shutdown = Shutdown::on_signal(&args.service.process)?;
    let stats = Arc::new(Stats::default());
    serve::stats(&args.service.process, Arc::clone(&stats), shutdown.clone()).await?;
    let listener = serve::bind(args.service.listen).await?;
    serve::accept(listener, shutdown, move |stream, mut shutdown| {
        let stats = Arc::clone(&stats);
        async move {
            stats.accepted();
            tokio::select! {
                // A connection that broke concerns only its peer.
                _ended = converse(stream, &stats) => {}
                () = shutdown.wait() => {}
            }
        }
    })
    .await;
    Ok(ExitCode::SUCCESS)
}

async fn converse(stream: TcpStream, stats: &Stats) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        if (&mut stream).take(MAX_LINE).read_line(&mut line).await? == 0 || !line.ends_with('\n') {
            return Ok(());
        }
        let answer = reply(&line);
        if answer.starts_with("OK") {
            stats.served("GET", "");
        }
        stream.write_all(answer.as_bytes()).await?;
    }
}

/// The answer to one line.
fn reply(line: &str) -> String {
    match line.trim_end().strip_prefix("GET ") {
        // The shelves of an example never empty.
        Some(sku) if !sku.is_empty() => format!("OK {}\n", 1_000 + sku.len()),
        _ => "ERR expected \"GET sku\"\n".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::reply;

    #[test]
    fn answers_one_line_with_one_line() {
        for (line, answer) in [("GET tea-1\n", "OK 1005\n"), ("GET tea-1\r\n", "OK 1005\n")] {
            assert_eq!(reply(line), answer, "{line:?}");
        }
        for bad in ["GET \n", "PUT tea-1\n", "\n"] {
            assert!(reply(bad).starts_with("ERR"), "{bad:?}");
        }
    }
}

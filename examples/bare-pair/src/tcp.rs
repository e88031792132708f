//! Bytes, copied both ways.

use anyhow::Result;
use tokio::io::copy_bidirectional_with_sizes;

use crate::tls::Stream;

/// Size of each direction's buffer, in bytes.
const BUFFER: usize = 64 * 1024;

/// Carries one connection until both directions have ended.
pub(crate) async fn carry(mut from: Stream, mut to: Stream) -> Result<()> {
    copy_bidirectional_with_sizes(&mut from, &mut to, BUFFER, BUFFER).await?;
    Ok(())
}

//! TCP: the first byte of a connection says what it is for.

use std::io::{self, ErrorKind};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::drive::tcp::{CHUNK, DOWN, ECHO, UP};

/// Bytes that are sent back at once.
const SMALL: usize = 1024;

/// Serves one connection until it ends.
pub(super) async fn serve(mut stream: TcpStream) -> io::Result<()> {
    let first = stream.read_u8().await?;
    // There may be many idle ones of those that only send back.
    let mut buffer = vec![b'x'; if first == ECHO { SMALL } else { CHUNK }];
    match first {
        DOWN => loop {
            stream.write_all(&buffer).await?;
        },
        UP => {
            let mut total: u64 = 0;
            loop {
                match stream.read(&mut buffer).await? {
                    0 => break,
                    read => total += read as u64,
                }
            }
            stream.write_u64(total).await
        }
        ECHO => loop {
            match stream.read(&mut buffer).await? {
                0 => return Ok(()),
                read => stream.write_all(&buffer[..read]).await?,
            }
        },
        _ => Err(ErrorKind::InvalidData.into()),
    }
}

//! Counts the rules that the kernel has of a table.

use std::io;

use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, netlink::SocketAddrNetlink, recv, sendto},
};

use super::{
    KernelError, NEW_RULE,
    message::{HEADER, NF_TABLES, dump},
    socket::{ANSWER, ERROR, header, open, opened},
};

/// Asks for all rules of a table.
const GET_RULE: u16 = 7;
/// Ends what was asked for.
const DONE: u16 = 3;

/// What was found so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) rules: usize,
    /// All of it was read; the error number, 0: none.
    pub(super) end: Option<i32>,
}

/// Number of rules in a table; 0 if it is not there.
///
/// # Errors
/// [`KernelError`].
pub(crate) fn count(table: &str) -> Result<usize, KernelError> {
    let found = exchange(table).map_err(opened)?;
    match found.end {
        None => Err(KernelError::Unconfirmed),
        Some(0) => Ok(found.rules),
        Some(errno) => match Errno::from_io_error(&io::Error::from_raw_os_error(errno)) {
            Some(Errno::NOENT) => Ok(0),
            Some(error) => Err(opened(error)),
            None => Err(KernelError::Unconfirmed),
        },
    }
}

fn exchange(table: &str) -> Result<Count, Errno> {
    let socket = open()?;
    let request = dump(GET_RULE, |attributes| {
        attributes.text(1, table);
    });
    sendto(&socket, &request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut count = Count::default();
    let mut buffer = vec![0_u8; ANSWER];
    while count.end.is_none() {
        // The next part is made when one is taken, so it is there as well.
        match recv(&socket, &mut buffer[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) | Err(Errno::AGAIN) => break,
            Ok((length, _)) => read(buffer.get(..length).unwrap_or_default(), table, &mut count),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// Reads one datagram.
pub(super) fn read(mut datagram: &[u8], table: &str, count: &mut Count) {
    while let Some((length, kind, _)) = header(datagram) {
        let Some(body) = datagram.get(HEADER..length) else { return };
        if kind == NF_TABLES << 8 | NEW_RULE {
            count.rules += usize::from(is_of(body, table));
        } else if kind == DONE {
            count.end = Some(0);
        } else if kind == ERROR {
            let errno = body.first_chunk().copied().map_or(0, i32::from_ne_bytes);
            count.end = Some(errno.saturating_neg());
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

/// True if a rule's first attribute, which is its table, has that name.
fn is_of(body: &[u8], table: &str) -> bool {
    let Some(attributes) = body.get(4..) else { return false };
    let number = |at: usize| attributes.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes);
    let (Some(length), Some(1)) = (number(0), number(2)) else { return false };
    attributes.get(4..usize::from(length)).and_then(|name| name.strip_suffix(&[0])) == Some(table.as_bytes())
}

//! The socket to nf_tables: sends one transaction and reads what the kernel says.
//!
//! The kernel works a transaction off before the call that sends it returns, so all its answers are there by then.

use std::{io, os::fd::OwnedFd};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind,
        netlink::{self, SocketAddrNetlink},
        recv, sendto, socket_with, sockopt,
    },
};

use super::{Transaction, message::HEADER};

/// Type of a message that reports an error, or with the error 0 acknowledges.
pub(super) const ERROR: u16 = 2;
/// Size of the buffer for answers, in bytes; one carries the message that it answers.
pub(super) const ANSWER: usize = 64 * 1024;
/// Space for a transaction, in bytes; more than the largest plan needs.
const SEND_BUFFER: usize = 1024 * 1024;

/// Why the kernel did not take the rules.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The process may not change firewall rules.
    #[error(
        "no permission to change firewall rules here: run it as root, or with the capability NET_ADMIN in this network namespace"
    )]
    Permission,
    /// The kernel has no nf_tables.
    #[error(
        "this kernel has no nf_tables (CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET): `modprobe nf_tables` on the host, or use another kernel"
    )]
    NoTables,
    /// A rule is not understood.
    #[error(
        "the kernel does not take `{step}`: {error}; is it older than 5.2, or without this part of nf_tables?"
    )]
    Refused {
        /// What it was to do.
        step: String,
        /// What it said.
        error: io::Error,
    },
    /// It did not say that all is well.
    #[error("the kernel did not confirm the rules")]
    Unconfirmed,
    /// The socket does not work.
    #[error("netlink: {0}")]
    Socket(io::Error),
}

/// What the kernel said about one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::init) struct Answer {
    /// Number of the message.
    pub(in crate::init) sequence: u32,
    /// The error; 0: none.
    pub(in crate::init) errno: i32,
}

/// Sends a transaction.
///
/// # Errors
/// [`KernelError`].
pub(super) fn commit(transaction: &Transaction) -> Result<(), KernelError> {
    let answers = exchange(&transaction.bytes).map_err(opened)?;
    verdict(transaction, &answers)
}

/// What the answers mean.
pub(super) fn verdict(transaction: &Transaction, answers: &[Answer]) -> Result<(), KernelError> {
    if let Some(failed) = answers.iter().find(|answer| answer.errno != 0) {
        let error = io::Error::from_raw_os_error(failed.errno);
        return Err(match (Errno::from_io_error(&error), failed.sequence) {
            (Some(Errno::PERM), _) => KernelError::Permission,
            // The transaction itself: nobody is there to take it.
            (Some(Errno::OPNOTSUPP | Errno::INVAL), 0) => KernelError::NoTables,
            (_, sequence) => {
                let index = usize::try_from(sequence).ok().and_then(|sequence| sequence.checked_sub(1));
                let step = index.and_then(|index| transaction.steps.get(index));
                let step = step.map_or_else(|| "the transaction".to_owned(), Clone::clone);
                KernelError::Refused { step, error }
            }
        });
    }
    let confirmed = answers.iter().any(|answer| answer.sequence == transaction.last);
    if confirmed { Ok(()) } else { Err(KernelError::Unconfirmed) }
}

/// A socket to the firewall.
pub(super) fn open() -> Result<OwnedFd, Errno> {
    let socket =
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::NETFILTER))?;
    bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    Ok(socket)
}

/// What an error means of a socket, or of what was asked on it.
pub(super) fn opened(error: Errno) -> KernelError {
    match error {
        Errno::PERM | Errno::ACCESS => KernelError::Permission,
        Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT => KernelError::NoTables,
        other => KernelError::Socket(other.into()),
    }
}

fn exchange(bytes: &[u8]) -> Result<Vec<Answer>, Errno> {
    let socket = open()?;
    let kernel = SocketAddrNetlink::new(0, 0);
    // More than the system's limit needs a privilege that is not always there: a small plan needs none.
    let _ = sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER);
    sendto(&socket, bytes, SendFlags::empty(), &kernel)?;
    let mut answers = Vec::new();
    let mut buffer = vec![0_u8; ANSWER];
    loop {
        match recv(&socket, &mut buffer[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) | Err(Errno::AGAIN) => return Ok(answers),
            Ok((length, _)) => parse(buffer.get(..length).unwrap_or_default(), &mut answers),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Adds the answers in a datagram. What is cut off or of another type is left out.
pub(in crate::init) fn parse(mut datagram: &[u8], answers: &mut Vec<Answer>) {
    while let Some((length, kind, sequence)) = header(datagram) {
        let Some(body) = datagram.get(HEADER..length) else { return };
        if kind == ERROR
            && let Some(errno) = body.first_chunk().copied().map(i32::from_ne_bytes)
        {
            answers.push(Answer { sequence, errno: errno.saturating_neg() });
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

/// Length, type and number of the message at the beginning.
pub(super) fn header(bytes: &[u8]) -> Option<(usize, u16, u32)> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?);
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let sequence = u32::from_ne_bytes(*bytes.get(8..)?.first_chunk()?);
    let length = usize::try_from(length).ok().filter(|length| *length >= HEADER)?;
    Some((length, kind, sequence))
}

//! PROXY protocol headers, versions 1 and 2 (haproxy.org, "The PROXY protocol"): who really calls, as a load balancer
//! tells before the first byte of a connection. Bounded, without I/O.

use std::{
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use mesh_core::protocol::ProxyVersion;

/// Longest header that is read, in bytes. Version 1 allows 107; in version 2 this leaves room for what senders add.
pub(super) const MAX_HEADER: usize = 2048;
/// Longest header of version 1, with its CRLF (section 2.1).
const MAX_LINE: usize = 107;
/// Beginning of version 1.
const WORD: &[u8] = b"PROXY ";
/// Beginning of version 2 (section 2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Length of a header of version 2 without addresses.
const FIXED: usize = 16;
/// Type of the extension that holds the caller's SPIFFE ID: the first of those that are free for applications
/// (section 2.2.7).
pub(super) const TYPE_SPIFFE_ID: u8 = 0xe0;

const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const UNSPECIFIED: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// The two ends of the caller's own connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    /// The caller.
    pub source: SocketAddr,
    /// What it called.
    pub destination: SocketAddr,
}

/// How far the bytes got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// More are needed.
    More,
    /// A header of this length. None: the sender speaks for itself, or does not know.
    Header(usize, Option<Ends>),
    /// None, or a malformed one.
    Invalid,
}

/// Reads the header with which `bytes` begin.
pub(super) fn parse(bytes: &[u8]) -> Parsed {
    if bytes.starts_with(SIGNATURE) {
        return binary(bytes);
    }
    if bytes.starts_with(WORD) {
        return line(bytes);
    }
    match SIGNATURE.starts_with(bytes) || WORD.starts_with(bytes) {
        true => Parsed::More,
        false => Parsed::Invalid,
    }
}

/// Version 1: `PROXY TCP4 SOURCE DESTINATION PORT PORT`, one line of ASCII.
fn line(bytes: &[u8]) -> Parsed {
    let window = bytes.get(..bytes.len().min(MAX_LINE)).unwrap_or_default();
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        // A line feed or a carriage return alone will never be the end of a good line.
        let lost = window.contains(&b'\n') || window.iter().rev().skip(1).any(|byte| *byte == b'\r');
        return if lost || window.len() == MAX_LINE { Parsed::Invalid } else { Parsed::More };
    };
    let text = window.get(WORD.len()..end).and_then(|text| std::str::from_utf8(text).ok());
    let length = end + 2;
    match text {
        // No verdict depends on how much of it has come.
        Some(text) if text.contains(['\r', '\n']) => Parsed::Invalid,
        // What follows is to be ignored.
        Some(text) if text == "UNKNOWN" || text.starts_with("UNKNOWN ") => Parsed::Header(length, None),
        Some(text) => match ends_of_line(text) {
            Some(ends) => Parsed::Header(length, Some(ends)),
            None => Parsed::Invalid,
        },
        None => Parsed::Invalid,
    }
}

fn ends_of_line(text: &str) -> Option<Ends> {
    let mut words = text.split(' ');
    let family = words.next()?;
    let (source, destination) = (words.next()?, words.next()?);
    let (from, to) = (port(words.next()?)?, port(words.next()?)?);
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let ends = Ends {
        source: SocketAddr::new(address(source)?, from),
        destination: SocketAddr::new(address(destination)?, to),
    };
    words.next().is_none().then_some(ends)
}

/// A decimal number without leading zeros or signs.
fn port(text: &str) -> Option<u16> {
    let good = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    good.then(|| text.parse().ok())?
}

/// Version 2: binary.
fn binary(bytes: &[u8]) -> Parsed {
    let (Some(command), Some(family)) = (bytes.get(12), bytes.get(13)) else {
        // What is there must be good already.
        return match bytes.get(12) {
            Some(command) if *command != LOCAL && *command != PROXY => Parsed::Invalid,
            _ => Parsed::More,
        };
    };
    let addresses = match (*command, *family) {
        (LOCAL, _) | (PROXY, UNSPECIFIED) => 0,
        (PROXY, TCP4) => 12,
        (PROXY, TCP6) => 36,
        // Datagrams and Unix sockets do not come over TCP; other commands must be refused.
        _ => return Parsed::Invalid,
    };
    let Some(Ok(length)) = bytes.get(14..FIXED).map(|field| field.try_into().map(u16::from_be_bytes)) else {
        return Parsed::More;
    };
    let end = FIXED + usize::from(length);
    if end > MAX_HEADER || usize::from(length) < addresses {
        return Parsed::Invalid;
    }
    let Some(body) = bytes.get(FIXED..end) else { return Parsed::More };
    if *command == LOCAL || *family == UNSPECIFIED {
        // Whatever stands there is to be skipped.
        return Parsed::Header(end, None);
    }
    let (Some(fields), Some(extensions)) = (body.get(..addresses), body.get(addresses..)) else {
        return Parsed::Invalid;
    };
    match (ends_of_fields(fields), are_extensions(extensions)) {
        (Some(ends), true) => Parsed::Header(end, Some(ends)),
        _ => Parsed::Invalid,
    }
}

/// Source and destination address, then their ports.
fn ends_of_fields(fields: &[u8]) -> Option<Ends> {
    let size = (fields.len().checked_sub(4)?) / 2;
    let address = |at: usize| -> Option<IpAddr> {
        let bytes = fields.get(at..at + size)?;
        match size {
            4 => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
            _ => Some(<[u8; 16]>::try_from(bytes).ok()?.into()),
        }
    };
    let port = |at: usize| Some(u16::from_be_bytes(fields.get(at..at + 2)?.try_into().ok()?));
    Some(Ends {
        source: SocketAddr::new(address(0)?, port(2 * size)?),
        destination: SocketAddr::new(address(size)?, port(2 * size + 2)?),
    })
}

/// Are these whole extensions: type, length, value? What they say is not ours.
fn are_extensions(mut bytes: &[u8]) -> bool {
    loop {
        bytes = match bytes {
            [] => return true,
            [_, high, low, rest @ ..] => match rest.get(usize::from(u16::from_be_bytes([*high, *low]))..) {
                Some(rest) => rest,
                None => return false,
            },
            _ => return false,
        };
    }
}

/// Makes a header. Version 2 carries the caller's SPIFFE ID, when there is one, as an extension of type 0xE0.
pub(super) fn write(version: ProxyVersion, ends: Ends, caller: Option<&str>) -> Vec<u8> {
    let Ends { source, destination } = same_family(ends);
    let mut header = Vec::with_capacity(MAX_LINE + caller.map_or(0, str::len));
    match version {
        ProxyVersion::V1 => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (source.port(), destination.port());
            // Writing to memory does not fail.
            let _ = write!(header, "PROXY {family} {} {} {from} {to}\r\n", source.ip(), destination.ip());
        }
        ProxyVersion::V2 => {
            header.extend(SIGNATURE);
            header.extend([PROXY, if source.is_ipv4() { TCP4 } else { TCP6 }, 0, 0]);
            for address in [source.ip(), destination.ip()] {
                match address {
                    IpAddr::V4(address) => header.extend(address.octets()),
                    IpAddr::V6(address) => header.extend(address.octets()),
                }
            }
            header.extend(source.port().to_be_bytes());
            header.extend(destination.port().to_be_bytes());
            if let Some(caller) = caller.filter(|caller| caller.len() <= MAX_HEADER - 2 * FIXED - 36) {
                header.push(TYPE_SPIFFE_ID);
                header.extend((caller.len() as u16).to_be_bytes());
                header.extend(caller.as_bytes());
            }
            let length = (header.len() - FIXED) as u16;
            if let Some(field) = header.get_mut(14..FIXED) {
                field.copy_from_slice(&length.to_be_bytes());
            }
        }
    }
    header
}

/// Both ends as IPv4, or both as IPv6.
fn same_family(ends: Ends) -> Ends {
    let mapped = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    match ends.source.is_ipv4() == ends.destination.is_ipv4() {
        true => ends,
        false => Ends { source: mapped(ends.source), destination: mapped(ends.destination) },
    }
}

#[cfg(test)]
mod tests;

//! Values that people type: parsed once, then trusted.

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr};

/// Longest name of an interface, in bytes (IFNAMSIZ without its NUL).
const MAX_INTERFACE: usize = 15;

/// Addresses with a common prefix. The bits behind it are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cidr {
    /// The first address.
    pub(crate) address: IpAddr,
    /// Length of the prefix, in bits.
    pub(crate) prefix: u8,
}

impl Cidr {
    /// Bits of an address.
    pub(crate) fn bits(self) -> u8 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }

    /// The address, in network order.
    pub(crate) fn octets(self) -> Vec<u8> {
        match self.address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        }
    }

    /// The prefix's mask, in network order.
    pub(crate) fn mask(self) -> Vec<u8> {
        let byte = |index: u8| {
            let ones = self.prefix.saturating_sub(index * 8).min(8);
            u8::try_from(0xff00_u16 >> ones & 0xff).unwrap_or(0xff)
        };
        (0..self.bits() / 8).map(byte).collect()
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let expected = "expected an address or a network, as in 10.0.0.0/8 or fd00::/8";
        let address: IpAddr =
            address.parse().map_err(|_| format!("{address:?} is no IP address; {expected}"))?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix: u8 = match prefix {
            Some(prefix) if prefix.starts_with('+') => return Err(format!("bad prefix length; {expected}")),
            Some(prefix) => prefix.parse().map_err(|_| format!("bad prefix length; {expected}"))?,
            None => bits,
        };
        if prefix > bits {
            return Err(format!("the prefix length {prefix} is more than the address's {bits} bits"));
        }
        let cidr = Self { address, prefix };
        let beyond = cidr.octets().iter().zip(cidr.mask()).any(|(byte, mask)| byte & !mask != 0);
        if beyond {
            return Err(format!(
                "{address} has bits behind the prefix of {prefix}: is another network meant?"
            ));
        }
        Ok(cidr)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.prefix == self.bits() {
            write!(f, "{}", self.address)
        } else {
            write!(f, "{}/{}", self.address, self.prefix)
        }
    }
}

/// A port, or several that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortRange {
    /// The first.
    pub(crate) first: u16,
    /// The last; not less than the first.
    pub(crate) last: u16,
}

impl PortRange {
    /// One port.
    pub(crate) const fn one(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// True if the port is one of them.
    pub(crate) fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0 && !text.starts_with('+'));
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err("expected a port from 1 to 65535, or a range as in 8000-8010".to_owned()),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// A mark of packets; only the bits of the mask count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// What these bits must be.
    pub(crate) value: u32,
    /// The bits that count.
    pub(crate) mask: u32,
}

impl FromStr for Mark {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (value, mask) = text.split_once('/').map_or((text, None), |(value, mask)| (value, Some(mask)));
        let expected = "expected a number, as in 1337 or 0x539, or VALUE/MASK";
        let value = number(value).ok_or(expected)?;
        let mask = mask.map_or(Some(u32::MAX), number).ok_or(expected)?;
        if value & !mask != 0 {
            return Err(format!("the value {value:#x} has bits that the mask {mask:#x} leaves out"));
        }
        if value == 0 {
            return Err("the mark 0 is that of every packet without a mark".to_owned());
        }
        Ok(Self { value, mask })
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.mask == u32::MAX {
            write!(f, "{:#010x}", self.value)
        } else {
            write!(f, "{:#010x}/{:#010x}", self.value, self.mask)
        }
    }
}

/// A class of the net_cls controller (cgroup version 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClassId(pub(crate) u32);

impl FromStr for ClassId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match number(text) {
            Some(0) => Err("the class 0 is that of every process without a class".to_owned()),
            Some(class) => Ok(Self(class)),
            None => Err("expected the number in net_cls.classid, as in 1048577 or 0x100001".to_owned()),
        }
    }
}

/// A decimal number, or a hexadecimal one behind `0x`.
pub(crate) fn number(text: &str) -> Option<u32> {
    let (digits, radix) = text.strip_prefix("0x").map_or((text, 10), |hex| (hex, 16));
    if digits.starts_with('+') {
        return None;
    }
    u32::from_str_radix(digits, radix).ok()
}

/// The name of a network interface, or the beginning of several names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    /// The name, or its beginning; never empty.
    pub(crate) name: String,
    /// True for all interfaces whose names begin so.
    pub(crate) is_prefix: bool,
}

impl Interface {
    /// The loopback interface.
    pub(crate) fn loopback() -> Self {
        Self { name: "lo".to_owned(), is_prefix: false }
    }
}

impl FromStr for Interface {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, is_prefix) = text.strip_suffix('*').map_or((text, false), |name| (name, true));
        let is_good =
            |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'@' | b':' | b'+');
        if name.is_empty() || name.len() > MAX_INTERFACE || !name.bytes().all(is_good) {
            return Err(
                "expected the name of an interface, as in docker0, or its beginning, as in veth*".into()
            );
        }
        Ok(Self { name: name.to_owned(), is_prefix })
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.name, if self.is_prefix { "*" } else { "" })
    }
}

/// A cgroup (version 2), as the kernel knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cgroup {
    /// Its number: the inode of its directory.
    pub(crate) id: u64,
    /// Its depth below the root.
    pub(crate) level: u32,
    /// Its directory, as nft names it: below `/sys/fs/cgroup`.
    pub(crate) path: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<T: FromStr<Err = String> + fmt::Debug>(text: &str, expected: &str) {
        let error = text.parse::<T>().unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }

    #[test]
    fn networks() {
        for text in ["10.0.0.0/8", "10.2.0.0/15", "192.0.2.7", "fd00::/7", "::1", "0.0.0.0/0", "::/0"] {
            match text.parse::<Cidr>() {
                Ok(cidr) => assert_eq!(cidr.to_string(), text),
                Err(error) => assert!(text == "fd00::/7", "{text}: {error}"),
            }
        }
        assert_eq!("10.1.2.3/32".parse::<Cidr>().unwrap().to_string(), "10.1.2.3");
        assert_eq!("10.0.0.0/12".parse::<Cidr>().unwrap().mask(), [255, 240, 0, 0]);
        refused::<Cidr>("10.0.0.0/33", "more than the address's 32 bits");
        refused::<Cidr>("10.0.0.1/8", "bits behind the prefix of 8");
        refused::<Cidr>("fd00::/129", "more than the address's 128 bits");
        refused::<Cidr>("fd00::/7", "bits behind");
        refused::<Cidr>("10.0.0/8", "no IP address");
        refused::<Cidr>("10.0.0.0/", "bad prefix length");
        refused::<Cidr>("10.0.0.0/+8", "bad prefix length");
        refused::<Cidr>("", "no IP address");
    }

    #[test]
    fn ports_marks_classes_and_interfaces() {
        assert_eq!("8000-8010".parse::<PortRange>().unwrap(), PortRange { first: 8000, last: 8010 });
        assert_eq!("80".parse::<PortRange>().unwrap().to_string(), "80");
        for bad in ["0", "65536", "9-8", "", "-", "80-", "+80", "8 0", "http"] {
            refused::<PortRange>(bad, "expected a port");
        }
        assert_eq!("0x539".parse::<Mark>().unwrap(), Mark { value: 1337, mask: u32::MAX });
        assert_eq!("0x500/0xff00".parse::<Mark>().unwrap().to_string(), "0x00000500/0x0000ff00");
        refused::<Mark>("0x501/0xff00", "leaves out");
        refused::<Mark>("0", "every packet");
        refused::<Mark>("0x", "expected a number");
        refused::<Mark>("4294967296", "expected a number");
        assert_eq!("0x100001".parse::<ClassId>().unwrap(), ClassId(0x0010_0001));
        refused::<ClassId>("0", "every process");
        assert_eq!("veth*".parse::<Interface>().unwrap().to_string(), "veth*");
        for bad in ["", "*", "a b", "a\"b", "a*b", "sixteen-letters-x", "a/b", "é"] {
            refused::<Interface>(bad, "name of an interface");
        }
    }
}

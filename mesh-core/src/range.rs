//! Networks and ranges of ports, as people type them: parsed once, then trusted.

use std::{fmt, net::IpAddr, str::FromStr};

/// Addresses with a common prefix. The bits behind it are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// The first address.
    pub address: IpAddr,
    /// Length of the prefix, in bits.
    pub prefix: u8,
}

impl Cidr {
    /// Bits of an address.
    #[must_use]
    pub fn bits(self) -> u8 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }

    /// The address, in network order.
    #[must_use]
    pub fn octets(self) -> Vec<u8> {
        match self.address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        }
    }

    /// The prefix's mask, in network order.
    #[must_use]
    pub fn mask(self) -> Vec<u8> {
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
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last; not less than the first.
    pub last: u16,
}

impl PortRange {
    /// One port.
    #[must_use]
    pub const fn one(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// True if the port is one of them.
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
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
    fn ports() {
        assert_eq!("8000-8010".parse::<PortRange>().unwrap(), PortRange { first: 8000, last: 8010 });
        assert_eq!("80".parse::<PortRange>().unwrap().to_string(), "80");
        for bad in ["0", "65536", "9-8", "", "-", "80-", "+80", "8 0", "http"] {
            refused::<PortRange>(bad, "expected a port");
        }
    }
}

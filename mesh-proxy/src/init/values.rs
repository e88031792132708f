//! Values that people type: parsed once, then trusted.

use std::{fmt, path::PathBuf, str::FromStr};

pub(crate) use mesh_core::range::{Cidr, PortRange};

/// Longest name of an interface, in bytes (IFNAMSIZ without its NUL).
const MAX_INTERFACE: usize = 15;

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
    fn marks_classes_and_interfaces() {
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

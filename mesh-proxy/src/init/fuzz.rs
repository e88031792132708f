//! Properties of what people type for the firewall rules, and of what the kernel answers.

use std::{fmt::Display, str::FromStr};

use super::{netlink, values};

/// Answers are read to the end whatever they say, none is invented, and whole ones are all found.
pub(crate) fn netlink(data: &[u8]) {
    let mut answers = Vec::new();
    netlink::parse(data, &mut answers);
    assert!(answers.len() <= data.len() / 20, "more answers than there is room for");
    let written: Vec<u8> =
        answers.iter().flat_map(|answer| into_message(answer.sequence, answer.errno)).collect();
    let mut again = Vec::new();
    netlink::parse(&written, &mut again);
    assert_eq!(again, answers);
}

/// A message of type NLMSG_ERROR.
fn into_message(sequence: u32, errno: i32) -> Vec<u8> {
    let fields = [20, 2, sequence, 0, errno.saturating_neg() as u32];
    fields.iter().flat_map(|field| field.to_ne_bytes()).collect()
}

/// What is typed is shown in a form that is read as the same.
pub(crate) fn values(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    shown::<values::Cidr>(text);
    shown::<values::PortRange>(text);
    shown::<values::Mark>(text);
    shown::<values::Interface>(text);
    if let Some(number) = values::number(text) {
        assert_eq!(values::number(&number.to_string()), Some(number));
    }
}

fn shown<T: FromStr + Display + PartialEq + std::fmt::Debug>(text: &str) {
    let Ok(value) = text.parse::<T>() else { return };
    let again = value.to_string().parse::<T>().ok();
    assert_eq!(again, Some(value), "{text:?}");
}

/// What the kernel says.
pub(crate) fn answers() -> Vec<Vec<u8>> {
    vec![into_message(1, 0), [into_message(1, 0), into_message(2, 17)].concat(), into_message(3, -1)]
}

/// What people type.
pub(crate) fn value_seeds() -> Vec<Vec<u8>> {
    let texts =
        ["10.0.0.0/8", "fd00::/8", "::ffff:1.2.3.4", "80", "8000-9000", "0x10/0xff", "16", "eth0", "veth-a"];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

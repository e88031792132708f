//! Wire ↔ core: every message that the mesh acts on is converted, and thereby checked, here and nowhere else.
//!
//! A message is refused whole; the error names the field by its path, as in `rules[2].sources[0].identity`.

mod backend;
mod bounded;
mod calls;
mod common;
mod destination;
mod edge;
mod filter;
mod limits;
mod matching;
mod policy;
mod resource;
mod route;
mod workload;

use std::fmt::{Debug, Write as _};

pub use resource::{Resource, ResourceBody};

/// Longest list in a message, unless said otherwise.
pub const MAX_ITEMS: usize = 4096;
/// Most endpoints of one Service port.
pub const MAX_ENDPOINTS: usize = 10_000;
/// Most trust anchors in one bundle.
pub const MAX_ROOTS: usize = 64;
/// Longest DER certificate, in bytes.
pub const MAX_CERTIFICATE_BYTES: usize = 64 * 1024;
/// Longest text in a field, in bytes.
pub const MAX_TEXT_BYTES: usize = 4096;

/// A core type that has a form on the wire.
pub trait Wire: Sized {
    /// The form on the wire.
    type Message;

    /// Converts for sending.
    fn to_wire(&self) -> Self::Message;

    /// Checks and converts what was received.
    ///
    /// # Errors
    /// [`ConvertError`] names the field that is missing, out of range, too long or malformed.
    fn from_wire(message: &Self::Message) -> Result<Self, ConvertError>;
}

/// Why a message is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {value} is refused, expected {expected}", self.path())]
pub struct ConvertError {
    path: String,
    value: String,
    expected: String,
}

impl ConvertError {
    /// A value that is refused; `expected` says what would have been right. The path is added on the way up.
    pub(crate) fn new(value: impl Debug, expected: impl Into<String>) -> Self {
        const MAX_SHOWN: usize = 200;
        let mut text = String::new();
        let _ = write!(text, "{value:?}");
        if text.len() > MAX_SHOWN {
            text = text.chars().take(MAX_SHOWN).chain(['…']).collect();
        }
        Self { path: String::new(), value: text, expected: expected.into() }
    }

    fn missing() -> Self {
        Self { path: String::new(), value: "nothing".into(), expected: "a value".into() }
    }

    /// Path of the field, as in `rules[2].sources[0].identity`.
    #[must_use]
    pub fn path(&self) -> &str {
        if self.path.is_empty() { "message" } else { &self.path }
    }

    /// The value that is refused, shortened.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// What would have been right.
    #[must_use]
    pub fn expected(&self) -> &str {
        &self.expected
    }

    /// The same error, seen from the message that holds it in `field`.
    #[must_use]
    pub(crate) fn under(mut self, field: &str) -> Self {
        self.path = match self.path.as_str() {
            "" => field.to_owned(),
            inner => format!("{field}.{inner}"),
        };
        self
    }
}

/// Adds the field's name to an error on its way up.
trait At<T> {
    fn at(self, field: &str) -> Result<T, ConvertError>;
}

impl<T> At<T> for Result<T, ConvertError> {
    fn at(self, field: &str) -> Self {
        self.map_err(|error| error.under(field))
    }
}

/// Converts a field that must be there.
fn required<T: Wire>(message: Option<&T::Message>, field: &str) -> Result<T, ConvertError> {
    message.ok_or_else(ConvertError::missing).and_then(T::from_wire).at(field)
}

/// Converts a field that may be absent.
fn optional<T: Wire>(message: Option<&T::Message>, field: &str) -> Result<Option<T>, ConvertError> {
    message.map(T::from_wire).transpose().at(field)
}

/// Converts a list of at most [`MAX_ITEMS`].
fn list<T: Wire>(items: &[T::Message], field: &str) -> Result<Vec<T>, ConvertError> {
    each(items, field, MAX_ITEMS, T::from_wire)
}

/// Converts a list of at most `max` items.
fn each<M, T>(
    items: &[M],
    field: &str,
    max: usize,
    mut convert: impl FnMut(&M) -> Result<T, ConvertError>,
) -> Result<Vec<T>, ConvertError> {
    if items.len() > max {
        let shown = format_args!("a list of {} items", items.len()).to_string();
        return Err(ConvertError::new(shown, format!("at most {max} items"))).at(field);
    }
    items.iter().enumerate().map(|(i, item)| convert(item).at(&format!("{field}[{i}]"))).collect()
}

/// Sends a list.
fn to_list<T: Wire>(items: &[T]) -> Vec<T::Message> {
    items.iter().map(Wire::to_wire).collect()
}

/// A text of at most [`MAX_TEXT_BYTES`] without control characters.
fn text<'a>(value: &'a str, field: &str) -> Result<&'a str, ConvertError> {
    if value.len() > MAX_TEXT_BYTES {
        return Err(ConvertError::new(value, format!("at most {MAX_TEXT_BYTES} bytes"))).at(field);
    }
    if value.chars().any(char::is_control) {
        return Err(ConvertError::new(value, "a text without control characters")).at(field);
    }
    Ok(value)
}

/// A port, 1 to 65535.
fn port(value: u32, field: &str) -> Result<u16, ConvertError> {
    let port = u16::try_from(value).ok().filter(|port| *port != 0);
    port.ok_or_else(|| ConvertError::new(value, "a port from 1 to 65535")).at(field)
}

/// Anything that has a text form and an error that says what it expects.
fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(value: &str, field: &str) -> Result<T, ConvertError> {
    text(value, field)?
        .parse()
        .map_err(|error: T::Err| ConvertError::new(value, format!("a valid value ({error})")))
        .at(field)
}

/// As [`parsed`]; empty stands for None.
fn parsed_or_empty<T: std::str::FromStr<Err: std::fmt::Display>>(
    value: &str,
    field: &str,
) -> Result<Option<T>, ConvertError> {
    if value.is_empty() { Ok(None) } else { parsed(value, field).map(Some) }
}

/// `IP:PORT`, the port not 0.
fn socket_address(value: &str, field: &str) -> Result<std::net::SocketAddr, ConvertError> {
    let address: Option<std::net::SocketAddr> = value.parse().ok();
    address
        .filter(|address| address.port() != 0)
        .ok_or_else(|| ConvertError::new(value, "IP:PORT, the port from 1 to 65535"))
        .at(field)
}

#[cfg(test)]
mod tests;

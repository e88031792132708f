//! Netlink messages and attributes as bytes (RFC 3549, `linux/netlink.h`, `linux/netfilter/nfnetlink.h`).
//!
//! Lengths and types are in the machine's byte order, numbers within nf_tables attributes in that of the network.

/// Size of a message's header, in bytes.
pub(super) const HEADER: usize = 16;
/// Set in the type of an attribute that holds attributes.
const NESTED: u16 = 0x8000;
/// The subsystem of nf_tables.
pub(super) const NF_TABLES: u16 = 10;
/// Begins and ends a transaction.
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

/// Flags of a message.
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
/// All that there is.
const DUMP: u16 = 0x300;
/// Make what is not there.
pub(super) const CREATE: u16 = 0x400;
/// Add at the end.
pub(super) const APPEND: u16 = 0x800;

/// Family of messages that have none.
const UNSPECIFIED: u8 = 0;
/// The `inet` family.
const INET: u8 = 1;

/// Attributes, one behind the other.
#[derive(Default)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    /// Adds bytes. Those that do not fit into an attribute are left out; the model's values are far smaller.
    pub(super) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let Ok(length) = u16::try_from(4 + value.len()) else { return self };
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        pad(&mut self.0);
        self
    }

    /// Adds a number of 32 bits.
    pub(super) fn number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Adds text, with its NUL.
    pub(super) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// Adds attributes within an attribute.
    pub(super) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let mut inner = Self::default();
        fill(&mut inner);
        self.bytes(kind | NESTED, &inner.0)
    }
}

/// Messages to nf_tables that apply together or not at all.
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// Number of the next message; the transaction's beginning has 0.
    next: u32,
    /// Where the last message begins.
    last: usize,
}

impl Batch {
    pub(super) fn new() -> Self {
        let mut batch = Self { bytes: Vec::new(), next: 0, last: 0 };
        batch.message(BATCH_BEGIN, REQUEST, UNSPECIFIED, NF_TABLES, &[]);
        batch
    }

    /// Adds one message.
    pub(super) fn add(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Attributes)) {
        let mut attributes = Attributes::default();
        fill(&mut attributes);
        self.message(NF_TABLES << 8 | kind, REQUEST | flags, INET, 0, &attributes.0);
    }

    /// Ends the transaction: its bytes, and the number of the message whose acknowledgement says that all is well.
    pub(super) fn end(mut self) -> (Vec<u8>, u32) {
        let last = self.next.saturating_sub(1);
        if let Some(flags) = self.bytes.get_mut(self.last + 6..self.last + 8) {
            let with_ack = u16::from_ne_bytes([flags[0], flags[1]]) | ACK;
            flags.copy_from_slice(&with_ack.to_ne_bytes());
        }
        self.message(BATCH_END, REQUEST, UNSPECIFIED, NF_TABLES, &[]);
        (self.bytes, last)
    }

    fn message(&mut self, kind: u16, flags: u16, family: u8, resource: u16, attributes: &[u8]) {
        self.last = self.bytes.len();
        let length = u32::try_from(HEADER + 4 + attributes.len()).unwrap_or(u32::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(self.next.to_ne_bytes());
        self.bytes.extend(0_u32.to_ne_bytes());
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        self.bytes.extend(attributes);
        pad(&mut self.bytes);
        self.next += 1;
    }
}

/// A message that asks for all of a kind, outside of a transaction.
pub(super) fn dump(kind: u16, fill: impl FnOnce(&mut Attributes)) -> Vec<u8> {
    let mut batch = Batch { bytes: Vec::new(), next: 0, last: 0 };
    batch.add(kind, DUMP, fill);
    batch.bytes
}

/// Attributes and messages begin at multiples of four.
fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

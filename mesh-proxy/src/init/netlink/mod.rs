//! The rules as netlink messages, and the socket that carries them to the kernel.

mod count;
mod expression;
mod message;
mod socket;
#[cfg(test)]
mod tests;

pub(crate) use self::count::count;
pub use self::socket::KernelError;
#[cfg(any(test, fuzzing))]
pub(super) use self::socket::parse;
use self::{
    expression::Writer,
    message::{APPEND, Attributes, Batch, CREATE},
};
use super::model::{Base, Chain, Hook, Rule, Table};

/// Messages of nf_tables.
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
/// Kind of user data that is a rule's comment.
const COMMENT: u8 = 0;

/// A transaction, ready to be sent.
pub(crate) struct Transaction {
    bytes: Vec<u8>,
    /// Number of the last message; its acknowledgement says that all is well.
    last: u32,
    /// What each message does, for errors; numbered from 1.
    steps: Vec<String>,
}

/// Replaces the table, whether or not it is there.
pub(crate) fn replace(table: &Table) -> Transaction {
    let mut batch = Batch::new();
    let mut steps = gone(&mut batch, table.name);
    batch.add(NEW_TABLE, CREATE, |table_| named(table_, table.name));
    steps.push(format!("table inet {}", table.name));
    for chain in &table.chains {
        batch.add(NEW_CHAIN, CREATE, |attributes| self::chain(attributes, table.name, chain));
        steps.push(format!("chain {}", chain.name));
    }
    for chain in &table.chains {
        for rule in &chain.rules {
            batch.add(NEW_RULE, CREATE | APPEND, |attributes| {
                self::rule(attributes, table.name, chain.name, rule);
            });
            steps.push(format!("chain {}: {rule}", chain.name));
        }
    }
    let (bytes, last) = batch.end();
    Transaction { bytes, last, steps }
}

/// Removes the table, if it is there.
pub(crate) fn remove(name: &str) -> Transaction {
    let mut batch = Batch::new();
    let steps = gone(&mut batch, name);
    let (bytes, last) = batch.end();
    Transaction { bytes, last, steps }
}

impl Transaction {
    /// Hands it to the kernel, which applies all of it or nothing.
    ///
    /// # Errors
    /// [`KernelError`]; nothing has changed then.
    pub(crate) fn commit(&self) -> Result<(), KernelError> {
        socket::commit(self)
    }
}

/// Only what exists can be deleted, so it is made first: both belong to one transaction.
fn gone(batch: &mut Batch, name: &str) -> Vec<String> {
    batch.add(NEW_TABLE, CREATE, |table| named(table, name));
    batch.add(DELETE_TABLE, 0, |table| named(table, name));
    vec![format!("table inet {name}"), format!("delete table inet {name}")]
}

fn named(table: &mut Attributes, name: &str) {
    table.text(1, name);
}

fn chain(out: &mut Attributes, table: &str, chain: &Chain) {
    out.text(1, table).text(3, chain.name);
    let Some(Base { kind, hook, priority }) = chain.base else { return };
    out.nest(4, |place| {
        place.number(1, hook.number()).bytes(2, &priority.to_be_bytes());
    });
    // Policy: accept.
    out.number(5, 1).text(7, kind.name());
}

fn rule(out: &mut Attributes, table: &str, chain: &str, rule: &Rule) {
    out.text(1, table).text(2, chain);
    out.nest(4, |expressions| Writer::new(expressions).rule(rule));
    let length = u8::try_from(rule.why.len() + 1).unwrap_or(u8::MAX);
    out.bytes(7, &[&[COMMENT, length], rule.why.as_bytes(), &[0]].concat());
}

impl Hook {
    fn number(self) -> u32 {
        match self {
            Self::Prerouting => 0,
            Self::Input => 1,
            Self::Output => 3,
        }
    }
}

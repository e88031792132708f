//! What connections showed, kept for the next ones to the same place.

use std::{cell::RefCell, collections::HashMap};

/// Ports of which something is kept; of more, nothing is learned.
const MAX_PORTS: usize = 1024;

/// What is known of a place where nothing is declared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Learned {
    /// Nothing.
    #[default]
    Unknown,
    /// Its clients speak HTTP: the server has nothing to say before that.
    Http,
    /// Its server speaks first.
    ServerFirst,
}

/// What is known of a workload's ports.
#[derive(Debug, Default)]
pub(crate) struct LearnedPorts(RefCell<HashMap<u16, Learned>>);

impl LearnedPorts {
    /// What is known of a port.
    pub(crate) fn get(&self, port: u16) -> Learned {
        self.0.borrow().get(&port).copied().unwrap_or_default()
    }

    /// Keeps what a connection showed.
    pub(crate) fn set(&self, port: u16, learned: Learned) {
        let mut known = self.0.borrow_mut();
        if known.len() < MAX_PORTS || known.contains_key(&port) {
            known.insert(port, learned);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_holds_and_the_number_of_ports_is_bounded() {
        let ports = LearnedPorts::default();
        for port in 0..2 * MAX_PORTS as u16 {
            ports.set(port, Learned::Http);
        }
        ports.set(7, Learned::ServerFirst);
        assert_eq!((ports.get(7), ports.get(8)), (Learned::ServerFirst, Learned::Http));
        assert_eq!(ports.get(MAX_PORTS as u16), Learned::Unknown);
    }
}

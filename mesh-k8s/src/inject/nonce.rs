//! What nobody can guess of the paths at which a pod's proxy performs the application's probes and hooks.

use std::fmt;

/// Made of random bytes, for one pod or for the template of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nonce(String);

impl Nonce {
    /// Bytes of one.
    pub const LEN: usize = 16;

    /// One of these bytes, which must be random: health is open to everybody, and whoever knows a path runs the hook.
    #[must_use]
    pub fn new(random: [u8; Self::LEN]) -> Self {
        Self(format!("{:032x}", u128::from_be_bytes(random)))
    }

    /// Reads one that was written; None: it is none.
    pub(super) fn read(text: &str) -> Option<Self> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (text.len() == 2 * Self::LEN && text.bytes().all(is_digit)).then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

//! Messages that come after the handshake (RFC 8446 section 4.6): tickets and changes of keys.

use rustls::HandshakeType;

use super::record::RecordError;

/// Type and length.
const HEADER: usize = 4;
/// Longest message that is put together from several records: a ticket is some hundred bytes.
const MOST: usize = 16 * 1024;

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// What a session is resumed with.
    Ticket(&'a [u8]),
    /// The peer seals with its next key from now on; true: this side is asked to do so too.
    KeyUpdate(bool),
}

/// The message that says that the next record is sealed with the next key.
pub(super) const KEY_UPDATE: [u8; HEADER + 1] = [24, 0, 0, 1, 0];

/// Messages, whatever records they come in.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// The beginning of one. Hardly ever there.
    begun: Vec<u8>,
}

impl Messages {
    /// True when the next record must go on with a message.
    pub(super) fn are_begun(&self) -> bool {
        !self.begun.is_empty()
    }

    /// Takes what a record carries, and calls `each` for every message that is whole now.
    pub(super) fn take(
        &mut self,
        carried: &[u8],
        mut each: impl FnMut(Message<'_>) -> Result<(), RecordError>,
    ) -> Result<(), RecordError> {
        if carried.is_empty() {
            return Err(RecordError::Unexpected);
        }
        if !self.are_begun() {
            let rest = whole(carried, &mut each)?;
            self.begun.extend_from_slice(rest);
        } else {
            let mut begun = std::mem::take(&mut self.begun);
            begun.extend_from_slice(carried);
            let rest = whole(&begun, &mut each)?;
            self.begun = rest.to_vec();
        }
        if self.begun.len() > MOST { Err(RecordError::Overflow) } else { Ok(()) }
    }
}

/// Takes the messages off `bytes` that are whole.
fn whole<'a>(
    mut bytes: &'a [u8],
    each: &mut impl FnMut(Message<'_>) -> Result<(), RecordError>,
) -> Result<&'a [u8], RecordError> {
    while let Some(([kind, lengths @ ..], rest)) = bytes.split_first_chunk::<HEADER>() {
        let length = lengths.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        let kind = HandshakeType::from(*kind);
        if !matches!(kind, HandshakeType::NewSessionTicket | HandshakeType::KeyUpdate) {
            return Err(RecordError::Unexpected);
        }
        let Some((body, rest)) = rest.split_at_checked(length) else { break };
        each(match (kind, body) {
            (HandshakeType::NewSessionTicket, ticket) => Message::Ticket(ticket),
            // Nothing of the old key may come behind it (section 5.1).
            (_, _) if !rest.is_empty() => return Err(RecordError::Unexpected),
            (_, [0]) => Message::KeyUpdate(false),
            (_, [1]) => Message::KeyUpdate(true),
            (_, _) => return Err(RecordError::Decode),
        })?;
        bytes = rest;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(records: &[&[u8]]) -> Result<Vec<String>, RecordError> {
        let (mut messages, mut all) = (Messages::default(), Vec::new());
        for record in records {
            messages.take(record, |message| {
                all.push(format!("{message:?}"));
                Ok(())
            })?;
        }
        if messages.are_begun() { Err(RecordError::Decode) } else { Ok(all) }
    }

    #[test]
    fn messages_are_found_however_they_are_cut() {
        let ticket = [4, 0, 0, 3, 7, 8, 9];
        let all = [&ticket[..], &ticket, &KEY_UPDATE].concat();
        let expected = vec!["Ticket([7, 8, 9])", "Ticket([7, 8, 9])", "KeyUpdate(false)"];
        assert_eq!(taken(&[&all]).unwrap(), expected);
        for first in 1..all.len() {
            assert_eq!(taken(&[&all[..first], &all[first..]]).unwrap(), expected, "{first}");
        }
        let bytes: Vec<&[u8]> = all.chunks(1).collect();
        assert_eq!(taken(&bytes).unwrap(), expected);
        assert_eq!(taken(&[&[24, 0, 0, 1, 1]]).unwrap(), ["KeyUpdate(true)"]);
    }

    #[test]
    fn what_has_no_place_is_refused() {
        for (records, error) in [
            (&[&[][..]][..], RecordError::Unexpected),
            (&[&[1, 0, 0, 0]], RecordError::Unexpected),
            (&[&[24, 0, 0, 1, 2]], RecordError::Decode),
            (&[&[24, 0, 0, 0]], RecordError::Decode),
            (&[&[24, 0, 0, 1, 0, 4]], RecordError::Unexpected),
            (&[&[24, 0, 0, 1, 0, 24, 0, 0, 1, 0]], RecordError::Unexpected),
            (&[&[4, 255, 255, 255], &[0; 9000], &[0; 9000]], RecordError::Overflow),
            (&[&[4, 0, 0]], RecordError::Decode),
        ] {
            assert_eq!(taken(records), Err(error), "{records:?}");
        }
    }
}
